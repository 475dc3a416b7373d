//! Controllers that are killed and called again, that come twice, or whose journal has no room: what a user types next
//! goes on, who was overtaken changes nothing more, and clients see nothing of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig_cli;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pgteal_testkit::{Program, ProgramBuilder, Scratch, wait_until};
use rig_cli::{End, Rig};
use serde_json::Value;

const BOUND: Duration = Duration::from_secs(60);

fn pgteal(dir: &Arc<Scratch>, args: &[&str]) -> ProgramBuilder {
    let program = Program::product("pgteal").unwrap().dir(dir).arg("--json").args(args);
    program.env("PGTEAL_BLUE_PASSWORD", "tool").env("PGTEAL_GREEN_PASSWORD", "tool")
}

/// Runs a command; its exit code and the last object it printed.
async fn run(program: ProgramBuilder) -> (i32, Value) {
    let output = program.run(BOUND).await.unwrap();
    let last = output.stdout.lines().last().unwrap_or("null");
    (output.status.code().unwrap_or(-1), serde_json::from_str(last).unwrap())
}

/// The exit code, and of a failure its code.
async fn ends(dir: &Arc<Scratch>, args: &[&str]) -> (i32, Value) {
    let (exit, mut said) = run(pgteal(dir, args)).await;
    (exit, said["error"]["code"].take())
}

fn failed(exit: i32, code: &str) -> (i32, Value) {
    (exit, code.into())
}

const DONE: (i32, Value) = (0, Value::Null);

/// The runs of the journal, oldest first: kind and how each stands.
async fn runs(dir: &Arc<Scratch>) -> Vec<(String, String)> {
    let (_, said) = run(pgteal(dir, &["runs"])).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    said["runs"].as_array().unwrap().iter().map(|run| (text(&run["kind"]), text(&run["fate"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_given_again_goes_on_with_its_run() {
    let rig = Rig::new(15, 18, 200).await;
    let load = rig.workload(40.0).await;
    let crash = async |args: &[&str], at: &str| {
        let (end, output) = rig.crash(args, at).await;
        assert_eq!(end, End::Crashed, "{at}\n{}{}", output.stdout, output.stderr);
    };
    let dir = &rig.dir;
    // Killed on the way there, killed on the way back: no other command is taken for going on.
    crash(&["up"], "up/publish/applied").await;
    assert_eq!(ends(dir, &["switch"]).await, failed(2, "not-now"));
    crash(&["undo"], "up/publish/undo-started").await;
    assert_eq!(ends(dir, &["up"]).await, failed(2, "not-now"));
    assert_eq!(ends(dir, &["undo"]).await, DONE);
    crash(&["up"], "up/publish/applied").await;
    assert_eq!(ends(dir, &["up"]).await, DONE);
    // Before the hold; its deadline is frozen, and another one is not quietly ignored.
    crash(&["switch"], "switch/make-way-back/applied").await;
    assert_eq!(ends(dir, &["switch", "--deadline", "10s"]).await, failed(2, "not-now"));
    assert_eq!(ends(dir, &["switch", "--deadline", "3s"]).await, DONE);
    // Past the point of no return.
    crash(&["back"], "back/repoint/started").await;
    assert_eq!(ends(dir, &["back"]).await, DONE);
    // With clients held: they go on where they were, and the next one is a run of its own.
    crash(&["switch"], "switch/fence/applied").await;
    assert_eq!(ends(dir, &["switch"]).await.0, 4);
    assert_eq!(ends(dir, &["switch"]).await, DONE);
    let verdict = rig.judge(&load.stop().await, &rig.green).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 100, "{verdict:#?}");
    // Whoever began it has said yes.
    assert_eq!(ends(dir, &["finish"]).await, failed(2, "argument"));
    crash(&["finish", "--yes"], "finish/remove-streams/applied").await;
    assert_eq!(ends(dir, &["finish"]).await, DONE);
    let expected =
        ["up unwound", "up done", "switch done", "back done", "switch unwound", "switch done", "finish done"];
    let found: Vec<String> = runs(dir).await.iter().map(|(kind, fate)| format!("{kind} {fate}")).collect();
    assert_eq!(found, expected);
}

/// A client's open transaction through the proxy.
async fn lingering(rig: &Rig) -> tokio_postgres::Client {
    let at = format!("host=127.0.0.1 port={} user=app password=app dbname=shop", rig.port.port());
    let (client, connection) = tokio_postgres::connect(&at, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT 1").await.unwrap();
    client
}

/// Waits until a run has begun a step.
async fn begun(program: &Program, step: &str) {
    let event = format!(r#""type":"started","step":"{step}""#);
    let seen = wait_until("the step to begin", BOUND, async || match program.stdout().contains(&event) {
        true => Ok(()),
        false => Err(format!("no {event} in {}", program.stdout())),
    });
    seen.await.unwrap();
}

/// The last object that a program printed, when it has ended.
async fn ended(program: Program) -> (i32, Value) {
    let output = program.output(BOUND).await.unwrap();
    let last = output.stdout.lines().last().unwrap_or("null");
    (output.status.code().unwrap_or(-1), serde_json::from_str(last).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_clients_are_held_is_no_success() {
    let rig = Rig::new(15, 18, 200).await;
    rig.must(&["up"]).await;
    let client = lingering(&rig).await;
    // `status` names the transaction that a switchover has to wait for.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let (_, said) = run(pgteal(&rig.dir, &["status"])).await;
    let open = said["long_transactions"].as_array().unwrap();
    assert!(open.len() == 1 && open[0]["user"] == "app" && open[0]["database"] == "shop", "{said:#}");
    assert!(open[0]["age_ms"].as_u64().unwrap() > 250, "{said:#}");
    let wait = ["switch", "--wait", "0", "--on-drain", "wait", "--deadline", "20s"];
    let switch = pgteal(&rig.dir, &wait).spawn().unwrap();
    begun(&switch, "drain").await;
    let mut switch = switch;
    // And who is at work, rather than that there is something to resume.
    let (_, said) = run(pgteal(&rig.dir, &["status"])).await;
    assert!(said["at_work"].as_str().is_some_and(|who| who.starts_with("process ")), "{said:#}");
    assert_eq!(said["next"], serde_json::json!(["pgteal status --watch"]), "{said:#}");
    switch.interrupt().unwrap();
    let (exit, said) = ended(switch).await;
    assert_eq!((exit, &said["error"]["code"]), (4, &"stopped".into()), "{said:#}");
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ends(&rig.dir, &["switch"]).await, DONE);
}

/// Files of a directory, without the sockets, in another one.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &target),
            kind if kind.is_file() => _ = std::fs::copy(entry.path(), target).unwrap(),
            _ => {}
        }
    }
}

/// Ends the sessions of controllers, as servers do by themselves when the machine of one does not answer any more.
async fn forget_controllers(rig: &Rig) {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'pgteal/%'";
    for cluster in [&rig.blue, &rig.green] {
        cluster.sql(sql).await.unwrap();
    }
}

/// A controller that stands still for long enough is taken for dead: its lock file is removed, or its directory restored
/// in another place, and somebody resumes. When it moves again, it learns that it was overtaken.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_was_overtaken_is_turned_away_and_changes_nothing() {
    let rig = Rig::new(15, 18, 200).await;
    rig.must(&["up"]).await;
    let load = rig.workload(40.0).await;
    let frozen = async |command: &str| {
        let client = lingering(&rig).await;
        let mut first = pgteal(&rig.dir, &[command]).spawn().unwrap();
        begun(&first, "await-calm").await;
        first.freeze().unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        first
    };
    let state = rig.dir.path().join(".pgteal");

    // The same journal: the lock is on a file that is not there any more.
    let mut first = frozen("switch").await;
    std::fs::remove_file(state.join("journal.db.lock")).unwrap();
    forget_controllers(&rig).await;
    let (exit, said) = run(pgteal(&rig.dir, &["resume"])).await;
    assert_eq!(exit, 0, "{said:#}");
    first.thaw().unwrap();
    let (exit, said) = ended(first).await;
    assert_eq!(exit, 7, "{said:#}");
    assert_way_back(&rig.dir, None, "green").await;

    // A copy of the journal, in another place: only servers and proxy can tell the first that it was overtaken.
    let mut first = frozen("back").await;
    let other = Arc::new(Scratch::new().unwrap());
    copy(rig.dir.path(), other.path());
    forget_controllers(&rig).await;
    let (exit, said) = run(pgteal(&other, &["resume"]).env("PGTEAL_PROXY_UNIX_DIR", &state)).await;
    assert_eq!(exit, 0, "{said:#}");
    first.thaw().unwrap();
    let (exit, said) = ended(first).await;
    assert_eq!(exit, 7, "{said:#}");
    assert_way_back(&other, Some(&state), "blue").await;

    let (exit, said) = run(pgteal(&other, &["switch"]).env("PGTEAL_PROXY_UNIX_DIR", &state)).await;
    assert_eq!(exit, 0, "{said:#}");
    let verdict = rig.judge(&load.stop().await, &rig.green).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 50, "{verdict:#?}");
}

/// The side that serves, with the other one following.
async fn assert_way_back(dir: &Arc<Scratch>, socket: Option<&Path>, active: &str) {
    let mut program = pgteal(dir, &["status"]);
    if let Some(socket) = socket {
        program = program.env("PGTEAL_PROXY_UNIX_DIR", socket);
    }
    let (_, said) = run(program).await;
    assert_eq!(
        (&said["standing"]["active"], &said["router"]["route"]),
        (&active.into(), &active.into()),
        "{said:#}"
    );
    assert_eq!(said["rollback"]["lossless"], true, "{said:#}");
    let streams = said["streams"].as_array().unwrap();
    assert!(!streams.is_empty() && streams.iter().all(|stream| stream["active"] == true), "{said:#}");
}

/// Fails writes to the journal for want of room, from the one on that holds the word `FULL_AT`.
const FULL_DISK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int full;

static int no_room(int fd, const void *bytes, size_t count) {
  char link[64], path[4096];
  const char *word = getenv("FULL_AT");
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (!word || length < 0) return 0;
  path[length] = 0;
  if (!strstr(path, "journal.db")) return 0;
  if (!full && memmem(bytes, count, word, strlen(word))) full = 1;
  if (full) errno = ENOSPC;
  return full;
}

#define REAL(name, ...) ((ssize_t (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *bytes, size_t count) {
  return no_room(fd, bytes, count) ? -1 : REAL("write", int, const void *, size_t)(fd, bytes, count);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  return no_room(fd, bytes, count) ? -1 : REAL("pwrite", int, const void *, size_t, off_t)(fd, bytes, count, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  return no_room(fd, bytes, count) ? -1 : REAL("pwrite64", int, const void *, size_t, off64_t)(fd, bytes, count, at);
}
"#;

/// A library that makes the disk full for whoever loads it. Works for every user, without a file system of its own.
fn full_disk(dir: &Path) -> std::path::PathBuf {
    let (source, library) = (dir.join("full.c"), dir.join("full.so"));
    std::fs::write(&source, FULL_DISK).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let made = cc.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_without_room_costs_clients_nothing_and_the_run_goes_on_when_there_is_some() {
    let rig = Rig::new(15, 18, 200).await;
    let library = full_disk(rig.dir.path());
    let load = rig.workload(40.0).await;
    let full_at = async |command: &str, step: &str| {
        let word = format!(r#""type":"started","step":"{step}""#);
        let (exit, said) =
            run(pgteal(&rig.dir, &[command]).env("LD_PRELOAD", &library).env("FULL_AT", word)).await;
        let error = &said["error"];
        assert!(error["what"].as_str().unwrap().contains("journal.db"), "{command} at {step}: {said:#}");
        assert!(error["next"].as_str().unwrap().contains("pgteal resume"), "{command} at {step}: {said:#}");
        (exit, error["code"].as_str().unwrap().to_owned(), error["data"].as_str().unwrap().to_owned())
    };
    let (exit, code, _) = full_at("up", "initial-sync").await;
    assert_eq!((exit, code.as_str()), (1, "journal-full"));
    assert_eq!(ends(&rig.dir, &["resume"]).await, DONE);
    // With clients held everything is put back, without a record.
    let (exit, code, data) = full_at("switch", "reach-marker").await;
    assert_eq!((exit, code.as_str()), (4, "journal-lost"));
    assert!(data.contains("clients were released"), "{data}");
    assert_writes(&load).await;
    assert_eq!(ends(&rig.dir, &["resume"]).await.0, 4);
    // At the point of no return nobody knows whether it is recorded: clients stay held until somebody can say.
    let (exit, code, data) = full_at("switch", "repoint").await;
    assert_eq!((exit, code.as_str()), (5, "journal-full"));
    assert!(data.contains("held") && data.contains("25006"), "{data}");
    assert_eq!(ends(&rig.dir, &["resume"]).await.0, 4);
    assert_writes(&load).await;
    assert_eq!(ends(&rig.dir, &["switch"]).await, DONE);
    let verdict = rig.judge(&load.stop().await, &rig.green).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 50, "{verdict:#?}");
}

/// Clients get through now.
async fn assert_writes(load: &pgteal_ledger::Workload) {
    let before = load.counters().acked;
    let written =
        wait_until("clients to write", Duration::from_secs(5), async || match load.counters().acked {
            acked if acked > before + 5 => Ok(()),
            acked => Err(format!("{acked} acknowledged")),
        });
    written.await.unwrap();
}
