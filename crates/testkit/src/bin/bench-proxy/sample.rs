//! What one turn of one contender gave. Owns the names and units of what is measured; refuses to compare.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::case::Case;
use crate::contender::Contender;

/// In the order it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Transactions a second; with a connection for each, connections too.
    Tps,
    /// User and system time of the contender's process over transactions, microseconds.
    CpuUs,
    /// Latency that half of all transactions did not exceed, microseconds.
    P50Us,
    /// The same for 99 of 100.
    P99Us,
    /// `P99Us` without that of a client that was connected directly in the same round.
    AddedP99Us,
    /// Megabytes (10^6 bytes) of COPY data a second.
    MegabytesPerSecond,
    /// User and system time of the contender's process, milliseconds for 100 megabytes.
    CpuMsPer100Mb,
    /// Memory (Pss) of the contender's process for each session, bytes.
    SessionBytes,
}

/// One turn.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) case: Case,
    pub(crate) cell: String,
    pub(crate) round: u32,
    pub(crate) contender: Contender,
    pub(crate) values: BTreeMap<Measure, f64>,
}

impl Measure {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Measure::Tps => "transactions/s",
            Measure::CpuUs => "CPU of the process, us a transaction",
            Measure::P50Us => "latency p50, us",
            Measure::P99Us => "latency p99, us",
            Measure::AddedP99Us => "latency p99 added to direct, us",
            Measure::MegabytesPerSecond => "MB/s",
            Measure::CpuMsPer100Mb => "CPU of the process, ms for 100 MB",
            Measure::SessionBytes => "memory of the process, bytes a session",
        }
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}, {}:", self.case.name(), self.cell, self.contender)?;
        let mut between = " ";
        for (measure, value) in &self.values {
            write!(f, "{between}{value:.1} {}", measure.title())?;
            between = "; ";
        }
        Ok(())
    }
}

/// Adds to each sample with a p99 what is above that of the direct client in the same cell of the same round.
pub(crate) fn add_added(samples: &mut [Sample]) {
    let key = |sample: &Sample| (sample.case, sample.cell.clone(), sample.round);
    let direct = samples.iter().filter(|sample| sample.contender == Contender::Direct);
    let direct: BTreeMap<_, f64> =
        direct.filter_map(|sample| Some((key(sample), *sample.values.get(&Measure::P99Us)?))).collect();
    for sample in samples.iter_mut().filter(|sample| sample.contender != Contender::Direct) {
        if let (Some(own), Some(floor)) = (sample.values.get(&Measure::P99Us), direct.get(&key(sample))) {
            let added = own - floor;
            sample.values.insert(Measure::AddedP99Us, added);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_latency_is_of_the_same_round() {
        let sample = |round, contender, p99| Sample {
            case: Case::Query,
            cell: "simple, 1 client".into(),
            round,
            contender,
            values: BTreeMap::from([(Measure::P99Us, p99)]),
        };
        let mut samples = vec![
            sample(1, Contender::PgtealProxy, 90.0),
            sample(1, Contender::Direct, 50.0),
            sample(2, Contender::Direct, 60.0),
            sample(2, Contender::PgtealProxy, 95.0),
            sample(3, Contender::PgtealProxy, 95.0),
        ];
        add_added(&mut samples);
        let added: Vec<Option<f64>> =
            samples.iter().map(|sample| sample.values.get(&Measure::AddedP99Us).copied()).collect();
        assert_eq!(added, [Some(40.0), None, None, Some(35.0), None]);
    }
}
