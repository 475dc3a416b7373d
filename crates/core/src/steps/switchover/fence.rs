//! Raises the fence on the side that clients leave, waits for the transactions that may still write, and proves by a
//! write probe that nobody can. Only then is `fence_lsn` read (I2).

use async_trait::async_trait;
use pgteal_postgres::fence::{lockers, terminate_lockers, unarmed, wait_lockers};
use pgteal_postgres::{Error, wal};
use pgteal_saga::{Cx, Durability, Observation, Step, StepError};

use crate::deployment::Direction;
use crate::failure;
use crate::steps::{is_fenced, still_held};
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
        let fenced = is_fenced(world, self.0.from).await?;
        Ok(if fenced { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let side = self.0.from;
        let (fence, epoch) = (world.fence(side), cx.epoch().0.cast_signed());
        let budget = cx.within(world.settings.drain_budget);
        let terminate = world.settings.on_drain == OnDrain::Terminate;
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
                        Err(Error::NotReached { .. }) if terminate => {
                            terminate_lockers(&session, &before).await?;
                            wait_lockers(&session, &before, budget).await?;
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
        Ok(())
    }

    async fn undo(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (fence, epoch) = (world.fence(self.0.from), cx.epoch().0.cast_signed());
        let lowered = world
            .each(self.0.from, |session, _| {
                let fence = &fence;
                async move { fence.lower(&session, epoch).await }
            })
            .await;
        match lowered {
            Ok(_) => Ok(()),
            Err(error) => Err(failure::as_unknown(error)),
        }
    }
}
