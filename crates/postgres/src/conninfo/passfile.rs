//! The password file (PostgreSQL docs, "The Password File"). Knows its lines, not which of them will be needed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Password;

/// One line of the file. `None` stands for the `*` that matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassLine {
    fields: [Option<String>; 4],
    pub(super) password: Password,
}

impl PassLine {
    pub(super) fn matches(&self, host: &str, port: u16, database: &str, user: &str) -> bool {
        let port = port.to_string();
        let wanted = [host, &port, database, user];
        self.fields.iter().zip(wanted).all(|(field, value)| field.as_deref().is_none_or(|f| f == value))
    }
}

/// The lines of a password file; none if it cannot be read or others may read it, as libpq does.
pub(super) fn load(path: &Path) -> Vec<PassLine> {
    let Ok(meta) = std::fs::metadata(path) else { return Vec::new() };
    if !meta.is_file() || meta.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "password file ignored: not a plain file that only its owner can read");
        return Vec::new();
    }
    std::fs::read_to_string(path).map(|text| parse(&text)).unwrap_or_default()
}

fn parse(text: &str) -> Vec<PassLine> {
    text.lines().filter(|l| !l.starts_with('#')).filter_map(line).collect()
}

fn line(text: &str) -> Option<PassLine> {
    let mut parts: Vec<String> = Vec::new();
    let mut part = String::new();
    let mut chars = text.trim_end_matches('\r').chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => part.extend(chars.next()),
            ':' if parts.len() < 4 => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    parts.push(part);
    let [host, port, database, user, password] = <[String; 5]>::try_from(parts).ok()?;
    let field = |s: String| (s != "*").then_some(s);
    Some(PassLine {
        fields: [field(host), field(port), field(database), field(user)],
        password: Password::new(password),
    })
}
