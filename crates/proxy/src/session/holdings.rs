//! Owns what a session holds on its server beside a transaction: settings, roles, prepared statements, and what cannot
//! be carried. Filled by observation of the server's own catalogues; messages only tell when to look again: when a text
//! mentions a word that touches sessions, of PostgreSQL's own or of the database's vocabulary. While that is not known,
//! everything that runs makes the last observation old. Refuses to know how the looking is done.

use std::collections::HashMap;
use std::sync::Arc;

use pgteal_wire::frame::HEADER_LEN;
use pgteal_wire::message::tag::{back, front};
use pgteal_wire::tracker::{Fate, Kind, Reply};

use super::locks::Lock;
use super::observe::Findings;
use super::repertoire::Repertoire;
use super::statements::{Statements, name_of};
use super::text::{self, Said, TagEffect};
use super::vocabulary::{self, Vocabulary};
use super::walk::Body;

/// Names of custom settings that are kept per session.
const MAX_NAMES: usize = 64;
/// Statements that touch the session and are told apart.
const MAX_TOUCHING: usize = 1024;

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
    /// Channels that it listens to.
    pub(super) channels: Vec<Vec<u8>>,
    /// What cannot be carried, each in words that follow "this session holds".
    pub(super) pins: Vec<String>,
}

/// The ledger of one session.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    pub(super) statements: Statements,
    /// What it says, for rehearsals.
    pub(super) repertoire: Repertoire,
    /// The last observation.
    pub(super) observed: Option<Observed>,
    /// Its session advisory locks, of the last observation.
    pub(super) locks: Vec<Lock>,
    /// One of them is not to be had over there, in words that follow "this session holds".
    pub(super) unlockable: Option<String>,
    /// Its login cannot be repeated, in words that follow "this session holds".
    pub(super) outdated: Option<&'static str>,
    /// Something was seen after the last observation that may have changed it.
    pub(super) dirty: bool,
    /// SQL `PREPARE` or `DEALLOCATE` may have run after the last observation.
    prepared_anew: bool,
    /// Grows with every observation.
    pub(super) revision: u64,
    /// Names of custom settings that the client's texts mention.
    custom_names: Vec<String>,
    /// What texts are read by.
    words: Arc<Vocabulary>,
    /// The names of the vocabulary that the last observation asked for.
    asked: Arc<[String]>,
    /// Prepared statements whose execution may touch the session; true when they also set names given as parameters.
    touching: HashMap<Box<[u8]>, bool>,
    /// Commands tagged `SET` that are on the way and end with their transaction.
    local_sets: u32,
    /// Too many such statements to tell them apart.
    every_bind_touches: bool,
    /// More names than are kept: not all can be asked for.
    too_many_names: bool,
    /// The last observation did not ask for all names of the vocabulary.
    asked_in_part: bool,
    /// Functions of the database may have run in it, ever.
    ran_functions: bool,
    /// It has loaded a library, or said more than was read.
    marked: bool,
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
        match tag {
            front::SYNC => {
                self.statements.sync_sent();
            }
            // It names its function by a number.
            front::FUNCTION_CALL => self.may_run_functions(true),
            _ => {}
        }
    }

    /// Takes the vocabulary that texts are read by from now on. What the session holds is unclear when what it said since
    /// the last observation was read by another one, or when settings have names that were not asked for.
    pub(super) fn take_words(&mut self, words: Arc<Vocabulary>) {
        if Arc::ptr_eq(&self.words, &words) {
            return;
        }
        let read_by_another = !self.words.is_everything() && self.words != words;
        self.may_run_functions(read_by_another);
        self.dirty |= *words.names() != self.asked;
        self.words = words;
        if !self.words.is_everything() {
            self.read_statements_again();
        }
    }

    /// From now on nobody says what the words of the database mean.
    pub(super) fn forget_words(&mut self) {
        self.words = Arc::default();
    }

    /// Which prepared statements touch the session, by the vocabulary that is there now.
    fn read_statements_again(&mut self) {
        self.touching.clear();
        self.every_bind_touches = false;
        let named = self.statements.snapshot().into_values();
        let named = named.chain(self.statements.unconfirmed()).collect::<Vec<_>>().into_iter();
        let unnamed = self.statements.unnamed_now().map(Arc::from);
        for message in named.chain(unnamed) {
            let body = message.get(HEADER_LEN..).unwrap_or_default();
            let name = name_of(body);
            let text = name_of(body.get(name.len() + 1..).unwrap_or_default());
            if let (Some(by_parameter), _) = self.touches(text, false) {
                self.note_touching(name, by_parameter);
            }
        }
    }

    /// Names of custom settings to ask the server for.
    pub(super) fn names_to_ask(&self) -> Vec<&str> {
        let own = self.custom_names.iter().map(String::as_str);
        let others = self.words.names().iter().map(String::as_str);
        let others =
            others.filter(|name| !self.custom_names.iter().any(|known| known.eq_ignore_ascii_case(name)));
        own.chain(others).collect()
    }

    /// Something runs whose text, if it has one, was read.
    fn runs(&mut self) {
        self.may_run_functions(self.words.is_everything());
    }

    /// What may touch the session may do so by functions.
    fn may_run_functions(&mut self, may: bool) {
        self.dirty |= may;
        self.ran_functions |= may;
    }

    /// A client message was forwarded to its end.
    pub(super) fn client_message(&mut self, body: Body<'_>, fate: Fate, room: usize) {
        if fate == Fate::Ignored {
            return;
        }
        match body.tag {
            front::QUERY => {
                self.statements.query_sent();
                let whole = if body.cut { &[] } else { name_of(body.bytes) };
                self.repertoire.said(whole, b"\0\0");
                self.read_text(body.bytes, body.cut);
                self.runs();
            }
            front::PARSE => self.parse_sent(body, room),
            front::BIND => self.bind_sent(body.bytes),
            front::CLOSE => self.statements.close_sent(body.bytes),
            _ => {}
        }
    }

    fn parse_sent(&mut self, body: Body<'_>, room: usize) {
        self.statements.parse_sent(body.bytes, body.cut, room);
        let name = name_of(body.bytes);
        let text = body.bytes.get(name.len() + 1..).unwrap_or_default();
        let types = text.get(name_of(text).len() + 1..).unwrap_or_default();
        let text = name_of(text);
        if name.is_empty() && !body.cut {
            self.repertoire.said(text, types);
        }
        match self.read_text(text, body.cut) {
            Some(by_parameter) => self.note_touching(name, by_parameter),
            None if self.touching.is_empty() => {}
            None => drop(self.touching.remove(name)),
        }
    }

    fn note_touching(&mut self, name: &[u8], by_parameter: bool) {
        // A flood of such statements is not worth telling apart.
        if self.touching.len() >= MAX_TOUCHING {
            self.touching.clear();
            self.every_bind_touches = true;
        }
        self.touching.insert(name.into(), by_parameter);
    }

    fn bind_sent(&mut self, body: &[u8]) {
        self.runs();
        self.statements.bind_sent(body);
        if self.touching.is_empty() && !self.every_bind_touches {
            return;
        }
        let rest = body.get(name_of(body).len() + 1..).unwrap_or_default();
        let statement = name_of(rest);
        match self.touching.get(statement) {
            Some(true) => {
                self.may_run_functions(true);
                let values = rest.get(statement.len() + 1..).unwrap_or_default();
                self.keep_names(text::names_in_values(values));
            }
            Some(false) => self.may_run_functions(true),
            None => self.may_run_functions(self.every_bind_touches),
        }
    }

    /// Reads a text that was sent, and answers, when its execution may touch the session, whether names come as parameters.
    fn read_text(&mut self, text: &[u8], cut: bool) -> Option<bool> {
        // Whatever it says, what the session holds is unclear once it runs. When that is known better, prepared
        // statements are read again.
        if self.words.is_everything()
            && !cut
            && text.len() <= text::SEARCHED
            && !text::may_name_settings(text)
        {
            return None;
        }
        let (touches, said) = self.touches(text, cut);
        self.marked |= cut || text.len() > text::SEARCHED || said.stays;
        self.may_run_functions(touches.is_some());
        self.local_sets += u32::from(said.is_local);
        self.keep_names(said.names.into_iter());
        touches
    }

    fn touches(&self, text: &[u8], cut: bool) -> (Option<bool>, Said) {
        let searched = text.get(..text.len().min(text::SEARCHED)).unwrap_or_default();
        let said = text::read(searched, &self.words);
        let touches = said.touches || cut || text.len() > text::SEARCHED;
        (touches.then_some(said.names_by_parameter), said)
    }

    fn keep_names(&mut self, names: impl Iterator<Item = String>) {
        for name in names {
            if self.custom_names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                continue;
            }
            self.too_many_names |= self.custom_names.len() >= MAX_NAMES;
            if !self.too_many_names {
                self.dirty |= !self.asked.iter().any(|known| known.eq_ignore_ascii_case(&name));
                self.custom_names.push(name);
            }
        }
    }

    /// A server message was received.
    pub(super) fn server_message(&mut self, tag: u8, body: &[u8], reply: Reply) {
        match reply {
            Reply::Completed(Kind::Parse | Kind::Close) => self.statements.confirmed(),
            Reply::Skipped { parses, closes } => self.statements.skipped(parses + closes),
            // What failed leaves no tag: nothing may be credited to a later unit.
            Reply::UnitEnded(_) => {
                self.local_sets = 0;
                self.repertoire.answered();
            }
            _ => {}
        }
        if tag == back::ERROR {
            self.repertoire.failed();
        }
        if tag == back::COMMAND_COMPLETE {
            self.marked |= body.starts_with(b"LOAD");
            self.prepared_anew |= text::may_prepare(body);
            match text::tag_effect(body) {
                TagEffect::None => {}
                TagEffect::Dirty if self.local_sets > 0 && body.starts_with(b"SET") => self.local_sets -= 1,
                TagEffect::Dirty if body.starts_with(b"SET") => self.dirty = true,
                TagEffect::Dirty => self.may_run_functions(true),
                TagEffect::Discarded => {
                    self.statements.clear();
                    self.dirty = true;
                }
            }
        }
    }

    /// Takes an observation.
    pub(super) fn observe(&mut self, findings: Findings) {
        let Findings { observed, listed, locks } = findings;
        self.statements.retain(&listed);
        self.locks = locks;
        if self.observed.as_ref() != Some(&observed) {
            self.observed = Some(observed);
            self.revision += 1;
        }
        self.asked = Arc::clone(self.words.names());
        self.asked_in_part = self.words.has_too_many_names();
        self.dirty = false;
        self.prepared_anew = false;
    }

    /// The server does not tell what the session holds.
    pub(super) fn is_unobservable(&mut self, error: &str) {
        let pins = vec![format!("a state that its server does not tell ({error})")];
        self.observed = Some(Observed { pins, ..Observed::default() });
        self.locks.clear();
        self.revision += 1;
        self.dirty = false;
    }

    /// Whether the ledger is true to the server now.
    pub(super) const fn is_current(&self) -> bool {
        self.observed.is_some() && !self.dirty
    }

    /// The text of the SQL `PREPARE` of that name, if it is known.
    pub(super) fn prepared_by_sql(&self, name: &[u8]) -> Option<&[u8]> {
        let observed = self.observed.as_ref().filter(|_| !self.prepared_anew)?;
        observed.prepared.iter().find(|(known, _)| known == name).map(|(_, text)| &text[..])
    }

    /// Whether it hears what others notify.
    pub(super) fn is_listening(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| !observed.channels.is_empty())
    }

    /// What must stand on the new side before others are let in there, in words that follow "this session holds".
    pub(super) fn needs_presence(&self) -> Option<&'static str> {
        if self.is_listening() {
            return Some("LISTEN registrations");
        }
        (!self.locks.is_empty()).then_some("session advisory locks")
    }

    /// Whether it leaves on its server what `DISCARD ALL` does not undo, as far as its texts and command tags tell: a library
    /// that was loaded, a seed and a replication origin stay, and a custom setting that was set once is empty afterwards
    /// instead of missing.
    pub(super) fn leaves_traces(&self) -> bool {
        let by_functions = self.ran_functions && !self.words.names().is_empty();
        self.marked || self.too_many_names || !self.custom_names.is_empty() || by_functions
    }

    /// Functions may have set what nobody asks for: there are more names than that.
    fn has_unasked(&self) -> bool {
        self.ran_functions && (self.asked_in_part || self.words.has_too_many_names())
    }

    /// Whether the last observation found something that cannot be carried, or may have missed it.
    pub(super) fn is_pinned(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| !observed.pins.is_empty())
            || self.statements.has_uncarried()
            || self.outdated.is_some()
            || self.unlockable.is_some()
            || self.too_many_names
            || self.has_unasked()
    }

    /// What cannot be carried, in words that follow "this session holds"; empty when the session can move.
    pub(super) fn pins(&self) -> Vec<String> {
        let mut pins = self.observed.as_ref().map(|observed| observed.pins.clone()).unwrap_or_default();
        if let Some(name) = self.statements.uncarried() {
            pins.push(format!("a prepared statement too large to be kept ({name})"));
        }
        pins.extend(self.outdated.map(str::to_owned));
        pins.extend(self.unlockable.clone());
        if self.too_many_names {
            pins.push(format!("more than {MAX_NAMES} custom settings"));
        }
        if self.has_unasked() {
            pins.push(format!(
                "what functions set that know more than {} names of custom settings",
                vocabulary::MAX_NAMES
            ));
        }
        pins
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::vocabulary::Catalogue;
    use super::*;

    /// Of a database whose function knows that many names.
    fn words(names: usize) -> Arc<Vocabulary> {
        let mut catalogue = Catalogue::default();
        catalogue.touches(b"set_tenant");
        for n in 0..names {
            catalogue.says(b"set_tenant", format!("begin k := 'app.n{n}'; end").into_bytes());
        }
        Arc::new(catalogue.vocabulary())
    }

    fn says(holdings: &mut Holdings, sql: &str) {
        let bytes = [sql.as_bytes(), b"\0"].concat();
        let body = Body { tag: front::QUERY, bytes: &bytes, cut: false };
        holdings.client_message(body, Fate::Taken, 1024);
    }

    fn looked_at(holdings: &mut Holdings) {
        holdings.observe(Findings::default());
        assert!(holdings.is_current());
    }

    #[test]
    fn who_ran_functions_that_know_more_names_than_are_asked_for_is_pinned() {
        // What was said before the vocabulary was known, and after.
        for (names, before, after, expected) in [
            (vocabulary::MAX_NAMES, "select set_tenant(1)", "select set_tenant(2)", false),
            (vocabulary::MAX_NAMES + 1, "", "select 1", false),
            (vocabulary::MAX_NAMES + 1, "", "select set_tenant(2)", true),
            (vocabulary::MAX_NAMES + 1, "select what_is_not_known()", "", true),
        ] {
            let mut holdings = Holdings::default();
            for (sql, learns) in [(before, true), (after, false)] {
                if !sql.is_empty() {
                    says(&mut holdings, sql);
                }
                if learns {
                    holdings.take_words(words(names));
                }
                looked_at(&mut holdings);
            }
            let told = holdings.pins();
            assert_eq!((holdings.is_pinned(), told.len()), (expected, usize::from(expected)), "{told:?}");
            // It is not carried the better for nobody knowing the names any more.
            holdings.forget_words();
            assert_eq!(holdings.is_pinned(), expected);
        }
    }

    #[test]
    fn who_names_more_settings_than_are_kept_is_pinned() {
        let mut holdings = Holdings::default();
        for n in 0..=MAX_NAMES {
            assert!(!holdings.is_pinned(), "{n}");
            says(&mut holdings, &format!("set app.n{n} = 1"));
        }
        assert!(holdings.is_pinned());
    }
}
