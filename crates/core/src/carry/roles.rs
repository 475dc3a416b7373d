//! Owns carrying roles: attributes, password verifiers as they are, settings, comments, memberships. Refuses to know
//! databases. Verifiers pass through memory and into green's catalogue, nowhere else.

mod grants;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use pgteal_postgres::role::{self, Membership, Role, StoredSetting};
use pgteal_postgres::{Session, schema};
use serde::{Deserialize, Serialize};

use super::memory::{Author, forget, recall, remember};
use super::{CarryError, Result};

const KEY: &str = "carry.roles";

/// What was done to green's roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Roles that did not exist.
    pub created: Vec<String>,
    /// Roles that existed and were changed.
    pub altered: Vec<String>,
    /// Memberships granted to roles that existed.
    pub granted: Vec<String>,
}

/// What is needed to put green's roles back. Kept on green in a table that only superusers can read, beside the catalogue
/// that holds the same verifiers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Undo {
    created: Vec<String>,
    restore: Vec<String>,
    settings: Vec<RoleSettings>,
}

/// A role and all its settings that hold in every database.
type RoleSettings = (String, Vec<(String, String)>);

/// The roles of a server as far as they are carried.
struct Roster {
    roles: BTreeMap<String, Role>,
    memberships: Vec<Membership>,
    settings: Vec<StoredSetting>,
}

async fn roster(s: &Session) -> Result<Roster> {
    let roles = role::list(s).await?.into_iter().map(|r| (r.name.clone(), r)).collect();
    let mut settings = role::stored_settings(s).await?;
    settings.retain(|setting| setting.database.is_none());
    Ok(Roster { roles, memberships: role::memberships(s).await?, settings })
}

/// The name of the role that the tool itself uses on green: it is there already and is not touched.
fn tool_role(green: &Roster, user: &str) -> String {
    if green.roles.contains_key(user) { user.to_owned() } else { String::new() }
}

async fn session_user(s: &Session) -> Result<String> {
    Ok(s.query_one("asking who we are", "SELECT session_user::text", &[]).await?.get(0)?)
}

/// What green's roles lack, as phrases; empty when they are carried. Both sessions in any database.
pub async fn differences(blue: &Session, green: &Session) -> Result<Vec<String>> {
    differences_but_for(blue, green, &BTreeSet::new()).await
}

/// As [`differences`], where the roles `apart` need not be there.
pub(crate) async fn differences_but_for(
    blue: &Session,
    green: &Session,
    apart: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let (there, here) = (roster(blue).await?, roster(green).await?);
    let tool = tool_role(&here, &session_user(green).await?);
    let counts = |name: &String| *name != tool && !apart.contains(name);
    let mut differences = Vec::new();
    for (name, wanted) in there.roles.iter().filter(|(name, _)| counts(name)) {
        match here.roles.get(name) {
            None => differences.push(format!("role {name} is missing")),
            Some(found) if !text::same(wanted, found) => differences.push(format!("role {name} differs")),
            Some(_) => {}
        }
        if text::settings_of(name, &there.settings) != text::settings_of(name, &here.settings) {
            differences.push(format!("settings of role {name} differ"));
        }
    }
    let lacking = grants::lacking(&there.memberships, &here.memberships);
    let lacking = lacking.into_iter().filter(|m| counts(&m.member) && !apart.contains(&m.role));
    differences.extend(lacking.map(|m| format!("role {} is not a member of {}", m.member, m.role)));
    Ok(differences)
}

/// Makes green's roles like blue's, all or nothing. `green` must be in the database that holds our state for the
/// cluster. A second call adds what has changed on blue since.
pub async fn carry(blue: &Session, green: &mut Session, author: &Author) -> Result<Carried> {
    schema::ensure(green, author.deployment.as_str()).await?;
    let (there, here) = (roster(blue).await?, roster(green).await?);
    let tool = tool_role(&here, &session_user(green).await?);
    let mut carried = Carried::default();
    let known: Option<Undo> = recall(green, KEY).await?;
    let mut undo = known.clone().unwrap_or_default();
    let (mut statements, mut stored) = (Vec::new(), Vec::new());
    for (name, wanted) in there.roles.iter().filter(|(name, _)| **name != tool) {
        let found = here.roles.get(name);
        let settings = text::settings_of(name, &there.settings);
        let had = text::settings_of(name, &here.settings);
        match found {
            None => {
                statements.push(text::create(wanted));
                carried.created.push(name.clone());
                undo.created.push(name.clone());
            }
            Some(found) if !text::same(wanted, found) || settings != had => {
                statements.push(text::alter(wanted, found));
                carried.altered.push(name.clone());
                if !undo.created.contains(name) {
                    undo.restore.push(text::alter(found, wanted));
                    undo.settings.push((name.clone(), had.clone()));
                }
            }
            Some(_) => {}
        }
        if settings != had {
            stored.push((name.clone(), settings));
        }
    }
    let mut lacking = grants::lacking(&there.memberships, &here.memberships);
    lacking.retain(|m| m.member != tool);
    let bootstrap = there.roles.values().find(|r| r.oid == 10).map(|r| r.name.clone()).unwrap_or_default();
    for membership in grants::in_order(lacking, &bootstrap, &here.memberships) {
        if here.roles.contains_key(&membership.member) && !undo.created.contains(&membership.member) {
            undo.restore.push(grants::revoke(&membership));
            carried.granted.push(format!("{} to {}", membership.role, membership.member));
        }
        statements.push(grants::grant(&membership, &bootstrap, green.version().major));
    }
    if statements.is_empty() && known.is_some() {
        return Ok(carried);
    }
    let tx = green.begin("carrying roles").await?;
    // What is remembered holds verifiers too: those that green had.
    let secrets = async {
        remember(&tx, author, KEY, &undo).await?;
        Ok::<_, CarryError>(tx.batch("carrying roles", &statements.join("\n")).await?)
    };
    tx.unlogged(secrets).await?;
    replace_settings(&tx, &stored).await?;
    tx.commit("carrying roles").await?;
    Ok(carried)
}

/// Replaces the settings of roles as a whole.
async fn replace_settings(s: &Session, all: &[RoleSettings]) -> Result<()> {
    for (role, settings) in all {
        let reset = format!("ALTER ROLE {} RESET ALL", pgteal_postgres::quote::ident(role));
        s.batch(&format!("resetting the settings of role {role}"), &reset).await?;
        for (name, value) in settings {
            let setting = StoredSetting {
                role: Some(role.clone()),
                database: None,
                name: name.clone(),
                value: value.clone(),
            };
            role::store_setting(s, &setting).await?;
        }
    }
    Ok(())
}

/// Drops the roles that [`carry`] made and puts back those it changed. The databases they own must be gone.
pub async fn undo(green: &mut Session) -> Result<()> {
    let Some(undo): Option<Undo> = recall(green, KEY).await? else { return Ok(()) };
    let here = roster(green).await?;
    let mut statements = undo.restore.clone();
    statements.reverse();
    for name in undo.created.iter().filter(|name| here.roles.contains_key(*name)) {
        let name = pgteal_postgres::quote::ident(name);
        // Default privileges and grants that still name the role in this database go with it; it owns nothing here.
        statements.push(format!("DROP OWNED BY {name}; DROP ROLE {name};"));
    }
    let tx = green.begin("taking roles back").await?;
    forget(&tx, KEY).await?;
    let dropped = tx.batch_unlogged("taking roles back", &statements.join("\n")).await;
    dropped.map_err(|e| CarryError::Postgres(Box::new(e)))?;
    replace_settings(&tx, &undo.settings).await?;
    tx.commit("taking roles back").await?;
    Ok(())
}

/// Whether [`carry`] has been at work here and [`undo`] has not.
pub async fn is_carried(green: &Session) -> Result<bool> {
    Ok(recall::<Undo>(green, KEY).await?.is_some())
}
