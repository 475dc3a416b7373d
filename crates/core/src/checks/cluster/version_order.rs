//! `version-order`: green must be newer than blue, both from 14 to 18.

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Severity, Spot};
use crate::deployment::Side;

const ID: &str = "version-order";

pub(super) fn check() -> Check {
    Check { id: ID, title: "order of the two versions", versions: 0..=u32::MAX, looks: &[], judge }
}

fn judge(_: &Evidence, cx: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    let blocker = |side, object: String, what: String, consequence: &str| {
        Finding::new(ID, Severity::Blocker, &Spot::cluster(side), object, what, consequence)
            .next("choose-versions")
    };
    let sides = [(Side::Blue, Some(cx.blue)), (Side::Green, cx.green.version)];
    for (side, version) in sides.into_iter().filter_map(|(s, v)| v.map(|v| (s, v))) {
        if !EVERY_VERSION.contains(&version.major) {
            findings.push(blocker(
                side,
                format!("{side} server"),
                format!(
                    "{side} runs PostgreSQL {version}; pgteal knows {} to {}.",
                    EVERY_VERSION.start(),
                    EVERY_VERSION.end()
                ),
                "What replication carries and what it leaves behind on that version is not known.",
            ));
        }
    }
    if let Some(green) = cx.older_green() {
        findings.push(blocker(
            Side::Green,
            "green server".to_owned(),
            format!("Green runs PostgreSQL {green}, blue the newer {}.", cx.blue),
            "A schema of the newer version may not exist in the older one: this would be a downgrade.",
        ));
    }
    findings
}
