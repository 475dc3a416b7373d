//! Owns the catalogue of checks: what can stop an upgrade or lose data, how it is seen, and what it means. Refuses to
//! know how findings are shown and how they are settled: it changes nothing.
//!
//! A check is a title, questions in SQL, and a pure judge. A new one is one file in its area and one line in the area's
//! list.

mod catalogue;
pub mod cluster;
pub mod data;
mod evidence;
mod finding;
pub mod green;
pub mod replication;
pub mod roles;
mod sweep;

pub use catalogue::{Check, EVERY_VERSION, Look, Place, catalogue};
pub use evidence::{Answer, Context, Evidence, Fact, GreenFacts};
pub(crate) use finding::is_waived;
pub use finding::{CheckRun, Finding, Report, Severity, Spot, Verdict, Waiver};
pub use sweep::{Clusters, run_all};

/// The condition that keeps tables of users: `n` must be the table's `pg_namespace` row.
macro_rules! of_users {
    () => {
        "n.nspname not in ('pg_catalog','information_schema','pgteal') and n.nspname !~ '^pg_(toast|temp)'"
    };
}
use of_users;
