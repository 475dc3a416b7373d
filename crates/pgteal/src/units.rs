//! Durations and sizes: how flags write them and how people read them. Knows no flag by name.

use std::time::Duration;

/// Reads `500ms`, `3s`, `2m`, `1h`; a bare number counts milliseconds.
///
/// # Errors
/// The text is not a number with one of these units.
pub fn parse_millis(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "ms" => 1.0,
        "s" => 1_000.0,
        "m" | "min" => 60_000.0,
        "h" => 3_600_000.0,
        _ => return Err(format!("`{text}` is not a duration; write 500ms, 3s, 2m or 1h")),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("`{text}` is not a duration; write 500ms, 3s, 2m or 1h"))?;
    let millis = (number * factor).round();
    // 2^53 ms is more than 285,000 years; below it the conversion is exact.
    if (0.0..9_007_199_254_740_992.0).contains(&millis) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(millis as u64)
    } else {
        Err(format!("`{text}` is too long"))
    }
}

/// `1.5 GiB`: powers of 1024, at most one decimal.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    #[allow(clippy::cast_precision_loss)]
    let mut value = count as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `850 us`, `12.3 ms`, `4.2 s`, `3 min 5 s`, `2 h 4 min`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match time.as_micros() {
        0..1_000 => format!("{} us", time.as_micros()),
        1_000..1_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        1_000_000..60_000_000 => format!("{:.1} s", time.as_secs_f64()),
        60_000_000..3_600_000_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, expected) in [
            ("500ms", Some(500)),
            ("3s", Some(3_000)),
            ("1.5s", Some(1_500)),
            ("2m", Some(120_000)),
            ("1 h", Some(3_600_000)),
            ("250", Some(250)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("3 weeks", None),
            ("-1s", None),
            ("1e99h", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(parse_millis(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn quantities_are_printed() {
        for (number, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 30, "64.0 GiB")] {
            assert_eq!(bytes(number), text);
        }
        for (micros, text) in [
            (850, "850 us"),
            (12_340, "12.3 ms"),
            (4_200_000, "4.2 s"),
            (185_000_000, "3 min 5 s"),
            (7_440_000_000, "2 h 4 min"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }
}
