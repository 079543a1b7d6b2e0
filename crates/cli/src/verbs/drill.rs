//! `muster drill`

use clap::Subcommand;
use jiff::Timestamp;
use muster_model::{Disruption, DrillResult, Verdict, units::format_size};
use muster_operations::{
    drill::{self, DrillProposal, DrillRequest, MARKING},
    report::format::{against, age, maybe_seconds},
    status,
    workspace::Workspace,
};
use muster_repository::run::Run;

use super::{blocked, heeding_signals, moment, moments, open, seconds_since, story};
use crate::{
    error::{Failure, Outcome, Problem},
    exit::Exit,
    output::{Output, table, visible},
    workspace::PlanArgs,
};

/// Arguments of `drill`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Recover in isolation, measure, judge, sign
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// List drills: what is due, what was held
    List,
    /// Show one drill
    Show {
        /// The drill's id, or its number
        drill: String,
    },
}

const RUN_EXAMPLES: &str = "Examples:
  muster drill run orders                              every disruption the plan's drills name
  muster drill run orders --disruption region-loss
  muster drill run orders --dry-run                    steps, points, blockers; does nothing
  muster drill run --all

Production is read, and markers are written into it; nothing else. Exit code 0 when every drill
passed, 1 when one failed or could not be judged, 4 when one was refused, 3 when one was refused
because what it needs is damaged; of several drills the worst decides.";

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Services
    #[arg(value_name = "SERVICE", required_unless_present = "all")]
    services: Vec<String>,
    /// Everything that the plan's `drills` name
    #[arg(long, conflicts_with = "services")]
    all: bool,
    /// What is rehearsed [default: what the plan's drills of the service name, or host-loss]
    #[arg(long, value_name = "DISRUPTION")]
    disruption: Option<Disruption>,
    /// Show what would be done, and what stands in the way
    #[arg(long)]
    dry_run: bool,
    /// Only points at or before this time
    #[arg(long, value_name = "TIME", conflicts_with = "point")]
    at: Option<String>,
    /// This point
    #[arg(long, value_name = "ID")]
    point: Option<String>,
}

/// Runs a verb.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    match &args.verb {
        Verb::Run(args) => run_drills(args, &workspace, output),
        Verb::List => list(&workspace, output),
        Verb::Show { drill } => show(drill, &workspace, output),
    }
}

fn run_drills(args: &RunArgs, workspace: &Workspace, output: &Output) -> Outcome {
    let requests = requests(args, workspace)?;
    if args.dry_run {
        return dry_run(&requests, workspace, output);
    }
    let run = heeding_signals(workspace)?;
    let mut exit = Exit::Done;
    for request in &requests {
        exit = exit.and(run_one(request, workspace, &run, output)?);
        if run.cancel.is_requested() {
            return Ok(Exit::Interrupted);
        }
    }
    Ok(exit)
}

fn run_one(
    request: &DrillRequest,
    workspace: &Workspace,
    run: &Run,
    output: &Output,
) -> Result<Exit, Failure> {
    let result = match drill::run(workspace, request, &story::Teller::new(output), run) {
        Ok(result) => result,
        // With several drills one that is refused must not keep the others from being held.
        Err(error) => return Ok(output.failure(&Failure::of(&error))),
    };
    match output.is_json() {
        true => output.json(&result)?,
        false => story::tell(&result, true, output)?,
    }
    Ok(match result.verdict {
        Verdict::Pass => Exit::Done,
        Verdict::Aborted => Exit::Interrupted,
        _ => Exit::Failed,
    })
}

fn requests(args: &RunArgs, workspace: &Workspace) -> Result<Vec<DrillRequest>, Failure> {
    let at = moment(args.at.as_ref())?;
    let request = |service: &str, disruption| DrillRequest {
        service: service.to_owned(),
        disruption,
        at,
        point: args.point.clone(),
        marking: MARKING,
    };
    let planned = || workspace.plan.drills.iter();
    if args.all {
        let all: Vec<DrillRequest> =
            planned().map(|drill| request(&drill.service, drill.disruption)).collect();
        return match all.is_empty() {
            true => Err(Failure::usage("hold all drills: the plan has none")
                .help("add `drills:` to the plan, or name a service")),
            false => Ok(all),
        };
    }
    let mut requests = Vec::new();
    for name in &args.services {
        workspace.service(name)?;
        let of_service: Vec<Disruption> = match args.disruption {
            Some(disruption) => vec![disruption],
            None => planned().filter(|d| d.service == *name).map(|d| d.disruption).collect(),
        };
        match of_service.is_empty() {
            true => requests.push(request(name, Disruption::HostLoss)),
            false => requests.extend(of_service.into_iter().map(|d| request(name, d))),
        }
    }
    Ok(requests)
}

fn dry_run(requests: &[DrillRequest], workspace: &Workspace, output: &Output) -> Outcome {
    let mut proposals = Vec::new();
    for request in requests {
        proposals.push(drill::propose(workspace, request)?);
    }
    match output.is_json() {
        true => output.json(&serde_json::json!({ "proposals": proposals }))?,
        false => {
            for proposal in &proposals {
                tell_proposal(proposal, output)?;
            }
        }
    }
    let exits = proposals.iter().map(|proposal| blocked(&proposal.blockers));
    Ok(exits.fold(Exit::Done, Exit::and))
}

fn tell_proposal(proposal: &DrillProposal, output: &Output) -> Result<(), Failure> {
    let service = visible(proposal.service.as_bytes());
    output.line(format_args!("drill of {service} for {} would", proposal.disruption))?;
    output.line(format_args!("  write into production: {}", proposal.writes_to_production))?;
    output.line(format_args!("  make a target in {}", visible(proposal.target.as_bytes())))?;
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
    match proposal.probes.as_slice() {
        [] => output.line("  ask no probe: nothing would say that the service is back")?,
        probes => output.line(format_args!("  ask the probes {}", probes.join(", ")))?,
    }
    output.line(format_args!("  lose now: {}", maybe_seconds(proposal.data_age_s)))?;
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

fn list(workspace: &Workspace, output: &Output) -> Outcome {
    let drills = status::drills(workspace)?;
    let appointments = status::appointments(workspace)?;
    if output.is_json() {
        output.json(&serde_json::json!({ "drills": drills, "appointments": appointments }))?;
        return Ok(Exit::Done);
    }
    let (now, moments) = (Timestamp::now(), moments());
    if !appointments.is_empty() {
        let mut table = table(&["Due", "", "Service", "Disruption", "State"]);
        for appointment in &appointments {
            let distance = match appointment.due > now {
                true => format!("in {}", age(seconds_since(now, appointment.due))),
                false => format!("{} ago", age(seconds_since(appointment.due, now))),
            };
            table.add_row([
                moments.moment(appointment.due),
                distance,
                visible(appointment.service.as_bytes()),
                appointment.disruption.to_string(),
                appointment.state.to_owned(),
            ]);
        }
        output.line(table)?;
        output.line("")?;
    }
    if drills.is_empty() {
        output.line("no drill has ended yet: `muster drill run` holds one")?;
        return Ok(Exit::Done);
    }
    let mut table =
        table(&["No.", "Ended", "Service", "Disruption", "Verdict", "RTO", "RPO", "Drill"]);
    for drill in &drills {
        table.add_row([
            drill.number.to_string(),
            moments.moment(drill.ended),
            visible(drill.service.as_bytes()),
            drill.disruption.to_string(),
            drill.verdict.to_string(),
            against(drill.recovery_time.actual_s, drill.recovery_time.objective_s),
            against(drill.recovery_point.actual_s_max, drill.recovery_point.objective_s),
            drill.drill.clone(),
        ]);
    }
    output.line(table)?;
    Ok(Exit::Done)
}

fn show(wanted: &str, workspace: &Workspace, output: &Output) -> Outcome {
    let drills = status::drills(workspace)?;
    let drill = find(&drills, wanted)?;
    match output.is_json() {
        true => output.json(drill)?,
        false => story::tell(drill, true, output)?,
    }
    Ok(Exit::Done)
}

/// Finds a drill by its number, its id, or the beginning of its id.
pub(super) fn find<'d>(
    drills: &'d [DrillResult],
    wanted: &str,
) -> Result<&'d DrillResult, Failure> {
    let number = wanted.parse::<u64>().ok();
    let by_number = drills.iter().find(|drill| Some(drill.number) == number);
    let mut by_id = drills.iter().filter(|drill| drill.drill.starts_with(wanted));
    let found = by_number.or_else(|| match (by_id.next(), by_id.next()) {
        (Some(drill), None) => Some(drill),
        _ => None,
    });
    found.ok_or_else(|| {
        Failure::new(Problem::NotFound, format!("find one drill by '{wanted}'"))
            .help("`muster drill list` shows them")
    })
}
