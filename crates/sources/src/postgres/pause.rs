//! Waiting a moment between two looks at something that tells nobody when it changes.

use std::{sync::mpsc, time::Duration};

/// Waits. For polling with a bound only; whatever can be waited for itself is.
pub(super) fn pause(time: Duration) {
    let (_kept, receiver) = mpsc::channel::<()>();
    let nobody_sends = receiver.recv_timeout(time);
    debug_assert!(nobody_sends.is_err());
}
