//! How fast bytes may flow: a token bucket, as a function of the time that it is told.
//!
//! It has no clock and does not wait; whoever takes bytes is told how long to.

use std::time::Duration;

/// How much may be taken at once after a silence, as time at the full rate: what a busy machine
/// wakes a taker late. Together with the pieces ([`Bucket::piece_bytes`]) that ten takers may hold
/// when a line goes on after a pause, it is 5 % of a second: no more than that flows above the
/// limit in any second.
const BURST: Duration = Duration::from_millis(30);

/// A piece takes this part of a second, ...
const PIECES_PER_S: u64 = 500;

/// ... but it is never smaller than what it costs to send it by itself (which counts for limits
/// below 128 KB a second), ...
const PIECE_BYTES_MIN: u64 = 256;

/// ... and needs not be larger than this.
const PIECE_BYTES_MAX: u64 = 32 << 10;

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

    /// How many bytes may flow at once, after one wait: whoever takes more at once makes a burst.
    #[must_use]
    pub fn piece_bytes(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small")]
        let piece =
            (self.bytes_per_s as u64 / PIECES_PER_S).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        usize::try_from(piece).unwrap_or(usize::MAX)
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
mod tests;
