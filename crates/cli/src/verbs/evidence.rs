//! `muster evidence`

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use muster_ledger::Verified;
use muster_model::{DrillResult, units::counted};
use muster_operations::{
    evidence,
    report::format::{against, short},
    state::State,
    status,
};
use serde::Serialize;

use super::{moments, open};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, table, visible, visible_path},
    workspace::PlanArgs,
};

/// Arguments of `evidence`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List drills with the place of their evidence
    List,
    /// Print the signed statement of a drill
    Show {
        /// The drill's id, or its number
        drill: String,
    },
    /// Write everything that happened, signed, as one file for others to check
    #[command(
        after_help = "Examples:\n  muster evidence export -o evidence.tar\n\nGive the public \
                            key (.muster/ledger.pub) to those who check, on another way."
    )]
    Export {
        /// The file
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: PathBuf,
    },
    /// Check signatures and the chain, offline; without BUNDLE, of the state here
    #[command(after_help = "Examples:
  muster evidence verify evidence.tar --trust ledger.pub
  muster evidence verify evidence.tar --trust ledger.pub --since last-years-checkpoint

Exit code 0 when everything matches, 3 when something does not; the first that does not is named.
Against somebody who holds the signing key only an earlier checkpoint helps: keep one elsewhere.")]
    Verify {
        /// The bundle
        #[arg(value_hint = ValueHint::FilePath)]
        bundle: Option<PathBuf>,
        /// The public key that is trusted; without it integrity is checked, and not origin
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        trust: Option<PathBuf>,
        /// An earlier checkpoint: the log must continue it
        #[arg(long, value_name = "CHECKPOINT", value_hint = ValueHint::FilePath)]
        since: Option<PathBuf>,
    },
}

/// Runs a verb.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    match &args.verb {
        Verb::List => list(plan, output),
        Verb::Show { drill } => show(drill, plan, output),
        Verb::Export { output: to } => export(to, plan, output),
        Verb::Verify { bundle: Some(bundle), trust, since } => {
            let verified = evidence::verify(bundle, trust.as_deref(), since.as_deref())?;
            tell_verified(&verified, output)
        }
        Verb::Verify { bundle: None, trust: None, since: None } => verify_state(plan, output),
        Verb::Verify { bundle: None, .. } => {
            Err(Failure::usage("compare the ledger here with a key or a checkpoint")
                .help("export a bundle, and verify that: muster evidence export -o evidence.tar"))
        }
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    drill: &'a str,
    number: u64,
    service: &'a str,
    disruption: muster_model::Disruption,
    verdict: muster_model::Verdict,
    ended: jiff::Timestamp,
    evidence: Option<&'a muster_model::drill::EvidenceRef>,
}

fn list(plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    let drills = status::drills(&workspace)?;
    if output.is_json() {
        let listed: Vec<Listed<'_>> = drills.iter().map(listed).collect();
        output.json(&serde_json::json!({ "evidence": listed }))?;
        return Ok(Exit::Done);
    }
    if drills.is_empty() {
        output.line("no drill has ended yet: `muster drill run` holds one")?;
        return Ok(Exit::Done);
    }
    let moments = moments();
    let mut table =
        table(&["No.", "Drill", "Ended", "Service", "Disruption", "Verdict", "Envelope"]);
    for drill in &drills {
        let envelope = drill.evidence.as_ref().map(|evidence| short(&evidence.envelope_sha256));
        table.add_row([
            drill.number.to_string(),
            drill.drill.clone(),
            moments.moment(drill.ended),
            visible(drill.service.as_bytes()),
            drill.disruption.to_string(),
            drill.verdict.to_string(),
            envelope.unwrap_or_else(|| "none: it was cut off".to_owned()),
        ]);
    }
    output.line(table)?;
    Ok(Exit::Done)
}

fn listed(drill: &DrillResult) -> Listed<'_> {
    Listed {
        drill: &drill.drill,
        number: drill.number,
        service: &drill.service,
        disruption: drill.disruption,
        verdict: drill.verdict,
        ended: drill.ended,
        evidence: drill.evidence.as_ref(),
    }
}

/// Prints the envelope, which holds the statement and its signature.
fn show(wanted: &str, plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    let drills = status::drills(&workspace)?;
    let drill = super::drill::find(&drills, wanted)?;
    let envelope = match &drill.evidence {
        Some(evidence) => workspace.state.ledger.attachment(&evidence.envelope_sha256)?,
        None => None,
    };
    let envelope = envelope.ok_or_else(|| {
        Failure::new(crate::error::Problem::NotFound, format!("show evidence of {wanted}"))
            .help("a drill that was cut off has none; `muster evidence list` shows which have")
    })?;
    output.line(String::from_utf8_lossy(&envelope))?;
    Ok(Exit::Done)
}

fn export(to: &std::path::Path, plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    let exported = evidence::export(&workspace.state, to, &[])?;
    let key = evidence::public_key(&workspace.state);
    if output.is_json() {
        output.json(&serde_json::json!({
            "path": exported.path, "sha256": exported.sha256.to_string(), "bytes": exported.bytes,
            "log_size": exported.checkpoint.checkpoint.size, "key": key,
        }))?;
        return Ok(Exit::Done);
    }
    let size = exported.checkpoint.checkpoint.size;
    output.line(format_args!("{} in {}", counted(size, "entry"), visible_path(&exported.path)))?;
    output.line(format_args!("sha256 {}", exported.sha256))?;
    output.message(format_args!(
        "to check it: muster evidence verify {} --trust {}",
        visible_path(&exported.path),
        visible_path(&key)
    ));
    Ok(Exit::Done)
}

fn verify_state(plan: &PlanArgs, output: &Output) -> Outcome {
    let state = State::open(&plan.state_path())?;
    let verified = evidence::verify_state(&state)?;
    match output.is_json() {
        true => output.json(&serde_json::json!({
            "ok": true, "size": verified.size, "root": verified.root.to_string(),
            "checkpoints": verified.checkpoints,
        }))?,
        false => {
            output.line("integrity only: the ledger is what its own key signed")?;
            output.line(format_args!(
                "everything matches: {}, {}",
                counted(verified.size, "entry"),
                counted(verified.checkpoints, "checkpoint")
            ))?;
        }
    }
    Ok(Exit::Done)
}

fn tell_verified(verified: &Verified, output: &Output) -> Outcome {
    let results = evidence::results(verified);
    if output.is_json() {
        output.json(&serde_json::json!({
            "ok": true, "trusted": verified.trusted, "origin": verified.origin,
            "size": verified.size, "root": verified.root.to_string(), "elided": verified.elided,
            "consistent_since": verified.consistent_since, "results": results,
        }))?;
        return Ok(Exit::Done);
    }
    output.line(match verified.trusted {
        true => "integrity and origin: everything matches, signed by the key that you trust",
        false => "integrity only: everything matches, but nobody says whose key this is (--trust)",
    })?;
    output.line(format_args!(
        "log     {} of {}",
        counted(verified.size, "entry"),
        visible(verified.origin.as_bytes())
    ))?;
    if let Some(size) = verified.consistent_since {
        let entries = counted(size, "entry");
        output.line(format_args!("since   it continues the checkpoint of {entries}"))?;
    }
    let moments = moments();
    for result in &results {
        output.line(format_args!(
            "{}  {} {}: {}, recovery time {}, loss {}",
            moments.moment(result.ended),
            visible(result.service.as_bytes()),
            result.disruption,
            result.verdict,
            against(result.recovery_time.actual_s, result.recovery_time.objective_s),
            against(result.recovery_point.actual_s_max, result.recovery_point.objective_s),
        ))?;
    }
    Ok(Exit::Done)
}
