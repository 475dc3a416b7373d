//! The reference client itself, old and new: every transport, channel binding as a must, direct TLS, protocol 3.2.

use std::process::Command;

use pgteal_proxy::config::AuthMethod;
use pgteal_testkit::Distribution;

use crate::front::Front;
use crate::servers::{Certs, Leg, PASSWORD, server, server_config};

/// Runs `psql` of a major version; gives what it printed, or its complaint.
pub(crate) async fn psql(major: u16, conninfo: String) -> Result<String, String> {
    let dist = Distribution::find(major).unwrap();
    let mut command = Command::new(dist.bin().join("psql"));
    if let Some(lib) = dist.lib() {
        command.env("LD_LIBRARY_PATH", lib);
    }
    command.env("PGPASSWORD", PASSWORD).args(["-XAtc", "SELECT session_user", "-d", &conninfo]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_of_old_and_new_majors_gets_in() {
    let certs = Certs::new();
    let cluster = server(18, &certs).await;
    let front = Front::start(AuthMethod::Verifier, &server_config(&cluster, Leg::Tls, &certs), &certs).await;
    let tcp = format!("host=localhost hostaddr=127.0.0.1 port={} dbname=postgres", front.port);
    let socket = front.socket();
    let unix = format!("host={} port={} dbname=postgres", socket.parent().unwrap().display(), front.port);
    let tls = format!("{tcp} sslmode=verify-full sslrootcert={}", certs.file("ca.crt").display());
    let table = [
        (14, format!("{unix} user=scram_user")),
        (18, format!("{unix} user=md5_user")),
        (14, format!("{tcp} sslmode=disable user=scram_user channel_binding=disable")),
        // Asks for GSSAPI encryption first where it can, and for TLS then.
        (18, format!("{tcp} user=md5_user gssencmode=prefer")),
        (14, format!("{tls} user=scram_user channel_binding=require")),
        (18, format!("{tls} user=scram_user channel_binding=require")),
        (18, format!("{tls} user=scram_user channel_binding=require sslnegotiation=direct")),
        (18, format!("{tls} user=md5_user sslnegotiation=direct")),
        (
            18,
            format!(
                "{tcp} user=scram_user sslmode=disable min_protocol_version=3.2 max_protocol_version=latest"
            ),
        ),
    ];
    for (major, conninfo) in table {
        let want = if conninfo.contains("md5_user") { "md5_user" } else { "scram_user" };
        assert_eq!(psql(major, conninfo.clone()).await.as_deref(), Ok(want), "{major} {conninfo}");
    }
    let refused = psql(18, format!("{tcp} sslmode=disable user=scram_user password=no")).await.unwrap_err();
    assert!(refused.contains("FATAL:  password authentication failed for user \"scram_user\""), "{refused}");
    // Binding to another certificate than the front's own would mean somebody in between.
    let refused = psql(18, format!("{tls} user=md5_user channel_binding=require")).await.unwrap_err();
    assert!(refused.contains("channel binding"), "{refused}");
}
