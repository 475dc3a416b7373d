//! PgBouncer as a fair-minded administrator sets it up: its defaults, but pools that have room, no line in the log for
//! each connection, and no password to stretch. Owns its files; refuses to know what is asked through it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pgteal_testkit::{Program, ProgramBuilder};

use crate::arena::{ASKED, DATABASE, TRUSTED};
use crate::contender::{Login, Wiring, version};

/// Prepared statements in transaction mode came with this version, and are off unless asked for until 1.24.
const SHARES_PREPARED: (u32, u32) = (1, 21);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Session,
    Transaction,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Session => "session",
            Mode::Transaction => "transaction",
        }
    }
}

/// Its files and its command line.
pub(crate) fn program(wiring: &Wiring, port: u16, mode: Mode) -> Result<ProgramBuilder> {
    let file = |end: &str| wiring.scratch.path().join(format!("pgbouncer-{}.{end}", mode.name()));
    let users = match &wiring.login {
        Login::Trust => format!("\"{TRUSTED}\" \"\"\n"),
        Login::Scram { secret } => format!("\"{ASKED}\" \"{secret}\"\n"),
    };
    std::fs::write(file("users"), users)?;
    std::fs::write(file("ini"), configuration(wiring, port, mode, &file("users")))?;
    let mut program = Program::file(find()?);
    if rustix::process::geteuid().is_root() {
        program = program.args(["-u", "nobody"]);
    }
    Ok(program.arg(file("ini")))
}

fn configuration(wiring: &Wiring, port: u16, mode: Mode, users: &Path) -> String {
    let Wiring { upstream, login, sessions, .. } = wiring;
    let auth = match login {
        Login::Trust => "trust",
        Login::Scram { .. } => "scram-sha-256",
    };
    // In session mode each session needs a connection of its own. In transaction mode its default stands.
    let pool = if mode == Mode::Session { *sessions } else { 20 };
    let shared =
        if mode == Mode::Transaction && shares_prepared() { "max_prepared_statements = 200\n" } else { "" };
    format!(
        "[databases]\n\
         {DATABASE} = host={host} port={server} dbname={DATABASE}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = {auth}\nauth_file = {users}\n\
         pool_mode = {mode}\ndefault_pool_size = {pool}\nmax_client_conn = {clients}\n{shared}\
         log_connections = 0\nlog_disconnections = 0\nserver_tls_sslmode = disable\n\
         ignore_startup_parameters = extra_float_digits\n",
        host = upstream.host(),
        server = upstream.port,
        users = users.display(),
        mode = mode.name(),
        clients = sessions + 100,
    )
}

/// What to know when reading its figures.
pub(crate) fn told(mode: Mode) -> String {
    let version = find().ok().and_then(|program| version(&program.display().to_string(), "--version"));
    let version = version.unwrap_or_else(|| "PgBouncer".into());
    let of_mode = match mode {
        Mode::Session => {
            "default_pool_size = the most sessions, server_reset_query = DISCARD ALL (its default)".to_owned()
        }
        Mode::Transaction => {
            let prepared = if shares_prepared() { ", max_prepared_statements = 200" } else { "" };
            format!("default_pool_size = 20 (its default), no server_reset_query (its default){prepared}")
        }
    };
    format!(
        "{version}: pool_mode = {}, {of_mode}, one process (so_reuseport = 0), log_connections = 0, no TLS to the \
         server; for SCRAM auth_file holds the server's own secrets, so that no password is stretched",
        mode.name()
    )
}

/// Whether transaction mode can do prepared statements; Debian 12 has 1.18, which cannot.
pub(crate) fn shares_prepared() -> bool {
    let version = find().ok().and_then(|program| version(&program.display().to_string(), "--version"));
    version.and_then(|version| number(&version)).is_some_and(|number| number >= SHARES_PREPARED)
}

/// `PgBouncer 1.18.0`.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("PgBouncer ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn find() -> Result<PathBuf> {
    let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
    let found = places.iter().map(PathBuf::from).find(|place| place.exists());
    found.with_context(|| format!("PgBouncer is in none of {places:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let cases = [
            ("PgBouncer 1.18.0", false),
            ("PgBouncer 1.21.0", true),
            ("PgBouncer 1.9.0", false),
            ("2.0", false),
        ];
        for (version, shares) in cases {
            assert_eq!(number(version).is_some_and(|number| number >= SHARES_PREPARED), shares, "{version}");
        }
    }
}
