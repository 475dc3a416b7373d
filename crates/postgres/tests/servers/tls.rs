//! What each `sslmode` accepts and refuses, against a server with a certificate of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use pgteal_postgres::{ConnInfo, ConnectFailure, Error, Purpose, Server, Session, settings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::cluster::{ROLE, cluster, majors};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Gives the running server a certificate for `localhost` and switches TLS on.
async fn switch_on(s: &Session, dir: &Path, authority: &CertifiedIssuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let cert =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let files = [("server.crt", cert.pem()), ("server.key", key.serialize_pem())];
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        let owner = std::fs::metadata(dir.join("data")).unwrap();
        std::os::unix::fs::chown(&path, Some(std::os::unix::fs::MetadataExt::uid(&owner)), None).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let (cert, key) = (path("server.crt"), path("server.key"));
    let values = [("ssl", "on"), ("ssl_cert_file", cert.as_str()), ("ssl_key_file", key.as_str())];
    settings::alter_system_set(s, &values).await.unwrap();
    settings::reload(s, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_keeps_what_it_promises() {
    let running = cluster(*majors().first().unwrap());
    let (_, s) = running.database("tls_modes").await;
    let (ours, other) = (authority(), authority());
    switch_on(&s, running.dir(), &ours).await;
    let roots = tempfile::tempdir().unwrap();
    let (good, bad) = (roots.path().join("good.crt"), roots.path().join("bad.crt"));
    std::fs::write(&good, ours.pem()).unwrap();
    std::fs::write(&bad, other.pem()).unwrap();
    let (good, bad) = (good.display(), bad.display());
    let cases = [
        ("host=localhost sslmode=disable".to_owned(), Ok(false)),
        ("host=localhost sslmode=prefer".to_owned(), Ok(true)),
        ("host=localhost sslmode=require".to_owned(), Ok(true)),
        (format!("host=localhost sslmode=require sslrootcert={bad}"), Err(ConnectFailure::Tls)),
        (format!("host=127.0.0.1 sslmode=verify-ca sslrootcert={good}"), Ok(true)),
        (format!("host=127.0.0.1 sslmode=verify-ca sslrootcert={bad}"), Err(ConnectFailure::Tls)),
        (format!("host=localhost sslmode=verify-full sslrootcert={good}"), Ok(true)),
        (format!("host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={good}"), Ok(true)),
        (format!("host=127.0.0.1 sslmode=verify-full sslrootcert={good}"), Err(ConnectFailure::Tls)),
        (format!("host=localhost sslmode=verify-full sslrootcert={bad}"), Err(ConnectFailure::Tls)),
        ("host=localhost sslrootcert=system".to_owned(), Err(ConnectFailure::Tls)),
    ];
    for (text, expected) in cases {
        let info = ConnInfo::parse(&format!("{text} port={} user={ROLE}", running.port)).unwrap();
        let server = Server::new("tls", info).unwrap();
        let seen = match server.connect("tls_modes", Purpose::probe("tls")).await {
            Ok(s) => {
                let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                let cancelled =
                    s.within(Duration::from_millis(50)).batch("sleeping", "SELECT pg_sleep(9)").await;
                assert!(
                    matches!(cancelled, Err(Error::TimedOut { settled: true, .. })),
                    "{text}: {cancelled:?}"
                );
                Ok(s.query_one("looking", sql, &[]).await.unwrap().get::<bool>(0).unwrap())
            }
            Err(Error::Connect { failure, .. }) => Err(failure),
            Err(e) => panic!("{text}: {e}"),
        };
        assert_eq!(seen, expected, "{text}");
    }
    let info = ConnInfo::parse("host=localhost sslmode=verify-ca sslrootcert=/nowhere").unwrap();
    let error = Server::new("tls", info).unwrap_err().to_string();
    assert!(error.starts_with("root certificate file /nowhere: "), "{error}");
}
