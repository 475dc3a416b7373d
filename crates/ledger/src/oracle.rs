//! skeleton
use crate::record::Record;
use crate::verdict::Verdict;
use tokio_postgres::Client;

/// The database could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the oracle could not read {table}: {source}")]
pub struct OracleError {
    table: String,
    source: tokio_postgres::Error,
}

/// Proves what became of a run.
#[derive(Debug)]
pub struct Oracle<'a> {
    record: &'a Record,
}

impl<'a> Oracle<'a> {
    /// An oracle over what the clients saw.
    pub fn new(record: &'a Record) -> Self {
        Oracle { record }
    }

    /// Reads the active side and compares. `billing` is needed if the workload had sessions there.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn check(&self, shop: &Client, billing: Option<&Client>) -> Result<Verdict, OracleError> {
        let _ = (self.record, shop, billing);
        Ok(Verdict::default())
    }
}
