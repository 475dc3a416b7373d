//! What keeps clients from working, as `status` shows it first: a side that refuses their writes, a hold that nobody steers.
//! Lowers no fence, releases nobody.

use pgteal_core::deployment::Side;
use pgteal_core::postgres::fence::Fence;
use pgteal_core::postgres::{Error, Session};
use pgteal_core::router::RouterState;
use serde::Serialize;

use crate::run::Standing;
use crate::ui::{Style, Ui};

/// A raised fence of one database.
#[derive(Debug, Serialize)]
pub(super) struct Raised {
    side: Side,
    database: String,
    /// When it was raised, in UTC.
    since: Option<String>,
}

/// Clients are on a side that refuses their writes.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    side: Side,
    since: Option<String>,
    /// Clients that wait at the proxy, if it answers.
    waiting: Option<u64>,
}

/// The fence of the deployment `id` in the session's database, if it refuses writes. `role` is ours there.
///
/// # Errors
/// The server does not answer.
pub(super) async fn look(
    side: Side,
    session: &Session,
    id: &str,
    role: &str,
) -> Result<Option<Raised>, Error> {
    let fence = Fence::new(id, role);
    let state = fence.state(session).await?;
    if !state.writes_refused {
        return Ok(None);
    }
    // What refuses although it is not whole may have lost its record, too.
    let since = if state.installed { fence.raised_since(session).await? } else { None };
    Ok(Some(Raised { side, database: session.database().to_owned(), since }))
}

/// What clients meet where they are now: after a switchover the side that they left is fenced, too, and nobody minds.
pub(super) fn met(raised: &[Raised], standing: &Standing, router: Option<&RouterState>) -> Option<Refusal> {
    let side = router.map_or(standing.active, |router| router.route);
    let here = || raised.iter().filter(|raised| raised.side == side);
    here().next()?;
    let since = here().filter_map(|raised| raised.since.clone()).min();
    Some(Refusal { side, since, waiting: router.map(|router| router.waiting) })
}

/// `now` is what to do about it.
pub(super) fn show(ui: &Ui, refusal: &Refusal, now: &str) {
    let side = refusal.side.as_str().to_uppercase();
    let since = refusal.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
    let waiting = refusal.waiting.map(|n| format!("; {n} wait at the proxy")).unwrap_or_default();
    ui.line(format!(
        "{} (fenced{since}); clients wait or fail with SQLSTATE 25006{waiting}; now: {now}",
        ui.paint(Style::Bad, &format!("{side} REFUSES WRITES")),
    ));
}

/// Clients wait at the proxy, and whoever held them is gone.
pub(super) fn show_held(ui: &Ui, router: &RouterState, now: &str) {
    let (waiting, left) = (router.waiting, router.hold_left.as_millis());
    ui.line(format!(
        "{} and no controller is at work; {waiting} wait; the proxy lets them go by itself in {left} ms; now: {now}",
        ui.paint(Style::Bad, "CLIENTS ARE HELD at the proxy"),
    ));
}
