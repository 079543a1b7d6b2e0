//! The whole command line: the real binary, run in scratch folders.
//!
//! Every test looks at the three things that others build on: the exit code, standard output,
//! and standard error.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test as tests do")]

mod backup;
mod check;
mod clock;
mod cold;
mod demo;
mod demo_service;
mod full_disk;
mod immutable;
mod init;
mod interrupt;
mod kill;
mod lifetime;
mod losses;
mod memory;
mod mend;
mod metadata;
mod mount;
mod newcomer;
mod passwords;
mod plan;
mod planned;
mod reading;
mod repository;
mod restore;
mod retention;
mod rotation;
mod sandbox;
mod stalled;
mod state;
mod stores;
mod together;
mod usage;
mod verbs;
mod year;
