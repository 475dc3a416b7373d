//! What happens when the journal fails while clients are held: the section is undone without a record.
//! Refuses to touch the world when somebody else may be driving, or when the point of no return may be recorded.
//!
//! The journal then says that steps succeeded or started which were undone. That is safe: on the resume the section's
//! steps are looked at again, and the run unwinds or does them anew, if its deadline has not unwound it already.

use std::time::Duration;

use crate::driver::{Driver, DriverError};
use crate::journal::JournalError;

/// The most tries for one step.
const TRIES: u32 = 20;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest one try may take.
const ONE_TRY: Duration = Duration::from_secs(10);

impl<W: Send + Sync + 'static> Driver<W> {
    pub(super) async fn without_journal(&mut self, source: JournalError) -> DriverError {
        if source.is_turned_away() || !self.may_undo_unrecorded() {
            return DriverError::Journal(source);
        }
        let (mut undone, mut left) = (Vec::new(), Vec::new());
        let Some((first, last)) = self.state.plan().section_span() else {
            return DriverError::Journal(source);
        };
        for index in (first..=last).rev() {
            if !self.state.is_to_undo(index) && !self.is_next(index) {
                continue;
            }
            match self.undo_patiently(index).await {
                Ok(()) => undone.push(self.id(index)),
                Err(why) => left.push((self.id(index), why)),
            }
        }
        DriverError::JournalLost { source, undone, left }
    }

    /// Whether clients may be held by steps that can still be undone. Where the record that failed is the start of the
    /// point of no return, nobody can say whether it is on the disk: then only forward is safe, and that needs a journal.
    fn may_undo_unrecorded(&self) -> bool {
        self.state.is_section_open() && !self.state.is_passed() && !self.point_in_doubt
    }

    /// The record that failed may be the start of this step, whose effect is then not there; undoing nothing is harmless.
    fn is_next(&self, index: usize) -> bool {
        self.state.cursor() == Some(index) && !self.state.plan().steps()[index].kind.is_forward()
    }

    async fn undo_patiently(&self, index: usize) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..TRIES {
            match tokio::time::timeout(ONE_TRY, self.undo_unrecorded(index)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => last = why,
                Err(_) => last = format!("no answer within {} s", ONE_TRY.as_secs()),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(last)
    }
}
