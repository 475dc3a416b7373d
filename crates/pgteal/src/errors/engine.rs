//! Advice about the engine itself.

use pgteal_saga::DriverError;

use super::{Advice, RESUMABLE, UNTOUCHED, at_rest, journal};
use crate::exit::Exit;
use crate::run::Clients;

/// The engine ended while clients were held or on their way.
pub(super) fn adrift(error: &DriverError, clients: Clients, what: String) -> Advice {
    let advice = advise(error, what);
    match advice.exit {
        // Whoever took over looks after the clients.
        Exit::Superseded => advice,
        _ => Advice { data: at_rest(clients).into(), exit: Exit::Stuck, ..advice },
    }
}

pub(super) fn advise(error: &DriverError, what: String) -> Advice {
    use DriverError as E;
    let (code, exit, object, data, next) = match error {
        E::Journal(error) => return journal::advise(error, what),
        E::JournalLost { left, .. } => (
            "journal-lost",
            if left.is_empty() { Exit::Unwound } else { Exit::Stuck },
            "journal".to_owned(),
            match left.is_empty() {
                true => "clients were released to the side they were on; no commit was lost",
                false => at_rest(Clients::Held),
            },
            "look at the journal's disk, then: pgteal resume",
        ),
        E::Plan { run, .. } => (
            "plan-unknown",
            Exit::Usage,
            format!("run {run}"),
            "nothing was changed now; the run stands where the journal says",
            "drive it with the version of pgteal that planned it",
        ),
        E::Illegal { run, .. } => (
            "journal-illegal",
            Exit::Internal,
            format!("run {run}"),
            "nothing was changed now; the run stands where its last good event says",
            "restore the journal from a copy, and report it with the file, journal.db in the state directory",
        ),
        E::OtherLease { run, .. } => (
            "defect",
            Exit::Internal,
            format!("run {run}"),
            UNTOUCHED,
            "this is a defect of pgteal; report it with the output of: pgteal runs --json",
        ),
        E::NotUndoable { run, .. } => (
            "not-undoable",
            Exit::Usage,
            format!("run {run}"),
            UNTOUCHED,
            "see what may be done with: pgteal status; after a switchover the way back is: pgteal back",
        ),
        E::NotAtGate { run, .. } => (
            "not-at-gate",
            Exit::Usage,
            format!("run {run}"),
            UNTOUCHED,
            "see where it stands with: pgteal status",
        ),
        E::Died { step, .. } => {
            ("died", Exit::Internal, format!("step {step}"), RESUMABLE, "go on with: pgteal resume")
        }
    };
    Advice { code, what, object: Some(object), data: data.into(), next: next.into(), exit }
}
