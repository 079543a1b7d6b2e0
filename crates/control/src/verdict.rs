//! How a drill ended.
//!
//! Whatever the system missed is a failure. Whatever could not be judged, a probe that was
//! never seen red above all, makes the drill inconclusive. Faults of the harness say nothing
//! about the system. Only what is left is a pass.

use std::time::Duration;

use muster_model::{
    Verdict,
    drill::{
        Completeness, MarkerCounts, NegativeControl, ProbeResult, Proof, RecoveryLoss, RecoveryTime,
    },
    units::{agree, counted, format_duration},
};

/// All that a verdict rests on.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    /// Stopped on request.
    pub aborted: bool,
    /// Faults of the harness.
    pub harness_faults: &'a [String],
    /// A step of the runbook that was not done, and why.
    pub failed_step: Option<&'a str>,
    /// The service came back and died again.
    pub died_again: bool,
    /// How long the service had to come back.
    pub within: Duration,
    /// The recovery time.
    pub time: &'a RecoveryTime,
    /// The loss.
    pub loss: &'a RecoveryLoss,
    /// Data items without markers, and how much older than the disruption their points are, in
    /// seconds: so much of them may be lost.
    pub ages: &'a [(String, f64)],
    /// The markers; `None` when the plan has none.
    pub markers: Option<&'a MarkerCounts>,
    /// The probes.
    pub probes: &'a [ProbeResult],
    /// Controls that were made.
    pub controls: &'a [NegativeControl],
    /// Data items that were restored; each needs a control that turned something red.
    pub data: &'a [String],
    /// Data items that are protected and that the runbook does not restore.
    pub unrestored: &'a [String],
    /// The runbook starts a service, so a control must have noticed that it was stopped.
    pub starts: bool,
    /// Completeness rules.
    pub completeness: &'a [Completeness],
    /// Isolation proofs.
    pub isolation: &'a [Proof],
    /// Clean-up proofs.
    pub cleanup: &'a [Proof],
    /// What a failure kept from being measured, and why.
    pub unmeasured: &'a [String],
}

/// Judges a drill, and says why in sentences.
#[must_use]
pub fn judge(case: &Case<'_>) -> (Verdict, Vec<String>) {
    if case.aborted {
        return (Verdict::Aborted, vec!["stopped on request".to_owned()]);
    }
    let faults = harness_faults(case);
    if !faults.is_empty() {
        return (Verdict::Error, faults);
    }
    let mut failures = missed(case);
    if !failures.is_empty() {
        failures.extend(case.unmeasured.iter().map(|what| format!("not measured: {what}")));
        return (Verdict::Fail, failures);
    }
    let doubts = doubts(case);
    if !doubts.is_empty() {
        return (Verdict::Inconclusive, doubts);
    }
    (Verdict::Pass, Vec::new())
}

fn harness_faults(case: &Case<'_>) -> Vec<String> {
    let litter = case.cleanup.iter().filter(|proof| !proof.ok);
    let litter = litter.map(|proof| format!("clean-up: {}: {}", proof.name, proof.detail));
    case.harness_faults.iter().cloned().chain(litter).collect()
}

/// What the system missed; of a recovery for real this is the whole judgement.
#[must_use]
pub fn missed(case: &Case<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    reasons.extend(case.failed_step.map(|why| format!("the runbook failed: {why}")));
    reasons.extend(time_failure(case));
    reasons.extend(loss_failure(case));
    let incomplete = case.completeness.iter().filter(|rule| rule.ok == Some(false));
    reasons.extend(incomplete.map(|rule| {
        let (expected, actual) = (text(rule.expected.as_deref()), text(rule.actual.as_deref()));
        format!("{} of {}: expected {expected}, found {actual}", rule.name, rule.data)
    }));
    let breaches = case.isolation.iter().filter(|proof| !proof.ok);
    reasons.extend(breaches.map(|proof| format!("isolation: {}: {}", proof.name, proof.detail)));
    reasons
}

fn text(value: Option<&str>) -> &str {
    value.unwrap_or("nothing")
}

fn time_failure(case: &Case<'_>) -> Option<String> {
    if case.failed_step.is_some() {
        return None;
    }
    match (case.time.actual_s, case.time.objective_s) {
        (None, _) if case.died_again => {
            Some("the service came back and died again before it had held".to_owned())
        }
        (None, _) if case.probes.is_empty() => None,
        (None, _) => Some(format!("not recovered within {}", format_duration(case.within))),
        (Some(actual), Some(objective)) if actual > objective => {
            Some(format!("recovered in {actual:.1} s, the objective is {objective:.1} s"))
        }
        _ => None,
    }
}

fn loss_failure(case: &Case<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if let (Some(least), Some(objective)) = (case.loss.actual_s_min, case.loss.objective_s)
        && least > objective
    {
        reasons.push(format!("lost at least {least:.1} s, the objective is {objective:.1} s"));
    }
    if let Some(objective) = case.loss.objective_s {
        let late = case.ages.iter().filter(|(_, age)| *age > objective);
        reasons.extend(late.map(|(data, age)| {
            format!(
                "{data} comes from a point {age:.1} s older than the disruption, the objective is \
                 {objective:.1} s"
            )
        }));
    }
    if let Some(markers) = case.markers {
        if markers.holes > 0 {
            let (holes, are) =
                (counted(markers.holes, "marker"), agree(markers.holes, "is", "are"));
            reasons.push(format!("{holes} {are} missing between others"));
        }
        if markers.duplicates > 0 {
            reasons.push(format!("{} came back twice", counted(markers.duplicates, "marker")));
        }
    }
    reasons
}

/// What a recovery for real could not judge: it has no controls, and nobody must be told that
/// all is well when nothing says so.
#[must_use]
pub fn unjudged(case: &Case<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if case.time.actual_s.is_none() {
        reasons.push("nothing asked whether the service is back".to_owned());
    }
    reasons.extend(loss_doubt(case));
    let unknown = case.completeness.iter().filter(|rule| rule.ok.is_none());
    reasons.extend(unknown.map(|rule| format!("{} of {} is not known", rule.name, rule.data)));
    reasons
}

/// What could not be judged.
fn doubts(case: &Case<'_>) -> Vec<String> {
    let mut reasons = Vec::new();
    if case.probes.is_empty() {
        reasons.push("there is no acceptance probe: nothing says that the service is back".into());
    }
    if case.time.actual_s.is_some_and(|actual| actual <= 0.0) {
        reasons.push("the recovery time is not positive: it was not measured".to_owned());
    }
    if case.time.objective_s.is_none() && case.loss.objective_s.is_none() {
        reasons.push("the plan sets no objective for this disruption".to_owned());
    }
    reasons.extend(loss_doubt(case));
    let blind = case.probes.iter().filter(|probe| probe.seen_red != Some(true));
    reasons.extend(blind.map(|probe| match probe.seen_red {
        Some(_) => format!("probe {} was never seen red", probe.name),
        None => format!("probe {} was not held against an empty target", probe.name),
    }));
    if case.starts && !notices(case, STOPPED_SERVICE) {
        reasons.push(
            "nothing turned red when the service was stopped: no probe asks the service itself"
                .to_owned(),
        );
    }
    let unquestioned = case.data.iter().filter(|data| !notices_damage(case, data));
    reasons.extend(unquestioned.map(|data| {
        format!("nothing turned red when {data} was damaged: no probe questions its content")
    }));
    let forgotten = case.unrestored.iter();
    reasons.extend(
        forgotten.map(|data| {
            format!("{data} is protected and no step restores it: it was not rehearsed")
        }),
    );
    let unknown = case.completeness.iter().filter(|rule| rule.ok.is_none());
    reasons.extend(unknown.map(|rule| format!("{} of {} is not known", rule.name, rule.data)));
    reasons
}

fn loss_doubt(case: &Case<'_>) -> Option<String> {
    match (case.markers, case.loss.actual_s_max, case.loss.objective_s) {
        (None, ..) => Some("the service has no markers: its loss was not measured".to_owned()),
        (Some(markers), ..) if markers.written == 0 => {
            Some("no marker was acknowledged before the disruption".to_owned())
        }
        (Some(_), None, Some(_)) => Some("nothing bounds the loss from above".to_owned()),
        (Some(_), Some(most), Some(objective)) if most > objective => Some(format!(
            "lost up to {most:.1} s, the objective is {objective:.1} s: write markers more often"
        )),
        _ => None,
    }
}

/// What a control is held against that stops what the runbook started, and leaves the data.
pub const STOPPED_SERVICE: &str = "stopped-service";

/// A control with a damaged copy of this item turned something red.
fn notices_damage(case: &Case<'_>, data: &str) -> bool {
    notices(case, &format!("damaged:{data}"))
}

fn notices(case: &Case<'_>, against: &str) -> bool {
    case.controls.iter().any(|control| control.against == against && control.ok)
}

#[cfg(test)]
mod tests {
    use muster_model::drill::ClockStart;

    use super::*;

    /// A drill in which everything went well, to be spoilt by tests.
    struct Story {
        faults: Vec<String>,
        failed_step: Option<&'static str>,
        died_again: bool,
        time: RecoveryTime,
        loss: RecoveryLoss,
        markers: Option<MarkerCounts>,
        ages: Vec<(String, f64)>,
        probes: Vec<ProbeResult>,
        unrestored: Vec<String>,
        controls: Vec<NegativeControl>,
        completeness: Vec<Completeness>,
        isolation: Vec<Proof>,
        cleanup: Vec<Proof>,
        unmeasured: Vec<String>,
    }

    fn good() -> Story {
        let control = |against: &str| NegativeControl {
            probe: "health".to_owned(),
            against: against.to_owned(),
            observed: "red".to_owned(),
            ok: true,
        };
        Story {
            faults: Vec::new(),
            failed_step: None,
            died_again: false,
            time: RecoveryTime {
                objective_s: Some(60.0),
                actual_s: Some(5.0),
                clock_start: ClockStart::Impact,
                phases: Vec::new(),
            },
            loss: RecoveryLoss {
                objective_s: Some(10.0),
                actual_s_min: Some(2.0),
                actual_s_max: Some(3.0),
            },
            ages: Vec::new(),
            markers: Some(MarkerCounts {
                written: 30,
                recovered: 28,
                lost: 2,
                ..MarkerCounts::default()
            }),
            probes: vec![ProbeResult {
                name: "health".to_owned(),
                data: None,
                first_green_s: Some(5.0),
                samples: 20,
                failures: 3,
                seen_red: Some(true),
            }],
            unrestored: Vec::new(),
            controls: vec![
                control("empty-target"),
                control("damaged:db"),
                control(STOPPED_SERVICE),
            ],
            completeness: Vec::new(),
            isolation: vec![Proof { name: "paths".to_owned(), ok: true, detail: String::new() }],
            cleanup: Vec::new(),
            unmeasured: Vec::new(),
        }
    }

    #[track_caller]
    fn check(spoil: impl FnOnce(&mut Story), verdict: Verdict, reason: &str) {
        let mut story = good();
        spoil(&mut story);
        let case = Case {
            aborted: false,
            harness_faults: &story.faults,
            failed_step: story.failed_step,
            died_again: story.died_again,
            within: Duration::from_secs(600),
            time: &story.time,
            loss: &story.loss,
            ages: &story.ages,
            markers: story.markers.as_ref(),
            probes: &story.probes,
            controls: &story.controls,
            data: &["db".to_owned()],
            unrestored: &story.unrestored,
            starts: true,
            completeness: &story.completeness,
            isolation: &story.isolation,
            cleanup: &story.cleanup,
            unmeasured: &story.unmeasured,
        };
        let (actual, reasons) = judge(&case);
        assert_eq!(actual, verdict, "{reasons:?}");
        assert!(reasons.join("\n").contains(reason), "{reasons:?}");
        assert_eq!(reasons.is_empty(), verdict == Verdict::Pass);
    }

    #[test]
    fn a_drill_passes_only_when_nothing_is_left_to_say() {
        check(|_| {}, Verdict::Pass, "");
    }

    #[test]
    fn what_the_system_missed_is_a_failure() {
        use Verdict::Fail;
        check(|s| s.time.actual_s = Some(61.0), Fail, "recovered in 61.0 s");
        check(|s| s.time.actual_s = None, Fail, "not recovered within 10m");
        check(
            |s| {
                s.time.actual_s = None;
                s.died_again = true;
            },
            Fail,
            "died again",
        );
        check(|s| s.failed_step = Some("restore db: no space"), Fail, "no space");
        check(
            |s| {
                s.failed_step = Some("start: no licence");
                s.unmeasured.push("the recovery time: a step was not done".to_owned());
            },
            Fail,
            "no licence\nnot measured: the recovery time",
        );
        check(|s| s.loss.actual_s_min = Some(11.0), Fail, "lost at least 11.0 s");
        check(|s| s.markers.as_mut().unwrap().holes = 1, Fail, "between others");
        check(|s| s.markers.as_mut().unwrap().duplicates = 1, Fail, "twice");
        check(|s| s.isolation[0].ok = false, Fail, "isolation");
        check(|s| s.ages = vec![("uploads".to_owned(), 11.0)], Fail, "uploads comes from a point");
        let rule = Completeness {
            name: "rows orders".to_owned(),
            data: "db".to_owned(),
            expected: Some("10".to_owned()),
            actual: Some("0".to_owned()),
            ok: Some(false),
        };
        check(|s| s.completeness.push(rule), Fail, "expected 10, found 0");
    }

    #[test]
    fn what_could_not_be_judged_is_inconclusive() {
        use Verdict::Inconclusive;
        check(|s| s.probes[0].seen_red = Some(false), Inconclusive, "never seen red");
        check(|s| s.probes[0].seen_red = None, Inconclusive, "empty target");
        check(|s| s.controls[1].ok = false, Inconclusive, "db was damaged");
        check(|s| s.controls.truncate(1), Inconclusive, "db was damaged");
        check(|s| s.controls.truncate(2), Inconclusive, "service was stopped");
        check(|s| s.controls[2].ok = false, Inconclusive, "service was stopped");
        check(|s| s.unrestored.push("uploads".into()), Inconclusive, "uploads is protected");
        check(|s| s.markers = None, Inconclusive, "no markers");
        check(|s| s.markers.as_mut().unwrap().written = 0, Inconclusive, "no marker");
        check(|s| s.loss.actual_s_max = Some(12.0), Inconclusive, "more often");
        check(|s| s.loss.actual_s_max = None, Inconclusive, "nothing bounds");
        check(|s| s.time.actual_s = Some(0.0), Inconclusive, "not positive");
        check(|s| s.time.actual_s = Some(-1.0), Inconclusive, "not positive");
        check(
            |s| {
                s.probes.clear();
                s.time.actual_s = None;
            },
            Inconclusive,
            "no acceptance probe",
        );
    }

    #[test]
    fn faults_of_the_harness_say_nothing_about_the_system() {
        check(|s| s.faults.push("the ledger is full".to_owned()), Verdict::Error, "full");
        let litter = Proof { name: "target".into(), ok: false, detail: "still there".into() };
        check(|s| s.cleanup.push(litter), Verdict::Error, "still there");
    }
}
