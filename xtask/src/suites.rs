//! The tests that drivers come with, for the comparison of the proxy with the server itself: asyncpg's from its source
//! distribution, pinned by hash, PostgreSQL's regression scripts from Debian's sources, by Debian's signed index, and those of
//! psycopg and node-postgres from clones of their repositories, by the hash of the commit. Owns that they are there. Refuses
//! to know how they are run and what they say.

use crate::{debian, drivers, pg, product, shell, workspace};
use anyhow::{Context, Result};
use clap::ValueEnum;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// asyncpg's source distribution, which has its tests.
const ASYNCPG: &str =
    "asyncpg==0.32.0 --hash=sha256:45e64e56714d888330b884aad1dfb363d0bf43fb343e3d1a8968525f3bade478\n";

/// Debian's source package that has the regression scripts, and the major version they belong to.
const POSTGRESQL: &str = "postgresql-15";
const SCRIPTS_MAJOR: u16 = 15;

/// The commit of psycopg's repository whose tests run, and what they need besides the driver.
const PSYCOPG: &str = "83f110367cdd249cc0a352e2246ecea9e878e5a0";
const PYTEST: &str = include_str!("../drivers/psycopg-suite.txt");

/// The commit of node-postgres's repository whose tests run, and what they need, the driver among it.
const NODE_POSTGRES: &str = "df274d1ba9ad9d11a8f1079314faeafde7208207";
const NODE_PACKAGE: &str = include_str!("../drivers/node-postgres-suite/package.json");
const NODE_LOCK: &str = include_str!("../drivers/node-postgres-suite/package-lock.json");

/// Where clones of repositories are whose tests are in no package.
const CLONES: &str = "PGTEAL_CLONES";

/// A suite that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// PostgreSQL's regression scripts, by psql
    Psql,
    /// asyncpg's own tests
    Asyncpg,
    /// psycopg's own tests, from a clone in the directory that PGTEAL_CLONES names
    Psycopg,
    /// node-postgres's own tests of a server, likewise
    NodePostgres,
}

impl Suite {
    /// Whether it is in no package.
    fn is_cloned(self) -> bool {
        matches!(self, Self::Psycopg | Self::NodePostgres)
    }
}

/// The command: fetches the suites (all of them where none is chosen), and compares what their tests say of a server and
/// of the proxy before it.
pub(crate) fn run(only: &[Suite], args: &[String]) -> Result<ExitCode> {
    let dir = drivers::ensure()?;
    // What is in no package takes part where it is chosen, or can be had.
    let at_hand = |suite: &Suite| !suite.is_cloned() || std::env::var_os(CLONES).is_some();
    let all: Vec<Suite> = Suite::value_variants().iter().copied().filter(at_hand).collect();
    if only.is_empty() && all.len() < Suite::value_variants().len() {
        eprintln!("without the suites that are in no package: {CLONES} does not say where their clones are");
    }
    let chosen = if only.is_empty() { &all } else { only };
    let servers = pg::ensure(&[18, SCRIPTS_MAJOR])?;
    let target = workspace::read()?.target;
    let mut cargo = shell::cargo();
    cargo.args(["run", "--quiet", "--locked", "-p", "pgteal-testkit", "--features", "bench"]);
    cargo.args(["--bin", "compare-drivers", "--"]);
    for suite in chosen {
        let lock = drivers::lock(&dir)?;
        match suite {
            Suite::Psql => psql(&dir).context("PostgreSQL's regression scripts")?,
            Suite::Asyncpg => asyncpg(&dir).context("asyncpg's tests")?,
            Suite::Psycopg => psycopg(&dir).context("psycopg's tests")?,
            Suite::NodePostgres => node_postgres(&dir).context("node-postgres's tests")?,
        }
        drop(lock);
        let name = suite.to_possible_value().context("a suite without a name")?;
        cargo.args(["--only", name.get_name()]);
    }
    shell::run(shell::cargo().args(["build", "--locked", "-p", "pgteal-proxy", "--bins"]))?;
    cargo.args(args).env("PGTEAL_PG_DIR", servers).env("PGTEAL_DRIVERS_DIR", dir);
    product::pass_on(cargo.env("PGTEAL_BIN_DIR", target.join("debug")))
}

/// Only their `tests`: the driver itself is the wheel's.
fn asyncpg(dir: &Path) -> Result<()> {
    let python = pg::python_with_pip(dir)?;
    drivers::fetch(&dir.join("asyncpg-suite"), ASYNCPG, |place| {
        let file = place.join("requirements.txt");
        fs::write(&file, ASYNCPG)?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]);
        pip.args(["--require-hashes", "--no-binary=asyncpg", "-d"]).arg(place).arg("-r").arg(&file);
        shell::read(&mut pip)?;
        unpack(&only_file(place, "gz")?, place, 1, "*/tests/*")
    })
}

/// Only what psql is fed with. Servers, which are another user's, read its data.
fn psql(dir: &Path) -> Result<()> {
    drivers::fetch(&dir.join("psql-suite"), POSTGRESQL, |place| {
        let work = place.join("source");
        fs::create_dir(&work)?;
        debian::source(POSTGRESQL, &work)?;
        if !shell::on_path("bzip2") {
            debian::install(&["bzip2"], "PostgreSQL's sources are packed by it")?;
        }
        unpack(&only_file(&work, "bz2")?, place, 4, "*/src/test/regress/*")?;
        fs::remove_dir_all(&work).context("the archive")
    })
}

fn psycopg(dir: &Path) -> Result<()> {
    let python = pg::python_with_pip(dir)?;
    drivers::fetch(&dir.join("psycopg-suite"), &format!("{PSYCOPG}\n{PYTEST}"), |place| {
        clone("psycopg", PSYCOPG, &["tests", "pyproject.toml"], place)?;
        let file = place.join("requirements.txt");
        fs::write(&file, PYTEST)?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]);
        pip.args(["--require-hashes", "--only-binary=:all:", "--root-user-action=ignore", "--target"]);
        shell::read(pip.arg(place.join("python")).arg("-r").arg(&file)).map(drop)
    })
}

/// The tests take the driver from the directory above them.
fn node_postgres(dir: &Path) -> Result<()> {
    let pins = format!("{NODE_POSTGRES}\n{NODE_PACKAGE}{NODE_LOCK}");
    drivers::fetch(&dir.join("node-postgres-suite"), &pins, |place| {
        clone("node-postgres", NODE_POSTGRES, &["packages/pg/test"], place)?;
        fs::rename(place.join("packages/pg/test"), place.join("test"))?;
        fs::write(place.join("package.json"), NODE_PACKAGE)?;
        fs::write(place.join("package-lock.json"), NODE_LOCK)?;
        drivers::npm(place)?;
        let mut copy = Command::new("cp");
        copy.arg("-R").arg(place.join("node_modules/pg/lib")).arg(place.join("lib"));
        shell::read(&mut copy).map(drop)
    })
}

/// Puts `paths` of the repository `name`, as they were in `commit`, into `place`.
fn clone(name: &str, commit: &str, paths: &[&str], place: &Path) -> Result<()> {
    let clones = std::env::var_os(CLONES).with_context(|| {
        format!("they are in no package: clone the repository as <directory>/{name} and set {CLONES} to <directory>")
    })?;
    let archive = place.join("clone.tar");
    let mut git = Command::new("git");
    git.arg("-C").arg(Path::new(&clones).join(name)).args(["archive", "--format=tar", "--output"]);
    shell::read(git.arg(&archive).arg(commit).args(paths))?;
    unpack(&archive, place, 0, "*")?;
    fs::remove_file(&archive).context("the archive")
}

/// The one file in `place` whose name ends with `extension`.
fn only_file(place: &Path, extension: &str) -> Result<PathBuf> {
    let mut files = fs::read_dir(place)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let found = files.find(|path| path.extension().is_some_and(|ext| ext == extension));
    found.with_context(|| format!("no .{extension} in {}", place.display()))
}

/// Unpacks what of `archive` is called like `wanted` into `place`, less the first `strip` directories of its path.
fn unpack(archive: &Path, place: &Path, strip: u8, wanted: &str) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--no-same-permissions"])
        .arg(format!("--strip-components={strip}"));
    tar.arg("--file").arg(archive).arg("--directory").arg(place);
    tar.env_remove("TAR_OPTIONS").args(["--wildcards", wanted]);
    shell::read(&mut tar).map(drop)
}
