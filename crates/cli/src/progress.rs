//! Shows how far a running operation is.
//!
//! The operation counts; a thread here looks at the counters and shows them: as one line that
//! moves on a terminal, as a plain line every ten seconds elsewhere (with `-v`), or as JSON: for
//! backup and restore restic's status lines among the results, for all else lines like these on
//! standard error, since the result is one document. The engine never waits for the display.

use std::{
    io::{self, IsTerminal},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use muster_model::units::{counted, format_duration, format_size};
use muster_repository::run::{Progress, ProgressReading};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    location::variable_set,
    output::{Output, Verbosity, notice, visible},
};

/// How often a terminal is refreshed: often enough to look alive.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(100);

/// How often a plain line is written where nobody is watching, but a log is kept.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How often a line of JSON is written among results.
const JSON_INTERVAL: Duration = Duration::from_secs(1);

/// The rate is that of the last seconds rather than of the whole run, which may have changed
/// from small files to large ones.
const RATE_WINDOW: Duration = Duration::from_secs(15);

/// Say how often instead, in times a second. With it plain lines need no `-v`.
const RATE_VARIABLES: [&str; 2] = ["MUSTER_PROGRESS_FPS", "RESTIC_PROGRESS_FPS"];

/// No display is refreshed more often.
const RATE_MAX: f64 = 60.0;

/// What the counted bytes and files are called, and what form they have in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Files read; restic's status lines of `backup`.
    Backup,
    /// Files written; restic's status lines of `restore`.
    Restore,
    /// Anything else; status lines on standard error.
    Plain {
        /// What is counted.
        items: &'static str,
    },
}

/// Blobs that are copied.
pub(crate) const COPY: Shape = Shape::Plain { items: "blobs" };

/// Whether the progress of an operation of this shape would be shown; only then is it worth
/// counting what there is to do.
pub(crate) fn is_shown(output: &Output, shape: Shape) -> bool {
    Display::choose(output, shape).is_some()
}

/// Runs `work` while its progress is shown.
pub(crate) fn shown<T>(
    output: &Output,
    progress: &Arc<Progress>,
    shape: Shape,
    work: impl FnOnce() -> T,
) -> T {
    let Some(display) = Display::choose(output, shape) else { return work() };
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let progress = Arc::clone(progress);
    thread::scope(|scope| {
        scope.spawn(move || {
            let interval = asked_interval().unwrap_or(display.interval());
            let mut view = View::new(display, shape);
            if matches!(view.display, Display::Json) {
                view.show(&progress.read());
            }
            // The sender is dropped when the work is done, which ends the wait.
            while wait.recv_timeout(interval) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                view.show(&progress.read());
            }
            view.clear();
        });
        // Moved into this closure, so that it is dropped even when the work panics.
        let _done = done;
        work()
    })
}

enum Display {
    Terminal(ProgressBar),
    Lines,
    /// On standard output.
    Json,
    /// On standard error.
    JsonAside,
}

impl Display {
    fn choose(output: &Output, shape: Shape) -> Option<Self> {
        if output.verbosity() == Verbosity::Quiet {
            return None;
        }
        if output.is_json() {
            return Some(match shape {
                Shape::Backup | Shape::Restore => Self::Json,
                Shape::Plain { .. } => Self::JsonAside,
            });
        }
        if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // The template is a constant and valid; the default style would do, too.
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            return Some(Self::Terminal(bar));
        }
        let is_asked = output.verbosity() >= Verbosity::Verbose || asked_interval().is_some();
        is_asked.then_some(Self::Lines)
    }

    fn interval(&self) -> Duration {
        match self {
            Self::Terminal(_) => TERMINAL_INTERVAL,
            Self::Lines | Self::JsonAside => LINE_INTERVAL,
            Self::Json => JSON_INTERVAL,
        }
    }
}

/// The interval that the environment asks for. What is no number above 0 asks for nothing.
fn asked_interval() -> Option<Duration> {
    let rate = RATE_VARIABLES.into_iter().find_map(variable_set)?;
    interval_of(rate.to_str()?)
}

fn interval_of(rate: &str) -> Option<Duration> {
    let rate: f64 = rate.parse().ok().filter(|rate| *rate > 0.0)?;
    Duration::try_from_secs_f64(rate.min(RATE_MAX).recip()).ok()
}

struct View {
    display: Display,
    shape: Shape,
    started: Instant,
    rate: Rate,
}

impl View {
    fn new(display: Display, shape: Shape) -> Self {
        Self { display, shape, started: Instant::now(), rate: Rate::default() }
    }

    fn show(&mut self, reading: &ProgressReading) {
        let elapsed = self.started.elapsed();
        let bytes_a_second = self.rate.note(elapsed, reading.bytes_done);
        match &self.display {
            Display::Terminal(bar) => {
                let line = status_line(reading, self.shape, elapsed, bytes_a_second);
                bar.set_message(line);
            }
            Display::Lines => notice(status_line(reading, self.shape, elapsed, bytes_a_second)),
            Display::JsonAside => {
                let line = status_json(reading, self.shape, elapsed, bytes_a_second);
                notice(line.trim_end());
            }
            Display::Json => {
                let line = status_json(reading, self.shape, elapsed, bytes_a_second);
                // When nobody reads standard output any more, the result will find out.
                drop(io::Write::write_all(&mut io::stdout().lock(), line.as_bytes()));
            }
        }
    }

    fn clear(&self) {
        if let Display::Terminal(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// Bytes a second over the last [`RATE_WINDOW`].
#[derive(Debug, Default)]
struct Rate {
    samples: std::collections::VecDeque<(Duration, u64)>,
}

impl Rate {
    fn note(&mut self, elapsed: Duration, bytes: u64) -> Option<f64> {
        self.samples.push_back((elapsed, bytes));
        while self.samples.len() > 2 && elapsed - self.samples[1].0 >= RATE_WINDOW {
            self.samples.pop_front();
        }
        let (since, before) = *self.samples.front()?;
        let seconds = (elapsed - since).as_secs_f64();
        // Below half a second the figure would only flicker.
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        (seconds >= 0.5).then(|| bytes.saturating_sub(before) as f64 / seconds)
    }
}

/// `[1m 05s] 41.3%  1204 files 1.20 GiB, total 5678 files 2.91 GiB, 101 MiB/s, 17s left`.
fn status_line(
    reading: &ProgressReading,
    shape: Shape,
    elapsed: Duration,
    bytes_a_second: Option<f64>,
) -> String {
    let items = match shape {
        Shape::Backup => "file",
        Shape::Restore => "item",
        Shape::Plain { items } => items.strip_suffix('s').unwrap_or(items),
    };
    let mut line = format!("[{}] ", format_duration(elapsed));
    if let Some(fraction) = fraction_done(reading) {
        line.push_str(&format!("{:.1}%  ", fraction * 100.0));
    }
    line.push_str(&counted(reading.files_done, items));
    if reading.bytes_done > 0 || reading.bytes_total.is_some_and(|bytes| bytes > 0) {
        line.push_str(&format!(" {}", format_size(reading.bytes_done)));
    }
    if let (Some(files), Some(bytes)) = (reading.files_total, reading.bytes_total) {
        let about = if reading.is_guess { "about " } else { "" };
        line.push_str(&format!(", total {about}{}", counted(files, items)));
        if bytes > 0 {
            line.push_str(&format!(" {}", format_size(bytes)));
        }
    }
    if reading.errors > 0 {
        line.push_str(&format!(", {}", counted(reading.errors, "error")));
    }
    if let Some(rate) = bytes_a_second.filter(|rate| *rate >= 1.0) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 1")]
        line.push_str(&format!(", {}/s", format_size(rate as u64)));
    }
    if let Some(left) = time_left(reading, bytes_a_second) {
        line.push_str(&format!(", {} left", format_duration(left)));
    }
    if !reading.current.is_empty() {
        line.push_str(&format!("  {}", visible(reading.current.as_bytes())));
    }
    line
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn fraction_done(reading: &ProgressReading) -> Option<f64> {
    let of = |done: u64, total: u64| (total > 0).then(|| (done as f64 / total as f64).min(1.0));
    of(reading.bytes_done, reading.bytes_total?)
        .or_else(|| of(reading.files_done, reading.files_total?))
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn time_left(reading: &ProgressReading, bytes_a_second: Option<f64>) -> Option<Duration> {
    let left = reading.bytes_total?.saturating_sub(reading.bytes_done) as f64;
    let rate = bytes_a_second.filter(|rate| *rate >= 1.0)?;
    Duration::try_from_secs_f64(left / rate).ok().filter(|_| left > 0.0)
}

/// A status line like restic's, with the names of what is counted: `total_packs`, `packs_done`.
struct PlainStatus<'a> {
    reading: &'a ProgressReading,
    items: &'static str,
    seconds_elapsed: u64,
    seconds_remaining: u64,
}

impl Serialize for PlainStatus<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { reading, items, seconds_elapsed, seconds_remaining } = self;
        let numbers = [
            ("seconds_elapsed".to_owned(), *seconds_elapsed),
            ("seconds_remaining".to_owned(), *seconds_remaining),
            (format!("total_{items}"), reading.files_total.unwrap_or(0)),
            (format!("{items}_done"), reading.files_done),
            ("total_bytes".to_owned(), reading.bytes_total.unwrap_or(0)),
            ("bytes_done".to_owned(), reading.bytes_done),
            ("error_count".to_owned(), reading.errors),
        ];
        let mut object = to.serialize_map(None)?;
        object.serialize_entry("message_type", "status")?;
        object.serialize_entry("percent_done", &fraction_done(reading).unwrap_or(0.0))?;
        for (name, number) in numbers.iter().filter(|(_, number)| *number > 0) {
            object.serialize_entry(name, number)?;
        }
        if !reading.current.is_empty() {
            object.serialize_entry("current", &reading.current)?;
        }
        object.end()
    }
}

/// restic's status line of `backup` and of `restore`.
#[derive(Serialize)]
struct Status {
    message_type: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    seconds_elapsed: u64,
    #[serde(skip_serializing_if = "is_zero")]
    seconds_remaining: u64,
    percent_done: f64,
    #[serde(skip_serializing_if = "is_zero")]
    total_files: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_restored: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    total_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_restored: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    error_count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    current_files: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn status_json(
    reading: &ProgressReading,
    shape: Shape,
    elapsed: Duration,
    bytes_a_second: Option<f64>,
) -> String {
    let seconds_remaining = time_left(reading, bytes_a_second).map_or(0, |left| left.as_secs());
    if let Shape::Plain { items } = shape {
        let seconds_elapsed = elapsed.as_secs();
        return json_line(&PlainStatus { reading, items, seconds_elapsed, seconds_remaining });
    }
    let files = Some(reading.files_done).filter(|files| *files > 0);
    let bytes = Some(reading.bytes_done).filter(|bytes| *bytes > 0);
    let (backup, restore) = (shape == Shape::Backup, shape == Shape::Restore);
    let current = Some(reading.current.clone()).filter(|name| backup && !name.is_empty());
    let status = Status {
        message_type: "status",
        seconds_elapsed: elapsed.as_secs(),
        seconds_remaining,
        percent_done: fraction_done(reading).unwrap_or(0.0),
        total_files: reading.files_total.unwrap_or(0),
        files_done: files.filter(|_| !restore),
        files_restored: files.filter(|_| restore),
        total_bytes: reading.bytes_total.unwrap_or(0),
        bytes_done: bytes.filter(|_| !restore),
        bytes_restored: bytes.filter(|_| restore),
        error_count: reading.errors,
        current_files: current.into_iter().collect(),
    };
    json_line(&status)
}

fn json_line(status: &impl Serialize) -> String {
    // Numbers and text always serialize.
    let mut line = serde_json::to_string(status).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> ProgressReading {
        ProgressReading {
            files_done: 12,
            bytes_done: 1 << 20,
            files_total: Some(48),
            bytes_total: Some(4 << 20),
            is_guess: false,
            errors: 1,
            current: "/srv/a\nb".to_owned(),
        }
    }

    #[test]
    fn lines_tell_rate_and_time_left() {
        let check = |reading: &ProgressReading, shape, rate, expected: &str| {
            let line = status_line(reading, shape, Duration::from_secs(65), rate);
            assert_eq!(line, expected);
        };
        check(
            &reading(),
            Shape::Backup,
            Some(262_144.0),
            "[1m 05s] 25.0%  12 files 1.00 MiB, total 48 files 4.00 MiB, 1 error, 256 KiB/s, \
             12s left  /srv/a\\nb",
        );
        let like_before = ProgressReading { is_guess: true, errors: 0, ..reading() };
        let told = "[1m 05s] 25.0%  12 files 1.00 MiB, total about 48 files 4.00 MiB  /srv/a\\nb";
        check(&like_before, Shape::Backup, None, told);
        let counting = ProgressReading { files_done: 3, ..ProgressReading::default() };
        check(&counting, Shape::Plain { items: "packs" }, None, "[1m 05s] 3 packs");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.note(Duration::ZERO, 0), None);
        assert_eq!(rate.note(Duration::from_secs(10), 1000), Some(100.0));
        assert_eq!(rate.note(Duration::from_secs(20), 1000), Some(50.0));
        assert_eq!(rate.note(Duration::from_secs(30), 1000), Some(0.0));
    }

    #[test]
    fn json_is_that_of_restic() {
        let elapsed = Duration::from_secs(4);
        let line = status_json(&reading(), Shape::Restore, elapsed, None);
        let expected = r#"{"message_type":"status","seconds_elapsed":4,"percent_done":0.25,"total_files":48,"files_restored":12,"total_bytes":4194304,"bytes_restored":1048576,"error_count":1}"#;
        assert_eq!(line.trim_end(), expected);
        let line = status_json(&ProgressReading::default(), Shape::Backup, Duration::ZERO, None);
        assert_eq!(line, "{\"message_type\":\"status\",\"percent_done\":0.0}\n");
    }

    #[test]
    fn json_of_all_else_names_what_is_counted() {
        let (packs, elapsed) = (Shape::Plain { items: "packs" }, Duration::from_secs(4));
        let reading = ProgressReading { current: "packs".to_owned(), ..reading() };
        let line = status_json(&reading, packs, elapsed, Some(524_288.0));
        let expected = r#"{"message_type":"status","percent_done":0.25,"seconds_elapsed":4,"seconds_remaining":6,"total_packs":48,"packs_done":12,"total_bytes":4194304,"bytes_done":1048576,"error_count":1,"current":"packs"}"#;
        assert_eq!(line.trim_end(), expected);
        // Where no bytes are counted, the items tell how much is done.
        let items = ProgressReading {
            files_done: 1,
            files_total: Some(4),
            bytes_total: Some(0),
            ..ProgressReading::default()
        };
        let line = status_json(&items, Shape::Plain { items: "snapshots" }, Duration::ZERO, None);
        let expected = r#"{"message_type":"status","percent_done":0.25,"total_snapshots":4,"snapshots_done":1}"#;
        assert_eq!(line.trim_end(), expected);
    }

    #[test]
    fn the_environment_says_how_often() {
        assert_eq!(interval_of("0.5"), Some(Duration::from_secs(2)));
        assert_eq!(interval_of("1000"), interval_of("60"));
        for nonsense in ["", "0", "-1", "nan", "often"] {
            assert_eq!(interval_of(nonsense), None, "{nonsense}");
        }
    }
}
