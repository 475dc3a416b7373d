//! The proxy's own configuration, made from pgteal.toml, and where its program and its socket are. Starts nothing.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pgteal_core::deployment::Side;
use pgteal_core::postgres::{ConnInfo, SslMode};
use serde::Serialize;

use crate::config::{Auth, ClientCert, Env, Loaded, Provider, ReadFallback};
use crate::errors::Failure;
use crate::sides;

/// The program.
pub const PROGRAM: &str = "pgteal-proxy";
/// The variable by which the proxy gets the password of its service role.
pub const PASSWORD_VARIABLE: &str = "PGTEAL_PROXY_PASSWORD";
/// The variable by which the proxy gets that role's password on green.
pub const GREEN_PASSWORD_VARIABLE: &str = "PGTEAL_PROXY_GREEN_PASSWORD";
/// What a Unix socket's path may have: `sun_path` is 108 bytes with its terminator (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

#[derive(Debug, Serialize)]
struct File {
    listen: Vec<std::net::SocketAddr>,
    unix_dir: PathBuf,
    unix_port: u16,
    state_file: PathBuf,
    initial_route: Side,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<std::net::SocketAddr>,
    blue: Server,
    green: Server,
    #[serde(skip_serializing_if = "Option::is_none")]
    reads: Option<Reads>,
    auth: Login,
    admin: Admin,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<Balancers>,
    pool: Pool,
    limits: Limits,
}

#[derive(Debug, Serialize)]
struct Server {
    host: String,
    port: u16,
    sslmode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sslrootcert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sslcert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sslkey: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sslnegotiation: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replicas: Vec<String>,
}

/// Wherever the proxy is started.
fn found(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Server {
    /// As a connection string says it, so that the proxy trusts nobody whom pgteal would not.
    fn of(info: &ConnInfo) -> Self {
        let sslmode = info.sslmode();
        // With `verify-full` it is the name that the certificate is held against.
        let address = info.hostaddr().filter(|_| sslmode != SslMode::VerifyFull);
        Self {
            host: address.map_or_else(|| info.host().to_owned(), |address| address.to_string()),
            port: info.port(),
            // The proxy has no `allow`; libpq's `prefer` is never weaker.
            sslmode: if sslmode == SslMode::Allow { SslMode::Prefer } else { sslmode }.as_str(),
            sslrootcert: info.sslrootcert().map(found),
            sslcert: info.client_certificate().map(|(cert, _)| found(cert)),
            sslkey: info.client_certificate().map(|(_, key)| found(key)),
            sslnegotiation: info.ssl_direct().then_some("direct"),
            replicas: Vec::new(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Reads {
    listen: Vec<std::net::SocketAddr>,
    fallback: ReadFallback,
    max_replica_lag_ms: u64,
}

#[derive(Debug, Serialize)]
struct Login {
    method: Auth,
    service_user: String,
    service_database: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_password_env: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    green: Option<ServiceRole>,
}

/// Who looks up verifiers on green, where that may be another one, or one with another password.
#[derive(Debug, Serialize)]
struct ServiceRole {
    service_user: String,
    service_database: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_password_env: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Admin {
    command: Vec<String>,
    read: Vec<String>,
    listen: Vec<std::net::SocketAddr>,
}

#[derive(Debug, Serialize)]
struct Tls {
    cert: PathBuf,
    key: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clientcert: Option<ClientCert>,
}

#[derive(Debug, Serialize)]
struct Balancers {
    listen: Vec<std::net::SocketAddr>,
    from: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Pool {
    server_idle_timeout: f64,
}

#[derive(Debug, Serialize)]
struct Limits {
    max_clients: u32,
    max_user_client_connections: u32,
    max_db_client_connections: u32,
    max_address_client_connections: u32,
    hold_limit_max_ms: u64,
}

/// Directory and number of the proxy's Unix socket.
///
/// # Errors
/// The path is longer than a socket's path may be.
pub fn socket(loaded: &Loaded) -> Result<(PathBuf, u16), Failure> {
    let proxy = &loaded.config.proxy;
    let dir = proxy.unix_dir.as_ref().map_or_else(|| loaded.state_dir(), |dir| loaded.resolve(dir));
    let path = dir.join(format!(".s.PGSQL.{}", proxy.unix_port));
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_BYTES {
        let reason = format!(
            "makes the socket path {} of {length} bytes, but {SOCKET_PATH_BYTES} are possible",
            path.display()
        );
        return Err(crate::config::ConfigError::Value {
            origin: loaded.path.display().to_string(),
            key: "proxy.unix_dir".into(),
            reason,
        }
        .into());
    }
    Ok((dir, proxy.unix_port))
}

/// The text of the proxy's configuration. Holds no secret.
///
/// # Errors
/// Connection strings that are none, or a socket path that is too long.
pub fn text(loaded: &Loaded, env: &Env) -> Result<String, Failure> {
    let (config, blue) = (&loaded.config.proxy, sides::blue(loaded, env)?);
    let (unix_dir, unix_port) = socket(loaded)?;
    let green = match loaded.config.green.provider {
        Provider::Existing => Server::of(&sides::existing_green(loaded, env)?),
        Provider::Local => {
            let (host, port) = sides::green_address(loaded, env)?;
            let sslmode = SslMode::Prefer.as_str();
            Server {
                host,
                port,
                sslmode,
                sslrootcert: None,
                sslcert: None,
                sslkey: None,
                sslnegotiation: None,
                replicas: Vec::new(),
            }
        }
    };
    let lookup = sides::lookup(loaded, env, Side::Blue)?;
    let password = lookup.password_for(lookup.database()).is_some();
    let there = match loaded.config.green.provider {
        Provider::Existing => Some(sides::lookup(loaded, env, Side::Green)?),
        Provider::Local => None,
    };
    let there = there.map(|info| ServiceRole {
        service_user: info.user().into(),
        service_database: info.database().into(),
        service_password_env: info.password_for(info.database()).map(|_| GREEN_PASSWORD_VARIABLE),
    });
    let (of_blue, of_green) = (config.blue_replicas.clone(), config.green_replicas.clone());
    let wants = [&of_blue, &of_green].iter().any(|replicas| !replicas.is_empty());
    let reads = (wants || !config.read_listen.is_empty()).then(|| Reads {
        listen: config.read_listen.clone(),
        fallback: config.read_fallback,
        max_replica_lag_ms: config.max_replica_lag_ms,
    });
    let file = File {
        listen: config.listen.clone(),
        unix_dir,
        unix_port,
        state_file: loaded.state_dir().join("proxy.state"),
        initial_route: Side::Blue,
        metrics: config.metrics,
        blue: Server { replicas: of_blue, ..Server::of(&blue) },
        green: Server { replicas: of_green, ..green },
        reads,
        auth: Login {
            method: config.auth,
            service_user: lookup.user().into(),
            service_database: lookup.database().into(),
            service_password_env: password.then_some(PASSWORD_VARIABLE),
            query: config.auth_query.clone(),
            green: there,
        },
        admin: Admin {
            command: config.admin_command.clone(),
            read: config.admin_read.clone(),
            listen: config.admin_listen.clone(),
        },
        tls: match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Some(Tls {
                cert: loaded.resolve(cert),
                key: loaded.resolve(key),
                client_ca: config.tls_client_ca.as_ref().map(|path| loaded.resolve(path)),
                clientcert: config.tls_client_ca.as_ref().map(|_| config.tls_clientcert),
            }),
            _ => None,
        },
        proxy_protocol: (!config.proxy_protocol_listen.is_empty()).then(|| Balancers {
            listen: config.proxy_protocol_listen.clone(),
            from: config.proxy_protocol_from.clone(),
        }),
        pool: Pool { server_idle_timeout: config.server_idle_timeout.into() },
        limits: Limits {
            max_clients: config.max_clients,
            max_user_client_connections: config.max_user_client_connections,
            max_db_client_connections: config.max_db_client_connections,
            max_address_client_connections: config.max_address_client_connections,
            hold_limit_max_ms: config.max_hold_ms,
        },
    };
    let text = toml::to_string(&file).map_err(|error| Failure::File {
        verb: "make",
        path: path(loaded),
        reason: error.to_string(),
    })?;
    Ok(format!("# Written by `pgteal proxy` from {}; changes here are lost.\n{text}", loaded.path.display()))
}

/// Where the file is written.
#[must_use]
pub fn path(loaded: &Loaded) -> PathBuf {
    loaded.state_dir().join("proxy.toml")
}

/// Makes the state directory, for us alone.
///
/// # Errors
/// What the system says.
pub fn make_state_dir(loaded: &Loaded) -> Result<PathBuf, Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = loaded.state_dir();
    // 711: the directory may hold a socket that clients of other users connect to; its files are ours alone.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir);
    made.map_err(|error| Failure::File { verb: "make", path: dir.clone(), reason: error.to_string() })?;
    Ok(dir)
}

/// Writes the file, readable for us alone.
///
/// # Errors
/// What the system says, or what is wrong with the configuration.
pub fn write(loaded: &Loaded, env: &Env) -> Result<PathBuf, Failure> {
    let (text, path) = (text(loaded, env)?, path(loaded));
    make_state_dir(loaded)?;
    let failed = |error: std::io::Error| Failure::File {
        verb: "write",
        path: path.clone(),
        reason: error.to_string(),
    };
    let temporary = path.with_extension("toml.new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&temporary, &path).map_err(failed)?;
    Ok(path)
}

/// The passwords of the proxy's service role, to be handed over by these variables of its environment.
///
/// # Errors
/// What is wrong with the configuration.
pub fn service_passwords(loaded: &Loaded, env: &Env) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut passwords = Vec::new();
    for (side, variable) in [(Side::Blue, PASSWORD_VARIABLE), (Side::Green, GREEN_PASSWORD_VARIABLE)] {
        if side == Side::Green && loaded.config.green.provider == Provider::Local {
            continue;
        }
        let lookup = sides::lookup(loaded, env, side)?;
        if let Some(password) = lookup.password_for(lookup.database()) {
            passwords.push((variable, password.reveal().to_owned()));
        }
    }
    Ok(passwords)
}

/// The proxy's program: beside ours, else in `PATH`.
///
/// # Errors
/// It is in neither place.
pub fn program(env: &Env) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let path = env.get("PATH").unwrap_or_default().to_owned();
    let candidates = beside.into_iter().chain(std::env::split_paths(&path));
    let found = candidates.map(|dir| dir.join(PROGRAM)).find(|program| program.is_file());
    found.ok_or_else(|| Failure::NoProgram { program: PROGRAM.into() })
}
