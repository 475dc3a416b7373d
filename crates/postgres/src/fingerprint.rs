//! A schema as lines of text that are equal on every version for equal schemas, to compare and to diff. Knows what the
//! versions print differently and leaves it out: NOT NULL constraints (18 has them as rows), the owner of schema public
//! if it is initdb's (14: the superuser, later: the database's owner), and all that is in [`Details`].

use std::collections::BTreeSet;

use serde::Serialize;

mod details;

pub use details::{Details, details};

use crate::catalog::USER_SCHEMA as SCHEMA;
use crate::error::Result;
use crate::session::Session;

/// The objects of a database, one line each, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Fingerprint {
    /// The lines, e.g. `column shop.orders.id integer not null`.
    pub lines: BTreeSet<String>,
}

/// Lines that only one of two schemas has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SchemaDifference {
    /// Only in the first.
    pub only_first: Vec<String>,
    /// Only in the second.
    pub only_second: Vec<String>,
}

impl SchemaDifference {
    /// Whether the schemas are equal.
    pub fn is_empty(&self) -> bool {
        self.only_first.is_empty() && self.only_second.is_empty()
    }
}

impl Fingerprint {
    /// The same with a trigger enabled in another way (PostgreSQL docs, "pg_trigger", tgenabled), for one whose state
    /// here is known to be for a time.
    #[must_use]
    pub fn with_trigger(mut self, schema: &str, table: &str, name: &str, enabled: &str) -> Self {
        let head = format!("trigger {schema}.{table}.{name} enabled ");
        if let Some(line) = self.lines.iter().find(|line| line.starts_with(&head)).cloned() {
            self.lines.remove(&line);
            let definition = line[head.len()..].trim_start_matches(|c| c != ' ');
            self.lines.insert(format!("{head}{enabled}{definition}"));
        }
        self
    }

    /// What this one and another do not share.
    pub fn difference(&self, other: &Fingerprint) -> SchemaDifference {
        SchemaDifference {
            only_first: self.lines.difference(&other.lines).cloned().collect(),
            only_second: other.lines.difference(&self.lines).cloned().collect(),
        }
    }
}

/// Objects of extensions are left out of every part: the extension's name stands for them.
fn not_extension(catalog: &str, oid: &str) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = '{catalog}'::regclass AND d.objid = {oid}
         AND d.deptype = 'e')"
    )
}

/// Reads the schema of the session's database.
pub async fn read(s: &Session) -> Result<Fingerprint> {
    let mut lines = BTreeSet::new();
    for (what, sql) in parts() {
        let doing = format!("reading the schema ({what})");
        for row in s.query(&doing, &sql, &[]).await? {
            let line: String = row.get(0)?;
            lines.insert(format!("{what} {line}"));
        }
    }
    Ok(Fingerprint { lines })
}

fn parts() -> Vec<(&'static str, String)> {
    let relation = not_extension("pg_class", "c.oid");
    let function = not_extension("pg_proc", "p.oid");
    let ty = not_extension("pg_type", "t.oid");
    vec![
        ("schema", format!(
            "SELECT n.nspname || CASE WHEN n.nspname = 'public' AND pg_get_userbyid(n.nspowner) IN ('pg_database_owner',
               pg_get_userbyid(10)) THEN '' ELSE ' owner ' || pg_get_userbyid(n.nspowner) END
             FROM pg_namespace n WHERE {SCHEMA}"
        )),
        ("extension", "SELECT extname::text FROM pg_extension".to_owned()),
        ("relation", format!(
            "SELECT format('%I.%I %s of %s', n.nspname, c.relname,
             CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
               WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'type' END,
             pg_get_userbyid(c.relowner))
             || CASE c.relpersistence WHEN 'p' THEN '' WHEN 'u' THEN ', unlogged' ELSE ', temporary' END
             || CASE WHEN c.relrowsecurity THEN ', row security' ELSE '' END
             || CASE WHEN c.relforcerowsecurity THEN ', forced row security' ELSE '' END
             || coalesce((SELECT ', child of ' || string_agg(i.inhparent::regclass::text
                 || CASE WHEN i.inhdetachpending THEN ' being detached' ELSE '' END, ',' ORDER BY i.inhseqno)
               FROM pg_inherits i WHERE i.inhrelid = c.oid), '')
             || coalesce(', partition ' || pg_get_expr(c.relpartbound, c.oid), '')
             || CASE WHEN c.relkind = 'p' THEN ', by ' || pg_get_partkeydef(c.oid) ELSE '' END
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND {SCHEMA} AND {relation}"
        )),
        ("column", format!(
            "SELECT format('%I.%I.%I %s %s collate %s identity %s generated %s default %s', n.nspname, c.relname,
             a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
             (SELECT collname FROM pg_collation k WHERE k.oid = a.attcollation), a.attidentity, a.attgenerated,
             pg_get_expr(f.adbin, f.adrelid))
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
             WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
             AND {SCHEMA} AND {relation}"
        )),
        ("index", format!(
            "SELECT pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END
             FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {SCHEMA} AND {relation}"
        )),
        ("constraint", format!(
            "SELECT format('%I.%I.%I %s', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE k.contype <> 'n' AND {SCHEMA} AND {relation}"
        )),
        ("trigger", format!(
            "SELECT format('%s.%s.%s enabled %s %s', n.nspname, c.relname, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid))
             FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgname <> '~pgteal_fence' AND {SCHEMA} AND {relation}"
        )),
        ("rule", format!(
            "SELECT format('%I.%I.%I %s', n.nspname, c.relname, r.rulename, r.ev_enabled) FROM pg_rewrite r
             JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE r.rulename <> '_RETURN' AND {SCHEMA} AND {relation}"
        )),
        ("policy", format!(
            "SELECT format('%I.%I.%I %s %s %s using %s check %s', n.nspname, c.relname, p.polname, p.polcmd,
             p.polpermissive, (SELECT string_agg(coalesce(r.rolname::text, 'public'), ',' ORDER BY r.rolname)
               FROM unnest(p.polroles) o LEFT JOIN pg_roles r ON r.oid = o),
             pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
             FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {SCHEMA} AND {relation}"
        )),
        ("sequence", format!(
            "SELECT format('%I.%I as %s start %s increment %s min %s max %s cache %s cycle %s', n.nspname, c.relname,
             format_type(q.seqtypid, NULL), q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle)
             FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE {SCHEMA} AND {relation}"
        )),
        ("function", format!(
            "SELECT format('%I.%I(%s) %s returns %s language %s body %s volatile %s strict %s definer %s set %s owner %s',
             n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), p.prokind, pg_get_function_result(p.oid),
             l.lanname, md5(coalesce(p.prosrc, '')), p.provolatile, p.proisstrict, p.prosecdef, p.proconfig,
             pg_get_userbyid(p.proowner))
             FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
             WHERE {SCHEMA} AND {function}"
        )),
        ("type", format!(
            "SELECT format('%I.%I %s enum %s base %s not null %s default %s', n.nspname, t.typname, t.typtype,
             (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
             CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END, t.typnotnull, t.typdefault)
             FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
             WHERE t.typtype IN ('e', 'd', 'r', 'c') AND (c.oid IS NULL OR c.relkind = 'c') AND {SCHEMA} AND {ty}"
        )),
    ]
}
