//! Owns what the gate is built from: what several threads may touch at once, and the clock. Refuses to add anything to it;
//! the model of the gate (`model.rs`) has its own.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use tokio::sync::Notify;
pub(crate) use tokio::sync::futures::OwnedNotified;
pub(crate) use tokio::time::{Instant, timeout_at};
