//! Owns what a deployment is: its two sides, the direction of a switchover, and the names of
//! every object that belongs to it. Refuses to know how a server is reached or a client is routed.

use std::fmt;

pub use pgteal_saga::DeploymentId;
use serde::{Deserialize, Serialize};

/// One of the two clusters of a deployment. The names never swap: blue served when the deployment began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The cluster that served when the deployment began.
    Blue,
    /// The cluster prepared to replace it.
    Green,
}

impl Side {
    /// The other cluster of the deployment.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// The word used everywhere: in the console, in JSON, in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "blue" => Ok(Self::Blue),
            "green" => Ok(Self::Green),
            other => Err(format!("`{other}` is not a side: blue or green")),
        }
    }
}

/// Which way clients move in one switchover. `switch` is blue to green, `back` green to blue: the same
/// runbook with the sides swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// The side that is active when the switchover begins.
    pub from: Side,
    /// The side that is active when it has ended.
    pub to: Side,
}

impl Direction {
    /// The switchover of `pgteal switch`.
    pub const SWITCH: Self = Self { from: Side::Blue, to: Side::Green };
    /// The switchover of `pgteal back`.
    pub const BACK: Self = Self { from: Side::Green, to: Side::Blue };

    /// The stream that carries changes this way; it must have applied the marker before the repoint.
    #[must_use]
    pub fn stream(self) -> Stream {
        if self.from == Side::Blue { Stream::Forward } else { Stream::Reverse }
    }

    /// The stream that carries changes the other way once the switchover is done.
    #[must_use]
    pub fn opposite(self) -> Stream {
        self.stream().other()
    }
}

/// One of the two one-way logical replication streams. Never both at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Blue to green.
    Forward,
    /// Green to blue.
    Reverse,
}

impl Stream {
    /// The side that publishes.
    #[must_use]
    pub fn publisher(self) -> Side {
        match self {
            Self::Forward => Side::Blue,
            Self::Reverse => Side::Green,
        }
    }

    /// The side that subscribes.
    #[must_use]
    pub fn subscriber(self) -> Side {
        self.publisher().other()
    }

    /// The stream in the other direction.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }

    /// The suffix of the stream's object names.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Forward => "fwd",
            Self::Reverse => "rev",
        }
    }
}

/// The name that the publication, the subscription and the slot of a stream share in one database. Slot
/// names are unique in the whole cluster, so `ordinal` tells the databases apart.
#[must_use]
pub fn stream_name(id: &DeploymentId, stream: Stream, database: &DatabaseKey) -> String {
    format!("pgteal_{id}_{}_{}", stream.suffix(), database.ordinal)
}

/// One database of the deployment. The ordinal is given at plan time and frozen with the plan, so that
/// names stay short (63 bytes at most) whatever the database is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DatabaseKey {
    /// Position in the plan's list, from 0.
    pub ordinal: u32,
    /// The database's name on both sides.
    pub name: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_fit_postgres_and_tell_databases_apart() {
        let id = DeploymentId::parse("abcd2345").unwrap();
        let db = |ordinal| DatabaseKey { ordinal, name: "x".repeat(63) };
        assert_eq!(stream_name(&id, Stream::Forward, &db(0)), "pgteal_abcd2345_fwd_0");
        assert_eq!(stream_name(&id, Stream::Reverse, &db(12)), "pgteal_abcd2345_rev_12");
        assert!(stream_name(&id, Stream::Reverse, &db(u32::MAX)).len() < 63);
    }

    #[test]
    fn a_switchover_and_its_way_back_use_opposite_streams() {
        assert_eq!(Direction::SWITCH.stream(), Direction::BACK.opposite());
        assert_eq!(Direction::SWITCH.stream().publisher(), Direction::SWITCH.from);
        assert_eq!(Direction::BACK.stream().publisher(), Direction::BACK.from);
    }
}
