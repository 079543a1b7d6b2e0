//! `muster report`

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ValueEnum, ValueHint};
use jiff::{SignedDuration, Timestamp};
use muster_model::units::parse_duration;
use muster_operations::{
    report::{ReportData, html, markdown},
    reporting,
};

use super::open;
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, visible_path},
    workspace::PlanArgs,
};

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How far back
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = parse_duration)]
    since: Duration,
    /// The file; its ending says the format [default: standard output]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// The format [default: by the file's ending, Markdown on standard output]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

const EXAMPLES: &str = "Examples:
  muster report -o report.html            one file, nothing else needed; prints well
  muster report --since 30d -o report.md
  muster report --json | jq .kpis";

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A page that needs nothing else.
    Html,
    /// For a pull request or a terminal.
    Markdown,
    /// For programs.
    Json,
}

/// Writes a report.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let format = format(args, output.is_json())?;
    let workspace = open(plan, output)?;
    let now = Timestamp::now();
    let back = SignedDuration::try_from(args.since).unwrap_or(SignedDuration::MAX);
    let since = now.checked_sub(back).unwrap_or(Timestamp::MIN);
    let data = reporting::gather(&workspace, since)?;
    let text = render(&data, format)?;
    match &args.output {
        Some(path) => {
            write(path, &text)?;
            output.message(format_args!("the report is in {}", visible_path(path)));
        }
        None => output.text(&text)?,
    }
    Ok(Exit::Done)
}

fn format(args: &Args, json: bool) -> Result<Format, Failure> {
    if let Some(format) = args.format {
        return Ok(format);
    }
    let Some(path) = &args.output else {
        return Ok(if json { Format::Json } else { Format::Markdown });
    };
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => Ok(Format::Html),
        Some("md" | "markdown") => Ok(Format::Markdown),
        Some("json") => Ok(Format::Json),
        _ => Err(Failure::usage(format!("tell the format of {}", visible_path(path)))
            .help("end the file's name in .html, .md or .json, or give --format")),
    }
}

fn render(data: &ReportData, format: Format) -> Result<String, Failure> {
    Ok(match format {
        Format::Html => html::render(data),
        Format::Markdown => markdown::render(data),
        Format::Json => {
            let text = serde_json::to_string_pretty(data);
            text.map_err(|error| Failure::usage("write the report as JSON").caused_by(&error))?
                + "\n"
        }
    })
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
    written.map_err(|error| {
        drop(fs::remove_file(&partial));
        crate::output::output_failure(error)
    })
}
