//! The careful rival: a shell script with psql, as a good engineer writes it. Owns how the script is run; what it does
//! is in `careful.sh`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use pgteal_testkit::Program;

use crate::arena::{Arena, DATABASE};
use crate::contender::{Contender, Endpoint, Step};
use crate::pgbouncer::{PgBouncer, replicate};

const SCRIPT: &str = include_str!("careful.sh");
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Careful {
    bouncer: Option<PgBouncer>,
}

#[async_trait(?Send)]
impl Contender for Careful {
    fn name(&self) -> &'static str {
        "careful"
    }

    async fn prepare(&mut self, arena: &Arena) -> Result<Endpoint> {
        replicate(arena).await?;
        std::fs::write(arena.file("careful.sh"), SCRIPT)?;
        let bouncer = PgBouncer::start(arena).await?;
        let endpoint = bouncer.endpoint();
        self.bouncer = Some(bouncer);
        Ok(endpoint)
    }

    async fn cutover(&mut self, arena: &Arena) -> Result<Vec<Step>> {
        let bouncer = self.bouncer.as_ref().context("not prepared")?;
        let tools = arena.green.distribution();
        let mut script = Program::file("/bin/bash").arg("careful.sh").dir(&arena.scratch);
        if let Some(lib) = tools.lib() {
            script = script.env("LD_LIBRARY_PATH", lib);
        }
        let output = script
            .env("PSQL", tools.bin().join("psql"))
            .env("CONSOLE", bouncer.console())
            .env("BLUE", arena.blue.conninfo(DATABASE))
            .env("GREEN", arena.green.conninfo(DATABASE))
            .env("BLUE_PORT", arena.blue.port().to_string())
            .env("GREEN_PORT", arena.green.port().to_string())
            .env("INI", &bouncer.ini)
            .run(SCRIPT_LIMIT)
            .await?;
        ensure!(output.status.success(), "the script ended with {}: {}", output.status, output.stderr);
        let steps = output.stdout.lines().filter_map(|line| {
            let (name, micros) = line.split_once(' ')?;
            Some(Step { name: name.into(), ms: micros.parse::<f64>().ok()? / 1e3 })
        });
        Ok(steps.collect())
    }
}
