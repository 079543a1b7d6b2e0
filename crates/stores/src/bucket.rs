//! How fast bytes may flow: a token bucket, as a function of the time that it is told.
//!
//! It has no clock and does not wait; whoever takes bytes is told how long to.

use std::time::Duration;

/// How much may be taken at once after a silence, as time at the full rate. It is short, so that
/// the rate holds within seconds.
const BURST: Duration = Duration::from_millis(50);

/// A limit of bytes per second.
#[derive(Debug, Clone)]
pub struct Bucket {
    bytes_per_s: f64,
    /// Bytes that may flow now; negative while takers still wait for theirs.
    available: f64,
    /// When `available` was last brought up to date.
    at: Duration,
}

impl Bucket {
    /// A bucket for `bytes_per_s`, which must not be 0; empty at `now`.
    #[must_use]
    pub fn new(bytes_per_s: u64, now: Duration) -> Self {
        Self { bytes_per_s: as_f64(bytes_per_s.max(1)), available: 0.0, at: now }
    }

    /// Takes bytes, and tells how long to wait before they may flow. Who comes first waits first.
    pub fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        let gone = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let most = self.bytes_per_s * BURST.as_secs_f64();
        self.available = (self.available + gone * self.bytes_per_s).min(most) - as_f64(bytes);
        Duration::from_secs_f64((-self.available / self.bytes_per_s).max(0.0))
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates and pieces are far below 2^52 bytes")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long `bytes` take in pieces, when each taker waits as told.
    fn seconds(bytes_per_s: u64, bytes: u64, piece: u64) -> f64 {
        let mut now = Duration::from_secs(1000);
        let mut bucket = Bucket::new(bytes_per_s, now);
        for _ in 0..bytes / piece {
            now += bucket.take(now, piece);
        }
        (now - Duration::from_secs(1000)).as_secs_f64()
    }

    #[test]
    fn the_rate_holds_within_five_percent() {
        for (rate, piece) in [(10_000, 1000), (1 << 20, 16 << 10), (50 << 20, 16 << 10)] {
            let took = seconds(rate, 3 * rate, piece);
            assert!((took - 3.0).abs() < 0.15, "{rate}: {took}");
        }
    }

    #[test]
    fn silence_saves_up_almost_nothing() {
        let mut bucket = Bucket::new(1000, Duration::ZERO);
        assert_eq!(bucket.take(Duration::from_secs(3600), 50), Duration::ZERO);
        assert_eq!(bucket.take(Duration::from_secs(3600), 1000), Duration::from_secs(1));
    }

    #[test]
    fn takers_queue() {
        let mut bucket = Bucket::new(1000, Duration::ZERO);
        assert_eq!(bucket.take(Duration::ZERO, 1000), Duration::from_secs(1));
        assert_eq!(bucket.take(Duration::ZERO, 1000), Duration::from_secs(2));
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let mut bucket = Bucket::new(1000, Duration::from_secs(10));
        assert_eq!(bucket.take(Duration::from_secs(5), 1000), Duration::from_secs(1));
    }
}
