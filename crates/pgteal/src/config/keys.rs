//! Compares the keys of a document with the schema: unknown keys with line and nearest known key. Knows no key by
//! name; the schema is the list.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table};

/// An unknown key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) key: String,
    pub(super) table: String,
    pub(super) line: usize,
    pub(super) nearest: Option<String>,
}

/// Where each key of the document stands: `switch.deadline_ms` to line.
pub(super) type Lines = BTreeMap<String, usize>;

/// Walks the document along the schema.
pub(super) fn walk(text: &str, document: &DeTable<'_>, schema: &Value) -> (Vec<Unknown>, Lines) {
    let mut walker = Walker { text, root: schema, unknown: Vec::new(), lines: Lines::new() };
    walker.table(document, schema, "");
    (walker.unknown, walker.lines)
}

/// Line of a byte offset, counted from 1.
pub(super) fn line_of(text: &str, span: Range<usize>) -> usize {
    text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1
}

/// `[switch]`, or `the top level`.
pub(super) fn table_name(path: &str) -> String {
    if path.is_empty() { "the top level".into() } else { format!("[{path}]") }
}

/// The schema behind `$ref`, and behind the `anyOf` that an optional value has.
pub(super) fn resolve<'s>(root: &'s Value, mut schema: &'s Value) -> &'s Value {
    loop {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            match root.pointer(target.trim_start_matches('#')) {
                Some(found) => schema = found,
                None => return schema,
            }
        } else if let Some(first) = schema.get("anyOf").and_then(|any| any.get(0)) {
            schema = first;
        } else {
            return schema;
        }
    }
}

/// The properties of an object schema.
pub(super) fn properties<'s>(
    root: &'s Value,
    schema: &'s Value,
) -> impl Iterator<Item = (&'s String, &'s Value)> + use<'s> {
    resolve(root, schema).get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// The kinds of value that an environment variable can give.
pub(super) enum Scalar {
    Text,
    Integer,
}

/// What a variable for this key holds; `None` for tables and lists.
pub(super) fn scalar(root: &Value, schema: &Value) -> Option<Scalar> {
    let schema = resolve(root, schema);
    let kind = schema.get("type");
    let is = |name: &str| match kind {
        Some(Value::String(kind)) => kind == name,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == name),
        _ => false,
    };
    if is("integer") {
        Some(Scalar::Integer)
    } else if is("string") || schema.get("enum").is_some() || schema.get("oneOf").is_some() {
        Some(Scalar::Text)
    } else {
        None
    }
}

/// The first required key that the merged table lacks, and the table it belongs to.
pub(super) fn missing(table: &Table, schema: &Value) -> Option<(String, String)> {
    missing_in(table, schema, schema, "")
}

fn missing_in(table: &Table, root: &Value, schema: &Value, path: &str) -> Option<(String, String)> {
    let schema = resolve(root, schema);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let empty = Table::new();
    for (name, property) in properties(root, schema) {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let required = required.contains(&name.as_str());
        let found = match table.get(name) {
            Some(toml::Value::Table(inner)) => missing_in(inner, root, property, &below),
            Some(toml::Value::Array(items)) => {
                let of = resolve(root, property).get("items").unwrap_or(&Value::Null);
                items
                    .iter()
                    .filter_map(toml::Value::as_table)
                    .find_map(|item| missing_in(item, root, of, &below))
            }
            Some(_) => None,
            None if required && resolve(root, property).get("properties").is_some() => {
                missing_in(&empty, root, property, &below)
            }
            None if required => Some((name.clone(), table_name(path))),
            None => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

struct Walker<'w> {
    text: &'w str,
    root: &'w Value,
    unknown: Vec<Unknown>,
    lines: Lines,
}

impl<'w> Walker<'w> {
    fn table(&mut self, table: &DeTable<'_>, schema: &'w Value, path: &str) {
        let schema = resolve(self.root, schema);
        let known = schema.get("properties").and_then(Value::as_object);
        let open = schema.get("additionalProperties").is_some_and(Value::is_object);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let line = line_of(self.text, key.span());
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            self.lines.insert(below.clone(), line);
            match known.and_then(|known| known.get(name)) {
                Some(schema) => self.value(value, schema, &below),
                None if open => {}
                None => {
                    let nearest = known
                        .and_then(|known| nearest(name, known.keys().map(String::as_str)))
                        .map(str::to_owned);
                    self.unknown.push(Unknown { key: name.into(), table: table_name(path), line, nearest });
                }
            }
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, schema: &'w Value, path: &str) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, schema, path),
            DeValue::Array(items) => {
                let Some(schema) = resolve(self.root, schema).get("items") else { return };
                for item in items {
                    if let DeValue::Table(table) = item.get_ref() {
                        self.table(table, schema, path);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The candidate with the fewest edits, when it is near enough to be meant.
fn nearest<'c>(key: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .map(|candidate| (edits(key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(key.len().max(candidate.len()) / 3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) between two keys: optimal string alignment distance.
fn edits(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let width = right.len() + 1;
    let mut cell = vec![0_usize; (left.len() + 1) * width];
    for row in 0..=left.len() {
        for column in 0..width {
            cell[row * width + column] = if row == 0 || column == 0 {
                row + column
            } else {
                let replace = usize::from(left[row - 1] != right[column - 1]);
                let mut best = (cell[(row - 1) * width + column] + 1)
                    .min(cell[row * width + column - 1] + 1)
                    .min(cell[(row - 1) * width + column - 1] + replace);
                let swapped = row > 1
                    && column > 1
                    && left[row - 1] == right[column - 2]
                    && left[row - 2] == right[column - 1];
                if swapped {
                    best = best.min(cell[(row - 2) * width + column - 2] + 1);
                }
                best
            };
        }
    }
    cell[left.len() * width + width - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_key() {
        let known = ["deadline_ms", "drain_budget_ms", "on_drain", "wait_ms", "max_lag_bytes"];
        for (written, expected) in [
            ("drain_bugdet_ms", Some("drain_budget_ms")),
            ("deadline", Some("deadline_ms")),
            ("deadline_s", Some("deadline_ms")),
            ("ondrain", Some("on_drain")),
            ("max_lag_byte", Some("max_lag_bytes")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, known.into_iter()), expected, "{written}");
        }
    }

    #[test]
    fn edits_count_a_swap_as_one() {
        for (left, right, expected) in
            [("", "", 0), ("a", "", 1), ("ab", "ba", 1), ("kitten", "sitting", 3), ("bugdet", "budget", 1)]
        {
            assert_eq!(edits(left, right), expected, "{left} {right}");
        }
    }
}
