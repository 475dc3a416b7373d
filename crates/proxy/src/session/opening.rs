//! Owns what the texts of a transaction's beginning say of the statement that the server refused: whether it is a write that
//! cannot have done anything before, and whether the client itself began the transaction read-only. Refuses to guess: what
//! it cannot read is no such write.

use std::collections::HashMap;

use pgteal_wire::frame::{Frames, HEADER_LEN};
use pgteal_wire::message::tag::front;

use super::again::bound;
use super::statements::{Statements, name_of};
use super::text::in_word;

/// Statements whose first act is to fire their table's triggers before each statement, and that a read-only transaction refuses
/// before that. A `SELECT`, a `WITH`, an `EXPLAIN`, an `EXECUTE` may run functions first, a `CALL` or `DO` may commit,
/// a `COPY` may start a program.
const WRITES: [&[u8]; 5] = [b"insert", b"update", b"delete", b"merge", b"truncate"];

/// The beginning of a transaction, up to its first statement.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Opening {
    /// The first statement is a plain write.
    pub(super) writes: bool,
    /// The client wants this transaction to be read-only.
    pub(super) is_read_only: bool,
}

impl Opening {
    /// Reads what was said; statements that are not parsed in it are in the session's ledger.
    pub(super) fn read(said: &[u8], ledger: &Statements) -> Self {
        let mut opening = Self::default();
        let (mut parsed, mut portals) = (HashMap::new(), HashMap::new());
        let frames = || Frames::new(said, usize::MAX).flatten();
        // The ledger has the unnamed statement that came last, which may be a later one.
        let has_unnamed = frames().any(|frame| frame.tag == front::PARSE && name_of(frame.body()).is_empty());
        for frame in frames() {
            let body = frame.body();
            let text = match frame.tag {
                front::QUERY => Some(name_of(body).to_vec()),
                front::PARSE => {
                    parsed.insert(name_of(body), text_of(body).to_vec());
                    continue;
                }
                front::BIND => {
                    let name = bound(body);
                    let known = || match name {
                        b"" if has_unnamed => None,
                        b"" => ledger.unnamed_now().map(text_of_message),
                        _ => ledger.get(name).map(|message| text_of_message(&message)),
                    };
                    portals.insert(name_of(body), parsed.get(name).cloned().or_else(known));
                    continue;
                }
                front::EXECUTE => portals.get(name_of(body)).cloned().flatten(),
                _ => continue,
            };
            let Some(text) = text else { return opening };
            if opening.ends_with(&text) {
                return opening;
            }
        }
        opening
    }

    /// Reads a text; true when it has the first statement that is not `BEGIN`.
    fn ends_with(&mut self, text: &[u8]) -> bool {
        let mut begins = false;
        let mut before = Vec::new();
        for word in Words(text) {
            let word = word.to_ascii_lowercase();
            if word == b";" {
                begins = false;
            } else if begins {
                self.is_read_only |= before == b"read" && word == b"only";
            } else if word == b"begin" || word == b"start" {
                begins = true;
            } else {
                self.writes = WRITES.contains(&&word[..]);
                return true;
            }
            before = word;
        }
        false
    }
}

fn text_of(body: &[u8]) -> &[u8] {
    name_of(body.get(name_of(body).len() + 1..).unwrap_or_default())
}

fn text_of_message(message: &[u8]) -> Vec<u8> {
    text_of(message.get(HEADER_LEN..).unwrap_or_default()).to_vec()
}

/// The words of a text, and each other character by itself; no blanks and comments.
struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            self.0 = self.0.trim_ascii_start();
            let length = match self.0 {
                [] => return None,
                [b'-', b'-', ..] => memchr::memchr2(b'\n', b'\r', self.0).unwrap_or(self.0.len()),
                [b'/', b'*', ..] => comment(self.0),
                text => {
                    let word = text.iter().take_while(|byte| in_word(**byte)).count().max(1);
                    let (word, rest) = text.split_at(word);
                    self.0 = rest;
                    return Some(word);
                }
            };
            self.0 = self.0.get(length..).unwrap_or_default();
        }
    }
}

/// How long the comment is that begins here; comments may have comments in them.
fn comment(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0u32, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        match rest {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use bytes::BytesMut;
    use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_query, put_sync};

    use super::*;

    #[test]
    fn what_a_query_begins_with() {
        for (text, writes, is_read_only) in [
            ("insert into t values (1)", true, false),
            ("\n-- call p()\n /* do /* it */ ; */ Update t set a = 1", true, false),
            ("begin; start transaction isolation level serializable, read write;delete from t", true, false),
            ("begin /* ; insert */; call p()", false, false),
            ("begin read only; insert into t values (1)", true, true),
            ("START TRANSACTION READ \n /**/ ONLY; insert into t values (1)", true, true),
            ("begin; select 'read only'; insert into t values (1)", false, false),
            ("call p()", false, false),
            ("do 'begin end'", false, false),
            ("with w as (insert into t values (1)) select pg_advisory_lock(7)", false, false),
            ("execute p(pg_advisory_lock(7))", false, false),
            ("explain analyze insert into t values (1)", false, false),
            ("copy t from program 'date'", false, false),
            ("create table t ()", false, false),
            ("(select 1)", false, false),
            ("", false, false),
        ] {
            let mut said = BytesMut::new();
            put_query(&mut said, text);
            let expected = Opening { writes, is_read_only };
            assert_eq!(Opening::read(&said, &Statements::default()), expected, "{text}");
        }
    }

    #[test]
    fn which_statement_is_executed_first() {
        let parts = |texts: &[(&str, &str)], binds: &[&str]| {
            let mut said = BytesMut::new();
            for (name, text) in texts {
                put_parse(&mut said, name.as_bytes(), text.as_bytes());
            }
            for name in binds {
                put_bind::<&[u8]>(&mut said, name.as_bytes(), &[]);
                put_execute(&mut said);
            }
            put_sync(&mut said);
            Opening::read(&said, &Statements::default()).writes
        };
        let known = [("b", "begin"), ("w", "insert into t values (1)"), ("s", "select f()")];
        assert!(parts(&known, &["w"]));
        assert!(parts(&known, &["b", "w", "s"]));
        assert!(!parts(&known, &["b", "s", "w"]));
        assert!(!parts(&known, &["unknown"]));
        assert!(!parts(&known, &[]));
    }
}
