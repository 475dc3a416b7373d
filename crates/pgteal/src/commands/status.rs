//! `pgteal status`: where the deployment stands, what replication does, and what may be done next. Reads only, also
//! while another process drives.

use std::time::Duration;

use pgteal_core::deployment::Side;
use pgteal_core::postgres::slot::{self, Slot};
use pgteal_core::postgres::{self, Purpose, Server, Session, copy, names, subscription, wal};
use pgteal_core::router::{RouterError, RouterState};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Context, fenced, long};
use crate::config::{self, Loaded};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::journal;
use crate::render::table::table;
use crate::run::{Desk, Stage, Standing, journal_path, place};
use crate::ui::Style;
use crate::{sides, units};

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);
/// A server that does not answer within this is shown as such.
const LOOK_BOUND: Duration = Duration::from_secs(5);

/// Options of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pgteal status\n  pgteal status --watch\n  pgteal status --json")]
pub struct Args {
    /// Look again every second until interrupted.
    #[arg(long)]
    watch: bool,
}

/// One replication slot of ours: what it carries and what it costs.
#[derive(Debug, Serialize)]
struct Stream {
    side: Side,
    slot: String,
    database: Option<String>,
    active: bool,
    /// WAL that the reader has not confirmed yet.
    lag_bytes: Option<u64>,
    /// WAL that the server keeps because of it.
    retained_bytes: i64,
    wal_status: Option<String>,
}

/// A table of the initial sync that is not in step yet.
#[derive(Debug, Serialize)]
struct Table {
    database: String,
    sync: Value,
}

/// What was seen of one side.
#[derive(Debug, Default, Serialize)]
struct Seen {
    streams: Vec<Stream>,
    /// Servers and routers that could not be asked, and why.
    silent: Vec<String>,
    syncing: Vec<Table>,
    subscriptions: usize,
    enabled: usize,
    /// On both sides.
    raised: Vec<fenced::Raised>,
    /// On the active side.
    long_transactions: Vec<long::Open>,
}

/// Whether going back is lossless now.
#[derive(Debug, Serialize)]
struct Horizon {
    lossless: bool,
    why: String,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    loop {
        let loaded = context.config()?;
        match Desk::to_look(loaded.clone()).await? {
            Some(desk) => look(context, &desk).await?,
            None => {
                let standing = Standing::after(&[]);
                let next = context.ui.spelled("pgteal plan, then: pgteal up");
                context.ui.line(format!("there is no deployment yet\nnext: {next}"));
                let mut object = json!({ "standing": standing, "next": standing.next() });
                let strays = strays(context, &loaded).await?;
                if !strays.is_empty() {
                    show_strays(context, &strays);
                    object["strays"] = json!(strays);
                }
                context.ui.object(&object);
            }
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => context.ui.clear(),
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

async fn look(context: &Context, desk: &Desk) -> Result<(), Failure> {
    let standing = &desk.standing;
    let at_work = journal::at_work(&journal_path(&desk.loaded));
    let mut seen = Seen::default();
    let (mut router, mut left) = (None, Vec::new());
    if standing.stage == Stage::Nothing {
        left = strays(context, &desk.loaded).await?;
    } else {
        servers(context, desk, &mut seen).await?;
        router = Some(place::router(&desk.loaded, &context.env, "status")?.state().await);
    }
    let proxy_is_down = matches!(router, Some(Err(RouterError::Unknown { .. })));
    let router: Option<RouterState> = match router {
        Some(Ok(state)) => Some(state),
        Some(Err(error)) => {
            seen.silent.push(error.to_string());
            None
        }
        None => None,
    };
    let horizon = horizon(standing, &seen);
    // Whatever comes next needs the proxy.
    let (first, then) = match &at_work {
        Some(_) => (None, vec!["pgteal status --watch"]),
        None => (proxy_is_down.then_some("pgteal proxy"), standing.next()),
    };
    let next = first.map(|first| format!("{first}, then: ")).unwrap_or_default() + &then.join(", or: ");
    let next = context.ui.spelled(&next);
    let refusal = fenced::met(&seen.raised, standing, router.as_ref());
    if let Some(refusal) = &refusal {
        fenced::show(&context.ui, refusal, &next);
    } else if at_work.is_none()
        && let Some(router) = router.as_ref().filter(|router| router.held_by.is_some())
    {
        fenced::show_held(&context.ui, router, &next);
    }
    show(context, standing, &seen, router.as_ref(), horizon.as_ref(), at_work.is_some());
    if let Some(holder) = &at_work {
        context.ui.line(format!("{} {holder}", context.ui.paint(Style::Bold, "at work:")));
    }
    context.ui.line(format!("\nnext: {next}"));
    if !left.is_empty() {
        show_strays(context, &left);
    }
    context.ui.object(&json!({
        "standing": standing,
        "streams": seen.streams,
        "strays": left,
        "syncing": seen.syncing,
        "router": router,
        "refuses_writes": refusal,
        "fences": seen.raised,
        "at_work": at_work,
        "long_transactions": seen.long_transactions,
        "silent": seen.silent,
        "rollback": horizon,
        "next": first.into_iter().chain(then).map(|next| context.ui.spelled(next)).collect::<Vec<_>>(),
    }));
    Ok(())
}

async fn servers(context: &Context, desk: &Desk, seen: &mut Seen) -> Result<(), Failure> {
    let (Some(id), env) = (&desk.standing.deployment, &context.env) else { return Ok(()) };
    let blue = place::server(&desk.loaded, env, id, Side::Blue).await?;
    let green = place::server(&desk.loaded, env, id, Side::Green).await?;
    let databases = desk.databases("pgteal status").await.map(|(_, databases)| databases).unwrap_or_default();
    for (side, server) in [(Side::Blue, blue), (Side::Green, green)] {
        let home = server.conninfo().database().to_owned();
        let result = async {
            let session = open(&server, &home).await?;
            let ours = slot::of_deployment(&session, id.as_str()).await?;
            seen.streams.extend(streams(&session, side, ours).await?);
            if side == desk.standing.active {
                seen.long_transactions = long::look(desk, &session, server.conninfo().user()).await?;
            }
            for database in &databases {
                // A database that is not there yet has no subscription.
                if let Ok(session) = open(&server, &database.name).await {
                    subscriptions(&session, id.as_str(), seen).await?;
                    // Each stands still while its table is copied, and keeps WAL from then on.
                    let copies = slot::of_table_copies(&session).await?;
                    seen.streams.extend(streams(&session, side, copies).await?);
                    let role = server.conninfo().user();
                    seen.raised.extend(fenced::look(side, &session, id.as_str(), role).await?);
                }
            }
            Ok::<_, postgres::Error>(())
        };
        if let Err(error) = result.await {
            seen.silent.push(error.to_string());
        }
    }
    Ok(())
}

async fn open(server: &Server, database: &str) -> Result<Session, postgres::Error> {
    server.connect(database, Purpose::probe("status").within(LOOK_BOUND)).await
}

async fn streams(session: &Session, side: Side, slots: Vec<Slot>) -> Result<Vec<Stream>, postgres::Error> {
    if slots.is_empty() {
        return Ok(Vec::new());
    }
    let end = wal::insert_lsn(session).await?;
    let stream = |slot: Slot| Stream {
        side,
        lag_bytes: slot.confirmed_flush_lsn.map(|confirmed| end.bytes_since(confirmed)),
        active: slot.active_pid.is_some(),
        slot: slot.name,
        database: slot.database,
        retained_bytes: slot.retained_bytes,
        wal_status: slot.wal_status,
    };
    Ok(slots.into_iter().map(stream).collect())
}

/// Slots that follow our names although the journal knows no deployment: it is lost, another directory has it, or a side
/// was given up. They keep WAL until somebody drops them (I7). Who does not answer has none to tell of.
async fn strays(context: &Context, loaded: &Loaded) -> Result<Vec<Stream>, Failure> {
    let mut servers = vec![(Side::Blue, place::blue(loaded, &context.env)?)];
    if loaded.config.green.provider == config::Provider::Existing {
        let green = sides::existing_green(loaded, &context.env)?;
        servers.push((Side::Green, Server::new("green", green).map_err(postgres::Error::from)?));
    }
    let mut found = Vec::new();
    for (side, server) in servers {
        let home = server.conninfo().database().to_owned();
        let look = async {
            let session = open(&server, &home).await?;
            let mut ours = slot::list(&session).await?;
            ours.retain(|slot| names::parse_stream(&slot.name).is_some());
            streams(&session, side, ours).await
        };
        match look.await {
            Ok(streams) => found.extend(streams),
            Err(error) => tracing::debug!(%error, "looking for slots of no known deployment"),
        }
    }
    Ok(found)
}

async fn subscriptions(session: &Session, id: &str, seen: &mut Seen) -> Result<(), postgres::Error> {
    for subscription in subscription::list(session).await? {
        if subscription.deployment.as_deref() != Some(id) {
            continue;
        }
        seen.subscriptions += 1;
        seen.enabled += usize::from(subscription.enabled);
        for sync in copy::progress(session, &subscription.name).await? {
            let sync = serde_json::to_value(&sync).unwrap_or_default();
            if sync["state"] == "ready" {
                continue;
            }
            seen.syncing.push(Table { database: session.database().to_owned(), sync });
        }
    }
    Ok(())
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn horizon(standing: &Standing, seen: &Seen) -> Option<Horizon> {
    if standing.stage != Stage::Switched || standing.open.is_some() {
        return None;
    }
    let ours: Vec<&Stream> = seen.streams.iter().filter(|stream| stream.side == standing.active).collect();
    let lost = ours.iter().find(|stream| stream.wal_status.as_deref() == Some("lost"));
    let (lossless, why) = match (ours.is_empty(), lost) {
        (true, _) => (false, format!("no slot of ours was found on {}", standing.active)),
        (_, Some(slot)) => (false, format!("slot {} has lost WAL", slot.slot)),
        (false, None) => {
            let lag = units::bytes(ours.iter().filter_map(|stream| stream.lag_bytes).max().unwrap_or(0));
            let (other, unread) = (standing.active.other(), ours.iter().find(|stream| !stream.active));
            // What is kept is not lost, but nobody can go back before it was read.
            (
                true,
                match unread {
                    Some(slot) => {
                        format!("{other} does not follow now: nobody reads slot {}, {lag} behind", slot.slot)
                    }
                    None => format!("{other} follows, {lag} behind"),
                },
            )
        }
    };
    Some(Horizon { lossless, why })
}

fn slot_table(streams: &[Stream]) -> String {
    let rows = streams.iter().map(|stream| {
        vec![
            stream.slot.clone(),
            stream.side.to_string(),
            stream.database.clone().unwrap_or_default(),
            if stream.active { "read" } else { "not read" }.into(),
            stream.lag_bytes.map_or_else(|| "-".into(), units::bytes),
            units::bytes(u64::try_from(stream.retained_bytes).unwrap_or(0)),
            stream.wal_status.clone().unwrap_or_default(),
        ]
    });
    table(&["slot", "on", "database", "", "lag", "retained", "wal"], &[4, 5], rows)
}

fn show_strays(context: &Context, strays: &[Stream]) {
    let ui = &context.ui;
    ui.line(format!(
        "\n{} slots of pgteal that no run of this journal made keep WAL:\n{}",
        ui.paint(Style::Warn, "left behind:"),
        slot_table(strays)
    ));
    for stray in strays {
        ui.line(format!(
            "if no other deployment needs it, on {}: SELECT pg_drop_replication_slot('{}')",
            stray.side, stray.slot
        ));
    }
}

fn show(
    context: &Context,
    standing: &Standing,
    seen: &Seen,
    router: Option<&RouterState>,
    horizon: Option<&Horizon>,
    at_work: bool,
) {
    let ui = &context.ui;
    let stage = match standing.stage {
        Stage::Nothing => "there is no deployment",
        Stage::Building if standing.open.as_ref().is_some_and(|up| up.taken_back) => {
            "what was built is being taken back"
        }
        Stage::Building => "green is being built",
        Stage::InStep => "green is in step; nobody was moved yet",
        Stage::Switched => "clients were moved",
        Stage::Retiring => "the deployment is being finished",
    };
    match &standing.deployment {
        Some(id) => ui.line(format!(
            "{} {id}: {stage}; {} serves",
            ui.paint(Style::Bold, "deployment"),
            standing.active
        )),
        None => match standing.retired {
            Some(retired) => ui.line(format!("{stage}: it was finished; {retired} is retired")),
            None => ui.line(stage),
        },
    }
    if let Some(open) = &standing.open {
        let alone = if at_work { "" } else { ", and no controller is at work on it" };
        let run = ui.paint(Style::Warn, "run");
        ui.line(format!("{run} {} is not over: {}{alone}", open.run, open.state));
    }
    if !seen.syncing.is_empty() {
        let rows = seen.syncing.iter().map(|table| {
            let text = |key: &str| table.sync[key].as_u64().map_or_else(|| "-".into(), units::bytes);
            let name = &table.sync["table"];
            vec![
                table.database.clone(),
                format!("{}.{}", word(&name["schema"]), word(&name["name"])),
                word(&table.sync["state"]).to_owned(),
                text("copied_bytes"),
                text("table_bytes"),
            ]
        });
        ui.line(format!("\n{}", table(&["database", "table", "state", "copied", "of"], &[3, 4], rows)));
    }
    if !seen.streams.is_empty() {
        ui.line(format!("\n{}", slot_table(&seen.streams)));
    }
    long::show(ui, &seen.long_transactions);
    if let Some(router) = router {
        let held = router.held_by.map(|epoch| format!(", held by epoch {epoch}")).unwrap_or_default();
        ui.line(format!(
            "\nproxy: to {}{held}; {} clients, {} busy, {} known to be pinned (pgteal switch --preview looks at each)",
            router.route, router.clients, router.busy, router.pinned
        ));
    }
    if let Some(horizon) = horizon {
        let (style, word) =
            if horizon.lossless { (Style::Good, "lossless") } else { (Style::Bad, "not lossless") };
        ui.line(format!("way back: {}: {}", ui.paint(style, word), horizon.why));
    }
    for silent in &seen.silent {
        ui.line(format!("{} {silent}", ui.paint(Style::Warn, "no answer:")));
    }
}
