//! Advice about servers, their provider and the proxy.

use pgteal_core::postgres::{ConnectFailure, Error};
use pgteal_core::providers::ProviderError;
use pgteal_core::router::RouterError;

use super::{Advice, UNTOUCHED};
use crate::exit::Exit;

const UNSURE: &str = "what was being done may have happened; both clusters keep every acknowledged commit";

pub(super) const START_PROXY: &str = "start it with: pgteal proxy; if it runs elsewhere, see that it does, at the address in \
    proxy.console_conninfo and proxy.client_conninfo";
pub(super) const ENTER_PROXY: &str = "run pgteal as the system user that runs the proxy; to one that runs elsewhere give the \
    password of the role in proxy.console_conninfo, by PGTEAL_CONSOLE_PASSWORD, proxy.console_password_file or .pgpass, and \
    have that role in the proxy's admin_command";

/// Within one journal epochs only rise, so a proxy that has seen a higher one saw it from another journal. Whether that one's
/// controller lives no proxy can tell, so nobody is outbid by himself: the operator decides.
pub(super) const OTHER_JOURNAL: &str = "another journal drove this proxy, or does: if its pgteal is at work, leave the proxy to it, \
    or go on from its state directory; if it is gone for good and blue serves, stop the proxy, move its state_file (proxy.state \
    in the state directory) away and start it again, on blue: pgteal proxy; then give the command again";

/// Advice about one server.
pub(super) fn server(error: &Error, what: String) -> Advice {
    let (code, exit, object, data, next) = match error {
        Error::ConnInfo(_) => (
            "conninfo",
            Exit::Usage,
            "connection settings".to_owned(),
            UNTOUCHED,
            "correct them in pgteal.toml or in the PG* environment".to_owned(),
        ),
        Error::Connect { server, address, failure, .. } => {
            let (code, next) = match (server.as_str(), failure) {
                ("proxy", ConnectFailure::Unreachable) => ("proxy-unreachable", START_PROXY.to_owned()),
                ("proxy", ConnectFailure::Tls) => (
                    "proxy-tls",
                    "correct sslmode and sslrootcert of proxy.client_conninfo, or the certificate that the proxy shows"
                        .to_owned(),
                ),
                ("proxy", _) => (
                    "proxy-login",
                    "give its password by PGTEAL_BLUE_PASSWORD or a line of .pgpass; if it is given, let pgteal's role in \
                     through the proxy as clients are let in: see [proxy] auth"
                        .to_owned(),
                ),
                _ => connect(server, *failure),
            };
            (code, Exit::Unreachable, format!("server {server} at {address}"), UNTOUCHED, next)
        }
        Error::Statement(said) => (
            "server-refused",
            Exit::Blocked,
            format!("server {}, database {}", said.place.server, said.place.database),
            UNTOUCHED,
            "settle what the server says, then run the command again".to_owned(),
        ),
        Error::TimedOut { place, .. } | Error::Lost { place, .. } | Error::NotReached { place, .. } => (
            "server-lost",
            Exit::Unreachable,
            format!("server {}, database {}", place.server, place.database),
            UNSURE,
            "see that it runs and is not overloaded, then run the command again".to_owned(),
        ),
        Error::Foreign { object, .. } => (
            "foreign-object",
            Exit::Blocked,
            object.clone(),
            UNTOUCHED,
            "find out whose it is; if nobody needs it, drop it, then run the command again".to_owned(),
        ),
        Error::Unexpected { place, .. } => (
            "unexpected",
            Exit::Internal,
            format!("server {}, database {}", place.server, place.database),
            UNSURE,
            "report it with the output of the command and -v".to_owned(),
        ),
    };
    Advice { code, what, object: Some(object), data: data.into(), next, exit }
}

fn connect(server: &str, failure: ConnectFailure) -> (&'static str, String) {
    let variable = if server == "green" { "PGTEAL_GREEN_PASSWORD" } else { "PGTEAL_BLUE_PASSWORD" };
    match failure {
        ConnectFailure::Unreachable => (
            "unreachable",
            "see that PostgreSQL runs there and that no firewall stands between, then run the command again"
                .into(),
        ),
        ConnectFailure::Tls => (
            "tls",
            "correct sslmode and sslrootcert of the connection string, or the server's certificate".into(),
        ),
        ConnectFailure::Authentication => (
            "login-refused",
            format!(
                "give the right password by {variable}, password_file or .pgpass, and let the role in by pg_hba.conf"
            ),
        ),
        ConnectFailure::NoSuchDatabase => {
            ("no-database", "name a database that exists in the connection string, such as postgres".into())
        }
        ConnectFailure::NotReady => (
            "not-ready",
            "wait until it has started or has connections to spare, then run the command again".into(),
        ),
        ConnectFailure::Other => {
            ("connect", "settle what the server says, then run the command again".into())
        }
    }
}

/// Advice about whatever makes green.
pub(super) fn provider(error: &ProviderError, what: String) -> Advice {
    let (code, exit, object, data, next) = match error {
        ProviderError::Postgres(error) => return server(error, what),
        ProviderError::Foreign { object, .. } => (
            "green-foreign",
            Exit::Blocked,
            object.clone(),
            UNTOUCHED,
            "name another data_dir or server in [green], or clear that one yourself",
        ),
        ProviderError::Program { program, .. } => (
            "program-failed",
            Exit::Internal,
            program.clone(),
            "blue was not touched by it; what green has so far is ours",
            "settle what the program says, then: pgteal resume",
        ),
        ProviderError::NotStarted { data_dir, .. } => (
            "green-not-started",
            Exit::Internal,
            data_dir.display().to_string(),
            "blue was not touched by it",
            "settle what the server's log says, then: pgteal resume",
        ),
        ProviderError::File { path, .. } => (
            "file",
            Exit::Internal,
            path.display().to_string(),
            "blue was not touched by it",
            "check its rights and the room on its disk, then run the command again",
        ),
        ProviderError::Configuration(_) => (
            "green-configuration",
            Exit::Usage,
            "[green]".to_owned(),
            UNTOUCHED,
            "correct [green] in pgteal.toml",
        ),
    };
    Advice { code, what, object: Some(object), data: data.into(), next: next.into(), exit }
}

/// What is out of our reach goes on by itself.
const LET_GO: &str = "nothing was changed; if the proxy holds clients, it lets them go by itself at its own limit (max_hold_ms)";

/// Advice about a router.
pub(super) fn router(error: &RouterError, what: String) -> Advice {
    let (code, exit, router, data, next) = match error {
        RouterError::Unknown { router, .. } => {
            ("proxy-unreachable", Exit::Unreachable, router, LET_GO, START_PROXY)
        }
        RouterError::NotAdmitted { router, failure: ConnectFailure::Tls, .. } => (
            "proxy-tls",
            Exit::Unreachable,
            router,
            LET_GO,
            "correct sslmode and sslrootcert of proxy.console_conninfo, or the certificate that the proxy shows",
        ),
        RouterError::NotAdmitted { router, .. } => {
            ("proxy-login", Exit::Unreachable, router, LET_GO, ENTER_PROXY)
        }
        RouterError::Refused { router, .. } => (
            "proxy-refused",
            Exit::Blocked,
            router,
            UNTOUCHED,
            "settle what the proxy says, then run the command again",
        ),
        RouterError::NotUnderstood { router, .. } => (
            "proxy-version",
            Exit::Blocked,
            router,
            UNTOUCHED,
            "end the proxy and start it again as this version: pgteal proxy; it takes the route that it had, and clients connect \
             anew; then run the command again",
        ),
        RouterError::StaleEpoch { router, .. } => (
            "stale-epoch",
            Exit::Superseded,
            router,
            "this controller was turned away and changed nothing more",
            OTHER_JOURNAL,
        ),
    };
    Advice {
        code,
        what,
        object: Some(format!("router {router}")),
        data: data.into(),
        next: next.into(),
        exit,
    }
}
