//! COPY of 500 MB out of the server, by psql, to nowhere. Owns how long it took; refuses to look at what came.

use anyhow::{Context, Result};

use crate::arena::{Arena, DATABASE, TRUSTED};

/// Seconds of one `\copy`, as psql measures them.
pub(crate) async fn run(arena: &Arena, port: u16) -> Result<f64> {
    let conninfo = format!("host=127.0.0.1 port={port} user={TRUSTED} dbname={DATABASE}");
    let (timing, copy) = ("\\timing on", "\\copy big to '/dev/null'");
    let args = ["-X", "-v", "ON_ERROR_STOP=1", "-c", timing, "-c", copy, "-d", &conninfo];
    let said = arena.tool("psql", &args).await?;
    read(&said).with_context(|| format!("psql said {said:?}"))
}

/// `COPY 2000000` and `Time: 1234.567 ms (00:01.235)`.
fn read(said: &str) -> Option<f64> {
    said.lines().find(|line| *line == "COPY 2000000")?;
    let time = said.lines().find_map(|line| line.strip_prefix("Time: "))?;
    let milliseconds: f64 = time.split_whitespace().next()?.parse().ok()?;
    Some(milliseconds / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_copy_counts() {
        assert_eq!(read("Timing is on.\nCOPY 2000000\nTime: 1234.500 ms (00:01.235)\n"), Some(1.2345));
        assert_eq!(read("COPY 1999999\nTime: 1234.500 ms\n"), None);
        assert_eq!(read("COPY 2000000\n"), None);
    }
}
