//! Waiting: for a while, for a lock, and always ready to stop.

use std::{
    thread,
    time::{Duration, Instant},
};

use muster_repository::run::Run;

use crate::error::OperationError;

/// Between two looks whether somebody wants us to stop.
const LOOK: Duration = Duration::from_millis(20);

/// How long a lock that others hold only for moments is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

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

/// Tries until there is something.
///
/// # Errors
/// Fails as `attempt` does, and when somebody holds on to it for too long.
pub(crate) fn wait_for<T>(
    mut attempt: impl FnMut() -> Result<Option<T>, OperationError>,
) -> Result<T, OperationError> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(OperationError::Refused {
                what: "go on: another muster holds the state's lock".to_owned(),
                blockers: Vec::new(),
            });
        }
        thread::park_timeout(LOOK);
    }
}

/// Whether somebody wants the run to stop.
///
/// # Errors
/// Fails when so.
pub(crate) fn interrupted(run: &Run) -> Result<(), OperationError> {
    run.cancel.check().map_err(|why| OperationError::Interrupted { why: why.to_string() })
}
