//! Probes and processes: what observes and acts on the outside world.
pub mod isolation;
pub mod probe;
pub mod process;
mod text;
pub mod watch;
