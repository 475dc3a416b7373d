//! The steps of a switchover, in the order of `switchover.rs`.

pub mod advance_sequences;
pub mod await_calm;
pub mod carry_last;
pub mod drain;
pub mod drop_stream;
pub mod end_old_sessions;
pub mod fence;
pub mod freshen;
pub mod guardrails;
pub mod hold_clients;
pub mod make_way_back;
pub mod open_way_back;
pub mod probe_write;
pub mod reach_marker;
pub mod release;
pub mod repoint;
pub mod reverse_ready;
pub mod stage_fence;
pub mod warm_servers;
pub mod warm_sessions;
