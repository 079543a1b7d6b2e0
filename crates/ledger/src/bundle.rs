//! Bundles: a log as a file that anybody can verify without the ledger, offline.
//!
//! Everything in a bundle follows from what the last entry says and the signed root over it:
//! which members there are, what each hashes to, which kinds were left out and how many entries
//! of each kind there were. So whoever has the trusted key can change nothing unnoticed, and
//! whoever has the bundle only can still tell that it is all of one piece.

mod contents;
mod export;
mod lines;
mod verify;
mod verify_log;

pub use export::{ExportOptions, Exported};
pub use verify::{Verified, VerifiedEnvelope, VerifyOptions, verify_bundle};
pub use verify_log::{LogError, LogVerified, verify_log};
