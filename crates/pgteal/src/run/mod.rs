//! Run control: which deployment there is, who may drive it, and one run from its plan to its outcome. Knows the engine
//! and the domain; prints nothing but through the stream.

pub mod history;
pub mod signals;

pub use history::{Entry, Fate, Stage, Standing};
