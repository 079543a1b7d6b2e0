//! `muster points`

use jiff::Timestamp;
use muster_model::{RecoveryPoint, units::format_size};
use muster_operations::report::format::age;
use serde::Serialize;

use super::{moments, open_to_read, seconds_since, status::warn_of_verification};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, table, visible},
    workspace::PlanArgs,
};

/// Arguments of `points`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

const EXAMPLES: &str = "Examples:
  muster points orders
  muster points --json | jq '.points[-1]'

The repositories are asked, so the points are there also when the state is lost. A copy that was not
read back within the plan's `verify` is marked, and the next step told (in JSON: `verification`). What cannot be read
is named: exit code 3 when it is damaged, 4 when it was refused (a wrong password), else 5. Without the
state it is not known what proved a point: that is exit code 5 too.";

#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    service: &'a str,
    data: &'a str,
    data_time: Timestamp,
    kind: &'static str,
    partial: bool,
    suspect: bool,
    bytes: Option<u64>,
    copies: Vec<Copy<'a>>,
    proven_at: Option<Timestamp>,
    proof: Option<&'a muster_model::PointProof>,
}

#[derive(Serialize)]
struct Copy<'a> {
    repository: &'a str,
    region: Option<&'a str>,
    snapshot: &'a str,
    damaged: bool,
    /// As the store says; `null` when it is not held, or nobody could tell.
    immutable_until: Option<Timestamp>,
}

/// Lists recovery points.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let mut reader = open_to_read(plan, output)?;
    if let Some(service) = &args.service {
        reader.planned.service(service)?;
    }
    let found = reader.points(args.service.as_deref());
    let mut verification = reader.verification(Timestamp::now());
    if let (Some(states), Some(_)) = (&mut verification, &args.service) {
        let copies = || found.points.iter().flat_map(|point| &point.copies);
        states.retain(|state| copies().any(|copy| copy.repository == state.repository));
    }
    let trouble = reader.trouble.as_ref();
    if let Some(trouble) = trouble {
        output.warning(trouble);
    }
    let proofs_known = trouble.is_none_or(|trouble| trouble.is_read);
    for unread in &found.unread {
        output.warning(unread);
    }
    warn_of_verification(verification.as_deref().unwrap_or_default(), output);
    match output.is_json() {
        true => {
            let points: Vec<Listed<'_>> = found.points.iter().map(listed).collect();
            output.json(&serde_json::json!({
                "points": points, "unread": found.unread, "verification": verification,
                "state_trouble": trouble,
            }))?;
        }
        false if found.points.is_empty() && !found.unread.is_empty() => {
            output.line("what there is cannot be told: no repository answered with a point")?;
        }
        false => {
            let states = verification.iter().flatten().filter(|state| state.overdue);
            let overdue: Vec<&str> = states.map(|state| state.repository.as_str()).collect();
            print(&found.points, (proofs_known, &overdue), output)?;
        }
    }
    let read = found.worst().map_or(Exit::Done, Exit::beside);
    Ok(if proofs_known { read } else { read.and(Exit::Partial) })
}

fn listed(point: &RecoveryPoint) -> Listed<'_> {
    Listed {
        id: &point.id,
        service: &point.service,
        data: &point.data,
        data_time: point.data_time,
        kind: point.kind.as_str(),
        partial: point.partial,
        suspect: point.suspect,
        bytes: point.bytes,
        copies: point
            .copies
            .iter()
            .map(|copy| Copy {
                repository: &copy.repository,
                region: copy.place.region.as_deref(),
                snapshot: &copy.snapshot,
                immutable_until: copy.immutable_until,
                damaged: copy.damaged,
            })
            .collect(),
        proven_at: point.proof.as_ref().map(|proof| proof.at),
        proof: point.proof.as_ref(),
    }
}

fn copy_name(copy: &muster_model::PointCopy) -> String {
    match copy.damaged {
        true => format!("{} (DAMAGED)", copy.repository),
        false => copy.repository.clone(),
    }
}

/// A copy, until when nobody can destroy it, and whether it waits for its reading for too long.
fn copy_cell(copy: &muster_model::PointCopy, overdue: &[&str]) -> String {
    let mut cell = match copy.immutable_until {
        None => copy_name(copy),
        Some(until) => format!("{} (immutable until {})", copy_name(copy), until.strftime("%F")),
    };
    if overdue.contains(&copy.repository.as_str()) {
        cell.push_str(" (not read back in time)");
    }
    cell
}

fn print(
    points: &[RecoveryPoint],
    (proofs_known, overdue): (bool, &[&str]),
    output: &Output,
) -> Result<(), Failure> {
    if points.is_empty() {
        return output.line("no recovery point yet: `muster backup` takes the first");
    }
    let (now, moments) = (Timestamp::now(), moments());
    let mut table = table(&["Point", "Data time", "Age", "Data", "Size", "Copies", "Proof"]);
    for point in points {
        let copies = point.copies.iter().map(|copy| copy_cell(copy, overdue));
        let copies: Vec<String> = copies.collect();
        let proof = match &point.proof {
            _ if point.partial => "in part: never proves".to_owned(),
            _ if point.suspect => "looks wrong: not used".to_owned(),
            _ if !point.is_good() => "damaged: not used".to_owned(),
            Some(proof) => format!("{}, {} ago", proof.how, age(seconds_since(proof.at, now))),
            None if !proofs_known => "not known".to_owned(),
            None => "not proven".to_owned(),
        };
        table.add_row([
            point.id.clone(),
            moments.moment(point.data_time),
            age(seconds_since(point.data_time, now)),
            visible(format!("{}/{}", point.service, point.data).as_bytes()),
            point.bytes.map_or_else(|| "?".to_owned(), format_size),
            visible(copies.join(", ").as_bytes()),
            proof,
        ]);
    }
    output.line(table)
}

#[cfg(test)]
mod tests {
    use muster_model::{Place, PointCopy};

    use super::*;

    #[test]
    fn a_copy_is_shown_with_its_protection() {
        let copy = PointCopy {
            repository: "far".to_owned(),
            place: Place::default(),
            immutable: true,
            immutable_until: "2027-01-31T12:00:00Z".parse().ok(),
            snapshot: String::new(),
            damaged: false,
        };
        assert_eq!(copy_cell(&copy, &["near"]), "far (immutable until 2027-01-31)");
        let free = PointCopy { immutable: false, immutable_until: None, ..copy.clone() };
        assert_eq!(copy_cell(&free, &[]), "far");
        assert_eq!(copy_cell(&free, &["far"]), "far (not read back in time)");
        let damaged = PointCopy { damaged: true, ..copy };
        let told = copy_cell(&damaged, &["far"]);
        assert_eq!(told, "far (DAMAGED) (immutable until 2027-01-31) (not read back in time)");
    }
}
