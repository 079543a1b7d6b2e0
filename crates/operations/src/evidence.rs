//! `muster evidence`: what was proven, handed to others and checked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use muster_ledger::{
    ExportOptions, Exported, LogVerified, Verified, VerifyOptions, evidence::Envelope,
    verify_bundle, verify_log,
};
use muster_model::DrillResult;

use crate::{
    error::OperationError,
    records::{BULK_KINDS, Record},
    state::State,
};

/// Entries that are numbered without gaps, and the field that holds the number: one that was
/// taken away shows.
pub const SEQUENCES: &[(&str, &str)] =
    &[("drill-started", "number"), ("recovery-started", "number")];

/// Exports everything that the ledger holds, signed, as one file.
///
/// # Errors
/// Fails when the ledger or the file cannot be written.
pub fn export(
    state: &State,
    to: &Path,
    attachments: &[(String, Vec<u8>)],
) -> Result<Exported, OperationError> {
    let options = ExportOptions {
        bulk_kinds: BULK_KINDS,
        attachments,
        ..ExportOptions::new(Timestamp::now())
    };
    state.ledger.export(to, &options).map_err(OperationError::below)
}

/// Checks a bundle with nothing but its bytes, a key to trust and an earlier checkpoint.
///
/// # Errors
/// Names the first thing that does not match.
pub fn verify(
    bundle: &Path,
    trust: Option<&Path>,
    since: Option<&Path>,
) -> Result<Verified, OperationError> {
    let bytes = fs::read(bundle).map_err(OperationError::io("read", bundle))?;
    let read = |path: Option<&Path>| {
        path.map(|path| fs::read_to_string(path).map_err(OperationError::io("read", path)))
            .transpose()
    };
    let (trust, since) = (read(trust)?, read(since)?);
    let options =
        VerifyOptions { trust: trust.as_deref(), since: since.as_deref(), sequences: SEQUENCES };
    verify_bundle(&bytes, &options).map_err(OperationError::below)
}

/// Checks the ledger itself: every leaf, node, checkpoint and attachment.
///
/// # Errors
/// Names the first thing that does not match.
pub fn verify_state(state: &State) -> Result<LogVerified, OperationError> {
    verify_log(&state.ledger).map_err(OperationError::below)
}

/// Compares what the ledger says of a drill with what was signed when it ended. A drill that
/// was cut off has no statement, and judges nothing.
///
/// # Errors
/// Fails when the statement is missing, not signed by this ledger, or says something else.
pub(crate) fn check_signed(state: &State, drill: &DrillResult) -> Result<(), OperationError> {
    let differs =
        |what: &str| OperationError::Tampered { what: format!("drill {}: {what}", drill.number) };
    let Some(evidence) = &drill.evidence else {
        return match drill.verdict.judges() {
            true => Err(differs("it judges, and nobody signed it")),
            false => Ok(()),
        };
    };
    let kept = state.ledger.attachment(&evidence.envelope_sha256).map_err(OperationError::below)?;
    let kept = kept.ok_or_else(|| differs("its signed statement is gone"))?;
    let statement = Envelope::from_bytes(&kept)
        .and_then(|envelope| envelope.verify_statement(state.ledger.verifier()))
        .map_err(|_| differs("its statement is not signed by this ledger's key"))?;
    let unsigned = DrillResult { evidence: None, ..drill.clone() };
    let said = serde_json::to_value(&unsigned).map_err(|_| differs("it cannot be compared"))?;
    match muster_ledger::canonical_json(&statement["predicate"])
        == muster_ledger::canonical_json(&said)
    {
        true => Ok(()),
        false => Err(differs("the log says something else than was signed")),
    }
}

/// Drills and recoveries that a verified bundle tells of.
#[must_use]
pub fn results(verified: &Verified) -> Vec<DrillResult> {
    let read = |entry: &muster_ledger::Entry| Record::read(&entry.kind, &entry.body);
    let entries = verified.entries.iter().filter_map(read);
    entries
        .filter_map(|record| match record {
            Record::DrillEnded(result) | Record::RecoveryEnded(result) => Some(*result),
            _ => None,
        })
        .collect()
}

/// Where the key lies that others need to trust this ledger's word.
#[must_use]
pub fn public_key(state: &State) -> PathBuf {
    state.dir.join("ledger.pub")
}
