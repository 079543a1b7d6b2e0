//! The words of Muster.
//!
//! Every crate above speaks in these nouns; none of them does anything by itself.
//! [`Fault`] is what every public error of the library crates can tell (what kind of failure,
//! a stable code, the next step), [`Disruption`] what can go wrong and what each takes away,
//! [`Place`] which failure domains a copy shares with its service, [`Probe`] and [`Step`] what
//! a plan asks and does, [`DrillResult`] what a drill found.
//!
//! **Invariant**: this crate performs no I/O, reads no clock and draws no random number.

pub mod disruption;
pub mod drill;
pub mod fault;
pub mod finding;
pub mod kind;
pub mod location;
pub mod place;
pub mod point;
pub mod probe;
pub mod runbook;
pub mod schedule;
pub mod secret;
pub mod units;
pub mod within;

pub use disruption::Disruption;
pub use drill::{DrillResult, Verdict};
pub use fault::{Class, Fault};
pub use finding::{Finding, Severity};
pub use kind::{BackupKind, UnknownKind};
pub use location::{Location, LocationError};
pub use place::Place;
pub use point::{PointCopy, PointProof, RecoveryPoint};
pub use probe::{Light, Probe, ProbeCheck};
pub use runbook::Step;
pub use schedule::{Cadence, CronSchedule};
pub use secret::SecretRef;
pub use within::Within;
