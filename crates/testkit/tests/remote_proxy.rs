//! A proxy that runs elsewhere: commanded over TLS by a role with a password, and by nobody who has less.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig_cli;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgteal_testkit::{PortLease, Program, Scratch};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rig_cli::Rig;
use serde_json::Value;

const BOUND: Duration = Duration::from_secs(120);
const PASSWORD: &str = "open sesame";

/// An authority and a certificate by it for this name, as `<file>.ca`, `<file>.crt` and `<file>.key`.
fn certify(dir: &Path, file: &str, name: &str) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.distinguished_name.push(DnType::CommonName, format!("authority of {file}"));
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (kind, text) in [("ca", ca_cert.pem()), ("crt", leaf.pem()), ("key", key.serialize_pem())] {
        std::fs::write(dir.join(format!("{file}.{kind}")), text).unwrap();
    }
}

/// Where the controller runs: the deployment's configuration without the proxy's socket.
struct Elsewhere {
    dir: Arc<Scratch>,
    text: String,
}

impl Elsewhere {
    fn of(rig: &Rig) -> Self {
        let text = std::fs::read_to_string(rig.dir.path().join("pgteal.toml")).unwrap();
        Self { dir: Arc::new(Scratch::new().unwrap()), text }
    }

    /// Runs a command by these ways to the console and to where clients are; its exit code, the last object that it printed,
    /// and all that it said.
    async fn run(&self, ways: (&str, &str), password: Option<&str>, args: &[&str]) -> (i32, Value, String) {
        let (console, clients) = ways;
        let lines = format!("[proxy]\nconsole_conninfo = \"{console}\"\nclient_conninfo = \"{clients}\"");
        std::fs::write(self.dir.path().join("pgteal.toml"), self.text.replace("[proxy]", &lines)).unwrap();
        let mut program =
            Program::product("pgteal").unwrap().dir(&self.dir).args(["--json", "-vv"]).args(args);
        program = program.env("PGTEAL_BLUE_PASSWORD", "tool").env("PGTEAL_GREEN_PASSWORD", "tool");
        if let Some(password) = password {
            program = program.env("PGTEAL_CONSOLE_PASSWORD", password);
        }
        let output = program.run(BOUND).await.unwrap();
        let last = serde_json::from_str(output.stdout.lines().last().unwrap_or("null")).unwrap();
        (output.status.code().unwrap_or(-1), last, output.stdout + &output.stderr)
    }

    /// Every file that a command has left behind.
    fn files(&self) -> Vec<Vec<u8>> {
        let (mut dirs, mut files) = (vec![self.dir.path().to_owned()], Vec::new());
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => dirs.push(entry.path()),
                    false => files.push(std::fs::read(entry.path()).unwrap()),
                }
            }
        }
        files
    }
}

/// State, route and epoch of the proxy, as it tells the system user that runs it.
async fn state(rig: &Rig) -> [String; 3] {
    let mut config = tokio_postgres::Config::new();
    config.host_path(rig.dir.path().join(".pgteal")).port(rig.port.port()).user("us").dbname("pgteal");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let rows = client.simple_query("SHOW STATE").await.unwrap();
    let row = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    ["state", "route", "epoch"].map(|column| row.unwrap().get(column).unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_elsewhere_is_commanded_by_its_role_over_tls() {
    let (certs, console_port) = (Scratch::new().unwrap(), PortLease::take().unwrap());
    let path = certs.path();
    certify(path, "proxy", "localhost");
    certify(path, "other", "localhost");
    let proxy = format!(
        "tls_cert = {:?}\ntls_key = {:?}\nadmin_command = [\"ops\"]\nadmin_read = [\"watch\"]\n\
         admin_listen = [\"127.0.0.1:{}\"]",
        path.join("proxy.crt"),
        path.join("proxy.key"),
        console_port.port(),
    );
    let rig = Rig::with_proxy(15, 18, 200, &proxy).await;
    for role in ["ops", "watch"] {
        rig.blue.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")).await.unwrap();
    }
    let elsewhere = Elsewhere::of(&rig);
    let way = |host: &str, port: u16, user: &str, ca: &str| {
        let ca = path.join(format!("{ca}.ca"));
        format!(
            "host={host} hostaddr=127.0.0.1 port={port} user={user} sslmode=verify-full sslrootcert={}",
            ca.display()
        )
    };
    let console = |user: &str, ca: &str| way("localhost", console_port.port(), user, ca);
    let clients = way("localhost", rig.port.port(), "whoever", "proxy");
    let mut said = String::new();
    let (exit, _, up) = elsewhere.run((&console("ops", "proxy"), &clients), Some(PASSWORD), &["up"]).await;
    assert_eq!(exit, 0, "{up}");
    said.push_str(&up);
    let before = state(&rig).await;
    assert_eq!((before[0].as_str(), before[1].as_str()), ("flowing", "blue"));

    let ops = console("ops", "proxy");
    let another_name = way("proxy.example", console_port.port(), "ops", "proxy");
    let unverified = "host=192.0.2.1 port=6434 user=ops sslmode=require".to_owned();
    let past_it = format!("host=127.0.0.1 port={}", rig.blue.port());
    for (what, console, clients, password, expected) in [
        ("a wrong password", &ops, &clients, Some("guess"), (9, "proxy-login")),
        ("no password", &ops, &clients, None, (9, "proxy-login")),
        ("no role of the console's", &console("app", "proxy"), &clients, Some("app"), (9, "proxy-login")),
        ("a role that may look", &console("watch", "proxy"), &clients, Some(PASSWORD), (3, "proxy-refused")),
        ("another authority", &console("ops", "other"), &clients, Some(PASSWORD), (9, "proxy-tls")),
        ("another host's name", &another_name, &clients, Some(PASSWORD), (9, "proxy-tls")),
        (
            "clients over another authority",
            &ops,
            &clients.replace("proxy.ca", "other.ca"),
            Some(PASSWORD),
            (9, "proxy-tls"),
        ),
        ("whoever answers", &unverified, &clients, Some(PASSWORD), (2, "config-value")),
        ("clients past the proxy", &ops, &past_it, Some(PASSWORD), (2, "config-value")),
    ] {
        let (exit, last, all) = elsewhere.run((console, clients), password, &["switch"]).await;
        let code = last["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((exit, code), expected, "{what}: {all}");
        assert_eq!(state(&rig).await, before, "{what}");
        said.push_str(&all);
    }
    let (_, runs, _) = elsewhere.run((&ops, &clients), Some(PASSWORD), &["runs"]).await;
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "nothing had begun: {runs:#}");

    let load = rig.workload(40.0).await;
    for (args, route, cluster) in [(["switch"], "green", &rig.green), (["back"], "blue", &rig.blue)] {
        let (exit, _, all) = elsewhere.run((&ops, &clients), Some(PASSWORD), &args).await;
        assert_eq!(exit, 0, "{all}");
        let now = state(&rig).await;
        assert_eq!((now[0].as_str(), now[1].as_str()), ("flowing", route), "{}", cluster.name());
        said.push_str(&all);
    }
    let verdict = rig.judge(&load.stop().await, &rig.blue).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 20, "{verdict:#?}");
    for secret in [PASSWORD, "guess"] {
        assert!(!said.contains(secret), "a password was told");
        let written = |file: &Vec<u8>| file.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!elsewhere.files().iter().any(written), "a password was written");
    }
}

/// The statements that the documentation gives to an administrator.
fn documented_sql() -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/proxy.md")).unwrap();
    let (_, after) = text.split_once("```sql\nBEGIN;\nCREATE ROLE proxy_auth").unwrap();
    let (sql, _) = after.split_once("```").unwrap();
    format!("BEGIN; CREATE ROLE proxy_auth{sql}")
}

/// Who is logged in to look up verifiers.
const LOOKERS: &str =
    "SELECT string_agg(DISTINCT usename, ' ') FROM pg_stat_activity WHERE application_name = 'pgteal/auth'";

#[tokio::test(flavor = "multi_thread")]
async fn verifiers_are_looked_up_by_a_role_that_can_do_nothing_else() {
    let secrets = Scratch::new().unwrap();
    let file = secrets.path().join("password");
    std::fs::write(&file, PASSWORD).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let proxy = format!(
        "auth_user = \"proxy_auth\"\nauth_query = \"SELECT * FROM proxy_auth.lookup($1)\"\nauth_password_file = {file:?}"
    );
    let rig = Rig::with_proxy(15, 18, 200, &proxy).await;
    rig.blue.sql(&documented_sql()).await.unwrap();
    let login = async |password: &str| {
        let at =
            format!("host=127.0.0.1 port={} user=app dbname=shop password='{password}'", rig.port.port());
        let (client, connection) = tokio_postgres::connect(&at, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.simple_query("SELECT 1").await.map(drop)
    };
    rig.must(&["up"]).await;
    for (args, cluster) in [(None, &rig.blue), (Some("switch"), &rig.green)] {
        if let Some(command) = args {
            rig.must(&[command]).await;
        }
        login("app").await.unwrap();
        let refused = login("guess").await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "28P01");
        assert_eq!(cluster.sql(LOOKERS).await.unwrap().trim(), "proxy_auth", "{}", cluster.name());
        let mut config = cluster.config("postgres");
        let (role, connection) =
            config.user("proxy_auth").password(PASSWORD).connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        for (sql, expected) in [
            ("SELECT rolpassword FROM pg_authid", Some("42501")),
            ("SELECT * FROM proxy_auth.lookup('app')", None),
            ("CREATE TABLE proxy_auth.t ()", Some("42501")),
            ("CREATE ROLE r", Some("42501")),
            ("ALTER ROLE app PASSWORD 'x'", Some("42501")),
            (
                "CREATE OR REPLACE FUNCTION proxy_auth.lookup(wanted name) RETURNS TABLE (rolname name, rolpassword text) \
              LANGUAGE sql AS 'SELECT 1'",
                Some("42501"),
            ),
        ] {
            let said = role.simple_query(sql).await;
            let code =
                said.as_ref().err().and_then(|error| error.code()).map(|state| state.code().to_owned());
            assert_eq!(code.as_deref(), expected, "{sql} on {}: {said:?}", cluster.name());
        }
        let (app, connection) = cluster
            .config("postgres")
            .user("app")
            .password("app")
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        assert!(
            app.simple_query("SELECT * FROM proxy_auth.lookup('pgteal')").await.is_err(),
            "everybody may ask"
        );
    }
}
