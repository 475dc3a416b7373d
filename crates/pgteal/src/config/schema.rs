//! The JSON schema of `pgteal.toml`, derived from the types.

use serde_json::Value;

use super::Config;

/// Where the schema is published in the repository.
pub const PUBLISHED: &str = "docs/pgteal.schema.json";

/// The schema as a value, for walking.
pub(super) fn schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

/// The schema as the text that `pgteal config schema` prints.
#[must_use]
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}
