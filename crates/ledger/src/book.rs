//! The two sets of tables sessions write to. Owns their names and what exists in each; refuses to know SQL text.

/// A database's set of tables: each session writes to exactly one book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Book {
    /// Schema `shop`: orders, coupons, notes, accounts and a partitioned ledger.
    Shop,
    /// Schema `billing`, meant for a second database: invoices, accounts and a plain ledger.
    Billing,
}

impl Book {
    /// The schema that holds the tables of this book.
    pub fn schema(self) -> &'static str {
        match self {
            Book::Shop => "shop",
            Book::Billing => "billing",
        }
    }

    pub(crate) fn things(self) -> &'static [Thing] {
        match self {
            Book::Shop => &[Thing::Order, Thing::Coupon, Thing::Note],
            Book::Billing => &[Thing::Invoice],
        }
    }
}

/// A kind of row that sessions create, revise and delete. Each belongs to the session that created it and is named
/// by (session, seq of the creating transaction).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Thing {
    Order,
    Coupon,
    Note,
    Invoice,
}

impl Thing {
    pub(crate) const ALL: [Thing; 4] = [Thing::Order, Thing::Coupon, Thing::Note, Thing::Invoice];

    pub(crate) fn table(self) -> &'static str {
        match self {
            Thing::Order => "orders",
            Thing::Coupon => "coupons",
            Thing::Note => "notes",
            Thing::Invoice => "invoices",
        }
    }

    /// The expression that repeats `touched` in another column of the row; they differ only in a torn row.
    pub(crate) fn echo(self) -> &'static str {
        match self {
            Thing::Order => "(payload->>'touched')::bigint",
            Thing::Coupon | Thing::Invoice => "note::bigint",
            Thing::Note => "body::bigint",
        }
    }

    /// How many rows one session keeps at most. Notes stay few because each change of a table with REPLICA IDENTITY
    /// FULL and no index is looked up by a scan of the whole table where it is applied.
    pub(crate) fn limit(self) -> usize {
        match self {
            Thing::Note => 3,
            Thing::Coupon => 50,
            Thing::Order | Thing::Invoice => 2_000,
        }
    }
}
