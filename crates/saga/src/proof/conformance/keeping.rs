//! The checks of what a journal keeps and gives back.

use crate::event::EventBody;
use crate::ids::{DeploymentId, Epoch, RunId};
use crate::journal::{Durability, JournalError};
use crate::proof::conformance::sample::{Story, at, event, plan};
use crate::proof::conformance::{Damage, Subject, ensure, opened, said};

pub(super) async fn order(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let mut one = Story::begin(&*journal).await?;
    let mut two = Story::begin(&*journal).await?;
    for _ in 0..10 {
        one.go_on(&*journal, 2).await?;
        two.go_on(&*journal, 1).await?;
    }
    let more: Vec<_> =
        (0..5).map(|i| event(one.events.len() as u64 + 1 + i, one.lease.epoch, EventBody::Stopped)).collect();
    let before = one.events.len() as u64;
    journal.append(&one.run, one.lease.epoch, before, &more, Durability::Sync).await.map_err(said)?;
    one.events.extend(more);
    one.must_be_kept(&*journal).await?;
    two.must_be_kept(&*journal).await
}

pub(super) async fn empty(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let runs = journal.runs().await.map_err(said)?;
    ensure(runs.is_empty(), || format!("it has runs: {runs:?}"))?;
    let lease = journal.lease(&DeploymentId::generate()).await.map_err(said)?;
    ensure(lease.is_none(), || format!("there is a lease: {lease:?}"))?;
    let run = RunId::generate("up").map_err(|error| error.to_string())?;
    match journal.load(&run).await {
        Err(JournalError::UnknownRun { run: named, .. }) if named == run => Ok(()),
        other => Err(format!("loading a run that is not there gave {other:?}")),
    }
}

pub(super) async fn listing(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let mut stories = Vec::new();
    for count in [0, 3, 1] {
        let mut story = Story::begin(&*journal).await?;
        story.go_on(&*journal, count).await?;
        stories.push(story);
    }
    stories[0].go_on(&*journal, 6).await?;
    let runs = journal.runs().await.map_err(said)?;
    ensure(runs.len() == stories.len(), || format!("three runs were created, {} are listed", runs.len()))?;
    for (found, story) in runs.iter().zip(&stories) {
        let fits = found.run == story.run
            && found.deployment == story.lease.deployment
            && found.kind == "up"
            && found.created_at == at(1)
            && found.seq == story.events.len() as u64;
        ensure(fits, || format!("{found:?} is listed for {} with {} events", story.run, story.events.len()))?;
    }
    Ok(())
}

pub(super) async fn reopening(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let mut story = Story::begin(&*journal).await?;
    // An odd number after the first: the last append is a deferred one.
    story.go_on(&*journal, 5).await?;
    drop(journal);
    let journal = opened(subject).await?;
    story.must_be_kept(&*journal).await?;
    let lease = journal.lease(&story.lease.deployment).await.map_err(said)?;
    ensure(lease.as_ref() == Some(&story.lease), || format!("the lease {:?} became {lease:?}", story.lease))?;
    story.lease = journal.acquire(&story.lease.deployment, "two", at(9)).await.map_err(said)?;
    ensure(story.lease.epoch == Epoch(2), || format!("the second epoch is {}", story.lease.epoch))?;
    story.go_on(&*journal, 3).await?;
    drop(journal);
    story.must_be_kept(&*opened(subject).await?).await
}

pub(super) async fn epochs(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let (one, two) = (DeploymentId::generate(), DeploymentId::generate());
    for wanted in 1..=3 {
        let lease = journal.acquire(&one, &format!("holder {wanted}"), at(wanted)).await.map_err(said)?;
        let fits = lease.epoch == Epoch(wanted) && lease.deployment == one && lease.acquired_at == at(wanted);
        ensure(fits, || format!("acquisition {wanted} gave {lease:?}"))?;
        let kept = journal.lease(&one).await.map_err(said)?;
        ensure(kept.as_ref() == Some(&lease), || format!("{lease:?} was kept as {kept:?}"))?;
    }
    let other = journal.acquire(&two, "other", at(4)).await.map_err(said)?;
    ensure(other.epoch == Epoch(4), || format!("another deployment began with epoch {}", other.epoch))?;
    let again = journal.acquire(&one, "again", at(5)).await.map_err(said)?;
    ensure(again.epoch == Epoch(5), || format!("after another deployment came epoch {}", again.epoch))?;
    let kept = journal.lease(&two).await.map_err(said)?;
    ensure(kept.as_ref() == Some(&other), || format!("{other:?} was kept as {kept:?}"))
}

pub(super) async fn damage(subject: &dyn Subject) -> Result<(), String> {
    for damage in Damage::ALL {
        let journal = opened(subject).await?;
        let mut story = Story::begin(&*journal).await?;
        story.go_on(&*journal, 6).await?;
        let mut sound = Story::begin(&*journal).await?;
        sound.go_on(&*journal, 6).await?;
        drop(journal);
        subject.damage(&story.run, damage).await?;
        let journal = opened(subject).await?;
        match journal.load(&story.run).await {
            Err(JournalError::Corrupt { what, .. }) if what.contains(story.run.as_str()) => {}
            other => return Err(format!("after {damage:?} loading the run gave {other:?}")),
        }
        sound.must_be_kept(&*journal).await?;
    }
    Ok(())
}

pub(super) async fn large(subject: &dyn Subject) -> Result<(), String> {
    let journal = opened(subject).await?;
    let deployment = DeploymentId::generate();
    let lease = journal.acquire(&deployment, "one", at(0)).await.map_err(said)?;
    let run = RunId::generate("up").map_err(|error| error.to_string())?;
    let created = event(1, lease.epoch, EventBody::RunCreated { plan: plan(deployment, 4 << 20)? });
    let events = [created];
    journal.append(&run, lease.epoch, 0, &events, Durability::Sync).await.map_err(said)?;
    let found = journal.load(&run).await.map_err(said)?;
    ensure(found == events, || "a plan of 4 MiB came back changed".into())?;
    match &found[0].body {
        EventBody::RunCreated { plan } => {
            plan.check().map_err(|error| format!("the plan came back, but {error}"))
        }
        other => Err(format!("it came back as {}", other.name())),
    }
}
