//! Tools for Muster's tests, used by every crate and shipped with none.
//!
//! - [`peers`] finds and runs the real tools (restic, rustic, …) that we promise to agree with.
//! - [`Scratch`] is a temporary folder which outlives a failed test.
//! - [`wait_for`] polls a condition: the only place where a test may sleep.

pub mod peers;

mod scratch;
mod wait;

pub use scratch::Scratch;
pub use wait::wait_for;
