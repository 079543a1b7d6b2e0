//! Waiting: for a while, for a lock, and always ready to stop.

use std::{
    thread,
    time::{Duration, Instant},
};

use muster_repository::run::Run;

use crate::error::OperationError;

/// Between two looks whether somebody wants us to stop.
const LOOK: Duration = Duration::from_millis(20);

/// Waits for `long`, or until the run is cancelled.
pub(crate) fn pause(long: Duration, run: &Run) {
    let end = Instant::now() + long;
    while !run.cancel.is_requested()
        && let Some(left) = end.checked_duration_since(Instant::now())
        && !left.is_zero()
    {
        thread::park_timeout(left.min(LOOK));
    }
}

/// Whether somebody wants the run to stop.
///
/// # Errors
/// Fails when so.
pub(crate) fn interrupted(run: &Run) -> Result<(), OperationError> {
    run.cancel.check().map_err(|why| OperationError::Interrupted { why: why.to_string() })
}
