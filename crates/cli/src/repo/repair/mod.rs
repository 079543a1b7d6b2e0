//! `muster repo repair`: mends a damaged repository with what is left in it.
//!
//! One module a step. Each shows what it will do, and does it unless `--dry-run`.

mod index;
mod packs;
mod snapshots;

use clap::Subcommand;

use crate::{app::App, error::Outcome};

/// What to repair.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Verb {
    /// Make the index say what packs there really are
    Index(index::Args),
    /// Take damaged packs out, and what is sound in them into new ones
    Packs(packs::Args),
    /// Write snapshots anew without what they have lost
    Snapshots(snapshots::Args),
}

const EXAMPLES: &str = "First copy the repository elsewhere, if you can. Then, in this order:
  muster repo check --read-data            # which packs are damaged
  muster repo repair packs ID…             # these
  muster repo repair index
  muster repo backup --kind full …         # stores again what is still at its source
  muster repo repair snapshots
  muster repo check --read-data";

/// Runs a step.
pub(crate) fn run(verb: &Verb, app: &App<'_>) -> Outcome {
    match verb {
        Verb::Index(args) => index::run(args, app),
        Verb::Packs(args) => packs::run(args, app),
        Verb::Snapshots(args) => snapshots::run(args, app),
    }
}
