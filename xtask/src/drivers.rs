//! The drivers that the tests of the proxy speak to it with: psycopg and asyncpg from wheels, node-postgres from npm, both
//! pinned by hash in `xtask/drivers/`, and Debian's JDBC driver. Owns that they are there. Refuses to know what the tests do
//! with them, and what their own tests say.

use crate::{debian, pg, shell};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = include_str!("../drivers/requirements.txt");
const PACKAGE: &str = include_str!("../drivers/package.json");
const PACKAGE_LOCK: &str = include_str!("../drivers/package-lock.json");

/// Where Debian puts the JDBC driver, and the compiler that runs a test's single file needs.
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// The command's first half: ensures each driver and prints where it is.
pub(crate) fn run() -> Result<()> {
    let dir = ensure()?;
    for place in [dir.join("python"), dir.join("node/node_modules"), JDBC.into()] {
        println!("{}", place.display());
    }
    Ok(())
}

/// Makes sure that every driver is there, in the versions that are pinned; returns the directory they are in.
pub(crate) fn ensure() -> Result<PathBuf> {
    let dir = dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let _lock = lock(&dir)?;
    python(&dir).context("psycopg and asyncpg")?;
    node(&dir).context("node-postgres")?;
    java().context("JDBC")?;
    Ok(dir)
}

/// Two checkouts or two terminals may fetch at once: the second waits and then finds everything in place.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let lock =
        File::create(dir.join(".lock")).with_context(|| format!("cannot write in {}", dir.display()))?;
    lock.lock().context("cannot lock the directory of the drivers")?;
    Ok(lock)
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
        npm(place)
    })
}

/// Installs what the lock file in `place` says.
pub(crate) fn npm(place: &Path) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(place);
    shell::read(&mut npm).map(drop)
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
pub(crate) fn fetch(place: &Path, pins: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
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
