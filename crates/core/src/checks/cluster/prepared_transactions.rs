//! `prepared-transactions`: a transaction left prepared blocks the slot and would be lost after the fence (H08).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Look, Place, Severity};

const ID: &str = "prepared-transactions";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "transactions left prepared",
        versions: EVERY_VERSION,
        looks: &[Look {
            at: Place::Blue,
            sql: "select gid, database, owner, prepared from pg_prepared_xacts order by prepared",
        }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&_, &crate::checks::Fact)| {
        let gid = fact.text("gid");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("prepared transaction {gid}"),
            format!(
                "Transaction {gid} of {} in database {} has been prepared since {}.",
                fact.text("owner"),
                fact.text("database"),
                fact.text("prepared")
            ),
            "The replication slot cannot be made while it is open, and its commit after the fence would be lost.",
        )
        .next("end-prepared-transaction")
    };
    evidence.of(0).map(finding).collect()
}
