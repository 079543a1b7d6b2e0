//! The words of Muster.
//!
//! Every crate above speaks in these nouns; none of them does anything by itself.
//! [`Fault`] is what every public error of the library crates can tell (what kind of failure,
//! a stable code, the next step), [`BackupKind`] how a backup decides what to read again, and
//! [`units`] reads and writes sizes and durations as people type them.
//!
//! **Invariant**: this crate performs no I/O, reads no clock and draws no random number.

pub mod fault;
pub mod kind;
pub mod units;

pub use fault::{Class, Fault};
pub use kind::{BackupKind, UnknownKind};
