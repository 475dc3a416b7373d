//! Owns what each setting of `[pgbouncer]` becomes. Refuses to know databases.

use std::net::IpAddr;
use std::path::Path;

use toml::Value;

use super::Draft;
use super::ini::Entry;

/// Settings without a counterpart, by what they have in common.
const NO_COUNTERPART: &[(&str, &[&str])] = &[
    (
        "the proxy logs to standard error; RUST_LOG says how much",
        &[
            "logfile",
            "syslog",
            "syslog_facility",
            "syslog_ident",
            "log_connections",
            "log_disconnections",
            "log_pooler_errors",
            "log_stats",
            "stats_period",
            "verbose",
            "quiet",
        ],
    ),
    (
        "whoever starts the proxy says as whom and keeps its process id",
        &["pidfile", "user", "daemon", "service_name", "job_name"],
    ),
    (
        "the proxy opens a server connection when a client needs one, and none ahead",
        &[
            "min_pool_size",
            "reserve_pool_size",
            "reserve_pool_timeout",
            "server_round_robin",
            "server_fast_close",
        ],
    ),
    (
        "sessions have their own server connections, and there are as many as clients",
        &[
            "max_db_connections",
            "max_user_connections",
            "max_db_client_connections",
            "max_user_client_connections",
        ],
    ),
    (
        "the proxy ends no statement and no idle client; statement_timeout and idle_session_timeout of the server do",
        &[
            "query_timeout",
            "query_wait_timeout",
            "client_idle_timeout",
            "idle_transaction_timeout",
            "transaction_timeout",
            "query_wait_notify",
            "cancel_wait_timeout",
        ],
    ),
    (
        "a connection is looked at before it is given to a client, without a query",
        &["server_check_query", "server_check_delay", "server_reset_query_always", "server_login_retry"],
    ),
    (
        "what a client says at its start is told to the server as it is",
        &[
            "ignore_startup_parameters",
            "track_extra_parameters",
            "application_name_add_host",
            "disable_pqexec",
        ],
    ),
    (
        "sockets and buffers are the proxy's own affair",
        &[
            "pkt_buf",
            "listen_backlog",
            "sbuf_loopcnt",
            "max_packet_size",
            "so_reuseport",
            "tcp_defer_accept",
            "tcp_socket_buffer",
            "tcp_keepalive",
            "tcp_keepcnt",
            "tcp_keepidle",
            "tcp_keepintvl",
            "tcp_user_timeout",
            "peer_id",
        ],
    ),
    (
        "names are resolved by the system at each connection",
        &["dns_max_ttl", "dns_zone_check_period", "dns_nxdomain_ttl", "resolv_conf"],
    ),
    (
        "the proxy's TLS is 1.2 and 1.3 with the library's own choice of ciphers",
        &[
            "client_tls_protocols",
            "client_tls_ciphers",
            "client_tls13_ciphers",
            "client_tls_dheparams",
            "client_tls_ecdhcurve",
            "server_tls_protocols",
            "server_tls_ciphers",
            "server_tls13_ciphers",
        ],
    ),
    ("the proxy pools sessions only", &["max_prepared_statements"]),
    (
        "the proxy has no list of clients' addresses; a firewall or the server has",
        &["auth_hba_file", "auth_ident_file"],
    ),
    ("the console is for commanding; SHOW is for whoever may enter it", &["stats_users"]),
    ("databases come and go on the server", &["autodb_idle_timeout"]),
    ("a hold has a limit of its own, which its driver gives", &["suspend_timeout"]),
    ("the socket is open to all, and logins are asked for", &["unix_socket_mode", "unix_socket_group"]),
];

/// Carries what can be carried, and names the rest.
pub(super) fn carry(entries: &[Entry], draft: &mut Draft) {
    for (n, entry) in entries.iter().enumerate() {
        let again = entries.iter().skip(n + 1).any(|later| later.key == entry.key);
        if again {
            draft.leave(at(&entry.key), "said again further on, and the last one counts");
        } else {
            one(&entry.key, &entry.value, draft);
        }
    }
    let value =
        |key: &str| entries.iter().rev().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    listen(value("listen_addr"), value("listen_port"), value("unix_socket_dir"), draft);
    client_tls(value("client_tls_sslmode").unwrap_or("disable"), &value, draft);
}

fn at(key: &str) -> String {
    format!("[pgbouncer] {key}")
}

fn one(key: &str, value: &str, draft: &mut Draft) {
    let names = || value.split(',').map(str::trim).filter(|name| !name.is_empty());
    match key {
        // Read together, when all are known.
        "listen_addr" | "listen_port" | "unix_socket_dir" => {}
        "client_tls_sslmode" | "client_tls_cert_file" | "client_tls_key_file" | "client_tls_ca_file" => {}
        "auth_type" => auth(value, draft),
        "auth_file" => auth_file(value, draft),
        "auth_user" => {
            draft.set("auth", "service_user", value);
            let reason = "carried, but for its password: name a file that holds it in service_password_file";
            draft.leave(at(key), reason);
        }
        "auth_query" => draft.set("auth", "query", value),
        "auth_dbname" => draft.set("auth", "service_database", value),
        "admin_users" => draft.set("admin", "users", names().map(Value::from).collect::<Vec<_>>()),
        "server_tls_sslmode" => draft.set("blue", "sslmode", if value == "allow" { "prefer" } else { value }),
        "server_tls_ca_file" => draft.set("blue", "sslrootcert", value),
        "server_tls_cert_file" => draft.set("blue", "sslcert", value),
        "server_tls_key_file" => draft.set("blue", "sslkey", value),
        "max_client_conn" => number("limits", "max_clients", key, value, draft),
        "default_pool_size" => number("pool", "default_pool_size", key, value, draft),
        "client_login_timeout" => seconds_as_ms("client_login_ms", key, value, draft),
        "server_connect_timeout" => seconds_as_ms("upstream_login_ms", key, value, draft),
        "server_lifetime" => seconds("server_lifetime", key, value, draft),
        // There 0 is for ever, and here that nobody waits for the next client.
        "server_idle_timeout" if value.parse() == Ok(0.0) => {
            draft.set("pool", "server_idle_timeout", 86_400.0);
            draft.leave(at(key), "0 is for ever there; a day is what the file says");
        }
        "server_idle_timeout" => seconds("server_idle_timeout", key, value, draft),
        "pool_mode" if value == "session" => {}
        "pool_mode" => draft.leave(at(key), format!("is {value}, and the proxy pools sessions only")),
        "server_reset_query" if value.trim_end_matches(';').eq_ignore_ascii_case("discard all") => {}
        "server_reset_query" => draft.leave(at(key), "the proxy asks every server to DISCARD ALL"),
        _ => {
            let known = NO_COUNTERPART.iter().find(|(_, keys)| keys.contains(&key));
            draft.leave(at(key), known.map_or("is not known here", |(reason, _)| reason));
        }
    }
}

fn auth(value: &str, draft: &mut Draft) {
    let method = match value {
        "trust" => "trust",
        // Both ask for what fits the verifier that there is.
        "md5" | "scram-sha-256" => "verifier",
        "plain" => "cleartext",
        "cert" => "cert",
        "any" => return draft.leave(at("auth_type"), "is any: the proxy lets nobody in as somebody else"),
        "hba" => return draft.leave(at("auth_type"), "is hba: the proxy has one method for all clients"),
        other => return draft.leave(at("auth_type"), format!("is {other}, which the proxy does not speak")),
    };
    draft.set("auth", "method", method);
}

/// Whose passwords were in a file of their own.
fn auth_file(path: &str, draft: &mut Draft) {
    let text = std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let names: Vec<_> =
        text.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next()).collect();
    let whose = match names.len() {
        0 => "its users".to_owned(),
        _ => names.join(", "),
    };
    let reason = format!(
        "passwords are looked up on the server, by auth_user or else the role pgteal; {whose} must be roles there"
    );
    draft.leave(at("auth_file"), reason);
}

fn listen(addresses: Option<&str>, port: Option<&str>, unix_dir: Option<&str>, draft: &mut Draft) {
    let port = match port.unwrap_or("6432").parse::<u16>() {
        Ok(port) => port,
        Err(_) => return draft.leave(at("listen_port"), "is no port"),
    };
    let mut listen = Vec::new();
    for address in
        addresses.unwrap_or_default().split(',').map(str::trim).filter(|address| !address.is_empty())
    {
        match address {
            "*" => {
                listen.push(format!("0.0.0.0:{port}"));
                draft.leave(at("listen_addr"), "* has IPv6 as well, the file has IPv4 alone");
            }
            "localhost" => listen.push(format!("127.0.0.1:{port}")),
            _ => match address.parse::<IpAddr>() {
                Ok(address) => listen.push(std::net::SocketAddr::new(address, port).to_string()),
                Err(_) => {
                    draft.leave(at("listen_addr"), format!("{address} is a name; the proxy takes addresses"))
                }
            },
        }
    }
    // Who listens nowhere listens in PgBouncer's own directory.
    let dir = match unix_dir {
        Some("") => None,
        None if listen.is_empty() => Some("/tmp"),
        dir => dir,
    };
    if let Some(dir) = dir {
        match dir.strip_prefix('@') {
            Some(_) => {
                draft.leave(at("unix_socket_dir"), "is an abstract socket, which the proxy does not have")
            }
            None => {
                draft.set("", "unix_dir", dir);
                draft.set("", "unix_port", i64::from(port));
            }
        }
    }
    // `localhost` may be there by its address as well.
    let mut seen = std::collections::HashSet::new();
    listen.retain(|address| seen.insert(address.clone()));
    draft.set("", "listen", listen);
}

fn client_tls<'a>(mode: &str, value: &impl Fn(&str) -> Option<&'a str>, draft: &mut Draft) {
    let files = ["client_tls_cert_file", "client_tls_key_file", "client_tls_ca_file"];
    let (cert, key) = (value("client_tls_cert_file"), value("client_tls_key_file"));
    let (Some(cert), Some(key)) = (cert, key) else {
        let given = files.into_iter().filter(|file| value(file).is_some());
        given
            .for_each(|file| draft.leave(at(file), "a certificate needs its key, and a key its certificate"));
        if mode != "disable" {
            draft.leave(at("client_tls_sslmode"), format!("is {mode}, and there is no certificate"));
        }
        return;
    };
    if mode == "disable" {
        let given = files.into_iter().filter(|file| value(file).is_some());
        return given.for_each(|file| draft.leave(at(file), "client_tls_sslmode is disable"));
    }
    draft.set("tls", "cert", cert);
    draft.set("tls", "key", key);
    draft.set("tls", "required", !matches!(mode, "allow" | "prefer"));
    let asks =
        matches!(mode, "verify-ca" | "verify-full") || draft.get("auth", "method") == Some(&"cert".into());
    match value("client_tls_ca_file") {
        Some(ca) if asks => {
            draft.set("tls", "client_ca", ca);
            // PgBouncer compares names by auth_type cert alone.
            if matches!(mode, "verify-ca" | "verify-full") {
                draft.set("tls", "clientcert", "verify-ca");
            }
        }
        Some(_) => draft.leave(at("client_tls_ca_file"), "no client is asked for a certificate"),
        None if asks => {
            draft.leave(at("client_tls_sslmode"), "clients' certificates need client_tls_ca_file")
        }
        None => {}
    }
}

fn number(section: &str, to: &str, key: &str, value: &str, draft: &mut Draft) {
    match value.parse::<u32>() {
        Ok(number) => draft.set(section, to, i64::from(number)),
        Err(_) => draft.leave(at(key), format!("{value} is no number")),
    }
}

fn seconds(to: &str, key: &str, value: &str, draft: &mut Draft) {
    match value.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 && seconds.is_finite() => draft.set("pool", to, seconds),
        _ => draft.leave(at(key), format!("{value} is no number of seconds")),
    }
}

fn seconds_as_ms(to: &str, key: &str, value: &str, draft: &mut Draft) {
    match value.parse::<f64>() {
        Ok(0.0) => draft.leave(at(key), "is 0, no bound; the proxy keeps its own"),
        Ok(seconds) if (0.0..=31_536_000.0).contains(&seconds) => {
            draft.set("limits", to, (seconds * 1000.0) as i64);
        }
        _ => draft.leave(at(key), format!("{value} is no number of seconds")),
    }
}
