//! Everybody who must not get in, and what they are told.

use std::time::Duration;

use pgteal_proxy::auth::{Credentials, UpstreamError, log_in};
use pgteal_proxy::config::AuthMethod;
use pgteal_wire::scram::{PassThrough, Verifier};
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::front::{Front, target};
use crate::servers::{Certs, Leg, PASSWORD, server, server_config};

const MAJOR: u16 = 15;

fn told(result: Result<tokio_postgres::Client, tokio_postgres::Error>) -> (String, String) {
    let Err(error) = result else { panic!("must not get in") };
    let error = error.as_db_error().unwrap_or_else(|| panic!("no answer of a server: {error:?}"));
    (error.code().code().to_owned(), error.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_ones_are_told_what_a_server_tells() {
    let certs = Certs::new();
    let cluster = server(MAJOR, &certs).await;
    let config = server_config(&cluster, Leg::Unix, &certs);
    let front = Front::start(AuthMethod::Verifier, &config, &certs).await;
    for (user, password) in [
        ("scram_user", "wrong"),
        ("md5_user", "wrong"),
        ("nobody", PASSWORD),
        ("expired_user", PASSWORD),
        ("nologin_user", PASSWORD),
        ("bare_user", ""),
        ("clear_user'; --", PASSWORD),
    ] {
        for leg in [Leg::Plain, Leg::Tls] {
            let (code, message) = told(front.connect(leg, false, user, password).await);
            let want = format!("password authentication failed for user \"{user}\"");
            assert_eq!((code.as_str(), message), ("28P01", want));
        }
    }
    let cleartext = Front::start(AuthMethod::Cleartext, &config, &certs).await;
    let (code, _) = told(cleartext.connect(Leg::Plain, false, "clear_user", PASSWORD).await);
    assert_eq!(code, "28000", "a cleartext password must not be asked for without encryption");
    // The server checks it, and its own words come through.
    let (code, message) = told(cleartext.connect(Leg::Tls, false, "clear_user", "wrong").await);
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("28P01", "password authentication failed for user \"clear_user\"")
    );
    let trust = Front::start(AuthMethod::Trust, &config, &certs).await;
    let (code, _) = told(trust.connect(Leg::Plain, false, "scram_user", PASSWORD).await);
    assert_eq!(code, "28P01", "trusting a client opens no server that wants a password");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_own_refusal_comes_through_untouched() {
    let certs = Certs::new();
    let cluster = server(MAJOR, &certs).await;
    let config = server_config(&cluster, Leg::Plain, &certs);
    let target = target(&config);
    let startup = StartupMessage::new(ProtocolVersion::V3_0, [("user", "scram_user"), ("database", "none")]);
    let right = Credentials::password(PASSWORD);
    let limit = Duration::from_secs(10);
    let error = log_in(&target, &startup, &right, limit).await.unwrap_err();
    let UpstreamError::Refused { response, .. } = &error else { panic!("{error}") };
    assert!(!error.is_authentication_failure());
    assert_eq!(response.first(), Some(&b'E'));
    assert_eq!(error.client_bytes(b"scram_user"), response);
    assert!(error.to_string().ends_with("3D000 database \"none\" does not exist"), "{error}");

    let startup =
        StartupMessage::new(ProtocolVersion::V3_0, [("user", "scram_user"), ("database", "postgres")]);
    let wrong = log_in(&target, &startup, &Credentials::password("wrong"), limit).await.unwrap_err();
    assert!(
        wrong.is_authentication_failure() && !format!("{wrong:?}{wrong}").contains("wrong\""),
        "{wrong:?}"
    );
    let none = log_in(&target, &startup, &Credentials::None, limit).await.unwrap_err();
    assert_eq!(
        none.to_string(),
        format!(
            "127.0.0.1:{} asks user \"scram_user\" for SCRAM-SHA-256, and the session has no password",
            cluster.port()
        )
    );
    // Keys of another verifier of the same password: recognised before a proof is sent.
    let other = Verifier::generate(PASSWORD.as_bytes());
    let keys = PassThrough::from_password(b"scram_user", PASSWORD.as_bytes(), &other).unwrap();
    let differs = log_in(&target, &startup, &Credentials::Scram(Box::new(keys)), limit).await.unwrap_err();
    assert!(differs.to_string().contains("is not the one the client logged in with"), "{differs}");
    // Keys belong to one user only.
    let stored = cluster.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_user'").await.unwrap();
    let verifier = Verifier::parse(stored.trim()).unwrap();
    let keys = PassThrough::from_password(b"moved_user", PASSWORD.as_bytes(), &verifier).unwrap();
    let stolen = log_in(&target, &startup, &Credentials::Scram(Box::new(keys)), limit).await.unwrap_err();
    assert!(matches!(stolen, UpstreamError::Unanswerable { .. }), "{stolen}");
}

#[tokio::test]
async fn a_silent_server_costs_the_deadline_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    });
    let config: pgteal_proxy::config::ServerConfig = pgteal_proxy::config::ServerConfig {
        host: "127.0.0.1".into(),
        port,
        sslmode: pgteal_proxy::config::SslMode::Disable,
        ..Default::default()
    };
    let startup = StartupMessage::new(ProtocolVersion::V3_0, [("user", "u")]);
    let limit = Duration::from_millis(200);
    let error = log_in(&target(&config), &startup, &Credentials::None, limit).await.unwrap_err();
    let want = format!(
        "127.0.0.1:{port}: login not finished within 200 ms, last while waiting for the authentication request"
    );
    assert_eq!(error.to_string(), want);
    silent.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_clients_are_told_and_dropped() {
    let certs = Certs::new();
    let cluster = server(MAJOR, &certs).await;
    let config = server_config(&cluster, Leg::Unix, &certs);
    let front = Front::start(AuthMethod::Verifier, &config, &certs).await;
    let startup =
        |version: u32| StartupMessage::new(ProtocolVersion(version), [("user", "scram_user")]).encode();
    let sasl = b"p\0\0\0\x18SCRAM-SHA-256\0\0\0\0\x02n,";
    let table: [(Vec<u8>, &str); 5] = [
        (startup(2 << 16), "0A000"),
        (b"\0\0\0\x0c\0\x03\0\0user".to_vec(), "08P01"),
        ([startup(3 << 16), b"Q\0\0\0\x05\0".to_vec()].concat(), "08P01"),
        ([startup(3 << 16), b"p\x7f\xff\xff\xff".to_vec()].concat(), "08P01"),
        ([startup(3 << 16), sasl.to_vec()].concat(), "08P01"),
    ];
    for (bytes, code) in table {
        let mut stream = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the connection must end");
        let shown = String::from_utf8_lossy(&answer).into_owned();
        assert!(shown.contains(&format!("C{code}\0")), "{bytes:?} answered {shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_users_see_the_same_exchange() {
    let certs = Certs::new();
    let cluster = server(MAJOR, &certs).await;
    let front = Front::start(AuthMethod::Verifier, &server_config(&cluster, Leg::Unix, &certs), &certs).await;
    let mut shapes = Vec::new();
    for user in ["scram_user", "nobody", "nobody", "expired_user"] {
        let mut stream = tokio::net::UnixStream::connect(front.socket()).await.unwrap();
        let startup = StartupMessage::new(ProtocolVersion::V3_0, [("user", user)]);
        stream.write_all(&startup.encode()).await.unwrap();
        let mut offer = vec![0; 24];
        stream.read_exact(&mut offer).await.unwrap();
        let mut first = b"p\0\0\0\0SCRAM-SHA-256\0\0\0\0\x09n,,n=,r=x".to_vec();
        first[4] = u8::try_from(first.len() - 1).unwrap();
        stream.write_all(&first).await.unwrap();
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut challenge = vec![0; usize::from(head[4]) - 8];
        stream.read_exact(&mut challenge).await.unwrap();
        let text = String::from_utf8(challenge).unwrap();
        let salt = text.split(',').nth(1).unwrap().to_owned();
        shapes.push((offer, text.len(), text.ends_with(",i=4096"), salt));
    }
    assert!(
        shapes.iter().all(
            |(offer, len, iterations, _)| (offer, len, iterations) == (&shapes[0].0, &shapes[0].1, &true)
        )
    );
    assert_eq!(shapes[1].3, shapes[2].3, "the salt of an unknown user must not change");
    assert_ne!(shapes[1].3, shapes[3].3);
}
