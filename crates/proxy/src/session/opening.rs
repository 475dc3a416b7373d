//! Owns what the texts of a transaction's beginning say of the statement that the server refused: whether it is a write that
//! cannot have done anything before, and whether the client itself began the transaction read-only. Refuses to guess: what
//! it cannot read is no such write.

use std::collections::HashMap;

use pgteal_wire::frame::{Frames, HEADER_LEN};
use pgteal_wire::message::tag::front;

use super::again::bound;
use super::holdings::Holdings;
use super::prepare_text::{Opaque, opaque};
use super::statements::name_of;
use super::text::in_word;

/// Statements whose first act is to fire their table's triggers before each statement, and that a read-only transaction refuses
/// before that. A `SELECT`, a `WITH`, an `EXPLAIN` may run functions first, a `CALL` or `DO` may commit, a `COPY` may start a
/// program. An `EXECUTE` computes its parameters first: it is what it executes when those are constants.
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
    pub(super) fn read(said: &[u8], holdings: &Holdings) -> Self {
        let ledger = &holdings.statements;
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
            if opening.ends_with(&text, holdings) {
                return opening;
            }
        }
        opening
    }

    /// Reads a text; true when it has the first statement that is not `BEGIN`.
    fn ends_with(&mut self, text: &[u8], holdings: &Holdings) -> bool {
        let mut begins = false;
        let mut before = Vec::new();
        let mut words = Words(text);
        while let Some(word) = words.next() {
            let word = word.to_ascii_lowercase();
            if word == b";" {
                begins = false;
            } else if begins {
                self.is_read_only |= before == b"read" && word == b"only";
            } else if word == b"begin" || word == b"start" {
                begins = true;
            } else {
                let executed = (word == b"execute").then(|| executed(words, holdings)).flatten();
                self.writes = WRITES.contains(&&executed.unwrap_or(word)[..]);
                return true;
            }
            before = word;
        }
        false
    }
}

/// The first word of the statement that an `EXECUTE` names, when it does so with constants.
fn executed(mut words: Words<'_>, holdings: &Holdings) -> Option<Vec<u8>> {
    let name = unquoted(words.next()?)?;
    if !are_constants(words.0) {
        return None;
    }
    let mut words = Words(holdings.prepared_by_sql(&name)?);
    words.find(|word| word.eq_ignore_ascii_case(b"as"))?;
    Some(words.next()?.to_ascii_lowercase())
}

/// An identifier as the server knows it.
fn unquoted(word: &[u8]) -> Option<Vec<u8>> {
    let bare = word.strip_prefix(b"\"").and_then(|word| word.strip_suffix(b"\""));
    let name = bare.map_or_else(|| word.to_ascii_lowercase(), <[u8]>::to_vec);
    (!name.contains(&b'"')).then_some(name)
}

/// Whether what follows an `EXECUTE`'s name is nothing, or a list of constants.
fn are_constants(mut text: &[u8]) -> bool {
    let (mut is_open, mut is_value) = (false, false);
    loop {
        text = text.trim_ascii_start();
        let length = match text {
            [] | [b';', ..] => return !is_open,
            [b'(', ..] if !is_open => {
                is_open = true;
                1
            }
            [b')', ..] if is_open && is_value => {
                return matches!(text.get(1..).unwrap_or_default().trim_ascii_start(), [] | [b';', ..]);
            }
            [b',', ..] if is_open && is_value => {
                is_value = false;
                1
            }
            [b'-', b'0'..=b'9', ..] if is_open && !is_value => 1,
            [b'\'', ..] if is_open && !is_value => {
                is_value = true;
                // A doubled quote is read as two strings that touch.
                let mut end = 0;
                while text.get(end) == Some(&b'\'') {
                    let Opaque::Until(next) = opaque(text, end, false) else { return false };
                    end = next;
                }
                end
            }
            _ if is_open && !is_value => {
                is_value = true;
                let length = text.iter().take_while(|byte| in_word(**byte)).count();
                let word = text.get(..length).unwrap_or_default();
                let is_word =
                    [&b"null"[..], b"true", b"false"].iter().any(|known| word.eq_ignore_ascii_case(known));
                if !is_word && !word.first().is_some_and(u8::is_ascii_digit) {
                    return false;
                }
                length
            }
            _ => return false,
        };
        text = text.get(length..).unwrap_or_default();
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
                text @ ([b'-', b'-', ..] | [b'/', b'*', ..]) => match opaque(text, 0, false) {
                    Opaque::Until(end) => end,
                    Opaque::No | Opaque::Endless => text.len(),
                },
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use bytes::BytesMut;
    use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_query, put_sync};
    use pgteal_wire::message::tag::back;
    use pgteal_wire::tracker::Reply;

    use super::*;
    use crate::session::holdings::Observed;
    use crate::session::observe::Findings;

    #[test]
    fn what_is_executed() {
        let mut holdings = Holdings::default();
        let texts = [
            ("w", "PREPARE w (int, text) AS /* as select */ insert into t values ($1, $2)"),
            ("W w", "prepare \"W w\" as update t set a = $1"),
            ("Q", "prepare \"Q\" as delete from t"),
            ("s", "prepare s as select f()"),
            ("c", "prepare c as with w as (insert into t values (1) returning 1) select f()"),
        ];
        let prepared = texts.map(|(name, text)| (name.into(), text.into())).to_vec();
        let observed = Observed { prepared, ..Observed::default() };
        holdings.observe(Findings { observed, listed: Default::default(), locks: Vec::new() });
        let writes = |text: &str, holdings: &Holdings| {
            let mut said = BytesMut::new();
            put_query(&mut said, text);
            Opening::read(&said, holdings).writes
        };
        for (text, expected) in [
            ("execute w(1, 'it''s')", true),
            ("begin; EXECUTE W ( -1.5e3 , NULL ) ; select 1", true),
            ("execute w", true),
            ("execute \"Q\"", true),
            ("execute Q", false),
            ("execute \"W w\"(1)", false),
            ("execute s", false),
            ("execute c", false),
            ("execute unknown(1)", false),
            ("execute w(pg_advisory_lock(7))", false),
            ("execute w(1, f)", false),
            ("execute w(1, current_user)", false),
            ("execute w((1))", false),
            ("execute w(1 + 1)", false),
            ("execute w(1, 'a' || f())", false),
            ("execute w(1, e'a')", false),
            ("execute w(1, 'a\\' || f(), ')", false),
            ("execute w(1, (select f()))", false),
            ("execute w(1::mine)", false),
            ("execute w(1", false),
            ("execute w()", false),
            ("execute", false),
        ] {
            assert_eq!(writes(text, &holdings), expected, "{text}");
        }
        for (tag, is_known) in [("UPDATE 1", true), ("PREPARE TRANSACTION", true), ("DEALLOCATE", false)] {
            let body = format!("{tag}\0");
            holdings.server_message(back::COMMAND_COMPLETE, body.as_bytes(), Reply::Other);
            assert_eq!(writes("execute w(1)", &holdings), is_known, "{tag}");
        }
    }

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
            assert_eq!(Opening::read(&said, &Holdings::default()), expected, "{text}");
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
            Opening::read(&said, &Holdings::default()).writes
        };
        let known = [("b", "begin"), ("w", "insert into t values (1)"), ("s", "select f()")];
        assert!(parts(&known, &["w"]));
        assert!(parts(&known, &["b", "w", "s"]));
        assert!(!parts(&known, &["b", "s", "w"]));
        assert!(!parts(&known, &["unknown"]));
        assert!(!parts(&known, &[]));
    }
}
