//! What happened, in a log that can only grow, and proof of it for those who trust nobody.
//!
//! A [`Ledger`] is a folder with an SQLite database and a signing key. Whatever Muster does is
//! appended as an [`Entry`]: a kind, a time and a JSON body, of which this crate understands
//! nothing. The entries are the leaves of a Merkle tree ([`merkle`]), and a [`Checkpoint`] is
//! its signed root: three lines that, kept by somebody else, show any later rewriting of what
//! was before. An [`evidence`] statement, sealed in an envelope, says what a drill found in a
//! form that other tools read. [`Ledger::export`] writes all of it as one file, and
//! [`verify_bundle`] tells, offline and from its bytes alone, the first thing in it that does
//! not match. [`verify_log`] does so for the folder itself.
//!
//! A drill is not in the log when it has ended well, but when it begins; numbers without gaps
//! ([`Ledger::append_numbered`]) and counts in every bundle make what was left out visible.
//!
//! ```
//! use muster_ledger::evidence::{self, DRILL_PREDICATE};
//! use muster_ledger::{ExportOptions, Ledger, VerifyOptions, verify_bundle};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = muster_testkit::Scratch::new("ledger")?;
//! # let folder = scratch.path();
//! # let at: jiff::Timestamp = "2026-11-20T16:00:00Z".parse()?;
//! let ledger = Ledger::open(&folder.join("state"))?;
//! let (_, drill) = ledger.append_numbered("drill-started", "drill", at, &json!({}))?;
//!
//! // The envelope first, then the entry that names it, then the checkpoint.
//! let plan = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
//! let found = json!({"drill": drill, "verdict": "pass"});
//! let statement = evidence::statement(&[("muster.yaml", plan)], DRILL_PREDICATE, &found);
//! let sha256 = ledger.attach("drill", &ledger.seal(&statement)?.to_bytes())?;
//! ledger.append("drill-sealed", at, &json!({"drill": drill, "envelope_sha256": sha256}))?;
//! let kept = ledger.checkpoint()?.note; // send it where this machine cannot change it
//!
//! // Whoever gets the bundle trusts a key that came on another way.
//! let trust = ledger.verifier().to_string();
//! let exported = ledger.export(&folder.join("bundle.tar"), &ExportOptions::new(at))?;
//! let options = VerifyOptions { trust: Some(&trust), since: Some(&kept), ..Default::default() };
//! let verified = verify_bundle(&std::fs::read(exported.path)?, &options)?;
//! assert_eq!((verified.trusted, verified.consistent_since), (true, Some(2)));
//! assert_eq!(verified.envelopes[0].statement["predicate"]["verdict"], "pass");
//! # Ok(())
//! # }
//! ```
//!
//! The formats, and what each of them protects against, stand in `docs/formats/evidence.md`.
//!
//! **Invariant**: an append that returned is on the disk and is never changed; nothing is signed
//! that does not continue what was signed before; this crate knows no kind of entry but the one
//! that an export records, and reads no clock.

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
