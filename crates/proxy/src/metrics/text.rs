//! Owns Prometheus' text format, version 0.0.4 (Prometheus documentation, "Exposition formats"). Refuses to know what is told.
//!
//! By hand, because what there is to write is whole numbers under fixed names; the official library writes OpenMetrics only,
//! which `promtool check metrics` does not read.

use std::fmt::Write as _;

use crate::histogram::Histogram;

/// The content type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What begins every name.
const PREFIX: &str = "pgteal_proxy_";

/// A page under way.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// One number that goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.sample(name, &[], &value.to_string());
    }

    /// Several, told apart by labels whose values are words of ours.
    pub(super) fn gauges(&mut self, name: &str, help: &str, samples: &[(&[(&str, &str)], u64)]) {
        self.head(name, help, "gauge");
        for (labels, value) in samples {
            self.sample(name, labels, &value.to_string());
        }
    }

    /// A time that goes up and down, given in microseconds, told in seconds.
    pub(super) fn seconds(&mut self, name: &str, help: &str, us: u64) {
        self.head(name, help, "gauge");
        self.sample(name, &[], &seconds(us));
    }

    /// Several of these, told apart by labels.
    pub(super) fn all_seconds(&mut self, name: &str, help: &str, samples: &[(&[(&str, &str)], u64)]) {
        self.head(name, help, "gauge");
        for (labels, us) in samples {
            self.sample(name, labels, &seconds(*us));
        }
    }

    /// One number that only goes up, until it is reset.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.sample(name, &[], &value.to_string());
    }

    /// Several of these.
    pub(super) fn counters(&mut self, name: &str, help: &str, samples: &[(&[(&str, &str)], u64)]) {
        self.head(name, help, "counter");
        for (labels, value) in samples {
            self.sample(name, labels, &value.to_string());
        }
    }

    /// Durations.
    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let (buckets, count, sum) = histogram.read();
        let bucket = format!("{name}_bucket");
        for (bound, below) in buckets {
            self.sample(&bucket, &[("le", &seconds(bound))], &below.to_string());
        }
        self.sample(&bucket, &[("le", "+Inf")], &count.to_string());
        self.sample(&format!("{name}_sum"), &[], &seconds(sum));
        self.sample(&format!("{name}_count"), &[], &count.to_string());
    }

    pub(super) fn text(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP {PREFIX}{name} {help}");
        let _ = writeln!(self.text, "# TYPE {PREFIX}{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        let _ = write!(self.text, "{PREFIX}{name}");
        for (position, (label, of)) in labels.iter().enumerate() {
            let before = if position == 0 { '{' } else { ',' };
            let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{before}{label}=\"{of}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

/// Microseconds as seconds, to the last digit.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_prometheus_documents_them() {
        let mut page = Page::default();
        page.gauge("clients", "Sessions.", 3);
        page.counters("bytes_total", "Bytes.", &[(&[("to", "a\"b\\c\nd"), ("of", "x")], 1), (&[], 2)]);
        page.seconds("longest_seconds", "Longest.", 1_500_000);
        let expected = "# HELP pgteal_proxy_clients Sessions.\n# TYPE pgteal_proxy_clients gauge\npgteal_proxy_clients 3\n\
            # HELP pgteal_proxy_bytes_total Bytes.\n# TYPE pgteal_proxy_bytes_total counter\n\
            pgteal_proxy_bytes_total{to=\"a\\\"b\\\\c\\nd\",of=\"x\"} 1\npgteal_proxy_bytes_total 2\n\
            # HELP pgteal_proxy_longest_seconds Longest.\n# TYPE pgteal_proxy_longest_seconds gauge\n\
            pgteal_proxy_longest_seconds 1.5\n";
        assert_eq!(page.text(), expected);
        for (us, expected) in [(0, "0"), (1, "0.000001"), (120_000_000, "120"), (25_000, "0.025")] {
            assert_eq!(seconds(us), expected);
        }
    }
}
