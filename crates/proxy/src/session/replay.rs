//! Owns the bringing of an upstream to a session's state: settings, roles, prepared statements, in one pipeline.
//! Refuses to know where the state came from.

use std::collections::HashMap;

use bytes::BytesMut;
use pgteal_wire::frame::HEADER_LEN;
use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_query, put_sync};
use pgteal_wire::message::tag::front;
use pgteal_wire::message::{put, put_cstr};
use tokio::io::AsyncWriteExt;

use super::holdings::{Holdings, Observed};
use super::locks::{self, Lock, LockError};
use super::repertoire::{Line, Shape};
use super::statements::{ParseMessage, name_of};
use crate::upstream::{TalkError, Upstream};

/// The state an upstream is to have.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) observed: Observed,
    pub(super) revision: u64,
    pub(super) statements: HashMap<Box<[u8]>, ParseMessage>,
    pub(super) statements_revision: u64,
    pub(super) unnamed: Option<Vec<u8>>,
    /// Session advisory locks that it holds; empty while clients work.
    pub(super) locks: Vec<Lock>,
    /// What has been rehearsed on the upstream.
    pub(super) rehearsed: Vec<Shape>,
    /// The revision of the session's repertoire that this was made of.
    pub(super) repertoire_revision: u64,
}

/// Settings that cut short or keep waiting what comes behind them: set when nothing else is left to be, in this order.
const HASTY: [&[u8]; 4] =
    [b"lock_timeout", b"transaction_timeout", b"statement_timeout", b"default_transaction_deferrable"];
/// The statement by which settings are replayed: not the unnamed one, which may be the client's. Closed each time.
const SET: &[u8] = b"pgteal/set";

/// Statements rehearsed on one upstream.
const REHEARSALS: usize = 48;

impl State {
    /// The state of a session as far as it was observed.
    pub(super) fn of(holdings: &Holdings) -> Self {
        Self {
            observed: holdings.observed.clone().unwrap_or_default(),
            revision: holdings.revision,
            statements: holdings.statements.snapshot(),
            statements_revision: holdings.statements.revision,
            unnamed: holdings.statements.unnamed().map(<[u8]>::to_vec),
            locks: Vec::new(),
            rehearsed: Vec::new(),
            repertoire_revision: holdings.repertoire.revision,
        }
    }

    /// Whether the session has said something new since, and there is room to rehearse it.
    pub(super) fn may_rehearse(&self, holdings: &Holdings) -> bool {
        self.repertoire_revision != holdings.repertoire.revision
            && self.rehearsed.len() < REHEARSALS
            && !holdings.repertoire.is_muted()
    }

    /// What is to be rehearsed to be ready for this session: what it says, and its prepared statements. These are
    /// rehearsed as copies, so that the plans that the server counts for them are the client's own.
    pub(super) fn lines(&self, holdings: &Holdings) -> Vec<Line> {
        if holdings.repertoire.is_muted() {
            return Vec::new();
        }
        let named = self.statements.values().filter_map(|message| {
            let body = message.get(HEADER_LEN..)?;
            Line::new(body.get(name_of(body).len() + 1..)?)
        });
        let mut lines: Vec<Line> = Vec::new();
        for line in holdings.repertoire.lines().into_iter().chain(named) {
            let known = self.rehearsed.contains(&line.shape) || lines.iter().any(|l| l.shape == line.shape);
            if !known && self.rehearsed.len() + lines.len() < REHEARSALS {
                lines.push(line);
            }
        }
        lines
    }

    /// Whether an upstream in this state is what the session needs now.
    pub(super) fn fits(&self, holdings: &Holdings) -> bool {
        holdings.is_current()
            && self.revision == holdings.revision
            && self.statements_revision == holdings.statements.revision
            && self.unnamed.as_deref() == holdings.statements.unnamed()
    }

    /// Whether nothing was confirmed or observed since this state was taken.
    pub(super) fn same_revisions(&self, holdings: &Holdings) -> bool {
        self.revision == holdings.revision && self.statements_revision == holdings.statements.revision
    }

    /// Whether nothing has to be sent to get from this state to the other, whatever happened in between.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        self.observed == other.observed
            && self.statements == other.statements
            && self.unnamed == other.unnamed
            && self.locks == other.locks
    }
}

/// Why an upstream cannot be brought to the state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ReplayError {
    #[error(transparent)]
    Talk(#[from] TalkError),
    #[error("{what}: {message}")]
    Refused { what: String, message: String },
    #[error(transparent)]
    Locks(#[from] LockError),
    /// Everything else is there; these statements are not.
    #[error("{}", first(.0))]
    Statements(Vec<RefusedStatement>),
}

/// A prepared statement that a server would not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedStatement {
    pub(super) name: Box<[u8]>,
    message: String,
}

impl std::fmt::Display for RefusedStatement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "prepared statement {}: {}", String::from_utf8_lossy(&self.name), self.message)
    }
}

pub(super) fn first(refused: &[RefusedStatement]) -> String {
    refused.first().map(ToString::to_string).unwrap_or_default()
}

/// The pipeline: each unit ends with one `ReadyForQuery` and has a name for errors.
#[derive(Default)]
struct Pipeline {
    bytes: BytesMut,
    units: Vec<Unit>,
}

enum Unit {
    Named(String),
    Setting(Vec<u8>, Vec<u8>),
    Statement(Box<[u8]>),
}

impl Pipeline {
    fn setting(&mut self, name: &[u8], value: &[u8]) {
        // One that was refused has left it open: the rest of its unit was skipped.
        self.put_close(SET);
        put_parse(
            &mut self.bytes,
            SET,
            b"SELECT pg_catalog.set_config($1::pg_catalog.text, $2::pg_catalog.text, false)",
        );
        put_bind(&mut self.bytes, SET, &[Some(name), Some(value)]);
        put_execute(&mut self.bytes);
        self.put_close(SET);
        put_sync(&mut self.bytes);
        self.units.push(Unit::Setting(name.to_vec(), value.to_vec()));
    }

    fn query(&mut self, what: String, sql: &[u8]) {
        put(&mut self.bytes, front::QUERY, |out| put_cstr(out, sql));
        self.units.push(Unit::Named(what));
    }

    fn statement(&mut self, name: &[u8], message: &[u8]) {
        self.bytes.extend_from_slice(message);
        put_sync(&mut self.bytes);
        self.units.push(Unit::Statement(name.into()));
    }

    fn put_close(&mut self, name: &[u8]) {
        put(&mut self.bytes, front::CLOSE, |out| {
            out.extend_from_slice(b"S");
            put_cstr(out, name);
        });
    }

    fn close(&mut self, name: &[u8]) {
        self.put_close(name);
        put_sync(&mut self.bytes);
        self.units.push(Unit::Named("close".into()));
    }

    fn observed(&mut self, observed: &Observed) {
        // The encoding first: every later value is spelled in it.
        let is_encoding = |name: &[u8]| name.eq_ignore_ascii_case(b"client_encoding");
        for (name, value) in observed.settings.iter().filter(|(name, _)| is_encoding(name)) {
            self.setting(name, value);
        }
        for (name, value) in
            observed.settings.iter().filter(|(name, _)| !is_encoding(name) && !is_hasty(name))
        {
            self.setting(name, value);
        }
        if let Some(user) = &observed.session_authorization {
            self.setting(b"session_authorization", user);
        }
        if let Some(role) = &observed.role {
            self.setting(b"role", role);
        }
        for (name, text) in &observed.prepared {
            self.query(format!("prepared statement {}", String::from_utf8_lossy(name)), text);
        }
        if !observed.channels.is_empty() {
            let mut sql = Vec::new();
            for channel in &observed.channels {
                sql.extend_from_slice(b"LISTEN ");
                put_quoted(&mut sql, channel);
                sql.push(b';');
            }
            self.query("LISTEN".into(), &sql);
        }
    }
}

/// A name as SQL spells it, in the encoding that it came in: no encoding of clients has a quote inside a character.
fn put_quoted(sql: &mut Vec<u8>, name: &[u8]) {
    sql.push(b'"');
    for byte in name {
        sql.extend_from_slice(if *byte == b'"' { b"\"\"" } else { std::slice::from_ref(byte) });
    }
    sql.push(b'"');
}

fn is_hasty(name: &[u8]) -> bool {
    HASTY.contains(&name)
}

/// Brings an upstream from the state it has (`None`: just logged in) to `target`, in one round trip. Nothing is sent when
/// nothing differs.
///
/// # Errors
/// The first refusal of the server, named; or the loss of the connection.
pub(super) async fn replay(
    upstream: &mut Upstream,
    from: Option<&State>,
    target: &State,
) -> Result<(), ReplayError> {
    locks::bring(upstream, from.map_or(&[], |from| &from.locks), &target.locks).await?;
    let mut pipeline = Pipeline::default();
    let empty = HashMap::new();
    let (have, observed_differs) = match from {
        None => (&empty, target.observed != Observed::default()),
        Some(from) => (&from.statements, from.observed != target.observed),
    };
    for name in have.keys().filter(|name| !target.statements.contains_key(*name)) {
        pipeline.close(name);
    }
    if let Some(from) = from
        && observed_differs
    {
        put_query(&mut pipeline.bytes, "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL");
        pipeline.units.push(Unit::Named("reset".into()));
        for (name, _) in &from.observed.prepared {
            let mut sql = b"DEALLOCATE ".to_vec();
            put_quoted(&mut sql, name);
            pipeline.query("deallocate".into(), &sql);
        }
        if !from.observed.channels.is_empty() {
            pipeline.query("unlisten".into(), b"UNLISTEN *");
        }
    }
    if observed_differs {
        pipeline.observed(&target.observed);
    }
    for (name, message) in &target.statements {
        match have.get(name) {
            Some(old) if old == message => {}
            Some(_) => {
                pipeline.close(name);
                pipeline.statement(name, message);
            }
            None => pipeline.statement(name, message),
        }
    }
    if let Some(message) = &target.unnamed {
        pipeline.statement(b"", message);
    }
    let refused = run(upstream, pipeline).await?;
    let refused = again(upstream, refused, target).await?;
    let mut hasty = Pipeline::default();
    for last in HASTY.iter().filter(|_| observed_differs) {
        for (name, value) in target.observed.settings.iter().filter(|(name, _)| name == last) {
            hasty.setting(name, value);
        }
    }
    first_of(refused.into_iter().chain(run(upstream, hasty).await?))
}

/// Settings that were refused are set again by who may. Answers those that nobody may set.
async fn again(
    upstream: &mut Upstream,
    refused: Vec<Setting>,
    target: &State,
) -> Result<Vec<Setting>, ReplayError> {
    if refused.is_empty() {
        return Ok(refused);
    }
    // Who logged in may not set these; the session's role may, or the user that it took on before it.
    let refused = run(upstream, settings(&refused)).await?;
    let (Some(role), false) = (&target.observed.role, refused.is_empty()) else { return Ok(refused) };
    run(upstream, settings(&[no_role()])).await?;
    let mut refused = run(upstream, settings(&refused)).await?;
    // Without its role a session would have the rights of who logged in.
    refused.extend(run(upstream, settings(&[Setting { value: role.clone(), ..no_role() }])).await?);
    Ok(refused)
}

/// A setting, and why it was refused last.
#[derive(Debug, Clone, Default)]
struct Setting {
    name: Vec<u8>,
    value: Vec<u8>,
    message: String,
}

fn no_role() -> Setting {
    Setting { name: b"role".to_vec(), value: b"none".to_vec(), message: String::new() }
}

fn settings(all: &[Setting]) -> Pipeline {
    let mut pipeline = Pipeline::default();
    for setting in all {
        pipeline.setting(&setting.name, &setting.value);
    }
    pipeline
}

fn first_of(mut refused: impl Iterator<Item = Setting>) -> Result<(), ReplayError> {
    refused.next().map_or(Ok(()), |Setting { name, message, .. }| {
        let what = format!("setting {}", String::from_utf8_lossy(&name));
        Err(ReplayError::Refused { what, message })
    })
}

/// Answers the settings that were refused.
async fn run(upstream: &mut Upstream, pipeline: Pipeline) -> Result<Vec<Setting>, ReplayError> {
    let mut settings = Vec::new();
    // Written in slices of whole units, each answered before the next, so that neither side can fill up on the other.
    let (mut refused, mut statements) = (None, Vec::new());
    let mut aside = BytesMut::new();
    let mut units = pipeline.units.into_iter();
    let mut bytes = pipeline.bytes;
    while !bytes.is_empty() {
        let (slice, count) = next_slice(&mut bytes);
        upstream.stream.write_all(&slice).await.map_err(TalkError::from)?;
        upstream.stream.flush().await.map_err(TalkError::from)?;
        for unit in units.by_ref().take(count) {
            let Some(message) = upstream.read_unit(&mut aside).await?.error else { continue };
            match unit {
                Unit::Statement(name) => statements.push(RefusedStatement { name, message }),
                Unit::Setting(name, value) => settings.push(Setting { name, value, message }),
                Unit::Named(what) => {
                    refused.get_or_insert(ReplayError::Refused { what, message });
                }
            }
        }
    }
    match refused {
        Some(refused) => Err(refused),
        None if statements.is_empty() => Ok(settings),
        None => Err(ReplayError::Statements(statements)),
    }
}

/// Splits off whole units, about 32 kB of them or one larger one; answers how many.
fn next_slice(bytes: &mut BytesMut) -> (BytesMut, usize) {
    const SLICE: usize = 32 * 1024;
    let (mut end, mut units) = (0, 0);
    for frame in pgteal_wire::frame::Frames::new(bytes, usize::MAX).flatten() {
        end += frame.whole.len();
        if matches!(frame.tag, front::SYNC | front::QUERY) {
            units += 1;
            if end >= SLICE {
                break;
            }
        }
    }
    (bytes.split_to(end), units)
}

/// Asks a server again for statements that another one refused. Answers those that this one takes.
///
/// # Errors
/// When the connection is lost.
pub(super) async fn taken_here(
    upstream: &mut Upstream,
    refused: &[(RefusedStatement, ParseMessage)],
    aside: &mut BytesMut,
) -> Result<Vec<RefusedStatement>, TalkError> {
    const NAME: &[u8] = b"pgteal_asks_again";
    let mut taken = Vec::new();
    for (statement, message) in refused {
        let mut pipeline = Pipeline::default();
        put(&mut pipeline.bytes, front::PARSE, |out| {
            put_cstr(out, NAME);
            let body = message.get(HEADER_LEN..).unwrap_or_default();
            let text = body.iter().position(|byte| *byte == 0).and_then(|end| body.get(end + 1..));
            out.extend_from_slice(text.unwrap_or_default());
        });
        put_sync(&mut pipeline.bytes);
        pipeline.close(NAME);
        upstream.stream.write_all(&pipeline.bytes).await?;
        upstream.stream.flush().await?;
        if upstream.read_unit(aside).await?.error.is_none() {
            taken.push(statement.clone());
        }
        upstream.read_unit(aside).await?;
    }
    Ok(taken)
}
