//! `muster repo key list`

use crate::{app::App, error::Outcome, exit::Exit};

/// Arguments of `key list`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

const EXAMPLES: &str = "The key that the given password opens is marked with '*'.

Examples:
  muster repo key list";

/// Lists keys.
pub(crate) fn run(_args: &Args, _app: &App) -> Outcome {
    Ok(Exit::Done)
}
