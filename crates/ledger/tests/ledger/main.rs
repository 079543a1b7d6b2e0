//! The ledger at its walls: real processes that are killed, disks that are full, every byte of a
//! bundle changed, and other people's programs as judges.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod bundle;
mod common;
mod crash;
mod damage;
mod log;
mod oracles;
mod tamper;
