//! Owns the reading of a database's catalogues for its vocabulary, on a connection of its own and as the user of one of its
//! sessions: every role may read them. Nobody's client waits for it. Where a role has as many connections as it may, they are read
//! on the other side, which has the same schema.
//! Refuses to know what becomes of the vocabulary.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;

use super::vocabulary::{Catalogue, Vocabulary};
use super::{OpenError, Origin, ask, open};
use crate::gate::Course;
use crate::route::Side;
use crate::shared::Shared;
use crate::upstream::{TalkError, Upstream};

/// One question: of a busy server with thousands of functions, too.
const LIMIT: Duration = Duration::from_secs(10);

/// The database's own search path and locks must not decide.
const PREPARE: &str = "SET search_path = pg_catalog; SET lock_timeout = '1s'";

/// What says something: `b` owner and text. Functions in SQL and PL/pgSQL, policies; and of views and defaults those that
/// call a function that touches or reads settings, which leaves no trace in `pg_depend`. `t`: what touches because
/// nobody can read it. C functions that say they are stable are believed, and so are the listed extensions. `x`: settings
/// that functions have for themselves. Numbers below 16384 are PostgreSQL's own (`FirstNormalObjectId`).
const SAYINGS: &str = "\
    WITH calls AS MATERIALIZED (SELECT ':funcid (' || string_agg(oid::text, '|') || ') ' AS call FROM pg_proc \
        WHERE oid < 16384 AND (proname IN ('set_config', 'current_setting') \
            OR proname LIKE 'pg%advisory%lock%' AND proname NOT LIKE '%xact%')) \
    SELECT 'b', p.proname::text, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) \
        FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
        WHERE p.oid >= 16384 AND l.lanname IN ('sql', 'plpgsql') \
    UNION ALL SELECT 't', p.proname::text, '' FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang \
        WHERE p.oid >= 16384 AND l.lanname NOT IN ('sql', 'plpgsql') \
            AND (l.lanname NOT IN ('c', 'internal') OR p.provolatile = 'v') \
            AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid \
                WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' \
                    AND d.refclassid = 'pg_extension'::regclass AND e.extname IN ('uuid-ossp', 'pgcrypto', 'tablefunc', \
                    'moddatetime', 'autoinc', 'insert_username', 'refint', 'lo')) \
    UNION ALL SELECT 'b', c.relname::text, pg_get_expr(p.polqual, p.polrelid) \
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.polqual IS NOT NULL \
    UNION ALL SELECT 'b', c.relname::text, pg_get_expr(p.polwithcheck, p.polrelid) \
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.polwithcheck IS NOT NULL \
    UNION ALL SELECT 'b', c.relname::text, pg_get_ruledef(r.oid) FROM calls, pg_rewrite r \
        JOIN pg_class c ON c.oid = r.ev_class WHERE r.oid >= 16384 AND r.ev_action::text ~ call \
    UNION ALL SELECT 'b', c.relname::text, pg_get_expr(a.adbin, a.adrelid) FROM calls, pg_attrdef a \
        JOIN pg_class c ON c.oid = a.adrelid WHERE a.oid >= 16384 AND a.adbin::text ~ call \
    UNION ALL SELECT 'x', split_part(s, '=', 1), '' FROM pg_proc p, unnest(p.proconfig) s \
        WHERE p.oid >= 16384 AND split_part(s, '=', 1) LIKE '%.%'";

/// Who uses whom, by name: `pg_depend` from what a statement names (functions, relations, types) and from what it uses
/// unnamed (operators, casts) to functions, relations, types and operators; a rule, trigger, default, policy,
/// check or index stands for its relation. A parent leads to its children and a key, by its action, to those that refer to
/// it. Event triggers are not among them: every command that they answer to counts.
const USES: &str = "\
    WITH named(classid, objid, name) AS MATERIALIZED ( \
        SELECT 'pg_proc'::regclass::oid, oid, proname::text FROM pg_proc WHERE oid >= 16384 \
        UNION ALL SELECT 'pg_class'::regclass, c.oid, coalesce(t.relname, c.relname)::text FROM pg_class c \
            LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_class t ON t.oid = i.indrelid \
            WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'i', 'I') \
        UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, c.relname::text FROM pg_rewrite r \
            JOIN pg_class c ON c.oid = r.ev_class WHERE r.oid >= 16384 \
        UNION ALL SELECT 'pg_trigger'::regclass, t.oid, c.relname::text FROM pg_trigger t \
            JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal \
        UNION ALL SELECT 'pg_attrdef'::regclass, a.oid, c.relname::text FROM pg_attrdef a \
            JOIN pg_class c ON c.oid = a.adrelid \
        UNION ALL SELECT 'pg_policy'::regclass, p.oid, c.relname::text FROM pg_policy p \
            JOIN pg_class c ON c.oid = p.polrelid \
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid, coalesce(c.relname, t.typname)::text FROM pg_constraint k \
            LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid WHERE k.contype = 'c' \
        UNION ALL SELECT 'pg_type'::regclass, oid, typname::text FROM pg_type WHERE oid >= 16384 \
        UNION ALL SELECT 'pg_operator'::regclass, oid, chr(1) || oid FROM pg_operator WHERE oid >= 16384 \
        UNION ALL SELECT 'pg_cast'::regclass, oid, chr(1) || oid FROM pg_cast WHERE oid >= 16384) \
    SELECT DISTINCT 'u', o.name, u.name FROM pg_depend d \
        JOIN named o ON o.classid = d.classid AND o.objid = d.objid \
        JOIN named u ON u.classid = d.refclassid AND u.objid = d.refobjid \
        WHERE o.name <> u.name AND NOT (d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass) \
    UNION ALL SELECT 'u', p.relname::text, c.relname::text FROM pg_inherits i \
        JOIN pg_class p ON p.oid = i.inhparent JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind IN ('r', 'p', 'f') \
    UNION ALL SELECT 'u', p.relname::text, c.relname::text FROM pg_constraint k \
        JOIN pg_class p ON p.oid = k.confrelid JOIN pg_class c ON c.oid = k.conrelid \
        WHERE k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))";

/// Which of the names after this are of objects, whatever their case; asked only when there are too many names.
const OBJECTS: &str = "\
    WITH o(schema, name) AS (SELECT relnamespace, relname::text FROM pg_class \
        UNION SELECT typnamespace, typname::text FROM pg_type UNION SELECT pronamespace, proname::text FROM pg_proc) \
    SELECT DISTINCT 'o', n, '' FROM o JOIN pg_namespace s ON s.oid = o.schema \
        JOIN unnest(ARRAY[";
const OBJECTS_END: &str = "]::text[]) n ON n = lower(s.nspname || '.' || o.name)";

/// Why a vocabulary is not known.
#[derive(Debug, thiserror::Error)]
enum LearnError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Talk(#[from] TalkError),
    #[error("{0}")]
    Server(String),
    #[error("it could not be thought through: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("nobody waits for it any more")]
    Abandoned,
}

type Reply = mpsc::Sender<Arc<Vocabulary>>;

/// Learns the vocabulary of a session's database, on the side that clients are on or else on `other`. The sender is dropped
/// when that fails. Ends when nobody waits for the answer any more.
pub(super) fn learn_beside(shared: &Arc<Shared>, origin: &Arc<Origin>, other: Side, reply: Reply) {
    let (shared, origin) = (Arc::clone(shared), Arc::clone(origin));
    tokio::spawn(async move {
        let course = shared.gate.course();
        for side in [course.side, other] {
            match learn_on(&shared, &origin, Course { side, ..course }, &reply).await {
                Ok(words) => {
                    let _ = reply.try_send(Arc::new(words));
                    return;
                }
                Err(LearnError::Abandoned) => return,
                Err(error) => tracing::info!(%side, %error, "what functions do to sessions cannot be read"),
            }
        }
    });
}

async fn learn_on(
    shared: &Shared,
    origin: &Origin,
    course: Course,
    reply: &Reply,
) -> Result<Vocabulary, LearnError> {
    let (mut upstream, _) = while_awaited(reply, open::open_first(shared, origin, course)).await?;
    let learned = while_awaited(reply, learn(&mut upstream)).await;
    if let (Err(LearnError::Abandoned), Some(way)) = (&learned, &upstream.cancel) {
        // A server that is busy does not notice that its client is gone.
        let _ = tokio::time::timeout(LIMIT, way.send()).await;
    }
    // Its place may be the last one that the role has.
    upstream.close().await;
    learned
}

async fn while_awaited<T, E>(reply: &Reply, work: impl Future<Output = Result<T, E>>) -> Result<T, LearnError>
where
    LearnError: From<E>,
{
    tokio::select! {
        biased;
        () = reply.closed() => Err(LearnError::Abandoned),
        done = work => Ok(done?),
    }
}

async fn learn(upstream: &mut Upstream) -> Result<Vocabulary, LearnError> {
    rows(upstream, PREPARE).await?;
    let sayings = rows(upstream, SAYINGS).await?;
    let mut catalogue = read(sayings, Catalogue::default()).await?;
    if catalogue.has_touching() {
        let uses = rows(upstream, USES).await?;
        catalogue = read(uses, catalogue).await?;
    }
    if let Some(names) = catalogue.doubtful_names() {
        // Only letters, digits, `_`, `$` and `.` are collected, so the literals need no escaping.
        let names: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
        let objects = rows(upstream, &format!("{OBJECTS}{}{OBJECTS_END}", names.join(","))).await?;
        catalogue = read(objects, catalogue).await?;
    }
    Ok(tokio::task::spawn_blocking(|| catalogue.vocabulary()).await?)
}

type Rows = Vec<Vec<Option<Vec<u8>>>>;

async fn rows(upstream: &mut Upstream, sql: &str) -> Result<Rows, LearnError> {
    let answer = ask::query(upstream, sql, LIMIT, &mut BytesMut::new()).await?;
    match answer.error {
        Some(error) => Err(LearnError::Server(error)),
        None => Ok(answer.rows),
    }
}

/// Off the paths of clients: a large database has megabytes of functions.
async fn read(rows: Rows, mut catalogue: Catalogue) -> Result<Catalogue, LearnError> {
    let read = tokio::task::spawn_blocking(move || {
        for row in rows {
            let Ok([Some(kind), Some(owner), other]) = <[_; 3]>::try_from(row) else { continue };
            let other = other.unwrap_or_default();
            match kind.first() {
                Some(b'b') => catalogue.says(&owner, other),
                Some(b't') => catalogue.touches(&owner),
                Some(b'u') => catalogue.uses(&owner, &other),
                Some(b'x') => catalogue.setting(&owner),
                Some(b'o') => catalogue.object(&owner),
                _ => {}
            }
        }
        catalogue
    });
    Ok(read.await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_gone_on_with() {
        let (reply, answer) = mpsc::channel(1);
        let at_work = while_awaited(&reply, async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok::<_, LearnError>(1)
        });
        assert_eq!(at_work.await.unwrap(), 1);
        let endless = while_awaited(&reply, std::future::pending::<Result<(), LearnError>>());
        let leaves = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(answer);
        };
        let both = async { tokio::join!(endless, leaves).0 };
        let ended = tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
        assert!(matches!(ended, Err(LearnError::Abandoned)));
        // A session that finds the question late does not begin.
        let begun = while_awaited(&reply, async { Ok::<_, LearnError>(()) }).await;
        assert!(matches!(begun, Err(LearnError::Abandoned)));
    }
}
