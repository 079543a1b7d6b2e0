//! An outside prober: asks a service for its health again and again, and writes down when.
//!
//! It shares nothing with the recovery that it watches, so that what `muster demo` measures is
//! confirmed by somebody who was not involved.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::{Client, StatusCode};
use tokio::time::{MissedTickBehavior, interval};

use super::client::{self, Moment, Stop, Worker, locked};

/// A service that takes longer is not well.
const TIMEOUT: Duration = Duration::from_secs(1);

/// One look at the service.
#[derive(Debug, Clone, Copy)]
struct Look {
    asked: Instant,
    answered: Moment,
    green: bool,
}

/// Looks at a service until it is stopped, or dropped.
#[derive(Debug)]
pub(crate) struct Prober {
    looks: Arc<Mutex<Vec<Look>>>,
    worker: Worker,
}

impl Prober {
    /// How often to look, unless one has reason for another pace.
    pub(crate) const EVERY: Duration = Duration::from_millis(10);

    /// Starts to ask the service at `url` for its health. The service need not be there yet.
    ///
    /// # Errors
    ///
    /// The system has no thread or file descriptor left.
    pub(crate) fn start(url: &str, every: Duration) -> io::Result<Self> {
        let looks = Arc::new(Mutex::new(Vec::new()));
        let (http, health) = (client::http(TIMEOUT)?, format!("{url}/health"));
        let all = looks.clone();
        let worker = Worker::start("prober", move |stop| watch(http, health, every, all, stop))?;
        Ok(Self { looks, worker })
    }

    /// When the service was first seen green, if not asked before `instant`.
    pub(crate) fn first_green_after(&self, instant: Instant) -> Option<Moment> {
        self.first_after(instant, true)
    }

    /// When the service was first seen not green, if not asked before `instant`.
    pub(crate) fn first_red_after(&self, instant: Instant) -> Option<Moment> {
        self.first_after(instant, false)
    }

    /// Looks no more.
    pub(crate) fn stop(&mut self) {
        self.worker.stop();
    }

    fn first_after(&self, instant: Instant, green: bool) -> Option<Moment> {
        let looks = locked(&self.looks);
        let found = looks.iter().find(|look| look.asked >= instant && look.green == green);
        found.map(|look| look.answered)
    }
}

async fn watch(
    http: Client,
    health: String,
    every: Duration,
    looks: Arc<Mutex<Vec<Look>>>,
    mut stop: Stop,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            _ = ticks.tick() => {}
        }
        let asked = Instant::now();
        let answer = http.get(&health).send().await;
        let green = answer.is_ok_and(|answer| answer.status() == StatusCode::OK);
        locked(&looks).push(Look { asked, answered: Moment::now(), green });
    }
}
