//! Owns the end of a proxy: at once, gracefully, or after its successor has begun. Refuses to know who listens meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use crate::farewell;
use crate::gate::Event;
use crate::proxy::Proxy;
use crate::registry::Command;
use crate::takeover;

/// How often it is looked whether everybody has left.
const LOOK: Duration = Duration::from_millis(50);

impl Proxy {
    /// Ready when another process has taken the sockets over: then call [`Proxy::retire`].
    pub async fn taken_over(&self) {
        self.shared.takeover.over().await;
    }

    /// Serves the sessions that are there until their clients leave, for `limits.takeover_drain_ms` at most, until `hurry`
    /// is ready or as long as the successor lives; then ends as [`Proxy::shutdown`] does.
    pub async fn retire(mut self, hurry: impl Future<Output = ()>) {
        self.close_doors().await;
        farewell::close_all(self.shared.pool.hold()).await;
        let limit = Duration::from_millis(self.shared.config.limits.takeover_drain_ms);
        let everybody_left = async {
            while self.entrance.living() > 0 || self.shared.takeover.predecessor().is_some() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = everybody_left => tracing::info!("every client has left"),
            () = tokio::time::sleep(limit) => {
                tracing::warn!(left = self.entrance.living(), "the time of those who were left is over");
            }
            // Whoever serves next does not know of us, and could hold without holding these.
            () = self.shared.takeover.alone() => {
                tracing::warn!(left = self.entrance.living(), "ending, for the successor is gone");
            }
            () = hurry => {}
        }
        self.shutdown().await;
    }

    /// Nobody comes in from then on, and no process takes over that has not by then.
    async fn close_doors(&mut self) {
        self.stop.send_replace(true);
        while self.doors.join_next().await.is_some() {}
        if let Some(successor) = self.shared.takeover.successor() {
            let (shared, entrance) = (Arc::clone(&self.shared), Arc::clone(&self.entrance));
            self.tasks.spawn(takeover::tell(shared, entrance, successor));
        }
    }

    /// Ends the proxy: no new connections, a hold is released, idle sessions end with 57P01, open transactions may end
    /// within `limits.shutdown_ms`, then they end as well.
    pub async fn shutdown(mut self) {
        self.close_doors().await;
        self.shared.takeover.listens_no_more();
        let _ = self.shared.gate.drive(&Event::Shutdown, Instant::now(), |_, _| Ok(()));
        let deadline = Instant::now() + Duration::from_millis(self.shared.config.limits.shutdown_ms);
        loop {
            let all = self.shared.registry.all();
            if all.is_empty() {
                break;
            }
            let late = Instant::now() >= deadline;
            for entry in all.iter().filter(|entry| late || entry.inside_since.load(Relaxed) == 0) {
                let why = "terminating connection: the proxy is shutting down".to_owned();
                entry.tell(Command::End { why, reply: None });
            }
            if Instant::now() >= deadline + Duration::from_secs(1) {
                tracing::warn!(left = all.len(), "sessions that did not end in time are dropped");
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        farewell::close_all(self.shared.pool.hold()).await;
        if let Some(shards) = self.shards.take() {
            shards.end().await;
        }
    }
}
