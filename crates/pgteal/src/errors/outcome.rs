//! Advice about how a run ended or why it rests.

use pgteal_core::failure::code;
use pgteal_saga::StepError;
use pgteal_saga::decide::BY_STOP;
use pgteal_saga::driver::Outcome;
use pgteal_saga::event::Doing;
use pgteal_saga::fault::Failure as Fault;
use pgteal_saga::state::Cause;

use super::server::{ENTER_PROXY, OTHER_JOURNAL, START_PROXY};
use super::{Advice, UNTOUCHED, at_rest};
use crate::exit::Exit;
use crate::run::Clients;

const PUT_BACK: &str =
    "everything the run did was put back; clients are where they were; every acknowledged commit is kept";

const OTHER_CONTROLLER: &str = "another controller drives this deployment: pgteal status --watch";

/// What there is to do where `object` has seen a higher epoch: a side is fenced by a controller of this deployment, a proxy
/// outlives deployments.
fn overtaken(object: &str) -> &'static str {
    if object.starts_with("router ") { OTHER_JOURNAL } else { OTHER_CONTROLLER }
}

/// The advice for an outcome that is not what was asked for; `None` when it is. `kind` is the run's, and `clients` says where
/// it has left them; `alone` says that nobody drove it until the time of its hold was over.
#[must_use]
pub(super) fn advise(kind: &str, outcome: &Outcome, clients: Clients, alone: bool) -> Option<Advice> {
    let data = at_rest(clients);
    let make = |code, exit, what: String, object: String, data: &str, next: String| {
        Some(Advice { code, what, object: Some(object), data: data.into(), next, exit })
    };
    match outcome {
        // Taken back at the word of an operator, who asked for just that; unless the word was Ctrl-C.
        Outcome::Unwound { cause: Cause::Operator { by } } if by != BY_STOP => None,
        Outcome::Done => None,
        Outcome::Unwound { cause } if alone || is_of_the_dead(cause) => Some(left_alone(kind)),
        Outcome::Unwound { cause } => unwound(kind, cause),
        Outcome::Stuck { step, doing, failure } => {
            let way = if *doing == Doing::Undo { "could not be undone" } else { "did not come to an end" };
            let next = match failure.code.as_deref() {
                Some("stale-epoch") => overtaken(&failure.object),
                Some("router-unreachable") => {
                    "start the proxy with: pgteal proxy; then go on with: pgteal resume"
                }
                Some("router-login") => {
                    "have the proxy let us in (role, password and TLS of proxy.console_conninfo), then go on with: pgteal \
                     resume"
                }
                Some("unreachable") => match may_be_lost(kind, *doing, failure, clients) {
                    None if failure.object.starts_with("server router") => LOOKED_UP,
                    None => "see that it runs and lets us in, then go on with: pgteal resume",
                    Some(command) => command,
                },
                _ => "settle what is named, then go on with: pgteal resume",
            };
            let exit =
                if failure.code.as_deref() == Some("stale-epoch") { Exit::Superseded } else { Exit::Stuck };
            make(
                "stuck",
                exit,
                format!("step {step} {way}: {failure}"),
                failure.object.clone(),
                data,
                next.into(),
            )
        }
        Outcome::Waiting { step, what } => make(
            "waiting",
            Exit::Resting,
            format!("the run waits at {step}: {what}"),
            step.clone(),
            data,
            "when that is so: pgteal resume".into(),
        ),
        Outcome::Stopped => make(
            "stopped",
            Exit::Resting,
            "the run was stopped and rests at a safe point".into(),
            format!("run of {kind}"),
            data,
            match clients {
                Clients::Moved | Clients::Crossing => "go on with: pgteal resume".into(),
                _ => "go on with: pgteal resume; or take it back with: pgteal undo".into(),
            },
        ),
    }
}

/// What there is to do when the proxy does not let in whom it let in before the switchover.
const LOOKED_UP: &str = "see that the proxy runs and its service role may log in on the side that serves now (its log names role, \
    server and reason); with a wrong password there: start pgteal proxy again with PGTEAL_GREEN_PASSWORD or \
    PGTEAL_BLUE_PASSWORD, or PGTEAL_AUTH_PASSWORD for auth_user; then go on with: pgteal resume";

/// What there is to do about a side that does not answer, where the run can do without it.
fn may_be_lost(kind: &str, doing: Doing, failure: &Fault, clients: Clients) -> Option<&'static str> {
    let (is_green, is_blue) =
        (failure.object.starts_with("server green"), failure.object.starts_with("server blue"));
    let goes_on = doing == Doing::Undo || kind == "finish" || clients == Clients::Moved;
    match (kind, goes_on) {
        ("up", false) if is_green => Some(
            "see that it runs and lets us in, then go on with: pgteal resume; if it will never come back: \
             pgteal undo --lost green",
        ),
        (_, true) if is_green => Some(
            "see that it runs and lets us in, then go on with: pgteal resume; if it will never come back: \
             pgteal resume --lost green",
        ),
        ("finish" | "switch" | "back", true) if is_blue => Some(
            "see that it runs and lets us in, then go on with: pgteal resume; if it will never come back: \
             pgteal resume --lost blue",
        ),
        _ => None,
    }
}

/// A server or a router did not answer, or did not let us in.
fn is_silent(code: Option<&str>) -> bool {
    matches!(code, Some("unreachable" | "router-unreachable" | "router-login"))
}

/// Whether a hold was found that another process had begun.
fn is_of_the_dead(cause: &Cause) -> bool {
    match cause {
        Cause::Refused { failure, .. } => failure.code.as_deref() == Some(code::CONTROLLER_GONE),
        Cause::Lost { step, failure } => step == "hold-clients" && failure.code.is_none(),
        Cause::Deadline { .. } | Cause::Operator { .. } => false,
    }
}

/// A hold whose controller is gone ends in any case: by its limit at the proxy, or by whoever takes the run up.
fn left_alone(kind: &str) -> Advice {
    Advice {
        code: code::CONTROLLER_GONE,
        what: format!(
            "the pgteal that held clients was gone before they were moved, so the run of {kind} was taken back; the hold is over"
        ),
        object: Some(format!("run of {kind}")),
        data: PUT_BACK.into(),
        next: format!("begin again with: pgteal {kind}"),
        exit: Exit::Unwound,
    }
}

fn unwound(kind: &str, cause: &Cause) -> Option<Advice> {
    let (object, failure): (String, Option<&Fault>) = match cause {
        Cause::Refused { step, failure } | Cause::Lost { step, failure } => {
            (format!("step {step}: {}", failure.object), Some(failure))
        }
        Cause::Deadline { step, last, .. } => (format!("step {step}"), last.as_ref()),
        Cause::Operator { .. } => (format!("run of {kind}"), None),
    };
    let code = failure.and_then(|failure| failure.code.as_deref());
    let (code, exit, next) = match (cause, code) {
        // A server that was gone is the cause then, and not the time that passed.
        (Cause::Deadline { .. }, code) if !is_silent(code) => (
            "deadline",
            Exit::Unwound,
            format!("try again at a calmer moment: pgteal {kind}; or with more time: --deadline 10s"),
        ),
        (Cause::Operator { .. }, _) => ("stopped", Exit::Unwound, format!("begin again with: pgteal {kind}")),
        (_, Some("blocked")) => ("blocked", Exit::Blocked, "settle the findings: pgteal plan".to_owned()),
        (_, Some("stale-epoch")) => (
            "stale-epoch",
            Exit::Superseded,
            failure.map_or(OTHER_CONTROLLER, |failure| overtaken(&failure.object)).to_owned(),
        ),
        (_, Some("foreign-object")) => (
            "foreign-object",
            Exit::Blocked,
            format!(
                "find out whose it is; pgteal never touches what is not its own; when it is gone: pgteal {kind}"
            ),
        ),
        (_, Some("guardrail")) => {
            ("guardrail", Exit::Blocked, format!("settle what is named, then: pgteal {kind}"))
        }
        (_, Some("schema-drift")) => (
            "schema-drift",
            Exit::Blocked,
            if kind == "back" {
                "take back what is named where it was changed, then: pgteal back; or stay: pgteal finish"
                    .to_owned()
            } else {
                format!(
                    "take back what is named where it was changed, then: pgteal {kind}; or let it be copied anew: pgteal \
                     undo, then: pgteal up"
                )
            },
        ),
        (_, Some("drain")) => (
            "drain",
            Exit::Unwound,
            format!(
                "find the long transaction with: pgteal status; wait longer for it: pgteal {kind} --wait 10m; or end \
                 it: pgteal {kind} --on-drain terminate"
            ),
        ),
        (_, code) if is_silent(code) => (
            "unreachable",
            Exit::Unreachable,
            format!("see that it runs and lets us in, then: pgteal {kind}"),
        ),
        (_, Some("stalled")) => (
            "stalled",
            Exit::Unwound,
            format!(
                "look into the logs of both servers for what kept one from following (the apply worker says it in its \
                 own server's), then: pgteal {kind}"
            ),
        ),
        (_, Some("wal-fuse")) => (
            "wal-fuse",
            Exit::Unwound,
            format!(
                "give the disk more room and raise replication.wal_fuse_bytes, or look into the servers' logs for what \
                 kept one from following; then: pgteal {kind}"
            ),
        ),
        (_, Some("lost-hold")) => {
            ("lost-hold", Exit::Unwound, format!("see who else steers the proxy, then: pgteal {kind}"))
        }
        (_, Some("mismatch")) => (
            "mismatch",
            Exit::Blocked,
            format!(
                "look at the tables that are named: nothing but replication may write them on green; then: pgteal {kind}"
            ),
        ),
        _ => ("unwound", Exit::Unwound, format!("settle what is named, then: pgteal {kind}")),
    };
    let what = match cause {
        Cause::Operator { .. } => {
            "the run was stopped while clients were held, so it was taken back".to_owned()
        }
        other => other.to_string(),
    };
    Some(Advice { code, what, object: Some(object), data: PUT_BACK.into(), next, exit })
}

/// The advice for a look outside any run.
pub(super) fn step(error: &StepError, what: String) -> Advice {
    let (StepError::Refused(fault) | StepError::Unknown(fault)) = error else {
        let next = "run the command again".to_owned();
        return Advice {
            code: "stopped",
            what,
            object: None,
            data: UNTOUCHED.into(),
            next,
            exit: Exit::Resting,
        };
    };
    let (code, exit, next) = match fault.code.as_deref() {
        Some("unreachable") => {
            ("unreachable", Exit::Unreachable, "see that it runs and lets us in, then run the command again")
        }
        Some("router-unreachable") => ("proxy-unreachable", Exit::Unreachable, START_PROXY),
        Some("router-login") => ("proxy-login", Exit::Unreachable, ENTER_PROXY),
        Some("stale-epoch") => ("stale-epoch", Exit::Superseded, overtaken(&fault.object)),
        _ => ("refused", Exit::Blocked, "settle what is named, then run the command again"),
    };
    let object = Some(fault.object.clone());
    Advice { code, what, object, data: UNTOUCHED.into(), next: next.into(), exit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_side_that_the_run_can_do_without_is_given_up() {
        let (up, switch, finish) = ("up", "switch", "finish");
        for (kind, doing, silent, clients, expected) in [
            (up, Doing::Apply, "green", Clients::Untouched, Some("pgteal undo --lost green")),
            (up, Doing::Undo, "green", Clients::Untouched, Some("pgteal resume --lost green")),
            (up, Doing::Undo, "blue", Clients::Untouched, None),
            (switch, Doing::Apply, "green", Clients::Untouched, None),
            (switch, Doing::Apply, "blue", Clients::Moved, Some("pgteal resume --lost blue")),
            (finish, Doing::Apply, "blue", Clients::Untouched, Some("pgteal resume --lost blue")),
        ] {
            let failure = Fault::new(format!("server {silent}, database app"), "no answer");
            let found = may_be_lost(kind, doing, &failure, clients);
            assert_eq!(found.is_some(), expected.is_some(), "{kind} {doing:?} {silent}");
            assert!(expected.is_none_or(|command| found.is_some_and(|found| found.ends_with(command))));
        }
    }
}
