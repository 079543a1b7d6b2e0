//! `muster status`

use muster_control::matrix::Cell;
use muster_model::units::{agree, counted, format_size};
use muster_operations::{
    report::format::{against, age, maybe_seconds},
    standstill::Standstill,
    status,
    verify::VerificationState,
};

use super::{moments, open};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, table, visible},
    workspace::PlanArgs,
};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

const EXAMPLES: &str = "Examples:
  muster status
  muster status --json | jq '.matrix[] | select(.verdict != \"proven\")'

'now' is the age of the newest point that would survive and that a drill has shown to be
restorable. Without such a drill it is not known.

A warning tells since when and why `keep`, the freeing of space or reading back does not go on (in
JSON: 'standstill').

Exit code 0 whatever the verdicts (`muster gate` decides by them). When a repository or a snapshot
cannot be read it is named: 3 when it is damaged, 4 when it was refused, else 5. Also 3 when reading
back (`muster verify`) found damage.";

/// Shows the matrix.
pub(crate) fn run(_args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let workspace = open(plan, output)?;
    let status = status::status(&workspace)?;
    for unread in &status.unread {
        output.warning(unread);
    }
    for service in &status.unfinished_recoveries {
        output.warning(format_args!(
            "a recovery of {service} was cut off: `muster recover {service}` goes on with it"
        ));
    }
    warn_of_verification(&status.verification, output);
    status.standstill.iter().for_each(|it| warn_of_standstill(it, output));
    let exit = status.worst().map_or(Exit::Done, Exit::beside);
    if output.is_json() {
        output.json(&status)?;
        return Ok(exit);
    }
    output.line(&status.sentence)?;
    if !status.matrix.is_empty() {
        output.line("")?;
        print(&status.matrix, output)?;
    }
    Ok(exit)
}

/// Tells what has come to a stand, since when and why.
fn warn_of_standstill(standstill: &Standstill, output: &Output) {
    let Standstill { what, repository, services, since, why, help, .. } = standstill;
    let what = match *what {
        "keep" => "`keep` is not applied in",
        "prune" => "no space is freed in",
        _ => "nothing is read back in",
    };
    let services = services.join(", ");
    let since = moments().moment(*since);
    let told = format!("{what} {repository} ({services}) since {since}: {why}; {help}");
    output.warning(visible(told.as_bytes()));
}

/// Tells of damage, and of what was not read back in time.
pub(super) fn warn_of_verification(states: &[VerificationState], output: &Output) {
    for state in states {
        let name = visible(state.repository.as_bytes());
        if !state.affected.is_empty() {
            let lost = super::verify::losing(state.affected.len());
            output.warning(format_args!(
                "{name} is damaged: {lost}, which makes no good point; `muster repo check` and \
                 `muster repo repair` say what can be saved"
            ));
        }
        if state.overdue {
            let within = state.within_s.map(age).unwrap_or_default();
            let next = match state.packs_archived {
                0 => format!("`muster verify {name}`"),
                packs => {
                    let bytes = format_size(state.bytes_archived);
                    format!(
                        "{} ({bytes}) {} archived; `muster verify {name} --warm-up` brings {} back",
                        counted(packs, "pack"),
                        agree(packs, "is", "are"),
                        agree(packs, "it", "them")
                    )
                }
            };
            output.warning(format_args!("{name} was not read back whole within {within}: {next}"));
        }
    }
}

/// Prints cells as a table.
pub(super) fn print(cells: &[Cell], output: &Output) -> Result<(), Failure> {
    let mut table = table(&["Service", "Disruption", "Verdict", "RTO", "RPO", "RPO now", "Proof"]);
    for cell in cells {
        let verdict = match cell.last_attempt {
            Some(attempt) => format!("{} (last: {attempt})", cell.verdict),
            None => cell.verdict.to_string(),
        };
        table.add_row([
            visible(cell.service.as_bytes()),
            cell.disruption.to_string(),
            verdict,
            against(cell.measured.rto_s, cell.objective.rto_s),
            against(cell.measured.rpo_s, cell.objective.rpo_s),
            maybe_seconds(cell.now.rpo_s),
            cell.proof_age_s.map_or_else(|| "-".to_owned(), |s| format!("{} ago", age(s))),
        ]);
    }
    output.line(table)
}
