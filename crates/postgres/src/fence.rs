//! The fence of one database: refuses writes and DDL of everybody but us and the apply workers, whoever connects and
//! however long ago. Knows one database; when to raise it, and on which server, is decided elsewhere.
//!
//! Why it is exact: a statement looks the trigger function up after it has its table lock and has read the
//! invalidation queue. Whoever still runs the open body held its lock before the raise committed, so it is among the
//! [`lockers`] read right after it. When none of them is left, no write can commit any more.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::names;
use crate::quote::{ident, literal};
use crate::schema;
use crate::session::Session;

mod arm;
mod lockers;
mod seal;
mod staged;

pub use arm::{ArmProgress, unarmed};
pub use lockers::{Locker, lockers, oldest_locker, terminate_lockers, wait_lockers};
pub use seal::Seal;
pub use staged::Staged;

/// The fence of a deployment in one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The deployment it belongs to.
    pub deployment: String,
    /// Our role. What logged in as this role passes if its `application_name` begins with `pgteal`, or if it is in the
    /// replica mode of the workers of our subscriptions.
    pub role: String,
}

/// What can be seen of a fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FenceState {
    /// The trigger function and the event trigger exist.
    pub installed: bool,
    /// The trigger function refuses.
    pub writes_refused: bool,
    /// The event trigger is enabled.
    pub ddl_refused: bool,
    /// New sessions of the database are read-only by default.
    pub read_only_default: bool,
    /// The epoch of the last raise or lower.
    pub epoch: Option<i64>,
}

impl FenceState {
    /// Every layer is up.
    pub fn is_raised(&self) -> bool {
        self.installed && self.writes_refused && self.ddl_refused && self.read_only_default
    }

    /// No layer is up.
    pub fn is_lowered(&self) -> bool {
        !self.writes_refused && !self.ddl_refused && !self.read_only_default
    }
}

/// Appears in the refusing body and nowhere else.
const MESSAGE: &str = "pgteal: this server is fenced, writes are refused";

const OPEN: &str = "CREATE OR REPLACE FUNCTION pgteal.fence() RETURNS trigger LANGUAGE plpgsql AS
    $pgteal$ BEGIN RETURN NULL; END $pgteal$";

impl Fence {
    /// For sessions of the role this session logged in as.
    pub fn new(deployment: impl Into<String>, role: impl Into<String>) -> Self {
        Self { deployment: deployment.into(), role: role.into() }
    }

    /// The triggers fire in every mode, or a superuser's session that sets `session_replication_role` would walk through;
    /// so the workers have to be let pass here. They are known by the role they log in as, whoever they act for then.
    /// The search path is pinned: a schema of the caller's could offer other operators.
    fn refusing(&self, function: &str, returns: &str, pass: &str, message: &str) -> String {
        format!(
            "CREATE OR REPLACE FUNCTION pgteal.{function}() RETURNS {returns} LANGUAGE plpgsql
             SET search_path = pg_catalog, pg_temp AS $pgteal$
             BEGIN
                 IF session_user = {role} AND (current_setting('application_name') LIKE 'pgteal%'
                     OR current_setting('session_replication_role') = 'replica') THEN {pass}; END IF;
                 RAISE EXCEPTION '{message}' USING ERRCODE = '25006';
             END $pgteal$",
            role = literal(&self.role),
        )
    }

    /// Installs the open fence: schema, functions, disabled event trigger and the watch on DDL, then a trigger on every table,
    /// in small transactions under a short `lock_timeout` that are retried until `bound`. What is there already stays as it is,
    /// raised or not.
    pub async fn install(
        &self,
        s: &mut Session,
        bound: Duration,
        progress: &mut (dyn FnMut(ArmProgress) + Send),
    ) -> Result<()> {
        schema::ensure(s, &self.deployment).await?;
        self.ensure_functions(s).await?;
        arm::arm_all(s, bound, progress).await
    }

    async fn ensure_functions(&self, s: &Session) -> Result<()> {
        let doing = "creating the fence";
        let sql = "SELECT to_regprocedure('pgteal.fence()') IS NOT NULL";
        let trigger = names::ddl_trigger(&self.deployment);
        if s.query_one(doing, sql, &[]).await?.get(0)? {
            return Ok(());
        }
        let comment = literal(&names::comment(&self.deployment));
        let ddl = self.refusing(
            "fence_ddl",
            "event_trigger",
            "RETURN",
            "pgteal: this server is fenced, DDL is refused",
        );
        let sql = format!(
            "{OPEN}; {ddl};
             CREATE TRIGGER {fence} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON pgteal.probe
                 FOR EACH STATEMENT EXECUTE FUNCTION pgteal.fence();
             ALTER TABLE pgteal.probe ENABLE ALWAYS TRIGGER {fence};
             CREATE EVENT TRIGGER {trigger} ON ddl_command_start EXECUTE FUNCTION pgteal.fence_ddl();
             ALTER EVENT TRIGGER {trigger} DISABLE;
             COMMENT ON EVENT TRIGGER {trigger} IS {comment};
             COMMENT ON FUNCTION pgteal.fence() IS {comment}; COMMENT ON FUNCTION pgteal.fence_ddl() IS {comment}; {watching}",
            fence = ident(names::FENCE_TRIGGER),
            trigger = ident(&trigger),
            watching = self.watching(),
        );
        s.batch(doing, &sql).await
    }

    /// Raises the fence in one transaction and one round trip. Refused if `epoch` is lower than one seen here. Then the
    /// [`lockers`] must be waited for: until they are gone, writes may still commit.
    pub async fn raise(&self, s: &Session, epoch: i64) -> Result<()> {
        s.batch("raising the fence", &self.raising(s, epoch)).await
    }

    fn raising(&self, s: &Session, epoch: i64) -> String {
        // What the database had before is remembered once, by the first raise.
        format!(
            "SELECT pgteal.put_state('fence', jsonb_build_object('raised', true, 'at', clock_timestamp(), 'former',
                 CASE WHEN (SELECT (value->>'raised')::bool FROM pgteal.state WHERE key = 'fence')
                   THEN (SELECT value->'former' FROM pgteal.state WHERE key = 'fence')
                   ELSE to_jsonb((SELECT split_part(c, '=', 2) FROM pg_db_role_setting x, unnest(x.setconfig) c
                     WHERE x.setrole = 0 AND x.setdatabase = (SELECT oid FROM pg_database
                       WHERE datname = current_database()) AND c LIKE 'default_transaction_read_only=%')) END),
                 {epoch}, {deployment});
             {body};
             ALTER EVENT TRIGGER {trigger} ENABLE ALWAYS;
             ALTER DATABASE {database} SET default_transaction_read_only = on",
            deployment = literal(&self.deployment),
            body = self.refusing("fence", "trigger", "RETURN NULL", MESSAGE),
            trigger = ident(&names::ddl_trigger(&self.deployment)),
            database = ident(s.database()),
        )
    }

    /// Lowers the fence in one transaction and one round trip, and puts back the read-only default the database had.
    /// Open sessions can write from their next statement on; sessions that were opened under the fence stay read-only by
    /// default unless they say otherwise. Refused if `epoch` is lower than one seen here.
    pub async fn lower(&self, s: &Session, epoch: i64) -> Result<()> {
        let sql = format!("{}; {}", self.opening(s), self.lowered(epoch));
        s.batch("lowering the fence", &sql).await
    }

    /// Takes every layer away. Reads what is remembered and locks none of it.
    fn opening(&self, s: &Session) -> String {
        format!(
            "DO $pgteal$
             DECLARE former text := (SELECT value->>'former' FROM pgteal.state WHERE key = 'fence'
                 AND (value->>'raised')::bool);
             BEGIN
                 IF former IS NULL THEN
                     ALTER DATABASE {database} RESET default_transaction_read_only;
                 ELSE
                     EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = %L', current_database(), former);
                 END IF;
             END $pgteal$;
             {OPEN};
             ALTER EVENT TRIGGER {trigger} DISABLE",
            trigger = ident(&names::ddl_trigger(&self.deployment)),
            database = ident(s.database()),
        )
    }

    /// Remembers that it is lowered.
    fn lowered(&self, epoch: i64) -> String {
        let deployment = literal(&self.deployment);
        format!(
            "SELECT pgteal.put_state('fence', jsonb_build_object('raised', false, 'at', clock_timestamp()),
                 {epoch}, {deployment})"
        )
    }

    /// Looks at every layer, and at the epoch of the last raise or lower.
    pub async fn state(&self, s: &Session) -> Result<FenceState> {
        let state = self.layers(s).await?;
        if !state.installed {
            return Ok(state);
        }
        let doing = "looking at the fence";
        let sql = "SELECT (SELECT epoch FROM pgteal.state WHERE key = 'fence')";
        let epoch = s.query_one(doing, &s.prepared(doing, sql).await?, &[]).await?.get(0)?;
        Ok(FenceState { epoch, ..state })
    }

    /// When the last raise was, if none has lowered it since: in UTC, to the second, as ISO 8601 writes it.
    pub async fn raised_since(&self, s: &Session) -> Result<Option<String>> {
        let sql = "SELECT (SELECT to_char((value->>'at')::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
            FROM pgteal.state WHERE key = 'fence' AND (value->>'raised')::bool)";
        s.query_one("looking at the fence", sql, &[]).await?.get(0)
    }

    /// Whether every layer is up. One round trip: it is asked several times in the pause.
    pub async fn is_raised(&self, s: &Session) -> Result<bool> {
        Ok(self.layers(s).await?.is_raised())
    }

    /// Whether no layer is up. One round trip.
    pub async fn is_lowered(&self, s: &Session) -> Result<bool> {
        Ok(self.layers(s).await?.is_lowered())
    }

    async fn layers(&self, s: &Session) -> Result<FenceState> {
        let sql = "SELECT f.oid IS NOT NULL AND e.oid IS NOT NULL, coalesce(f.prosrc LIKE '%RAISE EXCEPTION%', false),
            coalesce(e.evtenabled <> 'D', false),
            EXISTS (SELECT 1 FROM pg_db_role_setting x WHERE x.setrole = 0 AND x.setdatabase =
              (SELECT oid FROM pg_database WHERE datname = current_database())
              AND 'default_transaction_read_only=on' = ANY(x.setconfig))
            FROM (SELECT 1) one LEFT JOIN pg_proc f ON f.oid = to_regprocedure('pgteal.fence()')
            LEFT JOIN pg_event_trigger e ON e.evtname = $1";
        let doing = "looking at the fence";
        let trigger = names::ddl_trigger(&self.deployment);
        let row = s.query_one(doing, &s.prepared(doing, sql).await?, &[&trigger]).await?;
        Ok(FenceState {
            installed: row.get(0)?,
            writes_refused: row.get(1)?,
            ddl_refused: row.get(2)?,
            read_only_default: row.get(3)?,
            epoch: None,
        })
    }

    /// Tries a write as a stranger, and takes it back. `true` if it was refused as a fence refuses.
    pub async fn probe(&self, s: &Session) -> Result<bool> {
        let sql = "DO $pgteal$ BEGIN
                PERFORM set_config('application_name', 'probe', true);
                INSERT INTO pgteal.probe VALUES (1);
                RAISE EXCEPTION 'accepted' USING ERRCODE = 'PT200';
            END $pgteal$";
        let doing = "probing the fence";
        match s.batch(doing, sql).await {
            Err(Error::Statement(e)) if e.sqlstate.code() == "PT200" => Ok(false),
            Err(Error::Statement(e)) if e.sqlstate.code() == "25006" && e.message == MESSAGE => Ok(true),
            Err(e) => Err(e),
            Ok(()) => Err(s.unexpected(doing, "the probe neither failed nor wrote")),
        }
    }

    /// Removes triggers, event trigger and functions; the schema stays. Refused while the fence is raised.
    pub async fn remove(
        &self,
        s: &mut Session,
        bound: Duration,
        progress: &mut (dyn FnMut(ArmProgress) + Send),
    ) -> Result<()> {
        let doing = "removing the fence";
        match schema::owner(s).await? {
            None => return Ok(()),
            Some(owner) if owner == self.deployment => {}
            Some(owner) => return Err(s.unexpected(doing, format!("it belongs to deployment {owner}"))),
        }
        let state = self.state(s).await?;
        if state.writes_refused || state.ddl_refused {
            return Err(s.unexpected(doing, "it is raised"));
        }
        arm::disarm_all(s, bound, progress).await?;
        let sql = format!(
            "{}; DROP EVENT TRIGGER IF EXISTS {}; DROP TRIGGER IF EXISTS {} ON pgteal.probe;
             DROP FUNCTION IF EXISTS pgteal.fence_ddl() RESTRICT; DROP FUNCTION IF EXISTS pgteal.fence() RESTRICT",
            self.unwatching(),
            ident(&names::ddl_trigger(&self.deployment)),
            ident(names::FENCE_TRIGGER),
        );
        s.batch(doing, &sql).await
    }
}
