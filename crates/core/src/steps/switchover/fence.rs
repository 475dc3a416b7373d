//! Raises the fence on the side that clients leave, waits for the transactions that may still write, and proves by a
//! write probe that nobody can. Only then is `fence_lsn` read (I2).

use async_trait::async_trait;
use pgteal_postgres::activity::{clients_since_fence, terminate};
use pgteal_postgres::fence::{lockers, terminate_lockers, unarmed, wait_lockers};
use pgteal_postgres::{Error, wal};
use pgteal_saga::{Cx, Durability, Observation, Step, StepError};

use crate::deployment::Direction;
use crate::failure;
use crate::steps::{is_fenced, is_lowered, still_held};
use crate::world::{OnDrain, World};

/// See the module.
#[derive(Debug)]
pub struct Fence(pub Direction);

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
        let fenced = world.are_writers_gone() && is_fenced(world, self.0.from).await?;
        Ok(if fenced { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let side = self.0.from;
        let (fence, epoch) = (world.fence(side), cx.epoch().0.cast_signed());
        let policy = world.settings.on_drain;
        let budget = cx.within(match policy {
            OnDrain::Wait => world.settings.deadline,
            OnDrain::Terminate | OnDrain::Abort => world.settings.drain_budget,
        });
        let lsns = world
            .each(side, |session, database| {
                let fence = &fence;
                async move {
                    // Sent together, the raise first: the lockers are those of the instant right after it. Taken later
                    // they would count strangers that try and are refused.
                    let ((), before, refused) = futures::try_join!(
                        fence.raise(&session, epoch),
                        lockers(&session),
                        fence.probe(&session),
                    )?;
                    match wait_lockers(&session, &before, budget).await {
                        Err(Error::NotReached { .. }) if policy == OnDrain::Terminate => {
                            terminate_lockers(&session, &before).await?;
                            wait_lockers(&session, &before, budget).await?;
                        }
                        Err(Error::NotReached { last, .. }) if policy == OnDrain::Abort => {
                            let what = "transactions that began before the fence are still open in database";
                            return Ok(Err(format!("{what} {}: {last}", database.name)));
                        }
                        other => other?,
                    }
                    // DDL that was under way at the raise may have made a table that has no fence.
                    if before.iter().any(|locker| locker.exclusive)
                        && let Some(table) = unarmed(&session).await?.first()
                    {
                        return Ok(Err(format!(
                            "table {}.{table} was made meanwhile and has no fence",
                            database.name
                        )));
                    }
                    if !refused {
                        return Ok(Err(format!(
                            "a write probe in database {} was not refused",
                            database.name
                        )));
                    }
                    Ok(Ok((database.name.clone(), wal::insert_lsn(&session).await?)))
                }
            })
            .await?;
        for standing in lsns {
            let (database, lsn) = standing.map_err(|what| {
                StepError::refused(side.as_str(), what).with_code(failure::code::GUARDRAIL)
            })?;
            cx.note(&format!("fence_lsn/{database}"), lsn.to_string());
        }
        world.note_writers_gone(true);
        Ok(())
    }

    async fn undo(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        world.note_writers_gone(false);
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
