//! Balances: each the sum of the committed transfers, and all together conserved.

use crate::book::Book;

use super::expected::Expected;
use super::findings::Findings;
use super::found::Found;

pub(super) fn judge(book: Book, expected: &Expected, found: &Found, findings: &mut Findings) {
    let schema = book.schema();
    let mut accounts: Vec<_> = expected.accounts.iter().collect();
    accounts.sort_unstable_by_key(|(id, _)| **id);
    let mut difference = 0;
    for (id, account) in accounts {
        let rows = found.accounts.get(id).map_or(&[][..], Vec::as_slice);
        difference += rows.iter().map(|(balance, _)| balance).sum::<i64>() - account.balance;
        if rows != [(account.balance, account.version)] {
            findings.wrong(|| {
                let (balance, version) = (account.balance, account.version);
                format!(
                    "account {id} of {schema}: (balance, writes) {rows:?}, should be ({balance}, {version})"
                )
            });
        }
    }
    findings.balance_difference(difference);
}
