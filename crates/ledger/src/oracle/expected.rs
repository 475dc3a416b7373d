//! What the database must hold, worked out from the record alone but for unknown outcomes. Refuses to read tables.

use std::collections::HashMap;

use crate::book::{Book, Thing};
use crate::layout::{CHAIN_START, OPENING_BALANCE, chain_step};
use crate::live::Live;
use crate::op::{self, Op};
use crate::record::{Outcome, Record};

use super::{Place, applied};

/// A row some transaction created.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) revision: i64,
    /// The transaction that wrote it last.
    pub(super) touched: i64,
    pub(super) deleted_by: Option<i64>,
}

impl Row {
    /// How many times the row was written, its creation and deletion included.
    pub(super) fn writes(self) -> i64 {
        1 + self.revision + i64::from(self.deleted_by.is_some())
    }
}

/// A transaction as its client knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) outcome: Outcome,
    pub(super) op: Op,
    pub(super) entry_no: i64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) balance: i64,
    pub(super) version: i64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub(super) last_seq: i64,
    pub(super) value: i64,
}

/// Everything one book must hold of this workload.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) sent: HashMap<Place, Sent>,
    pub(super) rows: HashMap<(Thing, Place), Row>,
    pub(super) accounts: HashMap<i64, Account>,
    pub(super) chains: HashMap<i64, Chain>,
}

impl Expected {
    /// `entered` says whether the ledger holds a transaction; asked only for unknown outcomes.
    pub(super) fn work_out(record: &Record, book: Book, entered: impl Fn(i64, i64) -> bool) -> Expected {
        let mut expected = Expected::default();
        let untouched = Account { balance: OPENING_BALANCE, version: 0 };
        expected.accounts = record.layout.accounts(book).map(|id| (id, untouched)).collect();
        for session in record.sessions.iter().filter(|session| session.book == book) {
            let number = i64::from(session.session);
            let mut live = Live::default();
            let mut chain = Chain { last_seq: 0, value: CHAIN_START };
            for (index, entry) in session.entries.iter().enumerate() {
                let seq = index as i64 + 1;
                let op = op::decide(&record.layout, book, session.session, seq, &live);
                live.settle(seq, op, entry.outcome);
                let sent = Sent { outcome: entry.outcome, op, entry_no: entry.entry_no };
                expected.sent.insert((number, seq), sent);
                let unknown = matches!(entry.outcome, Outcome::Unknown(_));
                if op != Op::Browse && applied(entry.outcome, unknown && entered(number, seq)) {
                    chain = Chain { last_seq: seq, value: chain_step(chain.value, seq) };
                    expected.apply((number, seq), op);
                }
            }
            expected.chains.insert(number, chain);
        }
        expected
    }

    fn apply(&mut self, (session, seq): Place, op: Op) {
        match op {
            Op::Transfer { from, to, amount } => {
                for (id, delta) in [(from, -amount), (to, amount)] {
                    if let Some(account) = self.accounts.get_mut(&id) {
                        account.balance += delta;
                        account.version += 1;
                    }
                }
            }
            Op::Create(thing) => {
                let row = Row { revision: 0, touched: seq, deleted_by: None };
                self.rows.insert((thing, (session, seq)), row);
            }
            Op::Revise(thing, created) => {
                if let Some(row) = self.rows.get_mut(&(thing, (session, created))) {
                    row.revision += 1;
                    row.touched = seq;
                }
            }
            Op::Delete(thing, created) => {
                if let Some(row) = self.rows.get_mut(&(thing, (session, created))) {
                    row.deleted_by = Some(seq);
                }
            }
            Op::Browse => {}
        }
    }
}
