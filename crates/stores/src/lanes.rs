//! How many requests are best under way at once: a decision about what was observed.
//!
//! One more request pays when throughput grows by it. So one more is tried now and then, kept when
//! it brought at least half of its share, and given up again otherwise; one fewer is tried in
//! turn, and kept when it cost less than a quarter of its share. Steps up double while they pay. When the store asks for mercy (it is busy, does not answer in time, hangs up),
//! half are given up at once. This is AIMD (Chiu and Jain, 1989) with a look at the gain, akin to
//! the gradient of Netflix's concurrency-limits.
//!
//! It has no clock and does not wait; the bound that the user set is never passed.

use std::time::Duration;

/// Requests at once to begin with, restic's number.
const AT_FIRST: u32 = 5;

/// A request counts as if it moved so many bytes more: small ones cost the store, too.
const REQUEST_BYTES: u64 = 64 << 10;

/// How long is observed before something is concluded, and how many requests for each lane.
const EPOCH: Duration = Duration::from_millis(200);
const EPOCH_REQUESTS: u64 = 2;

/// Epochs between two trials, once trials do not pay.
const HOLD: u32 = 4;

/// The part of its share that one more has to bring.
const WORTH: f64 = 0.5;

/// The part of its share that one fewer may cost: less, for what is lost is lost.
const LOSS: f64 = 0.25;

/// How many requests may be under way, and what was observed with so many.
#[derive(Debug, Clone)]
pub struct Lanes {
    max: u32,
    now: u32,
    epoch: Epoch,
    trial: Option<Trial>,
    /// Epochs to wait before the next trial.
    hold: u32,
    /// The next trial: how many more, or fewer.
    step: i32,
}

#[derive(Debug, Clone, Default)]
struct Epoch {
    began: Option<Duration>,
    work: u64,
    requests: u64,
    /// Somebody waited, so that the number of lanes made a difference.
    was_full: bool,
}

#[derive(Debug, Clone)]
struct Trial {
    from: u32,
    rate: f64,
}

impl Lanes {
    /// At most `max` at once.
    #[must_use]
    pub fn new(max: u32) -> Self {
        let max = max.max(1);
        let now = AT_FIRST.min(max);
        Self { max, now, epoch: Epoch::default(), trial: None, hold: 0, step: 1 }
    }

    /// How many requests may be under way now.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.now
    }

    /// A request that moved `bytes` was answered at `now`; `is_full` if others wait for a lane.
    pub fn answered(&mut self, now: Duration, bytes: u64, is_full: bool) {
        let began = *self.epoch.began.get_or_insert(now);
        self.epoch.was_full |= is_full;
        let gone = now.saturating_sub(began);
        // What lies before the first answer belongs to no epoch.
        if self.epoch.requests > 0 || gone > Duration::ZERO {
            self.epoch.work += bytes + REQUEST_BYTES;
        }
        self.epoch.requests += 1;
        if gone >= EPOCH && self.epoch.requests > EPOCH_REQUESTS * u64::from(self.now) {
            let epoch = std::mem::replace(&mut self.epoch, Epoch::begun(now));
            self.conclude(&epoch, gone);
        }
    }

    /// The store was too busy, or did not answer.
    pub fn troubled(&mut self) {
        self.now = (self.now / 2).max(1);
        (self.trial, self.hold, self.step) = (None, HOLD, 1);
        self.epoch = Epoch::default();
    }

    fn conclude(&mut self, epoch: &Epoch, gone: Duration) {
        if !epoch.was_full {
            // Whoever asks is what it waits for: more lanes would be empty.
            if let Some(trial) = self.trial.take() {
                self.now = trial.from;
            }
            return;
        }
        let rate = as_f64(epoch.work) / gone.as_secs_f64();
        match self.trial.take() {
            Some(trial) => self.judge(&trial, rate),
            None if self.hold > 0 => self.hold -= 1,
            None => self.try_step(rate),
        }
        if self.trial.is_none() && self.hold == 0 {
            self.try_step(rate);
        }
    }

    /// What the trial brought: it is kept, or taken back.
    fn judge(&mut self, trial: &Trial, rate: f64) {
        let (from, now) = (f64::from(trial.from), f64::from(self.now));
        let share = (now - from) / from;
        let part = if share > 0.0 { WORTH } else { LOSS };
        if rate >= trial.rate * (1.0 + part * share) {
            // Up in steps that double, down one by one.
            self.step = self.step.saturating_mul(2).max(-1);
            return;
        }
        self.now = trial.from;
        self.hold = HOLD;
        self.step = -self.step.signum();
    }

    fn try_step(&mut self, rate: f64) {
        let to = self.now.saturating_add_signed(self.step).clamp(1, self.max);
        if to == self.now {
            // The bound is reached: look whether fewer do, later.
            (self.hold, self.step) = (HOLD, -self.step.signum());
            return;
        }
        self.trial = Some(Trial { from: self.now, rate });
        self.now = to;
    }
}

impl Epoch {
    fn begun(now: Duration) -> Self {
        Self { began: Some(now), ..Self::default() }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes in an epoch")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests;
