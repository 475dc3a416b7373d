//! Owns the SQL of one role. Pure: refuses to know servers.

use pgteal_postgres::quote::{ident, literal};
use pgteal_postgres::role::{Role, StoredSetting};

/// Whether two roles are equal in everything that is carried.
pub(super) fn same(a: &Role, b: &Role) -> bool {
    attributes(a) == attributes(b) && until(a) == until(b) && a.comment == b.comment
}

/// Until when the password holds; for ever can be stored in two ways.
fn until(role: &Role) -> Option<&str> {
    role.valid_until.as_deref().filter(|u| *u != "infinity")
}

fn attributes(role: &Role) -> String {
    let flag = |on: bool, word: &str| format!("{}{word} ", if on { "" } else { "NO" });
    let mut text = String::new();
    for (on, word) in [
        (role.superuser, "SUPERUSER"),
        (role.inherit, "INHERIT"),
        (role.create_role, "CREATEROLE"),
        (role.create_db, "CREATEDB"),
        (role.login, "LOGIN"),
        (role.replication, "REPLICATION"),
        (role.bypass_rls, "BYPASSRLS"),
    ] {
        text.push_str(&flag(on, word));
    }
    let verifier = role.verifier.as_ref().map_or_else(|| "NULL".to_owned(), |v| literal(v.reveal()));
    text.push_str(&format!("CONNECTION LIMIT {} PASSWORD {verifier}", role.connection_limit));
    text
}

/// Makes a role. A stored verifier is taken as it is (PostgreSQL docs, "CREATE ROLE", PASSWORD).
pub(super) fn create(role: &Role) -> String {
    let valid = until(role).map_or_else(String::new, |u| format!(" VALID UNTIL {}", literal(u)));
    format!("CREATE ROLE {} {}{valid};{}", ident(&role.name), attributes(role), comment(role))
}

/// Makes the existing role `found` equal to `role`.
pub(super) fn alter(role: &Role, found: &Role) -> String {
    // A date that was never set can only be left unset; one that was set can only become `infinity`.
    let valid = match (until(role), until(found)) {
        (wanted, had) if wanted == had => String::new(),
        (wanted, _) => format!(" VALID UNTIL {}", literal(wanted.unwrap_or("infinity"))),
    };
    format!("ALTER ROLE {} {}{valid};{}", ident(&role.name), attributes(role), comment(role))
}

fn comment(role: &Role) -> String {
    let comment = role.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
    format!(" COMMENT ON ROLE {} IS {comment};", ident(&role.name))
}

/// A role's settings that hold in every database, by name: name and value.
pub(super) fn settings_of(role: &str, all: &[StoredSetting]) -> Vec<(String, String)> {
    let mine = all.iter().filter(|s| s.role.as_deref() == Some(role));
    let mut mine: Vec<_> = mine.map(|s| (s.name.clone(), s.value.clone())).collect();
    mine.sort();
    mine
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgteal_postgres::Password;

    #[test]
    fn a_role_is_written_whole() {
        let role = Role {
            oid: 16400,
            name: "o\"neill".to_owned(),
            superuser: false,
            inherit: true,
            create_role: false,
            create_db: true,
            login: true,
            replication: false,
            bypass_rls: false,
            connection_limit: 5,
            verifier: Some(Password::new("SCRAM-SHA-256$4096:c2FsdA==$k:s")),
            valid_until: None,
            comment: Some("it's".to_owned()),
        };
        let expected = "CREATE ROLE \"o\"\"neill\" NOSUPERUSER INHERIT NOCREATEROLE CREATEDB LOGIN NOREPLICATION NOBYPASSRLS \
             CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$4096:c2FsdA==$k:s'; \
             COMMENT ON ROLE \"o\"\"neill\" IS 'it''s';";
        assert_eq!(create(&role), expected);
    }
}
