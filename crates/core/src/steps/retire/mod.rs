//! The steps of `finish`, in the order of `retire.rs`.

pub mod check_active;
pub mod clear_active;
pub mod clear_retired;
pub mod remove_streams;
pub mod restore_tables;
