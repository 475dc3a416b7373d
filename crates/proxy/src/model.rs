//! The gate's own code, checked over every order in which threads can run it: `gate.rs` is compiled here a second time, upon
//! `model/sync.rs` instead of `sync.rs`, and `model/explorer.rs` chooses who runs next at each touch of what threads share. So
//! what is checked is the source that serves, not a drawing of it. `model/cutover.rs` has the stories and what must hold.
//! Refuses to know weak memory: each touch is one step, as with `SeqCst`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(dead_code, unreachable_pub, unused_imports, missing_debug_implementations)]

mod cutover;
mod explorer;
#[allow(clippy::duplicate_mod, reason = "that is the point")]
#[path = "gate.rs"]
mod gate;
mod sync;
