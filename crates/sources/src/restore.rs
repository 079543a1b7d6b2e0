//! Bringing data back, straight into a folder.
//!
//! The snapshot alone decides how: its tag `muster:source=…` names the source, and
//! [`layout`](crate::layout) what goes where. Neither plan nor state is asked, since a disaster
//! may have taken both.
//!
//! Whoever calls this holds a shared lock on the repository, so that nothing is deleted
//! meanwhile.

use std::{
    fs::{self, File, FileTimes, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use muster_model::Fault;
use muster_repository::{
    format::{mode::unix_mode, snapshot::Snapshot, tree::Node},
    id::{BlobId, SnapshotId},
    repository::IndexedRepository,
    restore::{Choice, Overwrite, RestoreOptions, RestoreReport, restore, warm},
    run::Run,
};
use rustix::fs::XattrFlags;

use crate::{
    capture::Restored,
    error::RestoreDataError,
    layout::{Layout, Named},
    postgres,
    record::{SOURCE_TAG, tag_value},
    source::SourceKind,
    sqlite,
};

/// How a restore treats what lies in the target already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreSettings {
    /// What to do about a target that is not empty; by default it is refused.
    pub overwrite: Overwrite,
    /// Remove what is in the target and not in the snapshot.
    pub delete: bool,
    /// Read every restored file back and compare it before it gets its name.
    pub verify: bool,
}

/// Brings the data of a snapshot back, straight into `target`, which is made when missing.
///
/// # Errors
/// Fails when the target is not empty and overwriting was not chosen, when the snapshot cannot
/// be read or is of no known source, when the target cannot be written, and when the run is
/// cancelled. What concerns single files is in the answer.
pub fn restore_data(
    repository: &IndexedRepository,
    snapshot: SnapshotId,
    target: &Path,
    settings: RestoreSettings,
    run: &Run,
) -> Result<Restored, RestoreDataError> {
    let found = repository.snapshot(snapshot)?;
    match source_kind(&found).ok_or(RestoreDataError::UnknownSource { snapshot })? {
        SourceKind::Files | SourceKind::Command => {
            restore_paths(repository, &found, target, settings, run)
        }
        SourceKind::Sqlite => sqlite::restore_found(repository, &found, target, settings, run),
        SourceKind::Postgres => {
            let overwrite = settings.overwrite;
            Ok(postgres::restore_into(repository, snapshot, target, overwrite, None, run)?)
        }
    }
}

/// What a snapshot is of, by its tags; `None` when Muster did not make it for a plan.
#[must_use]
pub fn source_kind(snapshot: &Snapshot) -> Option<SourceKind> {
    tag_value(snapshot, SOURCE_TAG).and_then(SourceKind::from_name)
}

/// Restores the paths of a snapshot as its layout says.
pub(crate) fn restore_paths(
    repository: &IndexedRepository,
    snapshot: &Snapshot,
    target: &Path,
    settings: RestoreSettings,
    run: &Run,
) -> Result<Restored, RestoreDataError> {
    let layout = Layout::of(repository, snapshot)?;
    let path = layout.path(target);
    let restored = Restored { path, bytes: 0, files: 0, left_out: Vec::new(), damaged: false };
    let mut job = Job { repository, target, settings, run, restored };
    match layout {
        Layout::Content { tree, folder } => {
            job.restore(tree, None)?;
            if let Some(folder) = folder {
                take_over(target, &folder).map_err(|s| failed("set the mode of", target, s))?;
            }
        }
        Layout::Names(named) => job.restore_named(&named)?,
    }
    Ok(job.restored)
}

struct Job<'a> {
    repository: &'a IndexedRepository,
    target: &'a Path,
    settings: RestoreSettings,
    run: &'a Run,
    restored: Restored,
}

impl Job<'_> {
    fn restore(&mut self, tree: BlobId, name: Option<&str>) -> Result<(), RestoreDataError> {
        let report = restore(self.repository, tree, &self.options(name), self.run)?;
        self.count(&report);
        Ok(())
    }

    fn options(&self, name: Option<&str>) -> RestoreOptions {
        let mut options = RestoreOptions::new(self.target);
        options.overwrite = self.settings.overwrite;
        options.delete = self.settings.delete;
        options.verify = self.settings.verify;
        if let Some(name) = name {
            let wanted = format!("/{name}").into_bytes();
            options.select = Some(Arc::new(move |path, _| {
                let below = path.strip_prefix(&wanted[..]);
                let selected = below.is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
                Choice { selected, child_may_be_selected: selected }
            }));
        }
        options
    }

    fn restore_named(&mut self, named: &[Named]) -> Result<(), RestoreDataError> {
        // One wait for all that is archived, not one for each.
        let options: Vec<_> = named.iter().map(|named| self.options(Some(&named.name))).collect();
        let all: Vec<_> = named.iter().map(|named| named.parent).zip(&options).collect();
        warm(self.repository, &all, self.run)?;
        for Named { parent, name } in named {
            self.restore(*parent, Some(name))?;
            // From the second on, what the target holds is what the first put there.
            if self.settings.overwrite == Overwrite::Refuse {
                self.settings.overwrite = Overwrite::Always;
            }
        }
        if self.settings.delete {
            remove_others(self.target, named).map_err(|source| {
                failed("remove what is not in the snapshot from", self.target, source)
            })?;
        }
        Ok(())
    }

    fn count(&mut self, report: &RestoreReport) {
        let restored = &mut self.restored;
        restored.bytes += report.counts.bytes_restored;
        restored.files += report.counts.files_restored;
        restored.damaged |= report.found_damage();
        let listed = report.problems.iter();
        restored
            .left_out
            .extend(listed.map(|problem| {
                format!("cannot {problem}: {} ({})", problem.cause, problem.code())
            }));
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> RestoreDataError {
    RestoreDataError::Target { operation, path: path.to_owned(), source }
}

/// Removes what lies in the target under other names than those restored.
fn remove_others(target: &Path, named: &[Named]) -> io::Result<()> {
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        if named.iter().any(|named| entry.file_name() == named.name.as_str()) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Gives the target what the folder had whose content it now holds, as `rsync -a FOLDER/ TARGET`
/// does. The engine leaves a target as it is, since a whole snapshot's root has nothing to give.
/// Owners and attributes are given as far as the user may.
fn take_over(target: &Path, folder: &Node) -> io::Result<()> {
    drop(std::os::unix::fs::lchown(target, Some(folder.uid), Some(folder.gid)));
    for attribute in &folder.extended_attributes {
        let name = attribute.name.as_str();
        rustix::fs::lsetxattr(target, name, &attribute.value, XattrFlags::empty()).ok();
    }
    fs::set_permissions(target, Permissions::from_mode(unix_mode(folder.mode)))?;
    let seconds = u64::try_from(folder.mtime.seconds()).unwrap_or(0);
    let mtime = SystemTime::UNIX_EPOCH + Duration::new(seconds, folder.mtime.nanoseconds());
    // Without the right to read it, it cannot be opened, and keeps its time.
    match File::open(target) {
        Ok(open) => open.set_times(FileTimes::new().set_modified(mtime)),
        Err(_) => Ok(()),
    }
}

/// The file that a snapshot of a single file is restored as.
pub(crate) fn single_file(snapshot: &Snapshot, target: &Path) -> Option<PathBuf> {
    match &snapshot.paths[..] {
        [path] => Path::new(path).file_name().map(|name| target.join(name)),
        _ => None,
    }
}
