//! The verifier lookup: its memory, its connection, a change of the active side.

use std::sync::Arc;
use std::time::Duration;

use pgteal_proxy::auth::{AuthQuery, StoredVerifier, VerifierLookup as _};
use pgteal_proxy::config::{AuthConfig, AuthMethod, ServerConfig};
use pgteal_testkit::Cluster;
use pgteal_wire::startup::ProtocolVersion;

use crate::front::{Front, lookup, service, target};
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
    // Asked once more: the other side is not what was believed of this one.
    lookup.set_service(service(&AuthConfig::default(), target(&server_config(&green, Leg::Unix, &certs))));
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

/// A role that may do nothing but call a function, which counts how often it is called.
async fn counting(cluster: &Cluster) -> Arc<AuthQuery> {
    cluster
        .sql(&format!(
            "CREATE ROLE looker LOGIN PASSWORD '{PASSWORD}';
             CREATE SCHEMA auth; CREATE SEQUENCE auth.calls;
             CREATE FUNCTION auth.lookup(name name) RETURNS TABLE (rolname name, rolpassword text)
             LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
             BEGIN
                 PERFORM nextval('auth.calls');
                 IF name LIKE 'slow%' THEN PERFORM pg_sleep(0.4); END IF;
                 RETURN QUERY SELECT a.rolname, a.rolpassword FROM pg_authid a WHERE a.rolname = name AND rolcanlogin;
             END $$;
             REVOKE ALL ON FUNCTION auth.lookup FROM PUBLIC;
             GRANT USAGE ON SCHEMA auth TO looker; GRANT EXECUTE ON FUNCTION auth.lookup TO looker"
        ))
        .await
        .unwrap();
    let config = AuthConfig {
        service_user: "looker".into(),
        query: Some("SELECT rolname, rolpassword FROM auth.lookup($1)".into()),
        ..AuthConfig::default()
    };
    let server = ServerConfig {
        host: cluster.socket_dir().display().to_string(),
        port: cluster.port(),
        ..ServerConfig::default()
    };
    let limit = Duration::from_secs(10);
    Arc::new(AuthQuery::new(&config, service(&config, target(&server)), limit))
}

async fn calls(cluster: &Cluster) -> u32 {
    let last = cluster.sql("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM auth.calls").await;
    last.unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_logins_is_a_few_questions() {
    let cluster = Cluster::start_new(18).await.unwrap();
    let lookup = counting(&cluster).await;
    let flood = async |users: Vec<String>| {
        let all = users.into_iter().map(|user| {
            let lookup = Arc::clone(&lookup);
            tokio::spawn(async move { lookup.verifier(user.as_bytes()).await.unwrap().is_some() })
        });
        let mut found = 0;
        for one in all.collect::<Vec<_>>() {
            found += u32::from(one.await.unwrap());
        }
        found
    };
    // Of one user: who comes while a question is under way shares the next.
    assert_eq!(flood(vec!["looker".into(); 200]).await, 200);
    let asked = calls(&cluster).await;
    assert!((1..100).contains(&asked), "{asked}");
    // Of nobody: once a second.
    assert_eq!(flood(vec!["stranger".into(); 200]).await, 0);
    lookup.login_failed(b"stranger");
    assert_eq!(flood(vec!["stranger".into(); 200]).await, 0);
    assert!(calls(&cluster).await <= asked + 2, "{asked}");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let before = calls(&cluster).await;
    cluster.sql(&format!("CREATE ROLE stranger LOGIN PASSWORD '{PASSWORD}'")).await.unwrap();
    assert_eq!(flood(vec!["stranger".into()]).await, 1);
    assert_eq!(calls(&cluster).await, before + 1);
    // Of many: several at once, on a handful of connections.
    let begun = std::time::Instant::now();
    flood((0..8).map(|n| format!("slow{n}")).collect()).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(800) && took < Duration::from_millis(2_400), "{took:?}");
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgteal/auth'";
    assert_eq!(cluster.sql(count).await.unwrap().trim(), "4");
    // What was prepared no longer fits: once more on a new connection.
    cluster
        .sql(
            "DROP FUNCTION auth.lookup; CREATE FUNCTION auth.lookup(name text)
             RETURNS TABLE (rolname text, rolpassword text) LANGUAGE sql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS
             'SELECT a.rolname::text, a.rolpassword FROM pg_authid a WHERE a.rolname = name'",
        )
        .await
        .unwrap();
    assert_eq!(flood(vec!["looker".into(); 8]).await, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_password_is_never_refused_for_being_new() {
    let certs = Certs::new();
    let cluster = server(17, &certs).await;
    let config = server_config(&cluster, Leg::Unix, &certs);
    let front = Arc::new(Front::with_lookup(AuthMethod::Verifier, &config, &certs, lookup(&config, 0)).await);
    for n in 0..20 {
        let password = format!("new{n}");
        let before = (0..5).map(|_| login(&front, "none of them"));
        let before = before.collect::<Vec<_>>();
        cluster.sql(&format!("ALTER ROLE scram_user PASSWORD '{password}'")).await.unwrap();
        let after = (0..5).map(|_| login(&front, &password));
        for one in after.collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
        for one in before {
            assert!(one.await.unwrap().is_err());
        }
    }
}

fn login(
    front: &Arc<Front>,
    password: &str,
) -> tokio::task::JoinHandle<Result<tokio_postgres::Client, tokio_postgres::Error>> {
    let (front, password) = (Arc::clone(front), password.to_owned());
    tokio::spawn(async move { front.connect(Leg::Plain, false, "scram_user", &password).await })
}
