//! `pgteal proxy`: writes the proxy's own configuration into the state directory and becomes the proxy.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::proxy_file;

/// Options of `proxy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal proxy\n\n\
    The process becomes pgteal-proxy and runs until it is stopped (SIGTERM). It may run before, during and after\n\
    a switchover; when it starts again it takes the route it had.")]
pub struct Args {
    /// Print the proxy's configuration instead of starting it.
    #[arg(long)]
    print: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let loaded = context.config()?;
    if args.print {
        context.ui.raw(&proxy_file::text(&loaded, &context.env)?);
        return Ok(Exit::Done);
    }
    let program = proxy_file::program(&context.env)?;
    let file = proxy_file::write(&loaded, &context.env)?;
    let mut command = Command::new(&program);
    command.arg("--config").arg(&file);
    if let Some(password) = proxy_file::service_password(&loaded, &context.env)? {
        command.env(proxy_file::PASSWORD_VARIABLE, password);
    }
    let error = command.exec();
    Err(Failure::File { verb: "run", path: program, reason: error.to_string() })
}
