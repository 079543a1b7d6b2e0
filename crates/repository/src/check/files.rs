//! The files outside packs and indexes: config, keys, locks, snapshots.

use super::{
    CheckError,
    findings::Findings,
    parallel::{asking_threads, each_on_threads},
    report::{Damage, Problem, Subject},
};
use crate::{
    format::{
        FormatError,
        config::Config,
        key_file::{KEY_FILE_BYTES_MAX, KeyFile},
        lock_file::{LOCK_FILE_BYTES_MAX, LockFile},
        snapshot::Snapshot,
        time::Timestamp,
        unpacked::{UNPACKED_BYTES_MAX, open_json},
    },
    id::{BlobId, SnapshotId},
    repository::{Repository, verify_digest},
    run::Run,
    storage::{File, FileKind, StorageProblem},
};

/// What the rest of the check needs to know of a sound snapshot.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) snapshot: SnapshotId,
    pub(super) tree: BlobId,
    time: Timestamp,
    by_rustic: bool,
}

/// The snapshots that could be read, newest first.
#[derive(Debug, Default)]
pub(super) struct Roots {
    pub(super) newest_first: Vec<Root>,
}

impl Roots {
    /// Whether any of them was made by rustic.
    pub(super) fn any_by_rustic(&self) -> bool {
        self.newest_first.iter().any(|root| root.by_rustic)
    }
}

/// Checks config, keys, locks and snapshots; returns the snapshots that are sound.
pub(super) fn check(
    repository: &Repository,
    run: &Run,
    findings: &mut Findings,
) -> Result<Roots, CheckError> {
    check_config(repository, findings);
    findings.counts.keys = check_kind(repository, FileKind::Key, run, findings, |content| {
        KeyFile::parse(&content).map(drop)
    })?;
    findings.counts.locks = check_kind(repository, FileKind::Lock, run, findings, |content| {
        open_json::<LockFile>(repository.key(), content).map(drop)
    })?;
    let mut roots = Roots::default();
    let listed = repository.storage().list(FileKind::Snapshot)?;
    findings.counts.snapshots = listed.len() as u64;
    let files = listed.into_iter().map(|entry| entry.file).collect();
    let read = |(): &mut (), file| (file, read_snapshot(repository, file));
    let states = vec![(); asking_threads(repository.storage().as_ref())];
    each_on_threads(states, files, &run.cancel, read, |(file, result)| match result {
        Ok(Some(root)) => roots.newest_first.push(root),
        Ok(None) => findings.counts.snapshots -= 1,
        Err(problem) => add(findings, file, problem),
    })?;
    roots.newest_first.sort_by(|a, b| b.time.cmp(&a.time).then(a.snapshot.cmp(&b.snapshot)));
    Ok(roots)
}

/// The config was read when the repository was opened; it may have changed since.
fn check_config(repository: &Repository, findings: &mut Findings) {
    let content = repository.storage().read(File::Config, KEY_FILE_BYTES_MAX);
    let problem = match content {
        Err(error) => Some(Problem::of_storage(&error)),
        Ok(content) => open_json::<Config>(repository.key(), content)
            .and_then(Config::validated)
            .err()
            .map(|error| Problem::of_format(&error)),
    };
    if let Some(problem) = problem {
        add(findings, File::Config, problem);
    }
}

/// Checks all small files of one kind and returns how many there are.
fn check_kind(
    repository: &Repository,
    kind: FileKind,
    run: &Run,
    findings: &mut Findings,
    parse: impl Fn(Vec<u8>) -> Result<(), FormatError>,
) -> Result<u64, CheckError> {
    let bytes_max = match kind {
        FileKind::Key => KEY_FILE_BYTES_MAX,
        _ => LOCK_FILE_BYTES_MAX,
    };
    let mut count = 0;
    for listed in repository.storage().list(kind)? {
        run.cancel.check()?;
        // A lock without content is one whose writer was cut off: restic looks past it, too.
        if kind == FileKind::Lock && listed.bytes == 0 {
            continue;
        }
        count += 1;
        match read_named(repository, listed.file, bytes_max) {
            Ok(Some(content)) => {
                if let Err(error) = parse(content) {
                    add(findings, listed.file, Problem::of_format(&error));
                }
            }
            Ok(None) => count -= 1,
            Err(problem) => add(findings, listed.file, problem),
        }
    }
    Ok(count)
}

fn read_snapshot(repository: &Repository, file: File) -> Result<Option<Root>, Problem> {
    let File::Snapshot(id) = file else { return Ok(None) };
    let Some(content) = read_named(repository, file, UNPACKED_BYTES_MAX)? else {
        return Ok(None);
    };
    let snapshot: Snapshot =
        open_json(repository.key(), content).map_err(|error| Problem::of_format(&error))?;
    let by_rustic = snapshot.program_version.contains("rustic");
    Ok(Some(Root { snapshot: id, tree: snapshot.tree, time: snapshot.time, by_rustic }))
}

/// Reads a file and compares it with its name. `None` when the file is gone since it was
/// listed: locks and snapshots come and go.
fn read_named(
    repository: &Repository,
    file: File,
    bytes_max: u64,
) -> Result<Option<Vec<u8>>, Problem> {
    let content = match repository.storage().read(file, bytes_max) {
        Err(error) if error.problem() == StorageProblem::NotFound => return Ok(None),
        Err(error) => return Err(Problem::of_storage(&error)),
        Ok(content) => content,
    };
    verify_digest(file, &content).map_err(|error| Problem::of_format(&error))?;
    Ok(Some(content))
}

fn add(findings: &mut Findings, file: File, problem: Problem) {
    let number = findings.add(Subject::File(file), problem);
    if let File::Snapshot(id) = file {
        let damage: &mut Damage = &mut findings.damages_mut()[number as usize];
        damage.snapshots = vec![id];
    }
}
