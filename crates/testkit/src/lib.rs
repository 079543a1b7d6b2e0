//! Tools for Muster's tests, used by every crate and shipped with none.
//!
//! - [`odd_tree`] builds a folder with everything that Linux can store, the strange things first.
//! - [`walker`] reads a folder into a comparable [`Listing`] and says how two of them differ. It
//!   shares no code with the engine, so that one mistake cannot hide in both.
//! - [`peers`] finds and runs the real tools (restic, rustic, …) that we promise to agree with.
//! - [`fixtures`] unpacks the repositories that those tools made and that we keep in `fixtures/`.
//! - [`golden`] compares pages of the documentation with the code that they are written from.
//! - [`postgres`] starts real servers of each version, one for each test.
//! - [`stores`] starts real servers that hold repositories: S3, Azure, REST, SFTP.
//! - [`Scratch`] is a temporary folder which outlives a failed test.
//! - [`wait_for`] polls a condition: the only place where a test may sleep.
//!
//! Does restic give back what it was given? A test that asks looks like this:
//!
//! ```no_run
//! use muster_testkit::{Scratch, odd_tree, peers, walker};
//!
//! # fn main() -> anyhow::Result<()> {
//! let scratch = Scratch::new("restic-round-trip")?;
//! let (source, target) = (scratch.join("source"), scratch.join("target"));
//! odd_tree::build(&source, &odd_tree::Options::for_restic())?;
//!
//! let Some(restic) = peers::require("restic") else { return Ok(()) };
//! let restic = restic
//!     .env("RESTIC_REPOSITORY", scratch.join("repository"))
//!     .env("RESTIC_PASSWORD", "fixture")
//!     .folder(&source);
//! restic.succeed(["init"])?;
//! restic.succeed(["backup", "."])?;
//! restic.succeed(["restore", "latest", "--target", "../target"])?;
//!
//! let tolerance = walker::Tolerance { may_miss: vec![walker::Kind::Socket], ..Default::default() };
//! walker::assert_same(&walker::walk(&source)?, &walker::walk(&target)?, &tolerance);
//! # Ok(())
//! # }
//! ```
//!
//! Failures here panic or return [`anyhow::Error`]: there is no caller who could recover from a
//! test that could not be set up.

pub mod fixtures;
pub mod golden;
pub mod odd_tree;
pub mod peers;
pub mod postgres;
pub mod stores;
pub mod walker;

mod scratch;
mod wait;

pub use scratch::Scratch;
pub use wait::wait_for;
pub use walker::Listing;
