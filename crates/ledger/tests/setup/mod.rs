//! A cluster with both books in it.

#![allow(dead_code)]

use anyhow::Result;
use pgteal_ledger::{WorkloadConfig, create_billing, create_shop};
use pgteal_testkit::Cluster;

pub(crate) async fn cluster(major: u16, settings: &[(&str, &str)]) -> Result<Cluster> {
    let builder =
        settings.iter().fold(Cluster::builder(major), |builder, (name, value)| builder.set(name, value));
    let cluster = builder.start().await?;
    cluster.sql("CREATE DATABASE shop").await?;
    cluster.sql("CREATE DATABASE billing").await?;
    create_shop(&cluster.connect("shop").await?, 500).await?;
    create_billing(&cluster.connect("billing").await?, 100).await?;
    Ok(cluster)
}

/// Every dialect on the shop, two on billing.
pub(crate) fn config(cluster: &Cluster) -> Result<WorkloadConfig> {
    let mut config = WorkloadConfig::new(&cluster.socket_conninfo("shop"))?
        .with_billing(&cluster.socket_conninfo("billing"), 2)?;
    config.sessions = 7;
    Ok(config)
}
