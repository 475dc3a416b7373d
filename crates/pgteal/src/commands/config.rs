//! `pgteal config`: what a configuration may say, and whether one is right.

use super::Context;
use crate::config::schema_text;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal config schema > pgteal.schema.json\n  pgteal config check")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

/// What `config` can do.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Print the JSON schema of pgteal.toml.
    Schema,
    /// Read pgteal.toml and the environment and say whether they are right.
    Check,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Schema => context.ui.raw(&schema_text()),
        Verb::Check => {
            let loaded = context.config()?;
            context.ui.line(format!("{} is right", loaded.path.display()));
            context.ui.object(&serde_json::json!({ "config": loaded.config }));
        }
    }
    Ok(Exit::Done)
}
