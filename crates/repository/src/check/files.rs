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
    repository::{Repository, all_at_once, together, verify_digest},
    run::Run,
    storage::{File, FileKind, Listed, StorageError, StorageProblem},
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
    // None needs to know what is found in another.
    let ((config, keys), (locks, snapshots)) = together(
        || {
            let keys = || {
                check_kind(repository, FileKind::Key, run, |content| {
                    KeyFile::parse(&content).map(drop)
                })
            };
            together(|| check_config(repository), keys)
        },
        || {
            let locks = || {
                check_kind(repository, FileKind::Lock, run, |content| {
                    open_json::<LockFile>(repository.key(), content).map(drop)
                })
            };
            together(locks, || check_snapshots(repository, run))
        },
    );
    let (config, keys, locks) = (config?, keys?, locks?);
    let (snapshots, mut roots) = snapshots?;
    findings.counts.keys = keys.count;
    findings.counts.locks = locks.count;
    findings.counts.snapshots = snapshots.count;
    let wrong = config.into_iter().chain(keys.wrong).chain(locks.wrong).chain(snapshots.wrong);
    for (file, problem) in wrong {
        add(findings, file, problem);
    }
    roots.newest_first.sort_by(|a, b| b.time.cmp(&a.time).then(a.snapshot.cmp(&b.snapshot)));
    Ok(roots)
}

/// What was found of the files of a kind.
#[derive(Debug, Default)]
struct Found {
    count: u64,
    wrong: Vec<(File, Problem)>,
}

/// The config was read when the repository was opened; it may have changed since.
fn check_config(repository: &Repository) -> Result<Option<(File, Problem)>, StorageError> {
    let content = repository.storage().read(File::Config, KEY_FILE_BYTES_MAX);
    let problem = match content {
        Err(error) => Some(Problem::of_small_file(error)?),
        Ok(content) => open_json::<Config>(repository.key(), content)
            .and_then(Config::validated)
            .err()
            .map(|error| Problem::of_format(&error)),
    };
    Ok(problem.map(|problem| (File::Config, problem)))
}

/// Checks all small files of one kind.
fn check_kind(
    repository: &Repository,
    kind: FileKind,
    run: &Run,
    parse: impl Fn(Vec<u8>) -> Result<(), FormatError> + Sync,
) -> Result<Found, CheckError> {
    let bytes_max = match kind {
        FileKind::Key => KEY_FILE_BYTES_MAX,
        _ => LOCK_FILE_BYTES_MAX,
    };
    let storage = repository.storage().as_ref();
    // A lock without content is one whose writer was cut off: restic looks past it, too.
    let is_one = |listed: &Listed| kind != FileKind::Lock || listed.bytes > 0;
    let files: Vec<_> =
        storage.list(kind)?.into_iter().filter(is_one).map(|listed| listed.file).collect();
    let read = |&file: &File| {
        run.cancel.check()?;
        let content = read_named(repository, file, bytes_max)?;
        Ok::<_, CheckError>((file, content))
    };
    let mut found = Found::default();
    for read in all_at_once(storage, &files, read) {
        let (file, content) = read?;
        found.count += 1;
        match content {
            Ok(Some(content)) => {
                if let Err(error) = parse(content) {
                    found.wrong.push((file, Problem::of_format(&error)));
                }
            }
            Ok(None) => found.count -= 1,
            Err(problem) => found.wrong.push((file, problem)),
        }
    }
    Ok(found)
}

fn check_snapshots(repository: &Repository, run: &Run) -> Result<(Found, Roots), CheckError> {
    let mut roots = Roots::default();
    let listed = repository.storage().list(FileKind::Snapshot)?;
    let mut found = Found { count: listed.len() as u64, wrong: Vec::new() };
    let files = listed.into_iter().map(|entry| entry.file).collect();
    let read = |(): &mut (), file| (file, read_snapshot(repository, file));
    let states = vec![(); asking_threads(repository.storage().as_ref())];
    let mut failure = None;
    each_on_threads(states, files, &run.cancel, read, |(file, result)| match result {
        Ok(Ok(Some(root))) => roots.newest_first.push(root),
        Ok(Ok(None)) => found.count -= 1,
        Ok(Err(problem)) => found.wrong.push((file, problem)),
        Err(error) => failure = failure.take().or(Some(error)),
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok((found, roots)),
    }
}

fn read_snapshot(repository: &Repository, file: File) -> Read<Root> {
    let File::Snapshot(id) = file else { return Ok(Ok(None)) };
    let content = match read_named(repository, file, UNPACKED_BYTES_MAX)? {
        Ok(Some(content)) => content,
        Ok(None) => return Ok(Ok(None)),
        Err(problem) => return Ok(Err(problem)),
    };
    let root = |snapshot: Snapshot| {
        let by_rustic = snapshot.program_version.contains("rustic");
        Some(Root { snapshot: id, tree: snapshot.tree, time: snapshot.time, by_rustic })
    };
    let snapshot = open_json(repository.key(), content);
    Ok(snapshot.map(root).map_err(|error| Problem::of_format(&error)))
}

/// What was read, or what is wrong with it; `None` when the file is gone since it was listed: locks
/// and snapshots come and go. The error is one of the store.
type Read<T> = Result<Result<Option<T>, Problem>, StorageError>;

/// Reads a file and compares it with its name.
fn read_named(repository: &Repository, file: File, bytes_max: u64) -> Read<Vec<u8>> {
    let content = match repository.storage().read(file, bytes_max) {
        Err(error) if error.problem() == StorageProblem::NotFound => return Ok(Ok(None)),
        Err(error) => return Ok(Err(Problem::of_small_file(error)?)),
        Ok(content) => content,
    };
    let verified = verify_digest(file, &content);
    Ok(verified.map(|()| Some(content)).map_err(|error| Problem::of_format(&error)))
}

fn add(findings: &mut Findings, file: File, problem: Problem) {
    let number = findings.add(Subject::File(file), problem);
    if let File::Snapshot(id) = file {
        let damage: &mut Damage = &mut findings.damages_mut()[number as usize];
        damage.snapshots = vec![id];
    }
}
