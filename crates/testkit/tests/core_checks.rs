//! The catalogue of checks on real servers: every check can look on every version, and each hazard, once made, is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use pgteal_core::checks::{Clusters, Context, GreenFacts, Report, Severity, Verdict, Waiver, run_all};
use pgteal_core::deployment::DeploymentId;
use pgteal_postgres::{ConnInfo, Server, Version};
use pgteal_testkit::{Cluster, MAJORS};

const ID: &str = "abcd2345";

fn server(name: &str, cluster: &Cluster, user: &str) -> Server {
    let info = ConnInfo::at("127.0.0.1", cluster.port(), user).with_database("postgres");
    Server::new(name, info).unwrap()
}

fn context(blue: u32, green: u32) -> Context {
    Context {
        deployment: Some(DeploymentId::parse(ID).unwrap()),
        databases: vec!["app".to_owned(), "postgres".to_owned()],
        blue: Version { major: blue, minor: 1 },
        green: GreenFacts {
            version: Some(Version { major: green, minor: 1 }),
            extensions: Some(BTreeMap::from([("hstore".to_owned(), "1.8".to_owned())])),
            free_bytes: Some(1 << 40),
            must_be_empty: true,
        },
        tool_role: "pgteal".to_owned(),
        copy_workers: 2,
        waivers: Vec::new(),
        today: serde_json::from_str("\"2026-11-22\"").unwrap(),
    }
}

async fn look(blue: &Cluster, green: Option<&Cluster>, cx: &Context) -> Report {
    let clusters = Clusters {
        blue: (server("blue", blue, &cx.tool_role), "postgres".to_owned()),
        green: green.map(|g| (server("green", g, "pgteal"), "postgres".to_owned())),
        green_databases: vec!["postgres".to_owned()],
    };
    run_all(&clusters, cx).await
}

async fn clean(major: u16) -> Cluster {
    let cluster = Cluster::start_new(major).await.unwrap();
    cluster.sql("CREATE ROLE pgteal SUPERUSER LOGIN").await.unwrap();
    cluster
}

fn check(report: &Report, hazard: &str, id: &str, severity: Severity, object: &str) {
    let found =
        report.findings.iter().find(|f| f.check == id && f.severity == severity && f.object == object);
    let found = found.unwrap_or_else(|| panic!("{hazard}: no {id} about {object} in {:#?}", report.findings));
    for text in [&found.what, &found.consequence] {
        assert!(text.ends_with('.') && text.len() > 20, "{id}: {text}");
    }
}

/// Check, severity, object, and the statement for database app that makes the hazard.
const HAZARDS: [(&str, Severity, &str, &str); 17] = [
    ("replica-identity", Severity::Notice, "table app.uniq", "create table app.uniq (a int not null unique, b int)"),
    ("replica-identity", Severity::Warning, "table app.bare", "create table app.bare (a int)"),
    ("replica-identity", Severity::Warning, "table app.nothing",
        "create table app.nothing (a int primary key); alter table app.nothing replica identity nothing;
         alter table app.nothing drop constraint nothing_pkey"),
    ("replica-identity", Severity::Warning, "table app.late", "create table app.late (a int primary key deferrable)"),
    ("replica-identity", Severity::Warning, "table app.leaf",
        "create table app.tree (a int) partition by list (a); create table app.leaf partition of app.tree for values in (1)"),
    ("replica-identity", Severity::Blocker, "table app.doc", "create table app.doc (j json)"),
    ("replica-identity", Severity::Blocker, "table app.deep",
        "create domain app.dj as json; create type app.comp as (x int, j app.dj); create table app.deep (c app.comp[])"),
    ("identity-equality", Severity::Blocker, "table app.\"Full\"",
        "create table app.\"Full\" (p point); alter table app.\"Full\" replica identity full"),
    ("unlogged-tables", Severity::Blocker, "table app.un", "create unlogged table app.un (a int primary key)"),
    ("large-objects", Severity::Blocker, "large objects of database app", "select lo_create(0)"),
    ("firing-triggers", Severity::Notice, "trigger t on app.trig",
        "create table app.trig (a int primary key); create trigger t before update on app.trig for each row
           execute function suppress_redundant_updates_trigger(); alter table app.trig enable always trigger t"),
    ("materialized-views", Severity::Notice, "materialized view app.mv", "create materialized view app.mv as select 1 as a"),
    ("extensions", Severity::Blocker, "extension citext", "create extension citext"),
    ("foreign-objects", Severity::Blocker, "publication pgteal_zzzz2345_fwd", "create publication pgteal_zzzz2345_fwd"),
    ("foreign-objects", Severity::Blocker, "schema pgteal",
        "create schema pgteal; comment on schema pgteal is 'pgteal deployment zzzz2345'"),
    ("prepared-transactions", Severity::Blocker, "prepared transaction left",
        "begin; insert into app.uniq values (1); prepare transaction 'left'"),
    ("replica-role", Severity::Blocker, "setting session_replication_role of role lazy",
        "create role lazy; alter role lazy set session_replication_role = replica"),
];

const CLUSTER_WIDE: [(&str, Severity, &str, &str); 8] = [
    ("database-access", Severity::Blocker, "database shut", "create database shut allow_connections false"),
    ("replication-timeouts", Severity::Notice, "role slow", "create role slow; alter role slow set statement_timeout = '5s'"),
    ("blue-subscribes", Severity::Blocker, "subscription feed",
        "create subscription feed connection 'host=127.0.0.1 port=1 dbname=x' publication x with (connect = false);
         alter subscription feed enable"),
    ("foreign-objects", Severity::Blocker, "replication slot pgteal_zzzz2345_fwd_1",
        "select pg_create_logical_replication_slot('pgteal_zzzz2345_fwd_1', 'pgoutput')"),
    ("role-verifiers", Severity::Notice, "password verifiers", "set password_encryption = 'md5'; create role m login password 'x'"),
    ("wal-level", Severity::Blocker, "setting wal_level", ""),
    ("replication-capacity", Severity::Blocker, "setting max_wal_senders", ""),
    ("replication-capacity", Severity::Warning, "setting max_replication_slots", ""),
];

#[tokio::test]
async fn every_check_looks_on_every_version_and_finds_nothing_in_a_clean_pair() {
    let green = clean(18).await;
    let clusters = futures::future::join_all(MAJORS.iter().map(|m| clean(*m))).await;
    for (blue, major) in clusters.iter().zip(MAJORS) {
        blue.sql("create database app").await.unwrap();
        blue.sql_in("app", "create table t (a int primary key); create extension hstore").await.unwrap();
        let report = look(blue, Some(&green), &context(u32::from(major), 18)).await;
        assert_eq!(report.blockers().count(), 0, "{major}: {:#?}", report.findings);
        for run in &report.checks {
            assert!(matches!(run.verdict, Verdict::Clean | Verdict::Found(_)), "{major}: {run:?}");
        }
        assert!(report.checks.len() >= 20 && report.passes());
    }
}

#[tokio::test]
async fn each_hazard_is_found() {
    for major in [14_u16, 15, 17] {
        let blue = Cluster::builder(major).set("wal_level", "replica").set("max_wal_senders", "2");
        let blue = blue.set("max_replication_slots", "5").start().await.unwrap();
        blue.sql("CREATE ROLE pgteal SUPERUSER LOGIN").await.unwrap();
        blue.sql("create database app").await.unwrap();
        blue.sql_in("app", "create schema app").await.unwrap();
        for (id, _, object, sql) in HAZARDS {
            blue.sql_in("app", sql).await.unwrap_or_else(|e| panic!("{id} {object}: {e}"));
        }
        for (id, _, object, sql) in CLUSTER_WIDE.iter().filter(|h| !h.3.contains("slot('pgteal")) {
            blue.sql(sql).await.unwrap_or_else(|e| panic!("{id} {object}: {e}"));
        }
        let report = look(&blue, None, &context(u32::from(major), 18)).await;
        for (id, severity, object, _) in
            HAZARDS.iter().chain(&CLUSTER_WIDE).filter(|h| !h.3.contains("slot('pgteal"))
        {
            check(&report, &format!("{major}"), id, *severity, object);
        }
        assert!(!report.passes());
        let not_applicable = report.checks.iter().find(|c| c.check == "green-empty").unwrap();
        assert_eq!(not_applicable.verdict, Verdict::NotApplicable, "green does not exist yet");
        assert!(report.findings.is_sorted_by(|a, b| a.severity >= b.severity), "blockers first");
    }
    let blue = clean(15).await;
    blue.sql("create database app").await.unwrap();
    let slot = CLUSTER_WIDE.iter().find(|h| h.3.contains("slot('pgteal")).unwrap();
    blue.sql(slot.3).await.unwrap();
    check(&look(&blue, None, &context(15, 18)).await, "slot", slot.0, slot.1, slot.2);
}

#[tokio::test]
async fn green_must_be_newer_and_empty_and_the_role_ours() {
    let (blue, green) = (clean(15).await, clean(18).await);
    blue.sql("create database app").await.unwrap();
    green.sql("create database other; ").await.unwrap();
    green.sql("create table public.there (a int)").await.unwrap();
    blue.sql("create role weak login").await.unwrap();
    let report = look(&blue, Some(&green), &context(15, 18)).await;
    check(&report, "green", "green-empty", Severity::Blocker, "database other");
    check(&report, "green", "green-empty", Severity::Blocker, "table public.there");
    let mut later = context(15, 18);
    later.green.must_be_empty = false;
    assert!(look(&blue, Some(&green), &later).await.passes(), "filled by us is not foreign");

    let report = look(&blue, None, &context(18, 15)).await;
    check(&report, "order", "version-order", Severity::Blocker, "green server");
    let mut small = context(15, 18);
    small.green.free_bytes = Some(1 << 20);
    check(&look(&blue, None, &small).await, "disk", "disk", Severity::Blocker, "green's file system");

    let as_role = |role: &str| Context { tool_role: role.to_owned(), ..context(15, 18) };
    let report = look(&blue, None, &as_role("postgres")).await;
    check(&report, "role", "dedicated-role", Severity::Blocker, "role postgres");
    let report = look(&blue, None, &as_role("weak")).await;
    check(&report, "role", "role-power", Severity::Blocker, "role weak");
    check(&report, "role", "role-verifiers", Severity::Blocker, "password verifiers");
    // It may not even read pg_authid: that look is reported as one that could not be made, not as clean.
    let run = report.checks.iter().find(|c| c.check == "role-verifiers").unwrap();
    assert!(matches!(&run.verdict, Verdict::NotLooked(why) if why.contains("permission denied")), "{run:?}");
}

#[tokio::test]
async fn what_cannot_be_looked_at_blocks_and_a_waiver_lifts_only_what_it_names() {
    let blue = clean(15).await;
    blue.sql("create database app").await.unwrap();
    blue.sql_in(
        "app",
        "create unlogged table a (x int primary key); create unlogged table b (x int primary key)",
    )
    .await
    .unwrap();
    let mut cx = context(15, 18);
    let waiver = |object: Option<&str>, until| Waiver {
        check: "unlogged-tables".to_owned(),
        object: object.map(str::to_owned),
        reason: "scratch".to_owned(),
        until,
    };
    for (waivers, blockers) in [
        (vec![], 2),
        (vec![waiver(Some("table public.a"), None)], 1),
        (vec![waiver(None, serde_json::from_str("\"2026-11-22\"").unwrap())], 0),
        (vec![waiver(None, serde_json::from_str("\"2026-11-21\"").unwrap())], 2),
    ] {
        cx.waivers = waivers;
        assert_eq!(look(&blue, None, &cx).await.blockers().count(), blockers, "{:?}", cx.waivers);
    }
    cx.databases.push("nowhere".to_owned());
    let report = look(&blue, None, &cx).await;
    let blocker = report.blockers().find(|f| f.check == "large-objects").unwrap();
    assert!(blocker.what.contains("nowhere") && blocker.next.as_deref() == Some("look-again"), "{blocker:?}");
    blue.stop_fast().await.unwrap();
    let report = look(&blue, None, &cx).await;
    assert!(report.checks.iter().filter(|c| matches!(c.verdict, Verdict::NotLooked(_))).count() > 15);
    assert!(!report.passes());
}
