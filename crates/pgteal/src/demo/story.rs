//! The story of the demo, in the order in which it is told. Each chapter does something and checks its claims.

use std::time::Duration;

use pgteal_core::deployment::Direction;
use pgteal_core::providers::Programs;
use pgteal_core::verify::Report as Comparison;
use pgteal_ledger::{Oracle, Record, Workload, WorkloadConfig};
use pgteal_saga::Stop;
use pgteal_saga::decide::BY_STOP;
use pgteal_saga::driver::Outcome;
use pgteal_saga::state::Cause;

use super::blue::{self, Blue, CLIENT};
use super::place::{Place, free_ports};
use super::proxy::Proxy;
use super::report::{Claim, Cutover, Report};
use crate::commands::{Context, switch, up, verify};
use crate::config::{self, Loaded};
use crate::errors::Failure;
use crate::render::timeline;
use crate::run::{Desk, Journey};
use crate::servers::Distribution;
use crate::ui::{Style, Ui};
use crate::units;

/// What the demo is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Blue's distribution.
    pub from: Distribution,
    /// Green's.
    pub to: Distribution,
    /// Client sessions.
    pub clients: u32,
    /// Transactions a second of all sessions together.
    pub rate: f64,
    /// How long clients write between two acts.
    pub act: Duration,
    /// Orders in the shop before it begins.
    pub rows: u64,
}

/// Everything of the demo that runs.
#[derive(Debug)]
pub struct Stage {
    pub(super) place: Place,
    pub(super) blue: Option<Blue>,
    pub(super) proxy: Option<Proxy>,
    pub(super) desk: Option<Desk>,
    stop: Stop,
    port: u16,
}

/// What the demo found.
#[derive(Debug, Default)]
pub struct Findings {
    /// The figures.
    pub report: Report,
    /// The claims.
    pub claims: Vec<Claim>,
}

impl Findings {
    fn claim(&mut self, ui: &Ui, text: impl Into<String>, holds: bool, found: impl Into<String>) {
        let claim = Claim::new(text, holds, found);
        let (style, word) = if holds { (Style::Good, "holds") } else { (Style::Bad, "FAILS") };
        ui.line(format!("  {} {} ({})", ui.paint(style, &format!("{word:<8}")), claim.text, claim.found));
        self.claims.push(claim);
    }
}

impl Stage {
    /// An empty stage.
    #[must_use]
    pub const fn new(place: Place, stop: Stop) -> Self {
        Self { place, blue: None, proxy: None, desk: None, stop, port: 0 }
    }

    /// The proxy's port.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    fn blue(&self) -> Result<&Blue, Failure> {
        self.blue.as_ref().ok_or_else(|| Failure::Demo("blue does not run".into()))
    }

    fn desk(&self) -> Result<&Desk, Failure> {
        self.desk.as_ref().ok_or_else(|| Failure::Demo("there is no deployment".into()))
    }

    /// Tells the whole story.
    ///
    /// # Errors
    /// Whatever kept it from being told; claims that do not hold are in the findings.
    pub async fn tell(&mut self, context: &Context, wish: &Wish) -> Result<Findings, Failure> {
        let ui = &context.ui;
        let mut findings = Findings::default();
        findings.report.from = wish.from.major;
        findings.report.to = wish.to.major;
        self.prepare(context, wish).await?;
        let workload = self.workload(ui, wish).await?;
        findings.report.sessions = workload.counters().sessions;

        heading(ui, "up: build green, copy, catch up, verify, while clients write");
        let journey = up::begin(context, self.desk()?).await?;
        done(&journey)?;
        self.refresh().await?;
        self.version(&mut findings, ui, wish.from.major, "before the switch").await?;
        self.wait(wish.act).await?;

        heading(ui, &format!("switch: move every client to PostgreSQL {}", wish.to.major));
        findings.report.switch = self.cutover(context, &workload, Direction::SWITCH).await?;
        self.version(&mut findings, ui, wish.to.major, "after the switch").await?;
        self.fenced(&mut findings, ui).await?;
        self.writes(&mut findings, ui, &workload, wish, "green").await?;
        self.equal(&mut findings, context, "blue follows green, no row differs").await?;

        heading(ui, &format!("back: move every client to PostgreSQL {} again", wish.from.major));
        findings.report.back = self.cutover(context, &workload, Direction::BACK).await?;
        self.version(&mut findings, ui, wish.from.major, "after the way back").await?;
        self.writes(&mut findings, ui, &workload, wish, "blue").await?;
        self.equal(&mut findings, context, "green follows blue, no row differs").await?;

        heading(ui, "the clients stop: their own record against the database");
        let record = workload.stop().await;
        self.judge(&mut findings, ui, &record).await?;
        self.quiet(&mut findings, context).await?;
        Ok(findings)
    }

    async fn prepare(&mut self, context: &Context, wish: &Wish) -> Result<(), Failure> {
        let ui = &context.ui;
        heading(ui, &format!("a blue PostgreSQL {} with a shop and a proxy in front", wish.from.major));
        let [blue_port, green_port, proxy_port] = free_ports()?;
        let programs = Programs::new(wish.from.bindir.clone(), None)?;
        let owner = programs.owner()?;
        self.port = proxy_port;
        // On the stage before it runs, so that it is stopped whatever happens.
        let blue = self.blue.insert(Blue::new(&self.place, programs, blue_port));
        blue.start(&self.place).await?;
        tokio::select! {
            filled = blue.fill(wish.rows) => filled?,
            () = self.stop.requested() => return Err(Failure::Interrupted),
        }
        let loaded = configure(&self.place, wish, blue, green_port, proxy_port, &owner.name)?;
        self.go_on()?;
        self.proxy = Some(Proxy::start(&loaded, &context.env, proxy_port).await?);
        self.desk = Some(Desk::to_drive(loaded).await?);
        ui.line(format!(
            "  {} orders in two databases; clients connect to 127.0.0.1:{proxy_port}",
            units::count(wish.rows)
        ));
        Ok(())
    }

    async fn workload(&self, ui: &Ui, wish: &Wish) -> Result<Workload, Failure> {
        let failed = |error: pgteal_ledger::WorkloadError| Failure::Demo(error.to_string());
        let password = self.blue()?.password();
        let conninfo = |database: &str| {
            format!("host=127.0.0.1 port={} user={CLIENT} password={password} dbname={database}", self.port)
        };
        let billing = wish.clients / 4;
        let mut config = WorkloadConfig::new(&conninfo("shop")).map_err(failed)?;
        config.sessions = wish.clients - billing;
        config.rate = Some(wish.rate);
        if billing > 0 {
            config = config.with_billing(&conninfo("billing"), billing).map_err(failed)?;
        }
        let workload = Workload::start(config).await.map_err(failed)?;
        ui.line(format!("  {} clients write, {} transactions a second", wish.clients, wish.rate));
        Ok(workload)
    }

    /// Waits, unless the demo is to end.
    async fn wait(&self, time: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.stop.requested() => Err(Failure::Interrupted),
        }
    }

    fn go_on(&self) -> Result<(), Failure> {
        if self.stop.is_requested() { Err(Failure::Interrupted) } else { Ok(()) }
    }

    async fn refresh(&mut self) -> Result<(), Failure> {
        match &mut self.desk {
            Some(desk) => desk.refresh().await,
            None => Ok(()),
        }
    }

    /// A switchover, and what the clients saw of it.
    async fn cutover(
        &mut self,
        context: &Context,
        workload: &Workload,
        direction: Direction,
    ) -> Result<Cutover, Failure> {
        self.go_on()?;
        workload.mark();
        let journey = switch::begin(context, self.desk()?, direction).await?;
        // A transaction that was due during the cutover has ended by then, or shows with its age.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let window = workload.counters().window;
        done(&journey)?;
        self.refresh().await?;
        let laps = timeline::laps(&journey.events, Some(("hold-clients", "release")));
        context.ui.line(format!("\n{}", timeline::draw(&laps, &journey.titles)));
        context.ui.line(format!(
            "  longest wait of any client: {}, its statement with all clients going on at once included\n",
            units::duration(Duration::from_micros(window.longest_stall_us))
        ));
        Ok(Cutover::read(&journey.events, window.longest_stall_us))
    }

    /// Which version answers through the proxy.
    async fn version(
        &self,
        findings: &mut Findings,
        ui: &Ui,
        expected: u32,
        when: &str,
    ) -> Result<(), Failure> {
        let client = blue::connect(self.port, CLIENT, self.blue()?.password(), "shop").await?;
        let row = client.query_one("SHOW server_version_num", &[]).await.map_err(blue::refused)?;
        let number: u32 = row.get::<_, String>(0).parse().unwrap_or(0);
        let found = number / 10_000;
        let text = format!("PostgreSQL {expected} answers clients {when}");
        findings.claim(ui, text, found == expected, format!("it is {found}"));
        Ok(())
    }

    /// Whether blue refuses a writer that goes past the proxy.
    async fn fenced(&self, findings: &mut Findings, ui: &Ui) -> Result<(), Failure> {
        let client = self.blue()?.client(CLIENT, "shop").await?;
        let sql =
            "BEGIN; SET LOCAL transaction_read_only = off; UPDATE shop.products SET price = price; COMMIT";
        let said = match client.batch_execute(sql).await {
            Ok(()) => "it wrote".to_owned(),
            Err(error) => {
                error.code().map_or_else(|| error.to_string(), |code| format!("SQLSTATE {}", code.code()))
            }
        };
        let text = "blue refuses a writer that goes past the proxy";
        findings.claim(ui, text, said == "SQLSTATE 25006", said);
        Ok(())
    }

    /// Lets clients write for a while and looks whether they do.
    async fn writes(
        &self,
        findings: &mut Findings,
        ui: &Ui,
        workload: &Workload,
        wish: &Wish,
        side: &str,
    ) -> Result<(), Failure> {
        workload.mark();
        self.wait(wish.act).await?;
        let window = workload.counters().window;
        let found = format!("{} commits in {}", units::count(window.acked), units::duration(wish.act));
        findings.claim(ui, format!("clients write on {side}"), window.acked > 0, found);
        Ok(())
    }

    /// Whether any row differs while clients write. Rows that are never quiet long enough are counted, not judged: they
    /// are when the clients have stopped.
    async fn equal(&self, findings: &mut Findings, context: &Context, text: &str) -> Result<(), Failure> {
        let comparison = self.compare(findings, context).await?;
        let different = comparison.mismatched().count();
        let unsettled = comparison.unsettled().count();
        let busy = if unsettled > 0 { format!(", {unsettled} too busy to say") } else { String::new() };
        let found = format!("{} under load, {different} differ{busy}", tables(&comparison));
        findings.claim(&context.ui, text, different == 0, found);
        Ok(())
    }

    /// Whether every row of every table is equal, with nobody writing.
    async fn quiet(&self, findings: &mut Findings, context: &Context) -> Result<(), Failure> {
        let comparison = self.compare(findings, context).await?;
        let (different, unsettled) = (comparison.mismatched().count(), comparison.unsettled().count());
        let found = format!("{}, {different} differ, {unsettled} unsettled", tables(&comparison));
        let text = "blue and green hold the same rows";
        findings.claim(&context.ui, text, comparison.is_equal(), found);
        Ok(())
    }

    async fn compare(&self, findings: &mut Findings, context: &Context) -> Result<Comparison, Failure> {
        let comparison: Comparison = tokio::select! {
            compared = verify::compare(context, self.desk()?) => compared?,
            () = self.stop.requested() => return Err(Failure::Interrupted),
        };
        let different = u64::try_from(comparison.mismatched().count()).unwrap_or(u64::MAX);
        findings.report.mismatched_tables += different;
        Ok(comparison)
    }

    /// Compares what clients were told with what the active side holds.
    async fn judge(&self, findings: &mut Findings, ui: &Ui, record: &Record) -> Result<(), Failure> {
        let blue = self.blue()?;
        let (shop, billing) = (blue.client(CLIENT, "shop").await?, blue.client(CLIENT, "billing").await?);
        let verdict = Oracle::new(record).check(&shop, Some(&billing)).await;
        let verdict = verdict.map_err(|error| Failure::Demo(error.to_string()))?;
        let unknown = verdict.unknown.present + verdict.unknown.absent;
        let report = &mut findings.report;
        report.client_errors = verdict.client_errors();
        report.acknowledged = verdict.acknowledged;
        report.lost = verdict.lost;
        report.duplicated = verdict.duplicated;
        report.connections_dropped = verdict.connections_dropped;
        let errors =
            if verdict.errors.is_empty() { "none".to_owned() } else { format!("{:?}", verdict.errors) };
        findings.claim(ui, "no client saw an error", verdict.client_errors() == 0 && unknown == 0, errors);
        let dropped = verdict.connections_dropped;
        findings.claim(ui, "no client lost its connection", dropped == 0, format!("{dropped} lost"));
        let acknowledged = units::count(verdict.acknowledged);
        let found = format!("{} of {acknowledged} missing", verdict.lost);
        findings.claim(ui, "every acknowledged commit is there", verdict.lost == 0, found);
        let found = format!("{} twice, {} that nobody was promised", verdict.duplicated, verdict.ghost);
        findings.claim(ui, "and exactly once", verdict.duplicated == 0 && verdict.ghost == 0, found);
        let sound = verdict.is_sound() && !verdict.truncated;
        let found = verdict.examples.first().cloned().unwrap_or_else(|| {
            format!("{} out of order, {} wrong values", verdict.reordered, verdict.wrong_values)
        });
        findings.claim(ui, "in each client's order, with balances conserved", sound, found);
        Ok(())
    }
}

/// `18 tables with 116,649 rows compared`.
fn tables(comparison: &Comparison) -> String {
    let rows = u64::try_from(comparison.rows()).unwrap_or(0);
    format!("{} tables with {} rows compared", comparison.tables.len(), units::count(rows))
}

fn heading(ui: &Ui, text: &str) {
    ui.line(format!("\n{}", ui.paint(Style::Bold, text)));
}

/// Only a run that did what was asked lets the story go on.
fn done(journey: &Journey) -> Result<(), Failure> {
    match (&journey.outcome, journey.failure()) {
        (Outcome::Done, _) => Ok(()),
        (Outcome::Stopped, _) => Err(Failure::Interrupted),
        (Outcome::Unwound { cause: Cause::Operator { by } }, _) if by == BY_STOP => Err(Failure::Interrupted),
        (_, Some(failure)) => Err(failure),
        (_, None) => Err(Failure::Demo(format!("the run of {} was undone", journey.kind))),
    }
}

/// Writes the pgteal.toml of the demo and reads it as every command does.
fn configure(
    place: &Place,
    wish: &Wish,
    blue: &Blue,
    green_port: u16,
    proxy_port: u16,
    os_user: &str,
) -> Result<Loaded, Failure> {
    let password = place.write("password", &format!("{}\n", blue.password()))?;
    let quoted = |path: &std::path::Path| toml::Value::String(path.display().to_string()).to_string();
    let root = rustix::process::geteuid().is_root();
    let text = format!(
        "[deployment]\nname = \"demo\"\nstate_dir = \"state\"\n\n\
         [blue]\nconninfo = \"host=127.0.0.1 port={} user={} dbname=postgres\"\npassword_file = {}\n\n\
         [green]\nprovider = \"local\"\nbindir = {}\ndata_dir = {}\nport = {green_port}\n{}\n\
         [proxy]\nlisten = [\"127.0.0.1:{proxy_port}\"]\nunix_port = {proxy_port}\n",
        blue.port(),
        blue::TOOL,
        quoted(&password),
        quoted(&wish.to.bindir),
        quoted(&place.servers().join("green")),
        if root { format!("os_user = \"{os_user}\"\n") } else { String::new() },
    );
    let path = place.write(config::DEFAULT_FILE, &text)?;
    Ok(config::load(&path, &config::Env::default())?)
}
