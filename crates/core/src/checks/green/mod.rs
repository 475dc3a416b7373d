//! Owns the checks about what green must be before it is filled. Refuses to know how a look is made.

mod empty;
mod extensions;

use super::Check;

pub(super) fn all() -> Vec<Check> {
    vec![empty::check(), extensions::check()]
}
