//! Sources against the real thing: real databases at work, real commands, real repositories.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up may panic")]

mod command;
mod common;
mod files;
mod killed;
mod markers;
mod points;
mod sqlite;
mod sqlite_at_work;
