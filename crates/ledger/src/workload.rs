//! Many client sessions as one. Owns start, pause, stop and the live figures; refuses to know what a transaction does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

use crate::book::Book;
use crate::config::{WorkloadConfig, WorkloadError};
use crate::connection::{Connection, fault};
use crate::layout::{ACCOUNTS_EACH, CHAIN_START, Layout, OPENING_BALANCE};
use crate::live::Live;
use crate::record::{Fault, Outcome, Record, SessionRecord};
use crate::session::{Flight, Session};
use crate::statement::Stock;
use crate::window::{Counters, Histogram, WindowReport};

/// How many kinds of refused connections are told apart.
const CONNECT_FAULTS_LIMIT: usize = 64;

/// What sessions are to do now.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) phase: Phase,
    pub(crate) rate: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Run,
    Pause,
    Stop,
}

/// What all sessions write to and readers of the live figures read.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) origin: Instant,
    pub(crate) parked: AtomicU64,
    pub(crate) sessions: AtomicU64,
    pub(crate) connected: AtomicU64,
    pub(crate) connections_dropped: AtomicU64,
    pub(crate) truncated: AtomicBool,
    figures: Mutex<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    total: WindowReport,
    window: WindowReport,
    latencies: Histogram,
    connect_failures: BTreeMap<String, u64>,
}

impl Shared {
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn take_in(&self, outcome: Outcome, lag_us: u32, latency_us: u32) {
        let (stall_us, latency_us) = (u64::from(lag_us) + u64::from(latency_us), u64::from(latency_us));
        let mut figures = self.figures();
        figures.total.take_in(outcome, stall_us, latency_us);
        figures.window.take_in(outcome, stall_us, latency_us);
        figures.latencies.add(latency_us);
    }

    pub(crate) fn connect_failed(&self, fault: &Fault) {
        let failures = &mut self.figures().connect_failures;
        if failures.len() < CONNECT_FAULTS_LIMIT || failures.contains_key(&fault.sqlstate) {
            *failures.entry(fault.sqlstate.clone()).or_default() += 1;
        }
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running workload. Dropping it stops the sessions and throws the record away; [`Workload::stop`] keeps it.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    control: watch::Sender<Control>,
    flights: Vec<Arc<Flight>>,
    tasks: Vec<JoinHandle<SessionRecord>>,
    layout: Layout,
}

impl Workload {
    /// Opens the ledger for these session numbers, connects every session and lets them run.
    ///
    /// # Errors
    /// When the configuration contradicts itself, the tables are missing, the session numbers were used before, or a
    /// session cannot connect.
    pub async fn start(config: WorkloadConfig) -> Result<Workload, WorkloadError> {
        let config = config.validated()?;
        let layout = Layout {
            first_session: config.first_session,
            shop_sessions: config.sessions,
            billing_sessions: config.billing_sessions,
            seed: config.seed,
        };
        let mut places = Vec::new();
        for (book, conninfo) in [(Book::Shop, Some(&config.shop)), (Book::Billing, config.billing.as_ref())] {
            if let Some(conninfo) = conninfo
                && !layout.sessions(book).is_empty()
            {
                let stock = open_ledger(conninfo, book, &layout).await?;
                places.extend(layout.sessions(book).map(|session| (session, book, conninfo.clone(), stock)));
            }
        }
        let connections = try_join_all(places.iter().map(async |(session, book, conninfo, _)| {
            let dialect = dialect_of(&config, &layout, *session);
            let opened = Connection::open(conninfo, *book, *session, dialect).await;
            opened.map_err(|Fault { sqlstate, message }| {
                let (session, message) = (*session, format!("{sqlstate}: {message}"));
                WorkloadError::Connect { session, book: book.schema(), message }
            })
        }))
        .await?;
        Ok(launch(&config, layout, places, connections))
    }

    /// Microseconds since the workload began, on the clock of every figure it gives.
    pub fn now_us(&self) -> u64 {
        self.shared.now_us()
    }

    /// The instant that clock began, to lay other timelines beside it.
    pub fn origin(&self) -> Instant {
        self.shared.origin
    }

    /// The live figures.
    pub fn counters(&self) -> Counters {
        let now_us = self.shared.now_us();
        let figures = self.shared.figures();
        let mut window = figures.window;
        window.to_us = now_us;
        window.p50_us = figures.latencies.quantile(0.50);
        window.p99_us = figures.latencies.quantile(0.99);
        for flight in &self.flights {
            let sent_us = flight.sent_us.load(Ordering::Relaxed);
            if sent_us > 0 {
                let due_us = flight.due_us.load(Ordering::Relaxed).min(sent_us);
                window.longest_stall_us = window.longest_stall_us.max(now_us.saturating_sub(due_us));
                window.longest_latency_us = window.longest_latency_us.max(now_us.saturating_sub(sent_us));
            }
        }
        Counters {
            acked: figures.total.acked,
            failed: figures.total.failed,
            unknown: figures.total.unknown,
            connections_dropped: self.shared.connections_dropped.load(Ordering::Relaxed),
            connect_failures: figures.connect_failures.values().sum(),
            connected: self.shared.connected.load(Ordering::Relaxed),
            sessions: self.shared.sessions.load(Ordering::Relaxed),
            window,
        }
    }

    /// Begins a new window and returns its first instant. A transaction under way counts in the new window with all
    /// of its time.
    pub fn mark(&self) -> u64 {
        let now_us = self.shared.now_us();
        let mut figures = self.shared.figures();
        figures.window = WindowReport { from_us: now_us, ..WindowReport::default() };
        figures.latencies.clear();
        now_us
    }

    /// Changes the rate: transactions a second of all sessions, `None` for as fast as they can.
    pub fn set_rate(&self, rate: Option<f64>) {
        let rate = rate.filter(|rate| rate.is_finite() && *rate > 0.0);
        self.control.send_modify(|control| control.rate = rate);
    }

    /// Lets transactions under way end and starts no more; connections stay open.
    ///
    /// # Errors
    /// When some are still under way after `limit`; they are not disturbed, and the workload stays paused.
    pub async fn pause(&self, limit: Duration) -> Result<(), WorkloadError> {
        self.control.send_modify(|control| control.phase = Phase::Pause);
        let began = Instant::now();
        loop {
            let parked = self.shared.parked.load(Ordering::SeqCst);
            let sessions = self.shared.sessions.load(Ordering::SeqCst);
            if parked >= sessions {
                return Ok(());
            }
            if began.elapsed() > limit {
                return Err(WorkloadError::NotParked { waited: limit, sessions, parked });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Goes on after a pause, on a new timetable.
    pub fn resume(&self) {
        self.control.send_modify(|control| control.phase = Phase::Run);
    }

    /// Lets transactions under way end (each within its own limit), closes every connection and returns what was seen.
    pub async fn stop(mut self) -> Record {
        self.control.send_modify(|control| control.phase = Phase::Stop);
        let mut sessions = Vec::with_capacity(self.tasks.len());
        for task in std::mem::take(&mut self.tasks) {
            match task.await {
                Ok(record) => sessions.push(record),
                Err(error) => tracing::error!(%error, "a session's record is lost"),
            }
        }
        Record {
            layout: self.layout.clone(),
            sessions,
            connections_dropped: self.shared.connections_dropped.load(Ordering::Relaxed),
            connect_failures: self.shared.figures().connect_failures.clone(),
            truncated: self.shared.truncated.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn dialect_of(config: &WorkloadConfig, layout: &Layout, session: u32) -> crate::Dialect {
    config.dialects[(session - layout.first_session) as usize % config.dialects.len()]
}

type Place = (u32, Book, Config, Stock);

fn launch(
    config: &WorkloadConfig,
    layout: Layout,
    places: Vec<Place>,
    connections: Vec<Connection>,
) -> Workload {
    let shared = Arc::new(Shared {
        origin: Instant::now(),
        parked: AtomicU64::new(0),
        sessions: AtomicU64::new(places.len() as u64),
        connected: AtomicU64::new(connections.len() as u64),
        connections_dropped: AtomicU64::new(0),
        truncated: AtomicBool::new(false),
        figures: Mutex::default(),
    });
    let (control, receiver) = watch::channel(Control { phase: Phase::Run, rate: config.rate });
    let flights: Vec<Arc<Flight>> = places.iter().map(|_| Arc::default()).collect();
    let entries_limit = config.max_transactions / places.len().max(1);
    let sessions = places.into_iter().zip(connections).zip(&flights);
    let sessions = sessions.map(|(((session, book, conninfo, stock), connection), flight)| Session {
        shared: Arc::clone(&shared),
        flight: Arc::clone(flight),
        control: receiver.clone(),
        config: conninfo,
        layout: layout.clone(),
        stock,
        transaction_limit: config.transaction_limit,
        reconnect_limit: config.reconnect_limit,
        entries_limit,
        connection: Some(connection),
        record: SessionRecord::new(session, book, dialect_of(config, &layout, session)),
        live: Live::default(),
        last_seqs: vec![0],
    });
    let tasks = sessions.map(|session| tokio::spawn(session.run())).collect();
    Workload { shared, control, flights, tasks, layout }
}

/// Writes the rows each session starts from, and counts what it can refer to.
async fn open_ledger(conninfo: &Config, book: Book, layout: &Layout) -> Result<Stock, WorkloadError> {
    let sessions = layout.sessions(book);
    let schema = book.schema();
    let (first, last) = (sessions.start, sessions.end - 1);
    let connect = |error: tokio_postgres::Error| {
        let Fault { sqlstate, message } = fault(&error);
        WorkloadError::Connect { session: first, book: schema, message: format!("{sqlstate}: {message}") }
    };
    let (client, driver) = conninfo.connect(NoTls).await.map_err(connect)?;
    let driver = tokio::spawn(driver);
    let opened = write_openings(&client, schema, first, last).await;
    let stock = opened.map_err(|source| WorkloadError::Open { book: schema, first, last, source })?;
    drop(client);
    driver.abort();
    if book == Book::Shop && (stock.customers == 0 || stock.products == 0) {
        return Err(WorkloadError::Empty { book: schema });
    }
    Ok(stock)
}

async fn write_openings(
    client: &Client,
    schema: &str,
    first: u32,
    last: u32,
) -> Result<Stock, tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "BEGIN;
             INSERT INTO {schema}.sessions (session, last_seq, previous, chain)
                SELECT s, 0, 0, {CHAIN_START} FROM generate_series({first}, {last}) s;
             INSERT INTO {schema}.accounts (id, session, balance)
                SELECT s * {ACCOUNTS_EACH} + a, s, {OPENING_BALANCE}
                FROM generate_series({first}, {last}) s, generate_series(0, {ACCOUNTS_EACH} - 1) a;
             COMMIT"
        ))
        .await?;
    if schema != Book::Shop.schema() {
        return Ok(Stock { customers: 0, products: 0 });
    }
    let row = client
        .query_one("SELECT (SELECT count(*) FROM shop.customers), (SELECT count(*) FROM shop.products)", &[])
        .await?;
    Ok(Stock { customers: row.try_get(0)?, products: row.try_get(1)? })
}
