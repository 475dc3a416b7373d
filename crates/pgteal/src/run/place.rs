//! From configuration to the world that steps act on: clusters, provider, proxy, limits. Opens no connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgteal_core::carry::Dump;
use pgteal_core::checks::Waiver;
use pgteal_core::deployment::{DatabaseKey, DeploymentId, Side};
use pgteal_core::postgres::{self, ConnInfo, Purpose, Server};
use pgteal_core::providers::{Existing, Local, LocalConfig, Programs, Provider};
use pgteal_core::router::Router;
use pgteal_core::world::{self, Cluster, Settings, World};
use pgteal_routers::proxy::ProxyRouter;

use crate::config::{self, Config, Env, Loaded, OnDrain, OnPinned};
use crate::errors::Failure;
use crate::{proxy_file, servers, sides};

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
/// Settings that cannot work, or an existing green that cannot be asked for its version.
pub async fn provider(loaded: &Loaded, env: &Env, id: DeploymentId) -> Result<Arc<dyn Provider>, Failure> {
    make_provider(loaded, env, id, false).await
}

async fn make_provider(
    loaded: &Loaded,
    env: &Env,
    id: DeploymentId,
    may_be_silent: bool,
) -> Result<Arc<dyn Provider>, Failure> {
    let green = &loaded.config.green;
    match green.provider {
        config::Provider::Existing => {
            let conninfo = sides::existing_green(loaded, env)?;
            let replication = sides::green_for_blue(loaded, env)?.unwrap_or_else(|| conninfo.clone());
            let programs = match programs(loaded, env, &conninfo).await {
                Err(Failure::Server(error)) if may_be_silent && error.is_transient() => {
                    any_programs(env, error)?
                }
                other => other?,
            };
            Ok(Arc::new(Existing::new(conninfo, replication, id, programs)?))
        }
        config::Provider::Local => {
            let blue = sides::blue(loaded, env)?;
            let path =
                |path: &Option<PathBuf>| path.as_ref().map(|path| loaded.resolve(path)).unwrap_or_default();
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

/// The server of a side, as we reach it: to look at it, without a run. An existing green may be silent.
///
/// # Errors
/// Connection settings or binaries that cannot be used.
pub async fn server(loaded: &Loaded, env: &Env, id: &DeploymentId, side: Side) -> Result<Server, Failure> {
    match side {
        Side::Blue => blue(loaded, env),
        Side::Green => {
            let provider = make_provider(loaded, env, id.clone(), true).await?;
            Ok(Server::new("green", provider.conninfo().clone()).map_err(postgres::Error::from)?)
        }
    }
}

fn parameters(config: &Config) -> BTreeMap<String, String> {
    config.green.parameters.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
}

/// How the proxy's console is reached, and how the proxy as its clients reach it.
fn ways(loaded: &Loaded, env: &Env) -> Result<(ConnInfo, ConnInfo), Failure> {
    if let Some(ways) = sides::proxy_elsewhere(loaded, env)? {
        return Ok(ways);
    }
    let (dir, port) = proxy_file::socket(loaded)?;
    let here = ConnInfo::at(dir.to_string_lossy(), port, sides::blue(loaded, env)?.user());
    Ok((here.clone(), here))
}

/// Through the proxy, as the tool's role on `side`, which serves: the way the runbook's own probe takes.
///
/// # Errors
/// A socket path that is too long, or connection settings that cannot be used.
pub fn as_client(loaded: &Loaded, env: &Env, side: Side) -> Result<ConnInfo, Failure> {
    let login = match (side, loaded.config.green.provider) {
        (Side::Green, config::Provider::Existing) => sides::existing_green(loaded, env)?,
        _ => sides::blue(loaded, env)?,
    };
    let (_, clients) = ways(loaded, env)?;
    Ok(clients.for_login(&login, login.database()))
}

/// The proxy of this deployment, as the run `run` steers it.
///
/// # Errors
/// A socket path that is too long, or connection settings that cannot be used.
pub fn router(loaded: &Loaded, env: &Env, run: &str) -> Result<Arc<dyn Router>, Failure> {
    let (console, clients) = ways(loaded, env)?;
    let router = ProxyRouter::new("proxy", console, clients, run);
    Ok(Arc::new(router.map_err(postgres::Error::from)?))
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
        on_pinned: match switch.on_pinned {
            OnPinned::End => world::OnPinned::End,
            OnPinned::Wait => world::OnPinned::Wait,
            OnPinned::Abort => world::OnPinned::Abort,
        },
        calm_wait: Duration::from_millis(switch.wait_ms),
        max_lag_bytes: switch.max_lag_bytes,
        wal_fuse_bytes: replication.wal_fuse_bytes,
        copy_workers: replication.copy_workers,
        index_jobs: usize::try_from(replication.index_jobs).unwrap_or(1),
        waivers: waivers(config),
        ..Settings::default()
    }
}

/// The recorded exceptions, as checks know them.
#[must_use]
pub fn waivers(config: &Config) -> Vec<Waiver> {
    let waivers = config.checks.waivers.iter();
    waivers
        .map(|waiver| Waiver {
            check: waiver.check.clone(),
            object: waiver.object.clone(),
            reason: waiver.reason.clone(),
            until: Some(waiver.expires),
        })
        .collect()
}

/// The server programs of an existing green's version. Connects to it when the configuration does not name them: a
/// dump made by a newer version may not go into an older server.
async fn programs(loaded: &Loaded, env: &Env, green: &ConnInfo) -> Result<Programs, Failure> {
    let bindir = match &loaded.config.green.bindir {
        Some(bindir) => loaded.resolve(bindir),
        None => {
            let server = Server::new("green", green.clone()).map_err(postgres::Error::from)?;
            let session = server.connect(green.database(), Purpose::probe("version")).await?;
            let major = session.version().major;
            let found = servers::find(env, major);
            found.ok_or_else(|| Failure::NoDistribution { major, looked: servers::roots(env) })?.bindir
        }
    };
    Ok(Programs::new(bindir, None)?)
}

/// Programs of whatever version, for who runs none of them.
fn any_programs(env: &Env, silent: Box<postgres::Error>) -> Result<Programs, Failure> {
    match servers::all(env).into_iter().next() {
        Some(found) => Ok(Programs::client_only(found.bindir)?),
        None => Err(Failure::Server(silent)),
    }
}

/// The world of one run; `lenient` if it is only taken back, so that green may be silent.
///
/// # Errors
/// Settings that cannot work, or an existing green that cannot be asked for its version.
pub async fn world(
    loaded: &Loaded,
    env: &Env,
    id: &DeploymentId,
    databases: Vec<DatabaseKey>,
    run: &str,
    lenient: bool,
) -> Result<World, Failure> {
    let provider = make_provider(loaded, env, id.clone(), lenient).await?;
    let green = Server::new("green", provider.conninfo().clone()).map_err(postgres::Error::from)?;
    let dumps = loaded.state_dir().join(format!("schema-{id}"));
    let dump = Dump::new(provider.programs().clone(), dumps);
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
    Ok(World::new(id.clone(), databases, clusters, routers, (provider, dump), settings(&loaded.config)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The tests of the runbooks run on the defaults of the domain; what they prove must be what users get.
    #[test]
    fn an_empty_configuration_means_the_defaults_of_the_domain() {
        let text = "[deployment]\nname = \"x\"\n[blue]\nconninfo = \"host=db1\"\n\
                    [green]\nprovider = \"existing\"\nconninfo = \"host=db2\"\n";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(format!("{:?}", settings(&config)), format!("{:?}", Settings::default()));
    }
}
