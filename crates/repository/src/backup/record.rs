//! A snapshot of a tree that the caller feeds, entry by entry.
//!
//! [`super::backup`] walks folders by itself and reads each file once. That does not do for a
//! database: files must be read in an order of its own, some come into being only after all others
//! were read, and what is stored must be the very bytes that were verified on the way. Here the
//! caller names the entries and gives their content, from as many threads as it likes; the tree is
//! kept in memory without its content and written at the end, so entries may come in any order.
//!
//! Nothing refers to what was recorded until the caller's function has returned without an error.

use std::{
    collections::BTreeMap,
    io,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    BackupError, BackupOptions, BackupReport, EVENTS_AHEAD, Job, Problem, Reading, Stage, Stream,
    assemble::{Event, Problems},
    metadata::{Facts, NodeMaker},
    pipeline::{FileOutcome, Reader, ReaderParts},
    stream_path,
};
use crate::{
    chunker::Tables,
    environment::Environment,
    format::{
        snapshot::Summary,
        tree::{Node, NodeKind},
    },
    id::BlobId,
    packer::{PackWriter, WriteError, write_packs},
    repository::Repository,
    run::Run,
};

/// Backs up what `record` feeds into a [`Recorder`]; the tree stands below `path`, which is also
/// the snapshot's path. `options.sources` and its filter are not looked at, and there is no parent:
/// all content is given anew, and what the repository has already is not stored again.
///
/// # Errors
/// Fails as [`super::backup`] does, and with the error of `record`. No snapshot is written then.
pub fn backup_recorded<T, E>(
    repository: &Repository,
    path: &Path,
    options: BackupOptions,
    environment: &Environment,
    run: &Run,
    record: impl FnOnce(&Recorder<'_>) -> Result<T, E> + Send,
) -> Result<(BackupReport, T), E>
where
    T: Send,
    E: From<BackupError> + Send,
{
    // A stream in name only: such a backup has a path, and neither sources nor a parent.
    let stream = Stream {
        path: PathBuf::from(path),
        content: Box::new(io::empty()),
        finish: Box::new(|| Ok(())),
    };
    let mut job = Job::prepare(repository, options, Some(stream), environment, run)?;
    let adopted = std::mem::take(&mut job.adopted);
    let (packs_adopted, packs) = (adopted.len(), job.options.packs);
    let repository = job.repository.clone();
    let written = write_packs(&repository, repository.index(), packs, adopted, run, |writer| {
        job.record(writer, path, record)
    });
    let (((tree, mut summary), value), stats) = written.map_err(|failed: Failed<E>| failed.0)?;
    summary.data_blobs = stats.data_blobs;
    summary.tree_blobs = stats.tree_blobs;
    summary.data_added = stats.plaintext_bytes;
    summary.data_added_packed = stats.sealed_bytes;
    summary.backup_end = environment.now();
    Ok((job.finish(tree, summary, packs_adopted)?, value))
}

/// The caller's error, or one of the engine's turned into the caller's.
struct Failed<E>(E);

impl<E: From<BackupError>> From<WriteError> for Failed<E> {
    fn from(error: WriteError) -> Self {
        Self(E::from(error.into()))
    }
}

impl Job<'_> {
    fn record<T: Send, E: From<BackupError> + Send>(
        &mut self,
        writer: &PackWriter<'_>,
        path: &Path,
        record: impl FnOnce(&Recorder<'_>) -> Result<T, E> + Send,
    ) -> Result<((BlobId, Summary), T), Failed<E>> {
        let (run, start) = (self.run, self.start);
        let maker = NodeMaker::new(self.environment.zone.clone(), false);
        let tables = Arc::new(Tables::new(writer.repository().config().chunker_polynomial));
        let above = self.folders_above(path);
        let (events, to_assemble) = bounded(EVENTS_AHEAD);
        let outcome: Mutex<Option<Result<T, E>>> = Mutex::new(None);
        let (problems, outcome_slot) = (&self.problems, &outcome);
        let recording = move |reader: Reader<'_>| {
            let parts = reader.into_parts(tables);
            let recorder = Recorder { parts, problems, root: Mutex::default() };
            let recorded = record(&recorder);
            let is_ok = recorded.is_ok();
            *outcome_slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorded);
            match is_ok {
                true => recorder.emit(above, &events),
                false => Err(WriteError::Aborted.into()),
            }
        };
        let reading: Vec<Reading<'_>> = vec![Box::new(recording)];
        let stage = Stage { writer, maker: &maker, problems, run, start };
        let assembled = stage.perform(to_assemble, reading, || Ok(()), || Ok(()));
        let recorded = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (assembled, recorded) {
            // The recording stopped the others, unless they had stopped it.
            (Err(BackupError::Write(WriteError::Aborted)), Some(Err(error))) => Err(Failed(error)),
            (Err(error), _) => Err(Failed(error.into())),
            (Ok(tree), Some(recorded)) => Ok((tree, recorded.map_err(Failed)?)),
            (Ok(_), None) => Err(WriteError::Aborted.into()),
        }
    }

    fn folders_above(&self, path: &Path) -> Vec<Node> {
        let path = stream_path(path);
        let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        names.map(|name| self.stream_node(name, NodeKind::Dir)).collect()
    }
}

/// Takes the entries of a tree. May be used by several threads at once.
pub struct Recorder<'a> {
    parts: ReaderParts<'a>,
    problems: &'a Problems,
    root: Mutex<Folder>,
}

#[derive(Default)]
struct Folder {
    entries: BTreeMap<Vec<u8>, Recorded>,
}

enum Recorded {
    Folder(Box<Node>, Folder),
    File(Receiver<FileOutcome>),
}

impl Recorder<'_> {
    /// Records a folder. `path` is relative, with `/` between names; folders above it that were
    /// not recorded are made with the same facts.
    ///
    /// # Errors
    /// Fails when something else stands there already, or a name is empty, `.` or `..`.
    pub fn folder(&self, path: &str, facts: &Facts) -> Result<(), BackupError> {
        let mut root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        root.enter(&names(path)?, self.parts.maker, facts, path)?;
        Ok(())
    }

    /// Records a file: reads `content` to its end. Content that cannot be read leaves the file
    /// out and is reported as a problem.
    ///
    /// # Errors
    /// Fails as [`Recorder::folder`] does, and when the repository cannot be written or the run
    /// is cancelled.
    pub fn file(
        &self,
        path: &str,
        facts: &Facts,
        content: &mut (dyn Read + Send),
    ) -> Result<(), BackupError> {
        let names = names(path)?;
        let (name, above) = names.split_last().ok_or_else(|| out_of_place(path))?;
        let (done, outcome) = bounded(1);
        {
            let mut root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
            let folder = root.enter(above, self.parts.maker, facts, path)?;
            let entry = Recorded::File(outcome);
            if folder.entries.insert(name.as_bytes().to_vec(), entry).is_some() {
                return Err(out_of_place(path));
            }
        }
        let node = self.parts.maker.made(name.as_bytes(), NodeKind::File, facts);
        self.parts.run.progress.set_current(|text| text.push_str(path));
        self.parts.reader().read_stream(node, Box::new(content), done)?;
        Ok(())
    }

    /// Reports that something could not be recorded as it should be: the snapshot is partial.
    pub fn problem(&self, path: &str, operation: &'static str, error: io::Error) {
        let path = path.as_bytes().to_vec();
        self.problems.add(Problem { path, operation, error }, self.parts.run);
    }

    /// Tells the assembler what was recorded, in the order of a tree.
    fn emit(self, above: Vec<Node>, events: &Sender<Event>) -> Result<(), BackupError> {
        let depth = above.len();
        for node in above {
            send(events, Event::Enter { node: Box::new(node), before: None })?;
        }
        let root = self.root.into_inner().unwrap_or_else(PoisonError::into_inner);
        root.emit("", events)?;
        (0..depth).try_for_each(|_| send(events, Event::Leave))
    }
}

impl Folder {
    fn enter(
        &mut self,
        names: &[&str],
        maker: &NodeMaker,
        facts: &Facts,
        path: &str,
    ) -> Result<&mut Self, BackupError> {
        let Some((name, rest)) = names.split_first() else { return Ok(self) };
        let entry = self.entries.entry(name.as_bytes().to_vec()).or_insert_with(|| {
            // A folder that is made on the way to a file must be one that can be entered.
            let facts = Facts { permissions: facts.permissions | 0o700, ..*facts };
            let node = maker.made(name.as_bytes(), NodeKind::Dir, &facts);
            Recorded::Folder(Box::new(node), Self::default())
        });
        match entry {
            Recorded::Folder(_, folder) => folder.enter(rest, maker, facts, path),
            Recorded::File(_) => Err(out_of_place(path)),
        }
    }

    fn emit(self, path: &str, events: &Sender<Event>) -> Result<(), BackupError> {
        for (name, entry) in self.entries {
            let path = format!("{path}/{}", String::from_utf8_lossy(&name));
            match entry {
                Recorded::File(outcome) => {
                    let path = path.into_bytes();
                    send(events, Event::File { path, before: None, outcome })?;
                }
                Recorded::Folder(node, folder) => {
                    send(events, Event::Enter { node, before: None })?;
                    folder.emit(&path, events)?;
                    send(events, Event::Leave)?;
                }
            }
        }
        Ok(())
    }
}

fn send(events: &Sender<Event>, event: Event) -> Result<(), BackupError> {
    events.send(event).map_err(|_| WriteError::Aborted.into())
}

fn names(path: &str) -> Result<Vec<&str>, BackupError> {
    let names: Vec<_> = path.split('/').collect();
    match names.iter().any(|name| name.is_empty() || matches!(*name, "." | "..")) {
        true => Err(out_of_place(path)),
        false => Ok(names),
    }
}

fn out_of_place(path: &str) -> BackupError {
    BackupError::Stream(format!("'{path}' has no place in the tree"))
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;
    use crate::{
        format::{config::Version, key_file::Cost},
        repository::InitOptions,
        restore::{RestoreOptions, restore},
        storage::memory::MemoryStorage,
    };

    const FACTS: Facts = Facts { permissions: 0o600, uid: 0, gid: 0, modified: (1_000, 5) };

    fn repository() -> Repository {
        let author = Environment::detect().author();
        let (version, cost) = (Version::V2, Cost::FOR_TESTS);
        let options = InitOptions { version, polynomial: None, cost, author };
        Repository::init(Arc::new(MemoryStorage::new()), b"password", options).unwrap()
    }

    fn record<T: Send>(
        repository: &Repository,
        feed: impl FnOnce(&Recorder<'_>) -> Result<T, BackupError> + Send,
    ) -> Result<(BackupReport, T), BackupError> {
        let options = BackupOptions::new(Vec::new());
        let environment = Environment::detect();
        backup_recorded(
            repository,
            Path::new("/db/orders"),
            options,
            &environment,
            &Run::new(),
            feed,
        )
    }

    #[test]
    fn what_several_threads_feed_in_any_order_comes_back() {
        let repository = repository();
        let large: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7 % 256).to_le_bytes()[0]).collect();
        let (report, ()) = record(&repository, |recorder| {
            thread::scope(|scope| {
                let one = scope.spawn(|| recorder.file("b/large", &FACTS, &mut large.as_slice()));
                let two = scope.spawn(|| recorder.file("a", &FACTS, &mut &b"last"[..]));
                one.join().unwrap().and(two.join().unwrap())
            })?;
            recorder.folder("b/empty", &Facts { permissions: 0o700, ..FACTS })
        })
        .unwrap();
        assert_eq!(report.snapshot.paths, ["/db/orders"]);
        assert_eq!(report.snapshot.summary.unwrap().total_bytes_processed, 3_000_004);
        let target = tempfile::tempdir().unwrap();
        let indexed = repository.load_index(&Run::new()).unwrap();
        let options = RestoreOptions::new(target.path());
        let restored = restore(&indexed, report.snapshot.tree, &options, &Run::new()).unwrap();
        assert!(restored.is_complete());
        let top = target.path().join("db/orders");
        assert_eq!(fs::read(top.join("a")).unwrap(), b"last");
        assert_eq!(fs::read(top.join("b/large")).unwrap(), large);
        assert!(top.join("b/empty").is_dir());
    }

    #[test]
    fn a_recording_that_fails_leaves_no_snapshot() {
        let repository = repository();
        let failed = record(&repository, |recorder| {
            recorder.file("a", &FACTS, &mut &b"text"[..])?;
            Err::<(), _>(BackupError::Stream("the source is gone".to_owned()))
        });
        assert!(failed.unwrap_err().to_string().contains("the source is gone"));
        assert!(repository.snapshot_ids().unwrap().is_empty());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for path in ["", "/a", "a//b", "a/../b", "./a", "a/"] {
            let failed =
                record(&repository(), |recorder| recorder.file(path, &FACTS, &mut io::empty()));
            assert!(failed.is_err(), "{path}");
        }
        let twice = record(&repository(), |recorder| {
            recorder.file("a", &FACTS, &mut io::empty())?;
            recorder.file("a/b", &FACTS, &mut io::empty())
        });
        assert!(twice.is_err());
    }

    #[test]
    fn content_that_cannot_be_read_makes_the_snapshot_partial() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let (report, ()) = record(&repository(), |recorder| {
            recorder.file("a", &FACTS, &mut Broken)?;
            recorder.problem("b", "look into", io::Error::other("odd"));
            Ok(())
        })
        .unwrap();
        assert_eq!(report.problems.len(), 2);
        assert!(report.snapshot.tags.contains(&super::super::PARTIAL_TAG.to_owned()));
    }
}
