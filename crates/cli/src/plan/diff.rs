//! `muster plan diff`

use std::path::PathBuf;

use clap::ValueHint;
use muster_plan::Change;
use serde::Serialize;

use super::{numbers::counted, sound_plan};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, visible, visible_path},
    workspace::PlanArgs,
};

/// Arguments of `plan diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The plan as it was
    #[arg(value_name = "OLD", value_hint = ValueHint::FilePath)]
    old: PathBuf,
    /// The plan as it is [default: that of --plan]
    #[arg(value_name = "NEW", value_hint = ValueHint::FilePath)]
    new: Option<PathBuf>,
    /// Exit with 1 when something protects less than before
    #[arg(long)]
    strict: bool,
}

const EXAMPLES: &str = "Plans are compared by what they mean: a lower tier shows the objectives \
that it takes away. What
is promised, protected, proven or told less than before is marked as weaker.

Examples:
  muster plan diff yesterday.yaml
  git show main:muster.yaml > main.yaml && muster plan diff main.yaml --strict";

/// As `--json` prints it.
#[derive(Debug, Serialize)]
struct Compared<'a> {
    weaker: bool,
    changes: &'a [Change],
}

/// Compares two plans.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let new = args.new.clone().unwrap_or_else(|| plan.plan_path());
    let changes = muster_plan::diff(&sound_plan(&args.old)?, &sound_plan(&new)?);
    let weaker = changes.iter().any(|change| change.weakens);
    match output.is_json() {
        true => output.json(&Compared { weaker, changes: &changes })?,
        false => print(&changes, &visible_path(&new), output)?,
    }
    Ok(if args.strict && weaker { Exit::Failed } else { Exit::Done })
}

fn print(changes: &[Change], name: &str, output: &Output) -> Result<(), Failure> {
    let mut results = output.results();
    let changes = folded(changes);
    let weaker = changes.iter().filter(|change| change.weakens).count();
    for change in &changes {
        results.line(line(change, output))?;
    }
    if !output.is_quiet() {
        let blank = if changes.is_empty() { "" } else { "\n" };
        results.line(format_args!("{blank}{}", summary(changes.len(), weaker, name)))?;
    }
    results.finish()
}

/// The changes without the parts of what came or went as a whole.
fn folded(changes: &[Change]) -> Vec<&Change> {
    let mut kept: Vec<&Change> = Vec::new();
    for change in changes {
        let is_part = kept.iter().any(|whole| {
            let below = change.path.strip_prefix(&whole.path);
            below.is_some_and(|rest| rest.starts_with('.'))
                && (whole.before.is_none(), whole.after.is_none())
                    == (change.before.is_none(), change.after.is_none())
                && (whole.before.is_none() || whole.after.is_none())
                && (whole.weakens || !change.weakens)
        });
        if !is_part {
            kept.push(change);
        }
    }
    kept
}

fn line(change: &Change, output: &Output) -> String {
    let (word, value) = match (&change.before, &change.after) {
        (None, Some(after)) => ("added", visible(after.as_bytes())),
        (Some(before), None) => ("removed", visible(before.as_bytes())),
        (before, after) => {
            let text = |side: &Option<String>| visible(side.as_deref().unwrap_or("-").as_bytes());
            ("changed", format!("{} → {}", text(before), text(after)))
        }
    };
    let mark = match change.weakens {
        true => output.styled("weaker", "1;31"),
        false => "      ".to_owned(),
    };
    let path = output.styled(&visible(change.path.as_bytes()), "1");
    format!("{mark}  {word:<7}  {path}: {value}")
}

fn summary(changes: usize, weaker: usize, name: &str) -> String {
    match (changes, weaker) {
        (0, _) => format!("{name}: no changes"),
        (_, 0) => format!("{}, none weakens protection", counted(changes, "change")),
        (_, 1) => format!("{}, 1 weakens protection", counted(changes, "change")),
        _ => format!("{}, {weaker} weaken protection", counted(changes, "change")),
    }
}
