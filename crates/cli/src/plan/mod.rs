//! `muster plan`: what the plan says, what is wrong with it, what changed.
//!
//! These verbs only read. They work on a checkout that nobody may write to, and make no state:
//! where there is one, what was measured is read from it.

mod schema;

use clap::Subcommand;

use crate::{error::Outcome, output::Output, workspace::PlanArgs};

/// Arguments of `muster plan`.
#[derive(Debug, clap::Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the JSON Schema of a plan, for editors
    Schema(schema::Args),
}

/// Runs a verb.
pub(crate) fn run(args: &Args, _plan: &PlanArgs, output: &Output) -> Outcome {
    match &args.verb {
        Verb::Schema(args) => schema::run(args, output),
    }
}
