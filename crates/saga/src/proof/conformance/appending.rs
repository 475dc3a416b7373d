//! The checks of what a journal takes and what it turns away.

use std::sync::Arc;

use crate::event::{Event, EventBody};
use crate::ids::{DeploymentId, Epoch, RunId};
use crate::journal::{Durability, JournalError};
use crate::proof::conformance::sample::{Story, at, event, plan, started};
use crate::proof::conformance::{Subject, ensure, opened, said};

pub(super) async fn conditional(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let mut story = Story::begin(&*journal).await?;
    story.go_on(&*journal, 3).await?;
    for expected in [0, 1, 3, 5, 100] {
        let body = if expected == 0 {
            EventBody::RunCreated { plan: plan(story.lease.deployment.clone(), 1)? }
        } else {
            EventBody::Stopped
        };
        let late = [event(expected + 1, story.lease.epoch, body)];
        let outcome = journal.append(&story.run, story.lease.epoch, expected, &late, Durability::Sync).await;
        match outcome {
            Err(JournalError::Conflict { run, expected: named, found: 4 })
                if run == story.run && named == expected => {}
            other => return Err(format!("an append after event {expected} of 4 gave {other:?}")),
        }
    }
    story.must_be_kept(&*journal).await
}

pub(super) async fn twice(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let story = Story::begin(&*journal).await?;
    let again = [event(
        1,
        story.lease.epoch,
        EventBody::RunCreated { plan: plan(story.lease.deployment.clone(), 3)? },
    )];
    match journal.append(&story.run, story.lease.epoch, 0, &again, Durability::Sync).await {
        Err(JournalError::Conflict { expected: 0, found: 1, .. }) => story.must_be_kept(&*journal).await,
        other => Err(format!("creating a run twice gave {other:?}")),
    }
}

pub(super) async fn stale(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let mut story = Story::begin(&*journal).await?;
    story.go_on(&*journal, 2).await?;
    let old = story.lease.clone();
    story.lease = journal.acquire(&old.deployment, "two", at(5)).await.map_err(said)?;
    // Right place or wrong place: a stale driver is told that it is stale.
    for expected in [3, 1] {
        let late = [event(expected + 1, old.epoch, EventBody::Stopped)];
        match journal.append(&story.run, old.epoch, expected, &late, Durability::Sync).await {
            Err(JournalError::StaleEpoch { given: Epoch(1), current: Epoch(2), .. }) => {}
            other => {
                return Err(format!(
                    "an append after event {expected} of 3 under a stale epoch gave {other:?}"
                ));
            }
        }
    }
    // Nor may it create another run.
    let run = RunId::generate("switch").map_err(|error| error.to_string())?;
    let created = [event(1, old.epoch, EventBody::RunCreated { plan: plan(old.deployment.clone(), 1)? })];
    match journal.append(&run, old.epoch, 0, &created, Durability::Sync).await {
        Err(JournalError::StaleEpoch { .. }) => {}
        other => return Err(format!("a run created under a stale epoch gave {other:?}")),
    }
    story.must_be_kept(&*journal).await?;
    let runs = journal.runs().await.map_err(said)?;
    ensure(runs.len() == 1, || format!("a stale driver left a run behind: {runs:?}"))?;
    story.go_on(&*journal, 1).await?;
    story.must_be_kept(&*journal).await
}

pub(super) async fn invented(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let story = Story::begin(&*journal).await?;
    for epoch in [Epoch(0), Epoch(2), Epoch(99)] {
        let events = [event(2, epoch, EventBody::Stopped)];
        match journal.append(&story.run, epoch, 1, &events, Durability::Sync).await {
            Err(JournalError::StaleEpoch { current: Epoch(1), .. }) => {}
            other => {
                return Err(format!("an append under epoch {epoch}, which nobody holds, gave {other:?}"));
            }
        }
    }
    let stranger = DeploymentId::generate();
    let run = RunId::generate("up").map_err(|error| error.to_string())?;
    let created = [event(1, Epoch(1), EventBody::RunCreated { plan: plan(stranger, 1)? })];
    match journal.append(&run, Epoch(1), 0, &created, Durability::Sync).await {
        Err(JournalError::StaleEpoch { current: Epoch(0), .. }) => story.must_be_kept(&*journal).await,
        other => Err(format!("a run of a deployment without a lease gave {other:?}")),
    }
}

pub(super) async fn malformed(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let mut story = Story::begin(&*journal).await?;
    story.go_on(&*journal, 1).await?;
    let epoch = story.lease.epoch;
    let created = EventBody::RunCreated { plan: plan(story.lease.deployment.clone(), 1)? };
    let batches: [(&str, Vec<Event>); 5] = [
        ("nothing", vec![]),
        ("a gap", vec![event(3, epoch, started(3)), event(5, epoch, started(5))]),
        ("a wrong beginning", vec![event(7, epoch, started(7))]),
        ("two epochs", vec![event(3, epoch, started(3)), event(4, Epoch(7), started(4))]),
        ("a second creation", vec![event(3, epoch, started(3)), event(4, epoch, created)]),
    ];
    for (name, batch) in batches {
        match journal.append(&story.run, epoch, 2, &batch, Durability::Sync).await {
            Err(JournalError::Malformed { .. }) => {}
            other => return Err(format!("appending {name} gave {other:?}")),
        }
        story.must_be_kept(&*journal).await?;
    }
    Ok(())
}

pub(super) async fn together(subject: &dyn Subject) -> Result<(), String> {
    let mut journal = opened(subject).await?;
    let mut story = Story::begin(&*journal).await?;
    for durability in [Durability::Deferred, Durability::Sync, Durability::Deferred] {
        let from = story.events.len() as u64;
        let two = |epoch| [event(from + 1, epoch, started(1)), event(from + 2, epoch, started(2))];
        let epoch = story.lease.epoch;
        let last = journal.append(&story.run, epoch, from, &two(epoch), durability).await.map_err(said)?;
        ensure(last == from + 2, || format!("the append of events to {} returned {last}", from + 2))?;
        story.events.extend(two(epoch));
        // The first is there already, the second is not: a writer that lost its place adds nothing at all.
        let from = from + 1;
        let late = [event(from + 1, epoch, started(3)), event(from + 2, epoch, started(4))];
        match journal.append(&story.run, epoch, from, &late, durability).await {
            Err(JournalError::Conflict { found, .. }) if found == from + 1 => {}
            other => return Err(format!("two events, of which one has its place taken, gave {other:?}")),
        }
        drop(journal);
        journal = opened(subject).await?;
        story.must_be_kept(&*journal).await?;
        // Nor does one whose epoch is over.
        let old = epoch;
        story.lease = journal.acquire(&story.lease.deployment, "next", at(7)).await.map_err(said)?;
        let from = story.events.len() as u64;
        let late = [event(from + 1, old, started(5)), event(from + 2, old, started(6))];
        match journal.append(&story.run, old, from, &late, durability).await {
            Err(JournalError::StaleEpoch { .. }) => story.must_be_kept(&*journal).await?,
            other => return Err(format!("two events under an epoch that is over gave {other:?}")),
        }
    }
    Ok(())
}

pub(super) async fn unknown(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let story = Story::begin(&*journal).await?;
    let run = RunId::generate("up").map_err(|error| error.to_string())?;
    let events = [event(2, story.lease.epoch, EventBody::Stopped)];
    match journal.append(&run, story.lease.epoch, 1, &events, Durability::Sync).await {
        Err(JournalError::UnknownRun { .. }) => Ok(()),
        other => Err(format!("an append to a run that was not created gave {other:?}")),
    }
}

pub(super) async fn concurrent(subject: &dyn Subject) -> Result<(), String> {
    const WRITERS: usize = 8;
    const PLACES: u64 = 10;
    let journal = opened(subject).await?;
    let mut story = Story::begin(&*journal).await?;
    for place in 1..=PLACES {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let (journal, run, epoch) = (Arc::clone(&journal), story.run.clone(), story.lease.epoch);
            let mine = event(place + 1, epoch, EventBody::Resumed { holder: format!("writer {writer}") });
            tasks.spawn(async move {
                let events = [mine.clone()];
                (mine, journal.append(&run, epoch, place, &events, Durability::Deferred).await)
            });
        }
        let mut winners = Vec::new();
        while let Some(joined) = tasks.join_next().await {
            match joined.map_err(|error| error.to_string())? {
                (event, Ok(_)) => winners.push(event),
                (_, Err(JournalError::Conflict { .. })) => {}
                (_, Err(error)) => return Err(said(error)),
            }
        }
        ensure(winners.len() == 1, || format!("{} writers won event {}", winners.len(), place + 1))?;
        story.events.append(&mut winners);
    }
    story.must_be_kept(&*journal).await
}
