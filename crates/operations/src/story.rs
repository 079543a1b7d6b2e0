//! What happens, told while it happens: to a terminal, a log, or nobody.

use std::time::Duration;

use jiff::Timestamp;
use muster_model::{DrillResult, drill::Completeness};
use muster_plan::template::TargetNames;

/// A part of the story of a drill or a recovery.
#[derive(Debug)]
pub enum Chapter<'a> {
    /// A drill has its number.
    DrillStarted {
        /// The number.
        number: u64,
        /// The service.
        service: &'a str,
    },
    /// Markers are written for so long.
    Marking {
        /// How long.
        long: Duration,
        /// How often.
        every: Duration,
    },
    /// The source did not take a marker.
    MarkerMissed {
        /// Why.
        why: &'a str,
    },
    /// T0.
    CutOff {
        /// By the wall clock.
        at: Timestamp,
    },
    /// A recovery goes on where it was cut off.
    Resumed,
    /// A recovery point was chosen.
    Chosen {
        /// The data item.
        data: &'a str,
        /// The moment whose data it holds.
        data_time: Timestamp,
        /// Where it is read from.
        repository: &'a str,
    },
    /// A copy could not be read, and another one is taken.
    CopySkipped {
        /// Which, and why.
        what: &'a str,
    },
    /// What a recovery leaves running.
    Standing {
        /// Where it answers, and where its data is.
        names: &'a TargetNames,
        /// Its processes.
        pids: &'a [u32],
    },
    /// A step begins.
    StepStarted {
        /// What it does.
        summary: &'a str,
        /// Since T0.
        at: Duration,
    },
    /// A step ended.
    StepEnded {
        /// What it does.
        summary: &'a str,
        /// How long it took.
        took: Duration,
        /// Why it was not done, if so.
        failure: Option<&'a str>,
    },
    /// A probe turned.
    Probe {
        /// Its name.
        name: &'a str,
        /// It is green.
        green: bool,
        /// Since T0.
        at: Duration,
        /// What it saw.
        detail: &'a str,
    },
    /// Every probe has held.
    Recovered {
        /// T5, since T0.
        after: Duration,
        /// How long they held.
        hold: Duration,
    },
    /// A probe never turned green.
    StillRed {
        /// Its name.
        probe: &'a str,
        /// What it saw last.
        detail: &'a str,
    },
    /// A completeness rule was asked.
    Rule(&'a Completeness),
    /// Negative controls begin.
    Controls,
    /// It is over.
    Judged {
        /// The result.
        result: &'a DrillResult,
    },
}

/// Somebody who wants to know.
pub trait Listener: Sync {
    /// Hears a part of the story.
    fn hear(&self, chapter: &Chapter<'_>);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silence;

impl Listener for Silence {
    fn hear(&self, _chapter: &Chapter<'_>) {}
}
