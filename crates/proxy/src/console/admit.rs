//! Owns who may enter the console, and as what. Refuses to know how somebody proves who they are, and what commands do.

use std::sync::Arc;
use std::time::Duration;

use pgteal_wire::message::report::Report;
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::io::AsyncWriteExt;

use super::answer::Refusal;
use super::command::Command;
use crate::auth::{self, Credentials};
use crate::config::{AdminConfig, AuthMethod};
use crate::lobby::Seat;
use crate::login::{Peer, authenticate, refuse};
use crate::shared::Shared;
use crate::stats::Stats;
use crate::stream::Stream;

/// What a visitor may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Read,
    Command,
}

/// Who is in the console.
#[derive(Debug)]
pub(super) struct Visitor {
    user: String,
    role: Role,
}

impl Visitor {
    pub(super) const fn access(&self) -> &'static str {
        match self.role {
            Role::Read => "read",
            Role::Command => "command",
        }
    }

    /// # Errors
    /// A reader's command that is more than a look.
    pub(super) fn may(&self, command: &Command) -> Result<(), Refusal> {
        if self.role == Role::Command || command.only_shows() {
            return Ok(());
        }
        let user = &self.user;
        Err(Refusal::permission(format!(
            "permission denied: user \"{user}\" may look at this proxy (SHOW), and not command it; the roles of \
             admin.command may"
        )))
    }
}

fn role_of(user: &str, admin: &AdminConfig) -> Option<Role> {
    let is_in = |users: &[String]| users.iter().any(|name| name == user);
    if is_in(&admin.command) { Some(Role::Command) } else { is_in(&admin.read).then_some(Role::Read) }
}

/// Lets somebody in, if they may and prove within `limit` who they are, and serves them to their end.
pub(crate) async fn admit(
    shared: Arc<Shared>,
    stream: Stream,
    startup: StartupMessage,
    peer: Peer,
    limit: Duration,
    seat: Seat,
) {
    let user = startup.get_str("user").unwrap_or_default().to_owned();
    if matches!(peer, Peer::Us) {
        drop(seat);
        return super::serve(shared, stream, Visitor { user, role: Role::Command }).await;
    }
    let elsewhere = !shared.config.admin.listen.is_empty();
    if elsewhere && matches!(peer, Peer::Tcp(_) | Peer::Reader(_) | Peer::Balancer(_)) {
        let why = "the console is not at this address: it has its own, those of admin.listen";
        return refuse(stream, Report::fatal("28000", why)).await;
    }
    let Some(role) = role_of(&user, &shared.config.admin) else {
        let why = format!(
            "user \"{user}\" may not enter the console: over the Unix socket the system user that runs the proxy may, \
             and anywhere the roles of admin.command and admin.read"
        );
        return refuse(stream, Report::fatal("28000", why)).await;
    };
    let proven = tokio::select! {
        proven = authenticate(&shared, stream, startup, peer, limit) => proven,
        () = seat.shown_out() => return,
    };
    let Some((mut stream, startup, credentials)) = proven else { return };
    if let Err(told) = server_agrees(&shared, &startup, &credentials).await {
        Stats::count(&shared.stats.login_failures);
        let _ = stream.write_all(&told).await;
        let _ = stream.shutdown().await;
        return;
    }
    drop(seat);
    super::serve(shared, stream, Visitor { user, role }).await;
}

/// Where the proxy itself has checked nothing, because the server behind does so at every login, it is asked by a login of our
/// own. An error is what the client is told.
async fn server_agrees(
    shared: &Shared,
    startup: &StartupMessage,
    credentials: &Credentials,
) -> Result<(), Vec<u8>> {
    match shared.config.auth.method {
        AuthMethod::Verifier | AuthMethod::Cert => return Ok(()),
        AuthMethod::Trust | AuthMethod::Cleartext => {}
    }
    let user = startup.user().unwrap_or_default();
    let side = shared.gate.course().side;
    let database = shared.config.auth.service(side).database.as_bytes();
    let asked = StartupMessage::new(
        ProtocolVersion::V3_0,
        [("user", user), ("database", database), ("application_name", b"pgteal/console")],
    );
    let Some(server) = shared.server(side) else { return Ok(()) };
    let limit = shared.config.limits.upstream_login();
    match auth::log_in(server, &asked, credentials, limit).await {
        Ok(mut upstream) => {
            let mut goodbye = bytes::BytesMut::new();
            pgteal_wire::message::frontend::put_terminate(&mut goodbye);
            let _ = upstream.stream.write_all(&goodbye).await;
            Ok(())
        }
        Err(error) => {
            tracing::info!(%error, "console login refused");
            Err(error.client_bytes(user).to_vec())
        }
    }
}
