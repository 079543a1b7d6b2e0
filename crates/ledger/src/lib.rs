//! What happened: append-only, Merkle-chained, signed.

mod archive;
mod bundle;
mod canonical;
mod checkpoint;
mod entry;
mod error;
pub mod evidence;
mod files;
mod ledger;
pub mod merkle;
mod mismatch;
pub mod note;
mod store;
mod tree;

pub use bundle::{
    ExportOptions, Exported, LogError, LogVerified, Verified, VerifiedEnvelope, VerifyOptions,
    verify_bundle, verify_log,
};
pub use canonical::encode as canonical_json;
pub use checkpoint::{Checkpoint, SignedCheckpoint};
pub use entry::{Entry, Filter};
pub use error::LedgerError;
pub use ledger::{Appended, Ledger, NewEntry};
pub use merkle::Hash;
pub use mismatch::Mismatch;
pub use note::{SignerKey, VerifierKey};
