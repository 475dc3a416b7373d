//! The `pgteal` command.

fn main() {}
