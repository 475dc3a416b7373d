//! Which session writes to which book and owns which accounts. Owns the numbering; refuses to know SQL and time.

use crate::book::Book;

/// Accounts of one session. Transfers go from an own account to any account of the same book.
pub(crate) const ACCOUNTS_EACH: i64 = 4;

/// What each account holds at the start; transfers may take it below zero.
pub(crate) const OPENING_BALANCE: i64 = 1_000;

/// The chain of a session that has written nothing yet.
pub(crate) const CHAIN_START: i64 = 7;

/// One step of the order-dependent chain, as the `sessions` row computes it in SQL. The factor and the modulus keep
/// every product inside a bigint.
pub(crate) fn chain_step(chain: i64, seq: i64) -> i64 {
    (chain * 1_000_003 + seq) % 2_147_483_647
}

/// The sessions of one workload.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) first_session: u32,
    pub(crate) shop_sessions: u32,
    pub(crate) billing_sessions: u32,
    pub(crate) seed: u64,
}

impl Layout {
    /// Session numbers of one book.
    pub(crate) fn sessions(&self, book: Book) -> std::ops::Range<u32> {
        let billing = self.first_session + self.shop_sessions;
        match book {
            Book::Shop => self.first_session..billing,
            Book::Billing => billing..billing + self.billing_sessions,
        }
    }

    /// Account numbers of one book.
    pub(crate) fn accounts(&self, book: Book) -> std::ops::Range<i64> {
        let sessions = self.sessions(book);
        i64::from(sessions.start) * ACCOUNTS_EACH..i64::from(sessions.end) * ACCOUNTS_EACH
    }

    /// A number that depends on nothing but the seed, the session and the transaction, so that the oracle can work
    /// out again what every transaction did and the record need not carry it (splitmix64).
    pub(crate) fn draw(&self, session: u32, seq: i64) -> u64 {
        let mut z = self.seed ^ (u64::from(session) << 40) ^ seq.unsigned_abs();
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
