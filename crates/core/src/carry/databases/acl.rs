//! Owns the privileges of a database: reading what `pg_database.datacl` prints and saying it as GRANT. Pure: refuses to
//! know servers. Who granted is not carried: on green it is the owner.

use std::collections::{BTreeMap, BTreeSet};

use pgteal_postgres::database::Database;
use pgteal_postgres::quote::ident;

/// Letter and whether it may be granted on, by grantee; the empty grantee is PUBLIC.
type Privileges = BTreeMap<String, BTreeSet<(char, bool)>>;

/// What holds for a database. Without a list the default holds: everything to the owner, CONNECT and TEMPORARY to
/// everybody (PostgreSQL docs, "Privileges").
pub(super) fn privileges(database: &Database) -> Privileges {
    let Some(items) = &database.acl else {
        return BTreeMap::from([
            (String::new(), BTreeSet::from([('T', false), ('c', false)])),
            (database.owner.clone(), BTreeSet::from([('C', false), ('T', false), ('c', false)])),
        ]);
    };
    let mut all = Privileges::new();
    for (grantee, letters) in items.iter().filter_map(|item| parse(item)) {
        all.entry(grantee).or_default().extend(letters);
    }
    all
}

/// `grantee=letters/grantor`; names with other than letters, digits and underscores are in double quotes.
fn parse(item: &str) -> Option<(String, Vec<(char, bool)>)> {
    let (grantee, rest) = match item.strip_prefix('"') {
        None => {
            let (name, rest) = item.split_once('=')?;
            (name.to_owned(), rest)
        }
        Some(quoted) => {
            let bytes = quoted.as_bytes();
            let mut end = 0;
            while bytes.get(end) != Some(&b'"') || bytes.get(end + 1) == Some(&b'"') {
                end += if bytes.get(end)? == &b'"' { 2 } else { 1 };
            }
            (quoted[..end].replace("\"\"", "\""), quoted[end + 1..].strip_prefix('=')?)
        }
    };
    let letters = rest.split('/').next()?;
    let mut found = Vec::new();
    for letter in letters.chars() {
        match (letter, found.last_mut()) {
            ('*', Some((_, grantable))) => *grantable = true,
            _ => found.push((letter, false)),
        }
    }
    Some((grantee, found))
}

/// Statements after which a database has exactly the privileges of `wanted`, whatever `found` had.
pub(super) fn statements(wanted: &Database, found: &Database) -> Vec<String> {
    let (wish, have) = (privileges(wanted), privileges(found));
    if wish == have && wanted.owner == found.owner {
        return Vec::new();
    }
    let on = format!("ON DATABASE {}", ident(&wanted.name));
    let role = |name: &str| if name.is_empty() { "PUBLIC".to_owned() } else { ident(name) };
    let mut grantees: BTreeSet<&str> = have.keys().map(String::as_str).collect();
    grantees.insert("");
    grantees.insert(&wanted.owner);
    let mut all: Vec<String> =
        grantees.iter().map(|g| format!("REVOKE ALL {on} FROM {} CASCADE;", role(g))).collect();
    for (grantee, letters) in &wish {
        for (letter, grantable) in letters {
            let word = match letter {
                'C' => "CREATE",
                'T' => "TEMPORARY",
                'c' => "CONNECT",
                _ => continue,
            };
            let option = if *grantable { " WITH GRANT OPTION" } else { "" };
            all.push(format!("GRANT {word} {on} TO {}{option};", role(grantee)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_with_odd_names_and_grant_options() {
        for (item, grantee, letters) in [
            ("=Tc/postgres", "", vec![('T', false), ('c', false)]),
            ("app=C*Tc*/postgres", "app", vec![('C', true), ('T', false), ('c', true)]),
            ("\"my \"\"role=x\"\"\"=c/postgres", "my \"role=x\"", vec![('c', false)]),
        ] {
            assert_eq!(parse(item), Some((grantee.to_owned(), letters)), "{item}");
        }
        assert_eq!(parse("\"unclosed"), None);
    }
}
