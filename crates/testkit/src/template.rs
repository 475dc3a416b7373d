//! A data directory made by initdb once and copied for every cluster after. Owns the templates' cache, shared by all
//! test processes, and that every copy is a cluster of its own. Refuses to know running servers.

use crate::distribution::{Distribution, cache};
use crate::unprivileged;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Copies a fresh data directory made with `initdb args` to `data`, with a system identifier of its own.
///
/// # Errors
/// When a program fails; the error holds what it said.
pub(crate) fn copy(distribution: &Distribution, args: &[String], data: &Path) -> io::Result<()> {
    let template = template(distribution, args)?;
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template).arg(data))?;
    renew_identity(distribution, data)
}

/// The template of this version and these arguments; made if there is none yet.
fn template(distribution: &Distribution, args: &[String]) -> io::Result<PathBuf> {
    let dir = cache().join("templates");
    fs::create_dir_all(&dir)?;
    let mut hasher = DefaultHasher::new();
    (distribution.bin(), args).hash(&mut hasher);
    let name = format!("{}-{:016x}", distribution.version(), hasher.finish());
    let place = dir.join(&name);
    if place.is_dir() {
        return Ok(place);
    }
    let lock = File::create(dir.join(format!("{name}.lock")))?;
    lock.lock()?;
    if place.is_dir() {
        return Ok(place);
    }
    let work = dir.join(format!("{name}.new"));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir(&work)?;
    unprivileged::give(&work)?;
    let inner = work.join("data");
    run(distribution.command("initdb").arg("-D").arg(&inner).args(args).current_dir(&work))?;
    // Every copy gets new WAL anyway, see below; without the old it is copied faster.
    for entry in fs::read_dir(inner.join("pg_wal"))?.flatten() {
        if entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    fs::rename(&inner, &place)?;
    fs::remove_dir_all(&work)?;
    Ok(place)
}

/// Gives a copied cluster its own system identifier (the first 8 bytes of `pg_control`, see
/// `src/include/catalog/pg_control.h`): real clusters never share one. `pg_resetwal -f` accepts the changed file and
/// writes a matching one together with the first WAL segment.
fn renew_identity(distribution: &Distribution, data: &Path) -> io::Result<()> {
    let mut control = fs::OpenOptions::new().write(true).open(data.join("global/pg_control"))?;
    control.rewind()?;
    // initdb puts the time into the upper half; a random value below 2^62 is as good and stays positive.
    control.write_all(&rand::random_range(1_u64 << 61..1_u64 << 62).to_ne_bytes())?;
    drop(control);
    run(distribution.command("pg_resetwal").args(["-f", "-D"]).arg(data).current_dir(data))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}: {}", args.join(" "), output.status, said.trim())))
}
