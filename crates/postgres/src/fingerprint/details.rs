//! What of a schema is told by texts that differ between versions: privileges, the bodies of views and functions, options,
//! versions of extensions. Only to be compared with an earlier look at the same server. Texts are kept as digests: they
//! may hold anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::not_extension;
use crate::catalog::USER_SCHEMA as SCHEMA;
use crate::error::Result;
use crate::session::Session;

/// One entry per object and aspect, e.g. `privileges of shop.orders`, with a digest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Details(BTreeMap<String, String>);

impl Details {
    /// The aspects that are not what they were, each with what became of it.
    pub fn changes_since(&self, earlier: &Details) -> Vec<String> {
        let now = self.0.iter().filter_map(|(what, digest)| match earlier.0.get(what) {
            None => Some(format!("{what}: new")),
            Some(then) if then != digest => Some(format!("{what}: changed")),
            Some(_) => None,
        });
        let gone = earlier.0.keys().filter(|what| !self.0.contains_key(*what));
        now.chain(gone.map(|what| format!("{what}: gone"))).collect()
    }
}

/// Reads the details of the session's database.
///
/// # Errors
/// When the server cannot be asked.
pub async fn details(s: &Session) -> Result<Details> {
    let mut all = BTreeMap::new();
    for (what, sql) in parts() {
        let doing = format!("reading the schema ({what})");
        let sql =
            format!("SELECT object, md5(string_agg(text, ' ' ORDER BY text)) FROM ({sql}) x GROUP BY object");
        for row in s.query(&doing, &sql, &[]).await? {
            let (object, digest): (String, String) = (row.get(0)?, row.get(1)?);
            all.insert(format!("{what} {object}"), digest);
        }
    }
    Ok(Details(all))
}

/// One row per entry of an access list: what was granted and taken back leaves the default, spelled out. Objects of
/// extensions count only with a list of their own.
fn privileges(list: &str, default: &str) -> String {
    format!("unnest(coalesce({list}, {default})) AS item(entry)")
}

/// Queries for an object's name and a text; several rows of one name are one object.
fn parts() -> Vec<(&'static str, String)> {
    let own = not_extension;
    let relation = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace";
    let function = "pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace";
    let signature = "format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))";
    vec![
        ("privileges of", format!(
            "SELECT format('%I.%I', n.nspname, c.relname) AS object, entry::text AS text FROM {relation}, {}
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {SCHEMA} AND (c.relacl IS NOT NULL OR {})",
            privileges("c.relacl", "acldefault(CASE c.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r' END, c.relowner)"),
            own("pg_class", "c.oid")
        )),
        ("privileges of column", format!(
            "SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname) AS object, entry::text AS text
             FROM {relation} JOIN pg_attribute a ON a.attrelid = c.oid, unnest(a.attacl) AS item(entry)
             WHERE NOT a.attisdropped AND {SCHEMA}"
        )),
        ("privileges of function", format!(
            "SELECT {signature} AS object, entry::text AS text FROM {function}, {} WHERE {SCHEMA}
             AND (p.proacl IS NOT NULL OR {})", privileges("p.proacl", "acldefault('f', p.proowner)"), own("pg_proc", "p.oid")
        )),
        ("privileges of schema", format!(
            "SELECT quote_ident(n.nspname) AS object, entry::text AS text FROM pg_namespace n, {} WHERE {SCHEMA}",
            privileges("n.nspacl", "acldefault('n', n.nspowner)")
        )),
        ("privileges of type", format!(
            "SELECT format('%I.%I', n.nspname, t.typname) AS object, entry::text AS text
             FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace, {} WHERE t.typtype IN ('d', 'e', 'r')
             AND {SCHEMA} AND (t.typacl IS NOT NULL OR {})",
            privileges("t.typacl", "acldefault('T', t.typowner)"), own("pg_type", "t.oid")
        )),
        ("default privileges of", "SELECT format('%s in schema %s for %s', pg_get_userbyid(d.defaclrole),
             coalesce(n.nspname, 'any'), d.defaclobjtype) AS object, entry::text AS text
             FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, unnest(d.defaclacl) AS item(entry)".to_owned()),
        ("definition of view", format!(
            "SELECT format('%I.%I', n.nspname, c.relname) AS object, pg_get_viewdef(c.oid) AS text FROM {relation}
             WHERE c.relkind IN ('v', 'm') AND {SCHEMA} AND {}", own("pg_class", "c.oid")
        )),
        ("definition of rule", format!(
            "SELECT format('%I.%I.%I', n.nspname, c.relname, r.rulename) AS object, pg_get_ruledef(r.oid) AS text
             FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE r.rulename <> '_RETURN' AND {SCHEMA} AND {}", own("pg_class", "c.oid")
        )),
        ("options of", format!(
            "SELECT format('%I.%I', n.nspname, c.relname) AS object, option AS text FROM {relation}, unnest(c.reloptions) AS option
             WHERE {SCHEMA} AND {}", own("pg_class", "c.oid")
        )),
        ("definition of function", format!(
            "SELECT {signature} AS object, pg_get_functiondef(p.oid) AS text FROM {function}
             WHERE p.prokind <> 'a' AND {SCHEMA} AND {}", own("pg_proc", "p.oid")
        )),
        ("definition of aggregate", format!(
            "SELECT {signature} AS object, md5(a::text) AS text FROM {function} JOIN pg_aggregate a ON a.aggfnoid = p.oid
             WHERE {SCHEMA} AND {}", own("pg_proc", "p.oid")
        )),
        ("definition of operator", format!(
            "SELECT o.oid::regoperator::text AS object, concat_ws(' ', o.oprcode, o.oprcom, o.oprnegate, o.oprrest, o.oprjoin,
             o.oprcanmerge, o.oprcanhash) AS text FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
             WHERE {SCHEMA} AND {}", own("pg_operator", "o.oid")
        )),
        ("definition of cast", format!(
            "SELECT format('%s as %s', castsource::regtype, casttarget::regtype) AS object,
             concat_ws(' ', castfunc, castcontext, castmethod) AS text FROM pg_cast c WHERE c.oid >= 16384 AND {}",
            own("pg_cast", "c.oid")
        )),
        ("definition of statistics", format!(
            "SELECT format('%I.%I', n.nspname, t.stxname) AS object, pg_get_statisticsobjdef(t.oid) AS text
             FROM pg_statistic_ext t JOIN pg_namespace n ON n.oid = t.stxnamespace WHERE {SCHEMA}"
        )),
        ("definition of text search", format!(
            "SELECT format('dictionary %I.%I', n.nspname, w.dictname) AS object, coalesce(w.dictinitoption, '') AS text
             FROM pg_ts_dict w JOIN pg_namespace n ON n.oid = w.dictnamespace WHERE {SCHEMA} AND {}
             UNION ALL SELECT format('configuration %I.%I', n.nspname, g.cfgname), format('%s %s %s', m.maptokentype, m.mapseqno, m.mapdict)
             FROM pg_ts_config g JOIN pg_namespace n ON n.oid = g.cfgnamespace JOIN pg_ts_config_map m ON m.mapcfg = g.oid
             WHERE {SCHEMA} AND {}", own("pg_ts_dict", "w.oid"), own("pg_ts_config", "g.oid")
        )),
        ("definition of foreign server", "SELECT quote_ident(f.srvname) AS object,
             concat_ws(' ', f.srvversion, f.srvoptions, f.srvacl, (SELECT md5(string_agg(u::text, ' ' ORDER BY u.umuser))
               FROM pg_user_mapping u WHERE u.umserver = f.oid)) AS text FROM pg_foreign_server f".to_owned()),
        ("definition of event trigger", "SELECT quote_ident(e.evtname) AS object, concat_ws(' ', e.evtevent, e.evtfoid, e.evttags) AS text
             FROM pg_event_trigger e WHERE e.evtname !~ '^pgteal_'".to_owned()),
        ("version of extension", "SELECT quote_ident(extname) AS object, extversion AS text FROM pg_extension".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_is_told() {
        let of = |entries: &[(&str, &str)]| {
            Details(entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let earlier = of(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let now = of(&[("a", "1"), ("b", "2"), ("d", "1")]);
        assert_eq!(now.changes_since(&earlier), ["b: changed", "d: new", "c: gone"]);
        assert!(now.changes_since(&now.clone()).is_empty());
    }
}
