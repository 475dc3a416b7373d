//! Who moves the clients. Owns the seam between the benchmark and its contenders; refuses to measure.

use anyhow::{Result, bail};
use async_trait::async_trait;

use crate::arena::Arena;
use crate::best::Best;
use crate::careful::Careful;
use crate::pgteal::Pgteal;

/// Where the load's clients connect, in libpq's words, without a database.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// One part of a cutover and how long it took.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) ms: f64,
}

/// A way of moving clients from blue to green. A new one is made for each round.
#[async_trait(?Send)]
pub(crate) trait Contender {
    /// As in [`NAMES`].
    fn name(&self) -> &'static str;

    /// Everything before clients arrive. Blue has its data and nobody writes; green runs and is empty. Afterwards green
    /// is in step and stays so, and the endpoint leads to blue.
    async fn prepare(&mut self, arena: &Arena) -> Result<Endpoint>;

    /// Moves the clients, under load, and returns when they write to green.
    async fn cutover(&mut self, arena: &Arena) -> Result<Vec<Step>>;
}

/// In the order they take turns.
pub(crate) const NAMES: [&str; 3] = ["careful", "best", "pgteal"];

pub(crate) fn make(name: &str) -> Result<Box<dyn Contender>> {
    match name {
        "careful" => Ok(Box::new(Careful::default())),
        "best" => Ok(Box::new(Best::default())),
        "pgteal" => Ok(Box::new(Pgteal::default())),
        _ => bail!("no contender {name}"),
    }
}
