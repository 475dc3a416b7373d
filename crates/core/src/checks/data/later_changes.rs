//! `later-changes`: nothing follows what DDL changes once `up` has begun. There is nothing to look at: it is said once.

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Severity, Spot};
use crate::deployment::Side;

const ID: &str = "later-changes";

pub(super) fn check() -> Check {
    Check { id: ID, title: "schema changes after `up`", versions: EVERY_VERSION, looks: &[], judge }
}

fn judge(_: &Evidence, _: &Context) -> Vec<Finding> {
    let what = "DDL, GRANT, and new partitions, roles and databases are not followed once `up` has begun.";
    let consequence = "A table made then without a primary key refuses UPDATE and DELETE on blue, the first row of any new \
         table stops the stream, and `switch` refuses until the change is taken back or `up` is begun anew: make \
         partitions ahead, and hold migrations until `finish`.";
    let spot = Spot::cluster(Side::Blue);
    vec![Finding::new(ID, Severity::Notice, &spot, "changes after `up`", what, consequence)]
}
