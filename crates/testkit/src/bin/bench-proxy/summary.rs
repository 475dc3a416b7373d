//! Medians and ratios over all rounds. Owns the tables and the JSON object; refuses to leave a round out.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::case::Case;
use crate::contender::Contender;
use crate::sample::{Measure, Sample};

/// Whom everybody is compared with.
const REFERENCES: [Contender; 3] = [Contender::PgbouncerSession, Contender::NullRelay, Contender::Direct];

/// One contender, one measure, one cell.
#[derive(Debug, Serialize)]
struct Line {
    case: Case,
    cell: String,
    measure: Measure,
    contender: Contender,
    rounds: usize,
    median: f64,
    min: f64,
    max: f64,
    /// Its median divided by that of others in the same cell.
    of: BTreeMap<Contender, f64>,
}

/// How it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    /// The server's version.
    pub(crate) server: String,
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    /// How contenders reach the server.
    pub(crate) upstream: &'static str,
    pub(crate) cores: usize,
    /// What each contender is and how it is set up.
    pub(crate) contenders: BTreeMap<Contender, String>,
    /// What else one has to know to read the figures.
    pub(crate) notes: Vec<String>,
}

/// What is printed at the end.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    setting: Setting,
    lines: Vec<Line>,
    samples: Vec<Sample>,
}

impl Summary {
    pub(crate) fn of(setting: Setting, samples: Vec<Sample>) -> Summary {
        let mut cells: Vec<(Case, &str)> = Vec::new();
        for sample in &samples {
            let cell = (sample.case, &sample.cell[..]);
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
        let lines = cells.into_iter().flat_map(|cell| lines(cell, &samples)).collect();
        Summary { setting, lines, samples }
    }
}

/// All lines of one cell, by measure and then by contender.
fn lines((case, cell): (Case, &str), samples: &[Sample]) -> Vec<Line> {
    let mut groups: BTreeMap<(Measure, Contender), Vec<f64>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.case == case && sample.cell == cell) {
        for (measure, value) in &sample.values {
            groups.entry((*measure, sample.contender)).or_default().push(*value);
        }
    }
    for values in groups.values_mut() {
        values.sort_by(f64::total_cmp);
    }
    let line = |(&(measure, contender), values): (&(Measure, Contender), &Vec<f64>)| {
        let own = median(values);
        let others = REFERENCES.into_iter().filter(|other| *other != contender);
        let ratio = |other| {
            let theirs = median(groups.get(&(measure, other))?);
            // Added latency may be nothing or less.
            (own >= 0.0 && theirs > 0.0).then(|| (other, own / theirs))
        };
        Line {
            case,
            cell: cell.to_owned(),
            measure,
            contender,
            rounds: values.len(),
            median: own,
            min: values.first().copied().unwrap_or(f64::NAN),
            max: values.last().copied().unwrap_or(f64::NAN),
            of: others.filter_map(ratio).collect(),
        }
    };
    groups.iter().map(line).collect()
}

/// Of sorted values.
fn median(values: &[f64]) -> f64 {
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 } else { at(middle) }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Setting { server, rounds, seconds, upstream, cores, contenders, notes } = &self.setting;
        writeln!(
            f,
            "PostgreSQL {server} and everybody else on one machine of {cores} cores; clients come over TCP, \
             {upstream} leads to the server;\n{rounds} rounds in turns, {seconds} s each; medians of rounds, ratios \
             of medians\n"
        )?;
        for (contender, told) in contenders {
            writeln!(f, "{contender}: {told}")?;
        }
        for note in notes {
            writeln!(f, "note: {note}")?;
        }
        let mut before = None;
        for line in &self.lines {
            let table = Some((line.case, &line.cell, line.measure));
            if before != table {
                heading(f, line)?;
                before = table;
            }
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

fn heading(f: &mut std::fmt::Formatter<'_>, line: &Line) -> std::fmt::Result {
    writeln!(f, "\n{}: {}: {}", line.case.name(), line.cell, line.measure.title())?;
    write!(f, "  {:<21} {:>6} {:>11} {:>21}", "", "rounds", "median", "min..max")?;
    for reference in REFERENCES {
        write!(f, " {:>20}", format!("of {reference}"))?;
    }
    writeln!(f)
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Line { contender, rounds, median, min, max, of, .. } = self;
        let range = format!("{min:.1}..{max:.1}");
        write!(f, "  {contender:<21} {rounds:>6} {median:>11.1} {range:>21}")?;
        for reference in REFERENCES {
            let ratio = of.get(&reference).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            write!(f, " {ratio:>20}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: u32, contender: Contender, cell: &str, values: &[(Measure, f64)]) -> Sample {
        let values = values.iter().copied().collect();
        Sample { case: Case::Query, cell: cell.into(), round, contender, values }
    }

    fn setting() -> Setting {
        Setting {
            server: "18.0".into(),
            rounds: 3,
            seconds: 1,
            upstream: "TCP",
            cores: 2,
            contenders: BTreeMap::from([(Contender::NullRelay, "a loop".into())]),
            notes: vec!["the moon was full".into()],
        }
    }

    #[test]
    fn medians_spreads_and_ratios_of_known_samples() {
        let mut samples = Vec::new();
        let tps =
            [(Contender::PgtealProxy, [10.0, 30.0, 20.0]), (Contender::PgbouncerSession, [40.0, 5.0, 80.0])];
        for (contender, values) in tps {
            for (round, value) in (1..).zip(values) {
                samples.push(sample(round, contender, "a", &[(Measure::Tps, value), (Measure::CpuUs, 2.0)]));
            }
        }
        samples.push(sample(1, Contender::Direct, "a", &[(Measure::Tps, 80.0)]));
        // Another cell has its own ratios.
        samples.push(sample(1, Contender::Direct, "b", &[(Measure::Tps, 1.0)]));
        let summary = Summary::of(setting(), samples);
        let found = summary.lines.iter().find(|line| line.contender == Contender::PgtealProxy).unwrap();
        assert_eq!((found.rounds, found.median, found.min, found.max), (3, 20.0, 10.0, 30.0));
        let ratios = [(Contender::Direct, 0.25), (Contender::PgbouncerSession, 0.5)];
        assert_eq!(found.of, BTreeMap::from(ratios));
        let order: Vec<_> =
            summary.lines.iter().map(|line| (&line.cell[..], line.measure, line.contender)).collect();
        assert_eq!(
            order,
            [
                ("a", Measure::Tps, Contender::Direct),
                ("a", Measure::Tps, Contender::PgbouncerSession),
                ("a", Measure::Tps, Contender::PgtealProxy),
                ("a", Measure::CpuUs, Contender::PgbouncerSession),
                ("a", Measure::CpuUs, Contender::PgtealProxy),
                ("b", Measure::Tps, Contender::Direct),
            ]
        );
        let shown = summary.to_string();
        for part in ["null-relay: a loop\n", "note: the moon was full\n", "query: a: transactions/s\n"] {
            assert!(shown.contains(part), "{shown}");
        }
        let own: Vec<&str> = shown.lines().filter(|line| line.starts_with("  pgteal-proxy")).collect();
        let words: Vec<&str> = own[0].split_whitespace().collect();
        assert_eq!(words, ["pgteal-proxy", "3", "20.0", "10.0..30.0", "0.50", "-", "0.25"], "{shown}");
    }

    #[test]
    fn an_even_number_of_rounds_and_nothing_to_divide_by() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert!(median(&[]).is_nan());
        let zero = |contender, value| sample(1, contender, "a", &[(Measure::AddedP99Us, value)]);
        let samples = vec![zero(Contender::NullRelay, 0.0), zero(Contender::PgtealProxy, 5.0)];
        let summary = Summary::of(setting(), samples);
        assert!(summary.lines.iter().all(|line| !line.of.contains_key(&Contender::PgbouncerSession)));
        assert!(!summary.lines[1].of.contains_key(&Contender::NullRelay), "{summary}");
        assert!(serde_json::to_string(&summary).unwrap().contains("\"added_p99_us\""));
    }
}
