//! The engine against real tools, crashes and damage. One binary, so that it links once.
#![expect(
    clippy::unwrap_used,
    clippy::let_underscore_must_use,
    reason = "a test fails by panicking, and some changes may fail in a crash that is made up"
)]

mod check;
mod common;
mod copied;
mod crash;
mod damage;
mod database;
mod fuzz_seeds;
mod hostile;

mod interop;
mod mend;
mod mended;
mod oracles;
mod properties;
mod prune;
mod reading;
mod restore;
mod sequences;
mod shortcuts;
mod stand_in;
