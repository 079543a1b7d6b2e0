//! What it costs to ask a store, and what is best asked for in one go.
//!
//! A request costs the time until its answer begins; a byte costs the time that it takes to flow.
//! From the two follows how much that nobody wants is better read on the way than gone around.
//! Both are observed by whoever talks to the store; this only reckons.

use std::time::Duration;

use crate::environment::cores;

/// A gap is never so small that it is not read: below this a store reads it anyway.
const GAP_BYTES_MIN: u64 = 16 << 10;

/// Nor is more than this read for nothing, whatever was observed: it takes memory, too.
const GAP_BYTES_MAX: u64 = 2 << 20;

/// A store that answers quicker than this is not worth reading ahead from, in the dark.
const NEAR: Duration = Duration::from_millis(2);

/// What requests to a store cost, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// From the question to the beginning of the answer.
    pub latency: Duration,
    /// How fast the answer to one of the requests under way flows, in bytes per second.
    pub bytes_per_s: u64,
    /// How many requests there may be at once; more only wait for one another.
    pub connections: usize,
}

impl Costs {
    /// A folder of this machine: as many requests as there are cores.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self { latency: Duration::from_millis(1), bytes_per_s: 256 << 20, connections: cores() }
    }

    /// How many bytes between two wanted ranges are read rather than asked around.
    ///
    /// With `n` requests under way, each flowing at `b`, a gap of `g` bytes takes `g / (n b)` of
    /// the run's time, and another request takes `latency / n`: the number of requests cancels
    /// out, and the two are even at `latency` times `b`.
    #[must_use]
    pub fn gap_bytes(&self) -> u64 {
        let even = self.latency.as_nanos() * u128::from(self.bytes_per_s) / 1_000_000_000;
        u64::try_from(even).unwrap_or(u64::MAX).clamp(GAP_BYTES_MIN, GAP_BYTES_MAX)
    }

    /// Whether asking takes so long that it is worth asking for what may be wanted next.
    #[must_use]
    pub fn is_far(&self) -> bool {
        self.latency >= NEAR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn costs(latency_ms: u64, mib_per_s: u64) -> Costs {
        let latency = Duration::from_millis(latency_ms);
        Costs { latency, bytes_per_s: mib_per_s << 20, connections: 8 }
    }

    #[test]
    fn a_gap_is_worth_what_flows_while_one_waits() {
        assert_eq!(costs(50, 20).gap_bytes(), 1 << 20);
        assert_eq!(costs(1, 256).gap_bytes(), (256 << 20) / 1000);
        assert_eq!(costs(0, 1000).gap_bytes(), GAP_BYTES_MIN);
        assert_eq!(costs(10_000, 1000).gap_bytes(), GAP_BYTES_MAX);
        assert!(costs(50, 1).is_far() && !Costs::of_this_machine().is_far());
    }

    proptest! {
        /// Reading on takes no longer than asking anew, within the bounds, and one more byte would.
        #[test]
        fn the_gap_is_where_both_ways_are_even(ms in 0_u64..100_000, rate in 1_u64..1 << 40) {
            let costs = Costs { bytes_per_s: rate, ..costs(ms, 1) };
            let gap = costs.gap_bytes();
            let bytes_while_waiting = u128::from(ms) * u128::from(rate) / 1000;
            prop_assert!((GAP_BYTES_MIN..=GAP_BYTES_MAX).contains(&gap));
            prop_assert!(gap == GAP_BYTES_MIN || u128::from(gap) <= bytes_while_waiting);
            prop_assert!(gap == GAP_BYTES_MAX || u128::from(gap) >= bytes_while_waiting);
        }
    }
}
