//! How the demo ends: everything stopped and removed, or left running with a word about how to look at it.

use super::blue::TOOL;
use super::story::Stage;
use crate::commands::Context;
use crate::run::place;

impl Stage {
    /// Stops the proxy and both servers and removes every file. Goes on whatever fails.
    pub async fn clear(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            proxy.stop().await;
        }
        self.remove_green().await;
        if let Some(blue) = self.blue.take() {
            blue.stop().await;
        }
        self.desk = None;
        self.place.remove();
    }

    /// Green belongs to the deployment's provider: it stops and removes it, whichever state the runs left it in.
    async fn remove_green(&mut self) {
        let Some(desk) = &mut self.desk else { return };
        if let Err(error) = desk.refresh().await {
            tracing::warn!(%error, "the journal cannot be read");
        }
        let Some(id) = desk.entries.last().map(|entry| entry.deployment.clone()) else { return };
        let removed = async {
            place::provider(&desk.loaded, &crate::config::Env::default(), id).await?.remove().await?;
            Ok::<_, crate::errors::Failure>(())
        };
        if let Err(error) = removed.await {
            tracing::warn!(%error, "green was not removed");
        }
    }

    /// Leaves everything running and says how to look at it and how to stop it.
    pub fn keep(&mut self, context: &Context) {
        let root = self.place.root().display().to_string();
        let proxy = self.proxy.take().map(super::proxy::Proxy::leave).unwrap_or_default();
        context.ui.note(format!(
            "\nleft running below {root}:\n  \
             look:  pgteal --config {root}/pgteal.toml status\n  \
             psql:  PGPASSWORD=$(cat {root}/password) psql -h 127.0.0.1 -p {} -U {TOOL} postgres\n  \
             stop:  kill {proxy}; for d in {root}/servers/blue {root}/servers/green; do kill -INT $(head -1 $d/postmaster.pid); done; \
             sleep 2; rm -r {root}",
            self.port()
        ));
    }
}
