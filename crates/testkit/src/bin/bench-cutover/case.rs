//! What is unusual about the data or the clients of a round. Owns the tables that are only there for their number;
//! refuses to know contenders.

use std::time::Duration;

use anyhow::Result;
use pgteal_testkit::Cluster;

use crate::arena::DATABASE;

/// How long before the cutover the long transaction begins, and how long it stays open.
pub(crate) const OPEN_BEFORE: Duration = Duration::from_millis(300);
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Case {
    /// The load alone, ten sequences.
    Plain,
    /// One client's transaction stays open for 3 s and has been for 0.3 s when the cutover is called.
    OpenTransaction,
    /// 2,000 tables and 2,000 sequences more.
    ManyObjects,
}

impl Case {
    pub(crate) const ALL: [Case; 3] = [Case::Plain, Case::OpenTransaction, Case::ManyObjects];

    /// Adds the case's objects to blue.
    pub(crate) async fn fill(self, blue: &Cluster) -> Result<()> {
        let (tables, sequences) = if self == Case::ManyObjects { (2_000, 2_000) } else { (0, 10) };
        // In portions: one transaction would need more locks than a server has by default.
        for first in (1..=tables).step_by(500) {
            let last = first + 499;
            let tables = format!(
                "DO $$ BEGIN FOR i IN {first}..{last} LOOP
                    EXECUTE format('CREATE TABLE extra_%s (id int PRIMARY KEY, v text)', i);
                 END LOOP; END $$"
            );
            blue.sql_in(DATABASE, &tables).await?;
        }
        for first in (1..=sequences).step_by(500) {
            let last = (first + 499).min(sequences);
            let sequences = format!(
                "DO $$ BEGIN FOR i IN {first}..{last} LOOP
                    EXECUTE format('CREATE SEQUENCE number_%s', i);
                    PERFORM setval(format('number_%s', i), 1000 + i);
                 END LOOP; END $$"
            );
            blue.sql_in(DATABASE, &sequences).await?;
        }
        blue.sql_in(
            DATABASE,
            "CREATE TABLE held (id int PRIMARY KEY, n bigint); INSERT INTO held VALUES (1, 0)",
        )
        .await?;
        Ok(())
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Case::Plain => "plain",
            Case::OpenTransaction => "open-transaction",
            Case::ManyObjects => "many-objects",
        })
    }
}
