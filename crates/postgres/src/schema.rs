//! Our own schema in a database: state, marker and the fence's probe table. Knows how these tables behave under
//! replication, not what is kept in them.

use crate::error::{Error, Result};
use crate::names;
use crate::quote::literal;
use crate::session::Session;

/// The tables. A publication of all tables includes them, so both servers must have them, and:
/// * `marker` is meant to be replicated;
/// * `state` is this server's own: a trigger that fires in apply and copy only throws away what arrives for it;
/// * `probe` is unlogged and so never published.
///
/// `put_state` refuses an epoch lower than any seen here, under a lock, so that a stale writer loses in every order. The
/// lock is an advisory one: a table lock would meet autovacuum's, in the pause.
const OBJECTS: &str = "
    CREATE TABLE pgteal.state (key text PRIMARY KEY, value jsonb NOT NULL, epoch bigint NOT NULL,
        deployment text NOT NULL);
    CREATE TABLE pgteal.marker (id int PRIMARY KEY, n bigint NOT NULL, at timestamptz NOT NULL);
    CREATE UNLOGGED TABLE pgteal.probe (id int);
    CREATE FUNCTION pgteal.ignore_replicated() RETURNS trigger LANGUAGE plpgsql AS
        $pgteal$ BEGIN RETURN NULL; END $pgteal$;
    CREATE TRIGGER \"~pgteal_local\" BEFORE INSERT OR UPDATE OR DELETE ON pgteal.state
        FOR EACH ROW EXECUTE FUNCTION pgteal.ignore_replicated();
    ALTER TABLE pgteal.state ENABLE REPLICA TRIGGER \"~pgteal_local\";
    CREATE FUNCTION pgteal.put_state(k text, v jsonb, e bigint, d text) RETURNS void LANGUAGE plpgsql
        SET search_path = pg_catalog, pg_temp AS $pgteal$
    DECLARE seen bigint;
    BEGIN
        PERFORM pg_advisory_xact_lock(2021811308, 1);
        SELECT max(s.epoch) INTO seen FROM pgteal.state s;
        IF seen > e THEN
            RAISE EXCEPTION 'pgteal: epoch % is stale, % was seen', e, seen USING ERRCODE = 'PT409';
        END IF;
        INSERT INTO pgteal.state VALUES (k, v, e, d)
            ON CONFLICT (key) DO UPDATE SET value = excluded.value, epoch = excluded.epoch,
                deployment = excluded.deployment;
    END $pgteal$;";

/// The deployment whose schema this is; `None` if there is no schema of our name. A schema without our comment is
/// foreign.
pub async fn owner(s: &Session) -> Result<Option<String>> {
    let doing = "looking at schema pgteal";
    let sql = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'pgteal'";
    let Some(row) = s.query_opt(doing, &s.prepared(doing, sql).await?, &[]).await? else { return Ok(None) };
    let comment: Option<String> = row.get(0)?;
    match comment.as_deref().and_then(names::deployment_of_comment) {
        Some(deployment) => Ok(Some(deployment.to_owned())),
        None => Err(foreign(s, "it has no comment of ours".to_owned())),
    }
}

/// Creates the schema and its tables, all or nothing, if they are not there.
pub async fn ensure(s: &Session, deployment: &str) -> Result<()> {
    if let Some(found) = owner(s).await? {
        return require(s, &found, deployment);
    }
    let comment = literal(&names::comment(deployment));
    let sql = format!(
        "CREATE SCHEMA pgteal; COMMENT ON SCHEMA pgteal IS {comment}; {OBJECTS}
         COMMENT ON TABLE pgteal.state IS {comment}; COMMENT ON TABLE pgteal.marker IS {comment};
         COMMENT ON TABLE pgteal.probe IS {comment}"
    );
    s.batch("creating schema pgteal", &sql).await
}

/// Drops the schema if it exists, whole. The fence must have been removed: with a fence trigger left anywhere this is
/// refused (2BP01), since a cascade would lock every table at once.
pub async fn remove(s: &Session, deployment: &str) -> Result<()> {
    let Some(found) = owner(s).await? else { return Ok(()) };
    require(s, &found, deployment)?;
    let sql = "DROP FUNCTION IF EXISTS pgteal.fence(), pgteal.fence_ddl(), pgteal.watch_ddl() RESTRICT;
        DROP TABLE IF EXISTS pgteal.probe, pgteal.marker, pgteal.state RESTRICT;
        DROP FUNCTION IF EXISTS pgteal.ignore_replicated(), pgteal.put_state(text, jsonb, bigint, text) RESTRICT;
        DROP SCHEMA pgteal RESTRICT";
    s.batch("dropping schema pgteal", sql).await
}

fn require(s: &Session, found: &str, deployment: &str) -> Result<()> {
    if found == deployment {
        Ok(())
    } else {
        Err(foreign(s, format!("its comment names deployment {found}")))
    }
}

fn foreign(s: &Session, reason: String) -> Error {
    Error::Foreign {
        server: s.server().to_owned(),
        database: s.database().to_owned(),
        object: "schema pgteal".to_owned(),
        reason,
    }
}
