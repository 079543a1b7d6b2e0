//! The figures by which a programme of drills is judged, as functions of values.
//!
//! Three rules keep them honest. A drill in which the service never came back is slower than
//! every other one, so it pushes the quantiles up instead of dropping out of them. A rate comes
//! with the number of drills behind it and with the upper 95 % bound of the probability of
//! failure, for twelve passes of twelve still allow 22 %. What could not be judged counts
//! against the rate; only faults of the harness say nothing.
//!
//! # Source
//! C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the
//! case of the binomial", Biometrika 26 (1934).

use muster_control::matrix::{Cell, Standing};
use muster_model::{Disruption, DrillResult, Verdict};
use serde::Serialize;

use super::data::Service;

/// Where a service's tier says nothing: it is back within an hour.
pub const RTO_TARGET_S: f64 = 3600.0;

/// Where a service's tier says nothing: it loses five minutes at most.
pub const RPO_TARGET_S: f64 = 300.0;

/// So many drills must succeed.
pub const SUCCESS_TARGET: f64 = 0.95;

/// With fewer drills a rate tells nothing yet.
pub const DRILLS_TO_TELL: u64 = 20;

/// What one-sided confidence leaves to chance.
const CHANCE: f64 = 0.05;

/// The figures of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kpis {
    /// Times and losses, in the order of the plan.
    pub services: Vec<ServiceKpi>,
    /// How many drills succeeded.
    pub success: SuccessRate,
    /// How much is proven today.
    pub coverage: Coverage,
}

/// Times and losses of one service over its drills.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceKpi {
    /// The service.
    pub service: String,
    /// Recovery times.
    pub recovery_time: Quantiles,
    /// Losses, by the upper ends of their bounds.
    pub recovery_point: Quantiles,
    /// What the recovery time should be.
    pub rto_target: Target,
    /// What the loss should be.
    pub rpo_target: Target,
}

/// The middle and the upper end of some figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many figures there are, the endless ones included.
    pub n: u64,
    /// Of these, how many are endless: the service did not come back.
    pub endless: u64,
    /// Half of them are at most this; `None` when there is none or it is endless.
    pub median_s: Option<f64>,
    /// Nine in ten are at most this; `None` when there is none or it is endless.
    pub p90_s: Option<f64>,
}

/// A target and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Target {
    /// Seconds.
    pub s: f64,
    /// Who set it.
    pub from: TargetFrom,
}

/// Who set a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetFrom {
    /// The service's tier.
    Tier,
    /// Muster, for want of a tier that says so.
    BuiltIn,
}

impl TargetFrom {
    /// Says whose it is.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Tier => "the tier's",
            Self::BuiltIn => "built in",
        }
    }
}

/// How many drills succeeded, and what that tells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SuccessRate {
    /// Drills that passed.
    pub pass: u64,
    /// Drills that passed, failed, were inconclusive, aborted or expired.
    pub n: u64,
    /// The one by the other; `None` when there is no drill.
    pub rate: Option<f64>,
    /// The upper 95 % bound of the probability that a drill does not pass.
    pub failure_upper_95: Option<f64>,
    /// The target.
    pub target: f64,
    /// Whether there are too few drills to tell.
    pub too_few: bool,
}

/// How much is proven today.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coverage {
    /// Services with an objective.
    pub services: u64,
    /// Of these, how many have proof of at least one disruption, young enough.
    pub services_proven: u64,
    /// Objectives: services × disruptions.
    pub objectives: u64,
    /// Of these, how many are proven.
    pub objectives_proven: u64,
    /// The same for each disruption that has an objective.
    pub disruptions: Vec<DisruptionCoverage>,
}

/// How much is proven of one disruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DisruptionCoverage {
    /// The disruption.
    pub disruption: Disruption,
    /// Services with an objective for it.
    pub services: u64,
    /// Of these, how many have proof that is young enough.
    pub proven: u64,
}

/// Computes all figures.
#[must_use]
pub fn kpis(services: &[Service], cells: &[Cell], drills: &[DrillResult]) -> Kpis {
    Kpis {
        services: services.iter().map(|service| service_kpi(service, drills)).collect(),
        success: success_rate(drills),
        coverage: coverage(cells),
    }
}

fn service_kpi(service: &Service, drills: &[DrillResult]) -> ServiceKpi {
    let tells = |v: Verdict| matches!(v, Verdict::Pass | Verdict::Fail | Verdict::Inconclusive);
    let ours: Vec<&DrillResult> =
        drills.iter().filter(|d| d.service == service.name && tells(d.verdict)).collect();
    let times: Vec<f64> = ours.iter().filter_map(|drill| time_of(drill)).collect();
    let losses: Vec<f64> = ours.iter().filter_map(|d| d.recovery_point.actual_s_max).collect();
    ServiceKpi {
        service: service.name.clone(),
        recovery_time: quantiles(&times),
        recovery_point: quantiles(&losses),
        rto_target: target(service.objective.rto_s, RTO_TARGET_S),
        rpo_target: target(service.objective.rpo_s, RPO_TARGET_S),
    }
}

/// A failed drill without a recovery time never came back.
fn time_of(drill: &DrillResult) -> Option<f64> {
    let endless = (drill.verdict == Verdict::Fail).then_some(f64::INFINITY);
    drill.recovery_time.actual_s.or(endless)
}

fn target(tier_s: Option<f64>, built_in_s: f64) -> Target {
    match tier_s {
        Some(s) => Target { s, from: TargetFrom::Tier },
        None => Target { s: built_in_s, from: TargetFrom::BuiltIn },
    }
}

/// Median and p90 by nearest rank: each is a figure that was really measured, and of two in
/// the middle the worse. Infinite figures are endless.
#[must_use]
pub fn quantiles(figures: &[f64]) -> Quantiles {
    let mut sorted: Vec<f64> = figures.iter().copied().filter(|s| !s.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let at = |index: usize| sorted.get(index).copied().filter(|s| s.is_finite());
    Quantiles {
        n: n as u64,
        endless: sorted.iter().filter(|s| s.is_infinite()).count() as u64,
        median_s: at(n / 2),
        p90_s: at((9 * n).div_ceil(10).saturating_sub(1)),
    }
}

/// Passes by all drills that should have passed.
#[must_use]
pub fn success_rate(drills: &[DrillResult]) -> SuccessRate {
    let counts = |verdict| !matches!(verdict, Verdict::Error | Verdict::Skipped);
    let n = drills.iter().filter(|drill| counts(drill.verdict)).count() as u64;
    let pass = drills.iter().filter(|drill| drill.verdict == Verdict::Pass).count() as u64;
    #[expect(clippy::cast_precision_loss, reason = "nobody holds 2^52 drills")]
    let rate = (n > 0).then(|| pass as f64 / n as f64);
    SuccessRate {
        pass,
        n,
        rate,
        failure_upper_95: failure_upper_95(n - pass, n),
        target: SUCCESS_TARGET,
        too_few: n < DRILLS_TO_TELL,
    }
}

/// The probability of failure above which seeing `failures` or fewer in `n` drills would have
/// a chance of 5 % at most; `None` without drills.
#[must_use]
pub fn failure_upper_95(failures: u64, n: u64) -> Option<f64> {
    if n == 0 || failures > n {
        return None;
    }
    if failures == n {
        return Some(1.0);
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if chance_of_at_most(failures, n, middle) > CHANCE {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(high)
}

/// P(X ≤ k) of a binomial distribution with 0 < p < 1, term by term in logarithms.
#[expect(clippy::cast_precision_loss, reason = "nobody holds 2^52 drills")]
fn chance_of_at_most(k: u64, n: u64, p: f64) -> f64 {
    let (log_p, log_q) = (p.ln(), (-p).ln_1p());
    let mut log_term = n as f64 * log_q;
    let mut sum = log_term.exp();
    for i in 1..=k {
        log_term += ((n - i + 1) as f64 / i as f64).ln() + log_p - log_q;
        sum += log_term.exp();
    }
    sum.min(1.0)
}

fn coverage(cells: &[Cell]) -> Coverage {
    let mut services: Vec<(&str, bool)> = Vec::new();
    for cell in cells {
        let proven = cell.verdict == Standing::Proven;
        match services.iter_mut().find(|(name, _)| *name == cell.service) {
            Some((_, any)) => *any |= proven,
            None => services.push((&cell.service, proven)),
        }
    }
    Coverage {
        services: services.len() as u64,
        services_proven: services.iter().filter(|(_, proven)| *proven).count() as u64,
        objectives: cells.len() as u64,
        objectives_proven: proven_in(cells, |_| true),
        disruptions: Disruption::ALL.into_iter().filter_map(|d| coverage_of(cells, d)).collect(),
    }
}

fn coverage_of(cells: &[Cell], disruption: Disruption) -> Option<DisruptionCoverage> {
    let services = cells.iter().filter(|cell| cell.disruption == disruption).count() as u64;
    let proven = proven_in(cells, |cell| cell.disruption == disruption);
    (services > 0).then_some(DisruptionCoverage { disruption, services, proven })
}

fn proven_in(cells: &[Cell], wanted: impl Fn(&Cell) -> bool) -> u64 {
    cells.iter().filter(|cell| wanted(cell) && cell.verdict == Standing::Proven).count() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::sample;

    #[test]
    fn passes_alone_leave_room_for_failure() {
        let check = |failures, n, expected: f64| {
            let bound = failure_upper_95(failures, n).unwrap();
            assert!((bound - expected).abs() < 0.001, "{failures} in {n}: {bound}");
        };
        check(0, 4, 0.527);
        check(0, 12, 0.221);
        check(0, 59, 0.0495);
        check(1, 20, 0.2161);
        check(3, 10, 0.6066);
        check(5, 5, 1.0);
        check(0, 5000, 0.0006);
        assert_eq!(failure_upper_95(0, 0), None);
    }

    #[test]
    fn a_service_that_never_came_back_is_the_slowest() {
        let check = |figures: &[f64], median, p90, endless| {
            let q = quantiles(figures);
            assert_eq!((q.median_s, q.p90_s, q.endless), (median, p90, endless), "{figures:?}");
            assert_eq!(q.n, figures.len() as u64);
        };
        check(&[], None, None, 0);
        check(&[7.0], Some(7.0), Some(7.0), 0);
        check(&[3.0, 1.0, 2.0], Some(2.0), Some(3.0), 0);
        check(&[1.0, 2.0, f64::INFINITY], Some(2.0), None, 1);
        check(&[1.0, f64::INFINITY], None, None, 1);
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        check(&ten, Some(6.0), Some(9.0), 0);
    }

    #[test]
    fn only_faults_of_the_harness_and_skipped_drills_do_not_count() {
        let mut drills = sample::facts().drills;
        let rate = success_rate(&drills);
        let uncounted = drills
            .iter()
            .filter(|d| matches!(d.verdict, Verdict::Error | Verdict::Skipped))
            .count();
        assert_eq!(rate.n, (drills.len() - uncounted) as u64);
        drills.truncate(0);
        let none = success_rate(&drills);
        assert_eq!((none.rate, none.failure_upper_95, none.too_few), (None, None, true));
    }

    #[test]
    fn a_target_says_whose_it_is() {
        let facts = sample::facts();
        let kpis = kpis(&facts.services, &facts.cells, &facts.drills);
        let of = |name: &str| kpis.services.iter().find(|k| k.service == name).unwrap();
        assert_eq!(of("orders").rto_target, Target { s: 900.0, from: TargetFrom::Tier });
        let untiered = facts.services.iter().find(|s| s.tier.is_none()).unwrap();
        assert_eq!(of(&untiered.name).rto_target, Target { s: 3600.0, from: TargetFrom::BuiltIn });
    }

    #[test]
    fn coverage_counts_services_and_objectives() {
        let facts = sample::facts();
        let c = coverage(&facts.cells);
        assert_eq!(c.objectives, facts.cells.len() as u64);
        assert_eq!(c.disruptions.iter().map(|d| d.services).sum::<u64>(), c.objectives);
        assert_eq!(c.disruptions.iter().map(|d| d.proven).sum::<u64>(), c.objectives_proven);
        assert!(c.services_proven < c.services);
    }

    proptest! {
        #[test]
        fn the_bound_lies_above_the_rate_and_falls_with_n(n in 1_u64..400, k in 0_u64..400) {
            let k = k.min(n);
            let bound = failure_upper_95(k, n).unwrap();
            prop_assert!(bound >= k as f64 / n as f64 && bound <= 1.0);
            prop_assert!(failure_upper_95(k, n + 1).unwrap() <= bound);
        }

        #[test]
        fn quantiles_are_figures_and_in_order(figures in prop::collection::vec(0.0..1e6_f64, 1..40)) {
            let q = quantiles(&figures);
            let (median, p90) = (q.median_s.unwrap(), q.p90_s.unwrap());
            prop_assert!(figures.contains(&median) && figures.contains(&p90));
            prop_assert!(median <= p90 || figures.len() < 3);
        }
    }
}
