//! `muster plan`: what the plan says, what is wrong with it, what changed.
//!
//! These verbs only read. They work on a checkout that nobody may write to, and make no state:
//! where there is one, what was measured is read from it.

mod check;
mod diff;
mod numbers;
mod runbook;
mod schema;
mod show;
mod snippet;

use std::path::Path;

use clap::Subcommand;
use muster_operations::{error::OperationError, workspace};
use muster_plan::Plan;

use crate::{
    error::{Failure, Outcome},
    output::Output,
    workspace::PlanArgs,
};

/// Arguments of `muster plan`.
#[derive(Debug, clap::Args)]
#[command(disable_help_subcommand = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "Examples:
  muster init                             write a plan to begin with
  muster plan check                       what is wrong with it, line by line
  muster plan show orders                 what it promises, and what would be lost at worst
  muster plan diff old.yaml --strict      1 when something protects less than before";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what is wrong or weak in the plan, with its lines
    Check(check::Args),
    /// Spell out what the plan promises, and whether the figures add up
    Show(show::Args),
    /// Print the JSON Schema of a plan, for editors
    Schema(schema::Args),
    /// Compare two plans by meaning, and mark what weakens protection
    Diff(diff::Args),
}

/// Runs a verb.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    match &args.verb {
        Verb::Check(args) => check::run(args, plan, output),
        Verb::Show(args) => show::run(args, plan, output),
        Verb::Schema(args) => schema::run(args, output),
        Verb::Diff(args) => diff::run(args, plan, output),
    }
}

/// A plan whose text is without errors, so that every name in it leads somewhere.
fn sound_plan(path: &Path) -> Result<Plan, Failure> {
    let workspace::ReadPlan { path, parsed, .. } = workspace::read_plan(path)?;
    let is_sound = parsed.is_sound();
    match parsed.plan {
        Some(plan) if is_sound => Ok(plan),
        _ => Err(OperationError::PlanInvalid { path, findings: parsed.findings }.into()),
    }
}
