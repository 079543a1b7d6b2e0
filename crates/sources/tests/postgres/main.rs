//! Real PostgreSQL servers, backed up under load, damaged, stopped, brought back. One binary, so
//! that it links once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod common;
mod controls;
mod failures;
mod gate;
mod pages;
mod round_trip;
mod scattered;
