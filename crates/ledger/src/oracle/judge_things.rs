//! Created, revised and deleted rows with their parts: each as its last acknowledged transaction left it.

use crate::book::{Book, Thing};
use crate::record::Outcome;
use crate::statement::items;

use super::Place;
use super::expected::{Expected, Row};
use super::findings::{Findings, Kind};
use super::found::{Found, FoundRow};

pub(super) fn judge(book: Book, expected: &Expected, found: &Found, findings: &mut Findings) {
    for ((thing, place), row) in &expected.rows {
        let rows = found.rows.get(&(*thing, *place)).map_or(&[][..], Vec::as_slice);
        judge_row(book, *thing, *place, row, rows, expected, findings);
        // Of a row that is missing or back the parts say nothing new.
        if *thing == Thing::Order && rows.is_empty() == row.deleted_by.is_some() {
            judge_parts(book, *place, row, found, findings);
        }
    }
    for (thing, place) in found.rows.keys() {
        if !expected.rows.contains_key(&(*thing, *place)) {
            let table = thing.table();
            findings.add(Kind::Ghost, book, *place, || format!("a row in {table} that no commit created"));
        }
    }
    if found.orphan_lines > 0 {
        findings.wrong(|| format!("{} lines in order_items without an order", found.orphan_lines));
    }
}

fn judge_row(
    book: Book,
    thing: Thing,
    place: Place,
    row: &Row,
    rows: &[FoundRow],
    expected: &Expected,
    findings: &mut Findings,
) {
    let table = thing.table();
    let (session, created) = place;
    match (row.deleted_by, rows) {
        (Some(_), []) => {}
        (Some(deleter), _) => findings.add(Kind::Lost, book, (session, deleter), || {
            format!("it deleted the row of transaction {created} from {table}, which is there")
        }),
        (None, []) => {
            findings.add(Kind::Lost, book, place, || format!("its row in {table} is gone"));
        }
        (None, [found]) => judge_values(book, thing, place, row, *found, expected, findings),
        (None, more) => {
            findings.add(Kind::Duplicated, book, place, || {
                format!("its row in {table} is there {} times", more.len())
            });
        }
    }
}

fn judge_values(
    book: Book,
    thing: Thing,
    place: Place,
    row: &Row,
    found: FoundRow,
    expected: &Expected,
    findings: &mut Findings,
) {
    let table = thing.table();
    let (session, created) = place;
    let name = || format!("the row of session {session}, transaction {created} in {table}");
    if found.echo != found.touched {
        findings.wrong(|| format!("{} says touched {} and {}", name(), found.touched, found.echo));
    }
    if found.touched < row.touched {
        findings.add(Kind::Lost, book, (session, row.touched), || {
            format!("its revision of the row of transaction {created} in {table} is gone")
        });
    } else if found.touched > row.touched {
        let writer = expected.sent.get(&(session, found.touched)).map(|sent| sent.outcome);
        match writer {
            Some(Outcome::Acked) => findings.wrong(|| format!("{} is touched by {}", name(), found.touched)),
            _ => findings.add(Kind::Ghost, book, (session, found.touched), || {
                format!("it was not committed, and changed the row of transaction {created} in {table}")
            }),
        }
    } else if found.revision > row.revision {
        findings.add(Kind::Duplicated, book, (session, row.touched), || {
            let (revision, wanted) = (found.revision, row.revision);
            format!("the row of transaction {created} in {table} was revised {revision} times, not {wanted}")
        });
    } else if found.revision < row.revision {
        findings.wrong(|| format!("{} was revised {} times, not {}", name(), found.revision, row.revision));
    }
}

/// The lines of an order, and the rows its audit trigger wrote: the trigger must fire once for each write, where the
/// client wrote, and not again where the write is applied.
fn judge_parts(book: Book, place: Place, row: &Row, found: &Found, findings: &mut Findings) {
    let lines = found.lines.get(&place).copied().unwrap_or(0);
    let wanted_lines = if row.deleted_by.is_some() { 0 } else { items(place.1) };
    let audits = found.audits.get(&place).copied().unwrap_or(0);
    for (table, count, wanted) in
        [("order_items", lines, wanted_lines), ("order_audit", audits, row.writes())]
    {
        if count == wanted {
            continue;
        }
        let kind = if count < wanted { Kind::Lost } else { Kind::Duplicated };
        findings.add(kind, book, place, || format!("its order has {count} rows in {table}, not {wanted}"));
    }
}
