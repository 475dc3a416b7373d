//! Owns the finding of one `PREPARE name ...` inside the text that `pg_prepared_statements.statement` gives: the whole
//! string the client sent, which may hold other statements that must never run again.
//! Refuses to guess: what it cannot cut out with certainty is not found.

/// The text of the only statement that prepares `name`; `None` when there is none, or more than one. `plain`: a
/// backslash in an ordinary string is a character like others (`standard_conforming_strings`).
pub(super) fn find<'a>(text: &'a [u8], name: &[u8], plain: bool) -> Option<&'a [u8]> {
    let mut found = None;
    for statement in statements(text, plain)? {
        if prepares(statement, name, plain) && found.replace(statement).is_some() {
            return None;
        }
    }
    found
}

/// Splits at semicolons outside quotes and comments; `None` when a quote or comment does not end.
fn statements(text: &[u8], plain: bool) -> Option<Vec<&[u8]>> {
    let mut out = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        match opaque(text, at, plain) {
            Opaque::Until(end) => at = end,
            Opaque::Endless => return None,
            Opaque::No => {
                if text.get(at) == Some(&b';') {
                    out.push(text.get(start..at)?);
                    start = at + 1;
                }
                at += 1;
            }
        }
    }
    out.push(text.get(start..)?);
    Some(out)
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opaque {
    No,
    Until(usize),
    Endless,
}

/// Whether a quote, comment or dollar quote begins at `at`, and where it ends.
pub(super) fn opaque(text: &[u8], at: usize, plain: bool) -> Opaque {
    let rest = text.get(at..).unwrap_or_default();
    let before = at.checked_sub(1).and_then(|at| text.get(at)).copied().unwrap_or(b' ');
    match rest {
        [b'\'', ..] => {
            let escapes = matches!(before, b'e' | b'E') && !word_before(text, at - 1);
            quoted(
                text,
                at,
                b'\'',
                if escapes {
                    Backslash::Escapes
                } else if plain {
                    Backslash::Plain
                } else {
                    Backslash::Unclear
                },
            )
        }
        [b'"', ..] => quoted(text, at, b'"', Backslash::Plain),
        [b'-', b'-', ..] => match rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            Some(end) => Opaque::Until(at + end),
            None => Opaque::Until(text.len()),
        },
        [b'/', b'*', ..] => comment(text, at),
        [b'$', ..] if !word_before(text, at) => dollar(text, at),
        _ => Opaque::No,
    }
}

/// Whether the byte before `at` belongs to a word.
fn word_before(text: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|at| text.get(at)).copied().unwrap_or(b' ');
    before.is_ascii_alphanumeric() || matches!(before, b'_' | b'$') || !before.is_ascii()
}

/// What a backslash means inside a quote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Plain,
    Escapes,
    Unclear,
}

/// A doubled quote is read as two strings that touch, which ends at the same place.
fn quoted(text: &[u8], at: usize, quote: u8, backslash: Backslash) -> Opaque {
    let mut end = at + 1;
    while let Some(byte) = text.get(end) {
        if *byte == quote {
            return Opaque::Until(end + 1);
        }
        if *byte == b'\\' {
            match backslash {
                Backslash::Plain => {}
                Backslash::Escapes => end += 1,
                Backslash::Unclear => return Opaque::Endless,
            }
        }
        end += 1;
    }
    Opaque::Endless
}

fn comment(text: &[u8], at: usize) -> Opaque {
    let (mut depth, mut end) = (0u32, at);
    while let Some(pair) = text.get(end..end + 2) {
        match pair {
            b"/*" => (depth, end) = (depth + 1, end + 2),
            b"*/" => {
                (depth, end) = (depth - 1, end + 2);
                if depth == 0 {
                    return Opaque::Until(end);
                }
            }
            _ => end += 1,
        }
    }
    Opaque::Endless
}

fn dollar(text: &[u8], at: usize) -> Opaque {
    let rest = text.get(at + 1..).unwrap_or_default();
    let Some(tag_end) = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')) else {
        return Opaque::No;
    };
    if rest.get(tag_end) != Some(&b'$') || rest.first().is_some_and(u8::is_ascii_digit) {
        return Opaque::No;
    }
    let Some(tag) = text.get(at..at + tag_end + 2) else { return Opaque::Endless };
    let body = at + tag.len();
    let found = text.get(body..).unwrap_or_default().windows(tag.len()).position(|window| window == tag);
    found.map_or(Opaque::Endless, |end| Opaque::Until(body + end + tag.len()))
}

/// Whether a statement is `PREPARE name`, comments and quotes understood.
fn prepares(statement: &[u8], name: &[u8], plain: bool) -> bool {
    let Some(rest) = skip_blank(statement, plain) else { return false };
    let Some((word, rest)) = rest.split_at_checked(7) else { return false };
    if !word.eq_ignore_ascii_case(b"prepare") {
        return false;
    }
    let Some(rest) = skip_blank(rest, plain) else { return false };
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let mut bare = Vec::new();
        let mut at = 0;
        while let Some(byte) = quoted.get(at) {
            if *byte == b'"' {
                if quoted.get(at + 1) != Some(&b'"') {
                    return bare == name;
                }
                at += 1;
            }
            bare.push(*byte);
            at += 1;
        }
        return false;
    }
    let end =
        rest.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || !b.is_ascii()));
    let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    !word.is_empty() && word.to_ascii_lowercase() == name
}

fn skip_blank(mut text: &[u8], plain: bool) -> Option<&[u8]> {
    loop {
        let blank = text.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(text.len());
        text = text.get(blank..)?;
        if !(text.starts_with(b"--") || text.starts_with(b"/*")) {
            return Some(text);
        }
        match opaque(text, 0, plain) {
            Opaque::Until(end) => text = text.get(end..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_the_statement_itself_is_cut_out() {
        for (text, name, expected) in [
            ("PREPARE a AS SELECT 1", "a", Some("PREPARE a AS SELECT 1")),
            (
                "insert into t values (';'); prepare A(int) as select $1; drop table t",
                "a",
                Some(" prepare A(int) as select $1"),
            ),
            ("prepare \"a\"\"b\" as select 1", "a\"b", Some("prepare \"a\"\"b\" as select 1")),
            (
                "/* x; /* y */ */ PREPARE /* z */ a AS SELECT $q$;$q$",
                "a",
                Some("/* x; /* y */ */ PREPARE /* z */ a AS SELECT $q$;$q$"),
            ),
            ("prepare a as select 1; deallocate a; prepare a as select 2", "a", None),
            ("prepare b as select 1", "a", None),
            ("prepare a as select 'x\\'; drop table t; --'", "a", None),
            (
                "prepare a as select E'x\\'; drop table t; --'",
                "a",
                Some("prepare a as select E'x\\'; drop table t; --'"),
            ),
            ("prepare a as select 'never ends", "a", None),
            ("prepare a as select date'x\\'; drop table t; --'", "a", None),
            ("prepare ab as select 1", "a", None),
        ] {
            let got = find(text.as_bytes(), name.as_bytes(), false)
                .map(|t| String::from_utf8_lossy(t).into_owned());
            assert_eq!(got.as_deref(), expected, "{text}");
        }
        let text = b"set x = '\\'; prepare a as select 1";
        assert_eq!(find(text, b"a", true), Some(&b" prepare a as select 1"[..]));
        assert_eq!(find(text, b"a", false), None);
    }
}
