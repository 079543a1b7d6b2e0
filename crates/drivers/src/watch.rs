//! Watching: every probe asked again and again at its own fixed rate.
//!
//! Each probe has a task of its own, so that one that hangs until its timeout delays no other.
//! A tick that passes while a sample runs is left out and not made up for: samples never come in
//! bunches, and no probe is asked twice at the same time.

use std::time::{Duration, Instant};

use muster_model::{Light, Probe};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::probe::{ProbeSecrets, Prober};

/// How many observations may wait to be read. A reader that is slower than that slows the
/// probes down: a gap between samples is seen by whoever judges them, a lost sample is not.
const WAITING_MAX: usize = 1024;
/// The shortest interval; zero would be no rate.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// One sample of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Which of the probes, in the order in which they were given.
    pub probe_index: usize,
    /// When the question began, counted from the origin.
    pub at: Duration,
    /// When the answer was complete, counted from the origin.
    pub end: Duration,
    /// Green, red, or not known.
    pub light: Light,
    /// Why, on one line, without secrets.
    pub detail: String,
}

/// A watch that goes on until it is stopped or dropped.
#[derive(Debug)]
pub struct Watch {
    tasks: JoinSet<()>,
}

impl Watch {
    /// Asks every probe now and from then on at its interval. Times are counted from `origin`;
    /// the probes' texts must be rendered already. The receiver ends when the watch does.
    #[must_use]
    pub fn start(
        prober: &Prober,
        probes: Vec<(Probe, ProbeSecrets)>,
        origin: Instant,
    ) -> (Self, mpsc::Receiver<Observation>) {
        Self::start_eager(prober, probes, origin, None)
    }

    /// As [`Watch::start`]; a probe whose last answer was not green asks again after `eager`
    /// already, so that the moment at which it turns green is known as exactly as that.
    #[must_use]
    pub fn start_eager(
        prober: &Prober,
        probes: Vec<(Probe, ProbeSecrets)>,
        origin: Instant,
        eager: Option<Duration>,
    ) -> (Self, mpsc::Receiver<Observation>) {
        let (send, receive) = mpsc::channel(WAITING_MAX);
        let mut tasks = JoinSet::new();
        for (probe_index, (probe, secrets)) in probes.into_iter().enumerate() {
            let (prober, send) = (prober.clone(), send.clone());
            tasks.spawn(async move {
                let mut ticks = interval(probe.interval.max(INTERVAL_MIN));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
                ticks.tick().await;
                loop {
                    let sample = prober.ask(&probe, &secrets).await;
                    let at = sample.started.saturating_duration_since(origin);
                    let end = at + sample.took;
                    let (light, detail) = (sample.light, sample.detail);
                    let observation = Observation { probe_index, at, end, light, detail };
                    if send.send(observation).await.is_err() {
                        return;
                    }
                    match eager.filter(|_| light != Light::Green) {
                        Some(pause) => {
                            sleep(pause.min(probe.interval)).await;
                            ticks.reset();
                        }
                        None => drop(ticks.tick().await),
                    }
                }
            });
        }
        (Self { tasks }, receive)
    }

    /// Stops at once; samples that are running are given up.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}
