//! Phrases that every form of the report uses, so that no two forms say different things.

use jiff::Timestamp;
use muster_control::matrix::{Cell, Standing};
use muster_model::{
    Disruption, DrillResult, Verdict,
    drill::{ClockStart, MeasuredBy, Phase, RecoveryTime},
};

use super::{
    data::{CopiesSummary, EvidenceState},
    format::{self, NOT_MEASURED, against, age, list, maybe_seconds, percent, seconds},
    kpi::{DRILLS_TO_TELL, Quantiles, SuccessRate, Target},
};

/// How a bundle of evidence is checked, as a command.
pub(super) const VERIFY: &str = "muster evidence verify BUNDLE --trust KEY";

/// The phases that come before anybody acts, with the nouns for them.
const BEFORE_ACTING: [(&str, &str); 2] = [("detect", "detection"), ("decide", "decision")];

/// What a reader must know of the recovery time beside its figure: what it does not contain,
/// what of it is assumed, and from when it counts.
pub(super) fn clock_notes(time: &RecoveryTime) -> Vec<String> {
    let mut notes = Vec::new();
    let missing: Vec<&str> = BEFORE_ACTING
        .iter()
        .filter(|(name, _)| seconds_of(phase(time, name)).is_none())
        .map(|(_, noun)| *noun)
        .collect();
    if !missing.is_empty() {
        notes.push(format!("without {}", list(&missing)));
    }
    for phase in &time.phases {
        if let (MeasuredBy::Assumed, Some(s)) = (phase.source, phase.s) {
            notes.push(format!("{} of {} assumed", seconds(s), phase.name));
        }
    }
    if time.clock_start == ClockStart::Declaration {
        notes.push("counted from the declaration, not from the impact".to_owned());
    }
    notes
}

fn phase<'a>(time: &'a RecoveryTime, name: &str) -> Option<&'a Phase> {
    time.phases.iter().find(|phase| phase.name == name)
}

/// The length of a phase, if anybody knows it.
pub(super) fn seconds_of(phase: Option<&Phase>) -> Option<f64> {
    let known = phase.filter(|phase| phase.source != MeasuredBy::NotMeasured)?;
    known.s.filter(|s| s.is_finite() && *s >= 0.0)
}

/// The length of a phase with its source: `2 min, assumed`.
pub(super) fn phase_words(phase: &Phase) -> String {
    match (seconds_of(Some(phase)), phase.source) {
        (Some(s), MeasuredBy::Assumed) => format!("{}, assumed", seconds(s)),
        (Some(s), _) => seconds(s),
        (None, _) => NOT_MEASURED.to_owned(),
    }
}

/// What to call a drill: its number; where it never got one, how it ended.
pub(super) fn drill_name(drill: &DrillResult) -> String {
    match (drill.number, drill.verdict) {
        (0, Verdict::Expired | Verdict::Skipped) => format!("{} drill", drill.verdict),
        (0, _) => drill.drill.clone(),
        (number, _) => format!("drill {number}"),
    }
}

/// What to call a recovery: its number; what was recorded before there were numbers, its id.
pub(super) fn recovery_name(recovery: &DrillResult) -> String {
    match recovery.number {
        0 => recovery.drill.clone(),
        number => format!("recovery {number}"),
    }
}

/// The recovery time of a drill against its objective; one that failed without it never came
/// back.
pub(super) fn time_words(drill: &DrillResult) -> String {
    let time = &drill.recovery_time;
    match (time.actual_s, drill.verdict) {
        (None, Verdict::Fail) => format!("not recovered / {}", format::objective(time.objective_s)),
        _ => against(time.actual_s, time.objective_s),
    }
}

/// The bound of the loss of a drill against its objective.
pub(super) fn loss_words(drill: &DrillResult) -> String {
    let loss = &drill.recovery_point;
    let bound = format::bound(loss.actual_s_min, loss.actual_s_max);
    format!("{bound} / {}", format::objective(loss.objective_s))
}

/// The recovery time of a cell and its objective: `7.2 s`, `15 min`.
pub(super) fn cell_time(cell: &Cell) -> (String, String) {
    let actual = match (cell.measured.rto_s, cell.verdict) {
        (None, Standing::Failing) => "not recovered".to_owned(),
        _ => maybe_seconds(cell.measured.rto_s),
    };
    (actual, format::objective(cell.objective.rto_s))
}

/// The loss of a cell and its objective; `None` where the disruption takes no data.
pub(super) fn cell_loss(cell: &Cell) -> Option<(String, String)> {
    let figures = || (maybe_seconds(cell.measured.rpo_s), format::objective(cell.objective.rpo_s));
    loses_data(cell).then(figures)
}

/// What would be lost now; `None` where the disruption takes no data.
pub(super) fn cell_now(cell: &Cell) -> Option<String> {
    let now = |s: Option<f64>| s.map_or_else(|| "no provable point".to_owned(), seconds);
    loses_data(cell).then(|| now(cell.now.rpo_s))
}

fn loses_data(cell: &Cell) -> bool {
    cell.objective.rpo_s.is_some() || cell.disruption.effect().loses_data
}

/// A disruption as a heading.
pub(super) fn disruption_words(disruption: Disruption) -> String {
    disruption.as_str().replace('-', " ")
}

/// What a verdict means, in few words.
pub(super) fn verdict_meaning(verdict: &str) -> &'static str {
    match verdict {
        "pass" => "recovered within its objectives",
        "fail" => "the system missed something",
        "inconclusive" => "could not be judged",
        "error" => "the harness failed; says nothing about the system",
        "aborted" => "stopped on request",
        "expired" => "due and not started in time",
        "skipped" => "left out, with a reason",
        _ => "started, and no end is recorded",
    }
}

/// How many drills succeeded, and what it is worth, in sentences.
pub(super) fn success_words(rate: &SuccessRate) -> Vec<String> {
    let (Some(share), Some(bound)) = (rate.rate, rate.failure_upper_95) else {
        return vec!["No drill in this period.".to_owned()];
    };
    let mut words = vec![format!(
        "{} of {} passed; the target is {}.",
        rate.pass,
        format::count(rate.n, "drill"),
        percent(rate.target)
    )];
    if rate.too_few {
        words.push(format!(
            "Too few to tell: n = {}, and a rate says something from {DRILLS_TO_TELL} drills on.",
            rate.n
        ));
    } else if share < rate.target {
        words.push("The target was missed.".to_owned());
    }
    words.push(format!(
        "With 95 % confidence, a drill does not pass with a probability of at most {}.",
        percent(bound)
    ));
    words
}

/// A quantile: a figure, "not recovered" where it is endless, or "not measured".
pub(super) fn quantile(figure: Option<f64>, of: &Quantiles) -> String {
    match figure {
        None if of.n > 0 => "not recovered".to_owned(),
        _ => maybe_seconds(figure),
    }
}

/// A target with whose it is: `15 min, the tier's`.
pub(super) fn target(target: &Target) -> String {
    format!("{}, {}", seconds(target.s), target.from.words())
}

/// Whether a median keeps its target, as far as so many drills can tell.
pub(super) fn kept(of: &Quantiles, target: &Target) -> String {
    if of.n == 0 {
        return NOT_MEASURED.to_owned();
    }
    let word = if keeps(of, target) { "met" } else { "missed" };
    match of.n {
        DRILLS_TO_TELL.. => word.to_owned(),
        _ => format!("{word}, too few to tell"),
    }
}

/// Whether the median is known and within the target.
pub(super) fn keeps(of: &Quantiles, target: &Target) -> bool {
    of.median_s.is_some_and(|s| s <= target.s)
}

/// The copies in one repository: `far (eu-north): 39, newest 3 min old`.
pub(super) fn copies(copies: &CopiesSummary, now: Timestamp) -> String {
    let region = copies.region.as_deref().unwrap_or("region not known");
    let newest = copies.newest_data_time.map_or_else(
        || "none whole".to_owned(),
        |at| format!("newest {} old", age(now.duration_since(at).as_secs_f64())),
    );
    let immutable = if copies.immutable { ", immutable" } else { "" };
    format!("{} ({region}): {}{immutable}, {newest}", copies.repository, copies.count)
}

/// What the evidence is worth, in one line.
pub(super) fn trust(state: &EvidenceState, now: Timestamp) -> String {
    match &state.verified {
        None => "The evidence was not verified for this report.".to_owned(),
        Some(check) => {
            let ago = age(now.duration_since(check.at).as_secs_f64());
            let verdict = if check.ok { "verified" } else { "NOT INTACT, checked" };
            format!("Evidence {verdict} {ago} ago: {}.", check.detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(phases: &[(&str, Option<f64>, MeasuredBy)]) -> RecoveryTime {
        let phase = |(name, s, source): &(&str, Option<f64>, MeasuredBy)| Phase {
            name: (*name).to_owned(),
            s: *s,
            source: *source,
        };
        RecoveryTime {
            objective_s: Some(900.0),
            actual_s: Some(7.2),
            clock_start: ClockStart::Impact,
            phases: phases.iter().map(phase).collect(),
        }
    }

    #[test]
    fn what_the_recovery_time_leaves_out_is_said() {
        use MeasuredBy::{Assumed, Measured, NotMeasured};
        let check = |phases: &[(&str, Option<f64>, MeasuredBy)], expected: &[&str]| {
            assert_eq!(clock_notes(&time(phases)), expected);
        };
        check(&[], &["without detection and decision"]);
        check(
            &[("detect", None, NotMeasured), ("decide", None, NotMeasured)],
            &["without detection and decision"],
        );
        // A nought that nobody measured is no figure.
        check(
            &[("detect", Some(0.0), NotMeasured), ("decide", Some(3.0), Measured)],
            &["without detection"],
        );
        check(
            &[("detect", Some(120.0), Assumed), ("decide", Some(3.0), Measured)],
            &["2 min of detect assumed"],
        );
    }

    #[test]
    fn few_drills_are_too_few_to_tell() {
        let target = Target { s: 900.0, from: crate::report::kpi::TargetFrom::Tier };
        let check = |figures: &[f64], expected: &str| {
            assert_eq!(kept(&crate::report::kpi::quantiles(figures), &target), expected);
        };
        check(&[], NOT_MEASURED);
        check(&[7.0], "met, too few to tell");
        check(&[f64::INFINITY], "missed, too few to tell");
        check(&[7.0; 20], "met");
        check(&[901.0; 20], "missed");
        let rate = |pass, n| SuccessRate {
            pass,
            n,
            rate: (n > 0).then(|| pass as f64 / n as f64),
            failure_upper_95: crate::report::kpi::failure_upper_95(n - pass, n),
            target: 0.95,
            too_few: n < DRILLS_TO_TELL,
        };
        let few = success_words(&rate(12, 12)).join(" ");
        assert!(few.contains("Too few to tell: n = 12"), "{few}");
        assert!(few.contains("at most 22.1 %"), "{few}");
        let many = success_words(&rate(30, 40)).join(" ");
        assert!(many.contains("missed") && !many.contains("Too few"), "{many}");
        assert_eq!(success_words(&rate(0, 0)), ["No drill in this period."]);
    }
}
