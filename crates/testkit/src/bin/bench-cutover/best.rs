//! The best rival known: one program with warm connections and a marker row instead of the slot's word. Owns its
//! cutover; refuses to take shortcuts that the careful rival may not take.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use tokio_postgres::{Client, NoTls, Statement};

use crate::arena::{Arena, DATABASE};
use crate::contender::{Contender, Endpoint, Step};
use crate::pgbouncer::{PgBouncer, replicate};

/// How long the marker may take to arrive.
const MARKER_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Best {
    warm: Option<Warm>,
}

/// Everything opened, prepared and used once before the cutover.
#[derive(Debug)]
struct Warm {
    bouncer: PgBouncer,
    console: Client,
    blue: Client,
    green: Client,
    write_marker: Statement,
    read_marker: Statement,
    read_sequences: Statement,
    set_sequences: Statement,
}

#[async_trait(?Send)]
impl Contender for Best {
    fn name(&self) -> &'static str {
        "best"
    }

    async fn prepare(&mut self, arena: &Arena) -> Result<Endpoint> {
        replicate(arena).await?;
        let bouncer = PgBouncer::start(arena).await?;
        let endpoint = bouncer.endpoint();
        self.warm = Some(Warm::up(arena, bouncer).await?);
        Ok(endpoint)
    }

    async fn cutover(&mut self, arena: &Arena) -> Result<Vec<Step>> {
        let warm = self.warm.as_ref().context("not prepared")?;
        let mut watch = Watch { last: Instant::now(), steps: Vec::new() };
        let changed = ini_for_green(arena, &warm.bouncer)?;
        watch.step("file");
        warm.console.simple_query("PAUSE bench").await?;
        watch.step("pause");
        warm.marker().await?;
        watch.step("marker");
        warm.sequences().await?;
        watch.step("sequences");
        std::fs::rename(changed, &warm.bouncer.ini)?;
        warm.console.simple_query("RELOAD").await?;
        watch.step("reload");
        warm.console.simple_query("RESUME bench").await?;
        watch.step("resume");
        Ok(watch.steps)
    }
}

impl Warm {
    async fn up(arena: &Arena, bouncer: PgBouncer) -> Result<Warm> {
        let console = connect(&bouncer.console()).await?;
        console.simple_query("SHOW VERSION").await?;
        let (blue, green) =
            (connect(&arena.blue.conninfo(DATABASE)).await?, connect(&arena.green.conninfo(DATABASE)).await?);
        let warm = Warm {
            write_marker: blue.prepare("UPDATE marker SET n = n + 1 WHERE id = 1 RETURNING n").await?,
            read_marker: green.prepare("SELECT n FROM marker WHERE id = 1").await?,
            read_sequences: blue
                .prepare(
                    "SELECT format('%I.%I', schemaname, sequencename), last_value FROM pg_sequences \
                     WHERE last_value IS NOT NULL",
                )
                .await?,
            set_sequences: green
                .prepare(
                    "SELECT count(setval(s::regclass, v)) FROM unnest($1::text[], $2::bigint[]) AS x (s, v)",
                )
                .await?,
            bouncer,
            console,
            blue,
            green,
        };
        warm.marker().await?;
        warm.sequences().await?;
        Ok(warm)
    }

    /// Writes the marker on blue and waits until green has applied it.
    async fn marker(&self) -> Result<()> {
        let written: i64 = self.blue.query_one(&self.write_marker, &[]).await?.try_get(0)?;
        let began = Instant::now();
        loop {
            let seen: i64 = self.green.query_one(&self.read_marker, &[]).await?.try_get(0)?;
            if seen >= written {
                return Ok(());
            }
            if began.elapsed() > MARKER_LIMIT {
                bail!("waited {MARKER_LIMIT:?} for marker {written} on green: it has {seen}");
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }

    async fn sequences(&self) -> Result<()> {
        let rows = self.blue.query(&self.read_sequences, &[]).await?;
        let (mut names, mut values) = (Vec::<String>::new(), Vec::<i64>::new());
        for row in rows {
            names.push(row.try_get(0)?);
            values.push(row.try_get(1)?);
        }
        self.green.query_one(&self.set_sequences, &[&names, &values]).await?;
        Ok(())
    }
}

/// Writes the changed file beside the present one, before anybody is paused.
fn ini_for_green(arena: &Arena, bouncer: &PgBouncer) -> Result<std::path::PathBuf> {
    let text = std::fs::read_to_string(&bouncer.ini)?;
    let (from, to) = (format!("port={} ", arena.blue.port()), format!("port={} ", arena.green.port()));
    let changed = bouncer.ini.with_extension("new");
    std::fs::write(&changed, text.replace(&from, &to))?;
    Ok(changed)
}

async fn connect(conninfo: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

struct Watch {
    last: Instant,
    steps: Vec<Step>,
}

impl Watch {
    fn step(&mut self, name: &str) {
        self.steps.push(Step { name: name.into(), ms: self.last.elapsed().as_secs_f64() * 1e3 });
        self.last = Instant::now();
    }
}
