//! `muster gate`

use std::time::Duration;

use muster_control::matrix::Gate;
use muster_model::units::parse_duration;
use muster_operations::status;

use super::{
    open,
    status::{print, warn_of_verification},
};
use crate::{error::Outcome, exit::Exit, output::Output, workspace::PlanArgs};

/// Arguments of `gate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Proof older than this does not count; only tightens what tiers say
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_age: Option<Duration>,
}

const EXAMPLES: &str = "Examples:
  muster gate                     in CI, before a deployment
  muster gate orders --max-age 30d

Exit code 0 when every objective is proven, 1 when one is failing, 6 when a proof is stale or
was never made, 7 when it could not be told. An objective is failing, too, when reading back found
damage in all points that would survive. Repositories that cannot be read are named.";

/// Decides.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    let report = status::gate_report(&workspace, &args.services, args.max_age)?;
    for unread in &report.unread {
        output.warning(unread);
    }
    warn_of_verification(&report.verification, output);
    match output.is_json() {
        true => output.json(&report)?,
        false => {
            output.line(&report.sentence)?;
            if !report.because.is_empty() {
                output.line("")?;
                print(&report.because, output)?;
            }
        }
    }
    Ok(match report.gate {
        Gate::Open => Exit::Done,
        Gate::Failing => Exit::Failed,
        Gate::Unproven => Exit::Unproven,
        Gate::Unknown => Exit::Unknown,
    })
}
