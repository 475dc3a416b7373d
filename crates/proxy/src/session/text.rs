//! Owns what can be told of a statement from its text without parsing it: words that may touch the session's state.
//! Refuses to decide: a word only makes the proxy look again at the server's own catalogues.

/// How much of a statement is searched; a longer one counts as touching the state.
pub(super) const SEARCHED: usize = 64 * 1024;

/// Names of settings with a dot that one session may collect.
const MAX_NAMES: usize = 64;

/// Whether a statement's text may change what the session holds beside its transaction.
pub(super) fn may_touch_session(text: &[u8]) -> bool {
    text.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')).any(touches)
}

fn touches(word: &[u8]) -> bool {
    let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
    match word.len() {
        4 => is(b"temp") || is(b"load") || is(b"hold"),
        6 => is(b"listen"),
        7 => is(b"pg_temp"),
        9 => is(b"temporary"),
        10 => is(b"set_config"),
        // pg_advisory_lock and its kin; those of the transaction end with it.
        16.. if word.get(..3).is_some_and(|head| head.eq_ignore_ascii_case(b"pg_")) => {
            let contains = |part: &[u8]| word.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part));
            contains(b"advisory") && !contains(b"xact")
        }
        _ => false,
    }
}

/// Whether the text may set a setting of any name (`SET`, `set_config`).
pub(super) fn may_set(text: &[u8]) -> bool {
    text.windows(4).any(|four| {
        four[..3].eq_ignore_ascii_case(b"set") && matches!(four[3], b' ' | b'\t' | b'\n' | b'\r' | b'_')
    })
}

/// Collects words of the form `a.b`: possible names of custom settings, which no catalogue lists. A word that is no
/// setting costs nothing: the server answers NULL for it.
pub(super) fn collect_dotted_names(text: &[u8], names: &mut Vec<String>) {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.');
    for word in text.split(|byte| !inside(*byte)) {
        let starts_well = word.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
        let dot = word.iter().position(|byte| *byte == b'.');
        if !starts_well
            || word.len() > 63
            || dot.is_none_or(|dot| dot + 1 == word.len())
            || names.len() >= MAX_NAMES
        {
            continue;
        }
        if let Ok(name) = std::str::from_utf8(word)
            && !names.iter().any(|known| known.eq_ignore_ascii_case(name))
        {
            names.push(name.to_owned());
        }
    }
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
        b'S' if tag.starts_with(b"SET") => TagEffect::Dirty,
        b'R' if tag.starts_with(b"RESET") => TagEffect::Dirty,
        b'D' if tag.starts_with(b"DISCARD ALL") || tag.starts_with(b"DEALLOCATE ALL") => TagEffect::Discarded,
        b'D' if [&b"DISCARD"[..], b"DEALLOCATE", b"DECLARE", b"DO", b"DROP TABLE"]
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
        ] {
            assert_eq!(may_touch_session(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn names_with_a_dot() {
        let mut names = Vec::new();
        collect_dotted_names(
            b"SET app.tenant = 'x.1'; select set_config('my.Key', t.c, false), 1.5, a., .b",
            &mut names,
        );
        collect_dotted_names(b"APP.TENANT", &mut names);
        assert_eq!(names, ["app.tenant", "x.1", "my.Key", "t.c"]);
    }

    #[test]
    fn tags() {
        use TagEffect as T;
        for (tag, expected) in [
            ("SELECT 5", T::None),
            ("INSERT 0 1", T::None),
            ("COMMIT", T::None),
            ("SET", T::Dirty),
            ("RESET", T::Dirty),
            ("DISCARD ALL", T::Discarded),
            ("DISCARD TEMP", T::Dirty),
            ("DEALLOCATE", T::Dirty),
            ("DEALLOCATE ALL", T::Discarded),
            ("DELETE 5", T::None),
            ("PREPARE", T::Dirty),
            ("PREPARE TRANSACTION", T::None),
            ("CREATE TABLE", T::None),
            ("CALL", T::Dirty),
            ("LISTEN", T::Dirty),
            ("", T::None),
        ] {
            assert_eq!(tag_effect(tag.as_bytes()), expected, "{tag}");
        }
    }
}
