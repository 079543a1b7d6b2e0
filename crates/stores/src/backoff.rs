//! When to try again: exponential backoff with full jitter, as a pure decision.

use std::time::Duration;

/// How patient to be with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The longest pause after the first failure.
    pub first: Duration,
    /// The longest pause there is.
    pub longest: Duration,
    /// No more is tried once this time has gone since the first try.
    pub budget: Duration,
    /// How often to try while the store has not answered anything yet: an address with a typing
    /// error shall not take minutes to tell.
    pub tries_at_first: u32,
}

impl Patience {
    /// What Muster does unless it is told otherwise.
    pub const STANDARD: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(30),
        budget: Duration::from_secs(10 * 60),
        tries_at_first: 4,
    };

    /// How long to wait after the failure of try number `tries` (counting from 1), or `None` to
    /// give up. `chance` is drawn from 0 to 1: the pause is that part of what doubles each time,
    /// so that many clients of a store that comes back do not all come at once.
    #[must_use]
    pub fn pause(
        &self,
        tries: u32,
        elapsed: Duration,
        has_answered: bool,
        chance: f64,
    ) -> Option<Duration> {
        if elapsed >= self.budget || (!has_answered && tries >= self.tries_at_first) {
            return None;
        }
        let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
        let ceiling = self.first.saturating_mul(doubled).min(self.longest);
        Some(ceiling.mul_f64(chance.clamp(0.0, 1.0)).min(self.budget - elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: Duration = Duration::ZERO;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let at = |tries| Patience::STANDARD.pause(tries, ZERO, true, 1.0).unwrap().as_millis();
        assert_eq!(
            [1, 2, 3, 6, 7, 8, 40].map(at),
            [500, 1000, 2000, 16_000, 30_000, 30_000, 30_000]
        );
    }

    #[test]
    fn the_jitter_is_full() {
        let at = |chance| Patience::STANDARD.pause(3, ZERO, true, chance).unwrap().as_millis();
        assert_eq!([0.0, 0.25, 1.0].map(at), [0, 500, 2000]);
    }

    #[test]
    fn it_ends() {
        let patience = Patience::STANDARD;
        assert_eq!(patience.pause(9, patience.budget, true, 0.0), None);
        assert_eq!(patience.pause(4, ZERO, false, 0.0), None, "nobody is there");
        assert!(patience.pause(3, ZERO, false, 0.0).is_some());
        let close = patience.budget - Duration::from_secs(1);
        assert_eq!(patience.pause(20, close, true, 1.0), Some(Duration::from_secs(1)));
    }
}
