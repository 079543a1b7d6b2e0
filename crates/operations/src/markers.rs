//! Markers: written into protected data, acknowledged in the ledger, counted after a recovery.
//!
//! A marker counts only when the source has committed it *and* the ledger holds it. One that
//! was committed while the ledger could not be written counts neither as written nor as lost.

use muster_control::loss::{self, Loss, MarkerId, Written};
use muster_plan::document::{Markers, Service};
use muster_sources::markers::{MarkerTarget, MarkerWriter};

use crate::{
    error::OperationError,
    hands,
    moment::Moment,
    records::{MarkerRecord, Record},
    state::State,
    workspace::Workspace,
};

/// Markers older than this are trimmed from the data, so they are not looked for.
pub(crate) const MARKERS_KEPT_S: f64 = 6.0 * 86_400.0;

/// Writes the markers of one service.
pub(crate) struct MarkerKeeper {
    service: String,
    data: String,
    writer: MarkerWriter,
}

impl MarkerKeeper {
    /// Opens the data item that the plan names for markers.
    ///
    /// # Errors
    /// Fails when it cannot be opened for writing.
    pub(crate) fn open(
        workspace: &Workspace,
        service: &Service,
        markers: &Markers,
    ) -> Result<Self, OperationError> {
        let target = target(workspace, service, markers)?;
        let writer = MarkerWriter::open(&target).map_err(OperationError::below)?;
        Ok(Self { service: service.name.clone(), data: markers.data.clone(), writer })
    }

    /// Writes one marker: into the data, and then into the ledger.
    ///
    /// # Errors
    /// Fails when either cannot be written.
    pub(crate) fn write(&mut self, state: &State) -> Result<(), OperationError> {
        self.write_or_miss(state)?
    }

    /// Writes a marker, as [`MarkerKeeper::write`] does. The inner error says that the source did
    /// not take it: it does not count then, and the next one may.
    ///
    /// # Errors
    /// Fails when the ledger cannot be written.
    pub(crate) fn write_or_miss(
        &mut self,
        state: &State,
    ) -> Result<Result<(), OperationError>, OperationError> {
        let at = Moment::now();
        let marker = match self.writer.write(at.wall) {
            Ok(marker) => marker,
            Err(error) => return Ok(Err(OperationError::below(error))),
        };
        state.record(&Record::Marker(MarkerRecord {
            service: self.service.clone(),
            data: self.data.clone(),
            writer: marker.writer,
            n: marker.n,
            at,
            acknowledged: Some(Moment::now()),
        }))?;
        Ok(Ok(()))
    }
}

/// Where the markers of a service are in production.
fn target(
    workspace: &Workspace,
    service: &Service,
    markers: &Markers,
) -> Result<MarkerTarget, OperationError> {
    match service.data(&markers.data) {
        Some(item) => hands::marker_target(workspace, item),
        None => Err(OperationError::Bug {
            what: format!("the plan marks {}, which does not exist", markers.data),
        }),
    }
}

/// What was acknowledged before `impact`, of the service's markers that are still kept.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub(crate) fn written(
    state: &State,
    service: &str,
    data: &str,
    impact: &Moment,
) -> Result<Vec<Written>, OperationError> {
    let mut written = Vec::new();
    for logged in state.history(&["marker"])? {
        let Record::Marker(marker) = logged.record else { continue };
        let before_impact_s = marker.at.seconds_until(impact);
        let acknowledged_before_s = marker.acknowledged().seconds_until(impact);
        let is_ours = marker.service == service && marker.data == data;
        if is_ours && acknowledged_before_s >= 0.0 && before_impact_s < MARKERS_KEPT_S {
            let id = (marker.writer.as_u128(), marker.n);
            written.push(Written { id, before_impact_s, acknowledged_before_s });
        }
    }
    Ok(written)
}

/// Reads the markers of recovered data and measures what was lost. Data that was not brought
/// back, or cannot be read, has lost them all: that is a loss like any other and no fault of
/// whoever counts.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub(crate) fn measure(
    state: &State,
    service: &str,
    data: &str,
    recovered: &MarkerTarget,
    impact: &Moment,
) -> Result<Loss, OperationError> {
    let written = written(state, service, data, impact)?;
    let found = muster_sources::markers::read(recovered, None).unwrap_or_default();
    let ids: Vec<MarkerId> = found.iter().map(|m| (m.writer.as_u128(), m.n)).collect();
    Ok(loss::measure(&written, &ids))
}
