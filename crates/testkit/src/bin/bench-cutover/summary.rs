//! Medians and ratios over all rounds. Owns the table and the JSON object; refuses to leave a round out.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::case::Case;
use crate::round::Round;

/// One contender in one case.
#[derive(Debug, Serialize)]
struct Line {
    case: Case,
    contender: &'static str,
    rounds: usize,
    stall_ms: Spread,
    /// The longest flush of one page the disk took by itself around each cutover.
    flush_ms: Spread,
    cutover_ms: Spread,
    /// Median stall divided by that of each other contender in the same case.
    of: BTreeMap<&'static str, f64>,
    /// The pause without the clients' own open transactions, for who has these steps.
    fence_to_release_ms: Option<Spread>,
    /// Its median divided by that of the plain case, if that was run: what the case's objects cost in the pause.
    fence_to_release_of_plain: Option<f64>,
    errors: u64,
    lost: u64,
    doubled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// What is printed at the end.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    from: u16,
    to: u16,
    lines: Vec<Line>,
    rounds: Vec<Round>,
}

impl Summary {
    pub(crate) fn of(from: u16, to: u16, rounds: Vec<Round>) -> Summary {
        let mut groups: BTreeMap<(Case, &'static str), Vec<&Round>> = BTreeMap::new();
        for round in &rounds {
            groups.entry((round.case, round.contender)).or_default().push(round);
        }
        let medians: BTreeMap<_, f64> = groups
            .iter()
            .map(|(key, rounds)| (*key, spread(rounds, |round| round.stall_ms).median))
            .collect();
        let paused = |rounds: &[&Round]| {
            let had = rounds.iter().all(|round| pause(round).is_some());
            had.then(|| spread(rounds, |round| pause(round).unwrap_or(f64::NAN)))
        };
        let plain: BTreeMap<_, Spread> = groups
            .iter()
            .filter(|((case, _), _)| *case == Case::Plain)
            .filter_map(|((_, contender), rounds)| Some((*contender, paused(rounds)?)))
            .collect();
        let lines = groups.into_iter().map(|((case, contender), rounds)| {
            let fence_to_release_ms = paused(&rounds);
            let beside = plain.get(contender).filter(|_| case != Case::Plain);
            let stall_ms = spread(&rounds, |round| round.stall_ms);
            let others = medians.iter().filter(|((c, name), _)| *c == case && *name != contender);
            let sum = |value: fn(&Round) -> u64| rounds.iter().map(|round| value(round)).sum();
            Line {
                case,
                contender,
                rounds: rounds.len(),
                stall_ms,
                flush_ms: spread(&rounds, |round| round.flush_ms),
                cutover_ms: spread(&rounds, |round| round.cutover_ms),
                of: others.map(|((_, name), median)| (*name, stall_ms.median / median)).collect(),
                fence_to_release_ms,
                fence_to_release_of_plain: fence_to_release_ms
                    .zip(beside)
                    .map(|(own, plain)| own.median / plain.median),
                errors: sum(|round| round.errors),
                lost: sum(|round| round.lost),
                doubled: sum(|round| round.doubled),
            }
        });
        Summary { from, to, lines: lines.collect(), rounds }
    }
}

/// As the runbook names its steps; the rivals have others.
fn pause(round: &Round) -> Option<f64> {
    round.between("fence", "release")
}

fn spread(rounds: &[&Round], value: impl Fn(&Round) -> f64) -> Spread {
    let mut values: Vec<f64> = rounds.iter().map(|round| value(round)).collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        (at(middle.wrapping_sub(1)) + at(middle)) / 2.0
    } else {
        at(middle)
    };
    Spread { median, min: at(0), max: at(values.len().wrapping_sub(1)) }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "PostgreSQL {} to {}: longest client stall of a switchover, ms\n", self.from, self.to)?;
        writeln!(
            f,
            "{:<17} {:<9} {:>6} {:>8} {:>15} {:>12} {:>16} {:>6} {:>5} {:>7}  ratio of medians",
            "case",
            "contender",
            "rounds",
            "median",
            "min..max",
            "disk's flush",
            "cutover median",
            "errors",
            "lost",
            "doubled"
        )?;
        for line in &self.lines {
            let Line {
                case, contender, rounds, stall_ms, flush_ms, cutover_ms, errors, lost, doubled, ..
            } = line;
            let range = format!("{:.0}..{:.0}", stall_ms.min, stall_ms.max);
            let flush = format!("{:.0}..{:.0}", flush_ms.min, flush_ms.max);
            let ratios: Vec<String> =
                line.of.iter().map(|(name, ratio)| format!("{ratio:.2} of {name}")).collect();
            writeln!(
                f,
                "{case:<17} {contender:<9} {rounds:>6} {:>8.1} {range:>15} {flush:>12} {:>16.1} {errors:>6} {lost:>5} {doubled:>7}  {}",
                stall_ms.median,
                cutover_ms.median,
                ratios.join(", ")
            )?;
        }
        self.pauses(f)
    }
}

impl Summary {
    fn pauses(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self.lines.iter().filter_map(|line| Some((line, line.fence_to_release_ms?)));
        for (line, pause) in lines {
            let Line { case, contender, .. } = line;
            let Spread { median, min, max } = pause;
            write!(f, "\n{contender}, {case}, fence to release: median {median:.1} ms ({min:.1}..{max:.1})")?;
            if let Some(ratio) = line.fence_to_release_of_plain {
                write!(f, ", {ratio:.2} of plain")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Step;

    fn round(contender: &'static str, stall_ms: f64) -> Round {
        Round {
            case: Case::Plain,
            contender,
            stall_ms,
            calm_ms: 0.0,
            flush_ms: 0.0,
            cutover_ms: stall_ms / 2.0,
            steps: Vec::new(),
            acked: 1,
            errors: 1,
            lost: 0,
            doubled: 0,
            complaints: Vec::new(),
        }
    }

    /// A round of ours, with its steps.
    fn stepped(case: Case, steps: &[(&str, f64)]) -> Round {
        let steps = steps.iter().map(|(name, ms)| Step { name: (*name).into(), ms: *ms }).collect();
        Round { case, steps, ..round("pgteal", 50.0) }
    }

    #[test]
    fn the_pause_is_printed_for_each_case_and_beside_the_plain_one() {
        let of = |case, ms| {
            stepped(
                case,
                &[("drain", 500.0), ("fence", ms), ("repoint", 4.0), ("release", 1.0), ("after", 9.0)],
            )
        };
        let mut rounds = [10.0, 5.0, 30.0].map(|ms| of(Case::Plain, ms)).to_vec();
        rounds.extend([16.0, 13.0, 40.0].map(|ms| of(Case::ManyObjects, ms)));
        rounds.push(round("best", 70.0));
        let summary = Summary::of(15, 18, rounds);
        let shown = summary.to_string();
        let pauses: Vec<&str> = shown.lines().filter(|line| line.contains("fence to release")).collect();
        assert_eq!(
            pauses,
            [
                "pgteal, plain, fence to release: median 15.0 ms (10.0..35.0)",
                "pgteal, many-objects, fence to release: median 21.0 ms (18.0..45.0), 1.40 of plain",
            ],
            "{shown}"
        );
        // Without the plain case there is nothing to divide by, and a contender without the steps has no such pause.
        let alone = Summary::of(15, 18, vec![of(Case::ManyObjects, 16.0), round("best", 70.0)]);
        let ratios: Vec<_> = alone
            .lines
            .iter()
            .map(|l| (l.fence_to_release_ms.is_some(), l.fence_to_release_of_plain))
            .collect();
        assert_eq!(ratios, [(false, None), (true, None)]);
    }

    #[test]
    fn medians_and_ratios_of_known_rounds() {
        let rounds = [("a", 10.0), ("b", 100.0), ("a", 30.0), ("b", 300.0), ("a", 20.0)];
        let summary = Summary::of(15, 18, rounds.map(|(name, ms)| round(name, ms)).to_vec());
        let [a, b] = &summary.lines[..] else { panic!("{summary}") };
        assert_eq!(a.stall_ms, Spread { median: 20.0, min: 10.0, max: 30.0 });
        assert_eq!((b.stall_ms.median, b.errors, b.of["a"]), (200.0, 2, 10.0));
        assert_eq!(a.of["b"], 0.1);
    }
}
