//! Writing what a snapshot holds as a stream: a file's content, or a folder as tar or zip.
//!
//! One thread walks and writes; some more read blobs ahead of it. What was read and not yet
//! written is bounded by `READ_AHEAD_BYTES`, across the borders of files, so that many small
//! files flow as well as a large one. The order is kept by a queue: each blob's place in it is
//! taken when the blob is asked for.
//!
//! A stream cannot take anything back: at the first thing that cannot be read the dump ends
//! with an error, and the archive with it, without its proper end. A dump that succeeded is
//! whole, but for sockets, which no archive can hold, and what else [`DumpReport::left_out`]
//! lists.
//!
//! The formats are written here rather than with crates: names are bytes, times have
//! nanoseconds, and attributes and ACLs have to get in, which leaves little for a crate to do.
//!
//! # Source
//! restic, `internal/dump`.

mod acl;
mod tar;
mod zip;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::{self, Write},
    str::FromStr,
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    environment::cores,
    format::{
        pack::BlobKind,
        tree::{Node, NodeKind},
    },
    id::{BlobId, PackId},
    repository::{BlobReader, IndexedRepository, ReadError},
    run::{Cancelled, Run},
    tree_walk::{Entry, Place, PlaceError, Step, TreeWalk, components, find_place},
    warm_up,
};

/// Bytes of content that are read ahead of the writer at most; one blob may exceed it.
const READ_AHEAD_BYTES: u64 = 32 << 20;

/// Entries and blobs in the queue at most: small ones do not weigh by their bytes.
const QUEUE_MAX: usize = 1024;

/// Threads that read ahead. Opening a blob is work for the processor and reading one is waiting
/// for the store, so a few more than processors do.
const READERS_MAX: usize = 8;

/// How a folder is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveFormat {
    /// POSIX tar with extended headers: owners, nanoseconds, attributes, ACLs, hard links,
    /// devices.
    #[default]
    Tar,
    /// Zip with Zip64: files, folders and symbolic links, modes, owners, whole seconds.
    Zip,
}

impl FromStr for ArchiveFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tar" => Ok(Self::Tar),
            "zip" => Ok(Self::Zip),
            _ => Err(format!("'{text}' is no archive format: write tar or zip")),
        }
    }
}

/// What to dump. Found before anything is written, so that a caller can refuse to write an
/// archive to a terminal.
#[derive(Debug)]
pub enum DumpTarget {
    /// A file: its content is written as it is.
    File {
        /// Its path in the snapshot.
        path: Vec<u8>,
        /// The file.
        node: Box<Node>,
    },
    /// A folder: what is in it is written as an archive.
    Folder {
        /// Its path in the snapshot, empty for the root; entries are named from the root.
        path: Vec<u8>,
        /// Its tree.
        tree: BlobId,
    },
}

/// Finds what is at `path` below `tree`.
///
/// # Errors
/// Fails when nothing is there, or something that has no content.
pub fn find_target(
    repository: &IndexedRepository,
    tree: BlobId,
    path: &[u8],
) -> Result<DumpTarget, DumpError> {
    let mut reader = repository.blob_reader()?;
    let clean =
        components(path).iter().fold(Vec::new(), |path, name| [&path, &b"/"[..], name].concat());
    let node = match find_place(&mut reader, tree, path)? {
        Place::Root(tree) => return Ok(DumpTarget::Folder { path: clean, tree }),
        Place::Entry(node) => node,
    };
    match (node.kind, node.subtree) {
        (NodeKind::File, _) => Ok(DumpTarget::File { path: clean, node }),
        (NodeKind::Dir, Some(tree)) => Ok(DumpTarget::Folder { path: clean, tree }),
        (kind, _) => Err(DumpError::NoContent { path: clean, kind }),
    }
}

/// What was written.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "what was left out should be told"]
pub struct DumpReport {
    /// Files, folders and other entries.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What the format cannot hold.
    pub left_out: Vec<(Vec<u8>, NodeKind)>,
}

/// Writes a file's content, or a folder as an archive.
///
/// # Errors
/// Fails at the first thing that cannot be read or written, and when the run is cancelled; what
/// was written by then is no whole file or archive.
pub fn dump(
    repository: &IndexedRepository,
    target: DumpTarget,
    format: ArchiveFormat,
    run: &Run,
    to: &mut dyn Write,
) -> Result<DumpReport, DumpError> {
    warm(repository, &target, run)?;
    let readers = (cores() + 1).min(READERS_MAX);
    let readers: Vec<BlobReader<'_>> =
        (0..readers).map(|_| repository.blob_reader()).collect::<Result<_, _>>()?;
    // Wide enough that handing out a job never waits: the queue holds fewer blobs.
    let (to_read, jobs) = bounded::<Job>(QUEUE_MAX + 1);
    thread::scope(|scope| {
        for reader in readers {
            let jobs = jobs.clone();
            scope.spawn(move || read_blobs(reader, &jobs));
        }
        let sink: Box<dyn Sink + '_> = match (&target, format) {
            (DumpTarget::File { .. }, _) => Box::new(Plain(to)),
            (_, ArchiveFormat::Tar) => Box::new(tar::TarWriter::new(to)),
            (_, ArchiveFormat::Zip) => Box::new(zip::ZipWriter::new(to)),
        };
        let report = DumpReport::default();
        let (queue, current) = (VecDeque::new(), Vec::new());
        let mut dumper =
            Dumper { repository, run, sink, to_read, queue, waiting_bytes: 0, current, report };
        match target {
            DumpTarget::File { path, node } => dumper.push(path, *node, None)?,
            DumpTarget::Folder { path, tree } => dumper.push_folder(&path, tree)?,
        }
        dumper.finish()
    })
}

/// Brings back what is archived of a file, or of all that is in a folder. A dump does so for itself;
/// this is for who reads otherwise.
///
/// # Errors
/// Fails when something is archived and the run does not allow to bring it back, or not for so long.
pub fn warm(
    repository: &IndexedRepository,
    target: &DumpTarget,
    run: &Run,
) -> Result<(), ReadError> {
    match warm_up::is_due(repository.storage().as_ref(), run) {
        true => warm_up::prepare(repository, packs_of(repository, target)?, run),
        false => Ok(()),
    }
}

/// The packs with the content of a file, or of what is in a folder. What cannot be found is left to
/// whoever writes.
fn packs_of(
    repository: &IndexedRepository,
    target: &DumpTarget,
) -> Result<HashSet<PackId>, ReadError> {
    let mut packs = HashSet::new();
    let mut note = |node: &Node| {
        let content = node.content.iter().flatten();
        let places = content.filter_map(|id| repository.index().find(BlobKind::Data, *id));
        packs.extend(places.map(|place| place.pack));
    };
    match target {
        DumpTarget::File { node, .. } => note(node),
        DumpTarget::Folder { path, tree } => {
            for step in TreeWalk::new(repository, *tree, path)? {
                if let Step::Entry(entry) = step {
                    note(&entry.node);
                }
            }
        }
    }
    Ok(packs)
}

/// An entry as the formats need it.
struct Member {
    /// The path from the snapshot's root, without a `/` at its beginning.
    name: Vec<u8>,
    /// The entry, its list of blobs taken out.
    node: Node,
    /// Bytes of content that follow.
    bytes: u64,
    /// The name of an earlier member that is the same file.
    hard_link: Option<Vec<u8>>,
}

/// Where members go: a format.
trait Sink {
    /// Whether entries of this kind can be held.
    fn takes(&self, kind: NodeKind) -> bool;

    /// Whether a further name of a file can be written as a link.
    fn takes_hard_links(&self) -> bool;

    /// Begins a member.
    fn begin(&mut self, member: Member) -> io::Result<()>;

    /// Writes a part of the member's content.
    fn content(&mut self, data: &[u8]) -> io::Result<()>;

    /// Ends the member.
    fn end(&mut self) -> io::Result<()>;

    /// Ends the archive.
    fn finish(&mut self) -> io::Result<()>;
}

/// Content as it is.
struct Plain<'w>(&'w mut dyn Write);

impl Sink for Plain<'_> {
    fn takes(&self, _: NodeKind) -> bool {
        true
    }

    fn takes_hard_links(&self) -> bool {
        false
    }

    fn begin(&mut self, _: Member) -> io::Result<()> {
        Ok(())
    }

    fn content(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.write_all(data)
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A blob to read, and where to send it. The reply channel has room, so nobody waits on it.
struct Job {
    id: BlobId,
    reply: Sender<Result<Vec<u8>, ReadError>>,
}

fn read_blobs(mut reader: BlobReader<'_>, jobs: &Receiver<Job>) {
    for Job { id, reply } in jobs {
        let mut plaintext = Vec::new();
        let result = reader.read(BlobKind::Data, id, &mut plaintext).map(|()| plaintext);
        // Nobody waits for it any more when the dump failed.
        drop(reply.send(result));
    }
}

/// A place in the queue.
enum Slot {
    Begin(Box<Member>),
    Blob { id: BlobId, bytes: u64, read: Receiver<Result<Vec<u8>, ReadError>> },
    End,
}

struct Dumper<'d> {
    repository: &'d IndexedRepository,
    run: &'d Run,
    sink: Box<dyn Sink + 'd>,
    to_read: Sender<Job>,
    queue: VecDeque<Slot>,
    waiting_bytes: u64,
    /// The path of what is being written, for errors.
    current: Vec<u8>,
    report: DumpReport,
}

impl Dumper<'_> {
    fn push_folder(&mut self, path: &[u8], tree: BlobId) -> Result<(), DumpError> {
        let mut links = HardLinks::default();
        for step in TreeWalk::new(self.repository, tree, path)? {
            match step {
                Step::Unreadable { path, error, .. } => {
                    return Err(DumpError::Unreadable { path, source: Box::new(error) });
                }
                Step::Left { .. } => {}
                Step::Entry(Entry { path, node, .. }) if !self.sink.takes(node.kind) => {
                    self.report.left_out.push((path, node.kind));
                }
                Step::Entry(Entry { path, node, .. }) => {
                    let earlier = match self.sink.takes_hard_links() {
                        true => links.earlier_name(&path, &node),
                        false => None,
                    };
                    self.push(path, node, earlier)?;
                }
            }
        }
        Ok(())
    }

    /// Puts an entry and its blobs into the queue.
    fn push(
        &mut self,
        path: Vec<u8>,
        mut node: Node,
        hard_link: Option<Vec<u8>>,
    ) -> Result<(), DumpError> {
        let content = node.content.take().filter(|_| hard_link.is_none()).unwrap_or_default();
        let mut lengths = Vec::with_capacity(content.len());
        for &id in &content {
            let Some(found) = self.repository.index().find(BlobKind::Data, id) else {
                let source = Box::new(ReadError::MissingBlob { kind: BlobKind::Data, id });
                return Err(DumpError::Unreadable { path, source });
            };
            lengths.push(u64::from(found.blob.plaintext_length()));
        }
        // The blobs' own lengths count, not what the tree says: an archive whose header and
        // content disagree could not be read.
        let bytes = lengths.iter().sum();
        let name = path.strip_prefix(b"/").unwrap_or(&path).to_vec();
        self.enqueue(Slot::Begin(Box::new(Member { name, node, bytes, hard_link })))?;
        for (id, bytes) in content.into_iter().zip(lengths) {
            let (reply, read) = bounded(1);
            self.make_room(bytes)?;
            // The threads live until this sender is dropped, and there is room.
            drop(self.to_read.send(Job { id, reply }));
            self.waiting_bytes += bytes;
            self.enqueue(Slot::Blob { id, bytes, read })?;
        }
        self.enqueue(Slot::End)
    }

    fn enqueue(&mut self, slot: Slot) -> Result<(), DumpError> {
        while self.queue.len() >= QUEUE_MAX {
            self.write_next()?;
        }
        self.queue.push_back(slot);
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) -> Result<(), DumpError> {
        while self.waiting_bytes > 0 && self.waiting_bytes + bytes > READ_AHEAD_BYTES {
            self.write_next()?;
        }
        Ok(())
    }

    /// Writes what is first in the queue, after a wait if it is a blob that is being read.
    fn write_next(&mut self) -> Result<(), DumpError> {
        let Some(slot) = self.queue.pop_front() else { return Ok(()) };
        self.run.cancel.check()?;
        match slot {
            Slot::Begin(member) => {
                self.current.clone_from(&member.name);
                self.sink.begin(*member)?;
            }
            Slot::Blob { id, bytes, read } => {
                self.waiting_bytes -= bytes;
                // Without an answer the reader panicked, and so will this scope.
                let lost = |_| Err(ReadError::MissingBlob { kind: BlobKind::Data, id });
                let data = read.recv().unwrap_or_else(lost).map_err(|source| {
                    let path = [b"/", &self.current[..]].concat();
                    DumpError::Unreadable { path, source: Box::new(source) }
                })?;
                self.sink.content(&data)?;
                self.report.bytes += data.len() as u64;
                self.run.progress.add_done(0, data.len() as u64);
            }
            Slot::End => {
                self.sink.end()?;
                self.report.entries += 1;
                self.run.progress.add_done(1, 0);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<DumpReport, DumpError> {
        while !self.queue.is_empty() {
            self.write_next()?;
        }
        self.sink.finish()?;
        Ok(self.report)
    }
}

/// The files that have further names to come.
#[derive(Default)]
struct HardLinks {
    first: HashMap<(u64, u64), FirstName>,
}

struct FirstName {
    name: Vec<u8>,
    content: BlobId,
    names_to_come: u64,
}

impl HardLinks {
    /// The name under which the same file was written already. Equal numbers are not believed
    /// alone: a snapshot may hold trees of several hosts.
    fn earlier_name(&mut self, path: &[u8], node: &Node) -> Option<Vec<u8>> {
        if node.kind != NodeKind::File || !node.is_hard_link() {
            return None;
        }
        let ids = node.content.iter().flatten().flat_map(|id| id.as_bytes()).copied();
        let content = BlobId::of(&ids.collect::<Vec<u8>>());
        let key = (node.device_id, node.inode);
        let Some(first) = self.first.get_mut(&key) else {
            let name = path.strip_prefix(b"/").unwrap_or(path).to_vec();
            let names_to_come = node.links - 1;
            self.first.insert(key, FirstName { name, content, names_to_come });
            return None;
        };
        if first.content != content {
            return None;
        }
        let name = first.name.clone();
        first.names_to_come -= 1;
        if first.names_to_come == 0 {
            self.first.remove(&key);
        }
        Some(name)
    }
}

/// A dump failed.
#[derive(Debug, Error)]
pub enum DumpError {
    /// The path leads nowhere.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// What is there is neither file nor folder.
    #[error("dump '{}': it is a {} and has no content", String::from_utf8_lossy(path), kind.as_str())]
    NoContent {
        /// Its path.
        path: Vec<u8>,
        /// What it is.
        kind: NodeKind,
    },
    /// A file or folder cannot be read.
    #[error("dump '{}'", String::from_utf8_lossy(path))]
    Unreadable {
        /// Its path.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: Box<ReadError>,
    },
    /// The reader cannot be set up.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What takes the stream failed.
    #[error("write the dump")]
    Write(#[from] io::Error),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Fault for DumpError {
    fn class(&self) -> Class {
        match self {
            Self::Place(error) => error.class(),
            Self::NoContent { .. } => Class::Input,
            Self::Unreadable { source, .. } => source.class(),
            Self::Read(error) => error.class(),
            Self::Write(_) => Class::Transient,
            Self::Cancelled(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Place(error) => error.code(),
            Self::NoContent { .. } => "no-content",
            Self::Unreadable { source, .. } => source.code(),
            Self::Read(error) => error.code(),
            Self::Write(_) => "write-failed",
            Self::Cancelled(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Place(error) => error.help(),
            Self::NoContent { .. } => {
                Some("dump the folder that holds it, or restore it".to_owned())
            }
            Self::Unreadable { source, .. } => source.help(),
            Self::Read(error) => error.help(),
            Self::Write(_) => {
                Some("what was written is not whole; check the space and the pipe".to_owned())
            }
            Self::Cancelled(_) => Some("what was written is not whole".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
