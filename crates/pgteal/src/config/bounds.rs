//! Bounds of single values (read from the schema) and contradictions between values.

use serde_json::Value;

use super::conninfo::split_password;
use super::keys;
use super::load::Origins;
use super::schema::schema;
use super::{Auth, ClientCert, Config, ConfigError, Provider, ReadFallback};

/// Checks every value.
pub(super) fn check(config: &Config, origins: &Origins) -> Result<(), ConfigError> {
    let wrong = |key: &str, reason: String| {
        Err(ConfigError::Value { origin: origins.of(key), key: key.to_owned(), reason })
    };
    ranges(config, origins)?;
    let name = &config.deployment.name;
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 63 || !name.chars().all(legal) {
        return wrong(
            "deployment.name",
            format!("is `{name}`; a name has 1 to 63 lower-case letters, digits, `-` and `_`"),
        );
    }
    passwords(config, origins)?;
    green(config, origins)?;
    let (switch, proxy) = (&config.switch, &config.proxy);
    if switch.drain_budget_ms >= switch.deadline_ms {
        return wrong(
            "switch.drain_budget_ms",
            format!(
                "is {}, but must be less than the deadline of {} ms",
                switch.drain_budget_ms, switch.deadline_ms
            ),
        );
    }
    if proxy.max_hold_ms <= switch.deadline_ms {
        return wrong(
            "proxy.max_hold_ms",
            format!(
                "is {}, but must be more than the deadline of {} ms",
                proxy.max_hold_ms, switch.deadline_ms
            ),
        );
    }
    match (&proxy.tls_cert, &proxy.tls_key) {
        (Some(_), None) => return wrong("proxy.tls_cert", "needs `proxy.tls_key`".into()),
        (None, Some(_)) => return wrong("proxy.tls_key", "needs `proxy.tls_cert`".into()),
        _ => {}
    }
    let asks = proxy.tls_clientcert != ClientCert::Optional || proxy.auth == Auth::Cert;
    if asks && proxy.tls_client_ca.is_none() {
        let key = if proxy.auth == Auth::Cert { "proxy.auth" } else { "proxy.tls_clientcert" };
        return wrong(key, "needs `proxy.tls_client_ca`".into());
    }
    if proxy.tls_client_ca.is_some() && proxy.tls_cert.is_none() {
        return wrong("proxy.tls_client_ca", "needs `proxy.tls_cert`".into());
    }
    if !proxy.proxy_protocol_listen.is_empty() && proxy.proxy_protocol_from.is_empty() {
        return wrong("proxy.proxy_protocol_listen", "needs `proxy.proxy_protocol_from`".into());
    }
    let no_replicas = proxy.blue_replicas.is_empty() && proxy.green_replicas.is_empty();
    if proxy.read_fallback == ReadFallback::Refuse && no_replicas {
        let reason = "is \"refuse\", but there are no `proxy.blue_replicas`: nobody could read";
        return wrong("proxy.read_fallback", reason.into());
    }
    let far = proxy.admin_listen.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), None) = (far, &proxy.tls_cert) {
        let reason = format!("lists {address}, which is not local and needs `proxy.tls_cert`");
        return wrong("proxy.admin_listen", reason);
    }
    for (key, given, needs, needed) in [
        (
            "console_conninfo",
            proxy.console_conninfo.is_some(),
            "client_conninfo",
            proxy.client_conninfo.is_some(),
        ),
        (
            "client_conninfo",
            proxy.client_conninfo.is_some(),
            "console_conninfo",
            proxy.console_conninfo.is_some(),
        ),
        ("auth_user", proxy.auth_user.is_some(), "auth_query", proxy.auth_query.is_some()),
        ("auth_password_file", proxy.auth_password_file.is_some(), "auth_user", proxy.auth_user.is_some()),
        (
            "console_password_file",
            proxy.console_password_file.is_some(),
            "console_conninfo",
            proxy.console_conninfo.is_some(),
        ),
    ] {
        if given && !needed {
            return wrong(&format!("proxy.{key}"), format!("needs `proxy.{needs}`"));
        }
    }
    match config.checks.waivers.iter().find(|waiver| waiver.reason.trim().is_empty()) {
        Some(waiver) => wrong("checks.waivers", format!("for `{}` gives no reason", waiver.check)),
        None => Ok(()),
    }
}

fn ranges(config: &Config, origins: &Origins) -> Result<(), ConfigError> {
    let (schema, values) = (schema(), serde_json::to_value(config).unwrap_or_default());
    for (section, keys) in keys::properties(&schema, &schema) {
        for (key, property) in keys::properties(&schema, keys) {
            let Some(value) = values.pointer(&format!("/{section}/{key}")).and_then(Value::as_u64) else {
                continue;
            };
            let bound = |name: &str| property.get(name).and_then(Value::as_u64);
            let (low, high) = (bound("minimum"), bound("maximum"));
            let reason = match (low, high) {
                (Some(low), Some(high)) if value < low || value > high => {
                    format!("is {value}, which is outside {low} .. {high}")
                }
                (Some(low), None) if value < low => format!("is {value}, which is below {low}"),
                _ => continue,
            };
            let key = format!("{section}.{key}");
            return Err(ConfigError::Value { origin: origins.of(&key), key, reason });
        }
    }
    Ok(())
}

fn passwords(config: &Config, origins: &Origins) -> Result<(), ConfigError> {
    let (blue, green, proxy) = (&config.blue, &config.green, &config.proxy);
    for (key, conninfo, env) in [
        ("blue.conninfo", Some(&blue.conninfo), "PGTEAL_BLUE_PASSWORD"),
        ("blue.replication_conninfo", blue.replication_conninfo.as_ref(), "PGTEAL_BLUE_PASSWORD"),
        ("green.conninfo", green.conninfo.as_ref(), "PGTEAL_GREEN_PASSWORD"),
        ("green.replication_conninfo", green.replication_conninfo.as_ref(), "PGTEAL_GREEN_PASSWORD"),
        ("proxy.console_conninfo", proxy.console_conninfo.as_ref(), "PGTEAL_CONSOLE_PASSWORD"),
        ("proxy.client_conninfo", proxy.client_conninfo.as_ref(), "PGTEAL_BLUE_PASSWORD"),
    ] {
        if conninfo.is_some_and(|conninfo| split_password(conninfo).1.is_some()) {
            return Err(ConfigError::PasswordInline {
                origin: origins.of(key),
                key: key.into(),
                env: env.into(),
            });
        }
    }
    Ok(())
}

fn green(config: &Config, origins: &Origins) -> Result<(), ConfigError> {
    let green = &config.green;
    let local_only = [
        ("data_dir", green.data_dir.is_some()),
        ("port", green.port.is_some()),
        ("listen", green.listen.is_some()),
        ("unix_dir", green.unix_dir.is_some()),
        ("os_user", green.os_user.is_some()),
        ("parameters", !green.parameters.is_empty()),
    ];
    let existing_only =
        [("conninfo", green.conninfo.is_some()), ("password_file", green.password_file.is_some())];
    let local_needs = [
        ("bindir", green.bindir.is_some()),
        ("data_dir", green.data_dir.is_some()),
        ("port", green.port.is_some()),
    ];
    let existing_needs = [("conninfo", green.conninfo.is_some())];
    let (needed, foreign, other) = match green.provider {
        Provider::Local => (&local_needs[..], &existing_only[..], "existing"),
        Provider::Existing => (&existing_needs[..], &local_only[..], "local"),
    };
    let provider = serde_json::to_value(green.provider).unwrap_or_default();
    for (key, set) in foreign {
        if *set {
            let key = format!("green.{key}");
            let reason = format!("belongs to provider \"{other}\", but the provider is {provider}");
            return Err(ConfigError::Value { origin: origins.of(&key), key, reason });
        }
    }
    for (key, set) in needed {
        if !*set {
            let reason = format!("is needed by provider {provider}");
            let origin = origins.of("green.provider");
            return Err(ConfigError::Value { origin, key: format!("green.{key}"), reason });
        }
    }
    Ok(())
}
