//! How fast bytes may flow: a token bucket, as a function of the time that it is told.
//!
//! It has no clock and does not wait; whoever wants bytes is told how long to. Nothing is given in
//! advance: whoever waited asks again, and takes what there is then. So those whose line stood still
//! have nothing saved up that would flow at once, and pieces need not be small, which on a slow line
//! would cost more than they carry. Those who wait have turns, in the order of their coming; who does
//! not come when it is its turn loses it, so that a line that stands still keeps nobody waiting.

use std::{collections::VecDeque, time::Duration};

/// How much may be taken at once after a silence, as time at the full rate: what a busy machine
/// wakes a taker late. Together with a piece ([`Bucket::piece_bytes`]) it is less than 5 % of a second:
/// no more than that flows above the limit in any second.
const BURST: Duration = Duration::from_millis(28);

/// A piece takes this part of a second, ...
const PIECES_PER_S: u64 = 50;

/// ... but needs not be larger than this.
const PIECE_BYTES_MAX: u64 = 32 << 10;

/// What sums of parts of bytes may be wrong by.
const ROUNDING: f64 = 1e-3;

/// Nobody is told to wait for less: timers do not tell shorter times apart.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// A limit of bytes per second.
#[derive(Debug, Clone)]
pub struct Bucket {
    bytes_per_s: f64,
    /// Bytes that may flow now.
    available: f64,
    /// When `available` was last brought up to date.
    at: Duration,
    /// Who waits, and for how much.
    turns: VecDeque<(Turn, f64)>,
    next_turn: u64,
}

/// The place of somebody who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn(u64);

impl Bucket {
    /// A bucket for `bytes_per_s`, which must not be 0; empty at `now`.
    #[must_use]
    pub fn new(bytes_per_s: u64, now: Duration) -> Self {
        let (available, turns) = (0.0, VecDeque::new());
        Self { bytes_per_s: as_f64(bytes_per_s.max(1)), available, at: now, turns, next_turn: 0 }
    }

    /// How many bytes may be taken at once.
    #[must_use]
    pub fn piece_bytes(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small")]
        let piece = (self.bytes_per_s as u64 / PIECES_PER_S).clamp(1, PIECE_BYTES_MAX);
        usize::try_from(piece).unwrap_or(usize::MAX)
    }

    /// Takes bytes, a piece at most, that flow now; or tells how long to wait before asking again,
    /// with the same `turn`, which is none at first and none when the bytes were taken.
    pub fn take(&mut self, now: Duration, bytes: u64, turn: &mut Option<Turn>) -> Option<Duration> {
        self.fill(now);
        let wanted = as_f64(bytes).min(self.most());
        let own = self.place(wanted, turn);
        let first = match self.is_full() {
            // Whoever has not come by now does not.
            true => own,
            false => 0,
        };
        self.turns.drain(..first);
        let before: f64 = self.turns.range(..own - first).map(|(_, wanted)| wanted).sum();
        // With enough for those before, too, nobody is passed over.
        if self.available >= before + wanted - ROUNDING {
            self.turns.remove(own - first);
            self.available -= wanted;
            *turn = None;
            return None;
        }
        let missing = (before + wanted - self.available).max(0.0);
        Some(Duration::from_secs_f64(missing / self.bytes_per_s).max(WAIT_MIN))
    }

    fn fill(&mut self, now: Duration) {
        let gone = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.available = (self.available + gone * self.bytes_per_s).min(self.most());
    }

    fn most(&self) -> f64 {
        self.bytes_per_s * BURST.as_secs_f64() + as_f64(self.piece_bytes() as u64)
    }

    fn is_full(&self) -> bool {
        self.available >= self.most()
    }

    /// Where somebody stands in line: at the end who is new, or has lost the turn.
    fn place(&mut self, wanted: f64, turn: &mut Option<Turn>) -> usize {
        let place = turn.and_then(|own| self.turns.iter().position(|(other, _)| *other == own));
        place.unwrap_or_else(|| {
            let new = Turn(self.next_turn);
            self.next_turn += 1;
            self.turns.push_back((new, wanted));
            *turn = Some(new);
            self.turns.len() - 1
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates and pieces are far below 2^52 bytes")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests;
