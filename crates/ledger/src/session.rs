//! One client session from its first transaction to its last. Owns the loop and what it remembers; refuses to know
//! other sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::Config;

use crate::connection::{Answers, Connection, Failure};
use crate::layout::Layout;
use crate::live::Live;
use crate::op::{self, Op};
use crate::pace::Pace;
use crate::record::{Entry, Fault, Outcome, SessionRecord};
use crate::statement::{Stock, calls};
use crate::workload::{Control, Phase, Shared};

/// The pause between two attempts to connect, doubled up to the second figure.
const RECONNECT_FIRST: Duration = Duration::from_millis(10);
const RECONNECT_LAST: Duration = Duration::from_millis(250);

/// The transaction under way, for readers of the live figures: both 0 when there is none.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    pub(crate) due_us: AtomicU64,
    pub(crate) sent_us: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) stock: Stock,
    pub(crate) transaction_limit: Duration,
    pub(crate) reconnect_limit: Duration,
    pub(crate) entries_limit: usize,
    pub(crate) connection: Option<Connection>,
    pub(crate) record: SessionRecord,
    pub(crate) live: Live,
    /// What the session's own chain may hold: its last acknowledged seq and unknown ones after it.
    pub(crate) last_seqs: Vec<i64>,
}

impl Session {
    /// Runs until the workload stops, the record is full, or no connection is to be had any more.
    pub(crate) async fn run(mut self) -> SessionRecord {
        let mut control = self.control.borrow_and_update().clone();
        let mut pace = self.pace(&control);
        while self.record.entries.len() < self.entries_limit {
            match control.phase {
                Phase::Stop => break,
                Phase::Pause => {
                    self.shared.parked.fetch_add(1, Ordering::SeqCst);
                    let changed = self.control.changed().await;
                    self.shared.parked.fetch_sub(1, Ordering::SeqCst);
                    if changed.is_err() {
                        break;
                    }
                    self.control.mark_changed();
                }
                Phase::Run => {
                    if !self.connected().await {
                        break;
                    }
                    let due_us = pace.due_us(self.shared.now_us());
                    if self.idle_until(due_us).await {
                        self.transaction(due_us).await;
                        pace.advance();
                    }
                }
            }
            if self.control.has_changed().unwrap_or(true) {
                control = self.control.borrow_and_update().clone();
                pace = self.pace(&control);
            }
        }
        self.hang_up()
    }

    fn hang_up(mut self) -> SessionRecord {
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.drop_connection();
        } else if self.connection.take().is_some() {
            self.shared.connected.fetch_sub(1, Ordering::Relaxed);
        }
        self.shared.sessions.fetch_sub(1, Ordering::SeqCst);
        if self.record.entries.len() >= self.entries_limit {
            self.shared.truncated.store(true, Ordering::Relaxed);
        }
        self.record
    }

    fn pace(&self, control: &Control) -> Pace {
        let sessions = self.layout.shop_sessions + self.layout.billing_sessions;
        let share = f64::from(self.record.session - self.layout.first_session) / f64::from(sessions);
        Pace::new(control.rate, sessions, share, self.shared.now_us())
    }

    /// Waits for the due time; false if the workload changed its mind or the connection went away meanwhile.
    async fn idle_until(&mut self, due_us: u64) -> bool {
        let due = self.shared.origin + Duration::from_micros(due_us);
        if due > Instant::now() {
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                _ = self.control.changed() => {
                    self.control.mark_changed();
                    return false;
                }
            }
        }
        self.connection.as_ref().is_some_and(|connection| !connection.is_closed())
    }

    /// Gives the session a connection, again if need be, within the reconnect limit.
    async fn connected(&mut self) -> bool {
        if let Some(connection) = &self.connection
            && connection.is_closed()
        {
            self.drop_connection();
        }
        let (began, mut pause) = (Instant::now(), RECONNECT_FIRST);
        while self.connection.is_none() {
            let (session, book, dialect) = (self.record.session, self.record.book, self.record.dialect);
            match Connection::open(&self.config, book, session, dialect).await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.shared.connected.fetch_add(1, Ordering::Relaxed);
                }
                Err(fault) => {
                    self.shared.connect_failed(&fault);
                    if began.elapsed() > self.reconnect_limit || self.control.borrow().phase == Phase::Stop {
                        let Fault { sqlstate, message } = fault;
                        tracing::warn!(session, sqlstate, message, "gave up reconnecting");
                        return false;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECONNECT_LAST);
                }
            }
        }
        true
    }

    fn drop_connection(&mut self) {
        self.connection = None;
        self.shared.connected.fetch_sub(1, Ordering::Relaxed);
        self.shared.connections_dropped.fetch_add(1, Ordering::Relaxed);
    }

    async fn transaction(&mut self, due_us: u64) {
        let Some(connection) = &self.connection else { return };
        let (session, book) = (self.record.session, self.record.book);
        let seq = self.record.entries.len() as i64 + 1;
        let op = op::decide(&self.layout, book, session, seq, &self.live);
        let calls = calls(self.stock, i64::from(session), seq, op);

        let sent_us = self.shared.now_us().max(1);
        self.flight.due_us.store(due_us.max(1), Ordering::Relaxed);
        self.flight.sent_us.store(sent_us, Ordering::Relaxed);
        let work = async {
            match (op, calls.first()) {
                (Op::Browse, Some(call)) => connection.read(call).await,
                _ => connection.write(&calls).await,
            }
        };
        let result = match tokio::time::timeout(self.transaction_limit, work).await {
            Ok(result) => result,
            Err(_) => Err(self.out_of_time(op)),
        };
        let ended_us = self.shared.now_us();
        self.flight.sent_us.store(0, Ordering::Relaxed);

        let lost = result.as_ref().is_err_and(|failure| failure.lost);
        let (outcome, entry_no) = self.settle(seq, op, result);
        let lag_us = micros(sent_us.saturating_sub(due_us));
        let latency_us = micros(ended_us.saturating_sub(sent_us));
        self.record.entries.push(Entry { sent_us, lag_us, latency_us, entry_no, outcome });
        self.shared.take_in(outcome, lag_us, latency_us);
        if lost {
            self.drop_connection();
        }
    }

    /// The transaction took too long: whether its COMMIT went out is not known, unless it only read.
    fn out_of_time(&self, op: Op) -> Failure {
        let message = format!("no answer within {:?}", self.transaction_limit);
        let fault = Fault { sqlstate: "limit".into(), message };
        Failure { fault, lost: true, commit_sent: op != Op::Browse }
    }

    fn settle(&mut self, seq: i64, op: Op, result: Result<Answers, Failure>) -> (Outcome, i64) {
        let (outcome, entry_no) = match result {
            Ok(answers) => {
                let entry_no = self.look_at(seq, op, &answers);
                (Outcome::Acked, entry_no)
            }
            Err(failure) => {
                let unknown = failure.lost && failure.commit_sent;
                let index = self.record.fault(failure.fault);
                (if unknown { Outcome::Unknown(index) } else { Outcome::Failed(index) }, 0)
            }
        };
        if op != Op::Browse {
            match outcome {
                Outcome::Acked => self.last_seqs = vec![seq],
                Outcome::Unknown(_) => self.last_seqs.push(seq),
                Outcome::Failed(_) => {}
            }
        }
        self.live.settle(seq, op, outcome);
        (outcome, entry_no)
    }

    /// Compares the answers of a committed transaction with what only this session can have written.
    fn look_at(&mut self, seq: i64, op: Op, answers: &Answers) -> i64 {
        if op == Op::Browse {
            return 0;
        }
        let at = format!("session {}, transaction {seq} ({})", self.record.session, op.word());
        match answers.first().copied().flatten() {
            Some(previous) if self.last_seqs.contains(&previous) => {}
            previous => {
                let expected = &self.last_seqs;
                self.record
                    .anomaly(format!("{at} read {previous:?} as its own last write, expected {expected:?}"));
            }
        }
        if let Some(index) = answers.iter().skip(1).position(Option::is_none) {
            self.record
                .anomaly(format!("{at}: statement {} of its own row met not exactly one row", index + 2));
        }
        answers.last().copied().flatten().unwrap_or(0)
    }
}

/// Over an hour counts as an hour and a bit: an entry keeps 32 bits.
fn micros(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
