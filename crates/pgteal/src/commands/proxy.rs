//! `pgteal proxy`: writes the proxy's own configuration into the state directory, has the proxy say whether it can start
//! with it, and becomes the proxy. `pgteal proxy import`: prints what a configuration of PgBouncer's is in the proxy's words.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::pgbouncer::{self, ImportError};
use crate::proxy_file;

/// Options of `proxy`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Example:\n  pgteal proxy\n\n\
    The process becomes pgteal-proxy and runs until it is stopped (SIGTERM). It may run before, during and after\n\
    a switchover; when it starts again it takes the route it had. Why it cannot start is an error like any other;\n\
    the log of the running proxy is lines of text on standard error, with --json as well.")]
pub struct Args {
    /// Print the proxy's configuration instead of starting it.
    #[arg(long)]
    print: bool,
    /// Take the sockets from the proxy that runs, if one does: no connection is refused, and it keeps the sessions it has
    /// until their clients leave, for five minutes at most.
    #[arg(long, conflicts_with = "print")]
    takeover: bool,
    /// What else to do with the proxy's configuration.
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What `proxy` can do besides being the proxy.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Print PgBouncer's configuration as a file for pgteal-proxy, and say what is not carried and why.
    #[command(
        after_help = "Example:\n  pgteal proxy import /etc/pgbouncer/pgbouncer.ini > pgteal-proxy.toml\n\n\
        The file is for a proxy that you start yourself: pgteal-proxy --config pgteal-proxy.toml. Passwords are not printed."
    )]
    Import {
        /// pgbouncer.ini; what it includes is read as well.
        file: PathBuf,
    },
}

fn import(file: &Path, context: &Context) -> Result<Exit, Failure> {
    let failed = |ImportError { path, reason }| Failure::File { verb: "import", path, reason };
    let imported = pgbouncer::import(file).map_err(failed)?;
    if context.ui.json() {
        let answer = serde_json::json!({ "proxy_config": imported.text, "not_carried": imported.left });
        context.ui.object(&answer);
    } else {
        context.ui.raw(&imported.text);
    }
    Ok(Exit::Done)
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    if let Some(Verb::Import { file }) = &args.verb {
        return import(file, context);
    }
    let loaded = context.config()?;
    if args.print {
        let text = proxy_file::text(&loaded, &context.env)?;
        if context.ui.json() {
            context.ui.object(&serde_json::json!({ "proxy_config": text }));
        } else {
            context.ui.raw(&text);
        }
        return Ok(Exit::Done);
    }
    let program = proxy_file::program(&context.env)?;
    let file = proxy_file::write(&loaded, &context.env)?;
    let passwords = proxy_file::service_passwords(&loaded, &context.env)?;
    let command = || {
        let mut command = Command::new(&program);
        command.arg("--config").arg(&file).args(args.takeover.then_some("--takeover"));
        // The superusers' are not for a process that may look up verifiers and nothing else.
        for variable in pgteal_core::postgres::password_variables() {
            command.env_remove(variable);
        }
        command.envs(passwords.iter().map(|(variable, password)| (variable, password)));
        command
    };
    // Once this process is the proxy, it has nothing but its log to say why it does not start.
    let reason = match command().arg("--check").output() {
        Ok(output) if output.status.success() => command().exec().to_string(),
        Ok(output) => return Err(Failure::ProxyStart { reason: said(&output) }),
        Err(error) => error.to_string(),
    };
    Err(Failure::File { verb: "run", path: program, reason })
}

/// What the check found, or how it ended when it could not even say that.
fn said(output: &Output) -> String {
    match String::from_utf8_lossy(&output.stdout).trim() {
        "" => format!("it ended with {}", output.status),
        reason => reason.to_owned(),
    }
}
