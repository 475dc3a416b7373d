//! Run control: which deployment there is, who may drive it, and one run from its plan to its outcome. Knows the engine
//! and the domain; prints nothing but through the stream.

pub mod desk;
pub mod history;
pub mod journey;
pub mod place;
pub mod signals;

pub use desk::{Desk, JOURNAL, journal_path};
pub use history::{Entry, Fate, Stage, Standing};
pub use journey::{Clients, Journey, Way};
