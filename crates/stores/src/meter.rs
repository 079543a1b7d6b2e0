//! What requests cost, estimated from those that were answered.
//!
//! Small answers tell the latency, large ones how fast bytes flow once they do. Both are running
//! means; a latency that falls is believed sooner than one that rises, for a request may wait
//! behind others' bytes.

use std::time::Duration;

/// Answers up to this length tell the latency.
const SMALL_BYTES: u64 = 32 << 10;
/// Answers from this length on tell how fast bytes flow.
const LARGE_BYTES: u64 = 256 << 10;

/// Before anything was answered: a store in the same country, over a line of an office.
const LATENCY_AT_FIRST: Duration = Duration::from_millis(20);
const BYTES_PER_S_AT_FIRST: f64 = 20e6;

/// Running means of what requests cost.
#[derive(Debug, Clone)]
pub struct Meter {
    latency_s: Option<f64>,
    bytes_per_s: Option<f64>,
}

impl Meter {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self { latency_s: None, bytes_per_s: None }
    }

    /// A request was answered with `bytes`, and took `took`.
    pub fn answered(&mut self, bytes: u64, took: Duration) {
        let took = took.as_secs_f64();
        if bytes <= SMALL_BYTES {
            self.latency_s = Some(match self.latency_s {
                None => took,
                Some(before) if took < before => before + 0.5 * (took - before),
                Some(before) => before + 0.1 * (took.min(3.0 * before) - before),
            });
        } else if bytes >= LARGE_BYTES {
            let flowing = (took - self.latency_s.unwrap_or(0.0)).max(0.1 * took).max(1e-6);
            let rate = as_f64(bytes) / flowing;
            let before = self.bytes_per_s.unwrap_or(rate);
            self.bytes_per_s = Some(before + 0.2 * (rate - before));
        }
    }

    /// From the question to the beginning of the answer.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.latency_s.map_or(LATENCY_AT_FIRST, Duration::from_secs_f64)
    }

    /// How fast one answer flows.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive")]
    pub fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s.unwrap_or(BYTES_PER_S_AT_FIRST) as u64
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::cast_precision_loss, reason = "an answer is far below 2^52 bytes")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn took(latency_ms: u64, bytes: u64, mib_per_s: u64) -> Duration {
        Duration::from_millis(latency_ms + 1000 * bytes / (mib_per_s * MIB))
    }

    #[test]
    fn latency_and_rate_are_told_apart() {
        let mut meter = Meter::new();
        for _ in 0..50 {
            meter.answered(1000, took(50, 0, 1));
            meter.answered(4 * MIB, took(50, 4 * MIB, 20));
            meter.answered(100_000, Duration::from_secs(9));
        }
        assert_eq!(meter.latency().as_millis(), 50);
        let rate = meter.bytes_per_s() / MIB;
        assert!((19..=21).contains(&rate), "{rate}");
    }

    #[test]
    fn one_slow_answer_changes_little() {
        let mut meter = Meter::new();
        (0..10).for_each(|_| meter.answered(10, took(50, 0, 1)));
        meter.answered(10, Duration::from_secs(60));
        assert!(meter.latency() < Duration::from_millis(65), "{:?}", meter.latency());
        (0..10).for_each(|_| meter.answered(10, took(5, 0, 1)));
        assert!(meter.latency() < Duration::from_millis(6), "{:?}", meter.latency());
    }
}
