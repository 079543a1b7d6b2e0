//! The recovery time, cut into phases that add up to it.

use std::time::Duration;

use muster_model::drill::{MeasuredBy, Phase};
use muster_plan::document::Assumptions;

use crate::run::Stretch;

/// The phases of a drill up to `t5`, detection and decision first. What lies between two steps
/// belongs to the one that follows; what lies before the first is `prepare`.
pub(crate) fn phases(assume: &Assumptions, stretches: &[Stretch], t5: Duration) -> Vec<Phase> {
    let mut phases = vec![assumed("detect", assume.detect), assumed("decide", assume.decide)];
    phases.extend(measured(stretches, t5));
    phases
}

/// A phase that nobody measured: as the plan assumes it, or not known.
pub(crate) fn assumed(name: &str, duration: Option<Duration>) -> Phase {
    let source = match duration {
        Some(_) => MeasuredBy::Assumed,
        None => MeasuredBy::NotMeasured,
    };
    Phase { name: name.to_owned(), s: duration.map(|d| d.as_secs_f64()), source }
}

/// What the clock measured.
pub(crate) fn measured(stretches: &[Stretch], t5: Duration) -> Vec<Phase> {
    let mut totals: Vec<(&str, Duration)> = Vec::new();
    let mut add = |name, length: Duration| match totals.iter_mut().find(|(n, _)| *n == name) {
        Some((_, total)) => *total += length,
        None => totals.push((name, length)),
    };
    let first = stretches.iter().map(|stretch| stretch.began).min().unwrap_or_default();
    add("prepare", first.min(t5));
    // A server's replay lies within a restore and is no part of it.
    let steps = stretches.iter().filter(|stretch| stretch.what != "replay");
    let mut at = first;
    for step in steps {
        let end = step.ended.min(t5);
        let within =
            |s: &&Stretch| s.what == "replay" && s.began >= step.began && s.ended <= step.ended;
        let replays = stretches.iter().filter(within);
        let replay: Duration =
            replays.map(|s| s.ended.min(t5).saturating_sub(s.began.min(t5))).sum();
        add(step.what, end.saturating_sub(at.min(t5)).saturating_sub(replay));
        if !replay.is_zero() {
            add("replay", replay);
        }
        at = at.max(step.ended);
    }
    add("verify", t5.saturating_sub(at));
    let phase = |(name, total): (&str, Duration)| Phase {
        name: name.to_owned(),
        s: Some(total.as_secs_f64()),
        source: MeasuredBy::Measured,
    };
    totals.into_iter().map(phase).collect()
}

/// The recovery time: all phases that are known.
pub(crate) fn total_s(phases: &[Phase]) -> f64 {
    phases.iter().filter_map(|phase| phase.s).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(what: &'static str, began: u64, ended: u64) -> Stretch {
        let (began, ended) = (Duration::from_secs(began), Duration::from_secs(ended));
        Stretch { what, began, ended }
    }

    fn check(stretches: &[Stretch], t5_s: u64, expected: &str) {
        let phases = measured(stretches, Duration::from_secs(t5_s));
        let text: Vec<String> =
            phases.iter().map(|p| format!("{} {}", p.name, p.s.unwrap())).collect();
        assert_eq!(text.join(", "), expected);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let t5_s = t5_s as f64;
        assert!((total_s(&phases) - t5_s).abs() < 1e-9);
    }

    #[test]
    fn phases_add_up_to_the_recovery_time() {
        let steps = [stretch("restore", 1, 5), stretch("start", 6, 7)];
        check(&steps, 10, "prepare 1, restore 4, start 2, verify 3");
        let again = [stretch("restore", 1, 5), stretch("restore", 5, 6), stretch("run", 6, 8)];
        check(&again, 9, "prepare 1, restore 5, run 2, verify 1");
    }

    #[test]
    fn a_servers_replay_is_told_apart_from_the_restore() {
        let steps = [stretch("replay", 3, 5), stretch("restore", 1, 5)];
        check(&steps, 6, "prepare 1, restore 2, replay 2, verify 1");
    }

    #[test]
    fn what_happens_after_the_service_is_back_does_not_count() {
        let steps = [stretch("restore", 1, 5), stretch("start", 5, 6), stretch("run", 6, 20)];
        check(&steps, 8, "prepare 1, restore 4, start 1, run 2, verify 0");
    }

    #[test]
    fn detection_and_decision_are_assumed_or_unknown() {
        let assume = Assumptions { detect: Some(Duration::from_secs(90)), decide: None };
        let phases = phases(&assume, &[], Duration::from_secs(5));
        assert_eq!((phases[0].s, phases[0].source), (Some(90.0), MeasuredBy::Assumed));
        assert_eq!((phases[1].s, phases[1].source), (None, MeasuredBy::NotMeasured));
    }
}
