//! The `pgteal-proxy` program.

fn main() {}
