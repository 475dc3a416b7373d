//! What one transaction does, decided by a pure function of its number and the rows its session owns.
//! Refuses to know SQL, connections and outcomes.

use crate::book::{Book, Thing};
use crate::layout::{ACCOUNTS_EACH, Layout};
use crate::live::Live;

/// The effect of one transaction, beyond its ledger entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Moves `amount` between two accounts; the other one may belong to another session.
    Transfer { from: i64, to: i64, amount: i64 },
    /// Creates a row named by this transaction.
    Create(Thing),
    /// Changes the row that transaction `seq` of this session created.
    Revise(Thing, i64),
    /// Deletes the row that transaction `seq` of this session created.
    Delete(Thing, i64),
    /// Reads through a view outside a transaction block; leaves no trace.
    Browse,
}

impl Op {
    /// The word in the ledger's `op` column.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Op::Transfer { .. } => "transfer",
            Op::Create(_) => "create",
            Op::Revise(..) => "revise",
            Op::Delete(..) => "delete",
            Op::Browse => "browse",
        }
    }

    pub(crate) fn amount(self) -> i64 {
        match self {
            Op::Transfer { amount, .. } => amount,
            _ => 0,
        }
    }
}

/// Decides what transaction `seq` of `session` does. `seq` starts at 1.
pub(crate) fn decide(layout: &Layout, book: Book, session: u32, seq: i64, live: &Live) -> Op {
    let draw = layout.draw(session, seq);
    let pick = draw >> 16;
    match (book, draw % 100) {
        (_, 0..40) => transfer(layout, book, session, pick),
        (Book::Shop, 40..60) => create(Thing::Order, live, pick),
        (Book::Shop, 60..75) => revise(Thing::Order, live, pick),
        (Book::Shop, 75..83) => delete(Thing::Order, live, pick),
        (Book::Shop, 83..89) => any_change(Thing::Coupon, live, pick),
        (Book::Shop, 89..93) => any_change(Thing::Note, live, pick),
        (Book::Billing, 40..65) => create(Thing::Invoice, live, pick),
        (Book::Billing, 65..85) => revise(Thing::Invoice, live, pick),
        (Book::Billing, 85..93) => delete(Thing::Invoice, live, pick),
        _ => Op::Browse,
    }
}

fn transfer(layout: &Layout, book: Book, session: u32, pick: u64) -> Op {
    let accounts = layout.accounts(book);
    let count = accounts.end - accounts.start;
    let own = (pick % ACCOUNTS_EACH as u64) as i64;
    let from = i64::from(session) * ACCOUNTS_EACH + own;
    let step = 1 + ((pick >> 8) % (count - 1) as u64) as i64;
    let to = accounts.start + (from - accounts.start + step) % count;
    Op::Transfer { from, to, amount: 1 + ((pick >> 32) % 97) as i64 }
}

fn create(thing: Thing, live: &Live, pick: u64) -> Op {
    if live.count(thing) < thing.limit() { Op::Create(thing) } else { delete(thing, live, pick) }
}

fn revise(thing: Thing, live: &Live, pick: u64) -> Op {
    live.pick(thing, pick).map_or(Op::Create(thing), |seq| Op::Revise(thing, seq))
}

fn delete(thing: Thing, live: &Live, pick: u64) -> Op {
    live.pick(thing, pick).map_or(Op::Create(thing), |seq| Op::Delete(thing, seq))
}

fn any_change(thing: Thing, live: &Live, pick: u64) -> Op {
    match (pick >> 40) % 3 {
        0 => create(thing, live, pick),
        1 => revise(thing, live, pick),
        _ => delete(thing, live, pick),
    }
}
