//! HAProxy in TCP mode, all but the necessary by its defaults. Owns its file; refuses to know what passes through it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use pgteal_testkit::{Program, ProgramBuilder};

use crate::contender::{Wiring, version};

/// Its file and its command line: in the foreground, one process.
pub(crate) fn program(wiring: &Wiring, port: u16) -> Result<ProgramBuilder> {
    let file = wiring.scratch.path().join("haproxy.cfg");
    std::fs::write(&file, configuration(wiring, port))?;
    Ok(Program::file(find()?).args(["-db", "-f"]).arg(file))
}

fn configuration(wiring: &Wiring, port: u16) -> String {
    let server = match wiring.upstream.socket() {
        Some(socket) => format!("unix@{}", socket.display()),
        None => format!("127.0.0.1:{}", wiring.upstream.port),
    };
    format!(
        "global\n    maxconn {clients}\n\
         defaults\n    mode tcp\n    maxconn {clients}\n    \
         timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         frontend clients\n    bind 127.0.0.1:{port}\n    default_backend servers\n\
         backend servers\n    server blue {server}\n",
        // Two descriptors each and a few of its own must fit the limit.
        clients = wiring.sessions + 20,
    )
}

/// What to know when reading its figures.
pub(crate) fn told() -> String {
    let version = find().ok().and_then(|program| version(&program.display().to_string(), "-v"));
    let version = version.unwrap_or_else(|| "HAProxy".into());
    let version = version.split(" - ").next().unwrap_or_default();
    format!(
        "{version}: mode tcp, nbthread by its default (one a core), tune.bufsize by its default, no checks, no log"
    )
}

fn find() -> Result<PathBuf> {
    let places = ["/usr/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/sbin/haproxy"];
    let found = places.iter().map(PathBuf::from).find(|place| place.exists());
    found.with_context(|| format!("HAProxy is in none of {places:?}"))
}
