//! The evidence: what a drill found, signed, kept, and named by an entry of the log.

use muster_ledger::{
    Ledger,
    evidence::{DRILL_PREDICATE, TestResult, statement, test_result},
};
use muster_model::{
    DrillResult, Verdict,
    drill::{EvidenceRef, NegativeControl},
};
use sha2::{Digest as _, Sha256};

use crate::{error::OperationError, records::Record, workspace::Workspace};

/// Signs a result, appends it to the log, signs the log, and returns the result with the place
/// of its evidence.
///
/// # Errors
/// Fails when the ledger cannot be written.
pub(crate) fn seal(
    workspace: &Workspace,
    mut result: DrillResult,
    entry: impl FnOnce(Box<DrillResult>) -> Record,
) -> Result<DrillResult, OperationError> {
    let predicate = serde_json::to_value(&result).map_err(|error| OperationError::Bug {
        what: format!("a result cannot be written as JSON: {error}"),
    })?;
    let journal = journal_digest(workspace, &result.drill)?;
    let mut subjects =
        vec![("plan".to_owned(), result.plan_revision.clone()), ("journal".to_owned(), journal)];
    let points = result.points.iter();
    subjects.extend(points.map(|p| (format!("{}/{}", p.repository, p.data), p.snapshot.clone())));
    let subjects: Vec<(&str, &str)> =
        subjects.iter().map(|(name, digest)| (name.as_str(), digest.as_str())).collect();
    let ledger = &workspace.state.ledger;
    let ours = statement(&subjects, DRILL_PREDICATE, &predicate);
    let envelope = keep(ledger, &ours)?;
    let standard = keep(ledger, &as_test_result(&subjects, &result))?;
    result.evidence = Some(EvidenceRef {
        log_index: None,
        envelope_sha256: envelope,
        test_result: Some(muster_model::drill::TestResultRef { envelope_sha256: standard }),
    });
    let index = workspace.state.record(&entry(Box::new(result.clone())))?;
    ledger.checkpoint().map_err(OperationError::below)?;
    if let Some(evidence) = &mut result.evidence {
        evidence.log_index = Some(index);
    }
    Ok(result)
}

/// Signs a statement and keeps the envelope; returns the envelope's SHA-256.
fn keep(ledger: &Ledger, statement: &serde_json::Value) -> Result<String, OperationError> {
    let envelope = ledger.seal(statement).map_err(OperationError::below)?;
    ledger.attach("envelope", &envelope.to_bytes()).map_err(OperationError::below)
}

/// SHA-256 over the journal of a run, line by line as canonical JSON.
fn journal_digest(workspace: &Workspace, run: &str) -> Result<String, OperationError> {
    let mut digest = Sha256::new();
    for logged in workspace.state.history(&["journal"])? {
        if let Record::Journal(line) = &logged.record
            && line.run == run
            && let Ok(value) = serde_json::to_value(line)
        {
            digest.update(muster_ledger::canonical_json(&value));
            digest.update(b"\n");
        }
    }
    let bytes = digest.finalize();
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The standard statement about tests, for policy engines that know nothing of drills.
fn as_test_result(subjects: &[(&str, &str)], result: &DrillResult) -> serde_json::Value {
    let (mut passed, mut warned, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let mut sort = |name: String, ok: Option<bool>| match ok {
        Some(true) => passed.push(name),
        Some(false) => failed.push(name),
        None => warned.push(name),
    };
    for probe in &result.probes {
        sort(format!("probe {}", probe.name), Some(probe.first_green_s.is_some()));
    }
    for rule in &result.completeness {
        sort(format!("{} of {}", rule.name, rule.data), rule.ok);
    }
    for control in &result.negative_controls {
        sort(control_name(control), Some(control.ok));
    }
    for proof in result.isolation.iter().chain(&result.cleanup) {
        sort(proof.name.clone(), Some(proof.ok));
    }
    let outcome = match result.verdict {
        Verdict::Pass => TestResult::Passed,
        Verdict::Inconclusive | Verdict::Skipped => TestResult::Warned,
        _ => TestResult::Failed,
    };
    fn texts(names: &[String]) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }
    let configuration = [("plan", result.plan_revision.as_str())];
    let (passed, warned, failed) = (texts(&passed), texts(&warned), texts(&failed));
    test_result(subjects, outcome, &configuration, &passed, &warned, &failed)
}

fn control_name(control: &NegativeControl) -> String {
    format!("{} red against {}", control.probe, control.against)
}
