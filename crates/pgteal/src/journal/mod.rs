//! The journal on disk: SQLite beside the configuration, one writing process, any number of readers.
//! Refuses to live on blue, and to know what the events it keeps are about.
//!
//! A [`SqliteJournal`] holds the lock of the process that drives; a [`JournalReader`] needs none and cannot write.

mod fault;
mod lock;
mod reader;
mod schema;
mod sqlite;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use lock::at_work;
pub use reader::JournalReader;
pub use sqlite::SqliteJournal;
