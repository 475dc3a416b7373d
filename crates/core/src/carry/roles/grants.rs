//! Owns memberships: which are lacking, in which order they can be granted, and their SQL. Pure: refuses to know servers.

use std::collections::BTreeSet;

use pgteal_postgres::quote::ident;
use pgteal_postgres::role::Membership;

/// The memberships of blue that green lacks or has with other options. Options that one side's version does not know are
/// not compared, nor is who granted it.
pub(super) fn lacking(blue: &[Membership], green: &[Membership]) -> Vec<Membership> {
    let agree = |a: Option<bool>, b: Option<bool>| a.is_none() || b.is_none() || a == b;
    let has = |wanted: &&Membership| {
        green.iter().any(|found| {
            (&found.role, &found.member) == (&wanted.role, &wanted.member)
                && found.admin >= wanted.admin
                && agree(found.inherit, wanted.inherit)
                && agree(found.set, wanted.set)
        })
    };
    blue.iter().filter(|m| !has(m)).cloned().collect()
}

/// An order in which each grantor already holds the admin option that it grants by (needed since 16). A grant whose
/// grantor never gets it is made in the bootstrap superuser's name.
pub(super) fn in_order(
    mut pending: Vec<Membership>,
    bootstrap: &str,
    present: &[Membership],
) -> Vec<Membership> {
    let mut admins: BTreeSet<(String, String)> =
        present.iter().filter(|m| m.admin).map(|m| (m.role.clone(), m.member.clone())).collect();
    let mut ordered = Vec::with_capacity(pending.len());
    while !pending.is_empty() {
        let ready =
            |m: &Membership| m.grantor == bootstrap || admins.contains(&(m.role.clone(), m.grantor.clone()));
        let (mut now, mut later): (Vec<_>, Vec<_>) = pending.into_iter().partition(ready);
        if now.is_empty() {
            later.iter_mut().for_each(|m| bootstrap.clone_into(&mut m.grantor));
            now = std::mem::take(&mut later);
        }
        admins.extend(now.iter().filter(|m| m.admin).map(|m| (m.role.clone(), m.member.clone())));
        ordered.extend(now);
        pending = later;
    }
    ordered
}

pub(super) fn grant(m: &Membership, bootstrap: &str, green: u32) -> String {
    let mut text = format!("GRANT {} TO {}", ident(&m.role), ident(&m.member));
    if green >= 16 {
        let word = |on: bool| if on { "TRUE" } else { "FALSE" };
        text.push_str(&format!(" WITH ADMIN {}", word(m.admin)));
        if let Some(inherit) = m.inherit {
            text.push_str(&format!(", INHERIT {}", word(inherit)));
        }
        if let Some(set) = m.set {
            text.push_str(&format!(", SET {}", word(set)));
        }
        // Before 16 the recorded grantor means nothing, and blue's does not have the option it grants by.
        if m.grantor != bootstrap && m.inherit.is_some() {
            text.push_str(&format!(" GRANTED BY {}", ident(&m.grantor)));
        }
    } else if m.admin {
        text.push_str(" WITH ADMIN OPTION");
    }
    text + ";"
}

pub(super) fn revoke(m: &Membership) -> String {
    format!("REVOKE {} FROM {} CASCADE;", ident(&m.role), ident(&m.member))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(role: &str, member: &str, grantor: &str, admin: bool) -> Membership {
        Membership {
            role: role.to_owned(),
            member: member.to_owned(),
            grantor: grantor.to_owned(),
            admin,
            inherit: Some(true),
            set: Some(false),
        }
    }

    #[test]
    fn a_grantor_gets_the_admin_option_first() {
        let pending = vec![
            membership("staff", "carol", "bob", false),
            membership("staff", "bob", "alice", true),
            membership("staff", "alice", "postgres", true),
            membership("staff", "dave", "ghost", false),
        ];
        let ordered = in_order(pending, "postgres", &[]);
        let texts: Vec<String> = ordered.iter().map(|m| grant(m, "postgres", 18)).collect();
        assert_eq!(
            texts,
            [
                "GRANT \"staff\" TO \"alice\" WITH ADMIN TRUE, INHERIT TRUE, SET FALSE;",
                "GRANT \"staff\" TO \"bob\" WITH ADMIN TRUE, INHERIT TRUE, SET FALSE GRANTED BY \"alice\";",
                "GRANT \"staff\" TO \"carol\" WITH ADMIN FALSE, INHERIT TRUE, SET FALSE GRANTED BY \"bob\";",
                "GRANT \"staff\" TO \"dave\" WITH ADMIN FALSE, INHERIT TRUE, SET FALSE;",
            ]
        );
    }

    #[test]
    fn options_unknown_to_one_side_are_not_compared() {
        let old = Membership { inherit: None, set: None, ..membership("staff", "bob", "x", false) };
        let new = membership("staff", "bob", "postgres", false);
        assert!(lacking(std::slice::from_ref(&old), std::slice::from_ref(&new)).is_empty());
        assert_eq!(lacking(&[Membership { admin: true, ..old.clone() }], &[new]).len(), 1);
        assert_eq!(lacking(&[old], &[]).len(), 1);
    }
}
