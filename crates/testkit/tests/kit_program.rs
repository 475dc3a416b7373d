//! Programs under test: output, end, signals, and a directory that outlives one of them but not the last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal_testkit::{Program, binary, wait_until};
use std::sync::Arc;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(10);

fn sh(script: &str) -> pgteal_testkit::ProgramBuilder {
    Program::file("/bin/sh").args(["-c", script])
}

#[tokio::test]
async fn output_and_status_come_back() {
    let script = "echo out; echo err >&2; echo $WORD; pwd; exit 3";
    let program = sh(script).env("WORD", "given").spawn().unwrap();
    let dir = program.dir().path().to_path_buf();
    let output = program.output(BOUND).await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, format!("out\ngiven\n{}\n", dir.display()));
    assert_eq!(output.stderr, "err\n");
    assert!(!dir.exists(), "the directory outlived its last program");
}

#[tokio::test]
async fn a_program_that_does_not_end_is_an_error_with_its_words() {
    let mut program = sh("echo stuck >&2; sleep 1000").spawn().unwrap();
    let said = wait_until("its word", BOUND, async || match program.stderr() {
        text if text.is_empty() => Err("nothing yet"),
        _ => Ok(()),
    });
    said.await.unwrap();
    let error = program.wait(Duration::from_millis(100)).await.unwrap_err().to_string();
    assert!(error.contains("waited 100 ms") && error.contains("stuck"), "{error}");
}

#[tokio::test]
async fn a_killed_program_is_followed_by_another_in_its_directory() {
    let mut first = sh("echo kept > file; sleep 1000").spawn().unwrap();
    let dir = Arc::clone(first.dir());
    let written = wait_until("the file", BOUND, async || {
        if dir.path().join("file").exists() { Ok(()) } else { Err("not there") }
    });
    written.await.unwrap();
    assert!(first.is_running());
    first.kill9().unwrap();
    assert!(!first.is_running());
    assert!(first.terminate().is_err(), "a signal to a dead program must not look sent");
    let second = sh("cat file").dir(&dir).run(BOUND).await.unwrap();
    assert_eq!(second.stdout, "kept\n");
}

#[tokio::test]
async fn signals_arrive() {
    let script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let mut program = sh(script).spawn().unwrap();
    let ready = wait_until("the trap", BOUND, async || {
        if program.stdout() == "ready\n" { Ok(()) } else { Err(program.stdout()) }
    });
    ready.await.unwrap();
    program.freeze().unwrap();
    program.terminate().unwrap();
    assert!(program.wait(Duration::from_millis(100)).await.is_err(), "a frozen program ended");
    program.thaw().unwrap();
    assert!(program.wait(BOUND).await.unwrap().success());
    assert_eq!(program.stdout(), "ready\nasked\n");
}

#[tokio::test]
async fn the_products_binaries_are_found() {
    let output = Program::product("pgteal").unwrap().arg("--version").run(BOUND).await.unwrap();
    assert!(output.status.success() && output.stdout.starts_with("pgteal "), "{output:?}");
    assert!(binary("pgteal-proxy").unwrap().is_file());
    let error = Program::product("pgteal-nothing").unwrap_err().to_string();
    assert!(error.contains("pgteal-nothing"), "{error}");
}
