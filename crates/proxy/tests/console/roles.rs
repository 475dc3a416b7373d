//! Who may look at the console, who may command it, and over what.

use std::path::Path;
use std::sync::Arc;

use pgteal_proxy::{Config, Proxy};
use pgteal_testkit::Cluster;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::{Client, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::servers::Certs;
use crate::world::value;

const PASSWORD: &str = "s3cret";
const ADMIN: &str = "[admin]\ncommand = [\"ops\"]\nread = [\"watch\"]\n";

/// A server that takes a password of everybody but the proxy's own role.
async fn server() -> Cluster {
    let mut builder = Cluster::builder(17);
    for user in ["ops", "watch", "app"] {
        builder = builder.hba(&format!("local all {user} scram-sha-256"));
        builder = builder.hba(&format!("host all {user} all scram-sha-256"));
    }
    let cluster = builder.start().await.unwrap();
    let role = |user| format!("create role {user} login password '{PASSWORD}';");
    let roles = ["ops", "watch", "app"].map(role).concat();
    cluster.sql(&format!("{roles} create role pgteal superuser login")).await.unwrap();
    cluster
}

async fn proxy(blue: &Cluster, dir: &Path, auth: &str, rest: &str) -> Proxy {
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\nunix_dir = {dir:?}\nstate_file = {:?}\n[blue]\nhost = {:?}\nport = {}\n\
         [auth]\n{auth}\n{rest}",
        dir.join("state"),
        blue.socket_dir(),
        blue.port(),
    );
    let path = dir.join("proxy.toml");
    std::fs::write(&path, text).unwrap();
    Proxy::start(Config::load(&path).unwrap()).await.unwrap()
}

async fn enter(port: u16, user: &str, password: &str) -> Result<Client, Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(user).password(password).dbname("pgteal");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn refusal(refused: Result<Client, Error>) -> (String, String) {
    let error = refused.map(drop).expect_err("let in");
    let db = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    (db.code().code().to_owned(), db.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_look_and_others_command() {
    let (blue, dir) = (server().await, tempfile::tempdir().unwrap());
    let proxy = proxy(&blue, dir.path(), "method = \"verifier\"", ADMIN).await;
    let port = proxy.addresses()[0].port();
    let watch = enter(port, "watch", PASSWORD).await.unwrap();
    for command in [
        "LOOK",
        "WARM green EPOCH 9",
        "COOL EPOCH 9",
        "HOLD EPOCH 9 LIMIT 1000",
        "DRAIN EPOCH 9 BUDGET 1",
        "SETTLE EPOCH 9 LIMIT 1",
        "REPOINT blue EPOCH 9",
        "RELEASE EPOCH 9",
        "RESET STATS",
        "RELOAD",
    ] {
        let error = watch.simple_query(command).await.expect_err(command);
        let db = error.as_db_error().unwrap();
        assert_eq!(db.code().code(), "42501", "{command}");
        assert!(db.message().contains("user \"watch\""), "{}", db.message());
    }
    for what in ["STATE", "SESSIONS", "ROUTES", "UPSTREAMS", "HELD", "STATS", "CONFIG", "VERSION", "HELP"] {
        watch.simple_query(&format!("SHOW {what}")).await.unwrap();
    }
    let state = watch.simple_query("SHOW STATE").await.unwrap();
    let tokio_postgres::SimpleQueryMessage::Row(state) = &state[1] else { panic!("{state:?}") };
    assert_eq!((state.get("state"), state.get("epoch")), (Some("flowing"), Some("0")), "nothing happened");
    let ops = enter(port, "ops", PASSWORD).await.unwrap();
    ops.simple_query("HOLD EPOCH 9 LIMIT 1000").await.unwrap();
    ops.simple_query("RELEASE EPOCH 9").await.unwrap();
    // The system user that runs it stays the one who may do everything.
    let us = crate::world::console(proxy.socket().unwrap()).await;
    us.simple_query("RESET STATS").await.unwrap();
    assert_eq!(refusal(enter(port, "ops", "wrong").await).0, "28P01");
    let (sqlstate, message) = refusal(enter(port, "app", PASSWORD).await);
    assert_eq!(sqlstate, "28000");
    assert!(message.contains("admin.command"), "{message}");
}

/// Where the proxy leaves passwords to the server behind, the console does so too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_enters_whom_the_server_would_not_let_in() {
    let blue = server().await;
    for (auth, password, expected) in [
        ("method = \"cleartext\"\ncleartext_without_tls = true", PASSWORD, None),
        ("method = \"cleartext\"\ncleartext_without_tls = true", "wrong", Some("28P01")),
        // The server asks for a password, which nobody has asked the client for.
        ("method = \"trust\"", PASSWORD, Some("28P01")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let proxy = proxy(&blue, dir.path(), auth, ADMIN).await;
        let entered = enter(proxy.addresses()[0].port(), "ops", password).await;
        match expected {
            None => _ = entered.unwrap().simple_query("RESET STATS").await.unwrap(),
            Some(expected) => assert_eq!(refusal(entered).0, expected, "{auth} {password}"),
        }
        proxy.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_its_own_has_tls_of_its_own() {
    let (blue, dir, certs) = (server().await, tempfile::tempdir().unwrap(), Certs::new());
    let admin = format!(
        "{ADMIN}listen = [\"127.0.0.1:0\"]\n[admin.tls]\ncert = {:?}\nkey = {:?}\n",
        certs.file("server.crt"),
        certs.file("server.key"),
    );
    let proxy = proxy(&blue, dir.path(), "", &admin).await;
    let (clients, console) = (proxy.addresses()[0].port(), proxy.console_addresses()[0].port());
    let enter_by_tls = async |user: &'static str, database: &str| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certs.ca_der.clone().into()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = tokio_postgres::Config::new();
        config.host("localhost").hostaddr([127, 0, 0, 1].into()).port(console).user(user);
        config.password(PASSWORD).dbname(database);
        config.ssl_mode(SslMode::Require).channel_binding(ChannelBinding::Require);
        let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
        tokio::spawn(connection);
        Ok::<_, Error>(client)
    };
    let ops = enter_by_tls("ops", "pgteal").await.unwrap();
    assert_eq!(value(&ops, "RESET STATS").await, "ok");
    assert_eq!(refusal(enter_by_tls("app", "postgres").await).0, "3D000", "no client comes in there");
    assert!(
        refusal(enter(console, "ops", PASSWORD).await).1.contains("TLS connections only"),
        "not in the clear"
    );
    let (sqlstate, message) = refusal(enter(clients, "ops", PASSWORD).await);
    assert_eq!((sqlstate.as_str(), message.contains("admin.listen")), ("28000", true), "{message}");
    // Read again with all others.
    assert_eq!(value(&ops, "RELOAD").await, "ok");
    std::fs::write(certs.file("server.key"), "no key").unwrap();
    assert!(ops.simple_query("RELOAD").await.is_err());
}

#[test]
fn no_commands_in_the_clear_over_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.toml");
    let base = "unix_dir = \"/tmp\"\nstate_file = \"s\"\n[blue]\nhost = \"/tmp\"\n";
    for (admin, expected) in [
        ("[admin]\nlisten = [\"0.0.0.0:1\"]\n", Some("in the clear")),
        ("[admin]\nlisten = [\"[::1]:1\", \"10.0.0.1:1\"]\n", Some("10.0.0.1:1 is not local")),
        ("[admin]\nlisten = [\"127.0.0.1:1\"]\n", None),
        ("[admin]\nlisten = [\"0.0.0.0:1\"]\n[admin.tls]\ncert = \"c\"\nkey = \"k\"\n", None),
        ("[admin.tls]\ncert = \"c\"\nkey = \"k\"\n", Some("admin.listen")),
        ("[admin]\nusers = [\"by_its_old_name\"]\n", None),
    ] {
        std::fs::write(&path, format!("{base}{admin}")).unwrap();
        match (Config::load(&path), expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (loaded, _) => panic!("{admin}: {loaded:?}"),
        }
    }
}
