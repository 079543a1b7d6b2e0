//! Backup: from files to a snapshot.
//!
//! A backup takes a shared lock, loads the index, adopts what an interrupted run left, chooses
//! a parent, walks the sources through a pipeline of threads (see `pipeline`), and writes, in
//! this order and each durably: packs, index files, the snapshot. Until the snapshot is written
//! nothing refers to the new data, so a crash at any moment costs work and never consistency.
//!
//! What cannot be read is left out, told in the [`BackupReport`], and marks the snapshot with
//! the tag [`PARTIAL_TAG`]: such a snapshot proves nothing.

pub(crate) mod adopt;
mod assemble;
mod budget;
mod errors;
mod feed;
mod filter;
mod lost;
mod metadata;
mod names;
mod parent;
mod pipeline;
mod record;
mod recorded;
mod relay;
mod report;
mod signals;
mod targets;
mod walk;

use std::{
    io::Read,
    num::NonZeroUsize,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::bounded;
use muster_model::BackupKind;

pub use errors::BackupError;
pub use filter::{CACHEDIR_SIGNATURE, Filter, MarkerFile};
pub use metadata::Facts;
pub use parent::ParentChoice;
pub use record::{Recorder, backup_recorded};
pub use report::{BackupReport, Loss, Problem};
pub use signals::{SUSPECT_TAG, Signal, is_suspect};

use self::{
    assemble::{Assembler, Event, Problems},
    budget::Budget,
    feed::{Count, Feed},
    metadata::NodeMaker,
    parent::{ParentWalk, Trust},
    pipeline::{Reader, work_on_blobs},
    relay::relay,
    walk::Visitor,
};
use crate::{
    chunker::Tables,
    environment::{Environment, cores},
    format::{
        mode::go_mode,
        snapshot::{Snapshot, Summary},
        time::Timestamp,
        tree::{Node, NodeKind},
    },
    id::{BlobId, SnapshotId},
    index::Index,
    lock::{Lock, LockKind},
    packer::{PackOptions, PackWriter, WriteError, write_packs},
    repository::{IndexedRepository, ReadError, Repository, together},
    run::Run,
    storage::File,
};

/// Tag of a snapshot from which something unreadable was left out.
pub const PARTIAL_TAG: &str = "muster:partial";

/// Threads that read files. Two keep one core's worth of system calls overlapped with another
/// file's; restic's default as well.
pub const READERS_DEFAULT: NonZeroUsize = NonZeroUsize::new(2).expect("2 is not 0");

/// Events that the walk may be ahead of the assembler.
const EVENTS_AHEAD: usize = 1024;
/// Files that wait for a reader; each holds its folder open.
const FILES_AHEAD: usize = 128;
/// Blobs that wait for a worker; their bytes are bounded separately.
const BLOBS_AHEAD: usize = 64;

/// What to back up, and how.
#[derive(Debug)]
pub struct BackupOptions {
    /// Files and folders.
    pub sources: Vec<PathBuf>,
    /// What is left out.
    pub filter: Filter,
    /// The patterns as the user wrote them, for the snapshot's record.
    pub excludes: Vec<String>,
    /// How it is decided what to read.
    pub kind: BackupKind,
    /// Which snapshot to compare with.
    pub parent: ParentChoice,
    /// Tags of the snapshot; the kind's is added.
    pub tags: Vec<String>,
    /// The host to record; `None` for this one.
    pub hostname: Option<String>,
    /// The time to record; `None` for now.
    pub time: Option<Timestamp>,
    /// Trust a file whose change time differs.
    pub ignore_ctime: bool,
    /// Trust a file whose inode differs (and its change time, as in restic).
    pub ignore_inode: bool,
    /// Record access times.
    pub with_atime: bool,
    /// How packs are written; `dry_run` is here too.
    pub packs: PackOptions,
    /// Write no snapshot when the tree is the parent's.
    pub skip_if_unchanged: bool,
    /// Find out how much there is to do, for the time left: from the parent, or by a second walk.
    pub count_first: bool,
    /// Threads that read files.
    pub readers: NonZeroUsize,
    /// A source whose content is read from elsewhere.
    pub stand_in: Option<StandIn>,
    /// Permission bits of a stream's file.
    pub stream_mode: u32,
    /// How long to wait for a lock.
    pub retry_lock: Duration,
}

impl BackupOptions {
    /// An incremental backup of `sources` with default settings.
    #[must_use]
    pub fn new(sources: Vec<PathBuf>) -> Self {
        Self {
            sources,
            filter: Filter::default(),
            excludes: Vec::new(),
            kind: BackupKind::default(),
            parent: ParentChoice::default(),
            tags: Vec::new(),
            hostname: None,
            time: None,
            ignore_ctime: false,
            ignore_inode: false,
            with_atime: false,
            packs: PackOptions::default(),
            skip_if_unchanged: false,
            count_first: false,
            readers: READERS_DEFAULT,
            stand_in: None,
            stream_mode: 0o644,
            retry_lock: Duration::ZERO,
        }
    }
}

/// A copy that is read in the place of a source that cannot be read as it lies there, such as
/// the file of a database at work.
///
/// The snapshot shows the source: its path, mode, owner and attributes. Only the content comes
/// from the copy. The source is always read anew, and never opened: closing a file gives up the
/// locks that this process has on it, and a database may be one of its own.
#[derive(Debug, Clone)]
pub struct StandIn {
    /// The source, a regular file; also to be named among the sources.
    pub source: PathBuf,
    /// Where its content is.
    pub copy: PathBuf,
    /// When the content changed last, where the file's own time does not tell.
    pub mtime: Option<Timestamp>,
}

/// A stream to back up as one file (`--stdin`).
pub struct Stream {
    /// The path of the file in the snapshot.
    pub path: PathBuf,
    /// The content.
    pub content: Box<dyn Read + Send>,
    /// Called at the stream's end: whether it really was the end. A command that failed says
    /// no, and then there is no snapshot.
    pub finish: Box<dyn FnOnce() -> Result<(), String> + Send>,
}

/// Tag of a snapshot whose new blobs were stored without being opened again first.
pub const UNVERIFIED_TAG: &str = "muster:unverified-seal";

/// Backs up files and folders.
///
/// # Errors
/// Fails when the repository is locked exclusively, cannot be read or written, no source
/// exists, or the run is cancelled. No snapshot is written then.
pub fn backup(
    repository: &Repository,
    options: BackupOptions,
    environment: &Environment,
    run: &Run,
) -> Result<BackupReport, BackupError> {
    Job::prepare(repository, options, None, environment, run)?.perform()
}

/// Backs up a stream as one file; `options.sources` is not looked at.
///
/// # Errors
/// As [`backup`]; also when the stream fails or says that it is not complete.
pub fn backup_stream(
    repository: &Repository,
    options: BackupOptions,
    stream: Stream,
    environment: &Environment,
    run: &Run,
) -> Result<BackupReport, BackupError> {
    Job::prepare(repository, options, Some(stream), environment, run)?.perform()
}

/// A backup whose lock is held and whose index is loaded.
struct Job<'a> {
    repository: IndexedRepository,
    options: BackupOptions,
    stream: Option<Stream>,
    environment: &'a Environment,
    run: &'a Run,
    lock: Option<Lock>,
    adopted: Vec<crate::format::index_file::IndexPack>,
    parent: Option<(SnapshotId, Snapshot)>,
    /// Earlier backups of the same source that are a measure for this one, oldest first.
    history: Vec<(SnapshotId, Snapshot)>,
    paths: Vec<String>,
    start: Timestamp,
    clock: Instant,
    problems: Problems,
    notices: Vec<String>,
    losses: Vec<Loss>,
}

impl<'a> Job<'a> {
    fn prepare(
        repository: &Repository,
        mut options: BackupOptions,
        stream: Option<Stream>,
        environment: &'a Environment,
        run: &'a Run,
    ) -> Result<Self, BackupError> {
        let (clock, start) = (Instant::now(), environment.now());
        let problems = Problems::default();
        if stream.is_none() {
            drop_missing_sources(&mut options, &problems, run)?;
        }
        options.filter.destination = destination(repository);
        refuse_the_repository(repository, &options)?;
        // A parent and a measure are hints only, a pack that is gone by now is not adopted, and the
        // index files are listed again.
        let look = || {
            let stored = || together(|| adopt::list(repository), || repository.index_files());
            together(|| repository.snapshot_ids(), stored)
        };
        let (lock, (snapshots, (packs, index_files))) = match options.packs.dry_run {
            true => (None, look()),
            false => {
                let (kind, retry) = (LockKind::Shared, options.retry_lock);
                let taken = Lock::acquire_while(repository, kind, retry, environment, run, look)?;
                (Some(taken.0), taken.1)
            }
        };
        let (snapshots, packs, index_files) =
            (snapshots?, packs?, index_files.map_err(ReadError::from)?);
        let paths = match &stream {
            Some(stream) => vec![shown(&[b"/", stream_path(&stream.path).as_slice()].concat())],
            None => options.sources.iter().map(|path| shown(&walk::absolute(path))).collect(),
        };
        let alone = || lock.as_ref().is_some_and(adopt::is_alone);
        // What is not there can neither be relied upon nor adopted.
        let is_empty = packs.is_empty() && index_files.is_empty();
        let (earlier, (index, alone)) = match is_empty && repository.storage().costs().is_far() {
            true => (Vec::new(), (Ok(Index::new()), false)),
            false => together(
                || parent::earlier(repository, snapshots, &options, &paths, start, environment),
                || together(|| repository.read_index_expecting(&index_files, run), alone),
            ),
        };
        let mut index = index?;
        let gone = lost::find(repository, &packs, &index);
        if !gone.is_empty() {
            index = index.without(&gone);
        }
        let adopted = match alone {
            true => adopt::adopt(repository, &packs, &mut index, run)?,
            false => Vec::new(),
        };
        let parent = match &stream {
            // A stream is always read whole.
            Some(_) => None,
            None => parent::find_parent(repository, &options, &earlier)?,
        };
        let history = signals::history(earlier);
        let repository = IndexedRepository::with_index(repository.clone(), index);
        let (notices, losses) = (Vec::new(), lost::gone(&gone).into_iter().collect());
        Ok(Self {
            repository,
            options,
            stream,
            environment,
            run,
            lock,
            adopted,
            parent,
            history,
            paths,
            start,
            clock,
            problems,
            notices,
            losses,
        })
    }

    fn perform(mut self) -> Result<BackupReport, BackupError> {
        let repository = self.repository.clone();
        let adopted = std::mem::take(&mut self.adopted);
        let packs_adopted = adopted.len();
        let (packs, run) = (self.options.packs, self.run);
        let stream = self.stream.take();
        let ((tree, mut summary), stats) = write_packs(
            &repository,
            repository.index(),
            packs,
            adopted,
            run,
            |writer| match stream {
                Some(stream) => self.record_stream(writer, stream),
                None => self.record_sources(writer),
            },
        )?;
        summary.data_blobs = stats.data_blobs;
        summary.tree_blobs = stats.tree_blobs;
        summary.data_added = stats.plaintext_bytes;
        summary.data_added_packed = stats.sealed_bytes;
        summary.backup_end = self.environment.now();
        self.finish(tree, summary, packs_adopted)
    }

    fn finish(
        self,
        tree: BlobId,
        summary: Summary,
        packs_adopted: usize,
    ) -> Result<BackupReport, BackupError> {
        let problems = self.problems.into_inner();
        let mut tags = self.options.tags;
        tags.push(self.options.kind.tag());
        if !problems.is_empty() {
            tags.push(PARTIAL_TAG.to_owned());
        }
        let parent_id = self.parent.as_ref().map(|(id, _)| *id);
        let compared = self.history.last().is_some_and(|(id, _)| Some(*id) == parent_id);
        let before: Vec<&Summary> =
            self.history.iter().filter_map(|(_, earlier)| earlier.summary.as_ref()).collect();
        let signals = signals::signals(&summary, &before, compared);
        if is_suspect(&signals) {
            tags.push(SUSPECT_TAG.to_owned());
        }
        if !self.options.packs.verify_seal {
            tags.push(UNVERIFIED_TAG.to_owned());
        }
        let snapshot = Snapshot {
            time: self.options.time.unwrap_or(self.start),
            parent: parent_id,
            tree,
            paths: self.paths,
            hostname: self.options.hostname.unwrap_or_else(|| self.environment.hostname.clone()),
            username: self.environment.username.clone(),
            uid: self.environment.uid,
            gid: self.environment.gid,
            excludes: self.options.excludes,
            tags,
            original: None,
            program_version: format!("muster {}", env!("CARGO_PKG_VERSION")),
            summary: Some(summary),
        };
        let unchanged = self.parent.is_some_and(|(_, parent)| parent.tree == tree);
        let wanted = !(self.options.skip_if_unchanged && unchanged);
        // The last look before anything refers to the new data, unless that for the index was now.
        self.run.cancel.check_condition_lately()?;
        let id = match wanted && !self.options.packs.dry_run {
            true => Some(self.repository.save_unpacked(File::Snapshot, &snapshot)?),
            false => None,
        };
        if let Some(lock) = self.lock {
            lock.release()?;
        }
        let (notices, losses) = (self.notices, self.losses);
        let duration = self.clock.elapsed();
        Ok(BackupReport {
            id,
            snapshot,
            problems,
            notices,
            losses,
            signals,
            packs_adopted,
            duration,
        })
    }

    /// Runs the pipeline over the sources.
    fn record_sources(
        &mut self,
        writer: &PackWriter<'_>,
    ) -> Result<(BlobId, Summary), BackupError> {
        let (options, run) = (&self.options, self.run);
        let maker = NodeMaker::new(self.environment.zone.clone(), options.with_atime);
        let targets = targets::plan(&options.sources).map_err(BackupError::Sources)?;
        let trust = self.parent.as_ref().map(|(_, parent)| Trust {
            ignore_ctime: options.ignore_ctime || options.ignore_inode,
            ignore_inode: options.ignore_inode,
            parent_start: parent.summary.as_ref().map_or(parent.time, |s| s.backup_start),
        });
        let root = self.parent.as_ref().map(|(_, parent)| parent.tree);
        let parent = ParentWalk::new(self.repository.blob_reader()?, root, writer);
        let (events, to_assemble) = bounded(EVENTS_AHEAD);
        let (files, to_read) = bounded(FILES_AHEAD);
        let mut feed = Feed {
            maker: &maker,
            parent,
            trust,
            index: self.repository.index(),
            events,
            files,
            problems: &self.problems,
            notices: &mut self.notices,
            run,
            attributes: Vec::new(),
            same: None,
            node: Node::new(Vec::new(), NodeKind::File),
            opening: Vec::new(),
            stand_in: options.stand_in.as_ref(),
            pieces: Vec::new(),
        };
        let walking =
            move |visitor: &mut dyn Visitor| walk::walk(targets, &options.filter, run, visitor);
        let feeding = move || relay(walking, &mut feed);
        let reading = (0..options.readers.get()).map(|_| {
            let jobs = to_read.clone();
            Box::new(move |reader: Reader<'_>| Ok(reader.work(&jobs)?)) as Reading<'_>
        });
        let reading: Vec<_> = reading.collect();
        // The readers hold it; when they are gone, the walk shall notice.
        drop(to_read);
        // There is about as much as there was: a second walk would cost more than it tells.
        let before = self.parent.as_ref().and_then(|(_, parent)| parent.summary.as_ref());
        let guess =
            before.map(|before| (before.total_files_processed, before.total_bytes_processed));
        let counting = || match (options.count_first, guess) {
            (true, None) => count(options, run),
            (true, Some((files, bytes))) => {
                run.progress.guess_total(files, bytes);
                Ok(())
            }
            (false, _) => Ok(()),
        };
        let problems = &self.problems;
        let stage = Stage { writer, maker: &maker, problems, run, start: self.start };
        let recorded = stage.perform(to_assemble, reading, feeding, counting)?;
        self.losses.extend(lost::damaged(&writer.distrusted()));
        Ok(recorded)
    }

    /// Runs the pipeline over one stream.
    fn record_stream(
        &mut self,
        writer: &PackWriter<'_>,
        stream: Stream,
    ) -> Result<(BlobId, Summary), BackupError> {
        let run = self.run;
        let maker = NodeMaker::new(self.environment.zone.clone(), false);
        let path = stream_path(&stream.path);
        let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
        let Some((name, folders)) = names.split_last().filter(|(name, _)| !name.is_empty()) else {
            return Err(BackupError::Stream(format!("'{}' is no file name", shown(&path))));
        };
        let (events, to_assemble) = bounded(EVENTS_AHEAD);
        let (done, outcome) = bounded(1);
        let node = self.stream_node(name, NodeKind::File);
        let Stream { content, finish, .. } = stream;
        let read = move |reader: Reader<'_>| {
            reader.read_stream(node, content, done)?;
            finish().map_err(BackupError::Stream)
        };
        let folders: Vec<Node> =
            folders.iter().map(|name| self.stream_node(name, NodeKind::Dir)).collect();
        let feeding = move || {
            let send = |event| events.send(event).map_err(|_| WriteError::Aborted);
            let depth = folders.len();
            for node in folders {
                send(Event::Enter { node: Box::new(node), before: None })?;
            }
            send(Event::File { path: path.clone(), before: None, outcome })?;
            (0..depth).try_for_each(|_| send(Event::Leave))?;
            Ok(())
        };
        let problems = Problems::default();
        let stage = Stage { writer, maker: &maker, problems: &problems, run, start: self.start };
        let reading: Vec<Reading<'_>> = vec![Box::new(read)];
        let result = stage.perform(to_assemble, reading, feeding, || Ok(()))?;
        // A stream that broke off is not a shorter stream.
        match problems.into_inner().pop() {
            Some(problem) => Err(BackupError::Stream(problem.error.to_string())),
            None => Ok(result),
        }
    }

    fn stream_node(&self, name: &[u8], kind: NodeKind) -> Node {
        let mut node = Node::new(name.to_vec(), kind);
        let mode = if kind == NodeKind::Dir { 0o755 } else { self.options.stream_mode };
        node.mode = go_mode(kind, mode);
        (node.mtime, node.atime, node.ctime) = (self.start, self.start, self.start);
        (node.uid, node.gid) = (self.environment.uid, self.environment.gid);
        node
    }
}

/// Counts what the sources hold.
fn count(options: &BackupOptions, run: &Run) -> Result<(), BackupError> {
    let targets = targets::plan(&options.sources).map_err(BackupError::Sources)?;
    walk::walk(targets, &options.filter, run, &mut Count { run })?;
    run.progress.total_is_known();
    Ok(())
}

/// What one reading thread does with its reader.
type Reading<'s> = Box<dyn FnOnce(Reader<'s>) -> Result<(), BackupError> + Send + 's>;

/// What the threads of the pipeline share.
struct Stage<'a> {
    writer: &'a PackWriter<'a>,
    maker: &'a NodeMaker,
    problems: &'a Problems,
    run: &'a Run,
    start: Timestamp,
}

impl<'a> Stage<'a> {
    /// Runs the threads and assembles the tree on this one. See `pipeline` for the picture.
    fn perform(
        &self,
        events: crossbeam_channel::Receiver<Event>,
        reading: Vec<Reading<'a>>,
        feeding: impl FnOnce() -> Result<(), BackupError> + Send,
        counting: impl FnOnce() -> Result<(), BackupError> + Send,
    ) -> Result<(BlobId, Summary), BackupError> {
        let (jobs, to_work) = bounded(BLOBS_AHEAD);
        let budget = Budget::new();
        let polynomial = self.writer.repository().config().chunker_polynomial;
        let tables = Arc::new(Tables::new(polynomial));
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for _ in 0..cores() {
                let (to_work, budget) = (to_work.clone(), Arc::clone(&budget));
                let (writer, run) = (self.writer, self.run);
                threads
                    .push(scope.spawn(move || Ok(work_on_blobs(writer, &to_work, &budget, run)?)));
            }
            drop(to_work);
            for read in reading {
                let (tables, budget) = (Arc::clone(&tables), Arc::clone(&budget));
                let reader = Reader::new(self.maker, tables, budget, jobs.clone(), self.run);
                threads.push(scope.spawn(move || read(reader)));
            }
            let others = [scope.spawn(feeding), scope.spawn(counting)];
            let assembler = Assembler {
                budget,
                jobs,
                problems: self.problems,
                run: self.run,
                summary: empty_summary(self.start),
                level: self.writer.tree_compression(),
            };
            let assembled = assembler.work(events);
            let ended: Vec<_> =
                others.into_iter().chain(threads).map(thread::ScopedJoinHandle::join).collect();
            let mut aborted = None;
            for result in ended {
                match result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                    Ok(()) => {}
                    Err(BackupError::Write(WriteError::Aborted)) => {
                        aborted = Some(BackupError::Write(WriteError::Aborted));
                    }
                    Err(error) => return Err(error),
                }
            }
            match aborted {
                Some(error) => Err(error),
                None => assembled,
            }
        })
    }
}

fn empty_summary(start: Timestamp) -> Summary {
    Summary {
        backup_start: start,
        backup_end: start,
        files_new: 0,
        files_changed: 0,
        files_unmodified: 0,
        dirs_new: 0,
        dirs_changed: 0,
        dirs_unmodified: 0,
        data_blobs: 0,
        tree_blobs: 0,
        data_added: 0,
        data_added_packed: 0,
        total_files_processed: 0,
        total_bytes_processed: 0,
    }
}

/// Takes sources that are not there off the list and notes them as problems.
fn drop_missing_sources(
    options: &mut BackupOptions,
    problems: &Problems,
    run: &Run,
) -> Result<(), BackupError> {
    let mut missing = Vec::new();
    options.sources.retain(|source| match source.symlink_metadata() {
        Ok(_) => true,
        Err(error) => {
            missing.push((source.clone(), error));
            false
        }
    });
    if options.sources.is_empty() {
        let (missing, mut errors): (_, Vec<_>) = missing.into_iter().unzip();
        return Err(BackupError::NoSource { missing, source: errors.pop() });
    }
    for (source, error) in missing {
        let path = walk::absolute(&source);
        problems.add(Problem { path, operation: errors::FIND, error }, run);
    }
    Ok(())
}

/// Refuses sources within the repository: their backup would never be the same twice.
fn refuse_the_repository(
    repository: &Repository,
    options: &BackupOptions,
) -> Result<(), BackupError> {
    let root = repository.storage().local_folder().and_then(|root| root.canonicalize().ok());
    let inside = |source: &&PathBuf| {
        root.as_ref().is_some_and(|root| source.canonicalize().is_ok_and(|s| s.starts_with(root)))
    };
    match options.sources.iter().find(inside) {
        Some(source) => Err(BackupError::SourceIsRepository { path: source.clone() }),
        None => Ok(()),
    }
}

/// Device and inode of the folder that holds the repository, if it is one.
fn destination(repository: &Repository) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let folder = repository.storage().local_folder()?;
    let data = folder.metadata().ok()?;
    Some((data.dev(), data.ino()))
}

/// The names of a stream's path, without `/` at either end.
fn stream_path(path: &std::path::Path) -> Vec<u8> {
    let clean = targets::clean(path);
    let bytes = clean.as_os_str().as_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes).to_vec()
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
