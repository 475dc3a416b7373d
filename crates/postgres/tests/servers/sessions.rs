//! Sessions: bounded calls, errors that say where, transactions that end, wrong doors.

use std::time::{Duration, Instant};

use pgteal_postgres::{
    Certainty, ConnectFailure, Error, Password, Purpose, Server, database, role, settings,
};

use crate::cluster::{ROLE, cluster, majors};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_knows_itself_and_is_pinned() {
    for major in majors() {
        let (server, s) = cluster(major).database("sess_self").await;
        assert_eq!(
            (s.version().major, s.database(), s.server()),
            (major, "sess_self", format!("pg{major}").as_str())
        );
        assert!(s.backend_pid() > 0);
        let sql = "SELECT current_setting('application_name'), current_setting('lock_timeout'),
            current_setting('client_connection_check_interval'), current_setting('idle_in_transaction_session_timeout'),
            current_setting('timezone'), current_setting('transaction_read_only')";
        let row = s.text_rows("looking", sql).await.unwrap().remove(0);
        assert_eq!(
            row,
            ["pgteal/test", "100ms", "500ms", "2s", "UTC", "off"].map(|v| Some(v.to_owned())),
            "{major}"
        );
        let long = server.connect("sess_self", Purpose::long("copy")).await.unwrap();
        let row =
            long.text_rows("looking", "SELECT current_setting('lock_timeout')").await.unwrap().remove(0);
        assert_eq!(row, [Some("0".to_owned())]);
        let warm = server.warm("sess_self").await.unwrap();
        assert_eq!(warm.backend_pid(), server.warm("sess_self").await.unwrap().backend_pid());
        assert!(warm.clone().begin("trying").await.is_err(), "a shared session has no transactions");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_takes_too_long_is_cancelled_and_the_session_goes_on() {
    let (_, s) = cluster(*majors().last().unwrap()).database("sess_slow").await;
    let start = Instant::now();
    let error =
        s.within(Duration::from_millis(100)).batch("sleeping", "SELECT pg_sleep(30)").await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(matches!(error, Error::TimedOut { settled: true, .. }), "{error}");
    assert_eq!(error.certainty(), Certainty::Refused);
    assert!(error.to_string().ends_with("while sleeping: no answer within 100 ms, cancelled"), "{error}");
    s.batch("going on", "SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_where_and_what() {
    let (server, s) = cluster(*majors().last().unwrap()).database("sess_error").await;
    let error = s.batch("counting sheep", "SELECT * FROM public.sheep").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "server {}, database sess_error, while counting sheep: relation \"public.sheep\" does not exist (SQLSTATE 42P01)",
            server.name()
        )
    );
    assert_eq!(error.certainty(), Certainty::Refused);
    let other = server.connect("sess_error", Purpose::control("other")).await.unwrap();
    let killed = s.clone();
    let call = tokio::spawn(async move { killed.batch("sleeping", "SELECT pg_sleep(10)").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let sql = format!("SELECT pg_terminate_backend({})", s.backend_pid());
    other.batch("killing", &sql).await.unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.certainty(), Certainty::Unknown, "{error}");
    assert!(error.ends_session() && error.is_transient(), "{error}");
    assert!(error.to_string().contains("terminating connection due to administrator command"), "{error}");
    let error = s.batch("trying again", "SELECT 1").await.unwrap_err();
    assert!(matches!(error, Error::Lost { .. }) && s.is_closed(), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_ends_as_told_and_a_dropped_one_is_rolled_back() {
    let (_, mut s) = cluster(*majors().first().unwrap()).database("sess_tx").await;
    s.batch("setup", "CREATE TABLE public.t (id int)").await.unwrap();
    let tx = s.begin("writing").await.unwrap();
    tx.batch("writing", "INSERT INTO public.t VALUES (1)").await.unwrap();
    tx.commit("writing").await.unwrap();
    let tx = s.begin("writing").await.unwrap();
    tx.batch("writing", "INSERT INTO public.t VALUES (2)").await.unwrap();
    tx.rollback("writing").await.unwrap();
    let tx = s.begin("writing").await.unwrap();
    tx.batch("writing", "INSERT INTO public.t VALUES (3)").await.unwrap();
    drop(tx);
    let tx = s.begin("writing").await.unwrap();
    assert!(tx.batch("failing", "SELECT 1/0").await.is_err());
    let error = tx.commit("committing what failed").await.unwrap_err();
    assert_eq!(error.sqlstate().unwrap().code(), "25P02", "a commit of nothing is not a success");
    let rows = s.text_rows("looking", "SELECT id FROM public.t").await.unwrap();
    assert_eq!(rows, [[Some("1".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_doors_are_told_apart() {
    let running = cluster(*majors().last().unwrap());
    let (server, s) = running.database("sess_doors").await;
    let hba = running.dir().join("data/pg_hba.conf");
    let old = std::fs::read_to_string(&hba).unwrap();
    if !old.contains("locked") {
        std::fs::write(&hba, format!("host all locked 127.0.0.1/32 scram-sha-256\n{old}")).unwrap();
    }
    settings::reload(&s, Duration::from_secs(5)).await.unwrap();
    role::ensure_tool_role(&s, "locked", Some(&Password::new("r1ght'\\"))).await.unwrap();
    let failure = async |info: pgteal_postgres::ConnInfo, db: &str| {
        let server = Server::new("door", info).unwrap();
        match server.connect(db, Purpose::probe("door")).await {
            Ok(_) => None,
            Err(Error::Connect { failure, message, .. }) => {
                assert!(!message.contains("r1ght") && !message.contains("wr0ng"), "{message}");
                Some(failure)
            }
            Err(e) => panic!("{e}"),
        }
    };
    let good = running.conninfo("locked").with_password(Password::new("r1ght'\\"));
    assert_eq!(failure(good.clone(), "sess_doors").await, None);
    let wrong = running.conninfo("locked").with_password(Password::new("wr0ng"));
    assert_eq!(failure(wrong, "sess_doors").await, Some(ConnectFailure::Authentication));
    assert_eq!(failure(running.conninfo("locked"), "sess_doors").await, Some(ConnectFailure::Authentication));
    assert_eq!(failure(good.clone(), "nowhere").await, Some(ConnectFailure::NoSuchDatabase));
    assert_eq!(failure(good.with_address("127.0.0.1", 1), "x").await, Some(ConnectFailure::Unreachable));
    let text = format!("host=127.0.0.1 port={} user={ROLE} sslmode=require", running.port);
    let tls = pgteal_postgres::ConnInfo::parse(&text).unwrap();
    assert_eq!(failure(tls, "sess_doors").await, Some(ConnectFailure::Tls));
    let socket = server.conninfo().clone().with_address(running.dir().to_str().unwrap(), running.port);
    assert_eq!(failure(socket, "sess_doors").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_stay_out_of_the_log() {
    let running = cluster(*majors().last().unwrap());
    let (_, s) = running.database("sess_log").await;
    s.batch("setup", "CREATE EXTENSION pg_stat_statements SCHEMA public").await.unwrap();
    s.batch("logging all", "SET log_statement = 'all'; SET log_min_duration_statement = 0").await.unwrap();
    s.batch_unlogged("hiding", "CREATE ROLE hidden PASSWORD 'sup3rs3cret'").await.unwrap();
    assert!(s.batch_unlogged("hiding", "CREATE ROLE hidden PASSWORD 'sup3rs3cret'").await.is_err());
    let parameter =
        async { s.query_one("hiding a parameter", "SELECT $1::text", &[&"sup3rs3cret"]).await.map(drop) };
    s.unlogged(parameter).await.unwrap();
    s.batch_unlogged("hiding", "ALTER ROLE hidden PASSWORD 'sup3rs3cret2'").await.unwrap();
    s.batch("marking", "COMMENT ON ROLE hidden IS 'after the secret'").await.unwrap();
    assert!(!running.log().contains("sup3rs3cret"));
    // The server has pg_stat_statements loaded, which keeps the text of utility statements as it was.
    let kept = s.text_rows("looking", "SELECT query FROM public.pg_stat_statements").await.unwrap();
    assert!(kept.iter().any(|row| row[0].as_deref().is_some_and(|query| query.contains("after the"))));
    assert!(!kept.iter().any(|row| row[0].as_deref().is_some_and(|query| query.contains("sup3rs3cret"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_settings_and_roles_are_read_and_made() {
    for major in majors() {
        let (server, s) = cluster(major).database("sess_objects").await;
        let here = database::list(&s).await.unwrap().into_iter().find(|d| d.name == "sess_objects").unwrap();
        assert_eq!((here.encoding.as_str(), here.owner.as_str()), ("UTF8", ROLE));
        assert!(here.size_bytes > 1_000_000 && here.oid == database::current_oid(&s).await.unwrap());
        let mut twin = here.clone();
        twin.name = "sess_twin".to_owned();
        database::create(&s, &twin).await.unwrap();
        database::create(&s, &twin).await.unwrap();
        let made = database::list(&s).await.unwrap().into_iter().find(|d| d.name == "sess_twin").unwrap();
        assert_eq!(
            (&made.collate, &made.ctype, &made.locale_provider),
            (&here.collate, &here.ctype, &here.locale_provider)
        );
        database::drop(&s, "sess_twin").await.unwrap();
        database::drop(&s, "sess_twin").await.unwrap();

        let all = settings::list(&s).await.unwrap();
        let wal = all.iter().find(|x| x.name == "wal_level").unwrap();
        assert_eq!((wal.value.as_str(), wal.source.as_str()), ("logical", "configuration file"));
        settings::alter_system_set(&s, &[("max_connections", "151"), ("log_temp_files", "5")]).await.unwrap();
        assert_eq!(
            settings::reload(&s, Duration::from_secs(5)).await.unwrap(),
            ["max_connections"],
            "{major}"
        );
        settings::alter_system_reset(&s, &["max_connections", "log_temp_files"]).await.unwrap();
        settings::reload(&s, Duration::from_secs(5)).await.unwrap();
        assert_eq!(settings::show(&s, "no_such_setting").await.unwrap(), None);

        let ours = role::list(&s).await.unwrap().into_iter().find(|r| r.name == ROLE).unwrap();
        assert!(ours.superuser && ours.replication && ours.verifier.is_none());
        let stored = role::stored_settings(&s).await.unwrap();
        let count = stored.iter().filter(|x| x.role.as_deref() == Some(ROLE)).count();
        assert_eq!(count, role::tool_settings(major).len(), "{major}");
        role::memberships(&s).await.unwrap();
        server.cool().await;
    }
}
