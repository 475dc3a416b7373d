//! The `pgteal` command: reads the process's world and hands it on.

use std::process::ExitCode;

use pgteal::cli::Cli;
use pgteal::commands;
use pgteal::config::Env;
use pgteal::exit::Exit;
use pgteal::ui::Ui;

fn main() -> ExitCode {
    let env = Env::of_process();
    let cli = match Cli::of_process(&env) {
        Ok(cli) => cli,
        Err(answered) => return answered.into(),
    };
    let ui = Ui::of_process(&cli.global, &env);
    pgteal::logging::start(cli.global.verbose);
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(commands::run(cli, env, ui)).into(),
        Err(error) => {
            ui.note(format!("error: cannot start: {error}"));
            Exit::Internal.into()
        }
    }
}
