//! Owns carrying to green what logical replication leaves behind: roles, databases, the schema, indexes, triggers,
//! materialized views, statistics, sequences. Refuses to know when each is done: the steps call it.

/// Keeps password verifiers out of the server's log for the transaction that follows.
pub(crate) const QUIET_LOG: &str =
    "SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1;
    SET LOCAL log_min_error_statement = 'panic'; SET LOCAL log_duration = off; ";
