//! A moment by two clocks: the wall's for people, the machine's for durations.
//!
//! The wall clock may be stepped in the middle of a drill; the time since boot may not. Two
//! moments of one boot are therefore compared by the machine's clock, which also runs on while
//! the machine sleeps; only moments of different boots are left to the wall clock.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// By the wall clock.
    pub wall: Timestamp,
    /// Seconds since the machine started.
    pub boot_s: f64,
    /// Which start of the machine.
    pub boot: String,
}

impl Moment {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self {
            wall: Timestamp::now(),
            boot_s: since_boot_s(),
            boot: boot.map(|id| id.trim().to_owned()).unwrap_or_default(),
        }
    }

    /// The moment that the wall clock calls `wall`, seen from this one.
    #[must_use]
    pub fn earlier(&self, wall: Timestamp) -> Self {
        let since = self.wall.duration_since(wall).as_secs_f64();
        Self { wall, boot_s: self.boot_s - since, boot: self.boot.clone() }
    }

    /// Seconds from `self` to `later`; negative when it was before.
    #[must_use]
    pub fn seconds_until(&self, later: &Self) -> f64 {
        if !self.boot.is_empty() && self.boot == later.boot {
            return later.boot_s - self.boot_s;
        }
        later.wall.duration_since(self.wall).as_secs_f64()
    }
}

/// Seconds since the machine started, sleep included.
fn since_boot_s() -> f64 {
    let time = clock_gettime(ClockId::Boottime);
    #[expect(clippy::cast_precision_loss, reason = "a machine is up for less than 2^53 seconds")]
    let seconds = time.tv_sec as f64;
    #[expect(clippy::cast_precision_loss, reason = "less than 10^9")]
    let fraction = time.tv_nsec as f64 / 1e9;
    seconds + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stepped_wall_clock_changes_no_duration() {
        let start = Moment::now();
        let mut later = Moment::now();
        later.boot_s = start.boot_s + 5.0;
        for step in [-3600, 0, 3600] {
            later.wall = start.wall + jiff::SignedDuration::from_secs(5 + step);
            assert!((start.seconds_until(&later) - 5.0).abs() < 1e-9);
        }
        later.boot = "another".to_owned();
        later.wall = start.wall + jiff::SignedDuration::from_secs(7);
        assert!((start.seconds_until(&later) - 7.0).abs() < 1e-6);
    }
}
