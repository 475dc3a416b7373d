//! What a proof is made on, and what it says.
//! Refuses to run anything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::plan::Plan;
use crate::registry::Registry;

/// A registry and worlds to prove it on.
#[async_trait]
pub trait Bench: Send + Sync {
    /// What the steps work on.
    type World: Send + Sync + 'static;

    /// The steps.
    fn registry(&self) -> Arc<Registry<Self::World>>;

    /// A world in which the run has not begun. All of them look alike.
    async fn fresh(&self) -> Result<Arc<Self::World>, String>;

    /// The plan for a world. Only names of the deployment and the like may differ from world to world, the steps may
    /// not. Keep its retries short: a walk waits for them to be used up.
    async fn plan(&self, world: &Self::World) -> Result<Plan, String>;

    /// What the world looks like: everything a run may change or leave behind, nothing that differs by chance.
    async fn picture(&self, world: &Self::World) -> Result<Value, String>;

    /// Puts something of somebody else where `step` would put its effect. Says false if that cannot be done.
    async fn occupy(&self, _world: &Self::World, _step: &str) -> Result<bool, String> {
        Ok(false)
    }

    /// Takes the effect of `step` away as an outsider or a restart would. Says false if that cannot be done.
    async fn lose(&self, _world: &Self::World, _step: &str) -> Result<bool, String> {
        Ok(false)
    }

    /// Clears a world away.
    async fn dispose(&self, _world: Arc<Self::World>) {}

    /// The longest a case may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(600)
    }
}

/// What a walk found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many cases were run.
    pub cases: usize,
    /// Cases whose fault never came about, such as a crash after the `apply` of a step that was done from the start.
    pub untouched: Vec<String>,
    /// Cases that went wrong, and how.
    pub failures: Vec<(String, String)>,
}

impl Report {
    /// An error that names every case that went wrong.
    ///
    /// # Errors
    /// If any did, or if there were none.
    pub fn check(&self) -> Result<(), String> {
        if self.cases == 0 {
            return Err("no case was run".into());
        }
        if self.failures.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = self.failures.iter().map(|(case, what)| format!("{case}: {what}")).collect();
        Err(format!("{} of {} cases went wrong:\n{}", lines.len(), self.cases, lines.join("\n")))
    }
}
