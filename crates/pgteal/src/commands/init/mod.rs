//! `pgteal init`: writes a commented pgteal.toml and says what to run on the servers. Connects to nothing.

mod template;

use std::io::Write;
use std::path::{Path, PathBuf};

use pgteal_core::providers::OsUser;

use super::Context;
use crate::config::{self, Provider, split_password};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::{run, servers};

/// Options of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pgteal init --blue 'postgresql://pgteal@db1:5432/postgres'
  pgteal init --blue 'postgresql://pgteal@db1/postgres' --green 'postgresql://pgteal@db2/postgres'
  pgteal init --local-trial")]
pub struct Args {
    /// Connection string of blue, the cluster that serves now.
    #[arg(long, value_name = "CONNINFO", required_unless_present = "local_trial")]
    blue: Option<String>,
    /// Connection string of green, an empty server of the new version; without it pgteal makes green on this machine.
    #[arg(long, value_name = "CONNINFO")]
    green: Option<String>,
    /// Try it on this machine: blue is the server behind the local socket, green is made beside this file.
    #[arg(long, conflicts_with = "green")]
    local_trial: bool,
    /// Name of the deployment.
    #[arg(long, default_value = "main")]
    name: String,
    /// `bin` directory of green's version; the newest found on this machine when left out.
    #[arg(long, value_name = "DIR")]
    green_bindir: Option<PathBuf>,
    /// Data directory to make for green; `green` in the state directory when left out.
    #[arg(long, value_name = "DIR", conflicts_with = "green")]
    green_data_dir: Option<PathBuf>,
    /// TCP port of green.
    #[arg(long, value_name = "PORT", default_value_t = 5433, conflicts_with = "green")]
    green_port: u16,
}

/// What the template needs to know.
#[derive(Debug)]
struct Answers {
    name: String,
    /// Where this deployment keeps its state, when the usual directory is another one's.
    state_dir: Option<PathBuf>,
    blue: String,
    green: Green,
}

#[derive(Debug)]
enum Green {
    Existing { conninfo: String },
    Local { bindir: PathBuf, data_dir: PathBuf, port: u16, os_user: Option<String> },
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let path = &context.global.config;
    if path.exists() {
        return Err(Failure::Exists { path: path.clone() });
    }
    let blue = match &args.blue {
        Some(blue) => conninfo("--blue", blue)?,
        None => ("host=/var/run/postgresql user=pgteal dbname=postgres".to_owned(), false),
    };
    let green = args.green.as_ref().map(|green| conninfo("--green", green)).transpose()?;
    let state_dir = own_state_dir(path);
    let usual = PathBuf::from(config::DEFAULT_STATE_DIR);
    let answers = Answers {
        name: args.name.clone(),
        blue: blue.0,
        green: match &green {
            Some((conninfo, _)) => Green::Existing { conninfo: conninfo.clone() },
            None => Green::Local {
                bindir: bindir(args, context)?,
                data_dir: args
                    .green_data_dir
                    .clone()
                    .unwrap_or_else(|| state_dir.as_ref().unwrap_or(&usual).join("green")),
                port: args.green_port,
                os_user: rustix::process::geteuid().is_root().then(server_user),
            },
        },
        state_dir,
    };
    let text = template::config(&answers);
    // What we write must be what we read.
    config::parse(&text, path, &config::Env::default())?;
    write_new(path, &text)?;
    let passwords = [
        ("PGTEAL_BLUE_PASSWORD", blue.1),
        ("PGTEAL_GREEN_PASSWORD", green.as_ref().is_some_and(|green| green.1)),
    ];
    let passwords: Vec<&str> =
        passwords.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
    answer(context, &answers, &passwords);
    Ok(Exit::Done)
}

/// A state directory named after the file, where the usual one beside it has the journal of another deployment: that one's
/// blue may be retired by now, and its green is what the next one begins with.
fn own_state_dir(path: &Path) -> Option<PathBuf> {
    let is_taken = path.with_file_name(config::DEFAULT_STATE_DIR).join(run::JOURNAL).exists();
    let stem = path.file_stem()?.to_string_lossy();
    is_taken.then(|| PathBuf::from(format!("{}-{stem}", config::DEFAULT_STATE_DIR)))
}

/// The connection string without its password, and whether it had one.
fn conninfo(argument: &str, text: &str) -> Result<(String, bool), Failure> {
    let (shown, password) = split_password(text);
    if shown.contains("://") || shown.contains('=') {
        Ok((shown, password.is_some()))
    } else {
        let reason = format!("`{shown}` is neither a URI (postgresql://role@host/db) nor `key=value` pairs");
        Err(Failure::Argument { argument: argument.into(), reason })
    }
}

fn bindir(args: &Args, context: &Context) -> Result<PathBuf, Failure> {
    if let Some(bindir) = &args.green_bindir {
        return Ok(bindir.clone());
    }
    match servers::all(&context.env).into_iter().next() {
        Some(newest) => Ok(newest.bindir),
        None => Err(Failure::NoDistribution { major: 18, looked: servers::roots(&context.env) }),
    }
}

/// The user that a server of ours runs as when we are root: PostgreSQL refuses to run as root.
fn server_user() -> String {
    if OsUser::find("postgres").is_ok() { "postgres".into() } else { "nobody".into() }
}

/// Makes the file only if there is none, in one step.
fn write_new(path: &PathBuf, text: &str) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::Exists { path: path.clone() }
        } else {
            Failure::File { verb: "write", path: path.clone(), reason: error.to_string() }
        }
    })
}

fn answer(context: &Context, answers: &Answers, passwords: &[&str]) {
    let (ui, path) = (&context.ui, context.global.config.display());
    let provider = match answers.green {
        Green::Existing { .. } => Provider::Existing,
        Green::Local { .. } => Provider::Local,
    };
    let sql = template::role_sql(provider);
    ui.line(format!("wrote {path}\n"));
    if let Some(dir) = &answers.state_dir {
        ui.line(format!(
            "{usual} has the journal of another deployment, so this one keeps its own in {dir}. Its proxy is another one, too: where \
             it listens at the same address, end the old one (pgteal proxy of the other configuration) before you start it, at \
             a quiet moment: clients connect anew\n",
            usual = config::DEFAULT_STATE_DIR,
            dir = dir.display(),
        ));
    }
    ui.line(&sql);
    for variable in passwords {
        ui.line(format!(
            "The password was not written to {path}, but it was on the command line: other users of this machine could \
             see it there (ps), and the shell's history keeps it. Before the next command: export {variable}=..., or put \
             it into ~/.pgpass"
        ));
    }
    ui.line(format!("next: {}", ui.spelled("pgteal plan")));
    ui.object(&serde_json::json!({
        "written": context.global.config,
        "role_sql": sql,
        "passwords_by": passwords,
        "next": "pgteal plan",
    }));
}
