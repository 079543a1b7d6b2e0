//! Operations against real data: real SQLite databases, real folders, real processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod backup;
mod child;
mod clock;
mod common;
mod crash;
mod drills;
mod hooks;
mod markers;
mod partial;
mod recover;
mod remote;
mod retention;
mod stubs;
mod trust;
