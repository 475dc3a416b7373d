//! Owns the order of entries after the rows: which may be made at once, and which come first. Pure: refuses to know
//! servers.

use std::collections::HashMap;

use super::Stage;
use crate::carry::entries::Entry;

/// Entries that are made together. The next wave begins when all of them are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wave {
    pub(super) stage: Stage,
    /// At once, in the order given, or one after the other in pg_dump's order.
    pub(super) parallel: bool,
    /// Whether nothing comes after it.
    pub(super) last: bool,
    /// Positions in the script.
    pub(super) entries: Vec<usize>,
}

/// Splits the entries into waves; `sizes` are bytes by table.
pub(super) fn plan(entries: &[Entry], sizes: &HashMap<String, i64>) -> Vec<Wave> {
    let pick = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<usize> {
        entries.iter().enumerate().filter(|(_, e)| wanted(e)).map(|(at, _)| at).collect()
    };
    let largest_first = |mut picked: Vec<usize>| {
        picked.sort_by_key(|&at| {
            let size = table(&entries[at].sql).and_then(|t| sizes.get(t)).copied().unwrap_or(0);
            (std::cmp::Reverse(size), at)
        });
        picked
    };
    let is_bulk =
        |e: &Entry| matches!(e.kind.as_str(), "INDEX" | "CONSTRAINT" | "CHECK CONSTRAINT" | "STATISTICS");
    let is_attach = |e: &Entry| e.kind == "INDEX ATTACH";
    let is_reference = |e: &Entry| e.kind == "FK CONSTRAINT";
    let rest = pick(&|e| !is_bulk(e) && !is_key(e) && !is_attach(e) && !is_reference(e));
    let wave = |stage, parallel, entries| Wave { stage, parallel, last: false, entries };
    vec![
        wave(Stage::Keys, true, largest_first(pick(&is_key))),
        wave(Stage::All, true, largest_first(pick(&|e| is_bulk(e) && !is_key(e)))),
        wave(Stage::All, false, pick(&is_attach)),
        wave(Stage::All, true, largest_first(pick(&is_reference))),
        Wave { last: true, ..wave(Stage::All, false, rest) },
    ]
}

/// Whether an entry makes what identifies a row to the apply worker.
fn is_key(entry: &Entry) -> bool {
    let sql = &entry.sql;
    match entry.kind.as_str() {
        "CONSTRAINT" => sql.contains(" PRIMARY KEY ") || sql.contains(" REPLICA IDENTITY USING INDEX "),
        "INDEX" => sql.contains(" REPLICA IDENTITY USING INDEX "),
        _ => false,
    }
}

/// The table that an entry works on, as it is written: `ALTER TABLE ONLY s.t ADD ..`, `CREATE INDEX i ON ONLY s.t USING ..`.
fn table(sql: &str) -> Option<&str> {
    let from = match sql.strip_prefix("ALTER TABLE ") {
        Some(rest) => rest,
        None => sql.split_once(" ON ")?.1,
    };
    let from = from.strip_prefix("ONLY ").unwrap_or(from);
    let mut quoted = false;
    let end = from.find(|c: char| {
        quoted ^= c == '"';
        !quoted && (c.is_whitespace() || c == ';' || c == '(')
    });
    Some(&from[..end.unwrap_or(from.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, sql: &str) -> Entry {
        Entry {
            name: "x".to_owned(),
            kind: kind.to_owned(),
            schema: "public".to_owned(),
            sql: sql.to_owned(),
        }
    }

    #[test]
    fn tables_are_found_in_statements() {
        for (sql, expected) in [
            ("ALTER TABLE ONLY public.t\n    ADD CONSTRAINT k PRIMARY KEY (id);", "public.t"),
            ("CREATE UNIQUE INDEX i ON ONLY public.\"my t\" USING btree (a);", "public.\"my t\""),
            ("CREATE INDEX i ON s.t USING gin (b);", "s.t"),
        ] {
            assert_eq!(table(sql), Some(expected));
        }
    }

    #[test]
    fn keys_come_first_then_larger_tables_then_references_then_the_rest() {
        let entries = [
            entry("CONSTRAINT", "ALTER TABLE ONLY public.small ADD CONSTRAINT k PRIMARY KEY (id);"),
            entry("CONSTRAINT", "ALTER TABLE ONLY public.small ADD CONSTRAINT u UNIQUE (a);"),
            entry("INDEX", "CREATE INDEX i ON public.large USING btree (a);"),
            entry(
                "INDEX",
                "CREATE UNIQUE INDEX j ON public.t USING btree (a);\nALTER TABLE ONLY public.t REPLICA IDENTITY USING INDEX j;",
            ),
            entry("TRIGGER", "CREATE TRIGGER .."),
            entry("INDEX ATTACH", "ALTER INDEX public.p ATTACH PARTITION public.q;"),
            entry(
                "FK CONSTRAINT",
                "ALTER TABLE ONLY public.small ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES public.large(id);",
            ),
        ];
        let sizes = HashMap::from([("public.small".to_owned(), 1), ("public.large".to_owned(), 1000)]);
        let order: Vec<Vec<usize>> = plan(&entries, &sizes).into_iter().map(|w| w.entries).collect();
        assert_eq!(order, [vec![0, 3], vec![2, 1], vec![5], vec![6], vec![4]]);
    }
}
