//! `sslmode` towards servers, direct TLS from clients, channel binding that must be used.

use std::time::Duration;

use bytes::BytesMut;
use pgteal_proxy::auth::{Credentials, Greeting, Target, greet, log_in};
use pgteal_proxy::config::{ServerConfig, SslMode, TlsConfig};
use pgteal_proxy::stream::Stream;
use pgteal_proxy::tls::ClientTls;
use pgteal_wire::frame;
use pgteal_wire::message::authentication::Authentication;
use pgteal_wire::message::backend::{TransactionStatus, put_ready_for_query};
use pgteal_wire::message::frontend::parse_sasl_initial;
use pgteal_wire::scram::{SCRAM_SHA_256_PLUS, ScramServer, ServerBinding, Verifier};
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::front::greeted;
use crate::servers::{Certs, PASSWORD, server};

const LIMIT: Duration = Duration::from_secs(10);

fn startup() -> StartupMessage {
    StartupMessage::new(ProtocolVersion::V3_0, [("user", "scram_user"), ("database", "postgres")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslmode_means_what_it_means_to_libpq() {
    // The server's certificate names `localhost` only, not the address.
    let certs = Certs::with(&rcgen::PKCS_ECDSA_P384_SHA384, &["localhost"]);
    let strangers = Certs::new();
    let with_tls = server(17, &certs).await;
    let without = pgteal_testkit::Cluster::start_new(17).await.unwrap();
    without.sql(&format!("CREATE ROLE scram_user LOGIN PASSWORD '{PASSWORD}'")).await.unwrap();
    let (good, wrong) = (Some(certs.file("ca.crt")), Some(strangers.file("ca.crt")));
    let itself = Some(certs.file("server.crt"));
    // host, mode, roots, server has TLS -> encrypted or refused
    let table = [
        ("127.0.0.1", SslMode::Disable, &None, true, Some(false)),
        ("127.0.0.1", SslMode::Prefer, &None, true, Some(true)),
        ("127.0.0.1", SslMode::Prefer, &None, false, Some(false)),
        ("127.0.0.1", SslMode::Require, &None, true, Some(true)),
        ("127.0.0.1", SslMode::Require, &None, false, None),
        ("127.0.0.1", SslMode::Require, &wrong, true, None),
        ("127.0.0.1", SslMode::VerifyCa, &good, true, Some(true)),
        ("127.0.0.1", SslMode::VerifyCa, &wrong, true, None),
        ("127.0.0.1", SslMode::VerifyFull, &good, true, None),
        ("localhost", SslMode::VerifyFull, &good, true, Some(true)),
        ("localhost", SslMode::VerifyFull, &wrong, true, None),
        ("localhost", SslMode::VerifyFull, &good, false, None),
        ("localhost", SslMode::VerifyFull, &itself, true, Some(true)),
    ];
    for (host, sslmode, roots, tls, want) in table {
        let port = if tls { with_tls.port() } else { without.port() };
        let config = ServerConfig {
            host: host.into(),
            port,
            sslmode,
            sslrootcert: roots.clone(),
            ..ServerConfig::default()
        };
        let target = Target::new(&config, 100_000).unwrap();
        let opened = log_in(&target, &startup(), &Credentials::password(PASSWORD), LIMIT).await;
        let got = opened.as_ref().ok().map(|upstream| upstream.stream.is_tls());
        assert_eq!(got, want, "{host} {sslmode:?} {roots:?} {:?}", opened.err().map(|e| e.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_self_signed_certificate_that_is_its_own_root_is_trusted() {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    let certs = Certs::new();
    std::fs::write(certs.file("server.crt"), cert.pem()).unwrap();
    std::fs::write(certs.file("server.key"), key.serialize_pem()).unwrap();
    let cluster = server(15, &certs).await;
    for (host, want) in [("localhost", true), ("127.0.0.1", false)] {
        let config = ServerConfig {
            host: host.into(),
            port: cluster.port(),
            sslmode: SslMode::VerifyFull,
            sslrootcert: Some(certs.file("server.crt")),
            ..ServerConfig::default()
        };
        let target = Target::new(&config, 100_000).unwrap();
        let opened = log_in(&target, &startup(), &Credentials::password(PASSWORD), LIMIT).await;
        assert_eq!(opened.is_ok(), want, "{host} {:?}", opened.err());
    }
}

/// A server that takes nothing but SCRAM-SHA-256-PLUS: who gets in has used channel binding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_binding_is_used_when_it_is_offered() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
        let certs = Certs::with(algorithm, &["localhost"]);
        let files = TlsConfig {
            cert: certs.file("server.crt"),
            key: certs.file("server.key"),
            required: true,
            ..TlsConfig::default()
        };
        let tls = ClientTls::load(&files).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let mut stream = greeted(&listener, &tls).await;
            let offered = ServerBinding::EndPoint(stream.end_point().unwrap().to_vec());
            let verifier = Verifier::generate(PASSWORD.as_bytes());
            let mut exchange = ScramServer::new(b"scram_user", verifier, offered);
            let mut input = BytesMut::new();
            say(&mut stream, &Authentication::Sasl { mechanisms: vec![SCRAM_SHA_256_PLUS] }).await;
            let initial = hear(&mut stream, &mut input).await;
            let (mechanism, first) = parse_sasl_initial(&initial).unwrap();
            let challenge = exchange.first(mechanism, first.unwrap()).unwrap();
            say(&mut stream, &Authentication::SaslContinue(&challenge)).await;
            let done = exchange.finish(&hear(&mut stream, &mut input).await).unwrap();
            say(&mut stream, &Authentication::SaslFinal(&done.server_final)).await;
            let mut out = BytesMut::new();
            Authentication::Ok.encode(&mut out);
            put_ready_for_query(&mut out, TransactionStatus::Idle);
            stream.write_all(&out).await.unwrap();
            stream.flush().await.unwrap();
        });
        let config = ServerConfig {
            host: "127.0.0.1".into(),
            port,
            sslmode: SslMode::Require,
            ..ServerConfig::default()
        };
        let target = Target::new(&config, 100_000).unwrap();
        let upstream = log_in(&target, &startup(), &Credentials::password(PASSWORD), LIMIT).await.unwrap();
        served.await.unwrap();
        // None was sent, so none is invented.
        assert_eq!(upstream.cancel_key, None);
    }
}

async fn say(stream: &mut Stream, message: &Authentication<'_>) {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    stream.write_all(&out).await.unwrap();
    stream.flush().await.unwrap();
}

async fn hear(stream: &mut Stream, input: &mut BytesMut) -> Vec<u8> {
    loop {
        if let Some(message) = frame::take(input, 4096).unwrap() {
            return message.body().to_vec();
        }
        assert_ne!(stream.read_buf(input).await.unwrap(), 0, "the client went away");
    }
}

/// A server that lets anybody in without proving that it knows the password is not believed.
#[tokio::test]
async fn a_server_that_skips_its_proof_is_not_believed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let mut stream = Stream::Tcp(listener.accept().await.unwrap().0);
        let mut input = BytesMut::new();
        while input.is_empty() {
            stream.read_buf(&mut input).await.unwrap();
        }
        input.clear();
        say(&mut stream, &Authentication::Sasl { mechanisms: vec!["SCRAM-SHA-256"] }).await;
        hear(&mut stream, &mut input).await;
        say(&mut stream, &Authentication::Ok).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let config =
        ServerConfig { host: "127.0.0.1".into(), port, sslmode: SslMode::Disable, ..ServerConfig::default() };
    let target = Target::new(&config, 100_000).unwrap();
    let error = log_in(&target, &startup(), &Credentials::password(PASSWORD), LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("AuthenticationOk before the server's signature"), "{error}");
    served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_with_tls_must_name_the_protocol() {
    let certs = Certs::new();
    let files = TlsConfig {
        cert: certs.file("server.crt"),
        key: certs.file("server.key"),
        required: false,
        ..TlsConfig::default()
    };
    let tls = std::sync::Arc::new(ClientTls::load(&files).unwrap());
    for (alpn, want) in
        [(&[][..], false), (&[b"postgresql".to_vec()], true), (&[b"http/1.1".to_vec()], false)]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = std::sync::Arc::clone(&tls);
        let served = tokio::spawn(async move {
            let stream = Stream::Tcp(listener.accept().await.unwrap().0);
            matches!(greet(stream, Some(&tls), false).await, Ok(Greeting::Session { .. }))
        });
        let connector = tokio_rustls::TlsConnector::from(driver_config(&certs.ca_der, alpn));
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        if let Ok(mut stream) = connector.connect("localhost".try_into().unwrap(), tcp).await {
            let _ = stream.write_all(&startup().encode()).await;
            let _ = stream.flush().await;
            assert_eq!(served.await.unwrap(), want, "{alpn:?}");
        } else {
            assert!(!want, "{alpn:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_bytes_behind_ssl_request_break_the_handshake() {
    let certs = Certs::new();
    let files = TlsConfig {
        cert: certs.file("server.crt"),
        key: certs.file("server.key"),
        required: false,
        ..TlsConfig::default()
    };
    let tls = ClientTls::load(&files).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let stream = Stream::Tcp(listener.accept().await.unwrap().0);
        greet(stream, Some(&tls), false).await
    });
    let mut tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let smuggled = [&pgteal_wire::startup::SSL_REQUEST_PACKET[..], &startup().encode()].concat();
    tcp.write_all(&smuggled).await.unwrap();
    let result = tokio::time::timeout(LIMIT, served).await.unwrap().unwrap();
    assert!(matches!(result, Err(pgteal_proxy::auth::GreetError::Tls(_))), "{result:?}");
}

#[tokio::test]
async fn clients_without_tls_are_turned_away_where_it_is_required() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let stream = Stream::Tcp(listener.accept().await.unwrap().0);
        greet(stream, None, true).await
    });
    let mut tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tcp.write_all(&startup().encode()).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("C28000\0"), "{answer:?}");
    assert!(matches!(served.await.unwrap(), Err(pgteal_proxy::auth::GreetError::TlsRequired)));
}

fn driver_config(ca_der: &[u8], alpn: &[Vec<u8>]) -> std::sync::Arc<rustls::ClientConfig> {
    let mut config = crate::front::driver_config(ca_der);
    config.alpn_protocols = alpn.to_vec();
    std::sync::Arc::new(config)
}

#[tokio::test]
async fn prefer_goes_on_without_tls_where_it_does_not_work() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        first.read_exact(&mut request).await.unwrap();
        first.write_all(b"Sno handshake of TLS").await.unwrap();
        drop(first);
        let stream = Stream::Tcp(listener.accept().await.unwrap().0);
        matches!(greet(stream, None, false).await, Ok(Greeting::Session { .. }))
    });
    let config =
        ServerConfig { host: "127.0.0.1".into(), port, sslmode: SslMode::Prefer, ..ServerConfig::default() };
    let target = Target::new(&config, 100_000).unwrap();
    // The stand-in says nothing more: that it was asked for a session in plain text is what counts.
    log_in(&target, &startup(), &Credentials::password(PASSWORD), LIMIT).await.unwrap_err();
    assert!(served.await.unwrap());
}
