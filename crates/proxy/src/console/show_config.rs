//! Owns `SHOW CONFIG`: the values in force, without secrets. Changes nothing.

use super::answer::Answer;
use crate::config::ServerConfig;
use crate::route::Side;
use crate::shared::Shared;

pub(super) fn show_config(shared: &Shared) -> Answer {
    let config = &shared.config;
    let mut table = Answer::table(&["key", "value"]);
    let mut put = |key: &str, value: String| table.row(vec![key.into(), value]);
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    put("listen", listen.join(", "));
    let behind: Vec<String> = config.proxy_protocol.listen.iter().map(ToString::to_string).collect();
    put("proxy_protocol.listen", behind.join(", "));
    put("unix_dir", config.unix_dir.as_ref().map(|dir| dir.display().to_string()).unwrap_or_default());
    put("unix_port", config.unix_port.to_string());
    put("metrics", config.metrics.map(|address| address.to_string()).unwrap_or_default());
    put("state_file", config.state_file.display().to_string());
    put("blue", server(Some(&config.blue)));
    put("green", server(config.green.as_ref()));
    let listen: Vec<String> = config.reads.listen.iter().map(ToString::to_string).collect();
    put("reads.listen", listen.join(", "));
    put("reads.fallback", config.reads.fallback.name().into());
    put("reads.max_replica_lag_ms", config.reads.max_replica_lag_ms.to_string());
    put("reads.check_interval_ms", config.reads.check_interval_ms.to_string());
    put("auth.method", format!("{:?}", config.auth.method).to_lowercase());
    for side in [Side::Blue, Side::Green].into_iter().filter(|side| config.server(*side).is_some()) {
        let service = config.auth.service(side);
        put(&format!("auth.{side}.service_user"), service.user.to_owned());
        put(&format!("auth.{side}.service_database"), service.database.to_owned());
    }
    put("admin.command", config.admin.command.join(", "));
    put("admin.read", config.admin.read.join(", "));
    let listen: Vec<String> = config.admin.listen.iter().map(ToString::to_string).collect();
    put("admin.listen", listen.join(", "));
    if let Some(tls) = shared.login.admin_tls() {
        let cert = config.admin_tls().map(|files| files.cert.display().to_string());
        put("admin.tls.cert", cert.unwrap_or_default());
        put("admin.tls.refused", tls.refused().unwrap_or_default());
    }
    put("tls", if config.tls.is_some() { "on" } else { "off" }.into());
    if let Some((tls, files)) = shared.login.tls().zip(config.tls.as_ref()) {
        put("tls.cert", files.cert.display().to_string());
        put("tls.client_ca", files.client_ca.as_ref().map(|ca| ca.display().to_string()).unwrap_or_default());
        put("tls.clientcert", format!("{:?}", files.clientcert));
        // What is in force is what was read before.
        put("tls.refused", tls.refused().unwrap_or_default());
    }
    put("pool.server_idle_timeout", config.pool.server_idle_timeout.to_string());
    put("pool.server_lifetime", config.pool.server_lifetime.to_string());
    put("pool.default_pool_size", config.pool.default_pool_size.to_string());
    put("pool.max_idle_connections", config.pool.max_idle_connections.to_string());
    let limits = &config.limits;
    put("limits.max_clients", limits.max_clients.to_string());
    put("limits.max_user_client_connections", limits.max_user_client_connections.to_string());
    put("limits.max_db_client_connections", limits.max_db_client_connections.to_string());
    put("limits.max_address_client_connections", limits.max_address_client_connections.to_string());
    put("limits.max_unauthenticated", limits.max_unauthenticated.to_string());
    put("limits.max_held_clients", limits.max_held_clients.to_string());
    put("limits.max_held_bytes", limits.max_held_bytes.to_string());
    put("limits.max_packet_size", limits.max_packet_size.to_string());
    put("limits.client_login_ms", limits.client_login_ms.to_string());
    put("limits.upstream_login_ms", limits.upstream_login_ms.to_string());
    put("limits.warm_concurrency", limits.warm_concurrency.to_string());
    put("limits.buffer_bytes", limits.buffer_bytes.to_string());
    put("limits.prepared_bytes", limits.prepared_bytes.to_string());
    put("limits.observe_ms", limits.observe_ms.to_string());
    put("limits.fence_wait_ms", limits.fence_wait_ms.to_string());
    put("limits.hold_limit_max_ms", limits.hold_limit_max_ms.to_string());
    put("limits.shutdown_ms", limits.shutdown_ms.to_string());
    put("limits.takeover_drain_ms", limits.takeover_drain_ms.to_string());
    table
}

fn server(server: Option<&ServerConfig>) -> String {
    server
        .map(|server| format!("{}:{} sslmode={:?}", server.host, server.port, server.sslmode).to_lowercase())
        .unwrap_or_default()
}
