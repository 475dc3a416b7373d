//! Owns the session's protocol-level prepared statements: the Parse messages as the client sent them, by name, true
//! to what the server confirmed. Refuses to know SQL.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use pgteal_wire::frame::HEADER_LEN;

/// One prepared statement: the whole Parse message.
pub(super) type ParseMessage = Arc<[u8]>;

/// What was forwarded and not yet confirmed, in order.
#[derive(Debug)]
enum Pending {
    Parse(Box<[u8]>, Option<ParseMessage>),
    ParseUnnamed,
    Close(Box<[u8]>),
    ClosePortal,
}

/// The statements of one session.
#[derive(Debug, Default)]
pub(super) struct Statements {
    known: HashMap<Box<[u8]>, ParseMessage>,
    /// Names whose text was too large to keep.
    too_large: HashSet<Box<[u8]>>,
    /// Names of statements that no server takes any more: their tables are gone, say. To execute one is an error before
    /// and after a move.
    broken: HashSet<Box<[u8]>>,
    /// Names of statements that were carried to the server and not bound there yet. When a table was altered since they were
    /// parsed there, the server says so when they are.
    unproven: HashSet<Box<[u8]>>,
    pending: VecDeque<Pending>,
    bytes: usize,
    /// Grows with every change.
    pub(super) revision: u64,
    unnamed: Unnamed,
}

/// The unnamed statement. It is carried only when the client parses it in one unit and binds it in a later one, as some
/// drivers do; all others parse it anew each time.
#[derive(Debug, Default)]
struct Unnamed {
    message: Vec<u8>,
    /// Parsed and confirmed, and no Query since.
    alive: bool,
    /// The client was seen to leave it for a later unit.
    left_over: bool,
    parsed_in_unit: bool,
    bound_in_unit: bool,
}

impl Unnamed {
    /// Forgets the message; what a large one took is given back.
    fn empty(&mut self) {
        self.message.clear();
        self.message.shrink_to(ROOMY);
    }
}

/// The zero-terminated string at the start of a body, or all of it when its end was cut off.
pub(super) fn name_of(body: &[u8]) -> &[u8] {
    memchr::memchr(0, body).and_then(|end| body.get(..end)).unwrap_or(body)
}

/// Capacity that the unnamed statement's message keeps from one to the next, in bytes.
const ROOMY: usize = 4096;

fn put_message(out: &mut Vec<u8>, body: &[u8]) {
    let len = u32::try_from(body.len() + HEADER_LEN - 1).unwrap_or(u32::MAX);
    out.reserve_exact(body.len() + HEADER_LEN);
    out.push(b'P');
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(body);
}

impl Statements {
    /// A Parse was forwarded and will be acted on. `cut`: its body is longer than what was kept.
    pub(super) fn parse_sent(&mut self, body: &[u8], cut: bool, room: usize) {
        let name = name_of(body);
        if name.is_empty() {
            self.forget_unproven(name);
            self.unnamed.empty();
            if !cut {
                put_message(&mut self.unnamed.message, body);
            }
            self.unnamed.alive = !cut;
            self.unnamed.parsed_in_unit = true;
            self.pending.push_back(Pending::ParseUnnamed);
            return;
        }
        let keep = !cut && self.bytes + body.len() <= room;
        let kept = keep.then(|| {
            let mut message = Vec::new();
            put_message(&mut message, body);
            message.into()
        });
        self.pending.push_back(Pending::Parse(name.into(), kept));
    }

    /// A Bind was forwarded.
    pub(super) fn bind_sent(&mut self, body: &[u8]) {
        let statement = body.get(name_of(body).len() + 1..).unwrap_or_default();
        if name_of(statement).is_empty() {
            // Bound without a Parse in the same unit: this client relies on the statement staying.
            self.unnamed.left_over |= !self.unnamed.parsed_in_unit;
            self.unnamed.bound_in_unit = true;
        }
    }

    /// A Close was forwarded and will be acted on.
    pub(super) fn close_sent(&mut self, body: &[u8]) {
        let pending = match body.split_first() {
            Some((b'S', rest)) => Pending::Close(name_of(rest).into()),
            _ => Pending::ClosePortal,
        };
        self.pending.push_back(pending);
    }

    /// A simple query was forwarded: it destroys the unnamed statement.
    pub(super) fn query_sent(&mut self) {
        self.unnamed.alive = false;
        self.forget_unproven(b"");
        self.unnamed.empty();
    }

    /// In all but some sessions none is: then not even a name is hashed.
    fn forget_unproven(&mut self, name: &[u8]) {
        if !self.unproven.is_empty() {
            self.unproven.remove(name);
        }
    }

    /// A unit's Sync was forwarded.
    pub(super) fn sync_sent(&mut self) {
        if self.unnamed.parsed_in_unit && !self.unnamed.bound_in_unit {
            self.unnamed.left_over = true;
        }
        self.unnamed.parsed_in_unit = false;
        self.unnamed.bound_in_unit = false;
    }

    /// The server confirmed the oldest pending Parse or Close.
    pub(super) fn confirmed(&mut self) {
        match self.pending.pop_front() {
            Some(Pending::Parse(name, Some(text))) => {
                self.bytes += text.len();
                self.too_large.remove(&name);
                self.broken.remove(&name);
                self.unproven.remove(&name);
                if let Some(old) = self.known.insert(name, text) {
                    self.bytes -= old.len();
                }
                self.revision += 1;
            }
            Some(Pending::Parse(name, None)) => {
                self.forget(&name);
                self.too_large.insert(name);
                self.revision += 1;
            }
            Some(Pending::Close(name)) => {
                self.forget(&name);
                self.revision += 1;
            }
            Some(Pending::ParseUnnamed | Pending::ClosePortal) | None => {}
        }
    }

    /// The server skipped the oldest pending ones.
    pub(super) fn skipped(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(Pending::ParseUnnamed) = self.pending.pop_front() {
                self.unnamed.alive = false;
            }
        }
    }

    fn forget(&mut self, name: &[u8]) {
        self.too_large.remove(name);
        self.broken.remove(name);
        self.unproven.remove(name);
        if let Some(old) = self.known.remove(name) {
            self.bytes -= old.len();
        }
    }

    /// All of them were carried to another server.
    pub(super) fn carried(&mut self) {
        self.unproven = self.known.keys().cloned().collect();
        if self.unnamed().is_some() {
            self.unproven.insert(Box::default());
        }
    }

    /// Whether some were carried and not bound since.
    pub(super) fn has_unproven(&self) -> bool {
        !self.unproven.is_empty()
    }

    /// Whether this one was.
    pub(super) fn is_unproven(&self, name: &[u8]) -> bool {
        self.unproven.contains(name)
    }

    /// It was bound.
    pub(super) fn is_proven(&mut self, name: &[u8]) {
        self.unproven.remove(name);
    }

    /// `DISCARD ALL` or `DEALLOCATE ALL` happened.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.too_large.clear();
        self.broken.clear();
        self.unproven.clear();
        self.bytes = 0;
        self.revision += 1;
    }

    /// Keeps only what the server's catalogue lists.
    pub(super) fn retain(&mut self, listed: &HashSet<Vec<u8>>) {
        let before = self.known.len() + self.too_large.len();
        self.known.retain(|name, _| listed.contains(&name[..]));
        self.too_large.retain(|name| listed.contains(&name[..]));
        self.bytes = self.known.values().map(|text| text.len()).sum();
        if before != self.known.len() + self.too_large.len() {
            self.revision += 1;
        }
    }

    /// A statement that is there and cannot be carried because its text was too large to keep.
    pub(super) fn uncarried(&self) -> Option<String> {
        self.too_large.iter().next().map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// Whether there is such a statement.
    pub(super) fn has_uncarried(&self) -> bool {
        !self.too_large.is_empty()
    }

    /// Everything that a new upstream must know, by name.
    pub(super) fn snapshot(&self) -> HashMap<Box<[u8]>, ParseMessage> {
        let sound = self.known.iter().filter(|(name, _)| !self.broken.contains(*name));
        sound.map(|(name, message)| (name.clone(), message.clone())).collect()
    }

    /// The Parse messages that are on their way.
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = ParseMessage> + '_ {
        self.pending.iter().filter_map(|pending| match pending {
            Pending::Parse(_, message) => message.clone(),
            _ => None,
        })
    }

    /// The Parse message of a statement.
    pub(super) fn get(&self, name: &[u8]) -> Option<ParseMessage> {
        if name.is_empty() { self.unnamed().map(Arc::from) } else { self.known.get(name).cloned() }
    }

    /// No server takes this statement any more.
    pub(super) fn is_broken(&mut self, name: Box<[u8]>) {
        if name.is_empty() {
            self.unnamed.alive = false;
        } else {
            self.broken.insert(name);
        }
        self.revision += 1;
    }

    /// The unnamed statement, when there is one.
    pub(super) fn unnamed_now(&self) -> Option<&[u8]> {
        self.unnamed.alive.then_some(&self.unnamed.message)
    }

    /// The unnamed statement, when this client may bind it in a later unit.
    pub(super) fn unnamed(&self) -> Option<&[u8]> {
        (self.unnamed.alive && self.unnamed.left_over).then_some(&self.unnamed.message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn names(statements: &Statements) -> Vec<String> {
        let mut names: Vec<_> =
            statements.snapshot().keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_the_server_confirmed_is_known() {
        let mut s = Statements::default();
        s.parse_sent(b"a\0select 1\0\0\0", false, 1000);
        s.parse_sent(b"b\0select 2\0\0\0", false, 1000);
        s.close_sent(b"Sa\0");
        assert!(names(&s).is_empty());
        s.confirmed();
        assert_eq!(names(&s), ["a"]);
        s.skipped(2);
        assert_eq!(names(&s), ["a"], "b failed, the Close never happened");
        assert_eq!(&*s.snapshot()[&b"a"[..]], b"P\0\0\0\x11a\0select 1\0\0\0");
        s.close_sent(b"Sa\0");
        s.confirmed();
        assert!(names(&s).is_empty());
        assert_eq!(s.bytes, 0);
    }

    #[test]
    fn a_large_unnamed_statement_takes_no_memory_once_it_is_gone() {
        let mut s = Statements::default();
        let large = [&[0], &[b'x'; 100_000][..], &[0, 0, 0]].concat();
        let ends: [fn(&mut Statements); 2] =
            [Statements::query_sent, |s| s.parse_sent(b"\0select 1\0\0\0", false, 1000)];
        for end in ends {
            s.parse_sent(&large, false, 1_000_000);
            assert_eq!(s.unnamed.message.len(), large.len() + HEADER_LEN);
            end(&mut s);
            assert!(s.unnamed.message.capacity() <= ROOMY, "{}", s.unnamed.message.capacity());
        }
    }

    #[test]
    fn what_is_too_large_is_named_until_it_is_closed() {
        let mut s = Statements::default();
        s.parse_sent(b"big\0select", true, 1000);
        s.confirmed();
        assert_eq!(s.uncarried().as_deref(), Some("big"));
        s.close_sent(b"Sbig\0");
        s.confirmed();
        assert_eq!(s.uncarried(), None);
    }

    #[test]
    fn the_unnamed_statement_is_carried_only_for_clients_that_leave_it() {
        let mut s = Statements::default();
        s.parse_sent(b"\0select 1\0\0\0", false, 1000);
        s.bind_sent(b"\0\0");
        s.sync_sent();
        assert_eq!(s.unnamed(), None);
        s.parse_sent(b"\0select 2\0\0\0", false, 1000);
        s.bind_sent(b"\0named\0");
        s.sync_sent();
        assert!(s.unnamed().is_some(), "what was bound is another one");
        s.query_sent();
        assert_eq!(s.unnamed(), None);
        s.parse_sent(b"\0select 3\0\0\0", false, 1000);
        assert_eq!(s.get(b"").as_deref(), s.unnamed());
        s.is_broken(Box::default());
        assert_eq!(s.unnamed(), None);
    }
}
