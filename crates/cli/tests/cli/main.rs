//! The whole command line: the real binary, run in scratch folders.
//!
//! Every test looks at the three things that others build on: the exit code, standard output,
//! and standard error.

mod backup;
mod check;
mod interrupt;
mod passwords;
mod reading;
mod repository;
mod restore;
mod sandbox;
mod usage;
