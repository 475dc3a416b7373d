//! Owns the checks about logical replication itself: what must be configured, free and out of the way. Refuses to know how a look is made.

mod blue_subscribes;
mod capacity;
mod leftovers;
mod replica_role;
mod slot_invalidation;
mod timeouts;
mod wal_level;

use super::Check;

pub(super) fn all() -> Vec<Check> {
    vec![
        wal_level::check(),
        capacity::check(),
        slot_invalidation::check(),
        blue_subscribes::check(),
        timeouts::check(),
        replica_role::check(),
        leftovers::check(),
    ]
}
