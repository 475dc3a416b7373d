//! What a session is for, and the limits that follow from it. Knows no server.

use std::time::Duration;

/// Small statements that are asked again and again take longer to plan than to run (PostgreSQL docs, plan_cache_mode).
const GENERIC: &str = "force_generic_plan";

/// What a session is opened for. It decides the session's timeouts and gives its `application_name`,
/// `pgteal/<word>`, by which operators and the fence recognise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose {
    word: &'static str,
    call_limit: Duration,
    lock_timeout: Option<Duration>,
    idle_in_transaction: Option<Duration>,
    plans: &'static str,
}

impl Purpose {
    /// Short, bounded operations: calls within 10 s, `lock_timeout` 100 ms, `idle_in_transaction_session_timeout`
    /// 2 s, so that a frozen controller holds nothing for long.
    pub fn control(word: &'static str) -> Self {
        Self {
            word,
            call_limit: Duration::from_secs(10),
            lock_timeout: Some(Duration::from_millis(100)),
            idle_in_transaction: Some(Duration::from_secs(2)),
            plans: GENERIC,
        }
    }

    /// Copies, dumps, index builds, ANALYZE, digests: calls within 24 h, locks waited for.
    pub fn long(word: &'static str) -> Self {
        Self {
            word,
            call_limit: Duration::from_secs(24 * 3600),
            lock_timeout: None,
            idle_in_transaction: Some(Duration::from_secs(60)),
            plans: "auto",
        }
    }

    /// A quick look that must not hang: calls within 2 s, `lock_timeout` 100 ms.
    pub fn probe(word: &'static str) -> Self {
        Self {
            word,
            call_limit: Duration::from_secs(2),
            lock_timeout: Some(Duration::from_millis(100)),
            idle_in_transaction: Some(Duration::from_secs(2)),
            plans: GENERIC,
        }
    }

    /// The same purpose with another bound for each call.
    pub fn within(mut self, limit: Duration) -> Self {
        self.call_limit = limit;
        self
    }

    /// The same purpose with another `lock_timeout`; `None` waits for ever (each call is still bounded).
    pub fn lock_timeout(mut self, limit: Option<Duration>) -> Self {
        self.lock_timeout = limit;
        self
    }

    /// The same purpose with another `idle_in_transaction_session_timeout`.
    pub fn idle_in_transaction(mut self, limit: Duration) -> Self {
        self.idle_in_transaction = Some(limit);
        self
    }

    /// The `application_name` of the session.
    pub fn application_name(&self) -> String {
        format!("pgteal/{}", self.word)
    }

    /// The bound of each call of the session.
    pub fn call_limit(&self) -> Duration {
        self.call_limit
    }

    /// Startup settings. Sent as `options`, they outrank what the role and the database set (PostgreSQL docs,
    /// "Setting Parameters"): so our own session can write where `default_transaction_read_only` fences everybody else,
    /// and text output is the same from every server.
    pub(crate) fn startup_settings(&self) -> Vec<(&'static str, String)> {
        let ms = |d: Option<Duration>| d.map_or(0, |d| d.as_millis()).to_string();
        vec![
            ("search_path", "pg_catalog,pg_temp".to_owned()),
            ("default_transaction_read_only", "off".to_owned()),
            ("default_transaction_isolation", "read\\ committed".to_owned()),
            ("synchronous_commit", "on".to_owned()),
            ("statement_timeout", "0".to_owned()),
            ("lock_timeout", ms(self.lock_timeout)),
            ("idle_in_transaction_session_timeout", ms(self.idle_in_transaction)),
            ("client_min_messages", "warning".to_owned()),
            ("row_security", "off".to_owned()),
            ("jit", "off".to_owned()),
            ("plan_cache_mode", self.plans.to_owned()),
            ("datestyle", "ISO,YMD".to_owned()),
            ("intervalstyle", "iso_8601".to_owned()),
            ("timezone", "UTC".to_owned()),
            ("extra_float_digits", "1".to_owned()),
            ("bytea_output", "hex".to_owned()),
            ("xmloption", "content".to_owned()),
            ("quote_all_identifiers", "off".to_owned()),
        ]
    }
}
