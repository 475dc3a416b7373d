//! The verifier lookup: its memory, its connection, a change of the active side.

use pgteal_proxy::auth::{StoredVerifier, VerifierLookup as _};
use pgteal_proxy::config::AuthMethod;
use pgteal_wire::startup::ProtocolVersion;

use crate::front::{Front, lookup, target};
use crate::servers::{Certs, Leg, PASSWORD, server, server_config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_is_picked_up_after_one_failure() {
    let certs = Certs::new();
    let cluster = server(16, &certs).await;
    let config = server_config(&cluster, Leg::Plain, &certs);
    let front = Front::start(AuthMethod::Verifier, &config, &certs).await;
    for (user, kind) in [("scram_user", "scram-sha-256"), ("md5_user", "md5")] {
        front.connect(Leg::Plain, false, user, PASSWORD).await.unwrap();
        cluster
            .sql(&format!("SET password_encryption = '{kind}'; ALTER ROLE {user} PASSWORD 'new'"))
            .await
            .unwrap();
        let first = front.connect(Leg::Plain, false, user, "new").await;
        // An md5 answer can be checked again at once; a SCRAM proof is bound to the old salt.
        assert_eq!(first.is_ok(), kind == "md5", "{kind}");
        front.connect(Leg::Plain, false, user, "new").await.unwrap();
        assert!(front.connect(Leg::Plain, false, user, PASSWORD).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_survive_a_restart_and_follow_the_active_side() {
    let certs = Certs::new();
    let (blue, green) = (server(15, &certs).await, server(18, &certs).await);
    let config = server_config(&blue, Leg::Unix, &certs);
    let lookup = lookup(&config, 0);
    assert!(matches!(lookup.verifier(b"scram_user").await, Ok(Some(StoredVerifier::Scram(_)))));
    assert!(matches!(lookup.verifier(b"md5_user").await, Ok(Some(StoredVerifier::Md5(_)))));
    assert!(matches!(lookup.verifier(b"bare_user").await, Ok(None)));
    assert!(matches!(lookup.verifier("ü'\"$1".as_bytes()).await, Ok(None)));
    blue.restart().await.unwrap();
    assert!(matches!(lookup.verifier(b"scram_user").await, Ok(Some(_))), "an idle connection was lost");
    blue.sql("ALTER ROLE scram_user RENAME TO gone_user").await.unwrap();
    assert!(matches!(lookup.verifier(b"scram_user").await, Ok(None)));
    lookup.set_server(target(&server_config(&green, Leg::Unix, &certs)));
    assert!(matches!(lookup.verifier(b"scram_user").await, Ok(Some(_))), "the active side has changed");
    green.stop_immediate().await.unwrap();
    let error = lookup.verifier(b"scram_user").await.unwrap_err();
    assert!(error.to_string().starts_with("verifier of user \"scram_user\": cannot connect to"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_proven_on_blue_open_green() {
    let certs = Certs::new();
    let (blue, green) = (server(15, &certs).await, server(18, &certs).await);
    // As `pgteal up` does: the verifier is carried as it is.
    let stored = blue.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'moved_user'").await.unwrap();
    green.sql(&format!("ALTER ROLE moved_user PASSWORD '{}'", stored.trim())).await.unwrap();
    let lookup = lookup(&server_config(&blue, Leg::Unix, &certs), 0);
    let Some(StoredVerifier::Scram(verifier)) = lookup.verifier(b"moved_user").await.unwrap() else {
        panic!("no SCRAM verifier")
    };
    let keys = pgteal_wire::scram::PassThrough::from_password(b"moved_user", PASSWORD.as_bytes(), &verifier)
        .unwrap();
    let credentials = pgteal_proxy::auth::Credentials::Scram(Box::new(keys));
    let startup = pgteal_wire::startup::StartupMessage::new(
        ProtocolVersion::V3_2,
        [("user", "moved_user"), ("database", "postgres")],
    );
    for (cluster, long_key) in [(&blue, false), (&green, true)] {
        for leg in [Leg::Unix, Leg::Plain, Leg::Tls] {
            let target = target(&server_config(cluster, leg, &certs));
            let limit = std::time::Duration::from_secs(10);
            let upstream = pgteal_proxy::auth::log_in(&target, &startup, &credentials, limit).await.unwrap();
            let version = upstream.parameters.iter().find(|(name, _)| name == b"server_version");
            assert!(version.is_some() && upstream.leftover.is_empty());
            // 3.2 is spoken where the server can, and settled down from where it cannot.
            let key_len = upstream.cancel_key.as_ref().unwrap().secret().len();
            assert_eq!((upstream.version == ProtocolVersion::V3_2, key_len > 4), (long_key, long_key));
        }
    }
}
