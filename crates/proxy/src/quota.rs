//! Owns how many clients there are: in all, of each user, to each database and from each address, and the bounds of that.
//! Refuses to know sessions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Limits;
use crate::stats::Limit;

/// One thing that clients are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    All,
    User(Box<[u8]>),
    Database(Box<[u8]>),
    Address(IpAddr),
}

/// Why there is no room: which bound, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the proxy's limit of {most} clients{whose} is reached ({})", .limit.name())]
pub(crate) struct Full {
    pub(crate) limit: Limit,
    most: usize,
    whose: String,
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    counts: Mutex<HashMap<Key, usize>>,
}

impl Quota {
    /// Counts a client in, for as long as the answer lives.
    ///
    /// # Errors
    /// The first bound that it would go over; nothing is counted then.
    pub(crate) fn take(
        self: &Arc<Self>,
        limits: &Limits,
        (user, database): (&[u8], &[u8]),
        address: Option<IpAddr>,
    ) -> Result<Claim, Full> {
        let mut bounds = vec![(Key::All, limits.max_clients, Limit::MaxClients)];
        let mut bound = |key: Key, most: usize, limit| {
            // 0: not bounded, and then not counted either.
            if most > 0 {
                bounds.push((key, most, limit));
            }
        };
        bound(Key::User(user.into()), limits.max_user_client_connections, Limit::MaxUser);
        bound(Key::Database(database.into()), limits.max_db_client_connections, Limit::MaxDb);
        if let Some(address) = address {
            let most = limits.max_address_client_connections;
            bound(Key::Address(address.to_canonical()), most, Limit::MaxAddress);
        }
        let mut counts = self.counts();
        for (key, most, limit) in &bounds {
            if counts.get(key).is_some_and(|count| count >= most) {
                return Err(Full { limit: *limit, most: *most, whose: whose(key) });
            }
        }
        let keys: Vec<Key> = bounds.into_iter().map(|(key, ..)| key).collect();
        for key in &keys {
            *counts.entry(key.clone()).or_default() += 1;
        }
        Ok(Claim { quota: Arc::clone(self), keys })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Key, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whose(key: &Key) -> String {
    match key {
        Key::All => String::new(),
        Key::User(user) => format!(" of user \"{}\"", String::from_utf8_lossy(user)),
        Key::Database(database) => format!(" to database \"{}\"", String::from_utf8_lossy(database)),
        Key::Address(address) => format!(" from {address}"),
    }
}

/// A client's place among the others.
#[derive(Debug)]
pub(crate) struct Claim {
    quota: Arc<Quota>,
    keys: Vec<Key>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut counts = self.quota.counts();
        for key in &self.keys {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn clients_are_counted_by_what_is_bounded_and_leave_nothing() {
        let quota = Arc::new(Quota::default());
        let limits = Limits {
            max_clients: 4,
            max_user_client_connections: 2,
            max_address_client_connections: 3,
            ..Limits::default()
        };
        let from = |last| Some(IpAddr::from([10, 0, 0, last]));
        let mapped = Some(std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().into());
        let take = |user: &[u8], address| quota.take(&limits, (user, b"db"), address);
        let mut claims = vec![take(b"a", from(1)).unwrap(), take(b"a", from(1)).unwrap()];
        let full = take(b"a", from(2)).unwrap_err();
        assert_eq!(full.limit, Limit::MaxUser);
        assert_eq!(
            full.to_string(),
            "the proxy's limit of 2 clients of user \"a\" is reached (max_user_client_connections)"
        );
        claims.push(take(b"b", from(1)).unwrap());
        assert_eq!(take(b"b", mapped).unwrap_err().limit, Limit::MaxAddress);
        claims.push(take(b"b", None).unwrap());
        let full = take(b"c", from(2)).unwrap_err();
        assert_eq!(full.to_string(), "the proxy's limit of 4 clients is reached (max_clients)");
        claims.remove(0);
        claims.push(take(b"a", from(2)).unwrap());
        claims.clear();
        assert!(quota.counts().is_empty());
    }
}
