//! The proof kit.
