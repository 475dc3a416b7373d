//! Collects differences, each transaction counted once in each kind. Refuses to look for them.

use std::collections::HashSet;

use crate::book::Book;
use crate::verdict::{UnknownOutcomes, Verdict};

use super::Place;

/// How many findings are described in words.
pub(super) const EXAMPLES_LIMIT: usize = 20;

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Lost,
    Duplicated,
    Ghost,
    Reordered,
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    seen: HashSet<(Kind, &'static str, Place)>,
    verdict: Verdict,
}

impl Findings {
    pub(super) fn add(&mut self, kind: Kind, book: Book, place: Place, text: impl FnOnce() -> String) {
        if !self.seen.insert((kind, book.schema(), place)) {
            return;
        }
        let word = match kind {
            Kind::Lost => {
                self.verdict.lost += 1;
                "lost"
            }
            Kind::Duplicated => {
                self.verdict.duplicated += 1;
                "duplicated"
            }
            Kind::Ghost => {
                self.verdict.ghost += 1;
                "ghost"
            }
            Kind::Reordered => {
                self.verdict.reordered += 1;
                "reordered"
            }
        };
        let (session, seq) = place;
        self.example(|| {
            format!("{word}: {} session {session}, transaction {seq}: {}", book.schema(), text())
        });
    }

    /// A row whose values nothing explains.
    pub(super) fn wrong(&mut self, text: impl FnOnce() -> String) {
        self.verdict.wrong_values += 1;
        self.example(|| format!("wrong value: {}", text()));
    }

    pub(super) fn acknowledged(&mut self) {
        self.verdict.acknowledged += 1;
    }

    pub(super) fn unknown(&mut self, present: bool) {
        let UnknownOutcomes { present: yes, absent: no } = &mut self.verdict.unknown;
        *(if present { yes } else { no }) += 1;
    }

    pub(super) fn balance_difference(&mut self, difference: i64) {
        self.verdict.balance_difference += difference;
    }

    pub(super) fn into_verdict(self) -> Verdict {
        self.verdict
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.verdict.examples.len() < EXAMPLES_LIMIT {
            self.verdict.examples.push(text());
        }
    }
}
