//! Waiting for a condition.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two polls: short enough not to slow a test down, long enough not to burn a core that
/// the thing waited for may need.
const PAUSE: Duration = Duration::from_millis(10);

/// Polls `condition` until it gives a value, and returns that value.
///
/// The condition is tried at least once, also with a timeout of zero.
///
/// # Errors
///
/// The condition gave nothing within `timeout`; the message names `what` was waited for, so word it
/// to fit after "waited for": `"the lock to be refreshed"`.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() >= timeout {
            bail!("waited {timeout:?} in vain for {what}");
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "polling needs a pause, and this is the one place for it"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_of_the_first_success() {
        let mut polls = 0;
        let got = wait_for("the third poll", Duration::from_secs(10), || {
            polls += 1;
            (polls == 3).then_some(polls)
        });
        assert_eq!(got.unwrap(), 3);
    }

    #[test]
    fn tries_once_even_without_time() {
        assert_eq!(wait_for("nothing", Duration::ZERO, || Some(7)).unwrap(), 7);
    }

    #[test]
    fn says_what_it_waited_for() {
        let error = wait_for::<()>("a ship", Duration::from_millis(20), || None).unwrap_err();
        assert_eq!(error.to_string(), "waited 20ms in vain for a ship");
    }
}
