//! `muster recover`

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::{ValueEnum, ValueHint};
use muster_model::{Disruption, Verdict, units::format_size};
use muster_operations::{
    recover::{self, RecoverRequest, RecoveryProposal},
    report::format::maybe_seconds,
};

use super::{blocked, heeding_signals, moment, moments, open, story};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, visible},
    workspace::PlanArgs,
};

/// Arguments of `recover`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// What happened: chooses the copies that can have survived, and the objective; without it
    /// every copy counts, against the objective for host-loss
    #[arg(long, value_name = "DISRUPTION")]
    disruption: Option<Disruption>,
    /// Only points at or before this time
    #[arg(long, value_name = "TIME", conflicts_with = "point")]
    at: Option<String>,
    /// This point
    #[arg(long, value_name = "ID")]
    point: Option<String>,
    /// The site: an empty folder of this machine [default: ./recovered/SERVICE beside the plan]
    #[arg(long, value_name = "SITE", value_hint = ValueHint::DirPath)]
    to: Option<PathBuf>,
    /// When it happened: the recovery time counts from then
    #[arg(long, value_name = "TIME")]
    impact_at: Option<String>,
    /// Approve: do not ask
    #[arg(long)]
    yes: bool,
    /// Show what would be done, and what stands in the way
    #[arg(long)]
    dry_run: bool,
    /// What became of a `run` step that was cut off: nothing but a look can tell
    #[arg(long, value_name = "OUTCOME")]
    cut_off: Option<CutOff>,
    /// Give up a recovery that was cut off: end what runs, remove the site
    #[arg(long, conflicts_with_all = ["dry_run", "at", "point", "to", "impact_at"])]
    abandon: bool,
}

/// What became of a program that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CutOff {
    /// It has done its work.
    Done,
    /// It has not: run it again.
    Again,
}

const EXAMPLES: &str = "Examples:
  muster recover orders --dry-run
  muster recover orders --disruption region-loss --to /srv/orders-new
  muster recover orders --at '2026-11-20 13:55' --impact-at '2026-11-20 14:02' --yes

The same runbook as in a drill, for real: what it starts keeps running. A recovery that was cut
off goes on when the command is given again. Exit code 0 when the service is back within its
objectives, 1 when not, 4 when something stands in the way, 5 when it is back and something (listed)
could not be judged.";

/// Recovers.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    if args.abandon {
        for deed in recover::abandon(&workspace, &args.service)? {
            output.line(visible(deed.as_bytes()))?;
        }
        return Ok(Exit::Done);
    }
    let request = RecoverRequest {
        service: args.service.clone(),
        disruption: args.disruption,
        at: moment(args.at.as_ref())?,
        point: args.point.clone(),
        site: args.to.clone(),
        impact: moment(args.impact_at.as_ref())?,
        cut_off: match args.cut_off {
            None => recover::CutOff::Unknown,
            Some(CutOff::Done) => recover::CutOff::Done,
            Some(CutOff::Again) => recover::CutOff::Again,
        },
    };
    let proposal = recover::propose(&workspace, &request)?;
    if args.dry_run {
        match output.is_json() {
            true => output.json(&proposal)?,
            false => tell(&proposal, output)?,
        }
        return Ok(blocked(&proposal.blockers));
    }
    if proposal.blockers.is_empty() {
        approve(args, &proposal, output)?;
    }
    let run = heeding_signals(&workspace)?;
    let teller = story::Teller::new(output);
    let result = recover::recover(&workspace, &request, proposal, &teller, &run)?;
    match output.is_json() {
        true => output.json(&result)?,
        false => story::tell(&result, false, output)?,
    }
    Ok(match result.verdict {
        Verdict::Pass => Exit::Done,
        // It is back; what could not be judged is listed.
        Verdict::Inconclusive => Exit::Partial,
        _ => Exit::Failed,
    })
}

/// A person approves: by the flag, or by typing the service's name.
fn approve(args: &Args, proposal: &RecoveryProposal, output: &Output) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || output.is_json() {
        return Err(Failure::usage("recover for real without an approval")
            .help("add --yes; --dry-run shows what would be done"));
    }
    tell(proposal, output)?;
    output.message(format_args!("type the service's name to begin:"));
    let mut typed = String::new();
    let read = io::stdin().read_line(&mut typed);
    read.map_err(|error| Failure::usage("read the approval").caused_by(&error))?;
    match typed.trim() == args.service {
        true => Ok(()),
        false => Err(Failure::usage("go on: it was not approved")),
    }
}

fn tell(proposal: &RecoveryProposal, output: &Output) -> Result<(), Failure> {
    let service = visible(proposal.service.as_bytes());
    match &proposal.resumes {
        Some(run) => output.line(format_args!("recovery of {service} would go on with {run}"))?,
        None => output.line(format_args!("recovery of {service} would"))?,
    }
    output.line(format_args!("  bring it up in {}", visible(proposal.site.as_bytes())))?;
    let moments = moments();
    for point in &proposal.points {
        output.line(format_args!(
            "  use {}: data of {}, {} from {}",
            visible(point.data.as_bytes()),
            moments.moment(point.data_time),
            point.bytes.map_or_else(|| "size unknown".to_owned(), format_size),
            point.repository
        ))?;
    }
    for step in &proposal.steps {
        output.line(format_args!("  {}", visible(step.as_bytes())))?;
    }
    output.line(format_args!(
        "  lose what is younger than: {}",
        maybe_seconds(proposal.data_age_s)
    ))?;
    for warning in &proposal.warnings {
        output.warning(visible(warning.as_bytes()));
    }
    for blocker in &proposal.blockers {
        output.line(format_args!(
            "  BLOCKED: {} ({})",
            visible(blocker.message.as_bytes()),
            blocker.help
        ))?;
    }
    Ok(())
}
