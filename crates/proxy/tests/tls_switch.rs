//! The switch with TLS and channel binding on both legs, for every kind of login that the proxy can repeat.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, dead_code)]

#[path = "auth/servers.rs"]
mod servers;
mod world;

use std::sync::Arc;

use pgteal_proxy::{Config, Proxy};
use servers::{Certs, PASSWORD};
use tokio_postgres::Client;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use world::value;

async fn client(port: u16, user: &str, ca: &[u8]) -> Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = tokio_postgres::Config::new();
    config.host("localhost").hostaddr([127, 0, 0, 1].into()).port(port);
    config.user(user).password(PASSWORD).dbname("postgres").ssl_mode(SslMode::Require);
    if user == "scram_user" {
        config.channel_binding(ChannelBinding::Require);
    }
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_sessions_move_and_stay_encrypted() {
    let certs = Certs::new();
    let (blue, green) = tokio::join!(servers::server(14, &certs), servers::server(17, &certs));
    let roles = "select format('alter role %I password %L;', rolname, rolpassword) from pg_authid where rolpassword is not null";
    green.sql(&blue.sql(roles).await.unwrap()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let side = |port| {
        format!(
            "host = \"localhost\"\nport = {port}\nsslmode = \"verify-full\"\nsslrootcert = {:?}\n",
            certs.file("ca.crt")
        )
    };
    let password = dir.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\nunix_dir = {0:?}\nstate_file = {1:?}\n[blue]\n{2}[green]\n{3}\
         [tls]\ncert = {4:?}\nkey = {5:?}\n[auth]\nservice_password_file = {6:?}\n",
        dir.path(),
        dir.path().join("state"),
        side(blue.port()),
        side(green.port()),
        certs.file("server.crt"),
        certs.file("server.key"),
        password,
    );
    std::fs::write(dir.path().join("proxy.toml"), text).unwrap();
    let proxy = Proxy::start(Config::load(&dir.path().join("proxy.toml")).unwrap()).await.unwrap();
    let console = world::console(proxy.socket().unwrap()).await;
    let port = proxy.addresses()[0].port();
    let mut clients = Vec::new();
    for user in ["scram_user", "md5_user"] {
        clients.push((user, client(port, user, &certs.ca_der).await));
    }
    for (epoch, to, major) in [(1, "green", "17"), (2, "blue", "14")] {
        for (user, client) in &clients {
            client.batch_execute(&format!("set my.own = '{user}'")).await.unwrap();
        }
        assert_eq!(value(&console, &format!("WARM {to} EPOCH {epoch}")).await, "2", "sessions");
        for command in ["HOLD EPOCH {} LIMIT 9999", "DRAIN EPOCH {} BUDGET 99", "SETTLE EPOCH {} LIMIT 999"] {
            console.simple_query(&command.replace("{}", &epoch.to_string())).await.unwrap();
        }
        assert_eq!(value(&console, &format!("REPOINT {to} EPOCH {epoch}")).await, "2", "moved");
        console.simple_query(&format!("RELEASE EPOCH {epoch}")).await.unwrap();
        for (user, client) in &clients {
            let sql = "select current_setting('server_version_num')::int / 10000 || ' ' || ssl || ' ' || session_user || ' ' \
                 || current_setting('my.own') from pg_stat_ssl where pid = pg_backend_pid()";
            assert_eq!(value(client, sql).await, format!("{major} true {user} {user}"));
            // Large both ways, so that TLS records and windows never end together.
            let text = "z".repeat(3_000_001);
            let row = client.query_one("select $1::text, repeat('y', 3000001)", &[&text]).await.unwrap();
            assert!(row.get::<_, &str>(0) == text && row.get::<_, &str>(1).len() == text.len());
        }
    }
}
