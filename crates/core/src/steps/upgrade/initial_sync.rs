//! Waits until every table is copied and applied by the stream, telling bytes, rate and the time left as it goes.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::copy::{self, SyncState, TableSync};
use pgteal_postgres::{catalog, subscription};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};
use tokio::time::{Instant, sleep};

use crate::deployment::{Side, Stream};
use crate::failure::code;
use crate::steps::stream;
use crate::world::World;

const POLL: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub struct InitialSync;

/// How far the copy of everything is.
struct Standing {
    tables: Vec<(String, TableSync)>,
    errors: i64,
}

impl Standing {
    async fn look(world: &World) -> Result<Self, StepError> {
        let found = world
            .each(Side::Green, |session, database| async move {
                let name = world.stream(Stream::Forward, database);
                let errors =
                    subscription::find(&session, &name).await?.and_then(|s| s.sync_errors).unwrap_or(0);
                let tables = copy::progress(&session, &name).await?;
                Ok((errors, tables.into_iter().map(|t| (database.name.clone(), t)).collect::<Vec<_>>()))
            })
            .await?;
        let errors = found.iter().map(|(errors, _)| errors).sum();
        Ok(Self { tables: found.into_iter().flat_map(|(_, tables)| tables).collect(), errors })
    }

    fn done(&self) -> usize {
        self.tables.iter().filter(|(_, table)| table.state == SyncState::Ready).count()
    }

    /// Changes with any progress, so that a standstill can be told from slowness.
    fn mark(&self) -> Mark {
        let copied = self.tables.iter().map(|(_, t)| t.copied_bytes.unwrap_or(0).max(t.table_bytes)).sum();
        let past = |state: SyncState| self.tables.iter().filter(|(_, t)| t.state >= state).count();
        (copied, past(SyncState::Copied), self.done())
    }

    fn status(&self) -> String {
        let unready: Vec<_> = self.tables.iter().filter(|(_, t)| t.state != SyncState::Ready).collect();
        let first = unready
            .first()
            .map_or(String::new(), |(db, t)| format!(", first {db}.{} ({:?})", t.table, t.state));
        format!("{} of {} tables, {} failures{first}", self.done(), self.tables.len(), self.errors)
    }
}

/// Bytes copied, tables copied, tables in step.
type Mark = (i64, usize, usize);

/// The last movement that was seen.
struct Advance {
    mark: Mark,
    at: Instant,
}

impl Advance {
    /// For how long `mark` has stood at `now`. Any change is movement, one downwards too: where a table ends whose rows take
    /// less room than their text, the bytes fall.
    fn still_for(&mut self, mark: Mark, now: Instant) -> Duration {
        if mark != self.mark {
            (self.mark, self.at) = (mark, now);
        }
        now - self.at
    }
}

/// Sizes of blue's tables in bytes, by database and table: the total to copy.
async fn sizes(world: &World) -> Result<std::collections::BTreeMap<(String, String), u64>, StepError> {
    let found = world
        .each(Side::Blue, |session, database| async move {
            let tables = catalog::tables(&session).await?;
            let size = |t: catalog::Table| {
                ((database.name.clone(), t.name.to_string()), u64::try_from(t.table_bytes).unwrap_or(0))
            };
            Ok(tables.into_iter().map(size).collect::<Vec<_>>())
        })
        .await?;
    Ok(found.into_iter().flatten().collect())
}

#[async_trait]
impl Step<World> for InitialSync {
    fn id(&self) -> &'static str {
        "initial-sync"
    }

    fn title(&self) -> &'static str {
        "copy the tables"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let look = world.all(Side::Green, |session, database| async move {
            let name = world.stream(Stream::Forward, database);
            Ok(copy::unapplied(&session, &name).await?.is_empty())
        });
        let ready = stream::under_fuse(world, Stream::Forward, look).await?;
        Ok(if ready { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let sizes = sizes(world).await?;
        let total: u64 = sizes.values().sum();
        let mut advance = Advance { mark: Mark::default(), at: Instant::now() };
        loop {
            let standing = stream::under_fuse(world, Stream::Forward, Standing::look(world)).await?;
            if standing.done() == standing.tables.len() && self.observe(world, cx).await? == Observation::Done
            {
                cx.note("tables", standing.tables.len());
                cx.note("bytes", total);
                return Ok(());
            }
            if cx.stop().is_requested() {
                return Err(StepError::Stopped);
            }
            stream::fuse(world, Stream::Forward).await?;
            tell(cx, &standing, &sizes, total);
            let bound = world.settings.stall_bound;
            if advance.still_for(standing.mark(), Instant::now()) > bound {
                let what = format!("no table has come further for {} s", bound.as_secs());
                return Err(StepError::unknown("the initial sync", what)
                    .with_status(standing.status())
                    .with_code(code::STALLED));
            }
            sleep(POLL).await;
        }
    }
}

/// Reports every table that is being copied, and the whole. Whoever shows it derives rate and time left.
fn tell(cx: &Cx, standing: &Standing, sizes: &std::collections::BTreeMap<(String, String), u64>, total: u64) {
    let mut sum = 0;
    for (database, table) in &standing.tables {
        let size = sizes.get(&(database.clone(), table.table.to_string())).copied().unwrap_or(0);
        let copied = match table.state {
            SyncState::Initial => 0,
            // COPY text is larger than the heap for some tables: never tell more than the whole.
            SyncState::Copying => {
                table.copied_bytes.and_then(|b| u64::try_from(b).ok()).unwrap_or(0).min(size)
            }
            SyncState::Copied | SyncState::Synced | SyncState::Ready => size,
        };
        sum += copied;
        if table.state == SyncState::Copying {
            let name = format!("{database}.{}", table.table);
            cx.report(Some(&name), "copying", Some(copied), Some(size), "bytes");
        }
    }
    cx.report(None, standing.status(), Some(sum), Some(total), "bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_the_standing_is_movement() {
        let mut now = Instant::now();
        let mut advance = Advance { mark: Mark::default(), at: now };
        for (mark, still_s) in [
            ((0, 0, 0), 1),
            ((9_000, 0, 0), 0),
            ((9_000, 0, 0), 1),
            ((9_000, 0, 0), 2),
            // A table of compressible rows is done: less on the disk than was sent.
            ((1_000, 1, 0), 0),
            ((2_000, 1, 0), 0),
            ((2_000, 1, 1), 0),
            ((2_000, 1, 1), 1),
        ] {
            now += Duration::from_secs(1);
            assert_eq!(advance.still_for(mark, now), Duration::from_secs(still_s), "{mark:?}");
        }
    }
}
