//! Owns one pass over the catalogue: one session per database, every check, none stopping the others. Refuses to judge:
//! a look that fails is reported as one that could not be made, never as clean.

use std::time::Duration;

use pgteal_postgres::{Purpose, Server, Session};

use super::catalogue::{Check, Place, catalogue};
use super::evidence::{Answer, Context, Evidence, Fact};
use super::finding::{CheckRun, Finding, Report, Severity, Spot, Verdict};
use crate::deployment::Side;

/// The clusters to look at.
#[derive(Debug, Clone)]
pub struct Clusters {
    /// Blue, and the database to use for questions about the whole cluster.
    pub blue: (Server, String),
    /// Green, if it runs, likewise.
    pub green: Option<(Server, String)>,
    /// The databases of green that exist already.
    pub green_databases: Vec<String>,
}

/// A question takes at most this long; then it counts as one that could not be put.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Rows of one answer that are kept; more than that says nothing new to a reader.
const ROWS_KEPT: usize = 500;

/// Runs every check. Never fails: what could not be looked at is a blocker that says why.
pub async fn run_all(clusters: &Clusters, cx: &Context) -> Report {
    let checks: Vec<Check> =
        catalogue().into_iter().filter(|c| c.versions.contains(&cx.blue.major)).collect();
    let mut evidence: Vec<Evidence> = checks.iter().map(|_| Evidence::default()).collect();
    let mut failures: Vec<Option<String>> = vec![None; checks.len()];
    for stop in stops(clusters, cx) {
        match stop.server.connect(&stop.database, Purpose::probe("checks").within(LOOK_LIMIT)).await {
            Ok(session) => look_here(&session, &stop, &checks, &mut evidence, &mut failures).await,
            Err(error) => fail_here(&stop, &checks, &mut failures, &error.to_string()),
        }
    }
    let mut report = Report::default();
    for ((check, evidence), failure) in checks.iter().zip(&evidence).zip(failures) {
        conclude(&mut report, check, evidence, failure, cx);
    }
    report.seal(&cx.waivers, cx.today);
    report
}

/// One session's worth of questions.
struct Stop<'a> {
    server: &'a Server,
    database: String,
    spot: Spot,
    place: Place,
}

fn stops<'a>(clusters: &'a Clusters, cx: &Context) -> Vec<Stop<'a>> {
    let stop = |server: &'a Server, database: &str, side, place, whole: bool| Stop {
        server,
        database: database.to_owned(),
        spot: Spot { side, database: (!whole).then(|| database.to_owned()) },
        place,
    };
    let (blue, main) = &clusters.blue;
    let mut stops = vec![stop(blue, main, Side::Blue, Place::Blue, true)];
    stops.extend(cx.databases.iter().map(|d| stop(blue, d, Side::Blue, Place::BlueDatabases, false)));
    if let Some((green, main)) = &clusters.green {
        stops.push(stop(green, main, Side::Green, Place::Green, true));
        let databases = clusters.green_databases.iter();
        stops.extend(databases.map(|d| stop(green, d, Side::Green, Place::GreenDatabases, false)));
    }
    stops
}

async fn look_here(
    session: &Session,
    stop: &Stop<'_>,
    checks: &[Check],
    evidence: &mut [Evidence],
    failures: &mut [Option<String>],
) {
    for (at, check) in checks.iter().enumerate() {
        for (look, question) in check.looks.iter().enumerate().filter(|(_, l)| l.at == stop.place) {
            match facts(session, check.id, question.sql).await {
                Ok(facts) => evidence[at].answers.push(Answer { look, spot: stop.spot.clone(), facts }),
                Err(why) => _ = failures[at].get_or_insert(why),
            }
        }
    }
}

fn fail_here(stop: &Stop<'_>, checks: &[Check], failures: &mut [Option<String>], why: &str) {
    for (check, failure) in checks.iter().zip(failures) {
        if check.looks.iter().any(|l| l.at == stop.place) {
            failure.get_or_insert_with(|| why.to_owned());
        }
    }
}

async fn facts(session: &Session, id: &str, sql: &str) -> Result<Vec<Fact>, String> {
    // One JSON text per row: the same reading on every version, whatever the columns' types.
    let wrapped = format!("select to_jsonb(looked)::text from ({sql}) looked limit {ROWS_KEPT}");
    let rows =
        session.query(&format!("looking for check {id}"), &wrapped, &[]).await.map_err(|e| e.to_string())?;
    let read = |row: &pgteal_postgres::Record| {
        let text: String = row.get(0).map_err(|e| e.to_string())?;
        serde_json::from_str(&text).map(Fact).map_err(|e| format!("answer to check {id}: {e}"))
    };
    rows.iter().map(read).collect()
}

fn conclude(report: &mut Report, check: &Check, evidence: &Evidence, failure: Option<String>, cx: &Context) {
    let applies = check.looks.is_empty() || !evidence.answers.is_empty();
    let findings = if applies { (check.judge)(evidence, cx) } else { Vec::new() };
    let verdict = match (&failure, applies, findings.len()) {
        (Some(why), ..) => Verdict::NotLooked(why.clone()),
        (None, false, _) => Verdict::NotApplicable,
        (None, true, 0) => Verdict::Clean,
        (None, true, n) => Verdict::Found(n),
    };
    report.checks.push(CheckRun { check: check.id.to_owned(), title: check.title.to_owned(), verdict });
    report.findings.extend(findings);
    if let Some(why) = failure {
        let spot = Spot::cluster(Side::Blue);
        let consequence = "What cannot be looked at cannot be ruled out, so the upgrade does not begin.";
        let what = format!("Could not look for {}: {why}.", check.title);
        let finding = Finding::new(
            check.id,
            Severity::Blocker,
            &spot,
            format!("check {}", check.id),
            what,
            consequence,
        );
        report.findings.push(finding.next("look-again"));
    }
}
