//! The verbs: where decisions meet hands.

pub mod calendar;
pub mod drill;
pub mod error;
mod facts;
mod hands;
mod markers;
pub mod moment;
mod pause;
pub mod points;
mod postgres;
mod process;
pub mod protect;
pub mod records;
mod run;
mod runtime;
mod secrets;
pub mod state;
mod stores;
pub mod story;
mod sweep;
pub mod workspace;
pub mod report;
