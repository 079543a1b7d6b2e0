//! When is a service back? At the *start* of the first window of length `hold` in which every
//! acceptance probe stayed green.
//!
//! That instant is known only `hold` later. A sample is green at the moment its answer is
//! complete, so a window begins where the last of the probes first answered. A red answer
//! begins all anew; one that the prober itself could not ask says nothing either way, and a
//! probe that falls silent keeps the window from closing.

use std::time::Duration;

use muster_model::Light;

/// A sample of a probe, in time since the run's clock began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Which probe, by its place in the plan.
    pub probe: usize,
    /// When it asked.
    pub began: Duration,
    /// When it had its answer.
    pub ended: Duration,
    /// The answer.
    pub light: Light,
}

/// Watches for the held window.
#[derive(Debug, Clone)]
pub struct Hold {
    hold: Duration,
    probes: Vec<Streak>,
    held_since: Option<Duration>,
    broken: bool,
}

/// What one probe has seen.
#[derive(Debug, Clone, Copy, Default)]
struct Streak {
    /// The end of the first green sample of the current streak.
    since: Option<Duration>,
    /// The end of the last green sample of the current streak.
    until: Option<Duration>,
    first_green: Option<Duration>,
    samples: u64,
    failures: u64,
}

/// What a probe saw in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The end of its first green sample.
    pub first_green: Option<Duration>,
    /// Samples that say something.
    pub samples: u64,
    /// Red ones among them.
    pub failures: u64,
}

impl Hold {
    /// Watches `n_probes` probes for a window of `hold`.
    #[must_use]
    pub fn new(n_probes: usize, hold: Duration) -> Self {
        Self { hold, probes: vec![Streak::default(); n_probes], held_since: None, broken: false }
    }

    /// Takes a sample in. Later samples of a probe must come later.
    pub fn see(&mut self, sighting: &Sighting) {
        let Some(streak) = self.probes.get_mut(sighting.probe) else { return };
        match sighting.light {
            Light::Green => {
                streak.samples += 1;
                streak.since.get_or_insert(sighting.ended);
                streak.first_green.get_or_insert(sighting.ended);
                streak.until = Some(sighting.ended);
            }
            Light::Red => {
                streak.samples += 1;
                streak.failures += 1;
                self.broken |= streak.since.is_some();
                streak.since = None;
                streak.until = None;
            }
            Light::Unknown => {}
        }
        if self.held_since.is_none() {
            self.held_since = self.window().filter(|window| window.is_held).map(|w| w.since);
        }
    }

    /// The start of the held window, once it is known.
    #[must_use]
    pub fn held_since(&self) -> Option<Duration> {
        self.held_since
    }

    /// Since when all probes are green, whether or not it has lasted long enough.
    #[must_use]
    pub fn green_since(&self) -> Option<Duration> {
        self.window().map(|window| window.since)
    }

    /// A probe was green and then red: the service came back and died again.
    #[must_use]
    pub fn was_broken(&self) -> bool {
        self.broken
    }

    /// What each probe saw.
    pub fn tallies(&self) -> impl Iterator<Item = Tally> {
        self.probes.iter().map(|streak| Tally {
            first_green: streak.first_green,
            samples: streak.samples,
            failures: streak.failures,
        })
    }

    fn window(&self) -> Option<Window> {
        let mut since = Duration::ZERO;
        let mut until = Duration::MAX;
        for streak in &self.probes {
            since = since.max(streak.since?);
            until = until.min(streak.until?);
        }
        // Zero probes never show that anything is back.
        let is_held = until.checked_sub(since).is_some_and(|length| length >= self.hold);
        (!self.probes.is_empty()).then_some(Window { since, is_held })
    }
}

struct Window {
    since: Duration,
    is_held: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds samples written as `probe light at_s` and tells the start of the held window.
    fn check(n_probes: usize, hold_s: u64, samples: &str, expected_s: Option<u64>) -> Hold {
        let mut hold = Hold::new(n_probes, Duration::from_secs(hold_s));
        for sample in samples.split(',').filter(|sample| !sample.trim().is_empty()) {
            let mut words = sample.split_whitespace();
            let mut next = || words.next().unwrap();
            let probe = next().parse().unwrap();
            let light = match next() {
                "green" => Light::Green,
                "red" => Light::Red,
                _ => Light::Unknown,
            };
            let at = Duration::from_secs(next().parse().unwrap());
            hold.see(&Sighting { probe, began: at, ended: at, light });
        }
        assert_eq!(hold.held_since(), expected_s.map(Duration::from_secs), "{samples}");
        hold
    }

    #[test]
    fn the_window_begins_where_the_last_probe_turned_green() {
        check(2, 5, "0 green 1, 1 red 1, 1 green 3, 0 green 7, 1 green 7", None);
        check(2, 5, "0 green 1, 1 red 1, 1 green 3, 0 green 8, 1 green 8", Some(3));
    }

    #[test]
    fn a_red_answer_begins_all_anew() {
        let hold = check(1, 5, "0 green 1, 0 green 4, 0 red 5, 0 green 6, 0 green 11", Some(6));
        assert!(hold.was_broken());
        assert!(!check(1, 5, "0 red 1, 0 green 2, 0 green 7", Some(2)).was_broken());
    }

    #[test]
    fn silence_and_unknown_answers_hold_nothing() {
        check(1, 5, "0 green 1, 0 unknown 6", None);
        check(2, 5, "0 green 1, 1 green 1, 0 green 20", None);
        check(1, 5, "0 green 1, 0 unknown 3, 0 green 6", Some(1));
    }

    #[test]
    fn what_was_held_stays_held() {
        check(1, 2, "0 green 1, 0 green 3, 0 red 4", Some(1));
    }

    #[test]
    fn no_probes_prove_nothing() {
        check(0, 0, "", None);
        let mut hold = Hold::new(0, Duration::ZERO);
        hold.see(&Sighting {
            probe: 0,
            began: Duration::ZERO,
            ended: Duration::ZERO,
            light: Light::Green,
        });
        assert_eq!(hold.held_since(), None);
    }

    #[test]
    fn tallies_count_what_was_seen() {
        let hold = check(1, 5, "0 red 1, 0 unknown 2, 0 green 3, 0 green 4", None);
        let tally = hold.tallies().next().unwrap();
        let expected = Tally { first_green: Some(Duration::from_secs(3)), samples: 3, failures: 1 };
        assert_eq!(tally, expected);
    }
}
