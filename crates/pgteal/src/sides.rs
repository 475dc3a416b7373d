//! From configuration to connection settings: where blue, green and a proxy elsewhere are, with which password. Opens no
//! connection.

use pgteal_core::deployment::Side;
use pgteal_core::postgres::{ConnInfo, ConnInfoError, Password, SslMode};

use crate::config::{ConfigError, Env, Loaded, Provider, Secret, password};
use crate::errors::Failure;

/// The variable that takes the password of the role that commands a proxy elsewhere.
pub const CONSOLE_PASSWORD: &str = "PGTEAL_CONSOLE_PASSWORD";

/// The variable that takes the password of the role by which the proxy looks up verifiers.
pub const AUTH_PASSWORD: &str = "PGTEAL_AUTH_PASSWORD";

/// The variable that takes a side's password.
#[must_use]
pub const fn password_variable(side: Side) -> &'static str {
    match side {
        Side::Blue => "PGTEAL_BLUE_PASSWORD",
        Side::Green => "PGTEAL_GREEN_PASSWORD",
    }
}

/// The password given for a side, if any; `.pgpass` is looked at by the connection itself.
///
/// # Errors
/// A password file that cannot be used.
pub fn given_password(loaded: &Loaded, env: &Env, side: Side) -> Result<Option<Secret>, Failure> {
    let file = match side {
        Side::Blue => loaded.config.blue.password_file.as_deref(),
        Side::Green => loaded.config.green.password_file.as_deref(),
    };
    Ok(password(env, password_variable(side), file.map(|file| loaded.resolve(file)).as_deref())?)
}

/// How pgteal reaches blue.
///
/// # Errors
/// A connection string that is none, or a password file that cannot be used.
pub fn blue(loaded: &Loaded, env: &Env) -> Result<ConnInfo, Failure> {
    read("blue.conninfo", &loaded.config.blue.conninfo, given_password(loaded, env, Side::Blue)?)
}

/// How green's server reaches blue.
///
/// # Errors
/// A connection string that is none, or a password file that cannot be used.
pub fn blue_for_green(loaded: &Loaded, env: &Env) -> Result<ConnInfo, Failure> {
    match &loaded.config.blue.replication_conninfo {
        Some(text) => read("blue.replication_conninfo", text, given_password(loaded, env, Side::Blue)?),
        None => blue(loaded, env),
    }
}

/// How pgteal reaches an existing green; for a local one its provider knows.
///
/// # Errors
/// A connection string that is none, or a password file that cannot be used.
pub fn existing_green(loaded: &Loaded, env: &Env) -> Result<ConnInfo, Failure> {
    let text = loaded.config.green.conninfo.as_deref().unwrap_or_default();
    read("green.conninfo", text, given_password(loaded, env, Side::Green)?)
}

/// How blue's server reaches an existing green, or a local one when the configuration says so.
///
/// # Errors
/// A connection string that is none, or a password file that cannot be used.
pub fn green_for_blue(loaded: &Loaded, env: &Env) -> Result<Option<ConnInfo>, Failure> {
    let green = &loaded.config.green;
    match (&green.replication_conninfo, green.provider) {
        (Some(text), Provider::Existing) => {
            read("green.replication_conninfo", text, given_password(loaded, env, Side::Green)?).map(Some)
        }
        // The role and its password on a local green are those carried from blue.
        (Some(text), Provider::Local) => {
            read("green.replication_conninfo", text, given_password(loaded, env, Side::Blue)?).map(Some)
        }
        (None, _) => Ok(None),
    }
}

/// The address at which clients reach green through the proxy.
///
/// # Errors
/// A connection string that is none.
pub fn green_address(loaded: &Loaded, env: &Env) -> Result<(String, u16), Failure> {
    let green = &loaded.config.green;
    match green.provider {
        Provider::Existing => existing_green(loaded, env).map(|info| (info.host().to_owned(), info.port())),
        Provider::Local => {
            let first = green.listen.as_deref().and_then(|list| list.split(',').next()).map(str::trim);
            let host =
                first.filter(|host| !matches!(*host, "*" | "0.0.0.0" | "::" | "")).unwrap_or("127.0.0.1");
            Ok((host.to_owned(), green.port.unwrap_or(5432)))
        }
    }
}

/// How the proxy looks up verifiers on a side: as a role of its own, or else as pgteal.
///
/// # Errors
/// A connection string that is none, or a password file that cannot be used.
pub fn lookup(loaded: &Loaded, env: &Env, side: Side) -> Result<ConnInfo, Failure> {
    let proxy = &loaded.config.proxy;
    let mut info = match (side, loaded.config.green.provider) {
        (Side::Green, Provider::Existing) => existing_green(loaded, env)?,
        // The roles of a local green and their passwords are those carried from blue.
        _ => blue(loaded, env)?,
    };
    if let Some(database) = &proxy.auth_dbname {
        info = info.with_database(database);
    } else if proxy.auth_query.is_some() && side == Side::Green {
        // What it calls was carried into the database that it was in.
        info = info.with_database(blue(loaded, env)?.database());
    }
    let Some(user) = &proxy.auth_user else { return Ok(info) };
    let file = proxy.auth_password_file.as_deref().map(|file| loaded.resolve(file));
    let secret = password(env, AUTH_PASSWORD, file.as_deref())?;
    let info = info.with_user(user);
    Ok(match secret {
        Some(secret) => info.with_password(Password::new(secret.reveal())),
        None => info,
    })
}

/// How pgteal reaches a proxy that does not run here: its console, and as its clients do; `None` when it runs here.
///
/// # Errors
/// Connection strings that are none or trust whoever answers, or a password file that cannot be used.
pub fn proxy_elsewhere(loaded: &Loaded, env: &Env) -> Result<Option<(ConnInfo, ConnInfo)>, Failure> {
    let proxy = &loaded.config.proxy;
    let (Some(console), Some(clients)) = (&proxy.console_conninfo, &proxy.client_conninfo) else {
        return Ok(None);
    };
    let file = proxy.console_password_file.as_deref().map(|file| loaded.resolve(file));
    let secret = password(env, CONSOLE_PASSWORD, file.as_deref())?;
    let console =
        verified(loaded, "proxy.console_conninfo", read("proxy.console_conninfo", console, secret)?)?;
    let clients = verified(loaded, "proxy.client_conninfo", read("proxy.client_conninfo", clients, None)?)?;
    Ok(Some((console, clients)))
}

/// Whoever stood between could command the proxy in our name, or ask us for a superuser's password.
fn verified(loaded: &Loaded, key: &'static str, info: ConnInfo) -> Result<ConnInfo, Failure> {
    if info.is_local() || matches!(info.sslmode(), SslMode::VerifyCa | SslMode::VerifyFull) {
        return Ok(info);
    }
    let reason = format!(
        "goes to {} with sslmode={}; over a network it must be verify-full, or verify-ca",
        info.address(),
        info.sslmode().as_str()
    );
    Err(ConfigError::Value { origin: loaded.path.display().to_string(), key: key.into(), reason }.into())
}

fn read(key: &'static str, text: &str, secret: Option<Secret>) -> Result<ConnInfo, Failure> {
    let wrong = |error: ConnInfoError| Failure::ConnInfo { key, error };
    let info = ConnInfo::parse(text).map_err(wrong)?;
    Ok(match secret {
        Some(secret) => info.with_password(Password::new(secret.reveal())),
        None => info,
    })
}
