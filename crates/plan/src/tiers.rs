//! The built-in tiers, and the arithmetic that availability obeys.

use std::time::Duration;

use crate::document::Tier;

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// The period over which a downtime budget is stated unless another is asked for: 30 days.
pub const BUDGET_PERIOD: Duration = Duration::from_secs(30 * DAY);

/// The tiers that ship with Muster: critical, important, standard.
///
/// Their figures are those that the field teaches. With their own MTTR and MTBF they do not
/// reach their own availability, which `tier-contradicts-itself` says.
#[must_use]
pub fn built_in() -> Vec<Tier> {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let tier = |name: &str, times: [u64; 4], availability, days: [u64; 2]| Tier {
        name: name.to_owned(),
        built_in: true,
        rto: seconds(times[0]),
        rpo: seconds(times[1]),
        mttr: seconds(times[2]),
        mtbf: seconds(times[3]),
        availability: Some(availability),
        drill_every: seconds(days[0] * DAY),
        evidence_max_age: seconds(days[1] * DAY),
    };
    vec![
        tier("critical", [15 * MINUTE, 5 * MINUTE, HOUR, 30 * DAY], 0.9999, [30, 45]),
        tier("important", [HOUR, 30 * MINUTE, 4 * HOUR, 15 * DAY], 0.999, [90, 120]),
        tier("standard", [4 * HOUR, HOUR, 8 * HOUR, 7 * DAY], 0.995, [180, 200]),
    ]
}

/// How long a service may be down in a period: `(1 − availability) × period`, to the
/// millisecond. Nothing when `availability` is no fraction.
#[must_use]
pub fn downtime_budget(availability: f64, period: Duration) -> Duration {
    let share = (1.0 - availability).clamp(0.0, 1.0);
    let milliseconds = (share * period.as_secs_f64() * 1000.0).round();
    Duration::try_from_secs_f64(milliseconds / 1000.0).unwrap_or(period)
}

/// The availability that failures this far apart and repairs this long give:
/// `MTBF / (MTBF + MTTR)`.
#[must_use]
pub fn availability_of(mtbf: Duration, mttr: Duration) -> f64 {
    mtbf.as_secs_f64() / (mtbf.as_secs_f64() + mttr.as_secs_f64())
}

/// How far apart failures must be for an availability, when repairs take this long.
#[must_use]
pub fn mtbf_required(availability: f64, mttr: Duration) -> Option<Duration> {
    let seconds = mttr.as_secs_f64() * availability / (1.0 - availability);
    Duration::try_from_secs_f64(seconds.round()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(name: &str) -> Tier {
        built_in().into_iter().find(|tier| tier.name == name).unwrap()
    }

    #[test]
    fn budgets_of_thirty_days_are_the_golden_ones() {
        let check = |name: &str, milliseconds: u64| {
            let availability = tier(name).availability.unwrap();
            let budget = downtime_budget(availability, BUDGET_PERIOD);
            assert_eq!(budget, Duration::from_millis(milliseconds), "{name}");
        };
        check("critical", 259_200); // 4 min 19.2 s
        check("important", 2_592_000); // 43 min 12 s
        check("standard", 12_960_000); // 3 h 36 min
    }

    #[test]
    fn budgets_scale_with_the_period() {
        let year = Duration::from_secs(365 * DAY);
        assert_eq!(downtime_budget(0.999, year), Duration::from_secs(31_536));
        assert_eq!(downtime_budget(7.0, year), Duration::ZERO);
    }

    #[test]
    fn the_built_in_tiers_contradict_themselves() {
        let check = |name: &str, percent: &str| {
            let tier = tier(name);
            let given = availability_of(tier.mtbf.unwrap(), tier.mttr.unwrap());
            assert_eq!(format!("{:.3}", given * 100.0), percent, "{name}");
            assert!(given < tier.availability.unwrap(), "{name}");
        };
        check("critical", "99.861");
        check("important", "98.901");
        check("standard", "95.455");
    }

    #[test]
    fn the_mtbf_required_gives_the_availability() {
        let hour = Duration::from_secs(HOUR);
        assert_eq!(mtbf_required(0.9999, hour), Some(hour * 9999));
        assert_eq!(mtbf_required(1.0, hour), None);
    }
}
