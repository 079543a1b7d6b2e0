//! What a drill would do, before it does anything: `drill run --dry-run`, and the blockers that
//! refuse it.

use jiff::Timestamp;
use muster_control::choice::{Blocker, Chosen, choose};
use muster_model::{Disruption, ProbeCheck};
use muster_plan::document::Service;
use serde::Serialize;

use super::{DrillRequest, ages::latest, isolation, restored_data};
use crate::{error::OperationError, points, stores, workspace::Workspace};

/// What a drill would do.
#[derive(Debug, Clone, Serialize)]
pub struct DrillProposal {
    /// The service.
    pub service: String,
    /// What is rehearsed.
    pub disruption: Disruption,
    /// The points that it would use if it were cut off now.
    pub points: Vec<ProposedPoint>,
    /// The steps of the runbook.
    pub steps: Vec<String>,
    /// The probes.
    pub probes: Vec<String>,
    /// The folder in which a target would be made.
    pub target: String,
    /// What would be written into production: nothing but markers.
    pub writes_to_production: String,
    /// What would be lost now, in seconds, by the age of the oldest of these points.
    pub data_age_s: Option<f64>,
    /// What stands in the way.
    pub blockers: Vec<Blocker>,
    /// Repositories that did not answer.
    pub warnings: Vec<String>,
}

/// A point that a drill would use.
#[derive(Debug, Clone, Serialize)]
pub struct ProposedPoint {
    /// The data item.
    pub data: String,
    /// The point.
    pub point: String,
    /// The repository.
    pub repository: String,
    /// The moment whose data it holds.
    pub data_time: Timestamp,
    /// Bytes that a restore writes.
    pub bytes: Option<u64>,
}

/// Computes what a drill would do.
///
/// # Errors
/// Fails when the plan has no such service, or the ledger cannot be read.
pub fn propose(
    workspace: &Workspace,
    request: &DrillRequest,
) -> Result<DrillProposal, OperationError> {
    let service = workspace.service(&request.service)?;
    let now = Timestamp::now();
    let listed = points::list(workspace, Some(&service.name))?;
    let data = restored_data(service);
    let target = workspace.state.runs_folder(service)?;
    let mut blockers = isolation::blockers(workspace, service, &target);
    if service.recover.is_empty() {
        blockers.push(Blocker {
            code: "no-runbook",
            message: format!("{} has no runbook", service.name),
            help: "add `recover:` to the service".to_owned(),
        });
    }
    blockers.extend(not_restored(service, &data));
    let wish = request.wish(latest(&workspace.state)?.map_or(now, |latest| latest.max(now)));
    let chosen = choose(&listed.points, &service.name, &service.place, &data, &wish);
    let points = match chosen {
        Ok(chosen) => stores::quickest_first(workspace, chosen),
        Err(more) => {
            blockers.extend(listed.explain(more));
            Vec::new()
        }
    };
    let oldest = points.iter().map(|chosen| chosen.point.data_time).min();
    Ok(DrillProposal {
        service: service.name.clone(),
        disruption: request.disruption,
        points: points.iter().filter_map(proposed).collect(),
        steps: service.recover.iter().map(muster_model::Step::summary).collect(),
        probes: service.acceptance.probes.iter().map(|probe| probe.name.clone()).collect(),
        target: target.display().to_string(),
        writes_to_production: match &service.markers {
            Some(markers) => format!(
                "markers in {}, every {} for {}",
                markers.data,
                muster_model::units::format_duration(markers.every),
                muster_model::units::format_duration(request.marking)
            ),
            None => "nothing".to_owned(),
        },
        data_age_s: oldest.map(|time| now.duration_since(time).as_secs_f64()),
        blockers,
        warnings: listed.unread.iter().map(ToString::to_string).collect(),
    })
}

/// Data that the service is judged by, and that its runbook does not bring back.
fn not_restored(service: &Service, restored: &[String]) -> Vec<Blocker> {
    let acceptance = &service.acceptance;
    let probes = acceptance.probes.iter().filter_map(|probe| {
        let sql = matches!(probe.check, ProbeCheck::Sql { .. });
        probe.on.as_ref().filter(|_| sql).map(|on| (on, format!("the probe {}", probe.name)))
    });
    let rows = acceptance.rows.iter().map(|(data, _)| (data, "a rule about rows".to_owned()));
    let sums = acceptance.checksums.iter().map(|data| (data, "a rule about checksums".to_owned()));
    let markers = service.markers.iter().map(|m| (&m.data, "the counting of markers".to_owned()));
    let asked = probes.chain(rows).chain(sums).chain(markers);
    asked
        .filter(|(data, _)| !restored.contains(data))
        .map(|(data, who)| Blocker {
            code: "data-not-restored",
            message: format!("no step restores {data}, which {who} needs"),
            help: format!("add `{{restore: [{data}]}}` to `recover:`"),
        })
        .collect()
}

fn proposed(chosen: &Chosen) -> Option<ProposedPoint> {
    Some(ProposedPoint {
        data: chosen.point.data.clone(),
        point: chosen.point.id.clone(),
        repository: chosen.copies.first()?.repository.clone(),
        data_time: chosen.point.data_time,
        bytes: chosen.point.bytes,
    })
}
