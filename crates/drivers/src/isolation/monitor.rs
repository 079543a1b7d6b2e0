//! Looking at a rehearsal's processes for as long as it lasts.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Breach, Observer};
use crate::process::{ChildIdentity, kin::Kin};

/// Looks again and again, on a thread of its own: neither a busy runtime nor a hanging
/// probe makes a gap.
#[derive(Debug)]
pub struct Monitor {
    kin: Arc<Mutex<Kin>>,
    breached: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Monitored>>,
}

/// What a monitor saw, and how well it looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Monitored {
    /// How often it looked.
    pub samples: u64,
    /// How often there was a process to look at.
    pub looks: u64,
    /// How many looks failed because `/proc` could not be listed.
    pub failed: u64,
    /// The longest time between the starts of two looks: what was held for less may have been
    /// missed.
    pub gap_max: Duration,
    /// The most processes that a look found.
    pub processes_max: usize,
    /// The most processes of a look that did not let themselves be looked at.
    pub unseen_max: usize,
    /// What they held of production's, each once.
    pub breaches: Vec<Breach>,
}

impl Monitor {
    /// Starts looking every `interval`; 20 ms sees every holder of 100 ms also on a busy
    /// machine. Until [`Monitor::watch`] names a child there is nobody to look at.
    #[must_use]
    pub fn start(observer: Observer, interval: Duration) -> Self {
        let kin = Arc::new(Mutex::new(Kin::default()));
        let (stop, stopped) = channel::<()>();
        let watched = Arc::clone(&kin);
        let breached = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&breached);
        let thread = thread::spawn(move || {
            let (mut seen, mut breaches) = (Monitored::default(), BTreeSet::new());
            let (mut last, mut is_last) = (Instant::now(), false);
            loop {
                let start = Instant::now();
                seen.gap_max = seen.gap_max.max(start - last);
                last = start;
                let mut kin = watched.lock().unwrap_or_else(PoisonError::into_inner);
                seen.add(observer.look_at(&mut kin).ok(), &mut breaches);
                drop(kin);
                told.store(!breaches.is_empty(), Ordering::Relaxed);
                if is_last {
                    seen.breaches = breaches.into_iter().collect();
                    return seen;
                }
                let pause = interval.saturating_sub(start.elapsed());
                is_last = stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
            }
        });
        Self { kin, breached, stop: Some(stop), thread: Some(thread) }
    }

    /// Looks from now on also at this child and all that belongs to it. Call it in `record`,
    /// before the child does anything.
    pub fn watch(&self, child: &ChildIdentity) {
        self.kin.lock().unwrap_or_else(PoisonError::into_inner).add(child);
    }

    /// Whether something of production's was seen already: nothing more should be started then.
    #[must_use]
    pub fn is_breached(&self) -> bool {
        self.breached.load(Ordering::Relaxed)
    }

    /// Looks a last time, stops, and tells what was seen.
    #[must_use]
    pub fn stop(mut self) -> Monitored {
        drop(self.stop.take());
        // It does not panic; if it did, nothing would be proven, and no sample says so.
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Monitored {
    fn add(&mut self, sighting: Option<super::Sighting>, breaches: &mut BTreeSet<Breach>) {
        self.samples += 1;
        let Some(sighting) = sighting else {
            self.failed += 1;
            return;
        };
        self.looks += u64::from(sighting.processes > 0);
        self.processes_max = self.processes_max.max(sighting.processes);
        self.unseen_max = self.unseen_max.max(sighting.unseen);
        breaches.extend(sighting.breaches);
    }
}
