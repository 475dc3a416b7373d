//! Owns the checks about what is in the tables and whether logical replication can carry it. Refuses to know how a look is made.

mod firing_triggers;
mod identity_equality;
mod large_objects;
mod later_changes;
mod materialized_views;
mod replica_identity;
mod row_security;
mod unlogged;

pub(crate) use large_objects::of as large_objects_of;

use super::Check;

pub(super) fn all() -> Vec<Check> {
    vec![
        replica_identity::check(),
        identity_equality::check(),
        unlogged::check(),
        large_objects::check(),
        firing_triggers::check(),
        row_security::check(),
        materialized_views::check(),
        later_changes::check(),
    ]
}
