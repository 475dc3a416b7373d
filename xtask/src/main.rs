//! `cargo xtask`: the only tool a contributor needs.

fn main() {}
