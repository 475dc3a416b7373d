//! `pgteal switch`: the switchover from blue to green. `back` is the same in the other direction.

use pgteal_core::deployment::{Direction, Side};
use pgteal_core::postgres::{self, Purpose, Server, wal};
use pgteal_core::router::{ASK_BOUND, Router, RouterError, RouterState};
use pgteal_core::switchover;

use super::{Context, ended, preview};
use crate::config::{Auth, ConfigError, Loaded, OnDrain, OnPinned, Provider};
use crate::errors::{Advice, Failure};
use crate::exit::Exit;
use crate::run::{Desk, Entry, Journey, Stage, place};
use crate::sides;
use crate::units::parse_millis;

/// Options of `switch`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pgteal switch\n  pgteal switch --deadline 2s --drain-budget 300ms --wait 10m\n  \
    pgteal switch --dry-run\n  pgteal switch --preview\n\n\
    When the deadline passes before the point of no return, everything is put back and clients go on where they were.\n\
    Killed or stopped before the hold, it goes on when it is given again; a deadline is frozen when a run begins."
)]
pub struct Args {
    /// How a switchover behaves.
    #[command(flatten)]
    pub(super) limits: Limits,
}

/// Limits of one switchover; each wins over pgteal.toml. Durations as 500ms, 3s, 2m; a bare number is milliseconds.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Limits {
    /// Bound of the cutover, from hold to repoint.
    #[arg(long, value_name = "DURATION", value_parser = parse_millis)]
    pub deadline: Option<u64>,
    /// How long clients are held for transactions that are still open.
    #[arg(long, value_name = "DURATION", value_parser = parse_millis)]
    pub drain_budget: Option<u64>,
    /// How long to wait, with nobody held, for a moment without a transaction older than half the drain budget.
    #[arg(long, value_name = "DURATION", value_parser = parse_millis)]
    pub wait: Option<u64>,
    /// What happens to transactions still open when the drain budget is spent: let everybody go on and change nothing
    /// (abort, the default), end them with SQLSTATE 57P01, or wait for them until the deadline, with everybody held.
    #[arg(long, value_name = "POLICY", value_parser = ["abort", "terminate", "wait"])]
    pub on_drain: Option<String>,
    /// What happens to sessions that hold what cannot be carried: end them with SQLSTATE 57P01 (end, the default), wait with
    /// nobody held until there are none, or change nothing (abort).
    #[arg(long, value_name = "POLICY", value_parser = ["end", "wait", "abort"])]
    pub on_pinned: Option<String>,
    /// Look whether it could be done and show the runbook; move nobody.
    #[arg(long)]
    pub dry_run: bool,
    /// Say what it would mean to every client session now: who goes along, who is waited for, who would be ended and why.
    /// Opens nothing on the other side.
    #[arg(long, conflicts_with = "dry_run")]
    pub preview: bool,
}

impl Limits {
    /// Lays the flags over the configuration.
    ///
    /// # Errors
    /// A value outside its bounds.
    pub fn lay_over(&self, loaded: &mut Loaded) -> Result<(), Failure> {
        if let Some(ms) = self.deadline {
            loaded.override_with("switch.deadline_ms", "--deadline", |config| config.switch.deadline_ms = ms);
        }
        if let Some(ms) = self.drain_budget {
            loaded.override_with("switch.drain_budget_ms", "--drain-budget", |config| {
                config.switch.drain_budget_ms = ms;
            });
        }
        if let Some(ms) = self.wait {
            loaded.override_with("switch.wait_ms", "--wait", |config| config.switch.wait_ms = ms);
        }
        if let Some(policy) = &self.on_drain {
            let policy = match policy.as_str() {
                "terminate" => OnDrain::Terminate,
                "wait" => OnDrain::Wait,
                _ => OnDrain::Abort,
            };
            loaded.override_with("switch.on_drain", "--on-drain", |config| config.switch.on_drain = policy);
        }
        if let Some(policy) = &self.on_pinned {
            let policy = match policy.as_str() {
                "wait" => OnPinned::Wait,
                "abort" => OnPinned::Abort,
                _ => OnPinned::End,
            };
            loaded
                .override_with("switch.on_pinned", "--on-pinned", |config| config.switch.on_pinned = policy);
        }
        Ok(loaded.check()?)
    }
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    command(context, Direction::SWITCH, &args.limits).await
}

/// `switch` or `back`.
pub(super) async fn command(
    context: &Context,
    direction: Direction,
    limits: &Limits,
) -> Result<Exit, Failure> {
    let mut loaded = context.config()?;
    limits.lay_over(&mut loaded)?;
    if limits.preview {
        return preview::preview(context, &loaded).await;
    }
    if limits.dry_run {
        return dry_run(context, loaded, direction).await;
    }
    let mut desk = Desk::to_drive(loaded).await?;
    let journey = match desk.unfinished(switchover::kind(direction), command_of(direction))? {
        Some(entry) => {
            fits(&desk, entry, direction, limits).await?;
            desk.go_on(context, entry).await?
        }
        None => begin(context, &desk, direction).await?,
    };
    let asked = format!("{} serves; {} follows by replication", direction.to, direction.from);
    ended::answer(context, &mut desk, &journey, &asked).await
}

fn command_of(direction: Direction) -> &'static str {
    if direction == Direction::SWITCH { "pgteal switch" } else { "pgteal back" }
}

/// Whether a switchover that was begun earlier is the one that is asked for: its deadline is frozen in its plan.
async fn fits(desk: &Desk, entry: &Entry, direction: Direction, limits: &Limits) -> Result<(), Failure> {
    let Some(asked) = limits.deadline else { return Ok(()) };
    let (state, _) = desk.load(&entry.run).await?;
    match state.plan().section() {
        Some(section) if section.bound_ms != asked => {
            let why = format!(
                "run {} is not over and was begun with a deadline of {} ms, not of {asked} ms",
                entry.run, section.bound_ms
            );
            Err(desk.not_now(command_of(direction), why))
        }
        _ => Ok(()),
    }
}

/// Plans and drives the switchover.
pub(crate) async fn begin(context: &Context, desk: &Desk, direction: Direction) -> Result<Journey, Failure> {
    let (registry, plan) = planned(desk, direction).await?;
    ready(context, desk, direction).await?;
    preview::warn(context, &desk.loaded).await;
    desk.begin(context, registry, plan).await
}

type Planned = (pgteal_saga::Registry<pgteal_core::world::World>, pgteal_saga::Plan);

async fn planned(desk: &Desk, direction: Direction) -> Result<Planned, Failure> {
    let command = command_of(direction);
    desk.must_be_free(command)?;
    if desk.standing.stage == Stage::Nothing {
        return Err(desk.not_now(command, "there is no green to move to".into()));
    }
    if desk.standing.active != direction.from {
        return Err(desk.not_now(command, format!("{} serves already", direction.to)));
    }
    if direction == Direction::BACK && desk.standing.stage == Stage::InStep {
        return Err(desk.not_now(command, "nobody was moved yet".into()));
    }
    let (id, databases) = desk.databases(command).await?;
    let defect = |error: &dyn std::fmt::Display| Failure::Runbook(error.to_string());
    let registry = switchover::runbook(direction).map_err(|error| defect(&error))?;
    let settings = place::settings(&desk.loaded.config);
    let plan = switchover::plan(&registry, &id, &databases, &settings).map_err(|error| defect(&error))?;
    Ok((registry, plan))
}

/// Whether the proxy answers, sends clients where we believe they are, and lets us through as it lets clients: found
/// out before a run begins, since afterwards each of these would keep it from coming to its end.
async fn ready(context: &Context, desk: &Desk, direction: Direction) -> Result<RouterState, Failure> {
    let router = place::router(&desk.loaded, &context.env, "look")?;
    let state = router.state().await?;
    if !state.takes_commands {
        let reason =
            "the role of proxy.console_conninfo is in its admin_read and not in admin_command".to_owned();
        let command = "to be commanded".to_owned();
        return Err(RouterError::Refused { router: router.name().to_owned(), command, reason }.into());
    }
    if state.route != direction.from {
        let why = format!("the proxy sends clients to {}, but {} serves", state.route, direction.from);
        return Err(desk.not_now(command_of(direction), why));
    }
    for side in [direction.from, direction.to] {
        knows(context, desk, direction, side, router.as_ref()).await?;
    }
    let client = place::as_client(&desk.loaded, &context.env, direction.from)?;
    let database = client.database().to_owned();
    let server = Server::new("proxy", client).map_err(postgres::Error::from)?;
    let through = server.connect(&database, Purpose::probe("look")).await?;
    let elsewhere = desk.loaded.config.proxy.client_conninfo.is_some();
    if elsewhere && !router.leads_to(through.backend_pid()).await? {
        let reason =
            "leads to another proxy than the one whose console is at `proxy.console_conninfo`".to_owned();
        let origin = desk.loaded.path.display().to_string();
        return Err(ConfigError::Value { origin, key: "proxy.client_conninfo".into(), reason }.into());
    }
    Ok(state)
}

/// Whether the proxy can let clients in while `side` serves, and takes the same server for it as we do: one that was started for
/// another green would move clients to where nobody follows.
async fn knows(
    context: &Context,
    desk: &Desk,
    direction: Direction,
    side: Side,
    router: &dyn Router,
) -> Result<(), Failure> {
    let Some(id) = &desk.standing.deployment else { return Ok(()) };
    let server = place::server(&desk.loaded, &context.env, id, side).await?;
    // First of all: that a server is down is not the proxy's trouble.
    let session = server.connect(server.conninfo().database(), Purpose::probe("look")).await?;
    let asked = match router.ask(side, ASK_BOUND).await {
        Err(RouterError::Refused { reason, .. }) => {
            return Err(cannot_ask(desk, context, direction, side, &reason)?);
        }
        other => other?,
    };
    let Some(why) = asked.astray(side, wal::system_identifier(&session).await?) else { return Ok(()) };
    let how = if desk.loaded.config.proxy.console_conninfo.is_some() {
        format!(
            "have the file of the proxy name {side} as this configuration does, and start the proxy again where it runs"
        )
    } else {
        "end the proxy and start it again, so that it reads this configuration: pgteal proxy (clients connect anew)".into()
    };
    Err(Failure::Ended(Box::new(Advice {
        code: "proxy-elsewhere",
        what: format!("the proxy leads elsewhere: {why}"),
        object: Some(format!("server {side} of the proxy")),
        data: "nobody is held; nothing was changed".into(),
        next: format!("{how}; then: {}", command_of(direction)),
        exit: Exit::Blocked,
    })))
}

/// The proxy would let nobody in who comes while `to` serves, or cannot tell which server that is.
fn cannot_ask(
    desk: &Desk,
    context: &Context,
    direction: Direction,
    to: Side,
    reason: &str,
) -> Result<Failure, Failure> {
    let loaded = &desk.loaded;
    let (proxy, command) = (&loaded.config.proxy, command_of(direction));
    let (variable, key) = match &proxy.auth_user {
        Some(_) => (sides::AUTH_PASSWORD, "proxy.auth_password_file".to_owned()),
        None if loaded.config.green.provider == Provider::Local => {
            (sides::password_variable(Side::Blue), "blue.password_file".to_owned())
        }
        None => (sides::password_variable(to), format!("{to}.password_file")),
    };
    let (object, next) = if proxy.console_conninfo.is_some() {
        // Its file may be another one than we would write.
        let next = format!(
            "let that role in on {to} from the proxy (pg_hba.conf and its password there), or start the proxy again where it \
             runs: with {variable} for pgteal proxy, or with what [auth.{to}] of a file of your own names; then: {command}"
        );
        (format!("server {to}"), next)
    } else {
        let role = sides::lookup(loaded, &context.env, to)?.user().to_owned();
        let next = format!(
            "let role \"{role}\" in on {to} from the proxy (pg_hba.conf and its password there), or start pgteal proxy again \
             with the role's password on {to} in {variable}, {key} or .pgpass; then: {command}"
        );
        (format!("role {role} on {to}"), next)
    };
    Ok(Failure::Ended(Box::new(Advice {
        code: "proxy-lookup",
        what: match proxy.auth {
            Auth::Verifier => {
                format!("nobody could log in through the proxy while {to} serves: {reason}")
            }
            _ => format!("the proxy cannot tell where clients are while {to} serves: {reason}"),
        },
        object: Some(object),
        data: "nobody is held; nothing was changed".into(),
        next,
        exit: Exit::Blocked,
    })))
}

/// Looks at everything a switchover begins with, and changes nothing.
async fn dry_run(context: &Context, loaded: Loaded, direction: Direction) -> Result<Exit, Failure> {
    let Some(desk) = Desk::to_look(loaded).await? else {
        let why = "there is no deployment yet".to_owned();
        return Err(Failure::NotNow {
            command: command_of(direction),
            why,
            next: vec!["pgteal plan", "pgteal up"],
        });
    };
    let (registry, plan) = planned(&desk, direction).await?;
    let state = ready(context, &desk, direction).await?;
    let census = preview::look(context, &desk.loaded).await?;
    let ui = &context.ui;
    let switch = &desk.loaded.config.switch;
    ui.line(format!(
        "{} sessions, {} busy: {}; oldest transaction {}",
        state.clients,
        state.busy,
        preview::sentence(&census),
        crate::units::duration(state.longest_transaction)
    ));
    // As the run itself will judge it.
    let calm = state.longest_transaction <= place::settings(&desk.loaded.config).calm_below();
    ui.line(format!("calm: {}; deadline {} ms", if calm { "yes" } else { "no" }, switch.deadline_ms));
    let titles = crate::run::journey::titles(&registry);
    ui.line(crate::render::runbook::draw(&plan, &titles));
    ui.object(&serde_json::json!({
        "dry_run": {
            "to": direction.to,
            "router": state,
            "sessions": census,
            "calm": calm,
            "deadline_ms": switch.deadline_ms,
            "drain_budget_ms": switch.drain_budget_ms,
            "runbook": crate::render::runbook::value(&plan, &titles),
        }
    }));
    Ok(Exit::Done)
}
