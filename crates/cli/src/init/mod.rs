//! `muster init`: a plan to begin with, of what is found beside it.
//!
//! It looks and writes one file. Whatever it finds, the plan is one that `plan check` has no
//! error for, and what is there already is never overwritten.

mod detect;
mod find_files;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use muster_plan::{Detected, starter};
use serde::Serialize;

use crate::{
    error::{Failure, Outcome, Problem},
    exit::Exit,
    output::{Output, visible, visible_path},
    workspace::PlanArgs,
};

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

const EXAMPLES: &str = "Looks in the plan's folder for SQLite databases, folders with data and a \
compose file, and for a
PostgreSQL server (DATABASE_URL, PGHOST and the like, or one that listens here). Passwords are \
never
written down. A plan that exists is left as it is (exit code 4).

Examples:
  muster init
  muster init --plan deploy/muster.yaml";

/// Readable by all: a plan holds no secrets.
const MODE: u32 = 0o644;

/// As `--json` prints it.
#[derive(Debug, Serialize)]
struct Written<'a> {
    plan: String,
    detected: Listed<'a>,
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    sqlite_files: &'a [String],
    postgres_urls: &'a [String],
    compose_services: &'a [String],
    folders: &'a [String],
}

/// Writes a plan.
pub(crate) fn run(_args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let path = plan.plan_path();
    if fs::symlink_metadata(&path).is_ok() {
        return Err(exists(&path));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let detected = detect::detect(folder);
    let text = starter(&detected);
    write(&path, &text)?;
    match output.is_json() {
        true => output.json(&Written { plan: visible_path(&path), detected: listed(&detected) })?,
        false => tell(&path, &text, &detected, output)?,
    }
    Ok(Exit::Done)
}

fn listed(detected: &Detected) -> Listed<'_> {
    Listed {
        name: &detected.name,
        sqlite_files: &detected.sqlite_files,
        postgres_urls: &detected.postgres_urls,
        compose_services: &detected.compose_services,
        folders: &detected.folders,
    }
}

/// Writes the plan whole or not at all, and only where there is none.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let temporary = temporary(path);
    let linked = write_new(&temporary, text).and_then(|()| fs::hard_link(&temporary, path));
    // Either it has its name, or it is of no use; if it stays, nobody reads it.
    drop(fs::remove_file(&temporary));
    let written = linked.or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound => Err(error),
        // A file system without links.
        _ => write_new(path, text),
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::new(Problem::PlanUnwritable, format!("write the plan {}", path.display()))
            .caused_by(&error)
            .help("name a file in a folder that exists and may be written, with --plan"),
    })
}

/// A name beside the plan that no other process uses.
fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!("-tmp-{}", std::process::id()));
    path.with_file_name(name)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn exists(path: &Path) -> Failure {
    Failure::new(
        Problem::PlanExists,
        format!("write the plan {}: there is one already", path.display()),
    )
    .help("`muster plan check` says what is missing in it; --plan names another file")
}

/// Tells what was found, and what comes next.
fn tell(path: &Path, text: &str, detected: &Detected, output: &Output) -> Result<(), Failure> {
    if output.is_quiet() {
        return Ok(());
    }
    let mut results = output.results();
    results.line(format_args!("Wrote {}.", visible_path(path)))?;
    results.line(format_args!("\n{}", output.styled("Found", "1")))?;
    for line in found(detected) {
        results.line(format_args!("  {}", visible(line.as_bytes())))?;
    }
    results.line(format_args!("\n{}", output.styled("Next", "1")))?;
    for line in next(path, text) {
        results.line(format_args!("  {}", visible(line.as_bytes())))?;
    }
    results.finish()
}

fn found(detected: &Detected) -> Vec<String> {
    let kinds = [
        ("SQLite", &detected.sqlite_files),
        ("PostgreSQL", &detected.postgres_urls),
        ("folders", &detected.folders),
        ("compose", &detected.compose_services),
    ];
    let kinds = kinds.iter().filter(|(_, all)| !all.is_empty());
    let lines: Vec<String> =
        kinds.map(|(kind, all)| format!("{kind:<10}  {}", all.join(", "))).collect();
    match lines.is_empty() {
        true => vec!["no data: the plan has examples to fill in".to_owned()],
        false => lines,
    }
}

fn next(path: &Path, text: &str) -> [String; 3] {
    let plan = match path == Path::new("muster.yaml") {
        true => String::new(),
        false => format!(" --plan {}", path.display()),
    };
    let service =
        muster_plan::parse(text).plan.and_then(|plan| Some(plan.services.first()?.name.clone()));
    let service = service.unwrap_or_default();
    let row = |number, command: String, about| format!("{number}. {command:<34}  {about}");
    [
        row(
            1,
            format!("muster plan check{plan}"),
            "fill in what it asks for: owner, runbook, probes",
        ),
        row(
            2,
            format!("muster backup{plan}"),
            "after MUSTER_PASSWORD is set; keep it elsewhere too",
        ),
        row(
            3,
            format!("muster drill run {service}{plan}"),
            "lose it, bring it back, and know how long it takes",
        ),
    ]
}
