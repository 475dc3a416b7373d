//! The exit codes of the command: the one list. Scripts may rely on them.

/// How a command ended, for the calling program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for is done.
    Done = 0,
    /// A defect of pgteal, or a failure of the machine it runs on (disk, memory).
    Internal = 1,
    /// The command line or the configuration is wrong; nothing was tried.
    Usage = 2,
    /// Findings stand in the way (`plan`, `up`, `switch`), or `verify` found mismatches; nothing was changed.
    Blocked = 3,
    /// The run was unwound: nothing has changed for clients.
    Unwound = 4,
    /// The run is stuck and waits for an operator; `pgteal status` says where, `pgteal resume` goes on.
    Stuck = 5,
    /// The run rests at a safe point: stopped by a signal, or waiting at a gate; `pgteal resume` goes on.
    Resting = 6,
    /// Another controller drives this deployment, or has taken it over.
    Superseded = 7,
    /// `demo`: a claim did not hold.
    ClaimFailed = 8,
    /// A server or the proxy cannot be reached or refuses the login.
    Unreachable = 9,
}

impl Exit {
    /// All codes, in order.
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::Internal,
        Self::Usage,
        Self::Blocked,
        Self::Unwound,
        Self::Stuck,
        Self::Resting,
        Self::Superseded,
        Self::ClaimFailed,
        Self::Unreachable,
    ];

    /// The number the process exits with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// One line for `--help` and the documentation.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Internal => "internal error",
            Self::Usage => "wrong command line or configuration",
            Self::Blocked => "blocked by findings or mismatches",
            Self::Unwound => "unwound: nothing has changed for clients",
            Self::Stuck => "stuck: needs an operator",
            Self::Resting => "at rest: stopped or waiting; resume goes on",
            Self::Superseded => "another controller drives this deployment",
            Self::ClaimFailed => "demo: a claim did not hold",
            Self::Unreachable => "a server or the proxy cannot be reached",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The codes as a block for `--help`.
#[must_use]
pub fn help() -> String {
    let lines = Exit::ALL.iter().map(|exit| format!("  {}  {}\n", exit.code(), exit.meaning()));
    format!("Exit codes:\n{}", lines.collect::<String>().trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_code() {
        let readme = include_str!("../../../README.md");
        let rows = Exit::ALL.map(|exit| format!("| {} | {} |", exit.code(), exit.meaning()));
        assert!(
            readme.contains(&rows.join("\n")),
            "README.md has other exit codes than:\n{}",
            rows.join("\n")
        );
    }
}
