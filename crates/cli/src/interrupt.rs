//! Ctrl-C and `kill`: the first asks the operation to stop in order, the second stops at once.

use std::thread;

use muster_repository::run::Cancel;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

use crate::{
    error::{Failure, Problem},
    output,
};

/// From here on a signal asks the operation behind `cancel` to stop: it removes its lock and
/// what it began. A second signal ends the process as if nobody had listened.
///
/// SIGHUP is caught and ignored, as in restic: `restic unlock` sends it to the process behind
/// each lock to see whether there is one (`internal/restic/lock_unix.go`), and would otherwise
/// end a running backup.
pub(crate) fn listen(cancel: Cancel) -> Result<(), Failure> {
    let failure =
        |error| Failure::new(Problem::SignalsUnavailable, "listen for signals").caused_by(&error);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failure)?;
    let listener = move || {
        for signal in &mut signals {
            if signal == SIGHUP {
                continue;
            }
            if cancel.is_requested() {
                // The process ends here, or the default handler is missing and nothing is lost.
                drop(emulate_default_handler(signal));
            }
            cancel.request(reason(signal));
            output::notice("stopping in order; once more to stop at once");
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(listener).map_err(failure)?;
    Ok(())
}

fn reason(signal: i32) -> &'static str {
    match signal {
        SIGINT => "it was interrupted",
        _ => "it was told to terminate",
    }
}
