//! What all of it proves today: service × disruption, objective, measured, now.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use muster_model::{Disruption, DrillResult, Place, RecoveryPoint, Verdict};
use serde::Serialize;

use crate::choice::surviving_copies;

/// What is known of one service and one disruption.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The service.
    pub service: &'a str,
    /// Where it stands.
    pub place: &'a Place,
    /// Its data items.
    pub data: &'a [String],
    /// The disruption.
    pub disruption: Disruption,
    /// Recovery time objective.
    pub rto: Option<Duration>,
    /// Recovery point objective.
    pub rpo: Option<Duration>,
    /// Proof older than this is stale.
    pub evidence_max_age: Option<Duration>,
}

/// A cell of the matrix, as `status --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The service.
    pub service: String,
    /// The disruption.
    pub disruption: Disruption,
    /// What was promised.
    pub objective: Figures,
    /// What the last drill that judged measured.
    pub measured: Figures,
    /// What today's state would give.
    pub now: Exposure,
    /// What it proves.
    pub verdict: Standing,
    /// How old the proof is; `None` when nothing was proven.
    pub proof_age_s: Option<f64>,
    /// The drill that judged last.
    pub drill: Option<String>,
    /// How the last attempt ended, if it did not judge.
    pub last_attempt: Option<Verdict>,
}

/// A recovery time and a recovery point, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Recovery time.
    pub rto_s: Option<f64>,
    /// Recovery point; of a measured bound the upper end.
    pub rpo_s: Option<f64>,
}

/// What would be lost now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Exposure {
    /// Age of the newest provable point, over all data items the oldest of these.
    pub rpo_s: Option<f64>,
}

/// What a cell proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The last drill that judged passed, recently enough.
    Proven,
    /// The last drill that judged failed.
    Failing,
    /// It passed, too long ago.
    Stale,
    /// No drill ever judged.
    Never,
}

impl Standing {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Failing => "failing",
            Self::Stale => "stale",
            Self::Never => "never",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Answers one question. `drills` in the order in which they ended.
#[must_use]
pub fn cell(
    question: &Question<'_>,
    drills: &[DrillResult],
    points: &[RecoveryPoint],
    now: Timestamp,
) -> Cell {
    let ours: Vec<&DrillResult> = drills
        .iter()
        .filter(|d| d.service == question.service && d.disruption == question.disruption)
        .collect();
    let judged = ours.iter().rev().find(|drill| drill.verdict.judges());
    let age_s = judged.map(|drill| seconds_between(drill.ended, now));
    let last = ours.last().map(|drill| drill.verdict);
    Cell {
        service: question.service.to_owned(),
        disruption: question.disruption,
        objective: Figures { rto_s: seconds(question.rto), rpo_s: seconds(question.rpo) },
        measured: Figures {
            rto_s: judged.and_then(|drill| drill.recovery_time.actual_s),
            rpo_s: judged.and_then(|drill| drill.recovery_point.actual_s_max),
        },
        now: Exposure { rpo_s: exposure(question, drills, points, now) },
        verdict: standing(judged.copied(), age_s, question.evidence_max_age),
        proof_age_s: judged.filter(|drill| drill.verdict == Verdict::Pass).and(age_s),
        drill: judged.map(|drill| drill.drill.clone()),
        last_attempt: last.filter(|verdict| !verdict.judges()),
    }
}

fn standing(
    judged: Option<&DrillResult>,
    age_s: Option<f64>,
    max_age: Option<Duration>,
) -> Standing {
    match (judged.map(|drill| drill.verdict), age_s) {
        (Some(Verdict::Pass), Some(age)) => match max_age {
            // A clock that was set back makes a proof no younger than new.
            Some(max) if age > max.as_secs_f64() => Standing::Stale,
            _ => Standing::Proven,
        },
        (Some(_), _) => Standing::Failing,
        (None, _) => Standing::Never,
    }
}

/// The age of the newest point that survives and that a drill has shown to be restorable: the
/// worst over all data items, `None` when one of them has none.
fn exposure(
    question: &Question<'_>,
    drills: &[DrillResult],
    points: &[RecoveryPoint],
    now: Timestamp,
) -> Option<f64> {
    let mut worst: Option<f64> = None;
    for data in question.data {
        let newest = points
            .iter()
            .filter(|p| p.service == question.service && p.data == *data && p.is_good())
            .filter(|point| is_provable(point, question, drills))
            .map(|point| point.data_time)
            .max()?;
        let age = seconds_between(newest, now);
        worst = Some(worst.map_or(age, |worst| worst.max(age)));
    }
    worst
}

/// A copy of the point survives in a repository from which a passing drill has restored this
/// data item.
fn is_provable(point: &RecoveryPoint, question: &Question<'_>, drills: &[DrillResult]) -> bool {
    let copies = surviving_copies(point, question.place, Some(question.disruption));
    let proven = |repository: &str| {
        drills.iter().any(|drill| {
            drill.verdict == Verdict::Pass
                && drill.service == point.service
                && drill.points.iter().any(|p| p.data == point.data && p.repository == repository)
        })
    };
    copies.iter().any(|copy| !copy.damaged && proven(&copy.repository))
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64().max(0.0)
}

/// One sentence for the top of every page: how much is proven, and what is not.
#[must_use]
pub fn sentence(cells: &[Cell]) -> String {
    if cells.is_empty() {
        return "The plan sets no objective, so there is nothing to prove.".to_owned();
    }
    let count = |standing| cells.iter().filter(|cell| cell.verdict == standing).count();
    let mut text = format!("{} of {} objectives proven", count(Standing::Proven), cells.len());
    let rest: Vec<String> = [
        (Standing::Failing, "failing"),
        (Standing::Stale, "with stale proof"),
        (Standing::Never, "never proven"),
    ]
    .into_iter()
    .filter(|(standing, _)| count(*standing) > 0)
    .map(|(standing, words)| format!("{} {words}", count(standing)))
    .collect();
    if !rest.is_empty() {
        text.push_str(&format!("; {}", rest.join(", ")));
    }
    text.push('.');
    text
}

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// Everything is proven.
    Open,
    /// Something fails.
    Failing,
    /// Proof is stale or was never made.
    Unproven,
    /// It could not be told.
    Unknown,
}

/// Decides whether to let a change through. No objective at all, and cells whose only attempts
/// could not be judged, cannot be told.
#[must_use]
pub fn gate(cells: &[Cell]) -> Gate {
    let any = |standing| cells.iter().any(|cell| cell.verdict == standing);
    let unproven = |cell: &&Cell| matches!(cell.verdict, Standing::Never | Standing::Stale);
    let is_open_question =
        |cell: &Cell| matches!(cell.last_attempt, Some(Verdict::Inconclusive | Verdict::Error));
    if any(Standing::Failing) {
        return Gate::Failing;
    }
    let unproven: Vec<&Cell> = cells.iter().filter(unproven).collect();
    match unproven.as_slice() {
        [] if cells.is_empty() => Gate::Unknown,
        [] => Gate::Open,
        some if some.iter().all(|cell| is_open_question(cell)) => Gate::Unknown,
        _ => Gate::Unproven,
    }
}

#[cfg(test)]
mod tests;
