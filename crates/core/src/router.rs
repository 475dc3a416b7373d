//! Owns the contract with whatever sends clients to a side. Refuses to know which router it is.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::{ConnInfo, ConnectFailure};
use serde::{Deserialize, Serialize};

use crate::deployment::Side;

/// What a router reports about itself, observed now and never remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterState {
    /// The side that new transactions go to.
    pub route: Side,
    /// Whether the gate is closed, and by which epoch.
    pub held_by: Option<u64>,
    /// Highest epoch the router has seen; a command with a lower one is refused.
    pub epoch: u64,
    /// Client sessions connected.
    pub clients: u64,
    /// Client sessions inside a transaction or an unanswered request.
    pub busy: u64,
    /// Client sessions that wait at the closed gate.
    #[serde(default)]
    pub waiting: u64,
    /// How long until the router ends the hold by itself.
    #[serde(default)]
    pub hold_left: Duration,
    /// Age of the oldest open client transaction.
    pub longest_transaction: Duration,
    /// The side for which idle sessions have a second upstream open, if any.
    pub warm_side: Option<Side>,
    /// Sessions whose second upstream is ready.
    pub warm: u64,
    /// Sessions that would be ended by a repoint, because they hold what cannot be carried.
    pub pinned: u64,
    /// Connections to the side that clients left, which the router still keeps: it closes them little by little.
    pub left_behind: u64,
    /// Whether it takes commands from who asked, and not only questions.
    pub takes_commands: bool,
    /// Connections that are still served by processes before this router's, which it cannot hold, as far as it knows; `None` when
    /// there is no such process.
    pub predecessor: Option<u64>,
}

/// Client sessions by what a repoint would mean to them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// They go with all that they hold.
    pub movable: u64,
    /// They are inside a transaction, which is waited for.
    pub draining: u64,
    /// Of these, the oldest transaction's age.
    pub longest: Duration,
    /// They hold what cannot be carried.
    pub pinned: Vec<Pinned>,
}

/// A client session that cannot be moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// What it holds, in words.
    pub reason: String,
    /// What the client calls itself.
    pub application_name: String,
    /// The user that logged in.
    pub user: String,
    /// Its database.
    pub database: String,
    /// Where the client is.
    pub client_addr: String,
    /// For how long that is known.
    pub since: Duration,
}

/// Outcome of preparing sessions for a repoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Sessions looked at.
    pub sessions: u64,
    /// Of these, ready to move.
    pub warm: u64,
    /// Of these, holding what cannot be carried.
    pub pinned: u64,
    /// Of these, not ready, and the first reason.
    pub failed: u64,
    /// Why the first one failed.
    pub failed_reason: Option<String>,
    /// Of these, not ready and to be ended if clients moved now: they listen, or hold advisory locks, and only need time.
    pub unready: u64,
}

/// Outcome of a drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Sessions still inside a transaction when the budget was spent.
    pub busy: u64,
    /// Sessions ended with SQLSTATE 57P01 because the policy said so.
    pub terminated: u64,
}

/// The server that a router takes for a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The identity that initdb gave its cluster.
    pub system: u64,
    /// Whether it is a standby.
    pub is_standby: bool,
}

impl Asked {
    /// What is wrong when our `side` is the primary of the cluster with the identity `ours`.
    #[must_use]
    pub fn astray(self, side: Side, ours: u64) -> Option<String> {
        let theirs = self.system;
        if theirs != ours {
            let ids = format!("system identifier {theirs}, not {ours}");
            return Some(format!("what it takes for {side} is a server of another cluster ({ids})"));
        }
        self.is_standby.then(|| format!("what it takes for {side} is a standby of {side}"))
    }
}

/// How long a router may take to ask a side.
pub const ASK_BOUND: Duration = Duration::from_secs(10);

/// What went wrong between us and a router.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RouterError {
    /// The router was not reached, or the link broke: the command may or may not have taken effect.
    #[error("router {router}: no answer to {command}: {reason}")]
    Unknown {
        /// The router's name in the configuration.
        router: String,
        /// The command that was sent.
        command: String,
        /// What the link said.
        reason: String,
    },
    /// The router does not let us in, or is not what it should be: nothing was said to it.
    #[error("router {router} was not asked for {command}: {reason}")]
    NotAdmitted {
        /// The router's name in the configuration.
        router: String,
        /// The command that was to be sent.
        command: String,
        /// What kind of failure it is.
        failure: ConnectFailure,
        /// What was said.
        reason: String,
    },
    /// The router refused the command and changed nothing.
    #[error("router {router} refused {command}: {reason}")]
    Refused {
        /// The router's name in the configuration.
        router: String,
        /// The command that was sent.
        command: String,
        /// What the router said.
        reason: String,
    },
    /// The router is of another version than we are: it knows no such command.
    #[error("router {router} is of another version, and does not understand {command}: {reason}")]
    NotUnderstood {
        /// The router's name in the configuration.
        router: String,
        /// The command that was sent.
        command: String,
        /// What the router said.
        reason: String,
    },
    /// A newer controller drives the router.
    #[error("router {router} refused {command}: {reason}")]
    StaleEpoch {
        /// The router's name in the configuration.
        router: String,
        /// The command that was sent.
        command: String,
        /// What the router said.
        reason: String,
    },
}

/// Something that sends clients to a side and can stop sending for a moment.
///
/// Every command carries the epoch and is idempotent for it; a lower epoch than the highest seen is
/// refused. Which side is *safe* to write to is never the router's business: that is the fence.
#[async_trait]
pub trait Router: Debug + Send + Sync {
    /// The name in the configuration.
    fn name(&self) -> &str;
    /// The way in that clients take, whoever they are; `None` where it has no address of its own.
    fn address(&self) -> Option<ConnInfo>;
    /// Looks at the router.
    async fn state(&self) -> Result<RouterState, RouterError>;
    /// Looks at what every client session holds; opens nothing, and disturbs nobody for longer than a question takes.
    async fn census(&self, bound: Duration) -> Result<Census, RouterError>;
    /// Whether one of its sessions has this process of the server's: so it is this router that the session came by.
    async fn leads_to(&self, backend_pid: i32) -> Result<bool, RouterError>;
    /// Which server its `side` is, provided that it could let clients in while that serves; asks there, and changes nothing.
    async fn ask(&self, side: Side, bound: Duration) -> Result<Asked, RouterError>;
    /// Opens, for each idle client session, its upstream on `to`, with settings and prepared statements.
    async fn prepare(&self, to: Side, epoch: u64, bound: Duration) -> Result<Prepared, RouterError>;
    /// Closes what `prepare` opened.
    async fn unprepare(&self, epoch: u64) -> Result<(), RouterError>;
    /// Closes the gate at transaction boundaries; the router releases by itself after `limit`.
    async fn hold(&self, epoch: u64, limit: Duration) -> Result<(), RouterError>;
    /// Waits for open transactions to end; with `terminate`, ends what is left when `budget` is spent.
    async fn drain(&self, epoch: u64, budget: Duration, terminate: bool) -> Result<Drained, RouterError>;
    /// While held: brings up to date the upstreams of sessions that changed since `prepare`.
    async fn settle(&self, epoch: u64, bound: Duration) -> Result<Prepared, RouterError>;
    /// Changes the route. Refused unless held by this epoch with no open transaction.
    async fn repoint(&self, to: Side, epoch: u64) -> Result<(), RouterError>;
    /// Opens the gate.
    async fn release(&self, epoch: u64) -> Result<(), RouterError>;
}
