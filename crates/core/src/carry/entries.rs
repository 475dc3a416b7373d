//! Owns the splitting of pg_dump's plain text into its entries. Pure: refuses to know files and servers.
//!
//! pg_dump writes each entry behind a header comment (`_printTocEntry` in `pg_backup_archiver.c`):
//! `-- Name: orders_pkey; Type: CONSTRAINT; Schema: public; Owner: app`, with line ends in names replaced by spaces.

/// The part of a schema that an entry belongs to: before or after the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Types, functions, tables, views, privileges.
    PreData,
    /// Indexes, constraints, triggers, rules, policies.
    PostData,
}

/// One entry: one object, its comment or its privileges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as pg_dump gives it, e.g. `orders orders_pkey` or `TABLE orders`.
    pub name: String,
    /// The type, e.g. `INDEX`, `FK CONSTRAINT`.
    pub kind: String,
    /// The schema, or `-`.
    pub schema: String,
    /// The statements.
    pub sql: String,
}

impl Entry {
    /// `schema.name`, for messages.
    pub fn object(&self) -> String {
        if self.schema == "-" { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }
}

/// Splits a plain dump. What stands before the first entry, the settings of the session, comes back first.
pub(super) fn split(dump: &str) -> (String, Vec<Entry>) {
    let (mut preamble, mut entries) = (String::new(), Vec::<Entry>::new());
    let lines: Vec<&str> = dump.split_inclusive('\n').collect();
    let is_rule = |line: Option<&&str>| line.is_some_and(|l| l.trim_end() == "--");
    for (at, line) in lines.iter().enumerate() {
        // Meta-commands of psql: `\restrict` and `\unrestrict` stand before the first and behind the last entry.
        let bare = line.trim_end();
        if (entries.is_empty() && bare.starts_with("\\restrict ")) || (bare.starts_with("\\unrestrict ")) {
            continue;
        }
        let ruled = at > 0 && is_rule(lines.get(at - 1)) && is_rule(lines.get(at + 1));
        if let Some(entry) = header(bare).filter(|_| ruled) {
            entries.push(entry);
            continue;
        }
        entries.last_mut().map_or(&mut preamble, |e| &mut e.sql).push_str(line);
    }
    for entry in &mut entries {
        entry.sql = without_private_options(trim_comments(&entry.sql), &entry.kind);
    }
    entries.retain(|e| !e.sql.is_empty());
    (preamble, entries)
}

/// The column option that servers keep for themselves, on every column they make (seen since 15.20). A pg_dump that is
/// older than the server writes it down like any other, and no server takes it from anybody.
const PRIVATE_OPTION: &str = "pg_attver=";

/// The statements of a relation without [`PRIVATE_OPTION`], which pg_dump writes as
/// `ALTER TABLE ONLY public.t ALTER COLUMN c SET (pg_attver=1, n_distinct=5);` in a line of its own.
fn without_private_options(sql: &str, kind: &str) -> String {
    if !["TABLE", "FOREIGN TABLE", "MATERIALIZED VIEW", "VIEW"].contains(&kind)
        || !sql.contains(PRIVATE_OPTION)
    {
        return sql.to_owned();
    }
    let clean = |line: &str| -> Option<String> {
        let split = || {
            let (head, options) = line.trim_end().strip_suffix(");")?.rsplit_once(" SET (")?;
            (head.starts_with("ALTER ") && head.contains(" ALTER COLUMN ")).then_some((head, options))
        };
        let Some((head, options)) = split() else { return Some(line.to_owned()) };
        let public: Vec<_> = options.split(", ").filter(|o| !o.starts_with(PRIVATE_OPTION)).collect();
        (!public.is_empty()).then(|| format!("{head} SET ({});\n", public.join(", ")))
    };
    sql.split_inclusive('\n').filter_map(clean).collect::<String>().trim_end().to_owned()
}

/// Reads a header. Headers stand between two lines of two dashes. A function body could hold the same three lines; then
/// the server refuses the halves, and nothing is lost.
fn header(line: &str) -> Option<Entry> {
    let rest = line.strip_prefix("-- Name: ")?;
    // From the end: names may contain the separators, the other fields hardly.
    let (rest, _owner) = rest.rsplit_once("; Owner: ")?;
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (name, kind) = rest.rsplit_once("; Type: ")?;
    let (name, kind, schema) = (name.to_owned(), kind.to_owned(), schema.to_owned());
    Some(Entry { name, kind, schema, sql: String::new() })
}

/// Without the comment lines and empty lines around the statements.
fn trim_comments(sql: &str) -> &str {
    let is_noise =
        |line: &str| line.trim().is_empty() || line.trim_end() == "--" || line.starts_with("-- Dumped");
    let mut text = sql;
    while let Some(line) = text.split_inclusive('\n').next()
        && is_noise(line)
    {
        text = &text[line.len()..];
    }
    while let Some(line) = text.split_inclusive('\n').next_back()
        && (is_noise(line) || line.starts_with("-- PostgreSQL database dump complete"))
    {
        text = &text[..text.len() - line.len()];
    }
    text.trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = r"--
-- PostgreSQL database dump
--

\restrict Abc

-- Dumped from database version 15.19
-- Dumped by pg_dump version 18.6

SET statement_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: touch(); Type: FUNCTION; Schema: public; Owner: app
--

CREATE FUNCTION public.touch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
--
  -- a comment; Type: odd
\restrict
  return new;

end $$;


ALTER FUNCTION public.touch() OWNER TO app;

--
-- Name: weird; Type: x; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX weird ON public.t USING btree (a);


--
-- PostgreSQL database dump complete
--

\unrestrict Abc

";

    #[test]
    fn a_dump_falls_into_its_entries() {
        let (preamble, entries) = split(DUMP);
        assert!(
            preamble.contains("SET statement_timeout = 0;") && !preamble.contains("restrict"),
            "{preamble}"
        );
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].object(), "public.touch()");
        assert!(entries[0].sql.starts_with("CREATE FUNCTION") && entries[0].sql.ends_with("OWNER TO app;"));
        assert!(
            entries[0].sql.contains("begin\n--\n  -- a comment; Type: odd\n\\restrict\n"),
            "{}",
            entries[0].sql
        );
        assert_eq!((entries[1].name.as_str(), entries[1].kind.as_str()), ("weird; Type: x", "INDEX"));
        assert_eq!(entries[1].sql, "CREATE INDEX weird ON public.t USING btree (a);");
    }

    #[test]
    fn options_that_servers_keep_for_themselves_are_left_out() {
        let sql = "CREATE TABLE public.b (\n    x integer DEFAULT length('pg_attver=1')\n);
ALTER TABLE ONLY public.b ALTER COLUMN x SET (pg_attver=22255448, n_distinct=5);
ALTER TABLE ONLY public.b ALTER COLUMN y SET (n_distinct=-0.5);
ALTER TABLE ONLY public.b ALTER COLUMN z SET (pg_attver=22255448);";
        let expected = "CREATE TABLE public.b (\n    x integer DEFAULT length('pg_attver=1')\n);
ALTER TABLE ONLY public.b ALTER COLUMN x SET (n_distinct=5);
ALTER TABLE ONLY public.b ALTER COLUMN y SET (n_distinct=-0.5);";
        assert_eq!(without_private_options(sql, "TABLE"), expected);
        assert_eq!(without_private_options(sql, "FUNCTION"), sql);
    }
}
