//! Owns the two sides a proxy can send clients to, the two routes by which clients ask for one of its servers, and their names.
//! Refuses to know which of them is newer, healthy or fenced: that is the controller's knowledge.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the two clusters of a deployment. The names never swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The cluster that served when the deployment was made.
    Blue,
    /// The cluster that was prepared to replace it.
    Green,
}

impl Side {
    /// The opposite side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// The word used in commands, answers, the configuration and the state file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// Reads the word, whatever its case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        if word.eq_ignore_ascii_case("blue") {
            Some(Self::Blue)
        } else if word.eq_ignore_ascii_case("green") {
            Some(Self::Green)
        } else {
            None
        }
    }
}

/// Which of a side's servers a client wants. It is known at its startup, and stays for the session's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// The one that takes writes.
    #[default]
    Write,
    /// A replica, where there is one.
    Read,
}

impl Route {
    /// The word used in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
