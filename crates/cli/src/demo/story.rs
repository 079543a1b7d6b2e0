//! The story of the demo, told while it happens: each line with its time, as measured.
//!
//! Until the disaster, times count from the start of the demo; from then on, from the disaster.

use std::{
    fmt,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use muster_model::{DrillResult, Verdict, drill::Completeness, units::format_size};
use muster_operations::{
    protect::JobReport,
    records::Record,
    story::{Chapter, Listener},
    workspace::Workspace,
};
use muster_repository::run::Run;

use super::{client::Moment, error::DemoError, prober::Prober};
use crate::{error::Failure, output::Output};

/// Styles, as terminals number them. Colour is for what went well and what was lost.
pub(super) const GOOD: &str = "32";
pub(super) const BAD: &str = "31";
pub(super) const HEADING: &str = "1";
pub(super) const FAINT: &str = "2";

/// What is longer is not told.
const SHORT: usize = 20;

/// Tells.
#[derive(Debug)]
pub(super) struct Story<'o> {
    output: &'o Output,
    began: Instant,
    impact: OnceLock<Moment>,
}

impl<'o> Story<'o> {
    /// Begins.
    pub(super) fn new(output: &'o Output) -> Self {
        Self { output, began: Instant::now(), impact: OnceLock::new() }
    }

    /// From here on times count from the disaster.
    pub(super) fn strikes(&self, at: Moment) {
        self.impact.get_or_init(|| at);
    }

    /// Begins an act.
    pub(super) fn act(&self, title: &str) -> Result<(), Failure> {
        self.output.story(format_args!("\n{}", self.paint(title, HEADING)))
    }

    /// Tells what happened just now.
    pub(super) fn tell(&self, text: impl fmt::Display) -> Result<(), Failure> {
        self.tell_of(Instant::now(), text)
    }

    /// Tells what happened at a moment.
    fn tell_of(&self, at: Instant, text: impl fmt::Display) -> Result<(), Failure> {
        let since = |start: Instant| at.saturating_duration_since(start).as_secs_f64();
        let time = match self.impact.get() {
            Some(impact) => format!("T+{:>4.1} s", since(impact.instant)),
            None => format!("{:>6.1} s", since(self.began)),
        };
        self.output.story(format_args!("  {}  {text}", self.paint(&time, FAINT)))
    }

    /// Tells without a time.
    pub(super) fn plain(&self, text: impl fmt::Display) -> Result<(), Failure> {
        self.output.story(text)
    }

    /// Colours a part of the story.
    pub(super) fn paint(&self, text: &str, style: &str) -> String {
        self.output.paint_story(text, style)
    }

    /// Tells of a recovery point that is in both regions.
    pub(super) fn point(&self, at: Instant, number: usize, point: &Point) -> Result<(), Failure> {
        let Point { orders, bytes, took, lag } = point;
        let text = format!(
            "point {number:<2} {orders:>4} orders, {:>9}  saved in {:.2} s, copied in {:.2} s",
            format_size(*bytes),
            took.as_secs_f64(),
            lag.as_secs_f64(),
        );
        self.tell_of(at, text)
    }
}

/// A recovery point that was saved and copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    orders: u64,
    bytes: u64,
    took: Duration,
    lag: Duration,
}

impl Point {
    /// What a run of the loop made, if it is whole and in both regions.
    pub(super) fn of(report: &JobReport) -> Option<Self> {
        if !report.is_complete() || report.backups.is_empty() || report.copies.is_empty() {
            return None;
        }
        let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or_default();
        let backups = || report.backups.iter();
        Some(Self {
            orders: backups().filter_map(|b| b.rows.get("orders")).map(|rows| rows.0).sum(),
            bytes: backups().filter_map(|backup| backup.bytes).sum(),
            took: backups().filter_map(|backup| backup.took_s).map(seconds).sum(),
            lag: report.copies.iter().map(|copy| seconds(copy.lag_s)).max().unwrap_or_default(),
        })
    }
}

/// The recovered service, as somebody sees it who has no part in the recovery.
#[derive(Debug)]
pub(super) struct Outside {
    /// Where it answers.
    pub(super) url: String,
    /// Who looks.
    pub(super) prober: Prober,
}

/// Listens to the recovery, tells of it, and has somebody outside watch it.
pub(super) struct Teller<'a> {
    story: &'a Story<'a>,
    workspace: &'a Workspace,
    run: &'a Run,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    outside: Option<Outside>,
    failure: Option<Failure>,
}

impl<'a> Teller<'a> {
    /// Tells `story` of a recovery of `workspace`; ends `run` if nobody listens any more.
    pub(super) fn new(story: &'a Story<'a>, workspace: &'a Workspace, run: &'a Run) -> Self {
        Self { story, workspace, run, seen: Mutex::default() }
    }

    /// Fails when the story could not be told.
    ///
    /// # Errors
    ///
    /// As the story did.
    pub(super) fn failure(self) -> Result<(), Failure> {
        let seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        seen.failure.map_or(Ok(()), Err)
    }

    /// Who watched from outside.
    ///
    /// # Errors
    ///
    /// The story could not be told, or nobody watched.
    pub(super) fn outside(self) -> Result<Outside, Failure> {
        let seen = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (seen.failure, seen.outside) {
            (Some(failure), _) => Err(failure),
            (None, Some(outside)) => Ok(outside),
            (None, None) => {
                let nobody = std::io::Error::other("the recovery took no step");
                Err(DemoError::example("watch the recovery")(nobody).into())
            }
        }
    }

    fn told(&self, chapter: &Chapter<'_>) -> Result<(), Failure> {
        let story = self.story;
        match chapter {
            Chapter::StepStarted { .. } => self.watch(),
            Chapter::StepEnded { summary, took, failure: None } => {
                story.tell(format_args!("{} ({:.2} s)", short(summary), took.as_secs_f64()))
            }
            Chapter::StepEnded { summary, failure: Some(why), .. } => {
                story.tell(format_args!("{} {}: {why}", self.bad("failed:"), short(summary)))
            }
            Chapter::Probe { name, green, at, .. } => story.tell(format_args!(
                "{name} turned {} at T+{:.2} s",
                if *green { story.paint("green", GOOD) } else { self.bad("red") },
                at.as_secs_f64()
            )),
            Chapter::Recovered { after, hold } => story.tell(format_args!(
                "all probes stayed green for {} s, from {} on",
                hold.as_secs(),
                story.paint(&format!("T+{:.2} s", after.as_secs_f64()), GOOD)
            )),
            Chapter::Rule(rule) => self.ruled(rule),
            Chapter::DrillStarted { number, .. } => {
                story.tell(format_args!("drill {number} has its place in the signed log"))
            }
            Chapter::CutOff { .. } => story.tell("an imagined disaster: from here on time counts"),
            Chapter::Controls => {
                story.tell("now the same probes against nothing, and against damaged data")
            }
            Chapter::Judged { result } if !result.negative_controls.is_empty() => {
                self.judged(result)
            }
            _ => Ok(()),
        }
    }

    /// What a rule of completeness found; long digests are in the report.
    fn ruled(&self, rule: &Completeness) -> Result<(), Failure> {
        let (name, data) = (&rule.name, &rule.data);
        match (&rule.expected, &rule.actual, rule.ok) {
            (_, _, None) => self.story.tell(format_args!("{name} of {data}: not known")),
            (_, Some(actual), Some(true)) if actual.len() <= SHORT => {
                self.story.tell(format_args!("{name} of {data}: {actual}, as it should be"))
            }
            (_, _, Some(true)) => {
                self.story.tell(format_args!("{name} of {data}: as they should be"))
            }
            (expected, actual, Some(false)) => self.story.tell(format_args!(
                "{name} of {data}: {} expected, {} found",
                expected.as_deref().unwrap_or("?"),
                self.bad(actual.as_deref().unwrap_or("nothing")),
            )),
        }
    }

    /// What a drill found.
    fn judged(&self, result: &DrillResult) -> Result<(), Failure> {
        let text = match result.verdict {
            Verdict::Pass => "each probe was seen red, and production was not touched",
            _ => result.reasons.first().map_or("", String::as_str),
        };
        let style = if result.verdict == Verdict::Pass { GOOD } else { BAD };
        let verdict = self.story.paint(result.verdict.as_str(), style);
        self.story.tell(format_args!("{verdict}: {text}"))
    }

    fn bad(&self, text: &str) -> String {
        self.story.paint(text, BAD)
    }

    /// With the first step, somebody begins to look at the address where the service will be.
    fn watch(&self) -> Result<(), Failure> {
        if self.seen().outside.is_some() {
            return Ok(());
        }
        let history = self.workspace.state.history(&["recovery-started"])?;
        let port = history.iter().rev().find_map(|logged| match &logged.record {
            Record::RecoveryStarted(started) => Some(started.port),
            _ => None,
        });
        if let Some(port) = port {
            let url = format!("http://127.0.0.1:{port}");
            let prober = Prober::start(&url, Prober::EVERY);
            let prober = prober.map_err(DemoError::example("watch the recovery"))?;
            self.seen().outside = Some(Outside { url, prober });
        }
        Ok(())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Teller<'_> {
    fn hear(&self, chapter: &Chapter<'_>) {
        if let Err(failure) = self.told(chapter) {
            self.run.cancel.request("its story cannot be told");
            self.seen().failure.get_or_insert(failure);
        }
    }
}

/// A step in few words: what follows the program's name is in the plan.
fn short(summary: &str) -> String {
    let words: Vec<&str> = summary.split_whitespace().collect();
    match words.as_slice() {
        ["start", program, rest @ ..] => {
            let name = program.rsplit('/').next().unwrap_or(program);
            let verb = rest.first().filter(|word| !word.starts_with('-'));
            format!("start {name} {}", verb.unwrap_or(&"")).trim_end().to_owned()
        }
        _ => summary.to_owned(),
    }
}
