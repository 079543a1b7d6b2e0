//! Figures as people write them in a plan: `2m 15s`, `99.99 %`, `3 errors`.

use std::time::Duration;

pub(super) use muster_model::units::counted;

/// Seconds as the units that matter, without those that are zero: `15m`, `2m 15s`, `1d 6h`,
/// `0.4s`.
pub(super) fn seconds(s: f64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let duration = Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX);
    let whole = duration.as_secs();
    if whole < 10 && duration.subsec_millis() > 0 {
        return format!("{}s", trimmed(duration.as_secs_f64(), 1).max("0.1".to_owned()));
    }
    let mut rest = whole;
    let parts = UNITS.map(|(length, unit)| {
        let number = rest / length;
        rest %= length;
        (number, unit)
    });
    // Beside days nobody counts seconds.
    let parts = parts.iter().skip_while(|(number, _)| *number == 0).take(3);
    let parts: Vec<String> = parts
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// A share of one, as percents without zeros at the end: `99.99 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", trimmed(share * 100.0, 6))
}

fn trimmed(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_people_write_them() {
        let check = |s: f64, expected: &str| assert_eq!(seconds(s), expected, "{s}");
        check(0.0, "0s");
        check(0.004, "0.1s");
        check(0.42, "0.4s");
        check(12.0, "12s");
        check(12.6, "12s");
        check(135.0, "2m 15s");
        check(900.0, "15m");
        check(3600.0, "1h");
        check(86_400.0 * 30.0, "30d");
        check(108_000.0, "1d 6h");
        check(f64::INFINITY, "213503982334601d 7h");
    }

    #[test]
    fn shares_are_percents() {
        assert_eq!(percent(0.9999), "99.99 %");
        assert_eq!(percent(0.999), "99.9 %");
        assert_eq!(percent(0.5), "50 %");
    }
}
