//! Where a suite runs: a fresh server, with or without the proxy before it. Refuses to know suites.

use std::time::Duration;

use anyhow::{Context as _, Result};
use pgteal_testkit::{Cluster, PortLease, Program, Scratch, wait_until};

/// A server, and the port that leads to it.
pub(crate) struct Place {
    cluster: Cluster,
    proxy: Option<(Program, PortLease)>,
}

impl Place {
    pub(crate) async fn direct(major: u16) -> Result<Self> {
        Ok(Self { cluster: Cluster::start_new(major).await?, proxy: None })
    }

    pub(crate) async fn proxied(major: u16) -> Result<Self> {
        let cluster = Cluster::start_new(major).await?;
        let scratch = std::sync::Arc::new(Scratch::new()?);
        let lease = PortLease::take()?;
        let file = scratch.path().join("proxy.toml");
        let text = format!(
            "listen = ['127.0.0.1:{}']\nstate_file = '{}'\n[blue]\nhost = '127.0.0.1'\nport = {}\nsslmode = 'disable'\n\
             [auth]\nmethod = 'trust'\n",
            lease.port(),
            scratch.path().join("state").display(),
            cluster.port(),
        );
        std::fs::write(&file, text).context("the proxy's file")?;
        let program = Program::product("pgteal-proxy")?.arg("--config").arg(&file).dir(&scratch).spawn()?;
        let place = Self { cluster, proxy: Some((program, lease)) };
        wait_until("the proxy to listen", Duration::from_secs(30), async || {
            tokio::net::TcpStream::connect(("127.0.0.1", place.port())).await.map(drop)
        })
        .await?;
        Ok(place)
    }

    /// The server itself.
    pub(crate) fn server(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn port(&self) -> u16 {
        self.proxy.as_ref().map_or_else(|| self.cluster.port(), |(_, lease)| lease.port())
    }

    pub(crate) fn how(&self) -> &'static str {
        if self.proxy.is_some() { "through the proxy" } else { "direct" }
    }
}
