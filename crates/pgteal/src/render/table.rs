//! Tables of text. One look for all.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table with a head; columns whose number is in `right` are aligned to the right.
#[must_use]
pub fn table(head: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(|name| name.to_string()));
    for row in rows {
        table.add_row(row);
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["orders".into(), "1,000".into()], vec!["a".into(), "7".into()]];
        insta::assert_snapshot!(table(&["table", "rows"], &[1], rows));
    }
}
