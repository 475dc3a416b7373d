//! The option by which the operator gives a side up that will not come back.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use pgteal_core::deployment::Side;

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
