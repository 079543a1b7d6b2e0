//! `muster repo unlock`

use muster_repository::lock;
use serde_json::json;

use super::counted;
use crate::{app::App, error::Outcome, exit::Exit};

/// Arguments of `unlock`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Remove the locks of living processes too; sure only when nothing works in the repository
    #[arg(long)]
    remove_all: bool,
}

const EXAMPLES: &str = "A lock counts as left behind when its process is gone (on this host) or \
has not refreshed it for 30 minutes.

Examples:
  muster repo -r /backup/repo unlock";

/// Removes locks.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let removed = match args.remove_all {
        true => lock::remove_all(&repository)?,
        false => lock::remove_stale(&repository, &app.environment)?,
    };
    if app.output.is_json() {
        app.output.json(&json!({"message_type": "unlocked", "locks_removed": removed}))?;
        return Ok(Exit::Done);
    }
    app.output.summary(format_args!("removed {}", counted(removed, "lock")))?;
    if !args.remove_all {
        for held in lock::held(&repository, &app.environment)? {
            app.output.warning(format_args!("still locked {held}"));
        }
    }
    Ok(Exit::Done)
}
