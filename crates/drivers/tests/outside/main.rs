//! The outside world for real: servers, databases, processes that do not want to end. One binary,
//! so that it links once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod databases;
mod http;
mod isolation;
mod lifecycle;
mod parts;
mod postgres;
mod probes;
mod watching;
