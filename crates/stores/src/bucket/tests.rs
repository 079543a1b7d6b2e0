//! The limit, held against lines in made-up time.

use std::{cmp::Reverse, collections::BinaryHeap};

use proptest::prelude::*;

use super::*;

/// What takes bytes, and how the machine and the line behave.
#[derive(Debug, Clone)]
struct World {
    bytes_per_s: u64,
    /// Takers at once; each takes its next piece when the last one flowed.
    takers: usize,
    /// Bytes that each of them moves.
    bytes: u64,
    /// How much each of them wants at once: it takes it in pieces.
    wants: u64,
    /// Each wait lasts up to so much longer than was told, in turn.
    late: Duration,
    /// From so many seconds on, nothing flows for so many seconds.
    stall: (f64, f64),
}

impl World {
    fn new(bytes_per_s: u64) -> Self {
        let bytes = 4 * bytes_per_s;
        let (late, stall) = (Duration::ZERO, (0.0, 0.0));
        Self { bytes_per_s, takers: 1, bytes, wants: 16 << 20, late, stall }
    }

    /// When how many bytes flowed, in order.
    fn run(&self) -> Vec<(f64, u64)> {
        let mut bucket = Bucket::new(self.bytes_per_s, Duration::ZERO);
        let piece_max = bucket.piece_bytes() as u64;
        // Who asks next: when, who, and what it has left.
        let mut askers: BinaryHeap<Reverse<(Duration, usize, u64)>> =
            (0..self.takers).map(|who| Reverse((Duration::ZERO, who, self.bytes))).collect();
        let mut turns = vec![None; self.takers];
        let (mut flowed, mut waits) = (Vec::new(), 0_u32);
        while let Some(Reverse((now, who, left))) = askers.pop() {
            let of_want = match left % self.wants {
                0 => self.wants,
                part => part,
            };
            let piece = of_want.min(piece_max);
            if let Some(wait) = bucket.take(now, piece, &mut turns[who]) {
                waits += 1;
                let late = self.late * (waits % 4) / 3;
                askers.push(Reverse((self.stalled(now + wait + late), who, left)));
                continue;
            }
            flowed.push((now.as_secs_f64(), piece));
            if left > piece {
                askers.push(Reverse((now, who, left - piece)));
            }
        }
        flowed.sort_by(|a, b| a.0.total_cmp(&b.0));
        flowed
    }

    fn stalled(&self, at: Duration) -> Duration {
        let (from, seconds) = self.stall;
        let within = (from..from + seconds).contains(&at.as_secs_f64());
        if within { Duration::from_secs_f64(from + seconds) } else { at }
    }
}

/// The most bytes that flowed in a second, wherever it begins.
fn most_in_a_second(flowed: &[(f64, u64)]) -> u64 {
    let (mut most, mut sum, mut first) = (0, 0, 0);
    for &(at, bytes) in flowed {
        sum += bytes;
        while flowed[first].0 <= at - 1.0 {
            sum -= flowed[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

fn as_share(bytes: u64, of: u64) -> f64 {
    as_f64(bytes) / as_f64(of)
}

/// Never more than 5 % above the limit in any second; over all, no less than 5 % below.
#[track_caller]
fn check(world: &World) {
    let flowed = world.run();
    let most = as_share(most_in_a_second(&flowed), world.bytes_per_s);
    assert!(most <= 1.05, "{most} of the limit in a second: {world:?}");
    let all: u64 = flowed.iter().map(|(_, bytes)| bytes).sum();
    let last = flowed.last().map_or(0.0, |(at, _)| *at) - world.stall.1;
    let mean = as_f64(all) / last / as_f64(world.bytes_per_s);
    assert!((0.95..=1.05).contains(&mean), "{mean} of the limit: {world:?}");
}

const RATES: [u64; 7] = [1 << 10, 10_000, 50_000, 128_000, 1 << 20, 12_500_000, 200 << 20];

#[test]
fn one_taker_keeps_the_limit() {
    for rate in RATES {
        check(&World::new(rate));
    }
}

#[test]
fn many_takers_keep_it_together() {
    for rate in RATES {
        check(&World { takers: 10, bytes: rate, ..World::new(rate) });
    }
}

#[test]
fn small_files_keep_it() {
    for rate in RATES {
        check(&World { takers: 4, bytes: rate, wants: 300, ..World::new(rate) });
    }
}

#[test]
fn a_line_that_stalled_does_not_catch_up() {
    for rate in RATES {
        check(&World { takers: 10, bytes: rate / 2, stall: (1.7, 30.0), ..World::new(rate) });
    }
}

/// A machine that is busy wakes takers late; they come to their due all the same.
#[test]
fn takers_that_are_woken_late_lose_nothing() {
    for rate in RATES {
        let late = Duration::from_millis(20);
        check(&World { late, ..World::new(rate) });
        check(&World { late, takers: 5, bytes: rate, ..World::new(rate) });
    }
}

/// Asks until it gets a piece of 20 bytes from a bucket of 1000 a second; tells when.
fn served(bucket: &mut Bucket, mut now: Duration, turn: &mut Option<Turn>) -> Duration {
    while let Some(wait) = bucket.take(now, 20, turn) {
        now += wait;
    }
    now
}

#[test]
fn silence_saves_up_almost_nothing() {
    let (mut bucket, hour) = (Bucket::new(1000, Duration::ZERO), Duration::from_secs(3600));
    assert_eq!(bucket.piece_bytes(), 20);
    assert_eq!(served(&mut bucket, hour, &mut None), hour);
    assert_eq!(served(&mut bucket, hour, &mut None), hour);
    assert_eq!(served(&mut bucket, hour, &mut None), hour + Duration::from_millis(12));
}

#[test]
fn takers_queue() {
    let mut bucket = Bucket::new(1000, Duration::ZERO);
    let (mut first, mut second) = (None, None);
    let ms = Duration::from_millis;
    assert_eq!(bucket.take(ms(0), 20, &mut first), Some(ms(20)));
    assert_eq!(bucket.take(ms(0), 20, &mut second), Some(ms(40)));
    assert_eq!(bucket.take(ms(21), 20, &mut second), Some(ms(19)), "it is the other's turn");
    assert_eq!(bucket.take(ms(22), 20, &mut first), None);
    assert_eq!(bucket.take(ms(22), 20, &mut first), Some(ms(38)), "behind the other");
    assert_eq!(bucket.take(ms(40), 20, &mut second), None);
    assert_eq!(bucket.take(ms(60), 20, &mut first), None);
}

#[test]
fn who_does_not_come_keeps_nobody_waiting() {
    let mut bucket = Bucket::new(1000, Duration::ZERO);
    let (mut stalled, mut other) = (None, None);
    assert!(bucket.take(Duration::ZERO, 20, &mut stalled).is_some());
    let mut now = Duration::ZERO;
    for _ in 0..100 {
        now = served(&mut bucket, now, &mut other);
    }
    // What it cost was one wait for the one that did not come.
    assert!(now <= Duration::from_millis(2000 + 50), "{now:?}");
    assert!(served(&mut bucket, now, &mut stalled) <= now + Duration::from_millis(50));
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let mut bucket = Bucket::new(1000, Duration::from_secs(10));
    let waited = bucket.take(Duration::from_secs(5), 20, &mut None);
    assert_eq!(waited, Some(Duration::from_millis(20)));
}

proptest! {
    /// Whatever is taken, by however many: what was let through by a moment is what the rate
    /// allows until then and one burst, and so in every second. Waking late delays bytes, so that
    /// many of a later second may come from before; nothing is ever too early.
    #[test]
    fn nothing_flows_too_early(
        rate in 1_000_u64..100_000_000,
        takers in 1_usize..12,
        wants in 1_u64..1 << 20,
        late_ms in 0_u64..100,
        stall in (0.0..2.0, 0.0..5.0),
    ) {
        let late = Duration::from_millis(late_ms);
        let bytes = (rate / takers as u64).min(wants * 300);
        let world = World { takers, bytes, wants, late, stall, ..World::new(rate) };
        let mut sum = 0;
        for (at, bytes) in world.run() {
            sum += bytes;
            prop_assert!(as_f64(sum) <= as_f64(rate) * (at + 0.05) + 1.0, "{world:?}");
        }
    }
}
