//! How a cluster ends, dies or stands still. Owns the signals. Refuses to know statements.

use super::{Cluster, ClusterError, STOP};
use crate::scratch::Scratch;
use crate::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::process::Child;

impl Cluster {
    /// Fast shutdown: sessions are ended, a checkpoint is written, walsenders send all they have. Does nothing if
    /// the server does not run.
    ///
    /// # Errors
    /// [`ClusterError::Wait`] after 30 s.
    pub async fn stop_fast(&self) -> Result<(), ClusterError> {
        self.stop(Signal::INT, "the server to stop (fast)").await
    }

    /// Immediate shutdown: no checkpoint; the next start recovers from WAL.
    ///
    /// # Errors
    /// [`ClusterError::Wait`] after 30 s.
    pub async fn stop_immediate(&self) -> Result<(), ClusterError> {
        self.stop(Signal::QUIT, "the server to stop (immediate)").await
    }

    /// Kills every process of the cluster with SIGKILL, the postmaster first: as when the machine dies, except that
    /// the page cache survives.
    ///
    /// # Errors
    /// [`ClusterError::Io`] if processes are still there after 10 s.
    pub fn kill9(&self) -> Result<(), ClusterError> {
        if let Some(child) = self.postmaster().as_mut() {
            let _ = child.kill();
        }
        self.forget();
        Scratch::kill_processes(self.data_dir()).map_err(self.io("kill -9"))
    }

    /// Stops every process of the cluster with SIGSTOP: connections stay open and nobody answers. `thaw` goes on.
    ///
    /// # Errors
    /// [`ClusterError::Io`].
    pub fn freeze(&self) -> Result<(), ClusterError> {
        // The postmaster first, so that the others are all there are.
        if let Some(pid) = self.postmaster_pid().and_then(pid_of) {
            signal(pid, Signal::STOP).map_err(self.io("freeze"))?;
        }
        self.signal_all(Signal::STOP);
        Ok(())
    }

    /// Lets all processes go on, also those stopped by `freeze_backend`.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    /// Stops one process of the cluster, for example the apply worker (`pg_stat_subscription.pid`).
    ///
    /// # Errors
    /// [`ClusterError::Io`] if `pid` is no process of this cluster.
    pub fn freeze_backend(&self, pid: i32) -> Result<(), ClusterError> {
        self.signal_one(pid, Signal::STOP, "freeze of a backend")
    }

    /// Lets one process go on.
    ///
    /// # Errors
    /// [`ClusterError::Io`] if `pid` is no process of this cluster.
    pub fn thaw_backend(&self, pid: i32) -> Result<(), ClusterError> {
        self.signal_one(pid, Signal::CONT, "thaw of a backend")
    }

    async fn stop(&self, how: Signal, condition: &str) -> Result<(), ClusterError> {
        let Some(pid) = self.postmaster_pid().and_then(pid_of) else {
            return Ok(());
        };
        signal(pid, how).map_err(self.io("stop"))?;
        let stopped =
            wait_until(condition, STOP, async || match self.postmaster().as_mut().map(Child::try_wait) {
                Some(Ok(None)) => {
                    Err(format!("{} processes are left", Scratch::processes(self.data_dir()).len()))
                }
                Some(Ok(Some(_))) | None => Ok(()),
                Some(Err(error)) => Err(error.to_string()),
            });
        stopped.await.map_err(|source| ClusterError::Wait { cluster: self.name.clone(), source })?;
        self.forget();
        Ok(())
    }

    fn signal_all(&self, how: Signal) {
        for pid in Scratch::processes(self.data_dir()) {
            // A process that has ended since needs no signal.
            let _ = kill_process(pid, how);
        }
    }

    fn signal_one(&self, pid: i32, how: Signal, what: &'static str) -> Result<(), ClusterError> {
        let found = Scratch::processes(self.data_dir()).into_iter().find(|known| known.as_raw_pid() == pid);
        let missing = || io::Error::other(format!("{pid} is no process of it"));
        let pid = found.ok_or_else(missing).map_err(self.io(what))?;
        signal(pid, how).map_err(self.io(what))
    }
}

fn pid_of(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn signal(pid: Pid, how: Signal) -> io::Result<()> {
    kill_process(pid, how).map_err(io::Error::from)
}
