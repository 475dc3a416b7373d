//! From configuration to the world that steps act on: clusters, provider, proxy, limits. Opens no connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgteal_core::deployment::{DatabaseKey, DeploymentId, Side};
use pgteal_core::postgres::{self, Server};
use pgteal_core::providers::{Existing, Local, LocalConfig, Provider};
use pgteal_core::router::Router;
use pgteal_core::world::{self, Cluster, Settings, World};
use pgteal_routers::proxy::ProxyRouter;
use pgteal_saga::Plan;
use serde::Deserialize;

use crate::config::{self, Config, Env, Loaded, OnDrain};
use crate::errors::Failure;
use crate::{proxy_file, sides};

/// Blue as a server.
///
/// # Errors
/// Connection settings that cannot be used.
pub fn blue(loaded: &Loaded, env: &Env) -> Result<Server, Failure> {
    Ok(Server::new("blue", sides::blue(loaded, env)?).map_err(postgres::Error::from)?)
}

/// What makes green.
///
/// # Errors
/// Settings that cannot work.
pub fn provider(loaded: &Loaded, env: &Env, id: DeploymentId) -> Result<Arc<dyn Provider>, Failure> {
    let green = &loaded.config.green;
    match green.provider {
        config::Provider::Existing => {
            let conninfo = sides::existing_green(loaded, env)?;
            let replication = sides::green_for_blue(loaded, env)?.unwrap_or_else(|| conninfo.clone());
            Ok(Arc::new(Existing::new(conninfo, replication, id)?))
        }
        config::Provider::Local => {
            let blue = sides::blue(loaded, env)?;
            let path = |path: &Option<PathBuf>| path.as_ref().map(|path| loaded.resolve(path)).unwrap_or_default();
            let data_dir = path(&green.data_dir);
            let unix_dir = match &green.unix_dir {
                Some(dir) => loaded.resolve(dir),
                // Not the state directory: the server runs as its own user and must be able to write there.
                None => data_dir.with_added_extension("socket"),
            };
            let config = LocalConfig {
                bindir: path(&green.bindir),
                data_dir,
                port: green.port.unwrap_or_default(),
                listen: green.listen.clone().unwrap_or_else(|| "127.0.0.1".into()),
                unix_dir,
                os_user: green.os_user.clone(),
                parameters: parameters(&loaded.config),
                tool_role: blue.user().to_owned(),
                password: blue.password_for(blue.database()),
            };
            Ok(Arc::new(Local::new(config, id)?))
        }
    }
}

fn parameters(config: &Config) -> BTreeMap<String, String> {
    config.green.parameters.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
}

/// The proxy of this deployment, as the run `run` steers it.
///
/// # Errors
/// A socket path that is too long.
pub fn router(loaded: &Loaded, env: &Env, run: &str) -> Result<Arc<dyn Router>, Failure> {
    let (dir, port) = proxy_file::socket(loaded)?;
    let user = sides::blue(loaded, env)?.user().to_owned();
    Ok(Arc::new(ProxyRouter::new("proxy", &dir.to_string_lossy(), port, &user, run)))
}

/// The limits of a run.
#[must_use]
pub fn settings(config: &Config) -> Settings {
    let (switch, replication) = (&config.switch, &config.replication);
    Settings {
        deadline: Duration::from_millis(switch.deadline_ms),
        drain_budget: Duration::from_millis(switch.drain_budget_ms),
        on_drain: match switch.on_drain {
            OnDrain::Wait => world::OnDrain::Wait,
            OnDrain::Terminate => world::OnDrain::Terminate,
            OnDrain::Abort => world::OnDrain::Abort,
        },
        calm_wait: Duration::from_millis(switch.wait_ms),
        max_lag_bytes: switch.max_lag_bytes,
        wal_fuse_bytes: replication.wal_fuse_bytes,
        copy_workers: replication.copy_workers,
        index_jobs: usize::try_from(replication.index_jobs).unwrap_or(1),
        ..Settings::default()
    }
}

/// The world of one run.
///
/// # Errors
/// Settings that cannot work.
pub fn world(
    loaded: &Loaded,
    env: &Env,
    id: &DeploymentId,
    databases: Vec<DatabaseKey>,
    run: &str,
) -> Result<World, Failure> {
    let provider = provider(loaded, env, id.clone())?;
    let green = Server::new("green", provider.conninfo().clone()).map_err(postgres::Error::from)?;
    let for_blue = sides::green_for_blue(loaded, env)?;
    let clusters = (
        Cluster {
            side: Side::Blue,
            server: blue(loaded, env)?,
            replication: sides::blue_for_green(loaded, env)?,
        },
        Cluster {
            side: Side::Green,
            server: green,
            replication: for_blue.unwrap_or_else(|| provider.replication_conninfo().clone()),
        },
    );
    let routers = vec![router(loaded, env, run)?];
    Ok(World::new(id.clone(), databases, clusters, routers, provider, settings(&loaded.config)))
}

/// The databases frozen in a plan: the first of its steps that carries them.
///
/// # Errors
/// No step does, which no plan of ours is without.
pub fn databases(plan: &Plan) -> Result<Vec<DatabaseKey>, Failure> {
    let found = plan.steps().iter().find_map(|step| step.params.get("databases"));
    let list = found.ok_or_else(|| Failure::Runbook(format!("the plan of {} names no databases", plan.kind())))?;
    Vec::deserialize(list).map_err(|error| Failure::Runbook(format!("databases of the plan: {error}")))
}
