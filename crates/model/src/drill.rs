//! What a drill or a recovery found, as it is printed, signed and reported.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{disruption::Disruption, finding::Finding};

/// How a drill ended. Only `Pass` proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Recovered within its objectives, and everything that says so was seen to be able to
    /// say the opposite.
    Pass,
    /// The system missed something.
    Fail,
    /// It could not be judged.
    Inconclusive,
    /// The harness failed: says nothing about the system.
    Error,
    /// Stopped on request.
    Aborted,
    /// Due and not started within its window.
    Expired,
    /// Left out, with the reason.
    Skipped,
}

impl Verdict {
    /// The name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Error => "error",
            Self::Aborted => "aborted",
            Self::Expired => "expired",
            Self::Skipped => "skipped",
        }
    }

    /// Whether it says something about the system. All others leave the earlier proof to age.
    #[must_use]
    pub fn judges(self) -> bool {
        matches!(self, Self::Pass | Self::Fail)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeasuredBy {
    /// A clock, a probe or a person really did it.
    Measured,
    /// The plan's `assume:` says so.
    Assumed,
    /// Nobody knows.
    NotMeasured,
}

/// A part of the recovery time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// `detect`, `decide`, `prepare`, `restore`, `start`, `run`, `verify`.
    pub name: String,
    /// Seconds; `None` when nobody knows.
    pub s: Option<f64>,
    /// Where the figure comes from.
    pub source: MeasuredBy,
}

/// From which event the recovery time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockStart {
    /// The instant of the disruption.
    Impact,
    /// Somebody decided to recover: what came before is not in the figure.
    Declaration,
}

/// The recovery time against its objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryTime {
    /// The objective in seconds.
    pub objective_s: Option<f64>,
    /// From the clock's start to the start of the held window.
    pub actual_s: Option<f64>,
    /// From which event it counts.
    pub clock_start: ClockStart,
    /// Its parts.
    pub phases: Vec<Phase>,
}

/// What was lost, against the objective: a bound, since markers have a period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoveryLoss {
    /// The objective in seconds.
    pub objective_s: Option<f64>,
    /// At least so many seconds were lost.
    pub actual_s_min: Option<f64>,
    /// At most so many seconds were lost.
    pub actual_s_max: Option<f64>,
}

/// Markers, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerCounts {
    /// Acknowledged before the disruption.
    pub written: u64,
    /// Of these, found after the recovery.
    pub recovered: u64,
    /// Of these, not found.
    pub lost: u64,
    /// Not found although a later one was.
    pub holes: u64,
    /// Found more than once.
    pub duplicates: u64,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Its name in the plan.
    pub name: String,
    /// The data item that it questions.
    pub data: Option<String>,
    /// From the clock's start to its first green sample.
    pub first_green_s: Option<f64>,
    /// How often it asked.
    pub samples: u64,
    /// How often the answer was red.
    pub failures: u64,
    /// A negative control saw it red; `None` when no control ran.
    pub seen_red: Option<bool>,
}

/// A negative control: a probe or rule held against something that must make it red.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NegativeControl {
    /// The probe or completeness rule.
    pub probe: String,
    /// `empty-target`, `damaged:DATA`, or `stopped-service`.
    pub against: String,
    /// `red`, `green` or `unknown`.
    pub observed: String,
    /// Whether it was red, as it must be.
    pub ok: bool,
}

/// A completeness rule's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completeness {
    /// `rows orders`, `checksums`, `integrity`.
    pub name: String,
    /// The data item.
    pub data: String,
    /// What should be there, as a text: a count, a range, a digest.
    pub expected: Option<String>,
    /// What is there.
    pub actual: Option<String>,
    /// `None` when it could not be judged.
    pub ok: Option<bool>,
}

/// A statement that was tested: of isolation or of clean-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What was tested.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// Where the evidence of a drill lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRef {
    /// The index in the log of the entry that says how the drill ended; `None` inside that
    /// entry itself, which cannot know it.
    pub log_index: Option<u64>,
    /// SHA-256 of the envelope, in hex.
    pub envelope_sha256: String,
    /// The same result as a standard test-result statement.
    #[serde(default)]
    pub test_result: Option<TestResultRef>,
}

/// The envelope of the standard test-result statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResultRef {
    /// SHA-256 of the envelope, in hex.
    pub envelope_sha256: String,
}

/// Which recovery point was used for a data item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointUsed {
    /// The data item.
    pub data: String,
    /// The point's id.
    pub point: String,
    /// The repository it was read from.
    pub repository: String,
    /// The snapshot in it.
    pub snapshot: String,
    /// The moment whose data it holds.
    pub data_time: Timestamp,
    /// Bytes restored.
    pub bytes: Option<u64>,
}

/// What a drill found: the object of `drill run --json` and `drill show --json`, and the
/// predicate of its evidence (there without `evidence`, which names the envelope itself).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillResult {
    /// The drill's id.
    pub drill: String,
    /// Its number: every drill that was started has the next one.
    pub number: u64,
    /// The service.
    pub service: String,
    /// What was rehearsed.
    pub disruption: Disruption,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, in sentences; empty after a pass.
    pub reasons: Vec<String>,
    /// When it began, by the wall clock.
    pub started: Timestamp,
    /// When it ended, by the wall clock.
    pub ended: Timestamp,
    /// The revision of the plan (SHA-256 of its text, in hex).
    pub plan_revision: String,
    /// Which recovery points were used.
    pub points: Vec<PointUsed>,
    /// The recovery time.
    pub recovery_time: RecoveryTime,
    /// The loss.
    pub recovery_point: RecoveryLoss,
    /// The markers; `None` when the service has none.
    pub markers: Option<MarkerCounts>,
    /// The probes.
    pub probes: Vec<ProbeResult>,
    /// The negative controls.
    pub negative_controls: Vec<NegativeControl>,
    /// The completeness rules.
    pub completeness: Vec<Completeness>,
    /// The isolation proofs.
    pub isolation: Vec<Proof>,
    /// The clean-up proofs.
    pub cleanup: Vec<Proof>,
    /// What was found on the way.
    pub findings: Vec<Finding>,
    /// Where the evidence lies.
    pub evidence: Option<EvidenceRef>,
}
