//! Owns the checks about the two clusters as wholes: versions, databases, disk, open two-phase transactions. Refuses to know how a look is made.

mod database_access;
mod disk;
mod prepared_transactions;
mod tablespaces;
mod two_primaries;
mod version_order;

use super::Check;

pub(super) fn all() -> Vec<Check> {
    vec![
        version_order::check(),
        two_primaries::check(),
        database_access::check(),
        prepared_transactions::check(),
        tablespaces::check(),
        disk::check(),
    ]
}
