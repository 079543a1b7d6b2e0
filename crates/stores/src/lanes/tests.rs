//! Lanes over stores that are formulas.

use super::*;
use proptest::prelude::*;

/// A store whose throughput follows from how many requests are under way, in requests of 1 MiB
/// per second.
type Store = fn(f64) -> f64;

/// Each request takes 50 ms, whatever else there is.
const FAR: Store = |n| n / 0.05;
/// A line that three requests fill.
const NARROW: Store = |n| (n / 0.05).min(60.0);
/// A disk that seeks the more the more is asked of it.
const THRASHING: Store = |n| 200.0 / (1.0 + 0.2 * (n - 4.0).abs());

/// Asks for `requests`; gives the lanes at the end of each tenth of them, and the mean throughput
/// of the second half. `noise` is drawn from for each request, from 0 to 1.
fn ask(
    lanes: &mut Lanes,
    store: Store,
    requests: u32,
    mut noise: impl FnMut() -> f64,
) -> (Vec<u32>, f64) {
    let (mut now, mut seen, mut half) = (Duration::ZERO, Vec::new(), Duration::ZERO);
    for request in 0..requests {
        let rate = store(f64::from(lanes.open())) * (0.8 + 0.4 * noise());
        now += Duration::from_secs_f64(1.0 / rate);
        lanes.answered(now, 1 << 20, true);
        if request % (requests / 10) == 0 {
            seen.push(lanes.open());
        }
        if request == requests / 2 {
            half = now;
        }
    }
    (seen, f64::from(requests / 2) / (now - half).as_secs_f64())
}

fn still() -> f64 {
    0.5
}

#[test]
fn latency_is_met_with_as_many_as_allowed() {
    let mut lanes = Lanes::new(10);
    let (seen, rate) = ask(&mut lanes, FAR, 4000, still);
    assert!(seen[1..].iter().all(|&n| n >= 9), "{seen:?}");
    assert!(rate > 0.95 * FAR(10.0), "{rate}");
}

#[test]
fn a_full_line_gets_no_more_than_it_takes() {
    let mut lanes = Lanes::new(32);
    let (seen, rate) = ask(&mut lanes, NARROW, 4000, still);
    assert!(seen[5..].iter().all(|&n| n <= 5), "{seen:?}");
    assert!(rate > 0.9 * NARROW(32.0), "{rate}");
}

#[test]
fn where_more_do_harm_fewer_are_used() {
    let mut lanes = Lanes::new(64);
    let (seen, rate) = ask(&mut lanes, THRASHING, 8000, still);
    assert!(rate > 0.85 * THRASHING(4.0), "{rate} {seen:?}");
}

#[test]
fn a_store_that_asks_for_mercy_gets_half() {
    let mut lanes = Lanes::new(16);
    ask(&mut lanes, FAR, 4000, still);
    let before = lanes.open();
    lanes.troubled();
    assert_eq!(lanes.open(), before / 2);
    (0..10).for_each(|_| lanes.troubled());
    assert_eq!(lanes.open(), 1);
    ask(&mut lanes, FAR, 4000, still);
    assert!(lanes.open() > 8, "it comes back: {}", lanes.open());
}

#[test]
fn who_asks_for_little_learns_nothing() {
    let mut lanes = Lanes::new(16);
    for second in 0..1000 {
        lanes.answered(Duration::from_secs(second), 1, false);
        assert_eq!(lanes.open(), AT_FIRST);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is observed, the bound holds and something goes on.
    #[test]
    fn the_bound_is_never_passed(
        max in 0_u32..100,
        observed in prop::collection::vec((0_u64..500, 0_u64..1 << 40, 0_u8..8), 0..2000),
    ) {
        let (mut lanes, mut now) = (Lanes::new(max), Duration::ZERO);
        for (gone, bytes, kind) in observed {
            now += Duration::from_millis(gone);
            match kind {
                0 => lanes.troubled(),
                kind => lanes.answered(now, bytes, kind > 1),
            }
            prop_assert!((1..=max.max(1)).contains(&lanes.open()));
        }
    }

    /// Noise makes it wander, not stray.
    #[test]
    fn noise_costs_little(seed in any::<u64>(), which in 0_usize..3) {
        let (store, best) = [(FAR, FAR(16.0)), (NARROW, NARROW(16.0)), (THRASHING, 200.0)][which];
        let mut state = seed | 1;
        let noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(u32::try_from(state >> 32).unwrap()) / f64::from(u32::MAX)
        };
        let (seen, rate) = ask(&mut Lanes::new(16), store, 20_000, noise);
        prop_assert!(rate > 0.85 * best, "{} of {} {:?}", rate, best, seen);
    }
}
