//! The text of a new pgteal.toml, every default spelled out in a comment, and the SQL for the tool's own role.

use std::path::Path;

use super::{Answers, Green};
use crate::config::{DEFAULT_STATE_DIR, Provider, Proxy, Replication, Switch};

/// A TOML string literal.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(super) fn config(answers: &Answers) -> String {
    let green = match &answers.green {
        Green::Existing { conninfo } => existing(conninfo),
        Green::Local { bindir, data_dir, port, os_user } => {
            local(&bindir.display().to_string(), &data_dir.display().to_string(), *port, os_user.as_deref())
        }
    };
    format!(
        r#"# pgteal.toml: one deployment. `pgteal config schema` describes every key.
# Every single value can be given by environment as well: PGTEAL_<TABLE>_<KEY>, e.g. PGTEAL_SWITCH_DEADLINE_MS.
# Commented keys show their defaults.

[deployment]
name = {name}
# Journal and proxy files. Never on blue's disk.
{state_dir}

[blue]
# The cluster that serves now. A superuser role of the tool's own, without a password here: give it by
# PGTEAL_BLUE_PASSWORD, by password_file or by .pgpass.
conninfo = {blue}
# How green's server reaches blue, when that differs:
# replication_conninfo = "postgresql://pgteal@10.0.0.1:5432/postgres"
# password_file = "blue.password"

{green}
{proxy}
{switch}
{replication}
# A finding that you have looked at and accept:
# [[checks.waivers]]
# check = "unlogged-tables"
# object = "app.public.cache"
# reason = "refilled at start"
# expires = "2030-12-31"
"#,
        name = quoted(&answers.name),
        state_dir = state_dir(answers.state_dir.as_deref()),
        blue = quoted(&answers.blue),
        proxy = proxy(),
        switch = switch(),
        replication = replication(),
    )
}

fn state_dir(own: Option<&Path>) -> String {
    match own {
        Some(dir) => format!("state_dir = {}", quoted(&dir.display().to_string())),
        None => format!("# state_dir = {}", quoted(DEFAULT_STATE_DIR)),
    }
}

fn existing(conninfo: &str) -> String {
    format!(
        r#"[green]
# An empty server of the new version. pgteal never removes it.
provider = "existing"
# The password by PGTEAL_GREEN_PASSWORD, by password_file or by .pgpass.
conninfo = {}
# How blue's server reaches green, when that differs:
# replication_conninfo = "postgresql://pgteal@10.0.0.2:5432/postgres"
# password_file = "green.password"
# bindir = "/usr/lib/postgresql/18/bin"
"#,
        quoted(conninfo)
    )
}

fn local(bindir: &str, data_dir: &str, port: u16, os_user: Option<&str>) -> String {
    let os_user = match os_user {
        Some(user) => {
            format!("# Who runs it; PostgreSQL refuses to run as root.\nos_user = {}", quoted(user))
        }
        None => "# os_user = \"postgres\"".to_owned(),
    };
    format!(
        r#"[green]
# pgteal makes this cluster with initdb and runs it on this machine.
provider = "local"
bindir = {}
data_dir = {}
port = {port}
# listen = "127.0.0.1"
# unix_dir = ".pgteal"
# How blue's server reaches green, when that is not 127.0.0.1:
# replication_conninfo = "postgresql://pgteal@10.0.0.2:{port}/postgres"
{os_user}

# Settings that win over those carried from blue:
# [green.parameters]
# shared_buffers = "8GB"
"#,
        quoted(bindir),
        quoted(data_dir),
    )
}

fn proxy() -> String {
    let default = Proxy::default();
    let listen: Vec<String> = default.listen.iter().map(|address| quoted(&address.to_string())).collect();
    format!(
        r#"[proxy]
# Where clients connect from now on.
listen = [{listen}]
# unix_dir = ".pgteal"
# unix_port = {unix_port}
# tls_cert = "server.crt"
# tls_key = "server.key"
# tls_client_ca = "clients.crt"
# tls_clientcert = "optional" # or "verify-ca", "verify-full"
# proxy_protocol_listen = ["0.0.0.0:6433"]
# proxy_protocol_from = ["10.0.0.0/8"]
# read_listen = ["127.0.0.1:6435"] # every client there is a reader, sent to one of these:
# blue_replicas = ["replica.example:5432"] # also green_replicas
# read_fallback = "primary" # or "refuse", when no replica takes a reader
# max_replica_lag_ms = {max_replica_lag_ms}
# metrics = "127.0.0.1:9632"  # for Prometheus, at /metrics
# auth = "verifier"        # or "cleartext", "trust", "cert"
# auth_user = "proxy_auth"   # a role that may only ask this, see docs/proxy.md
# auth_query = "SELECT * FROM proxy_auth.lookup($1)"
# admin_command = ["ops"]    # roles that may command the proxy's console
# admin_read = ["watch"]     # roles that may look at it
# admin_listen = ["127.0.0.1:6434"]
# console_conninfo = "host=proxy1 port=6434 user=ops sslmode=verify-full sslrootcert=ca.crt" # of a proxy elsewhere
# client_conninfo = "host=proxy1 port=6432 sslmode=verify-full sslrootcert=ca.crt"
# max_clients = {max_clients}
# max_user_client_connections = 0 # not bounded; also max_db_client_connections, max_address_client_connections
# server_idle_timeout = {server_idle_timeout}
# max_hold_ms = {max_hold_ms}
"#,
        listen = listen.join(", "),
        unix_port = default.unix_port,
        max_replica_lag_ms = default.max_replica_lag_ms,
        max_clients = default.max_clients,
        server_idle_timeout = default.server_idle_timeout,
        max_hold_ms = default.max_hold_ms,
    )
}

fn switch() -> String {
    let default = Switch::default();
    format!(
        r#"[switch]
# deadline_ms = {deadline_ms}        # the cutover is unwound when it takes longer
# drain_budget_ms = {drain_budget_ms}     # clients are held this long for transactions that are still open
# on_drain = "abort"        # then: "abort" (let everybody go on), "terminate" them, or "wait" (until the deadline)
# on_pinned = "end"         # sessions that cannot be moved: "end" them, "wait" until there are none, or "abort"
# wait_ms = {wait_ms}           # wait this long for a calm moment before holding anybody
# max_lag_bytes = {max_lag_bytes}
"#,
        deadline_ms = default.deadline_ms,
        drain_budget_ms = default.drain_budget_ms,
        wait_ms = default.wait_ms,
        max_lag_bytes = default.max_lag_bytes,
    )
}

fn replication() -> String {
    let default = Replication::default();
    format!(
        r#"[replication]
# wal_fuse_bytes = {wal_fuse_bytes}   # the run stops before our slots retain more WAL than this
# copy_workers = {copy_workers}
# index_jobs = {index_jobs}
"#,
        wal_fuse_bytes = default.wal_fuse_bytes,
        copy_workers = default.copy_workers,
        index_jobs = default.index_jobs,
    )
}

/// The SQL that makes the tool's role.
pub(super) fn role_sql(provider: Provider) -> String {
    let sides = match provider {
        Provider::Existing => "blue and on green",
        Provider::Local => "blue (pgteal makes it on green)",
    };
    format!(
        r"-- On {sides}, as a superuser, with psql:
CREATE ROLE pgteal LOGIN SUPERUSER REPLICATION;
\password pgteal
ALTER ROLE pgteal SET default_transaction_read_only = off;
ALTER ROLE pgteal SET statement_timeout = 0;
ALTER ROLE pgteal SET lock_timeout = 0;
ALTER ROLE pgteal SET idle_in_transaction_session_timeout = 0;
-- and in pg_hba.conf, for the machine of pgteal and for the other server:
-- host all pgteal <address>/32 scram-sha-256
"
    )
}
