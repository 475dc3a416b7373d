//! Owns the one query that asks a server what a session holds, and the reading of its answer.
//! Refuses to know when it is asked and what is done with it.
//!
//! Every name is qualified: the session's own search_path must not decide what we ask. Settings come from
//! the function behind `pg_settings` (source `session`), the others likewise from the functions behind their views, which
//! saves a third of the planning on the client's own connection; custom settings without a definition are in no catalogue
//! and are asked by name. A name that has a definition is left to the first rows: its value may be the server's own.

use std::collections::HashSet;

use super::holdings::Observed;
use super::locks::{self, Lock};
use super::prepare_text;

/// Settings that belong to a transaction, or that have rows of their own below.
const LEFT_OUT: &str = "'transaction_isolation','transaction_read_only','transaction_deferrable','role','session_authorization','seed'";

/// The query. `custom` are possible names of custom settings; `silenced` are settings whose values were changed for the
/// look itself: of these it asks what they are reset to.
pub(super) fn query(custom: &[&str], silenced: &[&str]) -> String {
    let silenced: String = silenced.iter().map(|name| format!(",'{name}'")).collect();
    let mut sql = format!(
        "WITH s AS MATERIALIZED (SELECT s.name, s.source, s.reset_val FROM pg_catalog.pg_show_all_settings() s) \
         SELECT 's', s.name, pg_catalog.current_setting(s.name) FROM s \
         WHERE s.source OPERATOR(pg_catalog.=) 'session' AND s.name OPERATOR(pg_catalog.<>) ALL (ARRAY[{LEFT_OUT}{silenced}]) \
         UNION ALL SELECT 'r', 'role', pg_catalog.current_setting('role') \
         UNION ALL SELECT 'a', 'session_authorization', session_user::pg_catalog.text \
         UNION ALL SELECT 't', c.relname::pg_catalog.text, '' FROM pg_catalog.pg_class c \
         WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
         AND c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
         AND c.relkind OPERATOR(pg_catalog.<>) ALL (ARRAY['i','I','t']::pg_catalog.\"char\"[]) \
         UNION ALL SELECT 'f', p.proname::pg_catalog.text, '' FROM pg_catalog.pg_proc p \
         WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
         AND p.pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
         UNION ALL SELECT 'c', u.name, '' FROM pg_catalog.pg_cursor() u WHERE u.is_holdable \
         UNION ALL SELECT 'l', pg_catalog.concat_ws(':', l.classid, l.objid, l.objsubid), l.mode FROM pg_catalog.pg_lock_status() l \
         WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
         UNION ALL SELECT 'n', h, '' FROM pg_catalog.pg_listening_channels() h \
         UNION ALL SELECT CASE WHEN q.from_sql THEN 'q' ELSE 'p' END, q.name, \
         CASE WHEN q.from_sql THEN q.statement ELSE '' END FROM pg_catalog.pg_prepared_statement() q"
    );
    if let Some(names) = silenced.strip_prefix(',') {
        sql.push_str(&format!(
            " UNION ALL SELECT 'd', s.name, s.reset_val FROM s WHERE s.name OPERATOR(pg_catalog.=) ANY (ARRAY[{names}])"
        ));
    }
    if !custom.is_empty() {
        // Only letters, digits, `_`, `$` and `.` are collected, so the literals need no escaping.
        let names = custom.join("','");
        sql.push_str(&format!(
            " UNION ALL SELECT 'x', n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest(ARRAY['{names}']) n \
             WHERE NOT EXISTS (SELECT FROM s WHERE pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) pg_catalog.lower(n))"
        ));
    }
    sql
}

/// One row of the answer: kind, name, value (`None` is NULL).
pub(super) type Row = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// All that an answer says.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) observed: Observed,
    /// The protocol-level prepared statements that the server has.
    pub(super) listed: HashSet<Vec<u8>>,
    /// Session advisory locks, in the order in which they are taken again.
    pub(super) locks: Vec<Lock>,
}

/// Reads the answer. `silenced` are the settings that were, with the values that they had, `login` is the user that the
/// client logged in as, `plain_strings` the session's `standard_conforming_strings`.
pub(super) fn read(
    rows: Vec<Row>,
    silenced: &[(&str, Vec<u8>)],
    login: &[u8],
    plain_strings: bool,
) -> Findings {
    let mut observed = Observed::default();
    let (mut listed, mut locks) = (HashSet::new(), Vec::new());
    for (kind, name, value) in rows {
        let shown = String::from_utf8_lossy(&name).into_owned();
        match (kind.first(), value) {
            (Some(b's'), Some(value)) => observed.settings.push((name, value)),
            (Some(b'd'), Some(reset)) => {
                let had = silenced.iter().find(|(silenced, _)| silenced.as_bytes() == name);
                // What it is reset to is there again after a move.
                if let Some((_, value)) = had.filter(|(_, value)| milliseconds(value) != milliseconds(&reset))
                {
                    observed.settings.push((name, value.clone()));
                }
            }
            (Some(b'x'), Some(value))
                if !observed.settings.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) =>
            {
                observed.settings.push((name, value));
            }
            (Some(b'r'), Some(role)) if role != b"none" => observed.role = Some(role),
            (Some(b'a'), Some(user)) if user != login => observed.session_authorization = Some(user),
            (Some(b't'), _) => observed.pins.push(format!("a temporary table ({shown})")),
            (Some(b'f'), _) => observed.pins.push(format!("a temporary function ({shown})")),
            (Some(b'c'), _) => observed.pins.push(format!("a cursor WITH HOLD ({shown})")),
            (Some(b'l'), mode) => match Lock::read(&name, &mode.unwrap_or_default()) {
                Some(lock) => locks.push(lock),
                None => observed.pins.push(format!("a session advisory lock ({shown})")),
            },
            (Some(b'n'), _) => observed.channels.push(name),
            (Some(b'p'), _) => {
                listed.insert(name);
            }
            (Some(b'q'), Some(text)) => match prepare_text::find(&text, &name, plain_strings) {
                Some(statement) => observed.prepared.push((name, statement.to_vec())),
                None => observed
                    .pins
                    .push(format!("a prepared statement whose own text cannot be told ({shown})")),
            },
            _ => {}
        }
    }
    observed.channels.sort_unstable();
    locks.sort_unstable();
    if locks.len() > locks::MOST {
        observed.pins.push(format!("more than {} session advisory locks", locks::MOST));
    }
    Findings { observed, listed, locks }
}

/// A setting in milliseconds, as SHOW gives it with the largest unit that fits, or as the catalogue does without one.
fn milliseconds(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_answer_is_sorted_into_the_ledger() {
        let row = |kind: &str, name: &str, value: Option<&str>| -> Row {
            (kind.into(), name.into(), value.map(|v| v.as_bytes().to_vec()))
        };
        let rows = vec![
            row("s", "work_mem", Some("8MB")),
            row("d", "statement_timeout", Some("0")),
            row("d", "lock_timeout", Some("90000")),
            row("d", "transaction_timeout", Some("60000")),
            row("x", "app.tenant", Some("7")),
            row("x", "no.such", None),
            row("r", "role", Some("none")),
            row("a", "session_authorization", Some("app")),
            row("t", "scratch", Some("")),
            row("l", "0:43:2", Some("ShareLock")),
            row("l", "0:42:1", Some("ExclusiveLock")),
            row("l", "0:42:9", Some("ExclusiveLock")),
            row("n", "room", Some("")),
            row("p", "s1", Some("")),
            row("q", "q1", Some("PREPARE q1 AS SELECT 1")),
            row("q", "q2", Some("EXECUTE 'no'")),
        ];
        let silenced =
            [("statement_timeout", "50ms"), ("lock_timeout", "90s"), ("transaction_timeout", "1min")];
        let silenced = silenced.map(|(name, value)| (name, value.as_bytes().to_vec()));
        let Findings { observed, listed, locks } = read(rows, &silenced, b"app", true);
        let settings: Vec<_> = observed.settings.iter().map(|(n, v)| [n, v].map(|t| t.as_slice())).collect();
        assert_eq!(
            settings,
            [[&b"work_mem"[..], b"8MB"], [b"statement_timeout", b"50ms"], [b"app.tenant", b"7"]]
        );
        assert_eq!(observed.session_authorization, None);
        assert_eq!(observed.role, None);
        assert_eq!(
            observed.pins,
            [
                "a temporary table (scratch)",
                "a session advisory lock (0:42:9)",
                "a prepared statement whose own text cannot be told (q2)"
            ]
        );
        assert_eq!(locks.iter().map(Lock::to_string).collect::<Vec<_>>(), ["0:42", "0:43, shared"]);
        assert_eq!(observed.channels, [b"room"]);
        assert_eq!(observed.prepared.len(), 1);
        assert!(listed.contains(&b"s1"[..]));
    }
}
