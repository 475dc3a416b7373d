//! One file per command. A command takes its arguments and the context, and answers an exit code.

pub mod back;
pub mod completions;
pub mod config;
mod confirm;
pub mod demo;
mod ended;
mod fenced;
pub mod finish;
pub mod init;
mod long;
mod lost;
pub mod plan;
mod preview;
pub mod proxy;
pub mod resume;
pub mod runs;
pub mod status;
pub mod switch;
pub mod undo;
pub mod up;
pub mod verify;

use pgteal_saga::Stop;

use crate::cli::{Cli, Command, Global};
use crate::config::{Env, Loaded};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::ui::Ui;

/// What every command gets from the outside world.
#[derive(Debug, Clone)]
pub struct Context {
    /// The global options.
    pub global: Global,
    /// The environment.
    pub env: Env,
    /// Where it writes.
    pub ui: Ui,
    /// Who asks runs to rest; the process's signals when `None`.
    pub stop: Option<Stop>,
}

impl Context {
    /// The configuration that `--config` names.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn config(&self) -> Result<Loaded, Failure> {
        Ok(crate::config::load(&self.global.config, &self.env)?)
    }
}

/// Runs the command and reports its failure.
pub async fn run(cli: Cli, env: Env, ui: Ui) -> Exit {
    let context = Context { global: cli.global, env, ui, stop: None };
    match dispatch(cli.command, &context).await {
        Ok(exit) => exit,
        Err(failure) => failure.report(&context.ui),
    }
}

async fn dispatch(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Init(args) => init::run(&args, context),
        Command::Plan(args) => plan::run(args, context).await,
        Command::Up(args) => up::run(args, context).await,
        Command::Status(args) => status::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Switch(args) => switch::run(args, context).await,
        Command::Back(args) => back::run(args, context).await,
        Command::Finish(args) => finish::run(args, context).await,
        Command::Undo(args) => undo::run(args, context).await,
        Command::Resume(args) => resume::run(args, context).await,
        Command::Runs(args) => runs::run(args, context).await,
        Command::Proxy(args) => proxy::run(&args, context),
        Command::Demo(args) => demo::run(args, context).await,
        Command::Config(args) => config::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
    }
}
