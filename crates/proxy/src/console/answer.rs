//! Owns the form of the console's answers: rows of text, or an error with an SQLSTATE. Refuses to know commands.

use bytes::BytesMut;
use pgteal_wire::message::report::Report;
use pgteal_wire::message::rows::{put_command_complete, put_data_row, put_row_description};

use crate::gate::GateError;

/// object_not_in_prerequisite_state
const NOT_NOW: &str = "55000";

/// Rows of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Answer {
    /// A table without rows.
    pub(crate) fn table(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// One row, each column with its value.
    pub(crate) fn one<const N: usize>(fields: [(&'static str, String); N]) -> Self {
        let (columns, row) = fields.into_iter().unzip();
        Self { columns, rows: vec![row] }
    }

    pub(crate) fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// One more column of an answer of one row.
    pub(crate) fn and(&mut self, column: &'static str, value: String) {
        self.columns.push(column);
        if let Some(row) = self.rows.first_mut() {
            row.push(value);
        }
    }

    pub(super) fn encode(&self, tag: &str, out: &mut BytesMut) {
        put_row_description(out, &self.columns);
        for row in &self.rows {
            let values: Vec<Option<&str>> = row.iter().map(|value| Some(value.as_str())).collect();
            put_data_row(out, &values);
        }
        put_command_complete(out, tag);
    }
}

/// Why a command was refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    sqlstate: &'static str,
    message: String,
}

impl Refusal {
    /// Not what the grammar allows.
    pub(crate) fn syntax(message: String) -> Self {
        Self { sqlstate: "42601", message }
    }

    /// Not possible in this state.
    pub(crate) fn not_now(message: impl Into<String>) -> Self {
        Self { sqlstate: NOT_NOW, message: message.into() }
    }

    /// Not for this user.
    pub(crate) fn permission(message: String) -> Self {
        Self { sqlstate: "42501", message }
    }

    /// A value out of range.
    pub(crate) fn value(message: String) -> Self {
        Self { sqlstate: "22023", message }
    }

    /// A file cannot be used.
    pub(crate) fn config_file(message: String) -> Self {
        Self { sqlstate: "F0000", message }
    }

    pub(super) fn report(&self) -> Report {
        Report::error(self.sqlstate, self.message.clone())
    }
}

impl From<GateError> for Refusal {
    fn from(error: GateError) -> Self {
        let sqlstate = match error {
            GateError::NotRecorded(_) => "58030",
            _ => NOT_NOW,
        };
        Self { sqlstate, message: error.to_string() }
    }
}
