//! The proof kit: walks a registry so that no step can be forgotten, and holds journals to their contract.
//!
//! A [`Bench`] supplies a registry, fresh worlds and a picture of a world. [`prove`] then runs every case that
//! [`cases`] derives from the plan: each step repeated, killed at each crash point, refused, left unknown, lying,
//! stopped, overtaken by another driver, undone. After each the world must look as it did before the run or as it
//! does after an undisturbed one. On a fake world in every test run; on real servers a bench can walk chosen cases.
//!
//! Refuses to know what a picture shows.

mod bench;
mod case;
pub mod conformance;
pub mod fake;
mod faulty;
mod prefixes;
mod rig;
mod walk;

pub use bench::{Bench, Report};
pub use case::{Case, Fault, cases};
pub use walk::{Reference, prove, prove_case, reference};
