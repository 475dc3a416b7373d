//! Statements that contain a secret, kept out of the server's log and activity view. Knows only how to be quiet.

use crate::error::Result;
use crate::session::Session;

/// What would otherwise show the text or its parameters: the log by statement, duration, sample or error, pg_stat_activity,
/// and what the extensions keep that many servers have loaded. A name of an extension that is not loaded is taken all the same.
const QUIET: [(&str, &str); 10] = [
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_min_duration_sample", "-1"),
    ("log_transaction_sample_rate", "0"),
    ("log_min_error_statement", "panic"),
    ("log_parameter_max_length_on_error", "0"),
    ("debug_print_parse", "off"),
    ("track_activities", "off"),
    ("pg_stat_statements.track", "none"),
    ("pgaudit.log", "none"),
];

impl Session {
    /// As [`Session::batch`] for a text that contains a secret.
    pub async fn batch_unlogged(&self, doing: &str, sql: &str) -> Result<()> {
        self.unlogged(self.batch(doing, sql)).await
    }

    /// Does `work`, which sends a secret over this session in a text or as a parameter, with the server told to keep it to
    /// itself. The settings are superuser's; a role that may not change them does the work all the same, since its server
    /// decides what is logged.
    pub async fn unlogged<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let calls: Vec<String> =
            QUIET.iter().map(|(k, v)| format!("set_config('{k}', '{v}', false)")).collect();
        let doing = "keeping a secret out of the server's log";
        if let Err(e) = self.text_rows(doing, &format!("SELECT {}", calls.join(", "))).await {
            tracing::debug!(error = %e, "cannot keep a statement from the server's log");
        }
        let result = work.await;
        let resets: String = QUIET.iter().map(|(k, _)| format!("RESET {k}; ")).collect();
        if let (Err(e), true) = (self.batch(doing, &resets).await, result.is_ok()) {
            tracing::debug!(error = %e, "cannot restore the session's log settings");
        }
        result
    }
}
