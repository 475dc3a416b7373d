//! Real servers with users of every kind of login, and certificates for them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use pgteal_proxy::config::{ServerConfig, SslMode};
use pgteal_testkit::Cluster;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use tempfile::TempDir;

/// Every user of [`server`] has this password.
pub(crate) const PASSWORD: &str = "s3cret ü";

/// A certificate authority with one leaf for `localhost` and 127.0.0.1, as PEM files.
pub(crate) struct Certs {
    pub(crate) dir: TempDir,
    pub(crate) ca_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Certs {
    pub(crate) fn new() -> Self {
        Self::with(&rcgen::PKCS_ECDSA_P256_SHA256, &["localhost", "127.0.0.1"])
    }

    pub(crate) fn with(algorithm: &'static SignatureAlgorithm, names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca_key = KeyPair::generate_for(algorithm).unwrap();
        let mut ca = CertificateParams::new(vec![]).unwrap();
        // Names of their own: OpenSSL takes a leaf with its issuer's name for self-signed.
        ca.distinguished_name.push(DnType::CommonName, "an authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "a server");
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        fs::write(dir.path().join("ca.crt"), ca_cert.pem()).unwrap();
        fs::write(dir.path().join("server.crt"), leaf.pem()).unwrap();
        fs::write(dir.path().join("server.key"), key.serialize_pem()).unwrap();
        Self { dir, ca_der: ca_cert.der().to_vec(), issuer }
    }

    /// Makes a certificate for a client of this name, as `<name>.crt` and `<name>.key`.
    pub(crate) fn client(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, name);
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(&format!("{name}.crt")), leaf.pem()).unwrap();
        let file = self.file(&format!("{name}.key"));
        fs::write(&file, key.serialize_pem()).unwrap();
        // libpq takes no key that others may read.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// A running server with TLS. Each user `<method>_user` must log in by that method, over every transport.
pub(crate) async fn server(major: u16, certs: &Certs) -> Cluster {
    let mut builder = Cluster::builder(major).set("ssl", "on");
    for (user, method) in [
        ("pgteal", "scram-sha-256"),
        ("scram_user", "scram-sha-256"),
        ("md5_user", "md5"),
        ("clear_user", "password"),
        ("trust_user", "trust"),
        ("expired_user", "scram-sha-256"),
        ("nologin_user", "scram-sha-256"),
        ("bare_user", "scram-sha-256"),
        ("moved_user", "scram-sha-256"),
        ("nobody", "scram-sha-256"),
    ] {
        builder = builder.hba(&format!("local all {user} {method}"));
        builder = builder.hba(&format!("host all {user} all {method}"));
    }
    let cluster = builder.create().await.unwrap();
    for name in ["server.crt", "server.key"] {
        install(&certs.file(name), cluster.data_dir(), name);
    }
    cluster.start().await.unwrap();
    let literal = PASSWORD.replace('\'', "''");
    cluster
        .sql(&format!(
            "CREATE ROLE pgteal SUPERUSER LOGIN PASSWORD '{literal}';
             CREATE ROLE scram_user LOGIN PASSWORD '{literal}';
             CREATE ROLE clear_user LOGIN PASSWORD '{literal}';
             CREATE ROLE trust_user LOGIN;
             CREATE ROLE expired_user LOGIN PASSWORD '{literal}' VALID UNTIL '2000-01-01';
             CREATE ROLE nologin_user NOLOGIN PASSWORD '{literal}';
             CREATE ROLE bare_user LOGIN;
             CREATE ROLE moved_user LOGIN PASSWORD '{literal}';
             SET password_encryption = 'md5';
             CREATE ROLE md5_user LOGIN PASSWORD '{literal}'"
        ))
        .await
        .unwrap();
    cluster
}

pub(crate) fn install(from: &Path, data: &Path, name: &str) {
    let to = data.join(name);
    fs::copy(from, &to).unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    let owner = fs::metadata(data).unwrap();
    chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// The three ways to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leg {
    Unix,
    Plain,
    Tls,
}

pub(crate) fn server_config(cluster: &Cluster, leg: Leg, certs: &Certs) -> ServerConfig {
    let (host, sslmode) = match leg {
        Leg::Unix => (cluster.socket_dir().display().to_string(), SslMode::Disable),
        Leg::Plain => ("127.0.0.1".to_owned(), SslMode::Disable),
        Leg::Tls => ("localhost".to_owned(), SslMode::VerifyFull),
    };
    let sslrootcert = (leg == Leg::Tls).then(|| certs.file("ca.crt"));
    ServerConfig { host, port: cluster.port(), sslmode, sslrootcert, ..ServerConfig::default() }
}
