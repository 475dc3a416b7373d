//! Owns the translation of what servers and routers say into what the engine understands: refused
//! (certainly no net change) or unknown (may have happened). Refuses to give advice.

use pgteal_postgres::{Certainty, Error, state};
use pgteal_saga::StepError;

use crate::carry::CarryError;
use crate::providers::ProviderError;
use crate::router::RouterError;

/// Stable words for failures, by which the command line finds its advice.
pub mod code {
    /// A newer controller drives a router or a server.
    pub use pgteal_saga::fault::STALE_EPOCH;
    /// A check found a blocker.
    pub const BLOCKED: &str = "blocked";
    /// An object with our prefix belongs to another deployment.
    pub const FOREIGN: &str = "foreign-object";
    /// A guardrail before the hold said no.
    pub const GUARDRAIL: &str = "guardrail";
    /// Something was changed after `up` that nothing carries to the other side.
    pub const SCHEMA_DRIFT: &str = "schema-drift";
    /// A client transaction stayed open past the drain budget.
    pub const DRAIN: &str = "drain";
    /// A server was not reached.
    pub const UNREACHABLE: &str = "unreachable";
    /// A router was not reached.
    pub const ROUTER_UNREACHABLE: &str = "router-unreachable";
    /// A router does not let us in.
    pub const ROUTER_LOGIN: &str = "router-login";
    /// The WAL fuse: our slots retain more than the bound.
    pub const WAL_FUSE: &str = "wal-fuse";
    /// The hold or the fence of this cutover is gone.
    pub const LOST_HOLD: &str = "lost-hold";
    /// The controller that began the hold is gone, and with it what kept the schemas as they were seen.
    pub const CONTROLLER_GONE: &str = "controller-gone";
    /// Something that should come further has not for a long time.
    pub const STALLED: &str = "stalled";
    /// Tables differ.
    pub const MISMATCH: &str = "mismatch";
}

/// A server's error as the failure of a step.
pub(crate) fn server(error: &Error) -> StepError {
    let object = match error {
        Error::Connect { server, database, .. } => format!("server {server}, database {database}"),
        Error::Foreign { object, .. } => object.clone(),
        Error::Statement(e) => format!("server {}, database {}", e.place.server, e.place.database),
        Error::TimedOut { place, .. }
        | Error::Lost { place, .. }
        | Error::NotReached { place, .. }
        | Error::Unexpected { place, .. } => format!("server {}, database {}", place.server, place.database),
        Error::ConnInfo(_) => "connection settings".to_owned(),
    };
    // What was last seen is the status, and is not said twice.
    let what = match error {
        Error::NotReached { place, condition, bound, .. } => {
            format!("while {}: waited {} ms for {condition}", place.doing, bound.as_millis())
        }
        error => error.to_string(),
    };
    let failed = match (error, error.certainty()) {
        // Whether it may succeed a moment later decides: a server that starts is no reason to unwind.
        (error, _) if error.is_transient() => StepError::unknown(object, what),
        (_, Certainty::Refused) => StepError::refused(object, what),
        (_, Certainty::Unknown) => StepError::unknown(object, what),
    };
    match error {
        Error::Connect { .. } => failed.with_code(code::UNREACHABLE),
        Error::Foreign { .. } => failed.with_code(code::FOREIGN),
        Error::NotReached { last, .. } => failed.with_status(last),
        error if state::is_stale(error) => failed.with_code(code::STALE_EPOCH),
        _ => failed,
    }
}

/// A provider's error as the failure of a step.
pub(crate) fn provider(error: &ProviderError) -> StepError {
    match error {
        ProviderError::Postgres(error) => server(error),
        ProviderError::Foreign { object, .. } => {
            StepError::refused(object, error.to_string()).with_code(code::FOREIGN)
        }
        other if other.is_unknown() => StepError::unknown("green", other.to_string()),
        other => StepError::refused("green", other.to_string()),
    }
}

/// An error of carrying as the failure of a step.
pub(crate) fn carry(error: &CarryError) -> StepError {
    match error.server_error() {
        Some(cause) if cause.is_transient() => StepError::unknown("green", error.to_string()),
        _ if error.is_unknown() => StepError::unknown("green", error.to_string()),
        Some(cause) if state::is_stale(cause) => {
            StepError::refused("green", error.to_string()).with_code(code::STALE_EPOCH)
        }
        _ => StepError::refused("green", error.to_string()),
    }
}

/// A router's error as the failure of a step.
pub(crate) fn router(error: &RouterError) -> StepError {
    match error {
        RouterError::Unknown { router, .. } => {
            StepError::unknown(format!("router {router}"), error.to_string())
                .with_code(code::ROUTER_UNREACHABLE)
        }
        // A login may be refused because the router cannot ask a server just now: no reason to unwind by itself.
        RouterError::NotAdmitted { router, .. } => {
            StepError::unknown(format!("router {router}"), error.to_string()).with_code(code::ROUTER_LOGIN)
        }
        RouterError::Refused { router, .. } | RouterError::NotUnderstood { router, .. } => {
            StepError::refused(format!("router {router}"), error.to_string())
        }
        RouterError::StaleEpoch { router, .. } => {
            StepError::refused(format!("router {router}"), error.to_string()).with_code(code::STALE_EPOCH)
        }
    }
}

/// The same failure, but never a reason to unwind by itself: for what is tried again until a deadline or an operator says
/// otherwise.
pub(crate) fn as_unknown(error: StepError) -> StepError {
    match error {
        StepError::Refused(failure) => StepError::Unknown(failure),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use pgteal_postgres::Place;

    use super::*;

    #[test]
    fn what_was_last_seen_is_said_once() {
        let place = Place { server: "green".into(), database: "app".into(), doing: "waiting".into() };
        let waited = Error::NotReached {
            place: Box::new(place),
            condition: "marker 19".into(),
            bound: Duration::from_secs(3),
            last: "marker 18".into(),
        };
        let said = server(&waited).to_string();
        assert!(said.ends_with("waited 3000 ms for marker 19 (last seen: marker 18)"), "{said}");
        assert_eq!(said.matches("marker 18").count(), 1, "{said}");
    }
}
