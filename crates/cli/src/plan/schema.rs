//! `muster plan schema`

use crate::{
    error::Outcome,
    exit::Exit,
    output::{Output, output_failure},
};

/// Arguments of `plan schema`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

const EXAMPLES: &str = "Editors that know YAML (VS Code, Neovim, JetBrains, …) then complete the \
plan and mark mistakes
while it is typed. Tell them where the schema is in the first line of the plan:

  # yaml-language-server: $schema=./muster.schema.json

Examples:
  muster plan schema > muster.schema.json";

/// Prints the schema; it is JSON with and without `--json`.
pub(crate) fn run(_args: &Args, output: &Output) -> Outcome {
    let mut results = output.results();
    let schema = muster_plan::schema();
    serde_json::to_writer_pretty(&mut results, &schema)
        .map_err(|error| output_failure(error.into()))?;
    results.text("\n")?;
    results.finish()?;
    Ok(Exit::Done)
}
