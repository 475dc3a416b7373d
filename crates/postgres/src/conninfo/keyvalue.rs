//! The `key = value` grammar (PostgreSQL docs, "Keyword/Value Connection Strings"). Knows no key.

use super::ConnInfoError;

/// Keys and values in their order.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, ConnInfoError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(ConnInfoError::Syntax(format!("missing `=` after `{}`", printable(key))));
        };
        let (value, after) = value(key, after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A word that is safe to repeat in a message: a password pasted without its key is not shown.
fn printable(word: &str) -> &str {
    if word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') { word } else { "..." }
}

fn value<'a>(key: &str, text: &'a str) -> Result<(String, &'a str), ConnInfoError> {
    let quoted = text.starts_with('\'');
    let mut out = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((out, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((out, &text[at..])),
            c => out.push(c),
        }
    }
    if quoted {
        return Err(ConnInfoError::Syntax(format!("the quoted value of `{key}` does not end")));
    }
    Ok((out, ""))
}
