//! Keeping what a database's schema is while a switchover is under way: DDL of others is refused, and what no event
//! trigger sees is looked at again. Knows one database and no reason for it.
//!
//! Why nothing slips through: the event triggers are there since the installation. At its end each DDL statement takes,
//! for its transaction, a shared lock that nobody has to wait for; the seal is that lock taken exclusively. So at the seal every
//! transaction that has changed the schema has ended, and whoever comes to the end of a statement later is refused.
//! The lock lasts as long as its session: a controller that dies leaves nothing behind. A superuser who switches event
//! triggers off (`event_triggers`, 17 and later) walks past.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::fence::Fence;
use crate::names;
use crate::quote::{ident, literal};
use crate::session::Session;

/// The advisory lock.
const LOCK: &str = "2021811308, 2";

/// How much longer than its wait the call may take.
const GRACE: Duration = Duration::from_secs(2);

/// Who holds the lock in this database, and for how long.
const HOLDERS: &str = "SELECT coalesce(string_agg(CASE WHEN l.pid IS NULL THEN 'a prepared transaction'
        WHEN a.application_name LIKE 'pgteal%' THEN format('process %s of another pgteal, which keeps the schema as it is', l.pid)
        ELSE format('process %s of role %s, open for %s s', l.pid, a.usename,
          round(extract(epoch FROM clock_timestamp() - a.xact_start))) END, ', '), 'nobody any more')
    FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.classid = 2021811308::oid AND l.objid = 2::oid AND l.objsubid = 2 AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// What of the cluster and of large objects event triggers do not see. Rows are told by the transactions that wrote them.
/// Left out is the setting that the fence itself changes.
const STAMP: &str = "SELECT
    (SELECT format('%s/%s', count(*), sum(xmin::text::bigint)) FROM pg_authid),
    (SELECT format('%s/%s', count(*), sum(xmin::text::bigint)) FROM pg_auth_members),
    (SELECT coalesce(md5(string_agg(format('%s %s %s', setdatabase, setrole, kept), ' ' ORDER BY setdatabase, setrole)), '')
      FROM (SELECT setdatabase, setrole, (SELECT string_agg(c, ' ') FROM unnest(setconfig) c
        WHERE c NOT LIKE 'default_transaction_read_only=%') AS kept FROM pg_db_role_setting) x WHERE kept IS NOT NULL),
    (SELECT format('%s/%s', count(*), sum(xmin::text::bigint)) FROM pg_database),
    (SELECT EXISTS (SELECT FROM pg_largeobject_metadata))::text";

/// The columns of [`STAMP`].
const STAMPED: [&str; 5] = ["roles", "memberships of roles", "settings", "databases", "large objects"];

/// The schema of one database, kept as it is until [`Seal::lift`], or until its session has ended after this was dropped.
#[derive(Debug)]
pub struct Seal {
    session: Session,
    stamp: Stamp,
}

/// What was seen of what is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Stamp([String; 5]);

impl Fence {
    /// The event triggers by which DDL is watched: name, event, and a condition.
    fn watchers(&self) -> [(String, &'static str, &'static str); 3] {
        let name = |event| format!("{}_{}_watch_{event}", names::PREFIX, self.deployment);
        [
            // What is done CONCURRENTLY has committed when it comes to its end.
            (name("start"), "ddl_command_start", "WHEN TAG IN ('CREATE INDEX', 'DROP INDEX', 'ALTER TABLE')"),
            (name("end"), "ddl_command_end", ""),
            (name("drop"), "sql_drop", ""),
        ]
    }

    /// Temporary objects are a session's own affair, and filling a materialized view changes no schema.
    pub(super) fn watching(&self) -> String {
        let comment = literal(&names::comment(&self.deployment));
        let mut sql = format!(
            "CREATE FUNCTION pgteal.watch_ddl() RETURNS event_trigger LANGUAGE plpgsql
             SET search_path = pg_catalog, pg_temp AS $pgteal$
             DECLARE what text;
             BEGIN
                 IF session_user = {role} AND current_setting('application_name') LIKE 'pgteal%' THEN RETURN; END IF;
                 IF TG_EVENT = 'ddl_command_start' THEN
                     IF current_query() ~* 'concurrently' THEN what := TG_TAG; END IF;
                 ELSIF TG_EVENT = 'sql_drop' THEN
                     SELECT d.object_identity INTO what FROM pg_event_trigger_dropped_objects() d
                     WHERE NOT d.is_temporary AND d.object_identity !~ '(^| )pg_temp[.]' LIMIT 1;
                 ELSE
                     SELECT coalesce(c.object_identity, TG_TAG) INTO what FROM pg_event_trigger_ddl_commands() c
                     WHERE c.schema_name IS DISTINCT FROM 'pg_temp' AND c.command_tag <> 'REFRESH MATERIALIZED VIEW'
                       AND coalesce(c.object_identity, '') !~ '(^| )pg_temp[.]' LIMIT 1;
                 END IF;
                 IF what IS NOT NULL AND NOT pg_try_advisory_xact_lock_shared({LOCK}) THEN
                     RAISE EXCEPTION 'pgteal: a switchover is under way, DDL is refused'
                         USING ERRCODE = '25006', DETAIL = what, HINT = 'Try again when the switchover is over.';
                 END IF;
             END $pgteal$;
             COMMENT ON FUNCTION pgteal.watch_ddl() IS {comment}",
            role = literal(&self.role),
        );
        for (name, event, condition) in self.watchers() {
            let name = ident(&name);
            sql.push_str(&format!(
                "; CREATE EVENT TRIGGER {name} ON {event} {condition} EXECUTE FUNCTION pgteal.watch_ddl();
                 ALTER EVENT TRIGGER {name} ENABLE ALWAYS; COMMENT ON EVENT TRIGGER {name} IS {comment}"
            ));
        }
        sql
    }

    pub(super) fn unwatching(&self) -> String {
        let drops =
            self.watchers().map(|(name, ..)| format!("DROP EVENT TRIGGER IF EXISTS {}; ", ident(&name)));
        format!("{}DROP FUNCTION IF EXISTS pgteal.watch_ddl() RESTRICT", drops.concat())
    }

    /// Whether DDL is watched in this database.
    pub async fn is_watched(&self, s: &Session) -> Result<bool> {
        let names = self.watchers().map(|(name, ..)| name).to_vec();
        let sql = "SELECT count(*) = 3 FROM pg_event_trigger WHERE evtname = ANY($1) AND evtenabled = 'A'
            AND evtfoid = (SELECT to_regprocedure('pgteal.watch_ddl()'))";
        s.query_one("looking whether DDL is watched", sql, &[&names]).await?.get(0)
    }

    /// Takes the seal, on a session of its own. Waits up to `bound` for the transactions that have changed the schema;
    /// who comes meanwhile is refused already. It is gone when nothing was asked of it for as long as `keep`, so that a
    /// controller that froze does not keep users from their DDL. Without [`Fence::is_watched`] it means nothing.
    ///
    /// # Errors
    /// [`Error::NotReached`] names the transactions that did not end.
    pub async fn seal(&self, session: Session, bound: Duration, keep: Duration) -> Result<Seal> {
        let doing = "sealing the schema";
        if session.is_shared() {
            return Err(session.unexpected(doing, "a lock was asked for on a shared session"));
        }
        // A controller whose machine is gone must not keep the lock for as long as TCP has patience.
        let sql = format!(
            "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
             SET idle_session_timeout = {}; SET lock_timeout = {};
             SELECT pg_advisory_lock({LOCK}); RESET lock_timeout",
            keep.as_millis(),
            bound.as_millis()
        );
        match session.within(bound + GRACE).batch(doing, &sql).await {
            Ok(()) => {}
            Err(error) if error.is(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(Error::NotReached {
                    place: Box::new(session.place(doing)),
                    condition: "transactions that change the schema to end".to_owned(),
                    bound,
                    last: session.query_one("looking who changes the schema", HOLDERS, &[]).await?.get(0)?,
                });
            }
            Err(error) => return Err(error),
        }
        let stamp = stamp(&session).await?;
        Ok(Seal { session, stamp })
    }
}

impl Seal {
    /// What has changed since, of what is only looked at; an answer at all says that the lock was never let go. One round
    /// trip: it is asked in the pause.
    ///
    /// # Errors
    /// Also when the session is lost, and with it the seal.
    pub async fn changes(&self) -> Result<Vec<&'static str>> {
        let now = stamp(&self.session).await?;
        let pairs = STAMPED.into_iter().zip(self.stamp.0.iter().zip(&now.0));
        Ok(pairs.filter(|(_, (then, now))| then != now).map(|(what, _)| what).collect())
    }

    /// Lets the schema be changed again at once.
    ///
    /// # Errors
    /// When the session is lost, and with it the seal.
    pub async fn lift(&self) -> Result<()> {
        self.session.batch("lifting the seal", "SELECT pg_advisory_unlock_all()").await
    }
}

async fn stamp(s: &Session) -> Result<Stamp> {
    let doing = "looking at what event triggers do not see";
    let row = s.query_one(doing, &s.prepared(doing, STAMP).await?, &[]).await?;
    Ok(Stamp([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]))
}
