//! TCP ports that stay ours while a test runs. Owns the choice between test processes. Refuses to know who listens.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which Linux takes the local ports of outgoing connections (32768 and up), so that a server
/// that was killed finds its port free when it comes back.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// One port of 127.0.0.1, reserved among all test processes of this user until dropped.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    _lock: File,
}

impl PortLease {
    /// Reserves a port that nobody listens on.
    ///
    /// # Errors
    /// When the lock files cannot be made or every port of the range is taken.
    pub fn take() -> io::Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let dir = std::env::temp_dir().join(format!("pgteal-ports-{uid}"));
        fs::create_dir_all(&dir)?;
        let first = rand::random_range(RANGE);
        for port in (first..RANGE.end).chain(RANGE.start..first) {
            let lock = File::create(dir.join(port.to_string()))?;
            // The lock dies with our process, however that ends.
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(Self { port, _lock: lock });
            }
        }
        Err(io::Error::other(format!("no free port between {} and {}", RANGE.start, RANGE.end)))
    }

    /// The number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}
