//! `pgteal-proxy` as its users run it: the released program with one server, everything else by its defaults. Owns its
//! file; refuses to help it in any way a user could not.

use anyhow::Result;
use pgteal_testkit::{Program, ProgramBuilder};

use crate::arena::{DATABASE, TRUSTED};
use crate::contender::{Login, Wiring};

/// Its file and its command line.
pub(crate) fn program(wiring: &Wiring, port: u16) -> Result<ProgramBuilder> {
    let file = wiring.scratch.path().join("pgteal-proxy.toml");
    // Whoever is started anew has no past.
    let state = wiring.scratch.path().join(format!("pgteal-proxy-{port}.state"));
    std::fs::write(&file, configuration(wiring, port, &state.display().to_string()))?;
    Ok(Program::product("pgteal-proxy")?.arg("--config").arg(file))
}

fn configuration(wiring: &Wiring, port: u16, state: &str) -> String {
    let Wiring { upstream, login, sessions, .. } = wiring;
    let method = match login {
        Login::Trust => "trust",
        Login::Scram { .. } => "verifier",
    };
    format!(
        "listen = ['127.0.0.1:{port}']\nstate_file = '{state}'\n\
         [blue]\nhost = '{host}'\nport = {server}\nsslmode = 'disable'\n\
         [auth]\nmethod = '{method}'\nservice_user = '{TRUSTED}'\nservice_database = '{DATABASE}'\n\
         [limits]\nmax_clients = {clients}\n",
        host = upstream.host(),
        server = upstream.port,
        clients = sessions + 100,
    )
}

/// What to know when reading its figures.
pub(crate) fn told() -> String {
    "one server, no TLS to it, the rest by its defaults; for SCRAM it looks up secrets at the server".into()
}
