//! Files and folders: backed up as they lie there, restored straight into a folder.
//!
//! Files have no transactions. Each is read once, while others may change, so a snapshot of files
//! is as of a span of time that begins at `data_time`; data that must be of one moment belongs
//! into a database, or is made still by whoever owns it. What cannot be read is left out and
//! listed, and the snapshot is partial.
//!
//! A path that is itself a symbolic link is followed, once, and told of: a snapshot of a link
//! holds no data. Links *below* a path are kept as links.

mod checksums;
mod damage;
mod error;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use muster_repository::{
    backup::backup,
    environment::Environment,
    exclude::Patterns,
    id::SnapshotId,
    repository::{IndexedRepository, Repository},
    run::Run,
};

pub use checksums::{Difference, Mismatch, checksums};
pub use damage::{Damaged, damage};
pub use error::FilesError;

use crate::{
    capture::{Captured, Notice, Request, Restored},
    error::{AmbiguousName, RestoreDataError, SourceError},
    layout::{self, PATHS_TAG},
    record,
    restore::{RestoreSettings, restore_data},
};

/// The name under which snapshots of files are tagged.
const SOURCE: &str = "files";

/// Backs up `paths`, without what the patterns `exclude` match.
///
/// # Errors
/// Fails when a path is relative or not UTF-8, two paths have the same last name, a pattern is
/// malformed, none of the paths exists, the repository cannot be written, or the run is
/// cancelled. There is no snapshot then.
pub fn back_up(
    repository: &Repository,
    paths: &[PathBuf],
    exclude: &[String],
    request: &Request,
    environment: &Environment,
    run: &Run,
) -> Result<Captured, SourceError> {
    let mut notices = Vec::new();
    let sources: Vec<PathBuf> =
        paths.iter().map(|path| followed(path, &mut notices)).collect::<Result<_, _>>()?;
    check_names(&sources)?;
    let patterns = Patterns::parse(exclude)?;
    let data_time = environment.now();
    let count = sources.len();
    let mut options = record::options(request, SOURCE, sources, data_time);
    options.tags.push(format!("{PATHS_TAG}{count}"));
    options.filter.patterns = vec![patterns];
    options.excludes = exclude.to_vec();
    let report = backup(repository, options, environment, run)?;
    Ok(record::captured(report, data_time, notices, BTreeMap::new()))
}

/// Brings the files of a snapshot back, straight into `target`: of one folder the content; a
/// single file, and each of several paths, under its last name.
///
/// # Errors
/// As [`restore_data`].
pub fn restore_into(
    repository: &IndexedRepository,
    snapshot: SnapshotId,
    target: &Path,
    settings: RestoreSettings,
    run: &Run,
) -> Result<Restored, RestoreDataError> {
    restore_data(repository, snapshot, target, settings, run)
}

/// Checks that `paths` can be told apart when they are restored into one folder. A plan can ask
/// this before anything is backed up.
///
/// # Errors
/// Fails when two paths have the same last name.
pub fn check_names(paths: &[PathBuf]) -> Result<(), AmbiguousName> {
    let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
    layout::names(paths.iter().map(AsRef::as_ref)).map(drop)
}

/// The path that is read for `path`: where it leads to, when it is a link.
pub(crate) fn followed(path: &Path, notices: &mut Vec<Notice>) -> Result<PathBuf, SourceError> {
    let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
    let real = match is_link {
        true => fs::canonicalize(path)
            .map_err(|source| SourceError::Missing { path: path.to_owned(), source })?,
        false => path.to_owned(),
    };
    if is_link {
        let message = format!("{} is a link: {} is read", path.display(), real.display());
        notices.push(Notice { code: "link-followed", message });
    }
    match real.is_absolute() && real.to_str().is_some() {
        true => Ok(real),
        false => Err(SourceError::Path { path: real.to_string_lossy().into_owned() }),
    }
}
