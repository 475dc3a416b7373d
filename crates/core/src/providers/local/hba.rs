//! Owns `pg_hba.conf` and `pg_ident.conf` of green: blue's rules, behind the lines that let the tool in. Refuses to know
//! roles and passwords.

use pgteal_postgres::Session;

use crate::providers::{LeftOut, ProviderError, Result};

/// Blue's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AccessFile {
    /// The text to append: blue's own file, or its rules written out when the file includes others.
    pub(super) text: String,
}

const TOO_LARGE: usize = 1 << 20;

/// Reads blue's rules.
pub(super) async fn read(session: &Session, left_out: &mut Vec<LeftOut>) -> Result<AccessFile> {
    let doing = "reading the access rules";
    let text = session.query_one(doing, "select pg_read_file(current_setting('hba_file'))", &[]).await;
    let text: String = match text {
        Ok(row) => row.get(0)?,
        Err(e) if e.certainty() == pgteal_postgres::Certainty::Refused => String::new(),
        Err(e) => return Err(e.into()),
    };
    if !text.is_empty() && text.len() < TOO_LARGE && !includes(&text) {
        return Ok(AccessFile { text });
    }
    let rows = session
        .query(
            doing,
            "select type, database, user_name, address, netmask, auth_method, options, error, line_number
             from pg_hba_file_rules order by line_number",
            &[],
        )
        .await?;
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(error) = row.get::<Option<String>>(7)? {
            let name = format!("pg_hba.conf line {}", row.get::<i32>(8)?);
            left_out.push(LeftOut { name, value: String::new(), why: error });
            continue;
        }
        let list =
            |index: usize| Ok::<_, ProviderError>(row.get::<Option<Vec<String>>>(index)?.unwrap_or_default());
        let rule = Rule {
            kind: row.get(0)?,
            databases: list(1)?,
            users: list(2)?,
            address: row.get(3)?,
            netmask: row.get(4)?,
            method: row.get(5)?,
            options: list(6)?,
        };
        lines.push(rule.line());
    }
    Ok(AccessFile { text: lines.join("\n") })
}

/// Reads blue's user name maps.
pub(super) async fn read_ident(session: &Session, left_out: &mut Vec<LeftOut>) -> Result<String> {
    let sql = "select pg_read_file(current_setting('ident_file'), 0, 1048576, true)";
    let text = match session.query_one("reading the user name maps", sql, &[]).await {
        Ok(row) => row.get::<Option<String>>(0)?.unwrap_or_default(),
        Err(e) if e.certainty() == pgteal_postgres::Certainty::Refused => String::new(),
        Err(e) => return Err(e.into()),
    };
    if includes(&text) {
        let why = "it includes other files".to_owned();
        left_out.push(LeftOut { name: "pg_ident.conf".to_owned(), value: String::new(), why });
        return Ok(String::new());
    }
    Ok(text)
}

/// Whether a file takes lines or names from other files: `include*` directives (16 and later) and `@file` tokens.
fn includes(text: &str) -> bool {
    text.lines().map(str::trim).filter(|l| !l.starts_with('#')).any(|line| {
        line.starts_with("include")
            || line.split([' ', '\t', ',']).any(|token| token.trim_matches('"').starts_with('@'))
    })
}

/// One rule as `pg_hba_file_rules` shows it.
struct Rule {
    kind: String,
    databases: Vec<String>,
    users: Vec<String>,
    address: Option<String>,
    netmask: Option<String>,
    method: String,
    options: Vec<String>,
}

impl Rule {
    fn line(&self) -> String {
        let names = |all: &[String]| all.iter().map(|n| token(n)).collect::<Vec<_>>().join(",");
        let mut parts = vec![self.kind.clone(), names(&self.databases), names(&self.users)];
        parts.extend(self.address.clone());
        parts.extend(self.netmask.clone());
        parts.push(self.method.clone());
        parts.extend(self.options.iter().map(|o| token(o)));
        parts.join(" ")
    }
}

/// A token, quoted when it needs to be. The view does not tell a quoted `all` from the keyword; the keyword is meant.
fn token(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains([' ', '\t', ',', '"', '#']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// The whole file for green. `bootstrap` is let in by its socket only while the cluster is being made; `password` is the
/// method by which the tool's role can log in with one.
pub(super) fn compose(
    access: &AccessFile,
    tool_role: &str,
    bootstrap: Option<&str>,
    password: Option<&str>,
) -> String {
    let tool = token(tool_role);
    let mut lines = vec![
        "# Written by pgteal. The first lines let pgteal itself in; the rest is from the other cluster."
            .to_owned(),
        format!("local all {tool} peer map=pgteal"),
    ];
    lines.extend(bootstrap.map(|b| format!("local all {} peer map=pgteal", token(b))));
    if let Some(method) = password {
        lines.extend(
            ["samehost", "127.0.0.1/32", "::1/128"].map(|from| format!("host all {tool} {from} {method}")),
        );
    }
    lines.push(String::new());
    lines.push(access.text.clone());
    lines.join("\n") + "\n"
}

/// The user name maps of green: those of blue, and the one by which the tool's own user may be its role.
pub(super) fn compose_ident(ident: &str, os_users: &[String], roles: &[&str]) -> String {
    let mut lines = vec!["# Written by pgteal.".to_owned()];
    for user in os_users {
        lines.extend(roles.iter().map(|role| format!("pgteal {} {}", token(user), token(role))));
    }
    lines.push(ident.to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_take_from_others_are_noticed() {
        for (text, expected) in [
            ("host all all 0.0.0.0/0 scram-sha-256", false),
            ("# include x\nlocal all all trust", false),
            ("include other.conf", true),
            ("include_dir '/etc/hba.d'", true),
            ("local @databases all trust", true),
            ("local a,@more all trust", true),
            ("local \"@odd\" all trust", true),
        ] {
            assert_eq!(includes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_rule_is_written_so_that_it_reads_back() {
        let rule = Rule {
            kind: "hostssl".to_owned(),
            databases: vec!["my db".to_owned(), "all".to_owned()],
            users: vec!["o\"neill".to_owned()],
            address: Some("10.0.0.0".to_owned()),
            netmask: Some("255.0.0.0".to_owned()),
            method: "ldap".to_owned(),
            options: vec!["ldapserver=a b".to_owned()],
        };
        let expected = r#"hostssl "my db",all "o""neill" 10.0.0.0 255.0.0.0 ldap "ldapserver=a b""#;
        assert_eq!(rule.line(), expected);
    }

    #[test]
    fn our_lines_come_first_and_the_bootstrap_role_is_let_in_only_while_making() {
        let access = AccessFile { text: "local all all md5".to_owned() };
        let making = compose(&access, "pgteal", Some("postgres"), Some("scram-sha-256"));
        let done = compose(&access, "pgteal", None, None);
        assert!(
            making.contains("local all postgres peer map=pgteal\nhost all pgteal samehost scram-sha-256")
        );
        assert!(!done.contains("postgres") && !done.contains("samehost"), "{done}");
        assert!(done.find("pgteal peer") < done.find("md5"));
    }
}
