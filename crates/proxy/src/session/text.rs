//! Owns what can be told of a statement from its text without parsing it: words that may touch the session's state, of
//! PostgreSQL's own and of the database's. Refuses to decide: a word only makes the proxy look again at the server's own
//! catalogues.

use super::prepare_text::{Opaque, opaque};
use super::vocabulary::Vocabulary;

/// How much of a statement is searched; a longer one counts as touching the state.
pub(super) const SEARCHED: usize = 64 * 1024;

/// What a statement's text says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// It may change what the session holds beside its transaction.
    pub(super) touches: bool,
    /// It may leave in its server process what `DISCARD ALL` does not undo.
    pub(super) stays: bool,
    /// Names with a dot that it sets: custom settings, which no catalogue lists.
    pub(super) names: Vec<String>,
    /// It sets a setting whose name is a parameter.
    pub(super) names_by_parameter: bool,
    /// It is one `SET LOCAL` or `SET TRANSACTION`: its command tag is that of `SET`, its effect ends with the transaction.
    pub(super) is_local: bool,
}

/// Whether a text may say a name of a setting: without one there is nothing to be learned from it where everything that
/// runs counts as touching the session.
pub(super) fn may_name_settings(text: &[u8]) -> bool {
    memchr::memchr2_iter(b's', b'S', text)
        .any(|at| text.get(at + 1..at + 3).is_some_and(|next| next.eq_ignore_ascii_case(b"et")))
}

/// Reads a statement's text; `words` are those of its database.
pub(super) fn read(text: &[u8], words: &Vocabulary) -> Said {
    let mut said = Said::default();
    // Where in a statement we are: at its first word, or behind `SET`, where the name of a setting follows.
    let (mut first, mut after_set) = (true, false);
    let (mut sets, mut at) = (0u32, 0);
    while at < text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !in_word(*byte)).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or_default();
        if word.is_empty() {
            first |= rest.first() == Some(&b';');
            at += 1;
            continue;
        }
        at += length;
        let after = rest.get(length..).unwrap_or_default();
        let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
        if after_set && (is(b"local") || is(b"session") || is(b"transaction")) {
            said.is_local |= sets == 1 && !is(b"session");
        } else if after_set {
            after_set = false;
            said.names.extend(setting_name(word));
        } else if first && is(b"set") {
            (after_set, sets) = (true, sets + 1);
        } else if is(b"set_config") {
            set_config(after, &mut said);
        }
        said.stays |= parts(word).any(stays);
        said.touches |= parts(word).any(|part| touches(part, after) || words.has(part));
        first = false;
    }
    // With anything behind it, a tag cannot be told to be its own.
    let tail =
        text.iter().position(|byte| *byte == b';').and_then(|end| text.get(end + 1..)).unwrap_or_default();
    said.is_local &= tail.iter().all(|byte| byte.is_ascii_whitespace() || *byte == b';' || *byte == 0);
    said
}

pub(super) fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.' | b'"')
}

/// What follows `set_config`: `('name', value, is_local)`.
fn set_config(rest: &[u8], said: &mut Said) {
    let arguments = rest.iter().position(|byte| !matches!(byte, b'(' | b' ' | b'\t' | b'\n' | b'\r' | b'E'));
    let rest = arguments.and_then(|at| rest.get(at..)).unwrap_or_default();
    match rest.strip_prefix(b"'") {
        Some(quoted) => {
            let end = quoted.iter().position(|byte| *byte == b'\'').unwrap_or(quoted.len());
            said.names.extend(setting_name(quoted.get(..end).unwrap_or_default()));
        }
        None => said.names_by_parameter = true,
    }
}

/// Whether the call whose arguments follow has `true` for its third and last, as `set_config` until the transaction's end.
fn is_local(arguments: &[u8]) -> bool {
    let arguments = arguments.trim_ascii_start();
    let (mut depth, mut commas, mut third, mut at) = (0u32, 0, 0, 0);
    while let Some(byte) = arguments.get(at) {
        match opaque(arguments, at, false) {
            Opaque::Until(end) => {
                at = end;
                continue;
            }
            Opaque::Endless => return false,
            Opaque::No => {}
        }
        match byte {
            b'(' => depth += 1,
            b')' if depth == 1 => {
                let last = arguments.get(third..at).unwrap_or_default().trim_ascii();
                return commas == 2 && last.eq_ignore_ascii_case(b"true");
            }
            b')' => depth -= 1,
            b',' if depth == 1 => (commas, third) = (commas + 1, at + 1),
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return false;
        }
    }
    false
}

/// The name of a custom setting, if the word is one.
pub(super) fn setting_name(word: &[u8]) -> Option<String> {
    let name: Vec<u8> = word.iter().copied().filter(|byte| *byte != b'"').collect();
    let starts_well = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let dot = name.iter().position(|byte| *byte == b'.')?;
    let plain = name.iter().all(|byte| in_word(*byte));
    (starts_well && plain && name.len() <= 63 && dot + 1 < name.len())
        .then(|| String::from_utf8(name).ok())
        .flatten()
}

/// Words of the form `a.b` among the values of a Bind: names of settings given as parameters.
pub(super) fn names_in_values(values: &[u8]) -> impl Iterator<Item = String> + '_ {
    values.split(|byte| !in_word(*byte)).filter_map(setting_name)
}

/// `pg_catalog.set_config` and `pg_temp.t` are one word here.
pub(super) fn parts(word: &[u8]) -> impl Iterator<Item = &[u8]> {
    word.split(|byte| matches!(byte, b'.' | b'"'))
}

/// Whether a part of a word touches the session, whatever the database; `after` is what follows the word.
pub(super) fn touches(part: &[u8], after: &[u8]) -> bool {
    let is = |other: &[u8]| part.eq_ignore_ascii_case(other);
    match part.len() {
        4 => is(b"temp") || is(b"load") || is(b"hold"),
        6 => is(b"listen"),
        // What a statement made by SQL does, its own text said long ago.
        7 => is(b"pg_temp") || is(b"execute"),
        9 => is(b"temporary"),
        10 => is(b"set_config") && !is_local(after),
        // An update of this view sets.
        11 => is(b"pg_settings"),
        // pg_advisory_lock and its kin; those of the transaction end with it.
        16.. if part.get(..3).is_some_and(|head| head.eq_ignore_ascii_case(b"pg_")) => {
            let contains = |word: &[u8]| part.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
            contains(b"advisory") && !contains(b"xact")
        }
        _ => false,
    }
}

/// Whether a part of a word is a function whose effect `DISCARD ALL` leaves: it names no replication origin and no seed.
fn stays(part: &[u8]) -> bool {
    [&b"setseed"[..], b"pg_replication_origin_session_setup"]
        .iter()
        .any(|word| part.eq_ignore_ascii_case(word))
}

/// What a command tag says about the session's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagEffect {
    /// Nothing beside its transaction.
    None,
    /// Something may have changed: look again.
    Dirty,
    /// Every prepared statement is gone, and more may have changed.
    Discarded,
}

/// Reads a command tag (PostgreSQL `src/include/tcop/cmdtaglist.h`).
pub(super) fn tag_effect(tag: &[u8]) -> TagEffect {
    let Some(first) = tag.first() else { return TagEffect::None };
    match first {
        b'S' if matches!(tag, b"SET" | b"SET\0") => TagEffect::Dirty,
        b'R' if tag.starts_with(b"RESET") => TagEffect::Dirty,
        b'D' if tag.starts_with(b"DISCARD ALL") || tag.starts_with(b"DEALLOCATE ALL") => TagEffect::Discarded,
        // What an event trigger does, a command's text does not say.
        b'A' if tag.starts_with(b"ALTER") => TagEffect::Dirty,
        b'C' if tag.starts_with(b"CREATE") => TagEffect::Dirty,
        b'D' if [&b"DISCARD"[..], b"DEALLOCATE", b"DECLARE", b"DO", b"DROP"]
            .iter()
            .any(|t| tag.starts_with(t)) =>
        {
            TagEffect::Dirty
        }
        b'P' if tag.starts_with(b"PREPARE") && !tag.starts_with(b"PREPARE TRANSACTION") => TagEffect::Dirty,
        b'C' if tag.starts_with(b"CALL") || tag.starts_with(b"CLOSE") => TagEffect::Dirty,
        b'L' if tag.starts_with(b"LISTEN") || tag.starts_with(b"LOAD") => TagEffect::Dirty,
        b'U' if tag.starts_with(b"UNLISTEN") => TagEffect::Dirty,
        _ => TagEffect::None,
    }
}

/// Whether SQL `PREPARE` or `DEALLOCATE` may have run in what was completed.
pub(super) fn may_prepare(tag: &[u8]) -> bool {
    let is_one =
        [&b"PREPARE"[..], b"DEALLOCATE", b"DISCARD", b"DO", b"CALL"].iter().any(|t| tag.starts_with(t));
    is_one && !tag.starts_with(b"PREPARE TRANSACTION")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn texts_that_may_touch_the_session() {
        for (text, expected) in [
            ("select 1", false),
            ("insert into items (payload, attempts, temperature) values (1, 2, 3)", false),
            ("select pg_advisory_xact_lock(7)", false),
            ("select * from pg_temp.t", true),
            ("select pg_catalog.SET_Config('a.b', 'c', false)", true),
            ("select pg_try_advisory_lock(1)", true),
            ("CREATE TEMP TABLE t ()", true),
            ("create temporary table t ()", true),
            ("declare c cursor WITH HOLD for select 1", true),
            ("execute q(1)", true),
            ("select set_config('a.b', 'c, true)', true)", false),
            ("select pg_catalog.set_config ($1, f(x, true), TRUE ), 1", false),
            ("select set_config('a.b', (select 'c'), $1)", true),
            ("select set_config('a.b', 'c\\', true)", true),
            ("select set_config('a.b', 'c', false), true)", true),
            ("select set_config('a', 'b', true), set_config('a', 'b', false)", true),
            ("update pg_settings set setting = 'x' where name = 'work_mem'", true),
        ] {
            assert_eq!(read(text.as_bytes(), &Vocabulary::default()).touches, expected, "{text}");
        }
    }

    #[test]
    fn what_discard_all_does_not_undo() {
        for (text, expected) in [
            ("select pg_catalog.SetSeed(0.5)", true),
            ("select 1; select pg_replication_origin_session_setup('o')", true),
            ("select random(), 'seed'", false),
        ] {
            assert_eq!(read(text.as_bytes(), &Vocabulary::default()).stays, expected, "{text}");
            assert!(may_name_settings(text.as_bytes()) || !expected, "{text}");
        }
    }

    #[test]
    fn names_of_custom_settings() {
        for (text, names, by_parameter) in [
            ("set app.tenant = 'x.1'", vec!["app.tenant"], false),
            ("begin; SET SESSION \"App\".tenant to 1; set local b.c = 2", vec!["App.tenant", "b.c"], false),
            ("update t set a = s.b from s where s.c = t.c", vec![], false),
            (
                "select set_config('my.Key', t.c, false), set_config ( 'o.k', x.y, true)",
                vec!["my.Key", "o.k"],
                false,
            ),
            ("select set_config($1, $2, false)", vec![], true),
            ("set work_mem = '1MB'", vec![], false),
        ] {
            assert!(may_name_settings(text.as_bytes()) || (names.is_empty() && !by_parameter), "{text}");
            let said = read(text.as_bytes(), &Vocabulary::default());
            assert_eq!(
                (said.names, said.names_by_parameter),
                (names.into_iter().map(str::to_owned).collect(), by_parameter),
                "{text}"
            );
        }
        let values: Vec<_> = names_in_values(b"\0\0\0\x02\0\0\0\x07my.name\0\0\0\x033.5").collect();
        assert_eq!(values, ["my.name"]);
    }

    #[test]
    fn only_a_set_local_by_itself_is_local() {
        for (text, expected) in [
            ("SET LOCAL statement_timeout = 5; ", true),
            ("set  local a.b to 'c'", true),
            ("SET TRANSACTION isolation level serializable", true),
            ("set session characteristics as transaction read only", false),
            ("set local a = 1; set b = 2", false),
            ("set a = 1; set local b = 2", false),
            ("set session a = 1", false),
            ("select 1", false),
        ] {
            assert_eq!(read(text.as_bytes(), &Vocabulary::default()).is_local, expected, "{text}");
            assert!(may_name_settings(text.as_bytes()) || !expected, "{text}");
        }
    }

    #[test]
    fn tags() {
        use TagEffect as T;
        for (tag, expected) in [
            ("SELECT 5", T::None),
            ("INSERT 0 1", T::None),
            ("COMMIT", T::None),
            ("SET", T::Dirty),
            ("SET CONSTRAINTS", T::None),
            ("RESET", T::Dirty),
            ("DISCARD ALL", T::Discarded),
            ("DISCARD TEMP", T::Dirty),
            ("DEALLOCATE", T::Dirty),
            ("DEALLOCATE ALL", T::Discarded),
            ("DELETE 5", T::None),
            ("PREPARE", T::Dirty),
            ("PREPARE TRANSACTION", T::None),
            ("CREATE TABLE", T::Dirty),
            ("DROP INDEX", T::Dirty),
            ("CALL", T::Dirty),
            ("LISTEN", T::Dirty),
            ("", T::None),
        ] {
            assert_eq!(tag_effect(tag.as_bytes()), expected, "{tag}");
        }
    }
}
