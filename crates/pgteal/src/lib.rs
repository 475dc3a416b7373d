//! The `pgteal` library behind the command.
