//! `pgteal proxy import`: what files that PgBouncer takes become, and that nothing of them is lost without a word.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pgbouncer");

fn import(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgteal"));
    command.args(["proxy", "import"]).args(args).current_dir(dir).env_clear().output().unwrap()
}

fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!("{}{}[{}]", text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

/// Every setting of the files below, as it is named there.
fn settings(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(FILES).join(file)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with([';', '#', '[', '%']));
    lines.filter_map(|line| Some(line.split_once('=')?.0.trim().to_owned())).collect()
}

#[test]
fn what_pgbouncer_is_told_is_carried_or_named() {
    for file in ["small", "tls"] {
        let said = text(&import(Path::new(FILES), &[&format!("{file}.ini")]));
        insta::assert_snapshot!(file, said);
        for secret in ["no'body", "no''body", "topsecret", "AAAA"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn no_setting_is_lost() {
    // Carried under another name, or the proxy's own way.
    let carried = [
        ("auth_type", "method ="),
        ("auth_user", "service_user ="),
        ("auth_query", "query ="),
        ("admin_users", "[admin]"),
        ("listen_addr", "listen ="),
        ("listen_port", ":6543"),
        ("unix_socket_dir", "listen ="),
        ("max_client_conn", "max_clients = 700"),
        ("client_login_timeout", "client_login_ms = 15500"),
        ("server_connect_timeout", "upstream_login_ms = 5000"),
        ("default_pool_size", "default_pool_size = 20"),
        ("server_lifetime", "server_lifetime = 1800.0"),
        ("server_reset_query", "[pool]"),
        ("pool_mode", "state_file"),
        ("client_tls_sslmode", "required = true"),
        ("client_tls_cert_file", "cert = \"/etc/ssl/proxy.crt\""),
        ("client_tls_key_file", "key = \"/etc/ssl/proxy.key\""),
        ("client_tls_ca_file", "client_ca = \"/etc/ssl/clients.crt\""),
        ("server_tls_sslmode", "sslmode ="),
        ("server_tls_ca_file", "sslrootcert = \"/etc/ssl/servers.crt\""),
        ("server_tls_cert_file", "sslcert = \"/etc/ssl/us.crt\""),
        ("server_tls_key_file", "sslkey = \"/etc/ssl/us.key\""),
        ("shop", "host = \"127.0.0.1\""),
        ("*", "host = \"db1.example.com\""),
    ];
    for (file, more) in [("small.ini", Some("more.ini")), ("tls.ini", None)] {
        let said = text(&import(Path::new(FILES), &[file]));
        for setting in settings(file).into_iter().chain(more.into_iter().flat_map(settings)) {
            let named = said.contains(&format!("] {setting}:")) || said.contains(&format!("] {setting} "));
            let found = carried.iter().any(|(key, there)| *key == setting && said.contains(there));
            assert!(named || found, "{setting} of {file}: {said}");
        }
    }
}

#[test]
fn what_is_none_of_pgbouncers_is_refused_and_names_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| -> PathBuf {
        let path = dir.path().join("pgbouncer.ini");
        std::fs::write(&path, text).unwrap();
        path
    };
    for (ini, expected) in [
        ("[databases]\n* = host=a\n[pgbouncer\n", "line 3"),
        ("[databases]\nnothing\n", "line 2"),
        ("%include nowhere.ini\n", "nowhere.ini"),
        ("%include pgbouncer.ini\n", "10 files deep"),
        ("[pgbouncer]\nlisten_addr = *\n", "names no server"),
    ] {
        let path = file(ini);
        let output = import(dir.path(), &[path.file_name().unwrap().to_str().unwrap()]);
        let said = text(&output);
        assert!(!output.status.success() && output.stdout.is_empty() && said.contains(expected), "{said}");
    }
}
