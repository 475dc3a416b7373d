//! Owns green as an empty server that the operator gives. Refuses to start, stop or remove it: it is not ours. What we
//! claim is only that we may fill it.
//!
//! The claim is the schema `pgteal` in database `postgres`, with the deployment's id in its comment.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::{ConnInfo, Purpose, Server, Session, schema};

use super::{GreenState, Headroom, Prepared, Programs, Provider, ProviderError, Result};
use crate::checks::GreenFacts;
use crate::deployment::DeploymentId;

/// An empty server of the operator's.
#[derive(Debug, Clone)]
pub struct Existing {
    server: Server,
    replication: ConnInfo,
    deployment: DeploymentId,
    programs: Programs,
}

/// Where the claim lies.
const DATABASE: &str = "postgres";

impl Existing {
    /// `conninfo` is how the tool reaches it, `replication` how blue's servers do; `programs` are of its version.
    pub fn new(
        conninfo: ConnInfo,
        replication: ConnInfo,
        deployment: DeploymentId,
        programs: Programs,
    ) -> Result<Self> {
        let server = Server::new("green", conninfo).map_err(pgteal_postgres::Error::from)?;
        Ok(Self { server, replication, deployment, programs })
    }

    async fn session(&self) -> Result<Session> {
        Ok(self.server.connect(DATABASE, Purpose::control("provider")).await?)
    }

    async fn state(&self, session: &Session) -> Result<GreenState> {
        let doing = "looking whose the server is";
        let sql = "select coalesce(obj_description(oid, 'pg_namespace'), '') from pg_namespace where nspname = 'pgteal'";
        if let Some(row) = session.query_opt(doing, sql, &[]).await? {
            let comment: String = row.get(0)?;
            return Ok(if comment == claim(&self.deployment) {
                GreenState::Running
            } else {
                GreenState::Foreign(format!("schema pgteal in database {DATABASE} says `{comment}`"))
            });
        }
        let sql = "select (select string_agg(datname, ', ' order by datname) from pg_database
              where datname not in ('postgres', 'template0', 'template1')),
            (select string_agg(format('%I.%I', nspname, relname), ', ' order by 1)
              from (select nspname, relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and n.nspname not in ('pg_catalog', 'information_schema')
                  and n.nspname !~ '^pg_(toast|temp)' and not exists (select 1 from pg_depend d
                    where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') limit 5) t)";
        let row = session.query_one(doing, sql, &[]).await?;
        let (databases, tables): (Option<String>, Option<String>) = (row.get(0)?, row.get(1)?);
        Ok(match (databases, tables) {
            (Some(names), _) => GreenState::Foreign(format!("it already has databases: {names}")),
            (None, Some(names)) => GreenState::Foreign(format!("database {DATABASE} already has {names}")),
            (None, None) => GreenState::Absent,
        })
    }
}

fn claim(deployment: &DeploymentId) -> String {
    format!("pgteal deployment {deployment}")
}

#[async_trait]
impl Provider for Existing {
    fn kind(&self) -> &'static str {
        "existing"
    }

    fn is_ours(&self) -> bool {
        false
    }

    fn programs(&self) -> &Programs {
        &self.programs
    }

    fn conninfo(&self) -> &ConnInfo {
        self.server.conninfo()
    }

    fn replication_conninfo(&self) -> &ConnInfo {
        &self.replication
    }

    async fn facts(&self) -> Result<GreenFacts> {
        let session = self.session().await?;
        let sql = "select name::text, coalesce(default_version, '') from pg_available_extensions";
        let rows = session.query("reading which extensions there are", sql, &[]).await?;
        let pairs = rows.iter().map(|r| Ok((r.get(0)?, r.get(1)?)));
        Ok(GreenFacts {
            version: Some(session.version()),
            extensions: Some(pairs.collect::<Result<_>>()?),
            free_bytes: None,
            must_be_empty: self.state(&session).await? != GreenState::Running,
        })
    }

    async fn observe(&self) -> Result<GreenState> {
        self.state(&self.session().await?).await
    }

    async fn answers(&self) -> Result<bool> {
        // One that does not answer is an error that says why: the operator said that it is there.
        self.session().await.map(|_| true)
    }

    async fn prepare(&self, _: &Server, _: Headroom) -> Result<Prepared> {
        let session = self.session().await?;
        match self.state(&session).await? {
            GreenState::Foreign(reason) => {
                let object = format!("server {}", self.server.conninfo().address());
                return Err(ProviderError::Foreign { object, reason });
            }
            GreenState::Running => {}
            _ => schema::ensure(&session, self.deployment.as_str()).await?,
        }
        Ok(Prepared::default())
    }

    async fn prepared(&self) -> Result<Option<Prepared>> {
        Ok((self.observe().await? == GreenState::Running).then(Prepared::default))
    }

    async fn start(&self, bound: Duration) -> Result<()> {
        // Not ours to start: it only has to answer.
        self.server.connect(DATABASE, Purpose::probe("provider").within(bound)).await?;
        Ok(())
    }

    async fn stop(&self, _: Duration) -> Result<()> {
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        let session = self.session().await?;
        if self.state(&session).await? == GreenState::Running {
            schema::remove(&session, self.deployment.as_str()).await?;
        }
        Ok(())
    }
}
