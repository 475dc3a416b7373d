//! Owns what a session holds on its server beside a transaction: settings, roles, prepared statements, and what cannot
//! be carried. Filled by observation of the server's own catalogues; messages only tell when to look again.
//! Refuses to know how the looking is done.

use std::collections::HashSet;

use pgteal_wire::message::tag::{back, front};
use pgteal_wire::tracker::{Fate, Kind, Reply};

use super::statements::Statements;
use super::text::{self, TagEffect};
use super::walk::Body;

/// What an observation found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// Settings that the session itself set, by name, in the server's own words.
    pub(super) settings: Vec<(Vec<u8>, Vec<u8>)>,
    /// `SET SESSION AUTHORIZATION`, when it differs from the login.
    pub(super) session_authorization: Option<Vec<u8>>,
    /// `SET ROLE`, when it is not `none`.
    pub(super) role: Option<Vec<u8>>,
    /// Statements made by SQL `PREPARE`: name and text.
    pub(super) prepared: Vec<(Vec<u8>, Vec<u8>)>,
    /// What cannot be carried, each in words that follow "this session holds".
    pub(super) pins: Vec<String>,
}

/// The ledger of one session.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    pub(super) statements: Statements,
    /// The last observation.
    pub(super) observed: Option<Observed>,
    /// Something was seen after the last observation that may have changed it.
    pub(super) dirty: bool,
    /// Grows with every observation.
    pub(super) revision: u64,
    /// Names of custom settings that the client's texts mention.
    pub(super) custom_names: Vec<String>,
    bound_in_unit: bool,
    names_in_binds: bool,
}

impl Holdings {
    /// How much of a client message's body the ledger wants to read; 0 is nothing.
    pub(super) const fn wants_of_client(&self, tag: u8, room: usize) -> usize {
        match tag {
            front::QUERY => text::SEARCHED,
            front::PARSE => room,
            front::CLOSE | front::BIND => 1024,
            _ => 0,
        }
    }

    /// A client message without a body of interest was forwarded.
    pub(super) fn client_tag(&mut self, tag: u8) {
        if tag == front::SYNC {
            self.statements.sync_sent(self.bound_in_unit);
            self.bound_in_unit = false;
        }
    }

    /// A client message was forwarded to its end.
    pub(super) fn client_message(&mut self, body: Body<'_>, fate: Fate, room: usize) {
        if fate == Fate::Ignored {
            return;
        }
        match body.tag {
            front::QUERY => {
                self.statements.query_sent();
                self.read_text(body.bytes, body.cut);
            }
            front::PARSE => {
                self.statements.parse_sent(body.bytes, body.cut, room);
                let text =
                    body.bytes.iter().position(|byte| *byte == 0).and_then(|end| body.bytes.get(end + 1..));
                self.read_text(text.unwrap_or_default(), body.cut);
            }
            front::BIND => {
                self.bound_in_unit = true;
                self.statements.bind_sent(body.bytes);
                if self.names_in_binds {
                    text::collect_dotted_names(body.bytes, &mut self.custom_names);
                    self.dirty = true;
                }
            }
            front::CLOSE => self.statements.close_sent(body.bytes),
            _ => {}
        }
    }

    fn read_text(&mut self, text: &[u8], cut: bool) {
        let text = text.get(..text.len().min(text::SEARCHED)).unwrap_or_default();
        if cut || text.len() == text::SEARCHED || text::may_touch_session(text) {
            self.dirty = true;
        }
        if text::may_set(text) {
            text::collect_dotted_names(text, &mut self.custom_names);
            // A name given as a parameter is in a Bind, now or later.
            self.names_in_binds |= text.windows(11).any(|word| word.eq_ignore_ascii_case(b"set_config("));
        }
    }

    /// A server message was received.
    pub(super) fn server_message(&mut self, tag: u8, body: &[u8], reply: Reply) {
        match reply {
            Reply::Completed(Kind::Parse | Kind::Close) => self.statements.confirmed(),
            Reply::Skipped { parses, closes } => self.statements.skipped(parses + closes),
            _ => {}
        }
        if tag == back::COMMAND_COMPLETE {
            match text::tag_effect(body) {
                TagEffect::None => {}
                TagEffect::Dirty => self.dirty = true,
                TagEffect::Discarded => {
                    self.statements.clear();
                    self.dirty = true;
                }
            }
        }
    }

    /// Takes an observation; `listed` are the protocol-level statements that the server has.
    pub(super) fn observe(&mut self, observed: Observed, listed: &HashSet<Vec<u8>>) {
        self.statements.retain(listed);
        if self.observed.as_ref() != Some(&observed) {
            self.observed = Some(observed);
            self.revision += 1;
        }
        self.dirty = false;
    }

    /// Whether the ledger is true to the server now.
    pub(super) const fn is_current(&self) -> bool {
        self.observed.is_some() && !self.dirty
    }

    /// Whether the last observation found something that cannot be carried.
    pub(super) fn is_pinned(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| !observed.pins.is_empty())
            || self.statements.has_uncarried()
    }

    /// What cannot be carried, in words that follow "this session holds"; empty when the session can move.
    pub(super) fn pins(&self) -> Vec<String> {
        let mut pins = self.observed.as_ref().map(|observed| observed.pins.clone()).unwrap_or_default();
        if let Some(name) = self.statements.uncarried() {
            pins.push(format!("a prepared statement too large to be kept ({name})"));
        }
        pins
    }
}
