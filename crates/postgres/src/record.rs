//! One row of an answer, read column by column without panics. Knows no query.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

use crate::error::{Error, Place, Result};

/// One row. A column that is missing, NULL where it must not be, or of another type is an error that names it.
#[derive(Debug)]
pub struct Record {
    row: Row,
    place: Arc<Place>,
}

impl Record {
    pub(crate) fn new(row: Row, place: Arc<Place>) -> Self {
        Self { row, place }
    }

    /// The value of column `index`, counted from 0.
    pub fn get<T: FromSqlOwned>(&self, index: usize) -> Result<T> {
        self.row.try_get(index).map_err(|e| {
            let name = self.row.columns().get(index).map_or("?", |c| c.name());
            let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), |s| format!("{e}: {s}"));
            Error::Unexpected {
                place: Box::new((*self.place).clone()),
                message: format!("column {index} ({name}) cannot be read: {cause}"),
            }
        })
    }

    /// The number of columns.
    pub fn len(&self) -> usize {
        self.row.len()
    }

    /// Whether there is no column.
    pub fn is_empty(&self) -> bool {
        self.row.is_empty()
    }
}
