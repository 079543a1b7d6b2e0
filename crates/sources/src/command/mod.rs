//! What a command prints, backed up as one file.
//!
//! The stages of a pipeline are started one by one, without a shell, and the end of *each* is
//! looked at: `pg_dump | gzip` whose first stage fails gives a valid file of 20 bytes and a last
//! stage that is content. When any stage fails there is no snapshot. A result that is smaller
//! than it can well be is backed up and told of.
//!
//! Each stage is the head of a process group of its own. The groups are killed when the run is
//! cancelled, when a stage cannot be started, and when the backup fails: nothing goes on that
//! nobody waits for. Of the environment only a few variables are handed on, lest a password of
//! Muster's reach a program that has no business with it.

mod pipeline;
mod size;

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use muster_model::{Class, Fault};
use muster_repository::{
    backup::{BackupError, Stream, backup_stream},
    environment::Environment,
    repository::Repository,
    run::{Cancelled, Run},
};
use thiserror::Error;

pub use pipeline::StageFailure;

use self::pipeline::Pipeline;
use crate::{
    capture::{Captured, Request},
    error::SourceError,
    record,
};

/// The name under which snapshots of commands are tagged.
const SOURCE: &str = "command";

/// What stands between two stages.
const PIPE: &str = "|";

/// A dump may hold anything; it is nobody's business but its owner's.
const DUMP_MODE: u32 = 0o600;

/// Backs up what `argv` prints, as the file `file`. The element `|` separates the stages of a
/// pipeline. Of the environment, the usual variables (`PATH`, `HOME`, locale, …) are handed on
/// and those that `env` names.
///
/// # Errors
/// Fails when the command or the file's name makes no sense, a stage cannot be started or fails,
/// the repository cannot be written, or the run is cancelled. There is no snapshot then.
pub fn back_up(
    repository: &Repository,
    argv: &[String],
    file: &str,
    request: &Request,
    env: &[String],
    environment: &Environment,
    run: &Run,
) -> Result<Captured, SourceError> {
    let stages = stages(argv)?;
    check_file_name(file)?;
    let before = size::of_last_snapshot(repository, request, SOURCE);
    let data_time = environment.now();
    let (pipeline, content) = Pipeline::start(&stages, env, run)?;
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&failures);
    let finish = move || match pipeline.finish() {
        found if found.is_empty() => Ok(()),
        found => {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = found;
            Err("a stage of the command failed".to_owned())
        }
    };
    let path = Path::new("/").join(file);
    let stream = Stream { path, content: Box::new(content), finish: Box::new(finish) };
    let mut options = record::options(request, SOURCE, Vec::new(), data_time);
    options.stream_mode = DUMP_MODE;
    let result = backup_stream(repository, options, stream, environment, run);
    let report = result.map_err(|error| explain(error, &failures, run))?;
    let mut captured = record::captured(report, data_time, Vec::new(), BTreeMap::new());
    captured.notices.extend(size::implausible(captured.bytes, before));
    Ok(captured)
}

/// Why the backup failed: a run that was cancelled killed its stages, so that comes first.
fn explain(error: BackupError, failures: &Mutex<Vec<StageFailure>>, run: &Run) -> SourceError {
    if let Err(cancelled) = run.cancel.check() {
        return CommandError::Cancelled(cancelled).into();
    }
    let stages = std::mem::take(&mut *failures.lock().unwrap_or_else(PoisonError::into_inner));
    match (&error, stages.is_empty()) {
        (BackupError::Stream(_), false) => CommandError::Failed { stages }.into(),
        _ => error.into(),
    }
}

/// The stages of a pipeline, each a program and its arguments.
fn stages(argv: &[String]) -> Result<Vec<&[String]>, CommandError> {
    let stages: Vec<_> = argv.split(|word| word == PIPE).collect();
    let is_empty = |stage: &&[String]| stage.first().is_none_or(String::is_empty);
    match stages.iter().any(is_empty) {
        true => Err(CommandError::Invalid("a stage has no program")),
        false => Ok(stages),
    }
}

fn check_file_name(name: &str) -> Result<(), CommandError> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    match plain {
        true => Ok(()),
        false => {
            Err(CommandError::Invalid("the file's name is empty, a dot, or has a slash in it"))
        }
    }
}

/// A command could not be backed up.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The command or the file's name makes no sense.
    #[error("back up the command: {0}")]
    Invalid(&'static str),
    /// A stage could not be started.
    #[error("start the command '{program}'")]
    Start {
        /// Its program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A stage failed.
    #[error("run the command: {}", shown(stages))]
    Failed {
        /// Those that failed, in their order.
        stages: Vec<StageFailure>,
    },
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn shown(stages: &[StageFailure]) -> String {
    stages.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Fault for CommandError {
    fn class(&self) -> Class {
        match self {
            Self::Invalid(_) => Class::Input,
            Self::Start { .. } | Self::Failed { .. } => Class::Transient,
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "command-invalid",
            Self::Start { .. } => "source-command",
            Self::Failed { .. } => "command-failed",
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Invalid(_) => "write the program and its arguments as a list, and a plain name",
            Self::Start { .. } => "check its name; it is looked up in PATH",
            Self::Failed { .. } => "run it by hand; there is no snapshot",
            Self::Cancelled(error) => return error.help(),
        };
        Some(help.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(argv: &[&str], expected: Option<&[&[&str]]>) {
        let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
        let found = stages(&argv).ok();
        let found = found.as_ref().map(|found| {
            found.iter().map(|s| s.iter().map(String::as_str).collect()).collect::<Vec<Vec<_>>>()
        });
        assert_eq!(found, expected.map(|stages| stages.iter().map(|s| s.to_vec()).collect()));
    }

    #[test]
    fn stages_are_parted_by_a_bar_of_its_own() {
        check(&["pg_dump", "shop"], Some(&[&["pg_dump", "shop"]]));
        check(&["a", "x|y", "|", "b"], Some(&[&["a", "x|y"], &["b"]]));
        check(&[], None);
        check(&["a", "|"], None);
        check(&["|", "a"], None);
        check(&["a", "|", "|", "b"], None);
        check(&["a", "|", "", "b"], None);
    }

    #[test]
    fn the_file_has_a_plain_name() {
        assert!(check_file_name("shop.sql").is_ok());
        for name in ["", ".", "..", "a/b", "/a", "a\0"] {
            assert!(check_file_name(name).is_err(), "{name:?}");
        }
    }
}
