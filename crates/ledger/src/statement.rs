//! The SQL of the workload's transactions. Owns every statement's text and parameters; refuses to know connections
//! and how a session sends them.
//!
//! Every parameter is written `$n::bigint` or `$n::text`, and every statement returns exactly one row with one bigint,
//! so that each dialect can send all of them.

use tokio_postgres::types::ToSql;

use crate::book::{Book, Thing};
use crate::op::Op;

/// One statement of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sql {
    /// Links the transaction into its session's chain; returns the seq that was last before.
    Chain,
    /// Enters it into the ledger and the journal; returns the sequence-fed number.
    Enter,
    /// Adds to a balance.
    Credit,
    Create(Thing),
    Revise(Thing),
    Delete(Thing),
    /// Counts the session's open orders through the view, or its invoices.
    Browse,
}

impl Sql {
    pub(crate) fn all(book: Book) -> Vec<Sql> {
        let things = book.things().iter();
        let changes =
            things.flat_map(|thing| [Sql::Create(*thing), Sql::Revise(*thing), Sql::Delete(*thing)]);
        [Sql::Chain, Sql::Enter, Sql::Credit, Sql::Browse].into_iter().chain(changes).collect()
    }

    /// A name for PREPARE.
    pub(crate) fn name(self) -> String {
        match self {
            Sql::Chain => "ledger_chain".into(),
            Sql::Enter => "ledger_enter".into(),
            Sql::Credit => "ledger_credit".into(),
            Sql::Browse => "ledger_browse".into(),
            Sql::Create(thing) => format!("ledger_create_{}", thing.table()),
            Sql::Revise(thing) => format!("ledger_revise_{}", thing.table()),
            Sql::Delete(thing) => format!("ledger_delete_{}", thing.table()),
        }
    }

    /// The text; `prefix` stands before each table name: `shop.`, `billing.` or nothing.
    pub(crate) fn text(self, book: Book, prefix: &str) -> String {
        let template = match self {
            Sql::Chain => {
                "UPDATE ~sessions SET previous = last_seq, last_seq = $2::bigint, \
                 chain = (chain * 1000003 + $2::bigint) % 2147483647 WHERE session = $1::bigint RETURNING previous"
            }
            Sql::Enter => {
                "WITH entry AS (INSERT INTO ~ledger (session, seq, op, amount) \
                 VALUES ($1::bigint, $2::bigint, $3::text, $4::bigint) RETURNING session, seq, entry_no) \
                 INSERT INTO ~journal (session, seq, entry_no) SELECT session, seq, entry_no FROM entry RETURNING entry_no"
            }
            Sql::Credit => {
                "UPDATE ~accounts SET balance = balance + $2::bigint, version = version + 1 \
                 WHERE id = $1::bigint RETURNING version"
            }
            Sql::Browse => match book {
                Book::Shop => "SELECT count(*) FROM ~open_orders WHERE session = $1::bigint",
                Book::Billing => "SELECT count(*) FROM ~invoices WHERE session = $1::bigint",
            },
            Sql::Create(thing) => create(thing),
            Sql::Revise(thing) => revise(thing),
            Sql::Delete(thing) => delete(thing),
        };
        template.replace('~', prefix)
    }
}

fn create(thing: Thing) -> &'static str {
    match thing {
        Thing::Order => {
            "WITH placed AS (INSERT INTO ~orders (session, seq, touched, customer_id, total, payload) \
             VALUES ($1::bigint, $2::bigint, $2::bigint, $3::bigint, 10 * $4::bigint, \
             jsonb_build_object('touched', $2::bigint, 'lines', $4::bigint)) RETURNING id, order_no), \
             lines AS (INSERT INTO ~order_items (order_id, line, product_id, quantity) \
             SELECT id, line, 1 + ($2::bigint + line) % $5::bigint, line \
             FROM placed, generate_series(1, $4::bigint) AS line RETURNING line) SELECT order_no FROM placed"
        }
        Thing::Coupon => {
            "INSERT INTO ~coupons (code, session, seq, touched, note) VALUES ('c-' || $1::bigint || '-' || $2::bigint, \
             $1::bigint, $2::bigint, $2::bigint, $2::bigint::text) RETURNING revision"
        }
        Thing::Note => {
            "INSERT INTO ~notes (session, seq, touched, body) \
             VALUES ($1::bigint, $2::bigint, $2::bigint, $2::bigint::text) RETURNING revision"
        }
        Thing::Invoice => {
            "INSERT INTO ~invoices (amount, session, seq, touched, note) \
             VALUES (19.99, $1::bigint, $2::bigint, $2::bigint, $2::bigint::text) RETURNING invoice_no"
        }
    }
}

fn revise(thing: Thing) -> &'static str {
    match thing {
        Thing::Order => {
            "UPDATE ~orders SET revision = revision + 1, touched = $3::bigint, \
             status = (enum_range(NULL::~order_status))[1 + (revision + 1) % 4], \
             payload = payload || jsonb_build_object('touched', $3::bigint) \
             WHERE session = $1::bigint AND seq = $2::bigint RETURNING revision"
        }
        Thing::Coupon => {
            "UPDATE ~coupons SET revision = revision + 1, touched = $3::bigint, note = $3::bigint::text \
             WHERE code = 'c-' || $1::bigint || '-' || $2::bigint RETURNING revision"
        }
        Thing::Note => {
            "UPDATE ~notes SET revision = revision + 1, touched = $3::bigint, body = $3::bigint::text \
             WHERE session = $1::bigint AND seq = $2::bigint RETURNING revision"
        }
        Thing::Invoice => {
            "UPDATE ~invoices SET revision = revision + 1, touched = $3::bigint, note = $3::bigint::text \
             WHERE session = $1::bigint AND seq = $2::bigint RETURNING revision"
        }
    }
}

fn delete(thing: Thing) -> &'static str {
    match thing {
        Thing::Order => {
            "DELETE FROM ~orders WHERE session = $1::bigint AND seq = $2::bigint RETURNING revision"
        }
        Thing::Coupon => {
            "DELETE FROM ~coupons WHERE code = 'c-' || $1::bigint || '-' || $2::bigint RETURNING revision"
        }
        Thing::Note => {
            "DELETE FROM ~notes WHERE session = $1::bigint AND seq = $2::bigint RETURNING revision"
        }
        Thing::Invoice => {
            "DELETE FROM ~invoices WHERE session = $1::bigint AND seq = $2::bigint RETURNING revision"
        }
    }
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Int(i64),
    Text(&'static str),
}

impl Value {
    pub(crate) fn to_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Value::Int(number) => number,
            Value::Text(text) => text,
        }
    }

    /// As a literal. The workload's texts are its own words, without quotes to escape.
    pub(crate) fn literal(&self) -> String {
        match self {
            Value::Int(number) => format!("'{number}'"),
            Value::Text(text) => format!("'{text}'"),
        }
    }
}

/// A statement with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) sql: Sql,
    pub(crate) values: Vec<Value>,
}

impl Call {
    fn ints(sql: Sql, values: &[i64]) -> Call {
        Call { sql, values: values.iter().map(|value| Value::Int(*value)).collect() }
    }

    /// The text with literals in place of parameters, for the simple protocol.
    pub(crate) fn inlined(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (index, value) in self.values.iter().enumerate() {
            text = text.replace(&format!("${}::", index + 1), &format!("{}::", value.literal()));
        }
        text
    }
}

/// How much data transactions may refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stock {
    pub(crate) customers: i64,
    pub(crate) products: i64,
}

/// The statements of one transaction between BEGIN and COMMIT; the first is [`Sql::Chain`] and the last
/// [`Sql::Enter`]. A browse is one statement without a transaction block.
pub(crate) fn calls(stock: Stock, session: i64, seq: i64, op: Op) -> Vec<Call> {
    if op == Op::Browse {
        return vec![Call::ints(Sql::Browse, &[session])];
    }
    let mut calls = vec![Call::ints(Sql::Chain, &[session, seq])];
    match op {
        Op::Transfer { from, to, amount } => {
            // In the order of ids, so that two transfers never wait for each other.
            let mut moves = [(from, -amount), (to, amount)];
            moves.sort_unstable();
            calls.extend(moves.map(|(id, delta)| Call::ints(Sql::Credit, &[id, delta])));
        }
        Op::Create(Thing::Order) => {
            let Stock { customers, products } = stock;
            let customer = 1 + (seq * 7 + session) % customers;
            calls
                .push(Call::ints(Sql::Create(Thing::Order), &[session, seq, customer, items(seq), products]));
        }
        Op::Create(thing) => calls.push(Call::ints(Sql::Create(thing), &[session, seq])),
        Op::Revise(thing, row) => calls.push(Call::ints(Sql::Revise(thing), &[session, row, seq])),
        Op::Delete(thing, row) => calls.push(Call::ints(Sql::Delete(thing), &[session, row])),
        Op::Browse => {}
    }
    let mut entry = Call::ints(Sql::Enter, &[session, seq]);
    entry.values.extend([Value::Text(op.word()), Value::Int(op.amount())]);
    calls.push(entry);
    calls
}

/// How many lines the order of this transaction has.
pub(crate) fn items(seq: i64) -> i64 {
    1 + seq % 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simple_protocol_gets_the_same_statement_with_literals() {
        let calls = calls(Stock { customers: 3, products: 3 }, 2, 9, Op::Delete(Thing::Note, 4));
        let texts: Vec<String> =
            calls.iter().map(|call| call.inlined(&call.sql.text(Book::Shop, "shop."))).collect();
        assert_eq!(
            texts[1],
            "DELETE FROM shop.notes WHERE session = '2'::bigint AND seq = '4'::bigint RETURNING revision"
        );
        assert!(
            texts[2].contains("VALUES ('2'::bigint, '9'::bigint, 'delete'::text, '0'::bigint)"),
            "{}",
            texts[2]
        );
        assert!(texts.iter().all(|text| !text.contains('$')), "{texts:?}");
    }

    #[test]
    fn transfers_lock_accounts_in_the_order_of_their_ids() {
        let calls =
            calls(Stock { customers: 1, products: 1 }, 0, 1, Op::Transfer { from: 9, to: 4, amount: 5 });
        let credit = |id, delta| Call::ints(Sql::Credit, &[id, delta]);
        assert_eq!(calls[1..3], [credit(4, 5), credit(9, -5)]);
    }
}
