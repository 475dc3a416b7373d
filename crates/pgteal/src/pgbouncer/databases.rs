//! Owns what `[databases]` becomes: the one server that the proxy leads to at first. Refuses to know other sections.

use super::Draft;
use super::ini::{Entry, connection};

/// Where PgBouncer looks when a database names no host: its own socket directory.
const LOCAL: &str = "/var/run/postgresql";

/// Carries the server; false when there is none.
pub(super) fn carry(entries: &[Entry], draft: &mut Draft) -> bool {
    let mut server: Option<(String, String)> = None;
    // What leads everywhere counts most.
    let fallback = entries.iter().filter(|entry| entry.key == "*");
    for entry in fallback.chain(entries.iter().filter(|entry| entry.key != "*")) {
        let at = format!("[databases] {}", entry.key);
        let Some(settings) = connection(&entry.value) else {
            draft.leave(at, "its connection string cannot be read");
            continue;
        };
        let value = |name: &str| {
            settings
                .iter()
                .rev()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
                .filter(|v| !v.is_empty())
        };
        let there =
            (value("host").unwrap_or_else(|| LOCAL.into()), value("port").unwrap_or_else(|| "5432".into()));
        if there.0.contains(',') {
            draft.leave(at, "more than one host; the proxy leads to one server at a time");
            continue;
        }
        match &server {
            None => server = Some(there),
            Some(known) if *known == there => {}
            Some(known) => {
                let reason = format!(
                    "on {}:{}; the proxy leads all databases to {}:{}",
                    there.0, there.1, known.0, known.1
                );
                draft.leave(&at, reason);
            }
        }
        for (key, value) in &settings {
            let reason = match key.as_str() {
                "host" | "port" => continue,
                "dbname" if *value == entry.key => continue,
                "dbname" => format!("is {value} on the server, and clients have to call it so"),
                // Its value is nobody's to read.
                "user" | "password" => "every client logs in to the server as itself".into(),
                "auth_user" | "auth_query" | "auth_dbname" => {
                    "the proxy looks up verifiers in one place for all databases".into()
                }
                "pool_size" | "min_pool_size" | "reserve_pool" | "reserve_pool_size"
                | "max_db_connections" => "the proxy bounds no single database".into(),
                "pool_mode" if value == "session" => continue,
                "pool_mode" => format!("is {value}, and the proxy pools sessions only"),
                "client_encoding" | "datestyle" | "timezone" | "application_name" | "connect_query" => {
                    "what sessions begin with is their clients' or their role's (ALTER ROLE SET)".into()
                }
                _ => "is not known here".into(),
            };
            draft.leave(format!("{at} {key}"), reason);
        }
    }
    let Some((host, port)) = server else { return false };
    draft.set("blue", "host", host);
    match port.parse::<u16>() {
        Ok(port) => draft.set("blue", "port", i64::from(port)),
        Err(_) => draft.leave("[databases] port", format!("{port} is no port")),
    }
    true
}
