//! Owns the checks about the role the tool connects as, and the roles it has to carry. Refuses to know how a look is made.

mod dedicated;
mod power;
mod verifiers;

use super::Check;

pub(super) fn all() -> Vec<Check> {
    vec![power::check(), dedicated::check(), verifiers::check()]
}
