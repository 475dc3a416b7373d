//! The workflow engine: plan, journal, fold, decide, driver, lease, the proof kit.
//!
//! A run is a straight list of steps, frozen into a [`Plan`]. The [`Driver`] is the
//! only loop: it folds the journal into a [`State`], asks [`decide`](decide::decide) what to do
//! next, does it, and writes down what came of it. What happened lives in the journal, what is so lives in the
//! world, and a step only knows how to look at the world, change it and put it back.
//!
//! Reading order: [`step`], [`event`], [`state`], [`decide`], [`driver`], [`journal`], then [`proof`].
//!
//! This crate refuses to know PostgreSQL: what a step does is the business of whoever wrote it.

pub mod clock;
pub mod cx;
pub mod decide;
pub mod driver;
pub mod event;
pub mod fault;
pub mod hooks;
pub mod ids;
pub mod journal;
pub mod memory;
pub mod observer;
pub mod plan;
pub mod proof;
pub mod registry;
pub mod state;
pub mod step;
pub mod stop;
pub mod stored;
pub mod timeline;

pub use clock::Clock;
pub use cx::Cx;
pub use driver::{Driver, DriverError, Outcome, Setup};
pub use event::{Event, EventBody};
pub use fault::{Failure, StepError};
pub use hooks::{CrashPoint, Hooks};
pub use ids::{DeploymentId, Epoch, RunId};
pub use journal::{Durability, Journal, JournalError, Lease, RunSummary};
pub use memory::MemoryJournal;
pub use observer::{Feed, Observer, Progress, Update};
pub use plan::{Plan, Retry, Section};
pub use registry::Registry;
pub use state::State;
pub use step::{Observation, Step, StepKind};
pub use stop::{Stop, StopHandle};
