//! Statements that contain a secret, kept out of the server's log and activity view. Knows only how to be quiet.

use crate::error::Result;
use crate::session::Session;

/// What would otherwise show the text: the log by statement, duration, sample or error, and pg_stat_activity.
const QUIET: [(&str, &str); 7] = [
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_min_duration_sample", "-1"),
    ("log_transaction_sample_rate", "0"),
    ("log_min_error_statement", "panic"),
    ("debug_print_parse", "off"),
    ("track_activities", "off"),
];

impl Session {
    /// As [`Session::batch`] for a text that contains a secret. The settings are superuser's; a role that may not change
    /// them runs the statement all the same, since its server decides what is logged.
    pub async fn batch_unlogged(&self, doing: &str, sql: &str) -> Result<()> {
        let calls: Vec<String> =
            QUIET.iter().map(|(k, v)| format!("set_config('{k}', '{v}', false)")).collect();
        if let Err(e) = self.text_rows(doing, &format!("SELECT {}", calls.join(", "))).await {
            tracing::debug!(error = %e, "cannot keep a statement from the server's log");
        }
        let result = self.batch(doing, sql).await;
        let resets: String = QUIET.iter().map(|(k, _)| format!("RESET {k}; ")).collect();
        if let (Err(e), Ok(())) = (self.batch(doing, &resets).await, &result) {
            tracing::debug!(error = %e, "cannot restore the session's log settings");
        }
        result
    }
}
