//! Owns the shape of a progress report from long work. Refuses to know who shows it: reports are ephemeral and
//! nothing may depend on one being seen.

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Rows.
    Rows,
    /// Things done: indexes, tables, statements.
    Items,
}

/// One report: of `total` units, `done` are done, and `name` is what is being worked on or was just finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick<'a> {
    /// The object, as a user knows it, e.g. `app.public.orders_pkey`.
    pub name: &'a str,
    /// Units done so far.
    pub done: u64,
    /// Units in all; 0 when unknown.
    pub total: u64,
    /// What the units are.
    pub unit: Unit,
}

/// Receives reports. Called often and from several tasks: it must be quick and must not block.
pub type Progress<'a> = dyn for<'t> Fn(Tick<'t>) + Send + Sync + 'a;

/// For callers that show nothing.
pub fn silent(_: Tick<'_>) {}
