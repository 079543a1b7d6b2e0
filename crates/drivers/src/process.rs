//! Processes: the children of drills and recoveries.
//!
//! A child is *recorded before it is used*: it is started as a shell that waits for one word,
//! its identity is handed to the caller's `record`, and only when that has returned is the
//! program executed in its place. Whatever kills Muster at whatever moment, either the child
//! is in the record or it never did anything: a shell whose standard input closes gives up.
//!
//! A child leads a process group of its own and has a cleared environment with a random mark
//! in it. What belongs to it, and why no stranger does, is argued at
//! [`end_recorded`].

mod end;
mod environment;
mod hide;
mod identity;
pub(crate) mod kin;
mod launch;
mod log;
mod program;
pub(crate) mod table;

pub use end::{Ended, How, Outcome, RunEnd, end_recorded, lives};
pub(crate) use environment::child_environment;
pub use environment::foreign_variables;
pub use hide::{can_hide, seen_by};
pub use identity::ChildIdentity;
pub use launch::{Child, Launch, LaunchError, launch};
pub(crate) use launch::{GroupGuard, mark_group};
pub use log::tail;
pub use program::ProgramError;
