//! `pgteal.toml`: the tables, their defaults and what each key means. The doc comments here are the JSON schema's
//! descriptions. Knows neither PostgreSQL nor the workflow: other modules turn these values into a deployment.

mod bounds;
mod conninfo;
mod error;
mod keys;
mod load;
mod schema;
mod secret;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use conninfo::{hide_password, split_password};
pub use error::ConfigError;
pub use load::{DEFAULT_FILE, Env, Loaded, load, parse};
pub use schema::{PUBLISHED, schema_text};
pub use secret::{Secret, password};

/// Everything that `pgteal.toml` may say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "pgteal.toml")]
pub struct Config {
    /// The deployment: one blue and one green cluster and the proxy in front.
    pub deployment: Deployment,
    /// The cluster that serves now.
    pub blue: Blue,
    /// The cluster that pgteal prepares to replace it.
    pub green: Green,
    /// The proxy that clients connect to.
    #[serde(default)]
    pub proxy: Proxy,
    /// How a switchover behaves.
    #[serde(default)]
    pub switch: Switch,
    /// Initial sync and replication.
    #[serde(default)]
    pub replication: Replication,
    /// Recorded exceptions to checks.
    #[serde(default)]
    pub checks: Checks,
}

/// Names the deployment and says where its journal lives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// A name for people: lower-case letters, digits, `-` and `_`, at most 63 characters.
    pub name: String,
    /// Directory of the journal and of the proxy's files; relative to this file. Never put it on blue's disk.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
}

/// Where the state is, beside the configuration file, unless it says otherwise.
pub const DEFAULT_STATE_DIR: &str = ".pgteal";

fn default_state_dir() -> PathBuf {
    PathBuf::from(DEFAULT_STATE_DIR)
}

/// How to reach blue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Blue {
    /// Connection URI or `key=value` string of a superuser role of the tool's own, without a password.
    pub conninfo: String,
    /// How green's server reaches blue for replication, when that is not `conninfo`.
    #[serde(default)]
    pub replication_conninfo: Option<String>,
    /// File whose first line is the password; `PGTEAL_BLUE_PASSWORD` and `.pgpass` work as well.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// Who provides green.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// pgteal makes the cluster with initdb and runs it as processes of this machine.
    Local,
    /// An empty server that you give.
    Existing,
}

/// How green is made, or reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Green {
    /// `local`: pgteal makes the cluster. `existing`: an empty server that you give.
    pub provider: Provider,
    /// `existing` only: connection URI or `key=value` string, without a password.
    #[serde(default)]
    pub conninfo: Option<String>,
    /// How blue's server reaches green for reverse replication, when that is not the address pgteal uses.
    #[serde(default)]
    pub replication_conninfo: Option<String>,
    /// `existing` only: file whose first line is the password; `PGTEAL_GREEN_PASSWORD` and `.pgpass` work as well.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// `bin` directory of green's PostgreSQL version (initdb, pg_ctl, pg_dump). Needed by `local`; with `existing`
    /// found by version when left out.
    #[serde(default)]
    pub bindir: Option<PathBuf>,
    /// `local` only: the data directory to make; must not exist, or be empty.
    #[serde(default)]
    pub data_dir: Option<PathBuf>,
    /// `local` only: TCP port of green.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// `local` only: addresses green listens on, as PostgreSQL's `listen_addresses` (default `127.0.0.1`).
    #[serde(default)]
    pub listen: Option<String>,
    /// `local` only: directory of green's Unix socket (default: inside the state directory).
    #[serde(default)]
    pub unix_dir: Option<PathBuf>,
    /// `local` only: the operating system user that runs green, when pgteal runs as root.
    #[serde(default)]
    pub os_user: Option<String>,
    /// `local` only: server settings that win over those carried from blue, e.g. `shared_buffers = "8GB"`.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
}

/// The value of one server setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Parameter {
    /// `on` or `off`.
    Bool(bool),
    /// A number without a unit.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Anything else, as PostgreSQL writes it.
    Text(String),
}

impl std::fmt::Display for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => f.write_str(if *value { "on" } else { "off" }),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// How clients of the proxy prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// By the role's verifier on the server: SCRAM-SHA-256, or md5 where the role still has an md5 verifier.
    Verifier,
    /// Clear text over TLS, checked by the server's login.
    Cleartext,
    /// No proof at all: only for a trusted machine.
    Trust,
    /// By a certificate whose common name is the role's name; the servers have to take the proxy's word for it.
    Cert,
}

/// What the proxy asks of clients' certificates, besides the login; `clientcert` of a server's `pg_hba.conf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCert {
    /// It may be left out; one that is shown must be valid.
    Optional,
    /// It must be there.
    VerifyCa,
    /// It must be there, and its common name is the role's name.
    VerifyFull,
}

/// The proxy that clients connect to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// Addresses, `ip:port`, that clients connect to.
    pub listen: Vec<SocketAddr>,
    /// Directory of the proxy's Unix socket, through which pgteal also steers it (default: the state directory).
    pub unix_dir: Option<PathBuf>,
    /// The number in the socket's name, `.s.PGSQL.<unix_port>`.
    #[schemars(range(min = 1, max = 65535))]
    pub unix_port: u16,
    /// Certificate chain (PEM) shown to clients; needs `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// Roots (PEM) of clients' certificates; without it clients are not asked for one. Needs `tls_cert`.
    pub tls_client_ca: Option<PathBuf>,
    /// What is asked of clients' certificates over TCP.
    pub tls_clientcert: ClientCert,
    /// Further addresses, `ip:port`, for load balancers that say in the PROXY protocol (version 2) whose connections they pass on.
    pub proxy_protocol_listen: Vec<SocketAddr>,
    /// Networks of those load balancers, such as `10.0.0.0/8`; nobody else may connect there.
    pub proxy_protocol_from: Vec<String>,
    /// Further addresses, `ip:port`, where every client is a reader: it is sent to a replica of the active side.
    pub read_listen: Vec<SocketAddr>,
    /// Physical replicas of blue, `host:port`, for readers; with blue's TLS settings.
    pub blue_replicas: Vec<String>,
    /// Physical replicas of green, `host:port`; with green's TLS settings.
    pub green_replicas: Vec<String>,
    /// What becomes of a reader when no replica takes it.
    pub read_fallback: ReadFallback,
    /// A replica that is further behind than this, in milliseconds, gets no new readers; 0: however far it is.
    #[schemars(range(max = 3_600_000))]
    pub max_replica_lag_ms: u64,
    /// Address, `ip:port`, where Prometheus finds the proxy's metrics at `/metrics`, by plain HTTP and without a login.
    pub metrics: Option<SocketAddr>,
    /// How clients log in.
    pub auth: Auth,
    /// Role by which the proxy asks `auth_query`, on the side that serves: with the same password on both, as `pgteal up` carries
    /// it. Without it, it is the role of `blue.conninfo`, a superuser, that reads verifiers.
    pub auth_user: Option<String>,
    /// File whose first line is that role's password; `PGTEAL_AUTH_PASSWORD` and `.pgpass` work as well.
    pub auth_password_file: Option<PathBuf>,
    /// Query with one parameter, the user's name, that answers name and verifier of a user that may log in.
    pub auth_query: Option<String>,
    /// Database in which it is asked (default: that of `blue.conninfo`).
    pub auth_dbname: Option<String>,
    /// Roles that may give commands on the proxy's console; the system user that runs it always may, over the Unix socket.
    pub admin_command: Vec<String>,
    /// Roles that may look at the proxy's console (`SHOW`).
    pub admin_read: Vec<String>,
    /// Addresses, `ip:port`, where the console is and clients are not; over TCP it is then nowhere else. With `tls_cert` nobody
    /// comes in there without TLS, and only with it may an address be one that others reach.
    pub admin_listen: Vec<SocketAddr>,
    /// How pgteal reaches the console of a proxy that does not run here: connection URI or `key=value` string of a role of that
    /// proxy's `admin_command`, without a password. By its Unix socket when left out. Over a network `sslmode` must be
    /// `verify-full`, or `verify-ca`.
    pub console_conninfo: Option<String>,
    /// File whose first line is that role's password; `PGTEAL_CONSOLE_PASSWORD` and `.pgpass` work as well.
    pub console_password_file: Option<PathBuf>,
    /// How pgteal reaches that proxy as its clients do, to probe a write: address and TLS. It logs in as the role of
    /// `blue.conninfo` or `green.conninfo`. Needed with `console_conninfo`, and bound as that is.
    pub client_conninfo: Option<String>,
    /// Client sessions accepted at the same time.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_clients: u32,
    /// Of them, of one user; not bounded when 0.
    pub max_user_client_connections: u32,
    /// To one database; not bounded when 0.
    pub max_db_client_connections: u32,
    /// From one address; not bounded when 0.
    pub max_address_client_connections: u32,
    /// Seconds that a server connection lies idle, after `DISCARD ALL`, for the next client of the same user, database and
    /// settings; 0: each client gets one of its own, opened for it. From 5 on, `DROP DATABASE` may fail for as long after the last
    /// client has left: PostgreSQL waits 5 seconds for others to go.
    #[schemars(range(max = 86_400))]
    pub server_idle_timeout: u32,
    /// The proxy's own limit of a hold in milliseconds: it releases by itself when nobody does (I5).
    #[schemars(range(min = 100, max = 600_000))]
    pub max_hold_ms: u64,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 6432))],
            unix_dir: None,
            unix_port: 6432,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tls_clientcert: ClientCert::Optional,
            proxy_protocol_listen: Vec::new(),
            proxy_protocol_from: Vec::new(),
            read_listen: Vec::new(),
            blue_replicas: Vec::new(),
            green_replicas: Vec::new(),
            read_fallback: ReadFallback::Primary,
            max_replica_lag_ms: 10_000,
            metrics: None,
            auth: Auth::Verifier,
            auth_user: None,
            auth_password_file: None,
            auth_query: None,
            auth_dbname: None,
            admin_command: Vec::new(),
            admin_read: Vec::new(),
            admin_listen: Vec::new(),
            console_conninfo: None,
            console_password_file: None,
            client_conninfo: None,
            max_clients: 10_000,
            max_user_client_connections: 0,
            max_db_client_connections: 0,
            max_address_client_connections: 0,
            server_idle_timeout: 3,
            max_hold_ms: 60_000,
        }
    }
}

/// What becomes of a reader when no replica takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReadFallback {
    /// It is sent to the primary, and stays there.
    Primary,
    /// It is refused. A switchover to a side where no replica takes readers does not begin then.
    Refuse,
}

/// What happens to transactions that are still open when clients have been held for the drain budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDrain {
    /// Let everybody go on and unwind: nothing changes for clients, who waited for the drain budget at most.
    Abort,
    /// End them with SQLSTATE 57P01.
    Terminate,
    /// Wait for them until the deadline, with everybody held, then unwind.
    Wait,
}

/// What happens to client sessions that hold what cannot be carried to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnPinned {
    /// End them with SQLSTATE 57P01 at the switchover.
    End,
    /// Wait for `wait_ms`, with nobody held, until there are none, then unwind.
    Wait,
    /// Do not begin, or unwind.
    Abort,
}

/// How a switchover behaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Switch {
    /// Bound of the cutover in milliseconds, from hold to repoint; when it passes, everything is unwound.
    #[schemars(range(min = 100, max = 600_000))]
    pub deadline_ms: u64,
    /// How long clients are held for transactions that are still open, in milliseconds; less than `deadline_ms`. Nobody is
    /// held while one is older than half of it, for up to `wait_ms`.
    #[schemars(range(min = 0, max = 600_000))]
    pub drain_budget_ms: u64,
    /// What happens to transactions still open when the drain budget is spent, and, before anybody is held, to those still
    /// open when `wait_ms` is over.
    pub on_drain: OnDrain,
    /// What happens to sessions with temporary tables, `WITH HOLD` cursors and whatever else cannot be carried.
    pub on_pinned: OnPinned,
    /// How long to wait, before holding anybody, for a calm moment: no transaction older than half the drain budget.
    #[schemars(range(min = 0, max = 86_400_000))]
    pub wait_ms: u64,
    /// Lag above which no switchover starts.
    #[schemars(range(min = 0))]
    pub max_lag_bytes: u64,
}

impl Default for Switch {
    fn default() -> Self {
        Self {
            deadline_ms: 3_000,
            drain_budget_ms: 500,
            // One long transaction must neither be ended nor stall everybody unless the operator says so.
            on_drain: OnDrain::Abort,
            on_pinned: OnPinned::End,
            wait_ms: 60_000,
            max_lag_bytes: 16 << 20,
        }
    }
}

/// Initial sync and replication.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replication {
    /// WAL that our slots may retain on a server, in bytes, before the run is stopped to save its disk (I7).
    #[schemars(range(min = 67_108_864))]
    pub wal_fuse_bytes: u64,
    /// Tables copied at the same time in one database.
    #[schemars(range(min = 1, max = 64))]
    pub copy_workers: u32,
    /// Indexes and constraints built at the same time after the copy.
    #[schemars(range(min = 1, max = 64))]
    pub index_jobs: u32,
}

impl Default for Replication {
    fn default() -> Self {
        Self { wal_fuse_bytes: 16 << 30, copy_workers: 2, index_jobs: 2 }
    }
}

/// Recorded exceptions to checks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// One `[[checks.waivers]]` table for each exception.
    pub waivers: Vec<Waiver>,
}

/// A finding that somebody has looked at and accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The check's id, as `pgteal plan` prints it.
    pub check: String,
    /// Only findings about this object; all findings of the check when left out.
    #[serde(default)]
    pub object: Option<String>,
    /// Why it is accepted.
    pub reason: String,
    /// Last day on which the waiver counts, `YYYY-MM-DD`.
    #[schemars(with = "String", regex(pattern = r"^\d{4}-\d{2}-\d{2}$"))]
    pub expires: Date,
}
