//! The oracle's answer in figures and first examples. Owns its shape; refuses to know how it was found.

use std::collections::BTreeMap;

use serde::Serialize;

/// What became of transactions whose COMMIT was never answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct UnknownOutcomes {
    /// Found in the database.
    pub present: u64,
    /// Not found.
    pub absent: u64,
}

/// What a run left behind, compared with what its clients were told. `lost` to `anomalies` count transactions or
/// rows that break the promise: zero each, or the run lost data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Writing transactions confirmed to a client.
    pub acknowledged: u64,
    /// Confirmed transactions of which an effect is missing: ledger entry, created row, revision or deletion.
    pub lost: u64,
    /// Transactions with an effect that is there more than once.
    pub duplicated: u64,
    /// Effects nobody was promised: of transactions that failed or were never sent.
    pub ghost: u64,
    /// Transactions whose sequence-fed number or place in the session's chain contradicts the order they were made in.
    pub reordered: u64,
    /// Rows with values that no order of the confirmed transactions explains; balances above all.
    pub wrong_values: u64,
    /// What clients noticed at once: a session that did not read its own last write, a row of its own that was not there.
    pub anomalies: u64,
    /// Transactions whose COMMIT was never answered, resolved.
    pub unknown: UnknownOutcomes,
    /// Sum of all balances minus the sum at the start; transfers conserve it.
    pub balance_difference: i64,
    /// Failed and unknown transactions by SQLSTATE (or `lost`, `limit`), and `connect <sqlstate>`.
    pub errors: BTreeMap<String, u64>,
    /// Established connections lost without the workload closing them.
    pub connections_dropped: u64,
    /// The record reached its size limit and sessions stopped early; what was recorded is still proven.
    pub truncated: bool,
    /// The first few findings in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Every acknowledged commit is there exactly once, in order, and nothing else is.
    pub fn is_sound(&self) -> bool {
        let broken =
            [self.lost, self.duplicated, self.ghost, self.reordered, self.wrong_values, self.anomalies];
        broken.iter().all(|count| *count == 0) && self.balance_difference == 0
    }

    /// Sound, and no client saw an error, an unknown outcome or a lost connection.
    pub fn is_flawless(&self) -> bool {
        let unknown = self.unknown.present + self.unknown.absent;
        self.is_sound() && self.client_errors() == 0 && unknown == 0 && self.connections_dropped == 0
    }

    /// All errors clients met.
    pub fn client_errors(&self) -> u64 {
        self.errors.values().sum()
    }
}
