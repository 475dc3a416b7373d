//! Advice about the journal.

use pgteal_saga::JournalError;

use super::{Advice, RESUMABLE, UNTOUCHED};
use crate::exit::Exit;

pub(super) fn advise(error: &JournalError, what: String) -> Advice {
    use JournalError as E;
    let (code, exit, object, data, next) = match error {
        E::Conflict { run, .. } => (
            "superseded",
            Exit::Superseded,
            format!("run {run}"),
            RESUMABLE,
            "another pgteal drives this run; watch it with: pgteal status --watch",
        ),
        E::StaleEpoch { deployment, .. } => (
            "stale-epoch",
            Exit::Superseded,
            format!("deployment {deployment}"),
            "this controller was turned away and changed nothing more",
            "another pgteal has taken over; watch it with: pgteal status --watch",
        ),
        E::Locked { place, .. } => (
            "journal-locked",
            Exit::Superseded,
            place.clone(),
            UNTOUCHED,
            "another pgteal works with this journal; wait for it or stop it, then run the command again",
        ),
        E::UnknownRun { run, .. } => {
            ("unknown-run", Exit::Usage, format!("run {run}"), UNTOUCHED, "list the runs with: pgteal runs")
        }
        E::Missing { place } => (
            "no-journal",
            Exit::Usage,
            place.clone(),
            UNTOUCHED,
            "there was no run yet; begin with: pgteal plan",
        ),
        E::NotAJournal { place, .. } => (
            "not-a-journal",
            Exit::Usage,
            place.clone(),
            UNTOUCHED,
            "move the file away, or name another deployment.state_dir",
        ),
        E::TooNew { place, .. } => (
            "journal-too-new",
            Exit::Usage,
            place.clone(),
            UNTOUCHED,
            "use the pgteal that wrote it, or a newer one",
        ),
        E::Corrupt { place, .. } => (
            "journal-corrupt",
            Exit::Internal,
            place.clone(),
            "nothing was changed now; what earlier runs changed is still there",
            "restore the file from a copy; without one, look for what is ours by its name, on both sides: pgteal% in \
             pg_replication_slots, pg_subscription, pg_publication and pg_event_trigger, and schema pgteal",
        ),
        E::Full { place } => (
            "journal-full",
            Exit::Internal,
            place.clone(),
            RESUMABLE,
            "make room on that disk, then: pgteal resume",
        ),
        E::ReadOnly { place, .. } => (
            "journal-read-only",
            Exit::Internal,
            place.clone(),
            RESUMABLE,
            "make the directory writable for the user that runs pgteal, then run the command again",
        ),
        E::Unfit { .. } => (
            "sqlite-unfit",
            Exit::Internal,
            "SQLite".into(),
            UNTOUCHED,
            "build pgteal with its committed Cargo.lock",
        ),
        E::Io { place, .. } => {
            ("journal-io", Exit::Internal, place.clone(), RESUMABLE, "look at that disk, then: pgteal resume")
        }
        E::Malformed { run, .. } => (
            "defect",
            Exit::Internal,
            format!("run {run}"),
            RESUMABLE,
            "this is a defect of pgteal; report it with the output of: pgteal runs --json",
        ),
    };
    Advice { code, what, object: Some(object), data: data.into(), next: next.into(), exit }
}
