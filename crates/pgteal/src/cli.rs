//! The command line as clap sees it: global options and the list of commands. Each command's own options stand in its
//! own file.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    back, completions, config, demo, finish, init, plan, proxy, resume, runs, status, switch, undo, up,
    verify,
};
use crate::config::Env;
use crate::errors::Failure;
use crate::exit::{self, Exit};
use crate::ui::Ui;

/// Upgrade a production PostgreSQL cluster by blue-green deployment.
#[derive(Debug, Parser)]
#[command(name = "pgteal", version, propagate_version = true, max_term_width = 100, after_help = exit::help())]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads this process's command line.
    ///
    /// # Errors
    /// It asked for help, or is wrong: that has been answered, as JSON if it asked for that, and this is the exit code.
    pub fn of_process(env: &Env) -> Result<Self, Exit> {
        Self::try_parse().map_err(|error| {
            let as_json = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
            if !error.use_stderr() || !as_json {
                // A reader that went away (a closed pipe) is no failure of ours.
                let _ = error.print();
                return if error.use_stderr() { Exit::Usage } else { Exit::Done };
            }
            let config = crate::config::DEFAULT_FILE.into();
            let global = Global { config, json: true, color: Color::Never, verbose: 0 };
            Failure::CommandLine { what: reason(&error) }.report(&Ui::of_process(&global, env))
        })
    }
}

/// What clap says is wrong, without the usage that it prints below.
fn reason(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command is given".into();
    }
    let said = error.render().to_string();
    let first: Vec<&str> = said.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let first = first.join(" ");
    first.strip_prefix("error: ").unwrap_or(&first).to_owned()
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "PGTEAL_CONFIG", default_value = crate::config::DEFAULT_FILE)]
    pub config: PathBuf,
    /// Print JSON: one object, or one object a line for a stream of events.
    #[arg(long, global = true)]
    pub json: bool,
    /// Colours; `NO_COLOR` turns them off as well.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Log to standard error; twice for every detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented pgteal.toml.
    Init(init::Args),
    /// Classify the upgrade, run every check and print the runbook; changes nothing.
    Plan(plan::Args),
    /// Build green and replicate until it is in step.
    Up(up::Args),
    /// Show where the deployment stands and what may be done next.
    Status(status::Args),
    /// Compare every table of blue and green by row digests, under load.
    Verify(verify::Args),
    /// Move every client from blue to green.
    Switch(switch::Args),
    /// Move every client back to blue, without losing what was written on green.
    Back(back::Args),
    /// Remove every object of pgteal and hand the retired side back.
    Finish(finish::Args),
    /// Take back the last run: leave both clusters as they were found.
    Undo(undo::Args),
    /// Go on with a run that was stopped, killed or is stuck.
    Resume(resume::Args),
    /// List the runs, or show one with its timeline.
    Runs(runs::Args),
    /// Start the proxy of this deployment.
    Proxy(proxy::Args),
    /// Show the whole story on this machine, each claim checked before it is printed.
    Demo(demo::Args),
    /// Print the configuration's schema.
    Config(config::Args),
    /// Print completions for a shell.
    Completions(completions::Args),
}
