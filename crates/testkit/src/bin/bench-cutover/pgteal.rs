//! pgteal as its users run it: the released programs as child processes, `pgteal.toml`, `pgteal proxy`, `pgteal up`,
//! and `pgteal switch` as the cutover. Owns how they are called; refuses to help them in any way a user could not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use pgteal_testkit::{PortLease, Program, ProgramBuilder, wait_until};
use serde_json::Value;

use crate::arena::Arena;
use crate::contender::{Contender, Endpoint, Step};

const CONFIG: &str = "pgteal.toml";
const ROLE: &str = "CREATE ROLE pgteal SUPERUSER LOGIN";
const LISTEN_LIMIT: Duration = Duration::from_secs(20);
const UP_LIMIT: Duration = Duration::from_secs(300);
const SWITCH_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(crate) struct Pgteal {
    proxy: Option<(Program, PortLease)>,
}

#[async_trait(?Send)]
impl Contender for Pgteal {
    fn name(&self) -> &'static str {
        "pgteal"
    }

    async fn prepare(&mut self, arena: &Arena) -> Result<Endpoint> {
        arena.blue.sql(ROLE).await?;
        arena.green.sql(ROLE).await?;
        let port = PortLease::take()?;
        std::fs::write(arena.file(CONFIG), configuration(arena, port.port()))?;
        let proxy = command(arena)?.arg("proxy").spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.port()));
        wait_until("the proxy listens", LISTEN_LIMIT, async || {
            tokio::net::TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        self.proxy = Some((proxy, port));
        run(command(arena)?.args(["--json", "up"]), UP_LIMIT).await.context("pgteal up")?;
        // As for the rivals: what the copy left dirty is not written in the middle of the round.
        arena.green.sql("CHECKPOINT").await?;
        Ok(Endpoint { host: address.ip().to_string(), port: address.port() })
    }

    async fn cutover(&mut self, arena: &Arena) -> Result<Vec<Step>> {
        let said = run(command(arena)?.args(["--json", "switch"]), SWITCH_LIMIT).await?;
        steps(&said)
    }
}

fn command(arena: &Arena) -> Result<ProgramBuilder> {
    Ok(Program::product("pgteal")?.args(["--config", CONFIG]).dir(&arena.scratch))
}

async fn run(program: ProgramBuilder, bound: Duration) -> Result<String> {
    let output = program.run(bound).await?;
    let said = || output.stdout.lines().last().unwrap_or_default().to_owned();
    ensure!(output.status.success(), "pgteal ended with {}: {} {}", output.status, said(), output.stderr);
    Ok(output.stdout)
}

/// Everything that has a default has its default.
fn configuration(arena: &Arena, port: u16) -> String {
    let server = |port: u16| format!("host=127.0.0.1 port={port} user=pgteal dbname=postgres");
    format!(
        "[deployment]\nname = 'bench'\nstate_dir = 'state'\n\
         [blue]\nconninfo = '{blue}'\n\
         [green]\nprovider = 'existing'\nconninfo = '{green}'\nbindir = '{bindir}'\n\
         [proxy]\nlisten = ['127.0.0.1:{port}']\nunix_port = {port}\nauth = 'trust'\n",
        blue = server(arena.blue.port()),
        green = server(arena.green.port()),
        bindir = arena.green.distribution().bin().display(),
    )
}

/// The cutover's steps from the result object. A step's time runs from the end of the one before it, so that what is
/// looked at between two steps is counted too.
fn steps(said: &str) -> Result<Vec<Step>> {
    let result = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let result = result.filter_map(|object| object.get("result").cloned()).next_back();
    let result = result.context("pgteal switch printed no result")?;
    ensure!(result["outcome"] == "done", "pgteal switch came to {}", result["outcome"]);
    let laps = result["timeline"].as_array().context("the result has no timeline")?;
    let (mut steps, mut before) = (Vec::new(), 0.0);
    for lap in laps {
        let number = |key: &str| lap[key].as_f64().with_context(|| format!("a lap without {key}: {lap}"));
        let end = number("at_ms")? + number("took_ms")?;
        let name = lap["step"].as_str().unwrap_or_default().to_owned();
        steps.push(Step { name, ms: end - before });
        before = end;
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_two_steps_is_counted_to_the_second() {
        let said = r#"{"run": "r", "event": {}}
            {"result": {"outcome": "done", "timeline": [{"step": "hold-clients", "at_ms": 0.0, "took_ms": 2.0},
            {"step": "drain", "at_ms": 2.5, "took_ms": 1.0}]}}"#;
        let joined = said.replace("\n            {\"step\"", "{\"step\"");
        let steps = steps(&joined).unwrap();
        let found: Vec<(&str, f64)> = steps.iter().map(|step| (step.name.as_str(), step.ms)).collect();
        assert_eq!(found, [("hold-clients", 2.0), ("drain", 1.5)]);
        assert!(super::steps("{}").is_err());
    }
}
