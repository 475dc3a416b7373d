//! The program from outside: help, init, configuration, answers without a deployment, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A directory with nothing in it, and the program run there.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Command line, exit code, both outputs.
    fn run(&self, args: &[&str]) -> String {
        self.run_with(args, &[])
    }

    fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgteal"));
        command
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", "/nowhere")
            .env("HOME", "/nowhere");
        command.envs(env.iter().copied());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.replace(&self.path().display().to_string(), "HERE")
        };
        let shown: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        format!(
            "$ {}pgteal {}\n{}{}[{}]\n\n",
            shown.concat(),
            args.join(" "),
            text(&output.stdout),
            text(&output.stderr),
            output.status.code().unwrap_or(-1)
        )
    }
}

const LOCAL: &[&str] =
    &["init", "--blue", "host=127.0.0.1 port=1 user=pgteal", "--green-bindir", "/opt/pg18/bin"];

#[test]
fn help_of_every_command() {
    let place = Place::new();
    let mut out = place.run(&["--help"]);
    for command in [
        "init",
        "plan",
        "up",
        "status",
        "verify",
        "switch",
        "back",
        "finish",
        "undo",
        "resume",
        "runs",
        "proxy",
        "demo",
        "config",
        "completions",
    ] {
        let help = place.run(&[command, "--help"]);
        assert!(help.contains("Example"), "{command} --help has no example");
        out += &help;
    }
    insta::assert_snapshot!(out);
}

#[test]
fn init_writes_once_and_never_a_password() {
    let place = Place::new();
    let mut out = place.run(&[
        "init",
        "--blue",
        "postgresql://pgteal:geheim@db1/postgres",
        "--green",
        "host=db2 user=pgteal password=geheim",
    ]);
    out += &std::fs::read_to_string(place.path().join("pgteal.toml")).unwrap();
    out += &place.run(&["init", "--blue", "host=db1", "--green", "host=db2"]);
    out += &place.run(&["config", "check"]);
    assert!(
        !out.replace("$ pgteal init --blue postgresql://pgteal:geheim@db1/postgres", "")
            .replace("host=db2 user=pgteal password=geheim", "")
            .contains("geheim")
    );
    insta::assert_snapshot!(out);
}

#[test]
fn the_deployment_after_a_finished_one_keeps_a_state_of_its_own() {
    let place = Place::new();
    place.run(LOCAL);
    std::fs::create_dir(place.path().join(".pgteal")).unwrap();
    std::fs::write(place.path().join(".pgteal/journal.db"), "").unwrap();
    let said = place.run(&[&["--config", "next.toml"], LOCAL].concat());
    assert!(said.contains("so this one keeps its own in .pgteal-next"), "{said}");
    let text = std::fs::read_to_string(place.path().join("next.toml")).unwrap();
    assert!(text.contains("\nstate_dir = \".pgteal-next\"\n"), "{text}");
    assert!(text.contains("\ndata_dir = \".pgteal-next/green\"\n"), "{text}");
    let said = place.run(&["--config", "next.toml", "status"]);
    assert!(said.starts_with("$ pgteal --config next.toml status\nthere is no deployment yet"), "{said}");
}

#[test]
fn init_for_a_green_of_our_own() {
    let place = Place::new();
    let mut out = place.run(&["init"]);
    out += &place.run(&["init", "--blue", "db1"]);
    out += &place.run(&["init", "--blue", "host=db1", "--green-bindir", "/opt/pg18/bin", "--json"]);
    // Who runs green depends on who runs the test.
    let text = std::fs::read_to_string(place.path().join("pgteal.toml")).unwrap();
    assert!(text.contains("bindir = \"/opt/pg18/bin\""), "{text}");
    insta::assert_snapshot!(out);
}

#[test]
fn answers_without_a_deployment() {
    let place = Place::new();
    let mut out = place.run(&["status"]);
    out += &place.run(&["status", "--json"]);
    place.run(LOCAL);
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["runs"],
        &["runs", "--json"],
        &["runs", "switch-k3f7a2qx"],
        &["runs", "Nonsense"],
        &["verify"],
        &["switch"],
        &["switch", "--dry-run"],
        &["switch", "--deadline", "soon"],
        &["switch", "--deadline", "1ms"],
        &["switch", "--drain-budget", "5s"],
        &["back", "--json"],
        &["finish"],
        &["undo"],
        &["resume"],
        &["nonsense"],
        &["nonsense", "--json"],
        &["switch", "--deadline", "soon", "--json"],
        &["--json"],
    ] {
        out += &place.run(args);
    }
    insta::assert_snapshot!(out);
}

#[test]
fn the_proxy_gets_a_file_of_its_own() {
    let place = Place::new();
    place.run(LOCAL);
    let mut out = place.run_with(&["proxy", "--print"], &[("PGTEAL_BLUE_PASSWORD", "geheim")]);
    assert_eq!(out.matches("geheim").count(), 1, "only the command line of this test has it");
    let file = place.path().join("pgteal.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let readers = text.replace("# read_listen", "read_listen").replace("# blue_replicas", "blue_replicas");
    assert_ne!(text, readers);
    std::fs::write(&file, readers).unwrap();
    out += &place.run(&["proxy", "--print"]);
    let deep = "d".repeat(120);
    out += &place.run_with(&["proxy", "--print"], &[("PGTEAL_PROXY_UNIX_DIR", &deep)]);
    insta::assert_snapshot!(out);
}

#[test]
fn a_server_that_is_not_there() {
    let place = Place::new();
    // A bindir with the programs' names: the configuration is right, the server is not there.
    let bin = place.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for program in ["postgres", "initdb", "pg_ctl", "pg_dump"] {
        std::fs::write(bin.join(program), "").unwrap();
    }
    place.run(&["init", "--blue", "host=127.0.0.1 port=1 user=pgteal", "--green-bindir", "bin"]);
    insta::assert_snapshot!(place.run(&["plan"]) + &place.run(&["plan", "--json"]) + &place.run(&["up"]));
}

#[test]
fn two_controllers_do_not_drive_at_once() {
    let place = Place::new();
    place.run(LOCAL);
    let journal = place.path().join(".pgteal/journal.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    std::fs::create_dir_all(journal.parent().unwrap()).unwrap();
    let first = runtime.block_on(pgteal::journal::SqliteJournal::open(&journal)).unwrap();
    let said = place.run(&["resume", "--json"]);
    drop(first);
    assert!(said.contains("journal-locked") && said.ends_with("[7]\n\n"), "{said}");
}
