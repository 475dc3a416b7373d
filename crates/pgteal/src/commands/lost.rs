//! The option by which the operator gives a side up that will not come back.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use pgteal_core::deployment::Side;
use pgteal_core::postgres::{ConnectFailure, Error, Purpose, slot};

use super::Context;
use crate::errors::Failure;
use crate::run::{Desk, place};

/// A server that does not answer within this is believed to be lost.
const ANSWER_BOUND: Duration = Duration::from_secs(5);

/// What there is of ours on each side of a deployment.
const MADE: &str =
    "what pgteal made there: schemas, triggers, publications, subscriptions, slots, and its fence";

fn left_behind(slots: usize) -> String {
    match slots {
        0 => MADE.to_owned(),
        1 => format!("{MADE}; 1 of those slots keeps WAL until the disk is full"),
        slots => format!("{MADE}; {slots} of those slots keep WAL until the disk is full"),
    }
}

/// Which side is lost, if one is.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Lost {
    /// Give this side up because it will never answer again: all of pgteal is removed from the other one, and this one
    /// stays as it is
    #[arg(long = "lost", value_name = "SIDE",
        value_parser = PossibleValuesParser::new(["blue", "green"]).try_map(|side| side.parse::<Side>()))]
    pub(super) side: Option<Side>,
}

impl Lost {
    /// Refuses to give a side up that is there: what pgteal made on it would stay, and nobody would know of it any more.
    ///
    /// # Errors
    /// The side answers, or cannot be asked because the settings are wrong.
    pub(super) async fn must_be_silent(
        self,
        context: &Context,
        desk: &Desk,
        command: &'static str,
    ) -> Result<(), Failure> {
        let (Some(side), Some(id)) = (self.side, &desk.standing.deployment) else { return Ok(()) };
        let server = place::server(&desk.loaded, &context.env, id, side).await?;
        let purpose = Purpose::probe("lost").within(ANSWER_BOUND);
        let keeps = match server.connect(server.conninfo().database(), purpose).await {
            Ok(session) => match slot::of_deployment(&session, id.as_str()).await {
                Ok(slots) => left_behind(slots.len()),
                Err(error) => format!("{MADE}; how many slots there are it does not say: {error}"),
            },
            Err(
                Error::Connect { failure: ConnectFailure::Unreachable, .. }
                | Error::TimedOut { .. }
                | Error::Lost { .. },
            ) => return Ok(()),
            // Whoever refuses us is there.
            Err(error) => format!("{MADE}; it does not let us look: {error}"),
        };
        Err(Failure::Answers { command, side, address: server.conninfo().address(), keeps })
    }

    /// The command with this option, as it was given.
    pub(super) fn given_to(self, command: &str) -> String {
        self.side.map_or_else(|| command.to_owned(), |side| format!("{command} --lost {side}"))
    }

    /// What there is to say of the side that was given up.
    pub(super) fn told(self) -> String {
        self.side.map_or_else(String::new, |side| {
            format!(
                "; {side} was given up and not looked at: what pgteal made there is still there, and its replication \
                 slots keep WAL if it runs again"
            )
        })
    }
}
