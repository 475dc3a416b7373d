//! The demo's proxy: the program that users run, as a child that ends with the demo.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::config::{Env, Loaded};
use crate::errors::Failure;
use crate::proxy_file;

/// How long it may take to listen.
const START_BOUND: Duration = Duration::from_secs(10);
/// How long it may take to end.
const STOP_BOUND: Duration = Duration::from_secs(10);

/// The running proxy.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    log: PathBuf,
}

impl Proxy {
    /// Starts the proxy of this configuration and waits until it listens on `port`.
    ///
    /// # Errors
    /// It does not start, or does not listen in time.
    pub async fn start(loaded: &Loaded, env: &Env, port: u16) -> Result<Self, Failure> {
        let program = proxy_file::program(env)?;
        let file = proxy_file::write(loaded, env)?;
        let log = loaded.state_dir().join("proxy.log");
        let opened = std::fs::File::create(&log)
            .and_then(|file| Ok((file.try_clone()?, file)))
            .map_err(|error| Failure::File { verb: "write", path: log.clone(), reason: error.to_string() })?;
        let mut command = Command::new(&program);
        command.arg("--config").arg(file).stdin(Stdio::null()).stdout(opened.0).stderr(opened.1);
        command.kill_on_drop(true);
        // A Ctrl-C at the terminal is for the demo, which ends the proxy when nobody needs it any more.
        command.process_group(0);
        command.envs(proxy_file::service_passwords(loaded, env)?);
        let child = command.spawn().map_err(|error| Failure::File {
            verb: "run",
            path: program,
            reason: error.to_string(),
        })?;
        let mut proxy = Self { child, log };
        proxy.await_listening(port).await?;
        Ok(proxy)
    }

    async fn await_listening(&mut self, port: u16) -> Result<(), Failure> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let began = Instant::now();
        let mut last = String::from("not tried yet");
        while began.elapsed() < START_BOUND {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Failure::Demo(format!("the proxy ended ({status}): {}", self.said())));
            }
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let bound = START_BOUND.as_secs();
        Err(Failure::Demo(format!(
            "waited {bound} s for the proxy to listen on {address}; last seen: {last}; {}",
            self.said()
        )))
    }

    /// The end of its log.
    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Lets it outlive the demo; answers its process id.
    #[must_use]
    pub fn leave(self) -> String {
        let id = self.child.id().map(|id| id.to_string()).unwrap_or_default();
        // Dropping the handle would end the child.
        std::mem::forget(self.child);
        id
    }

    /// Ends it: politely, then by force.
    pub async fn stop(&mut self) {
        let pid =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself: then there is nothing to tell.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(STOP_BOUND, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}
