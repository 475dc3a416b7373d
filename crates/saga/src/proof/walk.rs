//! Runs the cases: brings the fault about, resumes or undoes, and compares the world with what it must look like.
//! Refuses to know what the steps do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::driver::{Driver, DriverError, Outcome};
use crate::hooks::CrashPoint;
use crate::journal::{Journal, JournalError};
use crate::proof::bench::{Bench, Report};
use crate::proof::case::{Case, Fault, Way, cases};
use crate::proof::faulty::{Misbehaviour, Switch};
use crate::proof::prefixes::every_prefix_decides;
use crate::proof::rig::{At, How, Moment, Rig, Sickly};
use crate::step::StepKind;
use crate::stop::Stop;

/// What worlds look like when all is well.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Before the run, and after its undo.
    pub before: Value,
    /// After the run.
    pub after: Value,
}

/// Whether the fault of a case came about.
type Touched = bool;

/// Runs every case of the bench's plan.
///
/// # Errors
/// If there is no world to be had or an undisturbed run does not end well; cases that go wrong are in the report.
pub async fn prove<B: Bench>(bench: &B) -> Result<Report, String> {
    let reference = reference(bench).await?;
    let world = bench.fresh().await?;
    let plan = bench.plan(&world).await?;
    bench.dispose(world).await;
    let mut report = Report::default();
    for case in cases(&plan) {
        report.cases += 1;
        match prove_case(bench, &case, &reference).await {
            Ok(true) => {}
            Ok(false) => report.untouched.push(case.to_string()),
            Err(what) => report.failures.push((case.to_string(), what)),
        }
    }
    Ok(report)
}

/// What the bench's worlds look like before and after an undisturbed run.
///
/// # Errors
/// If that run does not end as Done, or changes nothing that the picture shows.
pub async fn reference<B: Bench>(bench: &B) -> Result<Reference, String> {
    let world = bench.fresh().await?;
    let rig = Rig::new(bench, Arc::clone(&world)).await?;
    let before = rig.picture().await?;
    let outcome = rig.drive(How::default()).await?;
    if outcome != Ok(Outcome::Done) {
        return Err(format!("an undisturbed run ended as {outcome:?}"));
    }
    let after = rig.picture().await?;
    bench.dispose(world).await;
    if before == after {
        return Err("the picture shows no difference before and after the run: it would prove nothing".into());
    }
    Ok(Reference { before, after })
}

/// Runs one case on a fresh world. Says whether its fault came about.
///
/// # Errors
/// What went wrong.
pub async fn prove_case<B: Bench>(bench: &B, case: &Case, reference: &Reference) -> Result<Touched, String> {
    let world = bench.fresh().await?;
    let rig = Rig::new(bench, Arc::clone(&world)).await?;
    let mut walk = Walk { way: Way::of(&rig.plan), rig, reference };
    let late = || Err(format!("it took longer than {} s", bench.patience().as_secs()));
    let proved = tokio::time::timeout(bench.patience(), walk.case(case)).await;
    let result = proved.unwrap_or_else(|_| late());
    drop(walk);
    bench.dispose(world).await;
    result
}

struct Walk<'a, B: Bench> {
    rig: Rig<'a, B>,
    way: Way,
    reference: &'a Reference,
}

impl<B: Bench> Walk<'_, B> {
    async fn case(&mut self, case: &Case) -> Result<Touched, String> {
        let touched = match case.step {
            None => self.whole_run(case.fault).await?,
            Some(step) => self.at_step(case.fault, step).await?,
        };
        match self.rig.events().await {
            Ok(events) => every_prefix_decides(&events)?,
            // A driver that was turned away at the start has written nothing.
            Err(_) if case.fault == Fault::StaleStart => {}
            Err(error) => return Err(error),
        }
        Ok(touched)
    }

    async fn whole_run(&mut self, fault: Fault) -> Result<Touched, String> {
        match fault {
            Fault::ApplyTwice => {
                let switch = self.switch(Misbehaviour::ApplyTwice, None);
                self.must_be_done(How::default()).await?;
                Ok(switch.was_hit())
            }
            Fault::UndoTwice => {
                let switch = self.switch(Misbehaviour::UndoTwice, None);
                let ended = self.turn_around(How::default()).await?;
                self.must_have_unwound(&ended).await?;
                Ok(switch.was_hit())
            }
            Fault::UndoDone => {
                self.must_be_done(How::default()).await?;
                self.must_be_unwound(How { undo: true, ..How::default() }).await?;
                Ok(true)
            }
            Fault::StaleStart => self.stale_start().await.map(|()| true),
            _ => self.must_be_done(How::default()).await.map(|()| true),
        }
    }

    async fn at_step(&mut self, fault: Fault, step: usize) -> Result<Touched, String> {
        match fault {
            Fault::Crash(point) => self.crash(step, point, false, false).await,
            Fault::CrashThenUndo(point) => self.crash(step, point, false, true).await,
            Fault::PowerLoss(point) => self.crash(step, point, true, false).await,
            Fault::PowerLossThenUndo(point) => self.crash(step, point, true, true).await,
            Fault::CrashInUndo(point) => self.crash_in_undo(step, point).await,
            Fault::RefuseGuard => self.refuse(step, Misbehaviour::RefuseGuard).await,
            Fault::RefuseGuardDone => self.refuse(step, Misbehaviour::RefuseGuardDone).await,
            Fault::HangGuard => self.hang_guard(step).await,
            Fault::DoneEarly => self.once(step, Misbehaviour::DoneEarly).await,
            Fault::RefuseBefore => self.refuse(step, Misbehaviour::RefuseBefore).await,
            Fault::RefuseAfter => self.refuse(step, Misbehaviour::RefuseAfter).await,
            Fault::RefuseOnce => self.once(step, Misbehaviour::RefuseOnce).await,
            Fault::RefuseStale => self.turned_away(step).await,
            Fault::Foreign => self.refuse(step, Misbehaviour::Foreign).await,
            Fault::Unknown => self.unknown(step, Misbehaviour::Unknown).await,
            Fault::Lie => self.unknown(step, Misbehaviour::Lie).await,
            Fault::Hang => self.unknown(step, Misbehaviour::Hang).await,
            Fault::UnknownOnce => self.once(step, Misbehaviour::UnknownOnce).await,
            Fault::CutShort(waits) => self.once(step, Misbehaviour::CutShort(waits)).await,
            Fault::CutThenRefuse(waits) => self.refuse(step, Misbehaviour::CutThenRefuse(waits)).await,
            Fault::Occupied => self.occupied(step).await,
            Fault::Lost => self.lost(step).await,
            Fault::LostUnwritten => self.lost_unwritten(step).await,
            Fault::UndoUnknown => self.undo_fails(step, Misbehaviour::UndoUnknown).await,
            Fault::UndoLie => self.undo_fails(step, Misbehaviour::UndoLie).await,
            Fault::Stop(point) => self.stop(step, point).await,
            Fault::Overtaken(point) => self.overtaken(step, point).await,
            Fault::JournalFails(point) => self.journal_fails(step, point).await,
            other => Err(format!("{other:?} is not a fault of a step")),
        }
    }

    /// Dies at a point; then the run is resumed to its end, or undone.
    async fn crash(
        &mut self,
        step: usize,
        point: CrashPoint,
        power: bool,
        undo: bool,
    ) -> Result<Touched, String> {
        let at = At::new(self.id(step), point, Moment::Die);
        let ended = self.rig.drive(How { hooks: Some(Arc::clone(&at)), ..How::default() }).await?;
        if !at.hit.load(Ordering::SeqCst) {
            self.expect(&ended, &Ok(Outcome::Done))?;
            return Ok(false);
        }
        self.expect(&ended, &Err(DriverError::Died { step: self.id(step), point }))?;
        if point == CrashPoint::Succeeded {
            self.must_have_written_last(if self.way.is_held_back(step) { "started" } else { "succeeded" })
                .await?;
        }
        if power {
            self.rig.journal.lose_power();
        }
        if undo {
            self.must_be_unwound(How { undo: true, ..How::default() }).await?;
            return Ok(true);
        }
        let applied = self.switch(Misbehaviour::Count, Some(step));
        self.must_be_done(How::default()).await?;
        let lasts = !matches!(self.rig.plan.steps()[step].kind, StepKind::Transient | StepKind::Gate);
        if applied.was_hit() && point != CrashPoint::Started && lasts {
            return Err("what was done before the crash was applied once more".into());
        }
        Ok(true)
    }

    async fn crash_in_undo(&mut self, step: usize, point: CrashPoint) -> Result<Touched, String> {
        let at = At::new(self.id(step), point, Moment::Die);
        let ended = self.turn_around(How { hooks: Some(Arc::clone(&at)), ..How::default() }).await?;
        if !at.hit.load(Ordering::SeqCst) {
            self.must_have_unwound(&ended).await?;
            return Ok(false);
        }
        self.expect(&ended, &Err(DriverError::Died { step: self.id(step), point }))?;
        self.must_be_unwound(How::default()).await?;
        Ok(true)
    }

    /// A refusal unwinds to a clean slate, or past the point of no return rests and goes on once it is lifted. In the section
    /// it is tried again before that: what was done by then is seen to be done.
    async fn refuse(&mut self, step: usize, how: Misbehaviour) -> Result<Touched, String> {
        let switch = self.switch(how, Some(step));
        let ended = self.rig.drive(How::default()).await?;
        if !switch.was_hit() {
            self.expect(&ended, &Ok(Outcome::Done))?;
            return Ok(false);
        }
        // The guard of the point of no return is asked before it has started, and the look beside it.
        let before = [Misbehaviour::RefuseGuard, Misbehaviour::RefuseGuardDone, Misbehaviour::Foreign];
        let before_point = before.contains(&how) && self.way.point == Some(step);
        if self.way.is_reversible(step) || before_point {
            self.must_have_unwound(&ended).await?;
        } else if how == Misbehaviour::RefuseAfter && self.way.is_in_section(step) {
            self.expect(&ended, &Ok(Outcome::Done))?;
            self.must_look_like(&self.reference.after).await?;
        } else {
            self.must_be_stuck_at(&ended, step)?;
            switch.off();
            self.must_be_done(How::default()).await?;
        }
        Ok(true)
    }

    /// Whoever is told that a newer driver is at work does not try again, and rests wherever it is.
    async fn turned_away(&mut self, step: usize) -> Result<Touched, String> {
        let switch = self.switch(Misbehaviour::RefuseStale, Some(step));
        let ended = self.rig.drive(How::default()).await?;
        self.must_be_stuck_at(&ended, step)?;
        if switch.hits() != 1 {
            return Err(format!("it tried {} times although a newer driver is at work", switch.hits()));
        }
        switch.off();
        self.must_be_done(How::default()).await?;
        Ok(true)
    }

    /// An unknown comes to rest and goes on once it is lifted; under the deadline it unwinds.
    async fn unknown(&mut self, step: usize, how: Misbehaviour) -> Result<Touched, String> {
        let switch = self.switch(how, Some(step));
        let ended = self.rig.drive(How::default()).await?;
        if !switch.was_hit() {
            self.expect(&ended, &Ok(Outcome::Done))?;
            return Ok(false);
        }
        if self.way.is_bounded(step) {
            self.must_have_unwound(&ended).await?;
        } else {
            self.must_be_stuck_at(&ended, step)?;
            switch.off();
            self.must_be_done(How::default()).await?;
        }
        Ok(true)
    }

    /// An unknown that does not last is got over, and so is a refusal where clients are held and nothing can unwind.
    async fn once(&mut self, step: usize, how: Misbehaviour) -> Result<Touched, String> {
        let switch = self.switch(how, Some(step));
        self.must_be_done(How::default()).await?;
        Ok(switch.was_hit())
    }

    /// What is not ours is refused, never adopted, never dropped.
    async fn occupied(&self, step: usize) -> Result<Touched, String> {
        if !self.rig.occupy(&self.id(step)).await? {
            return Ok(false);
        }
        let before = self.rig.picture().await?;
        let ended = self.rig.drive(How::default()).await?;
        if !matches!(ended, Ok(Outcome::Unwound { .. })) {
            return Err(format!("with somebody else's in its place it ended as {ended:?}"));
        }
        self.must_look_like(&before).await?;
        Ok(true)
    }

    /// The deadline passes while the step's guard is asked: what came before is written first.
    async fn hang_guard(&mut self, step: usize) -> Result<Touched, String> {
        let switch = self.switch(Misbehaviour::HangGuard, Some(step));
        let ended = self.rig.drive(How::default()).await?;
        self.must_have_unwound(&ended).await?;
        let events = self.rig.events().await?;
        let names: Vec<_> = events.iter().map(|event| event.body.name()).collect();
        if !names.windows(2).any(|pair| pair == ["succeeded", "deadline"]) {
            return Err(format!("the deadline does not come after a success: {names:?}"));
        }
        Ok(switch.was_hit())
    }

    /// A driver that takes up an open section relies on nothing an earlier one saw.
    async fn lost(&self, step: usize) -> Result<Touched, String> {
        if !self.die_and_lose(step, step + 1, CrashPoint::Started).await? {
            return Ok(false);
        }
        self.must_be_unwound(How::default()).await?;
        Ok(true)
    }

    /// Nothing was built yet on a success that was not written: the step is done anew.
    async fn lost_unwritten(&self, step: usize) -> Result<Touched, String> {
        if !self.die_and_lose(step, step, CrashPoint::Succeeded).await? {
            return Ok(false);
        }
        match self.way.is_held_back(step) {
            true => self.must_be_done(How::default()).await?,
            false => self.must_be_unwound(How::default()).await?,
        }
        Ok(true)
    }

    /// The driver dies at `point` of the step `at`, and the effect of `step` is lost.
    async fn die_and_lose(&self, step: usize, at: usize, point: CrashPoint) -> Result<bool, String> {
        let hooks = At::new(self.id(at), point, Moment::Die);
        let ended = self.rig.drive(How { hooks: Some(hooks), ..How::default() }).await?;
        self.expect(&ended, &Err(DriverError::Died { step: self.id(at), point }))?;
        self.rig.lose(&self.id(step)).await
    }

    async fn undo_fails(&mut self, step: usize, how: Misbehaviour) -> Result<Touched, String> {
        let switch = self.switch(how, Some(step));
        let ended = self.turn_around(How::default()).await?;
        if !switch.was_hit() {
            self.must_have_unwound(&ended).await?;
            return Ok(false);
        }
        // A step that has nothing to undo may well be undone by a lie.
        if how == Misbehaviour::UndoUnknown || !matches!(ended, Ok(Outcome::Unwound { .. })) {
            self.must_be_stuck_at(&ended, step)?;
        }
        switch.off();
        self.must_be_unwound(How::default()).await?;
        Ok(true)
    }

    /// A stop rests and goes on; under the deadline it unwinds; past the point of no return the section ends first.
    async fn stop(&self, step: usize, point: CrashPoint) -> Result<Touched, String> {
        let (handle, stop) = Stop::pair();
        let at = At::new(self.id(step), point, Moment::Stop(handle));
        let how = How { hooks: Some(Arc::clone(&at)), stop: Some(stop), ..How::default() };
        let ended = self.rig.drive(how).await?;
        match &ended {
            Ok(Outcome::Unwound { .. }) if self.way.is_bounded(step) => {
                self.must_have_unwound(&ended).await?
            }
            Ok(Outcome::Done) => self.must_look_like(&self.reference.after).await?,
            Ok(Outcome::Stopped) => self.must_be_done(How::default()).await?,
            other => return Err(format!("after a stop it ended as {other:?}")),
        }
        Ok(at.hit.load(Ordering::SeqCst))
    }

    /// Another driver takes the lease: this one must not record anything more, and the other goes on.
    async fn overtaken(&mut self, step: usize, point: CrashPoint) -> Result<Touched, String> {
        let other = Moment::Overtake(Arc::clone(&self.rig.journal), self.rig.plan.deployment().clone());
        let at = At::new(self.id(step), point, other);
        let ended = self.rig.drive(How { hooks: Some(Arc::clone(&at)), ..How::default() }).await?;
        if !at.hit.load(Ordering::SeqCst) {
            self.expect(&ended, &Ok(Outcome::Done))?;
            return Ok(false);
        }
        if !matches!(ended, Err(DriverError::Journal(JournalError::StaleEpoch { .. }))) {
            return Err(format!("a driver that was overtaken ended as {ended:?}"));
        }
        let is_written = point == CrashPoint::Succeeded && !self.way.is_held_back(step);
        self.must_have_written_last(if is_written { "succeeded" } else { "started" }).await?;
        let applied = self.switch(Misbehaviour::Count, Some(step));
        self.must_be_done(How::default()).await?;
        let lasts = !matches!(self.rig.plan.steps()[step].kind, StepKind::Transient | StepKind::Gate);
        if applied.was_hit() && point == CrashPoint::Succeeded && lasts {
            return Err("the other applied once more what it could have seen to be done".into());
        }
        Ok(true)
    }

    /// Clients must not stay held because the journal fails: the section is undone, and the record made up for later. Where
    /// the point of no return may be passed nothing is undone, and the run goes on later.
    async fn journal_fails(&self, step: usize, point: CrashPoint) -> Result<Touched, String> {
        let sickly = Sickly::new(Arc::clone(&self.rig.journal));
        let at = At::new(self.id(step), point, Moment::BreakJournal(Arc::clone(&sickly)));
        let how = How { hooks: Some(Arc::clone(&at)), sickly: Some(sickly), ..How::default() };
        let ended = self.rig.drive(how).await?;
        let is_undone = self.way.is_undone_unrecorded(step, point);
        match ended {
            Err(DriverError::JournalLost { left, .. }) if left.is_empty() && is_undone => {}
            Err(DriverError::Journal(JournalError::Full { .. })) if !is_undone => {
                self.must_be_done(How::default()).await?;
                return Ok(at.hit.load(Ordering::SeqCst));
            }
            other => return Err(format!("with a failing journal it ended as {other:?}")),
        }
        match self.rig.drive(How::default()).await? {
            Ok(Outcome::Done) => self.must_look_like(&self.reference.after).await?,
            other => self.must_have_unwound(&other).await?,
        }
        Ok(at.hit.load(Ordering::SeqCst))
    }

    async fn stale_start(&self) -> Result<(), String> {
        let (old, _new) = (self.rig.lease(), self.rig.lease());
        let setup = self.rig.setup(&How::default())?;
        let made = Driver::create(setup, self.rig.run.clone(), self.rig.plan.clone(), &old).await;
        if !matches!(made, Err(DriverError::Journal(JournalError::StaleEpoch { .. }))) {
            return Err(format!("a driver with an old epoch was let in: {made:?}"));
        }
        self.must_look_like(&self.reference.before).await?;
        let Err(JournalError::UnknownRun { .. }) = self.rig.journal.load(&self.rig.run).await else {
            return Err("a driver with an old epoch left a run behind".into());
        };
        Ok(())
    }

    fn switch(&mut self, what: Misbehaviour, step: Option<usize>) -> Arc<Switch> {
        let switch = Switch::new(what, step.map(|index| self.id(index)));
        self.rig.switches.push(Arc::clone(&switch));
        switch
    }

    /// Lets the run unwind from as far as it can come: from the guard of the point of no return or, without one, from
    /// its end.
    async fn turn_around(&mut self, how: How) -> Result<Result<Outcome, DriverError>, String> {
        let Some(point) = self.way.point else {
            let ended = self.rig.drive(How::default()).await?;
            self.expect(&ended, &Ok(Outcome::Done))?;
            return self.rig.drive(How { undo: true, ..how }).await;
        };
        self.switch(Misbehaviour::RefuseGuard, Some(point));
        self.rig.drive(how).await
    }

    fn id(&self, step: usize) -> String {
        self.rig.plan.steps()[step].id.clone()
    }

    fn expect(
        &self,
        found: &Result<Outcome, DriverError>,
        wanted: &Result<Outcome, DriverError>,
    ) -> Result<(), String> {
        if found == wanted { Ok(()) } else { Err(format!("it ended as {found:?} instead of {wanted:?}")) }
    }

    fn must_be_stuck_at(&self, ended: &Result<Outcome, DriverError>, step: usize) -> Result<(), String> {
        match ended {
            Ok(Outcome::Stuck { step: at, .. }) if *at == self.id(step) => Ok(()),
            other => Err(format!("it ended as {other:?} instead of stuck at {}", self.id(step))),
        }
    }

    async fn must_be_done(&self, how: How) -> Result<(), String> {
        let ended = self.rig.drive(how).await?;
        self.expect(&ended, &Ok(Outcome::Done))?;
        self.must_look_like(&self.reference.after).await
    }

    async fn must_be_unwound(&self, how: How) -> Result<(), String> {
        let ended = self.rig.drive(how).await?;
        self.must_have_unwound(&ended).await
    }

    async fn must_have_unwound(&self, ended: &Result<Outcome, DriverError>) -> Result<(), String> {
        if !matches!(ended, Ok(Outcome::Unwound { .. })) {
            return Err(format!("it ended as {ended:?} instead of unwound"));
        }
        self.must_look_like(&self.reference.before).await
    }

    async fn must_have_written_last(&self, wanted: &str) -> Result<(), String> {
        let last = self.rig.events().await?.last().map(|event| event.body.name());
        if last == Some(wanted) { Ok(()) } else { Err(format!("the last record is {last:?}, not {wanted}")) }
    }

    async fn must_look_like(&self, wanted: &Value) -> Result<(), String> {
        let found = self.rig.picture().await?;
        if found == *wanted {
            return Ok(());
        }
        Err(format!("the world looks wrong\n  found  {found}\n  wanted {wanted}"))
    }
}
