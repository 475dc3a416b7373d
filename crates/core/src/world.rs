//! Owns what every step acts on: the two clusters, the routers in front, the provider of green and the
//! settings of the run. Refuses to remember what a step did: that is in the servers and in the journal.

pub(crate) mod begun;
mod memory;
mod settings;

use std::fmt;
use std::sync::Arc;

use futures::future::try_join_all;
use pgteal_postgres::fence::Fence;
use pgteal_postgres::{ConnInfo, Error, Server, Session};
use pgteal_saga::{Cx, StepError};

use crate::carry::{Author, Dump};
use crate::deployment::{DatabaseKey, DeploymentId, Side, Stream, stream_name};
use crate::failure;
use crate::providers::Provider;
use crate::router::{Router, RouterError};
use memory::Memory;
pub use settings::{OnDrain, OnPinned, Settings};

/// One of the two clusters.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Which of the two.
    pub side: Side,
    /// How we reach it.
    pub server: Server,
    /// How the other cluster reaches it, for its subscription. Holds a password; never printed.
    pub replication: ConnInfo,
}

/// Everything that the steps of one run act on.
pub struct World {
    /// The deployment's id, from which all our names derive.
    pub deployment: DeploymentId,
    /// The databases of the deployment, frozen when it was planned.
    pub databases: Vec<DatabaseKey>,
    /// The cluster that served when the deployment began.
    pub blue: Cluster,
    /// The cluster prepared to replace it.
    pub green: Cluster,
    /// Whatever sends clients to a side.
    pub routers: Vec<Arc<dyn Router>>,
    /// Where green comes from.
    pub provider: Arc<dyn Provider>,
    /// Blue's schema as it was dumped for green.
    pub dump: Dump,
    /// Limits.
    pub settings: Settings,
    /// The side that the operator has given up for good, if any.
    lost: Option<Side>,
    /// What this process knows ahead of the servers and keeps open on them.
    memory: Memory,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({}, {} databases)", self.deployment, self.databases.len())
    }
}

impl World {
    /// Puts a world together. Opens no connection.
    #[must_use]
    pub fn new(
        deployment: DeploymentId,
        databases: Vec<DatabaseKey>,
        clusters: (Cluster, Cluster),
        routers: Vec<Arc<dyn Router>>,
        (provider, dump): (Arc<dyn Provider>, Dump),
        settings: Settings,
    ) -> Self {
        let (blue, green) = clusters;
        Self {
            deployment,
            databases,
            blue,
            green,
            routers,
            provider,
            dump,
            settings,
            lost: None,
            memory: Memory::default(),
        }
    }

    /// The same world with a side given up for good: steps that take back or retire leave that side as it is, and nothing
    /// they record says what is there.
    #[must_use]
    pub fn without(mut self, lost: Option<Side>) -> Self {
        self.lost = lost;
        self
    }

    /// The side that the operator has given up for good, if any.
    #[must_use]
    pub fn lost(&self) -> Option<Side> {
        self.lost
    }

    /// Whether the operator has given the side up for good.
    pub(crate) fn is_lost(&self, side: Side) -> bool {
        self.lost == Some(side)
    }

    /// The cluster of a side.
    #[must_use]
    pub fn cluster(&self, side: Side) -> &Cluster {
        match side {
            Side::Blue => &self.blue,
            Side::Green => &self.green,
        }
    }

    /// The role that we are on a side.
    pub(crate) fn role(&self, side: Side) -> &str {
        self.cluster(side).server.conninfo().user()
    }

    /// The fence of this deployment on a side.
    pub(crate) fn fence(&self, side: Side) -> Fence {
        Fence::new(self.deployment.as_str(), self.role(side))
    }

    /// In whose name a run remembers things on the servers.
    pub(crate) fn author(&self, cx: &Cx) -> Author {
        Author { deployment: self.deployment.clone(), epoch: cx.epoch().0 }
    }

    /// The warm control session to a database of a side.
    pub(crate) async fn session(&self, side: Side, database: &DatabaseKey) -> Result<Session, Error> {
        self.cluster(side).server.warm(&database.name).await
    }

    /// The name of a stream's objects in one database.
    pub(crate) fn stream(&self, stream: Stream, database: &DatabaseKey) -> String {
        stream_name(&self.deployment, stream, database)
    }

    /// Runs `work` in every database of a side at once, over the warm sessions; the first error wins.
    pub(crate) async fn each<'w, T, F>(
        &'w self,
        side: Side,
        work: impl Fn(Session, &'w DatabaseKey) -> F,
    ) -> Result<Vec<T>, StepError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let one = |database: &'w DatabaseKey| {
            let work = &work;
            async move {
                let session = self.session(side, database).await?;
                work(session, database).await
            }
        };
        try_join_all(self.databases.iter().map(one)).await.map_err(|error| failure::server(&error))
    }

    /// As [`World::each`], one database after the other: for heavy work while clients are served, who want the processor too.
    pub(crate) async fn in_turn<'w, T, F>(
        &'w self,
        side: Side,
        work: impl Fn(Session, &'w DatabaseKey) -> F,
    ) -> Result<Vec<T>, StepError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut answers = Vec::with_capacity(self.databases.len());
        for database in &self.databases {
            let one = async { work(self.session(side, database).await?, database).await };
            answers.push(one.await.map_err(|error| failure::server(&error))?);
        }
        Ok(answers)
    }

    /// Whether `look` is true in every database of a side.
    pub(crate) async fn all<'w, F>(
        &'w self,
        side: Side,
        look: impl Fn(Session, &'w DatabaseKey) -> F,
    ) -> Result<bool, StepError>
    where
        F: Future<Output = Result<bool, Error>>,
    {
        Ok(self.each(side, look).await?.into_iter().all(|yes| yes))
    }

    /// Runs `work` with every router at once; the first error wins.
    pub(crate) async fn routers<'w, T, F>(
        &'w self,
        work: impl Fn(&'w Arc<dyn Router>) -> F,
    ) -> Result<Vec<T>, StepError>
    where
        F: Future<Output = Result<T, RouterError>>,
    {
        try_join_all(self.routers.iter().map(work)).await.map_err(|error| failure::router(&error))
    }
}
