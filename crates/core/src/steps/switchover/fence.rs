//! Raises the fence on the side that clients leave, waits for the transactions that may still write, and proves by a
//! write probe that nobody can. Only then is `fence_lsn` noted, as it was read after the last of them (I2).

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::activity::{clients_since_fence, terminate};
use pgteal_postgres::fence::{Locker, lockers, terminate_lockers, unarmed, wait_lockers};
use pgteal_postgres::{Error, Lsn, Session, wal};
use pgteal_saga::{Cx, Durability, Observation, Step, StepError};

use crate::deployment::{DatabaseKey, Direction};
use crate::failure;
use crate::steps::switchover::{carry_last, reach_marker};
use crate::steps::{is_fenced, is_lowered, still_held};
use crate::world::{OnDrain, World};

/// See the module.
#[derive(Debug)]
pub struct Fence(pub Direction);

/// What was seen right after a raise.
struct Raised {
    /// The session that raised.
    session: Session,
    /// The transactions that may still write.
    before: Vec<Locker>,
    /// Whether a write probe was refused.
    refused: bool,
    /// Whether every layer was up.
    seen: bool,
    /// The insert position after the lockers were read.
    lsn: Lsn,
}

impl Fence {
    /// Raises the fence of one database: the commit of what was staged, or else all of it now.
    async fn raise(&self, world: &World, database: &DatabaseKey, cx: &Cx) -> Result<Raised, Error> {
        let fence = world.fence(self.0.from);
        let control = world.session(self.0.from, database).await?;
        if let Some(staged) = world.staged(self.0.from, database) {
            match self.and_look(world, database, staged.session(), staged.commit(), cx).await {
                Ok(raised) => return Ok(raised),
                // Raising it twice is raising it once.
                Err(error) => tracing::debug!(%error, "the staged fence is lost, raising it anew"),
            }
        }
        let raise = fence.raise(&control, cx.epoch().0.cast_signed());
        self.and_look(world, database, &control, raise, cx).await
    }

    /// The lockers are those of the instant right after the raise: taken later they would count strangers that try and
    /// are refused, so they are asked behind it without waiting for its answer.
    async fn and_look(
        &self,
        world: &World,
        database: &DatabaseKey,
        session: &Session,
        raise: impl Future<Output = Result<(), Error>>,
        cx: &Cx,
    ) -> Result<Raised, Error> {
        let fence = world.fence(self.0.from);
        let control = world.session(self.0.from, database).await?;
        // In this order: the raise goes first.
        let asked = async { futures::try_join!(lockers(session), wal::insert_lsn(session)) };
        let ((), (before, lsn)) = futures::try_join!(raise, asked)?;
        // With nobody left to wait for, what the next steps wait for begins now: while it is on its way we still look. The
        // marker is begun last, so that it runs first.
        world.forget_begun(database);
        if before.is_empty() {
            carry_last::begin(world, self.0, database, (&control, session));
            reach_marker::begin(world, self.0, database, session, cx);
        }
        let (refused, seen) = futures::try_join!(fence.probe(&control), fence.is_raised(&control))?;
        Ok(Raised { session: session.clone(), before, refused, lsn, seen })
    }

    /// Waits by policy for the transactions that may still write, and reads `fence_lsn` (I2). Answers what forbids to go on.
    async fn settle(
        world: &World,
        raised: Raised,
        database: &str,
        budget: Duration,
    ) -> Result<Result<Lsn, String>, Error> {
        let (policy, Raised { session, before, refused, lsn, .. }) = (world.settings.on_drain, raised);
        match wait_lockers(&session, &before, budget).await {
            Err(Error::NotReached { .. }) if policy == OnDrain::Terminate => {
                terminate_lockers(&session, &before).await?;
                wait_lockers(&session, &before, budget).await?;
            }
            Err(Error::NotReached { last, .. }) if policy == OnDrain::Abort => {
                let what = "transactions that began before the fence are still open in database";
                return Ok(Err(format!("{what} {database}: {last}")));
            }
            other => other?,
        }
        // DDL that was under way at the raise may have made a table that has no fence.
        if before.iter().any(|locker| locker.exclusive)
            && let Some(table) = unarmed(&session).await?.first()
        {
            return Ok(Err(format!("table {database}.{table} was made meanwhile and has no fence")));
        }
        if !refused {
            return Ok(Err(format!("a write probe in database {database} was not refused")));
        }
        // Nobody was left to wait for when the position was read with the lockers.
        Ok(Ok(if before.is_empty() { lsn } else { wal::insert_lsn(&session).await? }))
    }
}

#[async_trait]
impl Step<World> for Fence {
    fn id(&self) -> &'static str {
        "fence"
    }

    fn title(&self) -> &'static str {
        "fence the old side"
    }

    fn durability(&self) -> Durability {
        Durability::Deferred
    }

    async fn guard(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        still_held(world, self.0, cx).await
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        // I2: a fence that is up says nothing of transactions from before it, so a try that was cut short while waiting
        // for them has to wait again.
        let fenced = world.are_writers_gone()
            && (world.take_fence_seen(self.0.from) || is_fenced(world, self.0.from).await?);
        Ok(if fenced { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let side = self.0.from;
        let budget = cx.within(match world.settings.on_drain {
            OnDrain::Wait => world.settings.deadline,
            OnDrain::Terminate | OnDrain::Abort => world.settings.drain_budget,
        });
        let one = |database| async move {
            let raised = self.raise(world, database, cx).await?;
            let (seen, waited) = (raised.seen, !raised.before.is_empty());
            let settled = Self::settle(world, raised, &database.name, budget).await?;
            Ok::<_, Error>(settled.map(|lsn| (&database.name, lsn, seen, waited)))
        };
        let all = futures::future::try_join_all(world.databases.iter().map(one)).await;
        let lsns = all.map_err(|error| failure::server(&error))?;
        let (mut all_seen, mut waited) = (true, false);
        for standing in lsns {
            let (database, lsn, seen, waited_here) = standing.map_err(|what| {
                StepError::refused(side.as_str(), what).with_code(failure::code::GUARDRAIL)
            })?;
            cx.note(&format!("fence_lsn/{database}"), lsn.to_string());
            all_seen &= seen;
            waited |= waited_here;
        }
        if waited {
            // Sequences are not fenced: what was carried before the wait of another database is not the last.
            world.databases.iter().for_each(|database| world.note_settling(database, None));
        }
        world.note_fence_seen(side, all_seen);
        world.note_writers_gone(true);
        Ok(())
    }

    async fn undo(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        world.note_writers_gone(false);
        world.note_fence_seen(self.0.from, false);
        world.databases.iter().for_each(|database| world.forget_pause(database));
        world.unstage(self.0.from).await;
        let (fence, epoch) = (world.fence(self.0.from), cx.epoch().0.cast_signed());
        let lowered = world
            .each(self.0.from, |session, _| {
                let fence = &fence;
                async move {
                    // While clients are held nobody logs in. But a hold may have ended by its own limit, and who came then
                    // would stay read-only for the rest of the session: better a new login than that.
                    let stuck = clients_since_fence(&session, world.role(self.0.from)).await?;
                    fence.lower(&session, epoch).await?;
                    terminate(&session, &stuck).await
                }
            })
            .await;
        lowered.map_err(failure::as_unknown)?;
        if is_lowered(world, self.0.from).await? {
            return Ok(());
        }
        Err(StepError::unknown(self.0.from.as_str(), "the fence was lowered, but it is seen to be raised"))
    }
}
