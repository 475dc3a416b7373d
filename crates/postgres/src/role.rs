//! Roles of a cluster with their verifiers, memberships and settings, and the settings our own role needs. Knows no
//! other server to copy them to.

use serde::Serialize;

use crate::Password;
use crate::error::Result;
use crate::quote::{ident, literal};
use crate::session::Session;
use crate::settings::{parameter, parameter_value};

/// One role (PostgreSQL docs, "pg_authid").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The OID; below 16384 for the bootstrap superuser and predefined roles.
    pub oid: u32,
    /// The name.
    pub name: String,
    /// SUPERUSER
    pub superuser: bool,
    /// INHERIT
    pub inherit: bool,
    /// CREATEROLE
    pub create_role: bool,
    /// CREATEDB
    pub create_db: bool,
    /// LOGIN
    pub login: bool,
    /// REPLICATION
    pub replication: bool,
    /// BYPASSRLS
    pub bypass_rls: bool,
    /// CONNECTION LIMIT, -1 for none.
    pub connection_limit: i32,
    /// The stored verifier (SCRAM or MD5), never a clear password.
    pub verifier: Option<Password>,
    /// VALID UNTIL, in ISO form.
    pub valid_until: Option<String>,
    /// The comment.
    pub comment: Option<String>,
}

/// One membership (PostgreSQL docs, "pg_auth_members").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Membership {
    /// The role granted.
    pub role: String,
    /// The role it was granted to.
    pub member: String,
    /// Who granted it.
    pub grantor: String,
    /// WITH ADMIN OPTION
    pub admin: bool,
    /// WITH INHERIT (16 and later).
    pub inherit: Option<bool>,
    /// WITH SET (16 and later).
    pub set: Option<bool>,
}

/// One setting of `ALTER ROLE/DATABASE .. SET` (PostgreSQL docs, "pg_db_role_setting").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredSetting {
    /// The role; `None` for all roles.
    pub role: Option<String>,
    /// The database; `None` for all databases.
    pub database: Option<String>,
    /// The parameter.
    pub name: String,
    /// Its value as stored.
    pub value: String,
}

/// All roles but the predefined `pg_*` ones, by name. Needs superuser for the verifiers.
pub async fn list(s: &Session) -> Result<Vec<Role>> {
    let sql = "SELECT oid, rolname::text, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
        rolbypassrls, rolconnlimit, rolpassword, rolvaliduntil::text, shobj_description(oid, 'pg_authid')
        FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY rolname";
    let rows = s.query("listing roles", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Role {
                oid: row.get(0)?,
                name: row.get(1)?,
                superuser: row.get(2)?,
                inherit: row.get(3)?,
                create_role: row.get(4)?,
                create_db: row.get(5)?,
                login: row.get(6)?,
                replication: row.get(7)?,
                bypass_rls: row.get(8)?,
                connection_limit: row.get(9)?,
                verifier: row.get::<Option<String>>(10)?.map(Password::new),
                valid_until: row.get(11)?,
                comment: row.get(12)?,
            })
        })
        .collect()
}

/// All memberships, also those in predefined roles.
pub async fn memberships(s: &Session) -> Result<Vec<Membership>> {
    let sql = "SELECT pg_get_userbyid(m.roleid)::text, pg_get_userbyid(m.member)::text,
        pg_get_userbyid(m.grantor)::text, m.admin_option, (j->>'inherit_option')::bool, (j->>'set_option')::bool
        FROM pg_auth_members m, to_jsonb(m) j WHERE m.member >= 16384 OR m.roleid >= 16384 ORDER BY 1, 2, 3";
    let rows = s.query("listing role memberships", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Membership {
                role: row.get(0)?,
                member: row.get(1)?,
                grantor: row.get(2)?,
                admin: row.get(3)?,
                inherit: row.get(4)?,
                set: row.get(5)?,
            })
        })
        .collect()
}

/// All settings stored for roles and databases.
pub async fn stored_settings(s: &Session) -> Result<Vec<StoredSetting>> {
    let sql = "SELECT r.rolname::text, d.datname::text, split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
        FROM pg_db_role_setting x CROSS JOIN unnest(x.setconfig) c
        LEFT JOIN pg_roles r ON r.oid = x.setrole LEFT JOIN pg_database d ON d.oid = x.setdatabase ORDER BY 1, 2, 3";
    let rows = s.query("listing settings of roles and databases", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(StoredSetting {
                role: row.get(0)?,
                database: row.get(1)?,
                name: row.get(2)?,
                value: row.get(3)?,
            })
        })
        .collect()
}

/// Stores a setting for a role, a database, or a role in a database.
pub async fn store_setting(s: &Session, setting: &StoredSetting) -> Result<()> {
    let (name, value) = (parameter(&setting.name), parameter_value(&setting.name, &setting.value));
    let doing = format!("storing setting {} of {}", setting.name, owner_of(setting));
    s.batch(&doing, &format!("{} SET {name} = {value}", alter(setting))).await
}

/// Removes a stored setting.
pub async fn reset_setting(s: &Session, setting: &StoredSetting) -> Result<()> {
    let doing = format!("resetting setting {} of {}", setting.name, owner_of(setting));
    s.batch(&doing, &format!("{} RESET {}", alter(setting), parameter(&setting.name))).await
}

fn alter(setting: &StoredSetting) -> String {
    match (&setting.role, &setting.database) {
        (Some(role), Some(db)) => format!("ALTER ROLE {} IN DATABASE {}", ident(role), ident(db)),
        (Some(role), None) => format!("ALTER ROLE {}", ident(role)),
        (None, Some(db)) => format!("ALTER DATABASE {}", ident(db)),
        (None, None) => "ALTER ROLE ALL".to_owned(),
    }
}

fn owner_of(setting: &StoredSetting) -> String {
    match (&setting.role, &setting.database) {
        (Some(role), Some(db)) => format!("role {role} in database {db}"),
        (Some(role), None) => format!("role {role}"),
        (None, Some(db)) => format!("database {db}"),
        (None, None) => "all roles".to_owned(),
    }
}

/// What the role that owns our subscriptions must have stored: apply and copy workers run as it, and nothing else
/// reaches them. A read-only default would stop triggers that write, a timeout would kill the copy again and again.
pub fn tool_settings(major: u32) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        ("default_transaction_read_only", "off"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("idle_session_timeout", "0"),
    ];
    if major >= 17 {
        settings.push(("transaction_timeout", "0"));
    }
    settings
}

/// Creates our role as a superuser with this password if it does not exist (SCRAM by the server's
/// `password_encryption`). The password is sent as a verifier-free literal over the session, so it is kept from the log.
pub async fn ensure_tool_role(s: &Session, role: &str, password: Option<&Password>) -> Result<()> {
    let doing = format!("creating role {role}");
    if s.query_opt(&doing, "SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role]).await?.is_none() {
        let secret = password.map_or_else(|| "NULL".to_owned(), |p| literal(p.reveal()));
        let sql =
            format!("CREATE ROLE {} SUPERUSER LOGIN REPLICATION BYPASSRLS PASSWORD {secret}", ident(role));
        s.batch_unlogged(&doing, &sql).await?;
    }
    let stored = stored_settings(s).await?;
    for (name, value) in tool_settings(s.version().major) {
        let wanted = StoredSetting {
            role: Some(role.to_owned()),
            database: None,
            name: name.to_owned(),
            value: value.to_owned(),
        };
        if !stored.contains(&wanted) {
            store_setting(s, &wanted).await?;
        }
    }
    Ok(())
}
