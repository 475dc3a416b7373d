//! Ledger, journal and chains: every acknowledged transaction exactly once, in order, and no other.

use std::collections::{HashMap, HashSet};

use crate::book::Book;
use crate::op::Op;
use crate::record::{Outcome, Record};

use super::Place;
use super::expected::Expected;
use super::findings::{Findings, Kind};
use super::found::Found;

pub(super) fn judge(
    record: &Record,
    book: Book,
    expected: &Expected,
    found: &Found,
    findings: &mut Findings,
) {
    for session in record.sessions.iter().filter(|session| session.book == book) {
        let number = i64::from(session.session);
        let mut highest = (0, i64::MIN);
        for seq in 1..=session.entries.len() as i64 {
            judge_entry(book, (number, seq), expected, found, findings);
            if let Some(entry_no) = found.ledger.get(&(number, seq)).and_then(|numbers| numbers.first()) {
                let (before, high) = highest;
                if *entry_no <= high {
                    findings.add(Kind::Reordered, book, (number, seq), || {
                        format!("its number {entry_no} is not above {high} of transaction {before}")
                    });
                } else {
                    highest = (seq, *entry_no);
                }
            }
        }
    }
    judge_unsent(book, expected, found, findings);
    judge_numbers(book, found, findings);
    judge_chains(book, expected, found, findings);
}

fn judge_entry(book: Book, place: Place, expected: &Expected, found: &Found, findings: &mut Findings) {
    let Some(sent) = expected.sent.get(&place) else { return };
    let ledger = found.ledger.get(&place).map_or(&[][..], Vec::as_slice);
    let journal = found.journal.get(&place).map_or(&[][..], Vec::as_slice);
    let present = !ledger.is_empty() || !journal.is_empty();
    match sent.outcome {
        _ if sent.op == Op::Browse => {
            if present {
                findings.add(Kind::Ghost, book, place, || "it only read, and has an entry".into());
            }
            return;
        }
        Outcome::Failed(_) => {
            if present {
                findings.add(Kind::Ghost, book, place, || "it failed, and has an entry".into());
            }
            return;
        }
        Outcome::Unknown(_) => {
            findings.unknown(present);
            if !present {
                return;
            }
        }
        Outcome::Acked => findings.acknowledged(),
    }
    for (table, numbers) in [("ledger", ledger), ("journal", journal)] {
        match numbers {
            [] => findings.add(Kind::Lost, book, place, || format!("no row in {table}")),
            [entry_no] if sent.entry_no != 0 && *entry_no != sent.entry_no => findings.wrong(|| {
                let (session, seq) = place;
                let returned = sent.entry_no;
                format!("{table} of session {session}, transaction {seq}: number {entry_no}, returned was {returned}")
            }),
            [_] => {}
            more => findings.add(Kind::Duplicated, book, place, || format!("{} rows in {table}", more.len())),
        }
    }
}

/// Entries of transactions that were never sent.
fn judge_unsent(book: Book, expected: &Expected, found: &Found, findings: &mut Findings) {
    let places: HashSet<&Place> = found.ledger.keys().chain(found.journal.keys()).collect();
    for place in places {
        if !expected.sent.contains_key(place) {
            findings.add(Kind::Ghost, book, *place, || "it was never sent, and has an entry".into());
        }
    }
}

/// A sequence must not give a number twice, to whomever.
fn judge_numbers(book: Book, found: &Found, findings: &mut Findings) {
    let mut owners: HashMap<i64, Place> = HashMap::with_capacity(found.ledger.len());
    for (place, numbers) in &found.ledger {
        for number in numbers {
            if let Some(other) = owners.insert(*number, *place)
                && other != *place
            {
                findings.add(Kind::Reordered, book, *place, || {
                    format!(
                        "its number {number} was also given to session {}, transaction {}",
                        other.0, other.1
                    )
                });
            }
        }
    }
}

/// The chain depends on the order of a session's transactions. Where entries are missing it cannot agree and says
/// nothing new, so it is judged only against the entries that are there.
fn judge_chains(book: Book, expected: &Expected, found: &Found, findings: &mut Findings) {
    for (session, chain) in &expected.chains {
        let place = (*session, chain.last_seq);
        match found.sessions.get(session).map_or(&[][..], Vec::as_slice) {
            [] => findings.add(Kind::Lost, book, place, || "the session's chain is gone".into()),
            [row] if row.last_seq < chain.last_seq => findings.add(Kind::Lost, book, place, || {
                format!("the session's chain ends at transaction {}", row.last_seq)
            }),
            [row] if row.last_seq > chain.last_seq => {
                findings.add(Kind::Ghost, book, (*session, row.last_seq), || {
                    format!("the session's chain ends here, and should at {}", chain.last_seq)
                });
            }
            [row] if row.chain != chain.value => findings.add(Kind::Reordered, book, place, || {
                format!("the session's chain is {} and should be {}", row.chain, chain.value)
            }),
            [_] => {}
            _ => findings.add(Kind::Duplicated, book, place, || "the session has two chains".into()),
        }
    }
}
