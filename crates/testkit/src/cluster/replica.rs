//! How a cluster gets a physical replica: a base backup of its own that streams. Owns its making. Refuses to know what
//! the test does with it.

use super::{Cluster, ClusterError};
use crate::port::PortLease;
use crate::scratch::Scratch;
use crate::unprivileged;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::process::Stdio;
use std::sync::Mutex;

impl Cluster {
    /// A running hot standby of this cluster, with the cluster's own settings, that streams from it.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn replica(&self, name: &str) -> Result<Self, ClusterError> {
        let failed = |source| ClusterError::Io { cluster: name.to_owned(), what: "base backup", source };
        let scratch = Scratch::new().map_err(failed)?;
        let port = PortLease::take().map_err(failed)?;
        let data = scratch.path().join("data");
        unprivileged::give(scratch.path()).map_err(failed)?;
        let mut backup = self.distribution.command("pg_basebackup");
        backup.arg("-h").arg(self.socket_dir()).args(["-p", &self.port().to_string(), "-U", "postgres"]);
        backup.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "-D"]).arg(&data);
        backup.current_dir(scratch.path()).stdin(Stdio::null());
        // It would stall the test's other tasks.
        let output = tokio::task::spawn_blocking(move || backup.output()).await;
        let output = output.map_err(io::Error::other).and_then(|output| output).map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(io::Error::other(format!("{}: {}", output.status, said.trim()))));
        }
        let lines =
            format!("port = {}\nunix_socket_directories = '{}'\n", port.port(), scratch.path().display());
        let conf = OpenOptions::new().append(true).open(data.join("postgresql.conf"));
        conf.and_then(|mut conf| conf.write_all(lines.as_bytes())).map_err(failed)?;
        let replica = Self {
            name: name.to_owned(),
            distribution: self.distribution.clone(),
            port,
            data,
            postmaster: Mutex::new(None),
            scratch,
        };
        replica.start().await?;
        Ok(replica)
    }
}
