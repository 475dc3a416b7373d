//! The SQLite journal on a real disk: the contract, bad files, a full disk, a killed process, a second process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use pgteal_saga::event::EventBody;
use pgteal_saga::plan::{Draft, PlanStep};
use pgteal_saga::proof::conformance::{Damage, Subject, prove};
use pgteal_saga::{
    DeploymentId, Durability, Epoch, Event, Journal, JournalError, Lease, Plan, Retry, RunId, StepKind,
};
use rusqlite::Connection;

use super::{JournalReader, SqliteJournal};

struct OnDisk(tempfile::TempDir);

impl OnDisk {
    fn path(&self) -> PathBuf {
        self.0.path().join("journal.db")
    }
}

#[async_trait]
impl Subject for OnDisk {
    async fn open(&self) -> Result<Arc<dyn Journal>, JournalError> {
        Ok(Arc::new(SqliteJournal::open(self.path()).await?))
    }

    async fn damage(&self, run: &RunId, damage: Damage) -> Result<(), String> {
        let connection = Connection::open(self.path()).unwrap();
        let run: i64 = connection
            .query_row("SELECT number FROM run WHERE id = ?1", [run.as_str()], |r| r.get(0))
            .unwrap();
        let sql = match damage {
            Damage::LoseLast => "DELETE FROM event WHERE run = ?1 AND seq = 7",
            Damage::LoseMiddle => "DELETE FROM event WHERE run = ?1 AND seq = 4",
            Damage::AlterMiddle => {
                "UPDATE event SET line = replace(line, 'step-3', 'step-4') WHERE run = ?1 AND seq = 4"
            }
            Damage::Swap => {
                "UPDATE event AS e SET (line, link) = (SELECT line, link FROM event AS o
                 WHERE o.run = e.run AND o.seq = 7 - e.seq) WHERE run = ?1 AND seq IN (3, 4)"
            }
        };
        assert!(connection.execute(sql, [run]).unwrap() > 0);
        Ok(())
    }
}

fn on_disk() -> OnDisk {
    OnDisk(tempfile::tempdir().unwrap())
}

fn at(seq: u64) -> Timestamp {
    Timestamp::from_second(1_796_300_000 + i64::try_from(seq).unwrap()).unwrap()
}

fn plan(deployment: &DeploymentId, size: usize) -> Plan {
    let params = serde_json::json!({ "text": "x".repeat(size) });
    Plan::freeze(Draft {
        kind: "up".into(),
        deployment: deployment.clone(),
        steps: vec![PlanStep { id: "one".into(), kind: StepKind::Effect, params }],
        section: None,
        retry: Retry::PATIENT,
        section_retry: Retry::SHORT,
    })
    .unwrap()
}

fn event(seq: u64, body: EventBody) -> Event {
    Event { seq, epoch: Epoch(1), at: at(seq), mono_ns: seq, body }
}

fn started(seq: u64) -> Event {
    event(seq, EventBody::Started { step: "one".into() })
}

async fn begin(journal: &dyn Journal, run: &RunId) -> Lease {
    let lease = journal.acquire(&DeploymentId::generate(), "test", at(0)).await.unwrap();
    let created = event(1, EventBody::RunCreated { plan: plan(&lease.deployment, 10) });
    journal.append(run, lease.epoch, 0, &[created], Durability::Sync).await.unwrap();
    lease
}

#[tokio::test]
async fn it_keeps_the_contract_of_a_journal() {
    let report = prove(async || Ok(on_disk())).await;
    report.check().unwrap();
}

#[tokio::test]
async fn what_is_no_journal_is_named() {
    type Make = fn(&Path);
    let files: [(&str, Make, &str); 7] = [
        ("a directory", |path| std::fs::create_dir(path).unwrap(), "is not a journal: it is a directory"),
        (
            "a text",
            |path| std::fs::write(path, "to do: ".repeat(900)).unwrap(),
            "is not a journal: it is not",
        ),
        (
            "another program's file",
            |path| Connection::open(path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap(),
            "is not a journal: it is a SQLite file of another program",
        ),
        (
            "another application",
            |path| Connection::open(path).unwrap().pragma_update(None, "application_id", 7).unwrap(),
            "is not a journal: it is a SQLite file of another program",
        ),
        ("a newer format", newer, "has format 99, this program knows formats up to 1"),
        ("torn pages", torn, "is damaged"),
        ("cut short", cut_short, "is damaged"),
    ];
    for (name, make, wanted) in files {
        let subject = on_disk();
        make(&subject.path());
        let place = subject.path().display().to_string();
        let written = SqliteJournal::open(subject.path()).await.unwrap_err().to_string();
        let read = JournalReader::open(subject.path()).await.unwrap_err().to_string();
        for said in [written, read] {
            assert!(said.contains(wanted) && said.contains(&place), "{name}: {said}");
        }
    }
}

fn newer(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "application_id", 0x7465_616c).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
}

/// A journal of some pages, closed.
fn filled(path: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let path = path.to_owned();
    let fill = async move {
        let journal = SqliteJournal::open(path).await.unwrap();
        begin(&journal, &RunId::generate("up").unwrap()).await;
        let lease = journal.acquire(&DeploymentId::generate(), "test", at(0)).await.unwrap();
        let mut created = event(1, EventBody::RunCreated { plan: plan(&lease.deployment, 100_000) });
        created.epoch = lease.epoch;
        let run = RunId::generate("up").unwrap();
        journal.append(&run, lease.epoch, 0, &[created], Durability::Sync).await.unwrap();
    };
    std::thread::spawn(move || runtime.block_on(fill)).join().unwrap();
}

fn torn(path: &Path) {
    filled(path);
    let mut bytes = std::fs::read(path).unwrap();
    for page in bytes.chunks_mut(4096).skip(1).take(6) {
        page[..64].fill(0xa5);
    }
    std::fs::write(path, bytes).unwrap();
}

fn cut_short(path: &Path) {
    filled(path);
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    // Neither root nor anybody else can make files there.
    let error = SqliteJournal::open("/proc/journal.db").await.unwrap_err();
    assert!(matches!(error, JournalError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("/proc/journal.db"), "{error}");
    let error = SqliteJournal::open("/tmp/there-is-no-such-directory/journal.db").await.unwrap_err();
    assert!(matches!(error, JournalError::ReadOnly { .. }), "{error}");

    let subject = on_disk();
    let error = JournalReader::open(subject.path()).await.unwrap_err();
    assert_eq!(error, JournalError::Missing { place: subject.path().display().to_string() });
    let journal = SqliteJournal::open(subject.path()).await.unwrap();
    let lease = begin(&journal, &RunId::generate("up").unwrap()).await;
    let reader = JournalReader::open(subject.path()).await.unwrap();
    let error = reader.acquire(&lease.deployment, "reader", at(1)).await.unwrap_err();
    assert!(matches!(error, JournalError::ReadOnly { .. }), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_named_and_costs_nothing_that_was_kept() {
    let subject = on_disk();
    let journal = SqliteJournal::open(subject.path()).await.unwrap();
    let run = RunId::generate("up").unwrap();
    let lease = begin(&journal, &run).await;
    journal.limit_pages(4).await.unwrap();
    let other = RunId::generate("up").unwrap();
    let large = event(1, EventBody::RunCreated { plan: plan(&lease.deployment, 200_000) });
    let error = journal.append(&other, lease.epoch, 0, &[large], Durability::Deferred).await.unwrap_err();
    assert_eq!(error, JournalError::Full { place: subject.path().display().to_string() });
    // The first of the two would have had room.
    let two = [started(2), event(3, EventBody::UndoRequested { by: "x".repeat(200_000) })];
    let error = journal.append(&run, lease.epoch, 1, &two, Durability::Deferred).await.unwrap_err();
    assert_eq!(error, JournalError::Full { place: subject.path().display().to_string() });
    assert_eq!(journal.load(&run).await.unwrap().len(), 1);
    journal.append(&run, lease.epoch, 1, &[started(2)], Durability::Sync).await.unwrap();
    drop(journal);
    let journal = SqliteJournal::open(subject.path()).await.unwrap();
    assert_eq!(journal.load(&run).await.unwrap().len(), 2);
    assert!(matches!(journal.load(&other).await, Err(JournalError::UnknownRun { .. })));
}

/// Set for the other process of the test below.
const CHILD: &str = "PGTEAL_TEST_JOURNAL_CHILD";
const CHILD_RUN: &str = "up-child";

/// The other process: appends without a sync as fast as it can and says how far it has come.
async fn append_until_killed(path: &str) {
    let journal = SqliteJournal::open(path).await.unwrap();
    let run = RunId::parse(CHILD_RUN).unwrap();
    let lease = begin(&journal, &run).await;
    for seq in 2..1_000_000 {
        journal.append(&run, lease.epoch, seq - 1, &[started(seq)], Durability::Deferred).await.unwrap();
        println!("\nkept {seq}");
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing_and_a_living_one_keeps_others_out() {
    if let Ok(path) = std::env::var(CHILD) {
        return append_until_killed(&path).await;
    }
    let subject = on_disk();
    let name = std::thread::current().name().unwrap().to_owned();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD, subject.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut kept = lines.by_ref().filter_map(|line| line.strip_prefix("kept ")?.parse::<u64>().ok());
    assert_eq!(kept.find(|seq| *seq >= 50), Some(50));

    let error = SqliteJournal::open(subject.path()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", child.id())), "{error}");
    let run = RunId::parse(CHILD_RUN).unwrap();
    let reader = JournalReader::open(subject.path()).await.unwrap();
    assert!(reader.load(&run).await.unwrap().len() >= 50);
    assert_eq!(reader.runs().await.unwrap().len(), 1);

    assert!(kept.any(|seq| seq >= 300));
    child.kill().unwrap();
    child.wait().unwrap();
    let last = kept.last().unwrap_or(300);
    let journal = SqliteJournal::open(subject.path()).await.unwrap();
    let found = journal.load(&run).await.unwrap().len() as u64;
    // The one that was written but not yet told may be there too.
    assert!(found == last || found == last + 1, "the child said {last}, {found} are there");
    assert!(reader.load(&run).await.unwrap().len() as u64 == found);
}

#[tokio::test]
async fn an_append_takes_a_fraction_of_a_millisecond() {
    let subject = on_disk();
    let journal = SqliteJournal::open(subject.path()).await.unwrap();
    let run = RunId::generate("up").unwrap();
    let lease = begin(&journal, &run).await;
    let mut seq = 1;
    let mut figures = Vec::new();
    for durability in [Durability::Deferred, Durability::Sync] {
        let mut took = Vec::new();
        for _ in 0..200 {
            let began = Instant::now();
            journal.append(&run, lease.epoch, seq, &[started(seq + 1)], durability).await.unwrap();
            took.push(began.elapsed());
            seq += 1;
        }
        took.sort();
        println!("{durability:?} append: median {:?}, 99th percentile {:?}", took[100], took[198]);
        figures.push(took[100]);
    }
    // Ten times what it takes on an idle machine: a busy one must not fail the build, a sync too many must.
    assert!(figures[0] < Duration::from_millis(3), "{figures:?}");
}
