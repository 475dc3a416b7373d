//! Findings as text: what, where, what follows, how to settle it.

use pgteal_core::checks::{Finding, Report, Severity, Verdict};

use crate::errors::hints::hint;
use crate::ui::{Style, Ui};

/// Shows a report: its findings, then one line about the checks that found nothing.
pub fn show(ui: &Ui, report: &Report) {
    for finding in &report.findings {
        for line in lines(ui, finding) {
            ui.line(line);
        }
    }
    let clean = report.checks.iter().filter(|check| check.verdict == Verdict::Clean).count();
    let skipped = report.checks.iter().filter(|check| check.verdict == Verdict::NotApplicable).count();
    ui.line(format!("{} checks: {clean} found nothing, {skipped} do not apply", report.checks.len()));
}

fn lines(ui: &Ui, finding: &Finding) -> Vec<String> {
    let (style, word) = match (&finding.waived, finding.severity) {
        (Some(_), _) => (Style::Dim, "waived"),
        (None, Severity::Blocker) => (Style::Bad, "blocker"),
        (None, Severity::Warning) => (Style::Warn, "warning"),
        (None, Severity::Notice) => (Style::Dim, "notice"),
    };
    let place = match &finding.spot.database {
        Some(database) => format!("{}, database {database}", finding.spot.side),
        None => finding.spot.side.to_string(),
    };
    let mut lines = vec![
        format!(
            "{} {} on {place} [{}]",
            ui.paint(style, &format!("{word:<8}")),
            finding.object,
            finding.check
        ),
        format!("         {}", finding.what),
        format!("         {}", finding.consequence),
    ];
    if let Some(reason) = &finding.waived {
        lines.push(format!("         waived: {reason}"));
        return lines;
    }
    if let Some(advice) = finding.next.as_deref().and_then(hint) {
        lines.push(format!("         next: {advice}"));
    }
    if let Some(remedy) = &finding.remedy {
        lines.extend(remedy.lines().map(|line| format!("         > {line}")));
    }
    lines
}
