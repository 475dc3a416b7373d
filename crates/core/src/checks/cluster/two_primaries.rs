//! `two-primaries`: blue and green must be two servers, and each a primary.

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot};

const ID: &str = "two-primaries";

/// The identifier is kept by physical copies, so the moment of the start tells a cluster from its copy.
const SERVER: &str = "select pg_is_in_recovery() as standby,
        concat_ws(' ', system_identifier, extract(epoch from pg_postmaster_start_time())) as identity
    from pg_control_system()";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "two servers, both primaries",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::Blue, sql: SERVER }, Look { at: Place::Green, sql: SERVER }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let blocker = |spot: &Spot, object: &str, what: &str, consequence: &str| {
        Finding::new(ID, Severity::Blocker, spot, object.to_owned(), what.to_owned(), consequence)
            .next("name-two-primaries")
    };
    let standby = |(spot, fact): (&Spot, &Fact), object: &str, what: &str| {
        let consequence = "Nothing can be written, published or fenced on a standby.";
        fact.flag("standby").then(|| blocker(spot, object, what, consequence))
    };
    let (blue, green) = (evidence.of(0).next(), evidence.of(1).next());
    let same = blue.zip(green).filter(|(blue, green)| blue.1.text("identity") == green.1.text("identity"));
    let same = same.map(|(_, (spot, _))| {
        blocker(
            spot,
            "green server",
            "Blue and green are the same server.",
            "Production would be filled from itself: there is nowhere to move to.",
        )
    });
    let blue = blue.and_then(|seen| standby(seen, "blue server", "Blue is a standby: it is in recovery."));
    let green =
        green.and_then(|seen| standby(seen, "green server", "Green is a standby: it is in recovery."));
    [same, blue, green].into_iter().flatten().collect()
}
