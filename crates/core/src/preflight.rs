//! Owns putting the checks to the two clusters of a deployment, before a plan is made and again before anything is
//! changed. Refuses to judge.

use pgteal_postgres::{Error, Purpose, Server, database};
use pgteal_saga::DeploymentId;

use crate::checks::{Clusters, Context, Report, Waiver, run_all};
use crate::providers::{Provider, ProviderError};

/// Runs every check. `deployment` is whose objects are not foreign; none before there is one.
///
/// # Errors
/// Only when blue cannot be reached at all, or the provider cannot tell what green is: then there is nothing to check.
pub async fn run(
    blue: &Server,
    provider: &dyn Provider,
    green: &Server,
    deployment: Option<&DeploymentId>,
    databases: &[String],
    copy_workers: u32,
    waivers: &[Waiver],
) -> Result<Report, ProviderError> {
    let home = |server: &Server| (server.clone(), server.conninfo().database().to_owned());
    let session = blue.connect(&home(blue).1, Purpose::probe("checks")).await?;
    let running = provider.answers().await?;
    let green_databases = if running { names(green).await? } else { Vec::new() };
    let clusters = Clusters { blue: home(blue), green: running.then(|| home(green)), green_databases };
    let context = Context {
        deployment: deployment.cloned(),
        databases: databases.to_vec(),
        blue: session.version(),
        green: provider.facts().await?,
        tool_role: blue.conninfo().user().to_owned(),
        copy_workers,
        waivers: waivers.to_vec(),
        today: jiff::Zoned::now().date(),
    };
    Ok(run_all(&clusters, &context).await)
}

async fn names(green: &Server) -> Result<Vec<String>, Error> {
    let session = green.connect(green.conninfo().database(), Purpose::probe("checks")).await?;
    Ok(database::list(&session).await?.into_iter().map(|found| found.name).collect())
}
