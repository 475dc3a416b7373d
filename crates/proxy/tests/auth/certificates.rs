//! Certificates that are replaced under way, and certificates of clients, through the whole proxy.

use std::fs;
use std::path::Path;

use pgteal_proxy::auth::ClientLogin;
use pgteal_proxy::config::{AuthMethod, ServerConfig, TlsConfig};
use pgteal_proxy::tls::ClientTls;
use pgteal_proxy::{Config, Proxy};
use pgteal_testkit::Cluster;
use tokio::net::TcpListener;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::front::{Front, greeted, lookup};
use crate::libpq::psql;
use crate::servers::{Certs, Leg, PASSWORD, install, server, server_config};

struct Running {
    dir: tempfile::TempDir,
    proxy: Proxy,
}

impl Running {
    async fn start(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.toml");
        let own = dir.path().display();
        let head = format!(
            "listen = [\"127.0.0.1:0\"]\nunix_dir = \"{own}\"\nunix_port = 5432\nstate_file = \"{own}/state\"\n"
        );
        fs::write(&path, head + text).unwrap();
        let proxy = Proxy::start(Config::load(&path).unwrap()).await.unwrap();
        Self { dir, proxy }
    }

    fn conninfo(&self, rest: &str) -> String {
        let port = self.proxy.addresses()[0].port();
        format!("host=localhost hostaddr=127.0.0.1 port={port} dbname=postgres {rest}")
    }

    async fn console(&self) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.dir.path()).port(5432).user("root").dbname("pgteal");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

async fn setting(console: &Client, key: &str) -> String {
    let messages = console.simple_query("SHOW CONFIG").await.unwrap();
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if row.get(0) == Some(key) => row.get(1).map(str::to_owned),
        _ => None,
    });
    value.unwrap_or_else(|| panic!("no {key}"))
}

fn tls_section(dir: &Path) -> String {
    format!("[tls]\ncert = \"{0}/server.crt\"\nkey = \"{0}/server.key\"\n", dir.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_way_and_one_that_does_not_fit_is_not_taken() {
    let (first, second) = (Certs::new(), Certs::new());
    let cluster = server(18, &first).await;
    let shown = tempfile::tempdir().unwrap();
    let put = |certs: &Certs, names: &[&str]| {
        for name in names {
            fs::copy(certs.file(name), shown.path().join(name)).unwrap();
        }
    };
    put(&first, &["server.crt", "server.key"]);
    let running = Running::start(&format!(
        "[blue]\nhost = \"{}\"\nport = {}\n[auth]\nservice_user = \"postgres\"\n{}",
        cluster.socket_dir().display(),
        cluster.port(),
        tls_section(shown.path())
    ))
    .await;
    let console = running.console().await;
    let knows = async |certs: &Certs| {
        let roots = certs.file("ca.crt").display().to_string();
        let login = "user=scram_user sslmode=verify-full channel_binding=require";
        psql(18, running.conninfo(&format!("{login} sslrootcert={roots}"))).await.is_ok()
    };
    assert!(knows(&first).await && !knows(&second).await);
    put(&second, &["server.crt"]);
    assert!(knows(&first).await, "nothing is read before it is told");
    let error = console.simple_query("RELOAD").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "F0000");
    assert!(error.message().starts_with("what was read before stays: TLS settings: "), "{error}");
    assert!(setting(&console, "tls.refused").await.starts_with("TLS settings: "));
    assert!(knows(&first).await, "the old pair stays");
    put(&second, &["server.key"]);
    console.simple_query("RELOAD").await.unwrap();
    assert_eq!(setting(&console, "tls.refused").await, "");
    assert!(!knows(&first).await && knows(&second).await);
}

/// The certificate is replaced between the handshake and the login: the login is bound to the one that was shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_bound_to_the_certificate_of_its_own_handshake() {
    let (first, second) = (Certs::new(), Certs::new());
    let cluster = server(16, &first).await;
    let login = ClientLogin::new(
        AuthMethod::Verifier,
        false,
        [7; 32],
        lookup(&server_config(&cluster, Leg::Unix, &first), 0),
    );
    let files =
        TlsConfig { cert: first.file("server.crt"), key: first.file("server.key"), ..TlsConfig::default() };
    let tls = ClientTls::load(&files).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let mut stream = greeted(&listener, &tls).await;
        fs::copy(second.file("server.crt"), &files.cert).unwrap();
        fs::copy(second.file("server.key"), &files.key).unwrap();
        tls.reload().unwrap();
        login.run(&mut stream, b"scram_user").await.map(drop)
    });
    let mut config = tokio_postgres::Config::new();
    config.host("localhost").hostaddr([127, 0, 0, 1].into()).port(port).user("scram_user").password(PASSWORD);
    config.ssl_mode(SslMode::Require).channel_binding(ChannelBinding::Require);
    let connector = MakeRustlsConnect::new(crate::front::driver_config(&first.ca_der));
    // The stand-in hangs up after the login.
    let _ = config.connect(connector).await;
    served.await.unwrap().unwrap();
}

/// A server that takes the proxy's word for every user: its certificate is mapped to all of them.
async fn server_that_maps(certs: &Certs) -> Cluster {
    let lines = ["local all postgres trust", "hostssl all all all cert map=proxy"];
    let builder = Cluster::builder(18).set("ssl", "on").set("ssl_ca_file", "ca.crt");
    let builder = lines.into_iter().fold(builder, |builder, line| builder.hba(line));
    let cluster = builder.create().await.unwrap();
    for name in ["server.crt", "server.key", "ca.crt"] {
        install(&certs.file(name), cluster.data_dir(), name);
    }
    fs::write(cluster.data_dir().join("pg_ident.conf"), "proxy pgteal-proxy all\n").unwrap();
    cluster.start().await.unwrap();
    cluster.sql("CREATE ROLE app LOGIN; CREATE ROLE other LOGIN").await.unwrap();
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_log_in_by_their_certificates() {
    let (certs, strangers) = (Certs::new(), Certs::new());
    for name in ["app", "pgteal-proxy"] {
        certs.client(name);
    }
    strangers.client("app");
    let cluster = server_that_maps(&certs).await;
    let dir = certs.dir.path().display();
    let running = Running::start(&format!(
        "[blue]\nhost = \"localhost\"\nport = {}\nsslmode = \"verify-full\"\nsslrootcert = \"{dir}/ca.crt\"\n\
         sslcert = \"{dir}/pgteal-proxy.crt\"\nsslkey = \"{dir}/pgteal-proxy.key\"\nsslnegotiation = \"direct\"\n\
         [auth]\nmethod = \"cert\"\n{}client_ca = \"{dir}/ca.crt\"\n",
        cluster.port(),
        tls_section(certs.dir.path()),
    ))
    .await;
    let tls = format!("sslmode=verify-full sslrootcert={dir}/ca.crt");
    let own = format!("sslcert={dir}/app.crt sslkey={dir}/app.key");
    let strange = strangers.dir.path().display();
    let strange = format!("sslcert={strange}/app.crt sslkey={strange}/app.key");
    let none = "sslcert=/nowhere sslkey=/nowhere";
    let wanted = "connection requires a valid client certificate";
    let another = "certificate authentication failed for user \"other\"";
    let table = [
        (14, format!("user=app {tls} {own}"), Ok("app")),
        (18, format!("user=app {tls} {own} sslnegotiation=direct"), Ok("app")),
        (18, format!("user=other {tls} {own}"), Err(another)),
        (18, format!("user=app {tls} {none}"), Err(wanted)),
        (18, "user=app sslmode=disable".to_owned(), Err(wanted)),
        (18, format!("user=app {tls} {strange}"), Err("alert")),
    ];
    for (major, rest, want) in table {
        let got = psql(major, running.conninfo(&rest)).await;
        match want {
            Ok(user) => assert_eq!(got.as_deref(), Ok(user), "{rest}"),
            Err(why) => assert!(got.as_ref().is_err_and(|said| said.contains(why)), "{rest}: {got:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_may_be_asked_for_besides_the_password() {
    let certs = Certs::new();
    for name in ["scram_user", "else"] {
        certs.client(name);
    }
    let cluster = server(17, &certs).await;
    let dir = certs.dir.path().display();
    let wanted = "connection requires a valid client certificate";
    for (clientcert, without, of_another) in [
        ("optional", Ok("scram_user"), Ok("scram_user")),
        ("verify-ca", Err(wanted), Ok("scram_user")),
        ("verify-full", Err(wanted), Err("certificate authentication failed for user \"scram_user\"")),
    ] {
        let running = Running::start(&format!(
            "[blue]\nhost = \"{}\"\nport = {}\n[auth]\nservice_user = \"postgres\"\n\
             {}client_ca = \"{dir}/ca.crt\"\nclientcert = \"{clientcert}\"\n",
            cluster.socket_dir().display(),
            cluster.port(),
            tls_section(certs.dir.path()),
        ))
        .await;
        let login = format!("user=scram_user sslmode=verify-full sslrootcert={dir}/ca.crt");
        for (name, want) in [("scram_user", Ok("scram_user")), ("else", of_another), ("nowhere", without)] {
            let shown = format!("sslcert={dir}/{name}.crt sslkey={dir}/{name}.key");
            let got = psql(18, running.conninfo(&format!("{login} {shown}"))).await;
            match want {
                Ok(user) => assert_eq!(got.as_deref(), Ok(user), "{clientcert} {name}"),
                Err(why) => assert!(got.as_ref().is_err_and(|said| said.contains(why)), "{got:?}"),
            }
            let wrong = psql(18, running.conninfo(&format!("{login} {shown} password=wrong"))).await;
            assert!(wrong.is_err(), "a certificate does not replace the password");
        }
        // As on a server, a Unix socket is not asked.
        let socket = running.dir.path().display();
        let local = psql(18, format!("host={socket} port=5432 dbname=postgres user=scram_user")).await;
        assert_eq!(local.as_deref(), Ok("scram_user"), "{clientcert}");
    }
}

/// Both directions: libpq binds to the proxy's certificate, and the proxy to the server's. It was made by `openssl req -x509
/// -newkey rsa:2048 -nodes -sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:48` and serves this test only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_are_bound_to_certificates_signed_by_rsa_pss() {
    let certs = Certs::new();
    fs::write(certs.file("server.crt"), include_str!("rsa_pss/server.crt")).unwrap();
    fs::write(certs.file("server.key"), include_str!("rsa_pss/server.key")).unwrap();
    for major in [14, 18] {
        let cluster = server(major, &certs).await;
        let config = ServerConfig {
            host: "localhost".into(),
            port: cluster.port(),
            sslmode: pgteal_proxy::config::SslMode::Require,
            ..ServerConfig::default()
        };
        let front = Front::start(AuthMethod::Verifier, &config, &certs).await;
        let login = format!(
            "host=localhost hostaddr=127.0.0.1 port={} dbname=postgres user=scram_user sslmode=require \
             channel_binding=require",
            front.port
        );
        assert_eq!(psql(major, login).await.as_deref(), Ok("scram_user"), "{major}");
        // Without a hash the proxy would say that it cannot bind, and a server would believe it: look at the hash itself.
        let connected = pgteal_proxy::auth::Target::new(&config, 100_000).unwrap().connect().await.unwrap();
        assert_eq!(connected.end_point.map(|hash| hash.len()), Some(48));
    }
}
