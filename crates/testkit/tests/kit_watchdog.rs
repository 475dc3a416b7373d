//! Nothing of a test stays behind when its process is killed: no server, no program, no directory, no shared memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use pgteal_testkit::{Cluster, Program, Scratch, wait_until};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Set for the process that is to be killed, which runs the same test in another part.
const VICTIM: &str = "PGTEAL_TEST_VICTIM";
const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_killed_test_leaves_nothing() {
    if std::env::var_os(VICTIM).is_some() {
        return wait_to_be_killed().await;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim
        .args(["--exact", "a_killed_test_leaves_nothing", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped());
    let mut victim = victim.spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let told =
        lines.find_map(|line| line.unwrap().split_once("VICTIM ").map(|(_, told)| told.to_owned())).unwrap();
    let [cluster, program, segment, memory] = told.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{told}")
    };
    assert!(!working_in(cluster).is_empty() && !working_in(program).is_empty());
    assert!(segment_exists(segment), "the test looks for the wrong segment: {segment}");
    assert!(Path::new(memory).exists(), "the test looks for the wrong file: {memory}");

    victim.kill().unwrap();
    victim.wait().unwrap();

    let gone = wait_until("everything of the killed test to be gone", BOUND, async || {
        let left = [working_in(cluster), working_in(program)].concat();
        let files = [cluster, program, memory].map(|file| Path::new(file).exists());
        let segment = segment_exists(segment);
        if left.is_empty() && files == [false; 3] && !segment {
            return Ok(());
        }
        Err(format!("processes {left:?}, directories and memory there: {files:?}, segment there: {segment}"))
    });
    gone.await.unwrap();
}

async fn wait_to_be_killed() {
    // As a server has it that a program under test starts: memory outside of its directory.
    let cluster = Cluster::builder(18).set("dynamic_shared_memory_type", "posix").start().await.unwrap();
    let worker =
        cluster.sql("select pid from pg_stat_activity where backend_type = 'walwriter'").await.unwrap();
    // What stands still does not see that its postmaster died.
    cluster.freeze_backend(worker.parse().unwrap()).unwrap();
    let dir = Arc::new(Scratch::new().unwrap());
    let script = "sleep 1000 & sleep 1000";
    let _program = Program::file("/bin/sh").args(["-c", script]).dir(&dir).spawn().unwrap();
    let pid_file = std::fs::read_to_string(cluster.data_dir().join("postmaster.pid")).unwrap();
    let segment = pid_file.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", cluster.postmaster_pid().unwrap())).unwrap();
    let memory = maps.split_whitespace().find(|word| word.starts_with("/dev/shm/PostgreSQL.")).unwrap();
    println!("VICTIM {} {} {segment} {memory}", cluster.socket_dir().display(), dir.path().display());
    std::future::pending::<()>().await;
}

fn working_in(dir: &str) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes
        .filter(|path| std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)))
        .collect()
}

fn segment_exists(id: &str) -> bool {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    table.lines().any(|line| line.split_whitespace().nth(1) == Some(id))
}
