//! The drivers that the tests of the proxy speak to it with: psycopg and asyncpg from wheels, node-postgres from npm, both
//! pinned by hash in `xtask/drivers/`, and Debian's JDBC driver. Owns that they are there. Refuses to know what the tests do
//! with them, and what their own tests say.

use crate::{debian, pg, product, shell, workspace};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// asyncpg's source distribution, which has its tests.
const ASYNCPG_SOURCES: &str =
    "asyncpg==0.32.0 --hash=sha256:45e64e56714d888330b884aad1dfb363d0bf43fb343e3d1a8968525f3bade478\n";
const REQUIREMENTS: &str = include_str!("../drivers/requirements.txt");
const PACKAGE: &str = include_str!("../drivers/package.json");
const PACKAGE_LOCK: &str = include_str!("../drivers/package-lock.json");

/// Where Debian puts the JDBC driver, and the compiler that runs a test's single file needs.
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// The command: ensures each driver, and compares what their own tests say of a server and of the proxy before it.
pub(crate) fn run(only_fetch: bool, args: &[String]) -> Result<ExitCode> {
    let dir = ensure()?;
    if only_fetch {
        for place in [dir.join("python"), dir.join("node/node_modules"), JDBC.into()] {
            println!("{}", place.display());
        }
        return Ok(ExitCode::SUCCESS);
    }
    asyncpg_sources(&dir).context("asyncpg's tests")?;
    let servers = pg::ensure(&[18])?;
    let target = workspace::read()?.target;
    shell::run(shell::cargo().args(["build", "--locked", "-p", "pgteal-proxy", "--bins"]))?;
    let mut cargo = shell::cargo();
    cargo.args(["run", "--quiet", "--locked", "-p", "pgteal-testkit", "--features", "bench"]);
    cargo.args(["--bin", "compare-drivers", "--"]).args(args);
    cargo.env("PGTEAL_PG_DIR", servers).env("PGTEAL_DRIVERS_DIR", dir);
    product::pass_on(cargo.env("PGTEAL_BIN_DIR", target.join("debug")))
}

/// Makes sure that every driver is there, in the versions that are pinned; returns the directory they are in.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let lock =
        File::create(dir.join(".lock")).with_context(|| format!("cannot write in {}", dir.display()))?;
    lock.lock().context("cannot lock the directory of the drivers")?;
    python(&dir).context("psycopg and asyncpg")?;
    node(&dir).context("node-postgres")?;
    java().context("JDBC")?;
    Ok(dir)
}

/// `PGTEAL_DRIVERS_DIR`, else beside the distributions.
fn dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("PGTEAL_DRIVERS_DIR") {
        return Ok(dir.into());
    }
    Ok(if shell::is_root() { PathBuf::from("/var/cache/pgteal") } else { pg::user_cache()?.join("pgteal") }
        .join("drivers"))
}

fn python(dir: &Path) -> Result<()> {
    let python = pg::python_with_pip(dir)?;
    // Wheels are made for one Python: another one needs others.
    let version = shell::read(Command::new(&python).arg("--version"))?;
    fetch(&dir.join("python"), &format!("{version}{REQUIREMENTS}"), |place| {
        let file = place.join("requirements.txt");
        fs::write(&file, REQUIREMENTS)?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]);
        pip.args(["--require-hashes", "--only-binary=:all:", "--root-user-action=ignore", "--target"]);
        shell::read(pip.arg(place).arg("-r").arg(&file)).map(drop)
    })
}

fn node(dir: &Path) -> Result<()> {
    let missing: Vec<&str> = ["node", "npm"].into_iter().filter(|name| !shell::on_path(name)).collect();
    let packages: Vec<&str> =
        missing.into_iter().map(|name| if name == "node" { "nodejs" } else { name }).collect();
    debian::install(&packages, "a test speaks through node-postgres")?;
    fetch(&dir.join("node"), &format!("{PACKAGE}{PACKAGE_LOCK}"), |place| {
        fs::write(place.join("package.json"), PACKAGE)?;
        fs::write(place.join("package-lock.json"), PACKAGE_LOCK)?;
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(place);
        shell::read(&mut npm).map(drop)
    })
}

/// Only their `tests`: the driver itself is the wheel's.
fn asyncpg_sources(dir: &Path) -> Result<()> {
    let python = pg::python_with_pip(dir)?;
    fetch(&dir.join("asyncpg-suite"), ASYNCPG_SOURCES, |place| {
        let file = place.join("requirements.txt");
        fs::write(&file, ASYNCPG_SOURCES)?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "--disable-pip-version-check",
            "download",
            "-q",
            "--no-deps",
            "--require-hashes",
        ]);
        pip.args(["--no-binary=asyncpg", "-d"]).arg(place).arg("-r").arg(&file);
        shell::read(&mut pip)?;
        let mut files = fs::read_dir(place)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let archive = files.find(|path| path.extension().is_some_and(|ext| ext == "gz"));
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--gzip", "--strip-components=1", "--no-same-owner", "--file"]);
        tar.arg(archive.context("pip left no archive")?).arg("--directory").arg(place);
        tar.env_remove("TAR_OPTIONS").args(["--wildcards", "*/tests/*"]);
        shell::read(&mut tar).map(drop)
    })
}

fn java() -> Result<()> {
    let mut packages = Vec::new();
    if !shell::on_path("javac") {
        packages.push("default-jdk-headless");
    }
    if !Path::new(JDBC).is_file() {
        packages.push("libpostgresql-jdbc-java");
    }
    debian::install(&packages, "a test speaks through JDBC")
}

/// Fills `place` by `install` unless it was filled for the same `pins`. Only what is whole ever gets its final name.
fn fetch(place: &Path, pins: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    const PINS: &str = ".pins";
    if fs::read_to_string(place.join(PINS)).is_ok_and(|text| text == pins) {
        return Ok(());
    }
    eprintln!("fetching {}", place.display());
    let work = place.with_extension(format!("fetch-{}", std::process::id()));
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;
    let result = install(&work).and_then(|()| {
        fs::write(work.join(PINS), pins)?;
        let _ = fs::remove_dir_all(place);
        fs::rename(&work, place).with_context(|| format!("cannot rename to {}", place.display()))
    });
    let _ = fs::remove_dir_all(&work);
    result
}
