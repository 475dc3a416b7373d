//! The regression scripts that PostgreSQL's sources have, each run by psql in the order of their schedule. Owns how
//! `pg_regress` would run them; refuses to know what they are expected to say: what counts is that both ways say the same.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pgteal_testkit::{Distribution, Program, Scratch, drivers};

use crate::Outcomes;
use crate::place::Place;

/// The server and psql that the scripts belong to.
pub(crate) const MAJOR: u16 = 15;

/// The longest script takes seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// As `pg_regress` calls it, with what a script says in the order in which it comes about.
const PSQL: &str =
    r#"exec "$0" -X -a -q -d regression -v HIDE_TABLEAM=on -v HIDE_TOAST_COMPRESSION=on < "$1" 2>&1"#;

/// What `pg_regress` sets in the database that it makes.
const DATABASE: &str = "CREATE DATABASE regression TEMPLATE template0";
const SETTINGS: &str = "
    ALTER DATABASE regression SET lc_messages TO 'C'; ALTER DATABASE regression SET lc_monetary TO 'C';
    ALTER DATABASE regression SET lc_numeric TO 'C'; ALTER DATABASE regression SET lc_time TO 'C';
    ALTER DATABASE regression SET bytea_output TO 'hex';
    ALTER DATABASE regression SET timezone_abbreviations TO 'Default';";

/// Each script's output. All scripts always run, because each needs what others before it have made; `only` chooses of whom
/// it is told.
pub(crate) async fn run(place: &Place, only: &[String]) -> Result<Outcomes> {
    let suite = drivers().join("psql-suite");
    let schedule = suite.join("parallel_schedule");
    let schedule = fs::read_to_string(&schedule)
        .with_context(|| format!("{}: run `cargo xtask drivers`", schedule.display()))?;
    place.server().sql(DATABASE).await?;
    place.server().sql(SETTINGS).await?;
    let scratch = Arc::new(Scratch::new()?);
    let results = scratch.path().join("results");
    // Scripts have the server write there, which is another user's.
    fs::create_dir(&results)?;
    fs::set_permissions(&results, fs::Permissions::from_mode(0o777))?;
    let mut outcomes = Outcomes::new();
    for name in scripts(&schedule) {
        let said = script(place, &suite, name, &scratch).await.with_context(|| name.to_owned())?;
        if only.is_empty() || only.iter().any(|part| name.contains(part)) {
            // Where a script wrote is no part of what it says.
            outcomes.insert(name.to_owned(), said.replace(&*scratch.path().to_string_lossy(), "<place>"));
        }
    }
    Ok(outcomes)
}

async fn script(place: &Place, suite: &Path, name: &str, scratch: &Arc<Scratch>) -> Result<String> {
    let distribution = Distribution::find(MAJOR)?;
    let psql = distribution.bin().join("psql");
    let mut program = Program::file("sh").args(["-c", PSQL]).arg(psql);
    program = program.arg(suite.join(format!("sql/{name}.sql"))).dir(scratch);
    if let Some(lib) = distribution.lib() {
        program = program.env("LD_LIBRARY_PATH", lib);
    }
    for (name, value) in [
        ("PGHOST", "127.0.0.1"),
        ("PGUSER", "postgres"),
        ("PGTZ", "PST8PDT"),
        ("PGDATESTYLE", "Postgres, MDY"),
        ("PGOPTIONS", "-c intervalstyle=postgres_verbose"),
        ("LC_ALL", "C"),
        ("PG_DLSUFFIX", ".so"),
        // Where regress.so would be. What cannot be made without it, cannot be made on either way.
        ("PG_LIBDIR", "/nonexistent"),
    ] {
        program = program.env(name, value);
    }
    program = program.env("PGPORT", place.port().to_string()).env("PG_ABS_SRCDIR", suite);
    let output = program.env("PG_ABS_BUILDDIR", scratch.path()).run(LIMIT).await?;
    ensure!(output.stderr.is_empty(), "{}", output.stderr);
    Ok(format!("{}\n{}\n", output.stdout, output.status))
}

/// The scripts of a schedule, one after the other.
fn scripts(schedule: &str) -> impl Iterator<Item = &str> {
    schedule.lines().filter_map(|line| line.strip_prefix("test:")).flat_map(str::split_whitespace)
}
