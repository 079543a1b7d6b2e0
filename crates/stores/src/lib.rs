//! Remote stores, behind the engine's blocking [`Storage`] trait.
//!
//! [`open`] turns a [`Location`] into a store that is ready for use: the client of its kind
//! (S3, Azure, Google Cloud, SFTP, restic's REST protocol, a folder), wrapped in [`Patient`],
//! which tries again what may pass, bounds connections and counts. Bandwidth is limited where
//! bytes flow.
//!
//! A store may hide a runtime (`bridge.rs`), and none of it shows: no type of this crate's API is
//! asynchronous. It knows nothing of plans, and asks nobody for a password.
//!
//! **Invariant**: no error and no location holds a secret; nothing waits for ever.

mod answer;
pub mod backoff;
mod bridge;
pub mod bucket;
mod clouds;
mod connections;
mod error;
#[cfg(test)]
mod fuzz_seeds;
mod gate;
mod http;
pub mod lanes;
pub mod meter;
mod object;
mod open;
mod options;
mod outflow;
mod pace;
mod patient;
mod rest;
mod s3;
mod sftp;
mod stop;
mod variables;

pub use error::StoreError;
pub use open::{Settings, open};
pub use options::{OPTIONS, Options};
pub use pace::{Limits, Statistics};
pub use patient::{Patient, Surroundings};
pub use variables::{VARIABLES, Variables};

#[cfg(doc)]
use muster_model::Location;
#[cfg(doc)]
use muster_repository::storage::Storage;
