//! The client transactions that keep a switchover from beginning, as `status` shows them. Ends none of them.

use pgteal_core::postgres::activity::{self, Activity};
use pgteal_core::postgres::{Error, Session};
use serde::Serialize;

use crate::render::table::table;
use crate::run::{Desk, place};
use crate::ui::Ui;
use crate::units;

/// How many of them are shown.
const SHOWN: usize = 10;

/// One open transaction.
#[derive(Debug, Serialize)]
pub(super) struct Open {
    pid: i32,
    user: Option<String>,
    database: Option<String>,
    application: String,
    state: Option<String>,
    age_ms: u64,
}

impl From<Activity> for Open {
    fn from(found: Activity) -> Self {
        let ms = found.transaction_ms.unwrap_or_default().max(0.0);
        Self {
            pid: found.pid,
            user: found.user,
            database: found.database,
            application: found.application,
            state: found.state,
            age_ms: std::time::Duration::from_secs_f64(ms / 1000.0)
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX),
        }
    }
}

/// The transactions on a server that a switchover would wait for, oldest first. `role` is ours there.
///
/// # Errors
/// The server does not answer.
pub(super) async fn look(desk: &Desk, session: &Session, role: &str) -> Result<Vec<Open>, Error> {
    let age = place::settings(&desk.loaded.config).calm_below();
    let found = activity::long_transactions(session, role, age).await?;
    Ok(found.into_iter().map(Open::from).collect())
}

pub(super) fn show(ui: &Ui, open: &[Open]) {
    if open.is_empty() {
        return;
    }
    let rows = open.iter().take(SHOWN).map(|open| {
        vec![
            open.pid.to_string(),
            units::duration(std::time::Duration::from_millis(open.age_ms)),
            open.state.clone().unwrap_or_default(),
            open.user.clone().unwrap_or_default(),
            open.database.clone().unwrap_or_default(),
            open.application.clone(),
        ]
    });
    let head = ["transaction of", "open for", "", "user", "database", "application"];
    ui.line(format!("\n{}", table(&head, &[1], rows)));
    if open.len() > SHOWN {
        ui.line(format!("and {} more", open.len() - SHOWN));
    }
}
