//! Every failure with its advice, as a person and as a program gets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use pgteal::config::ConfigError;
use pgteal::errors::Failure;
use pgteal::errors::hints::{HINTS, hint};
use pgteal::run::Clients;
use pgteal::ui::Ui;
use pgteal_core::deployment::Side;
use pgteal_core::postgres::{self, ConnInfoError, ConnectFailure, Place};
use pgteal_core::providers::ProviderError;
use pgteal_core::router::RouterError;
use pgteal_saga::decide::BY_STOP;
use pgteal_saga::driver::Outcome;
use pgteal_saga::event::Doing;
use pgteal_saga::fault::Failure as Fault;
use pgteal_saga::plan::PlanError;
use pgteal_saga::state::{Cause, IllegalEvent};
use pgteal_saga::{CrashPoint, DeploymentId, DriverError, Epoch, JournalError, RunId, StepError};

fn run() -> RunId {
    RunId::parse("switch-k3f7a2qx").unwrap()
}

fn config() -> Vec<Failure> {
    let path = PathBuf::from("pgteal.toml");
    let (key, table) = ("drain_bugdet_ms".to_owned(), "[switch]".to_owned());
    let nearest = Some("drain_budget_ms".to_owned());
    let origin = "pgteal.toml, line 12".to_owned();
    [
        ConfigError::Missing { path: path.clone() },
        ConfigError::Unreadable { path: path.clone(), reason: "permission denied".into() },
        ConfigError::Syntax { path: path.clone(), line: 12, reason: "duplicate key".into() },
        ConfigError::UnknownKey { path: path.clone(), key, table: table.clone(), line: 12, nearest },
        ConfigError::MissingKey { path, key: "conninfo".into(), table },
        ConfigError::Value {
            origin: origin.clone(),
            key: "switch.deadline_ms".into(),
            reason: "is 3, which is outside 100 .. 600000".into(),
        },
        ConfigError::PasswordInline {
            origin,
            key: "blue.conninfo".into(),
            env: "PGTEAL_BLUE_PASSWORD".into(),
        },
        ConfigError::PasswordFile { path: "pw".into(), reason: "its first line is empty".into() },
    ]
    .map(Failure::from)
    .into()
}

fn journal() -> Vec<JournalError> {
    let (place, what) = (".pgteal/journal.db".to_owned(), "something".to_owned());
    let deployment = DeploymentId::parse("ab2cd3ef").unwrap();
    vec![
        JournalError::Conflict { run: run(), expected: 4, found: 5 },
        JournalError::StaleEpoch { deployment, given: Epoch(3), current: Epoch(4) },
        JournalError::UnknownRun { place: place.clone(), run: run() },
        JournalError::Locked { place: place.clone(), holder: "process 7".into() },
        JournalError::Missing { place: place.clone() },
        JournalError::NotAJournal { place: place.clone(), what: what.clone() },
        JournalError::TooNew { place: place.clone(), found: 9, known: 1 },
        JournalError::Corrupt { place: place.clone(), what: what.clone() },
        JournalError::Full { place: place.clone() },
        JournalError::ReadOnly { place: place.clone(), what: what.clone() },
        JournalError::Unfit { what: "SQLite 3.40.0 is older than 3.51.3".into() },
        JournalError::Io { place, what: what.clone() },
        JournalError::Malformed { run: run(), what },
    ]
}

fn driver() -> Vec<DriverError> {
    let full = JournalError::Full { place: ".pgteal/journal.db".into() };
    let lost = |left: Vec<(String, String)>| DriverError::JournalLost {
        source: full.clone(),
        undone: vec!["fence".into(), "hold-clients".into()],
        left,
    };
    vec![
        DriverError::Journal(full.clone()),
        lost(Vec::new()),
        lost(vec![("fence".into(), "no answer".into())]),
        DriverError::Plan { run: run(), source: PlanError::Order("fence".into()) },
        DriverError::Illegal { run: run(), source: IllegalEvent::Empty },
        DriverError::OtherLease { run: run(), run_of: "ab2cd3ef".into(), lease_of: "zz2cd3ef".into() },
        DriverError::NotUndoable { run: run(), why: "it is past the point of no return" },
        DriverError::NotAtGate { run: run(), step: "approve".into(), found: "done".into() },
        DriverError::Died { step: "fence".into(), point: CrashPoint::Applied },
    ]
}

fn server() -> Vec<postgres::Error> {
    let place = || Box::new(Place { server: "blue".into(), database: "app".into(), doing: "looking".into() });
    let connect = |server: &str, failure| postgres::Error::Connect {
        server: server.into(),
        address: "db1:5432".into(),
        database: "app".into(),
        failure,
        message: "as the server said".into(),
        sqlstate: None,
    };
    use ConnectFailure as F;
    vec![
        postgres::Error::ConnInfo(ConnInfoError::UnknownKey("hots".into())),
        connect("blue", F::Unreachable),
        connect("blue", F::Tls),
        connect("green", F::Authentication),
        connect("blue", F::NoSuchDatabase),
        connect("blue", F::NotReady),
        connect("blue", F::Other),
        connect("proxy", F::Unreachable),
        connect("proxy", F::Authentication),
        postgres::Error::TimedOut { place: place(), limit: Duration::from_secs(5), settled: true },
        postgres::Error::Lost { place: place(), message: "connection reset".into() },
        postgres::Error::NotReached {
            place: place(),
            condition: "the marker".into(),
            bound: Duration::from_secs(3),
            last: "4 of 5".into(),
        },
        postgres::Error::Foreign {
            server: "blue".into(),
            database: "app".into(),
            object: "replication slot pgteal_zz2cd3ef_fwd_0".into(),
            reason: "it belongs to deployment zz2cd3ef".into(),
        },
        postgres::Error::Unexpected { place: place(), message: "two rows".into() },
    ]
}

fn provider() -> Vec<ProviderError> {
    vec![
        ProviderError::Foreign { object: "directory /srv/green".into(), reason: "it is not empty".into() },
        ProviderError::Program {
            program: "initdb".into(),
            status: "exit status: 1".into(),
            output: "no room".into(),
        },
        ProviderError::NotStarted { data_dir: "/srv/green".into(), log: "port in use".into() },
        ProviderError::File {
            doing: "making",
            path: "/srv/green".into(),
            source: std::io::Error::other("no room"),
        },
        ProviderError::Configuration("there is no operating system user pg".into()),
    ]
}

fn routers() -> Vec<RouterError> {
    let (router, command) = ("proxy".to_owned(), "HOLD EPOCH 3 LIMIT 3000".to_owned());
    let reason = "as it said".to_owned();
    let not_admitted = |failure| RouterError::NotAdmitted {
        router: router.clone(),
        command: command.clone(),
        failure,
        reason: reason.clone(),
    };
    vec![
        RouterError::Unknown { router: router.clone(), command: command.clone(), reason: reason.clone() },
        not_admitted(postgres::ConnectFailure::Authentication),
        not_admitted(postgres::ConnectFailure::Tls),
        RouterError::Refused { router: router.clone(), command: command.clone(), reason: reason.clone() },
        RouterError::NotUnderstood {
            router: router.clone(),
            command: "ASK green LIMIT 10000".into(),
            reason: "no command \"ASK green LIMIT 10000\"; SHOW HELP lists them".into(),
        },
        RouterError::StaleEpoch { router, command, reason },
    ]
}

fn outcomes() -> Vec<Failure> {
    let coded = |code: Option<&str>| {
        let mut fault = Fault::new("slot pgteal_ab2cd3ef_fwd_0", "what happened");
        fault.code = code.map(str::to_owned);
        fault
    };
    let stuck =
        |doing, code: Option<&str>| Outcome::Stuck { step: "fence".into(), doing, failure: coded(code) };
    let refused = |code: Option<&str>| Outcome::Unwound {
        cause: Cause::Refused { step: "guardrails".into(), failure: coded(code) },
    };
    let by_proxy = Fault::new("router proxy", "stale epoch 2: epoch 3 drives this proxy");
    let by_proxy = Fault { code: Some("stale-epoch".into()), ..by_proxy };
    let codes = [
        None,
        Some("blocked"),
        Some("stale-epoch"),
        Some("foreign-object"),
        Some("guardrail"),
        Some("schema-drift"),
        Some("drain"),
        Some("unreachable"),
        Some("router-unreachable"),
        Some("router-login"),
        Some("wal-fuse"),
        Some("stalled"),
        Some("lost-hold"),
        Some("controller-gone"),
        Some("mismatch"),
    ];
    let mut all: Vec<Outcome> = codes.into_iter().map(refused).collect();
    all.extend([
        Outcome::Unwound { cause: Cause::Refused { step: "warm".into(), failure: by_proxy } },
        Outcome::Unwound { cause: Cause::Operator { by: BY_STOP.into() } },
        Outcome::Unwound { cause: Cause::Deadline { step: "drain".into(), elapsed_ms: 3001, last: None } },
        Outcome::Unwound { cause: Cause::Lost { step: "hold-clients".into(), failure: coded(None) } },
        Outcome::Waiting { step: "approve".into(), what: "an operator".into() },
    ]);
    let all = all.into_iter().map(|outcome| (outcome, Clients::Untouched));
    // What a rest means depends on where it leaves the clients.
    let mut by_probe =
        Fault::new("server router, database app", "the user's verifier could not be looked up");
    by_probe.code = Some("unreachable".into());
    let rests = [
        (
            Outcome::Stuck { step: "probe-write".into(), doing: Doing::Apply, failure: by_probe },
            Clients::Moved,
        ),
        (stuck(Doing::Apply, None), Clients::Untouched),
        (stuck(Doing::Undo, Some("unreachable")), Clients::Held),
        (stuck(Doing::Undo, Some("stale-epoch")), Clients::Held),
        (stuck(Doing::Apply, Some("router-unreachable")), Clients::Crossing),
        (stuck(Doing::Apply, None), Clients::Moved),
        (Outcome::Stopped, Clients::Untouched),
        (Outcome::Stopped, Clients::Moved),
    ];
    let shown = all.chain(rests);
    let shown =
        shown.filter_map(|(outcome, clients)| Failure::of_outcome("switch", &outcome, clients, false));
    let cause = Cause::Deadline { step: "hold-clients".into(), elapsed_ms: 8249, last: None };
    shown.chain(Failure::of_outcome("back", &Outcome::Unwound { cause }, Clients::Untouched, true)).collect()
}

fn own() -> Vec<Failure> {
    vec![
        Failure::ConnInfo { key: "blue.conninfo", error: ConnInfoError::Syntax("missing =".into()) },
        Failure::Exists { path: "pgteal.toml".into() },
        Failure::File { verb: "write", path: ".pgteal/proxy.toml".into(), reason: "no space left".into() },
        Failure::System { doing: "listen for signals", reason: "not permitted".into() },
        Failure::Step(Box::new(StepError::refused("verification", "does not fit"))),
        Failure::Step(Box::new(StepError::unknown("green", "no answer").with_code("unreachable"))),
        Failure::Step(Box::new(StepError::Stopped)),
        Failure::Blocked { count: 1 },
        Failure::Mismatch { count: 2, first: "app: public.orders".into() },
        Failure::NotNow {
            command: "pgteal switch",
            why: "there is no green to move to".into(),
            next: vec!["pgteal plan", "pgteal up"],
        },
        Failure::NotConfirmed { command: "pgteal finish".into() },
        Failure::Answers {
            command: "pgteal undo",
            side: Side::Green,
            address: "db2:5432".into(),
            keeps: "what pgteal made there: slots, and its fence; 3 of those slots keep WAL until the disk is full".into(),
        },
        Failure::Runbook("two steps fence".into()),
        Failure::CommandLine { what: "unrecognized subcommand 'nonsense'".into() },
        Failure::ProxyStart { reason: "cannot listen on 127.0.0.1:6432: Address already in use".into() },
        Failure::Demo("initdb failed".into()),
        Failure::Interrupted,
        Failure::Claims { failed: 1, claims: 13, first: "no client saw an error (57P01: 3)".into() },
        Failure::Argument { argument: "--to".into(), reason: "14 is older than 15".into() },
        Failure::NoDistribution { major: 18, looked: vec!["/usr/lib/postgresql".into()] },
        Failure::NoProgram { program: "pgteal-proxy".into() },
    ]
}

/// Fails to compile when a variant is added: then it needs a sample above, too.
fn is_sampled(failure: &Failure) -> bool {
    match failure {
        Failure::Config(_)
        | Failure::ConnInfo { .. }
        | Failure::Exists { .. }
        | Failure::File { .. }
        | Failure::System { .. }
        | Failure::Journal(_)
        | Failure::Driver(_)
        | Failure::Adrift { .. }
        | Failure::CommandLine { .. }
        | Failure::ProxyStart { .. }
        | Failure::Server(_)
        | Failure::Provider(_)
        | Failure::Router(_)
        | Failure::Step(_)
        | Failure::Ended(_)
        | Failure::Blocked { .. }
        | Failure::Mismatch { .. }
        | Failure::NotNow { .. }
        | Failure::Answers { .. }
        | Failure::NotConfirmed { .. }
        | Failure::Runbook(_)
        | Failure::Demo(_)
        | Failure::Interrupted
        | Failure::Claims { .. }
        | Failure::Argument { .. }
        | Failure::NoDistribution { .. }
        | Failure::NoProgram { .. } => true,
    }
}

fn shown(failures: Vec<Failure>) -> String {
    let mut out = String::new();
    for failure in failures {
        assert!(is_sampled(&failure));
        let (ui, text, err) = Ui::in_memory(false);
        let exit = failure.report(&ui);
        assert!(text.lock().unwrap().is_empty());
        out += &format!("[{} {}]\n", exit.code(), failure.advice().code);
        out += &String::from_utf8(err.lock().unwrap().clone()).unwrap();
        out.push('\n');
    }
    out
}

#[test]
fn about_the_configuration() {
    insta::assert_snapshot!(shown(config()));
}

#[test]
fn about_the_journal_and_the_engine() {
    let adrift = |clients| {
        let error = DriverError::Journal(JournalError::Full { place: ".pgteal/journal.db".into() });
        Failure::Adrift { error: Box::new(error), clients }
    };
    let all = journal().into_iter().map(Failure::from).chain(driver().into_iter().map(Failure::from));
    let all = all.chain([adrift(Clients::Held), adrift(Clients::Crossing)]);
    insta::assert_snapshot!(shown(all.collect()));
}

#[test]
fn about_servers_green_and_the_proxy() {
    let mut all: Vec<Failure> = server().into_iter().map(Failure::from).collect();
    all.extend(provider().into_iter().map(Failure::from));
    all.extend(routers().into_iter().map(Failure::from));
    insta::assert_snapshot!(shown(all));
}

#[test]
fn about_how_runs_end() {
    insta::assert_snapshot!(shown(outcomes()));
}

#[test]
fn about_everything_else() {
    insta::assert_snapshot!(shown(own()));
}

#[test]
fn as_json_it_is_one_object() {
    let (ui, text, err) = Ui::in_memory(true);
    let exit = Failure::NoProgram { program: "pgteal-proxy".into() }.report(&ui);
    assert_eq!(exit.code(), 2);
    assert!(err.lock().unwrap().is_empty());
    insta::assert_snapshot!(String::from_utf8(text.lock().unwrap().clone()).unwrap());
}

/// A hint without advice would be a finding that leaves people alone with it.
#[test]
fn every_hint_of_a_check_has_advice() {
    let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../core/src/checks");
    let mut found = 0;
    let mut pending = vec![sources];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for part in text.split(".next(\"").skip(1) {
            let id = part.split('"').next().unwrap();
            assert!(hint(id).is_some(), "no advice for hint `{id}` of {}", path.display());
            found += 1;
        }
    }
    assert!(found >= HINTS.len(), "{found} hints found, {} advised", HINTS.len());
}
