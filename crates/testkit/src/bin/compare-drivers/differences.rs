//! Which differences are known, each with its reason. Owns the judgement; refuses to know how outcomes came about.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::Outcomes;

/// The committed list.
const KNOWN: &str = include_str!("../../../drivers/differences.toml");

/// What is known to end otherwise through the proxy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Differences {
    difference: Vec<Difference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    suite: String,
    tests: Vec<String>,
    /// For the reader: why, and why that is as it should be.
    #[allow(dead_code, reason = "read by people")]
    reason: String,
    /// It depends on time, on either side.
    #[serde(default)]
    sometimes: bool,
}

impl Differences {
    pub(crate) fn read() -> Result<Self> {
        toml::from_str(KNOWN).context("differences.toml")
    }

    /// What is different and not known, and what is known and not different any more: each test, and a line on it.
    pub(crate) fn judge(&self, suite: &str, direct: &Outcomes, proxied: &Outcomes) -> Vec<(String, String)> {
        let mut broken = Vec::new();
        let absent = "absent".to_owned();
        for name in direct.keys().chain(proxied.keys().filter(|name| !direct.contains_key(*name))) {
            let (there, here) = (direct.get(name).unwrap_or(&absent), proxied.get(name).unwrap_or(&absent));
            let known = self.difference.iter().find(|one| one.suite == suite && one.tests.contains(name));
            match known {
                None if there != here => {
                    let line = format!("{suite}: {name}: direct {there}, through the proxy {here}");
                    broken.push((name.clone(), line));
                }
                Some(known) if there == here && !known.sometimes => {
                    let line = format!("{suite}: {name}: {here} on both ways, but a known difference");
                    broken.push((name.clone(), line));
                }
                _ => {}
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_named_and_what_is_mended_too() {
        let known = |tests: &[&str], sometimes| Difference {
            suite: "s".into(),
            tests: tests.iter().map(|name| (*name).to_owned()).collect(),
            reason: String::new(),
            sometimes,
        };
        let list =
            Differences { difference: vec![known(&["known", "mended"], false), known(&["odd"], true)] };
        let outcomes = |all: &[(&str, &str)]| -> Outcomes {
            all.iter().map(|(name, outcome)| ((*name).to_owned(), (*outcome).to_owned())).collect()
        };
        let direct =
            outcomes(&[("a", "ok"), ("gone", "ok"), ("known", "ok"), ("mended", "ok"), ("odd", "ok")]);
        let proxied =
            outcomes(&[("a", "failed"), ("known", "failed"), ("mended", "ok"), ("new", "ok"), ("odd", "ok")]);
        let broken = list.judge("s", &direct, &proxied);
        let names: Vec<_> = broken.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "gone", "mended", "new"], "{broken:?}");
        assert!(list.judge("other", &direct, &direct).is_empty());
    }

    #[test]
    fn the_list_can_be_read_and_every_reason_is_given() {
        let list = Differences::read().unwrap_or_else(|error| panic!("{error:#}"));
        assert!(list.difference.iter().all(|one| one.reason.len() > 20 && !one.tests.is_empty()));
    }
}
