//! The connection service file (PostgreSQL docs, "The Connection Service File"). Knows sections, no key.

use std::path::{Path, PathBuf};

use super::{ConnInfoError, Environment};

/// The settings of a service: the user's file first, then the system's in `PGSYSCONFDIR`.
pub(super) fn load(
    service: &str,
    servicefile: Option<&str>,
    env: &Environment,
) -> Result<Vec<(String, String)>, ConnInfoError> {
    let error = |message: String| ConnInfoError::Service { service: service.to_owned(), message };
    let user = servicefile.map(PathBuf::from).or_else(|| env.at_home(".pg_service.conf"));
    let system = env.var("PGSYSCONFDIR").map(|dir| Path::new(dir).join("pg_service.conf"));
    for path in user.iter().chain(&system) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(error(format!("{}: {e}", path.display()))),
        };
        if let Some(found) = section(&text, service).map_err(|m| error(format!("{}: {m}", path.display())))? {
            return Ok(found);
        }
    }
    Err(error("no service file defines it".to_owned()))
}

fn section(text: &str, service: &str) -> Result<Option<Vec<(String, String)>>, String> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            if found.is_some() {
                return Ok(found);
            }
            if name == service {
                found = Some(Vec::new());
            }
        } else if let Some(pairs) = &mut found {
            let (key, value) =
                line.split_once('=').ok_or_else(|| format!("line {} is not key=value", number + 1))?;
            if key == "service" || key == "servicefile" {
                return Err(format!("line {}: a service cannot name another one", number + 1));
            }
            pairs.push((key.to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}
