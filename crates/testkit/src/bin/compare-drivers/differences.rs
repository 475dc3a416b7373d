//! Which differences are known, each with its reason. Owns the judgement; refuses to know how outcomes came about.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use similar::{Change, ChangeTag, TextDiff};

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
    /// Where the outcome is all that a script has said: the lines that only the one (`-`) or the other way (`+`) has.
    #[serde(default)]
    lines: Vec<String>,
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
            let line = match known {
                _ if there == here && known.is_none_or(|known| known.sometimes) => continue,
                Some(known) if there != here && known.covers(there, here) => continue,
                _ if there != here => format!("{suite}: {name}: {}", show(there, here)),
                _ => format!("{suite}: {name}: the same on both ways, but a known difference"),
            };
            broken.push((name.clone(), line));
        }
        broken
    }
}

impl Difference {
    fn covers(&self, there: &str, here: &str) -> bool {
        self.lines.is_empty() || self.lines == lines(there, here)
    }
}

fn show(there: &str, here: &str) -> String {
    if !there.contains('\n') && !here.contains('\n') {
        return format!("direct {there}, through the proxy {here}");
    }
    format!("direct (-), through the proxy (+)\n{}", lines(there, here).join("\n"))
}

/// The lines that only one of two texts has: `- ` before those of the first, `+ ` before those of the second.
fn lines(there: &str, here: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(there, here);
    let mark = |tag| match tag {
        ChangeTag::Delete => Some('-'),
        ChangeTag::Insert => Some('+'),
        ChangeTag::Equal => None,
    };
    let line = |change: Change<&str>| Some(format!("{} {}", mark(change.tag())?, change.value().trim_end()));
    diff.iter_all_changes().filter_map(line).collect()
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
            lines: Vec::new(),
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
    fn of_what_a_script_says_the_known_lines_are_excused_and_no_others() {
        let known = Difference {
            suite: "s".into(),
            tests: vec!["script".into()],
            reason: String::new(),
            sometimes: false,
            lines: vec!["- 1".into(), "+ one".into()],
        };
        let list = Differences { difference: vec![known] };
        let judge = |there: &str, here: &str| {
            let said = |text: &str| Outcomes::from([("script".to_owned(), text.to_owned())]);
            list.judge("s", &said(there), &said(here)).pop().map(|(_, line)| line)
        };
        assert_eq!(judge("a\n1\nb\n", "a\none\nb\n"), None);
        let other = judge("a\n1\nb\n", "a\none\n").unwrap_or_default();
        assert!(other.ends_with("direct (-), through the proxy (+)\n- 1\n- b\n+ one"), "{other}");
        assert!(judge("a\n", "a\n").is_some_and(|line| line.contains("a known difference")));
    }

    #[test]
    fn the_list_can_be_read_and_every_reason_is_given() {
        let list = Differences::read().unwrap_or_else(|error| panic!("{error:#}"));
        assert!(list.difference.iter().all(|one| one.reason.len() > 20 && !one.tests.is_empty()));
    }
}
