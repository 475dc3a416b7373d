//! Owns the reading of PgBouncer's configuration files: sections, settings, `%include`. Refuses to know what they mean.

use std::path::{Path, PathBuf};

use super::ImportError;

/// Files within files, as deep as PgBouncer goes.
const DEEPEST: usize = 10;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
}

/// Reads a file and all that it includes, in the order in which PgBouncer does.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, ImportError> {
    let (mut entries, mut section) = (Vec::new(), String::new());
    read_into(path, 0, &mut section, &mut entries)?;
    Ok(entries)
}

fn read_into(
    path: &Path,
    depth: usize,
    section: &mut String,
    entries: &mut Vec<Entry>,
) -> Result<(), ImportError> {
    let failed = |reason: String| ImportError { path: path.to_owned(), reason };
    if depth > DEEPEST {
        return Err(failed(format!("is included more than {DEEPEST} files deep")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let wrong = |what: &str| failed(format!("line {}: {what}", number + 1));
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(included) = line.strip_prefix("%include") {
            read_into(&beside(path, included.trim()), depth + 1, section, entries)?;
        } else if let Some(name) = line.strip_prefix('[') {
            let name = name.strip_suffix(']').ok_or_else(|| wrong("a section without its end"))?;
            name.trim().clone_into(section);
        } else {
            let (key, value) =
                line.split_once('=').ok_or_else(|| wrong("neither a section nor a setting"))?;
            let (key, value) = (key.trim().trim_matches('"').to_owned(), value.trim().to_owned());
            entries.push(Entry { section: section.clone(), key, value });
        }
    }
    Ok(())
}

/// As PgBouncer finds it from where it runs, or else beside the file that includes it.
fn beside(path: &Path, included: &str) -> PathBuf {
    let plain = PathBuf::from(included);
    let beside = path.parent().map(|dir| dir.join(included));
    beside.filter(|beside| !plain.exists() && beside.exists()).unwrap_or(plain)
}

/// The settings of a connection string (`host=db1 password='it''s'`); `None` when it is none.
pub(super) fn connection(text: &str) -> Option<Vec<(String, String)>> {
    let (mut settings, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim();
        // The rest of a value that wanted quotes: it may be a password, and keys are shown.
        if key.is_empty() || key.contains(char::is_whitespace) {
            return None;
        }
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('\'') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                let (value, next) = after.split_at_checked(end)?;
                (value.to_owned(), next)
            }
        };
        settings.push((key.to_owned(), value));
        rest = next.trim_start();
    }
    Some(settings)
}

/// Up to the quote that is not doubled, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut rest) = (String::new(), text);
    loop {
        let (part, after) = rest.split_once('\'')?;
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn connection_strings_are_read_as_pgbouncer_does() {
        let some = |pairs: &[(&str, &str)]| {
            Some(
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>(),
            )
        };
        for (text, expected) in [
            ("", some(&[])),
            ("host=db1 port=5432", some(&[("host", "db1"), ("port", "5432")])),
            ("host = db1  dbname= x", some(&[("host", "db1"), ("dbname", "x")])),
            ("password='it''s a' user=u", some(&[("password", "it's a"), ("user", "u")])),
            ("connect_query='SELECT 1", None),
            ("host", None),
            ("password=my secret host=x", None),
        ] {
            assert_eq!(connection(text), expected, "{text}");
        }
    }
}
