//! The printer: the only place that writes to standard output and standard error.
//!
//! Results go to standard output, one line at a time or as bytes; everything else goes to
//! standard error. A reader of standard output that goes away (`| head`) is no error to tell
//! about, only a reason to stop; a standard error that is closed is no reason to stop at all.

use std::{
    ffi::OsStr,
    fmt,
    io::{self, IsTerminal, StdoutLock, Write},
    os::unix::ffi::OsStrExt,
};

use clap::{ValueEnum, error::ErrorKind};
use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Row, Table};
use jiff::{Timestamp as Moment, tz::TimeZone};
use muster_repository::format::{go_json, time::Timestamp};
use serde::Serialize;

use crate::{
    args::OutputArgs,
    error::{Failure, Problem},
    exit::Exit,
    location::variable_set,
};

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How much is told beside the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Only warnings and errors.
    Quiet,
    /// What one wants to know.
    Normal,
    /// Also the steps (`-v`).
    Verbose,
}

/// The printer.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    verbosity: Verbosity,
    /// Whether messages are coloured.
    colored: bool,
    /// Whether results are coloured.
    results_colored: bool,
}

impl Output {
    /// A printer for what the command line asks.
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let verbosity = match (args.quiet, args.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, _) => Verbosity::Verbose,
        };
        let colored = |is_terminal: bool| match args.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && variable_set("NO_COLOR").is_none(),
        };
        Self {
            json: args.json,
            verbosity,
            colored: colored(io::stderr().is_terminal()),
            results_colored: colored(io::stdout().is_terminal()),
        }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether only warnings and errors are told.
    pub(crate) fn is_quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// How much is told.
    pub(crate) fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Whether results are coloured.
    pub(crate) fn colors_results(&self) -> bool {
        self.results_colored
    }

    /// A piece of a result in a style (the numbers of an escape sequence), where results are
    /// coloured.
    pub(crate) fn styled(&self, text: &str, style: &str) -> String {
        painted(text, style, self.results_colored)
    }

    /// Standard output, for results that are bytes or many lines.
    pub(crate) fn results(&self) -> Results {
        Results {
            to: io::BufWriter::with_capacity(RESULT_BUFFER_BYTES, io::stdout().lock()),
            escape: io::stdout().is_terminal(),
            json: self.json,
        }
    }

    /// Prints text as it is: a document.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut results = self.results();
        results.text(text)?;
        results.finish()
    }

    /// Writes one line of a result.
    pub(crate) fn line(&self, line: impl fmt::Display) -> Result<(), Failure> {
        let mut results = self.results();
        results.line(line)?;
        results.finish()
    }

    /// Writes one line of a result, unless `--quiet`.
    pub(crate) fn summary(&self, line: impl fmt::Display) -> Result<(), Failure> {
        match self.verbosity {
            Verbosity::Quiet => Ok(()),
            _ => self.line(line),
        }
    }

    /// Writes a result as one line of JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut results = self.results();
        results.json(value)?;
        results.finish()
    }

    /// Tells a line of a story that is the result itself: on standard output, or on standard
    /// error where the result is JSON. Nothing with `--quiet`.
    pub(crate) fn story(&self, line: impl fmt::Display) -> Result<(), Failure> {
        match (self.verbosity, self.json) {
            (Verbosity::Quiet, _) => Ok(()),
            (_, true) => {
                notice(line);
                Ok(())
            }
            (_, false) => self.line(line),
        }
    }

    /// Colours a part of a story, if the stream that it goes to is coloured.
    pub(crate) fn paint_story(&self, text: &str, style: &str) -> String {
        match if self.json { self.colored } else { self.results_colored } {
            true => format!("\x1b[{style}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// Tells what is going on, unless `--quiet` or `--json`.
    pub(crate) fn message(&self, text: impl fmt::Display) {
        self.tell_from(Verbosity::Normal, text);
    }

    /// Tells a step, with `-v`.
    pub(crate) fn verbose(&self, text: impl fmt::Display) {
        self.tell_from(Verbosity::Verbose, text);
    }

    fn tell_from(&self, verbosity: Verbosity, text: impl fmt::Display) {
        if self.verbosity >= verbosity && !self.json {
            notice(visible_lines(&text.to_string()));
        }
    }

    /// Warns: something is not as expected, and the work goes on.
    pub(crate) fn warning(&self, text: impl fmt::Display) {
        match self.json {
            true => warn(true, text),
            false => {
                let text = visible(text.to_string().as_bytes());
                notice(format_args!("{} {text}", self.paint("warning:", "1;33")));
            }
        }
    }

    /// Writes a line of JSON to standard error.
    pub(crate) fn error_json(&self, value: &impl Serialize) {
        // Values of our own always serialize; if not, there is no better way to tell.
        notice(serde_json::to_string(value).unwrap_or_default());
    }

    /// Tells of a failure and gives the exit code that belongs to it.
    pub(crate) fn failure(&self, failure: &Failure) -> Exit {
        if failure.code == Problem::OutputClosed.code() {
            return Exit::Failed;
        }
        match self.json {
            true => self.error_json(&serde_json::json!({
                "error": Failure { message: cannot(&failure.message), ..failure.clone() },
            })),
            false => notice(self.failure_text(failure)),
        }
        Exit::from(failure.class)
    }

    /// Tells of a failure at one item of many, and gives the exit code that belongs to it.
    pub(crate) fn item_failure(&self, path: &[u8], failure: &Failure) -> Exit {
        let message = format!("{} ({})", failure.message, visible(path));
        self.failure(&Failure { message, ..failure.clone() })
    }

    fn failure_text(&self, failure: &Failure) -> String {
        let mut text = format!(
            "{} {}",
            self.paint("error:", "1;31"),
            visible(cannot(&failure.message).as_bytes())
        );
        for cause in &failure.causes {
            text.push_str("\n  cause: ");
            text.push_str(&visible(cause.as_bytes()));
        }
        if let Some(help) = &failure.help {
            text.push_str("\n  help: ");
            text.push_str(&visible(help.as_bytes()));
        }
        text
    }

    fn paint(&self, text: &str, style: &str) -> String {
        painted(text, style, self.colored)
    }
}

/// How many items are named that vanished during a backup; the rest are counted.
pub(crate) const VANISHED_SHOWN: usize = 5;

/// What a partial snapshot is, for those who restore one.
pub(crate) const PARTIAL: &str =
    "something could not be read when it was made, or was lost since, and is not in it";

fn painted(text: &str, style: &str, colored: bool) -> String {
    match colored {
        true => format!("\x1b[{style}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

/// The library phrases what it could not do so that this word fits before it.
fn cannot(message: &str) -> String {
    // What was found out, and not what could not be done, is a sentence already.
    let is_sentence = ["cannot ", "the ", "it "].iter().any(|begin| message.starts_with(begin));
    if is_sentence { message.to_owned() } else { format!("cannot {message}") }
}

/// Warns from a thread that has no printer: as [`Output::warning`], without colours.
pub(crate) fn warn(json: bool, text: impl fmt::Display) {
    match json {
        true => notice(serde_json::json!({
            "message_type": "warning",
            "message": text.to_string(),
        })),
        false => notice(format_args!("warning: {}", visible(text.to_string().as_bytes()))),
    }
}

/// Writes a line to standard error; when that is closed, nobody wants to know.
pub(crate) fn notice(text: impl fmt::Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Tells what is wrong with the command line, or prints the help that it asked for.
pub(crate) fn usage_error(error: &clap::Error) -> Exit {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // The arguments were not understood, so this one is looked for by hand.
    let json = !is_help && std::env::args_os().any(|argument| argument == "--json");
    if json {
        let text = error.render().to_string();
        let message = text.trim_start_matches("error: ").trim_end();
        let verbosity = Verbosity::Normal;
        let output = Output { json, verbosity, colored: false, results_colored: false };
        output.error_json(&serde_json::json!({"error": {
            "code": Problem::Usage.code(),
            "class": muster_model::Class::Input.as_str(),
            "message": message,
            "help": "see the command's --help",
            "causes": [],
        }}));
    } else {
        // A closed pipe under a help text is nobody's problem.
        drop(error.print());
    }
    if is_help { Exit::Done } else { Exit::Usage }
}

/// Long listings are written in pieces of this size: a system call a line would be slow.
const RESULT_BUFFER_BYTES: usize = 64 << 10;

/// Standard output while a result is written. Call [`Results::finish`] at the end.
pub(crate) struct Results {
    to: io::BufWriter<StdoutLock<'static>>,
    /// Whether control characters in names are made visible: a terminal would obey them.
    escape: bool,
    json: bool,
}

impl Results {
    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.to, "{line}").map_err(output_failure)
    }

    /// Whether the result is JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes text without a line end.
    pub(crate) fn text(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        write!(self.to, "{text}").map_err(output_failure)
    }

    /// Writes a line with a name, whose bytes may be anything, and perhaps a second one.
    pub(crate) fn name_line(
        &mut self,
        before: &str,
        name: &[u8],
        between: &str,
        second: &[u8],
    ) -> Result<(), Failure> {
        let shown = |name: &[u8]| match self.escape {
            true => visible(name).into_bytes(),
            false => name.to_vec(),
        };
        let parts = [before.as_bytes(), &shown(name), between.as_bytes(), &shown(second), b"\n"];
        self.to.write_all(&parts.concat()).map_err(output_failure)
    }

    /// Writes a value as one line of JSON, as Go would: restic's shapes hold names of any bytes.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        self.json_value(value)?;
        self.text("\n")
    }

    /// Writes a value as JSON, without a line end.
    pub(crate) fn json_value(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        go_json::to_writer(&mut self.to, value).map_err(|error| output_failure(error.into()))
    }

    /// Writes what is still held back.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.to.flush().map_err(output_failure)
    }
}

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// What a failure to write a result means.
pub(crate) fn output_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Problem::OutputClosed, ""),
        _ => Failure::new(Problem::OutputFailed, "write the result")
            .help("make room where it goes, or send it elsewhere; what the command did stays done")
            .caused_by(&error),
    }
}

/// A name as a terminal may see it: control characters and bytes that are no UTF-8 are
/// escaped.
pub(crate) fn visible(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character.is_control() {
                true => text.extend(character.escape_default()),
                false => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A text of several lines as a terminal may see it; see [`visible`].
fn visible_lines(text: &str) -> String {
    text.lines().map(|line| visible(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

/// A path as a message may show it; see [`visible`].
pub(crate) fn visible_path(path: impl AsRef<OsStr>) -> String {
    visible(path.as_ref().as_bytes())
}

/// Writes a moment as people read it, in `zone`: `2024-03-01 09:00:00`.
pub(crate) fn local_time(time: &Timestamp, zone: &TimeZone) -> String {
    match Moment::from_second(time.seconds()) {
        Ok(moment) => moment.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        // A year that has no local form is shown as it is stored.
        Err(_) => time.to_string(),
    }
}

/// How many columns, from the left, are never broken.
const UNBROKEN_COLUMNS: usize = 2;

/// Narrower tables are harder to read than lines that the terminal breaks.
const TABLE_WIDTH_MIN: u16 = 80;

/// A table as it is printed: without blanks at the ends of its lines, which only hinder those who
/// copy or compare them.
pub(crate) struct Listing(Table);

impl Listing {
    /// Adds a row.
    pub(crate) fn add_row(&mut self, row: impl Into<Row>) {
        self.0.add_row(row);
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.trim_fmt())
    }
}

/// A plain table: a header, a line below it, no borders. As wide as the terminal at most.
pub(crate) fn table(header: &[&str]) -> Listing {
    Listing(plain(header, terminal_width()))
}

fn plain(header: &[&str], terminal: Option<u16>) -> Table {
    let mut table = Table::new();
    let style =
        comfy_table::presets::NOTHING.header_separator(LineStyle::none().fill('-').junction('-'));
    table.load_style(style).set_header(header.iter().copied());
    match terminal {
        Some(width) => {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width.max(TABLE_WIDTH_MIN));
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        // An id or a time in pieces is of no use; tags and paths may be broken.
        if index < UNBROKEN_COLUMNS {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}

/// Columns of the terminal that standard output is, if it is one.
pub(crate) fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_steer_the_terminal() {
        assert_eq!(visible("grün/ä".as_bytes()), "grün/ä");
        assert_eq!(visible(b"a\x1b[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(visible(b"caf\xe9"), "caf\\xe9");
    }

    #[test]
    fn failures_are_told_with_causes_and_help() {
        let verbosity = Verbosity::Quiet;
        let output = Output { json: false, verbosity, colored: false, results_colored: false };
        let failure = Failure::usage("open the repository")
            .caused_by(&io::Error::other("the disk is on fire"))
            .help("put it out");
        let expected = "error: cannot open the repository\n  cause: the disk is on fire\n  help: \
                        put it out";
        assert_eq!(output.failure_text(&failure), expected);
    }

    #[test]
    fn no_line_of_a_table_ends_in_a_blank() {
        for terminal in [None, Some(80), Some(200)] {
            for column in 0..3 {
                let mut listing = Listing(plain(&["Point", "Age", "Proof"], terminal));
                // The widest cell in each column in turn, the last one empty, one in two lines.
                let mut long = [String::new(), String::new(), String::new()];
                long[column] = "wide ".repeat(30);
                listing.add_row(long);
                listing.add_row(["a", "b", ""]);
                listing.add_row(["one\ntwo", "b", "c\nd "]);
                let text = listing.to_string();
                let blank: Vec<&str> =
                    text.lines().filter(|line| *line != line.trim_end()).collect();
                assert!(blank.is_empty(), "{terminal:?}, {column}: {blank:?}");
                assert!(text.starts_with("Point") && text.lines().count() > 4, "{text}");
            }
        }
    }

    #[test]
    fn times_are_local() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let time = Timestamp::new(1_700_000_000, 5, 0);
        assert_eq!(local_time(&time, &zone), "2023-11-15 00:13:20");
    }
}
