//! `muster init`: a plan to begin with.

use std::{fs::OpenOptions, io::Write as _};

use muster_plan::{Detected, starter};

use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::Output,
    workspace::PlanArgs,
};

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Writes a plan.
pub(crate) fn run(_args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let path = plan.plan_path();
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let written =
        file.and_then(|mut file| file.write_all(starter(&Detected::default()).as_bytes()));
    written.map_err(|error| Failure::usage("write the plan").caused_by(&error))?;
    output.summary(format_args!("wrote {}", path.display()))?;
    Ok(Exit::Done)
}
