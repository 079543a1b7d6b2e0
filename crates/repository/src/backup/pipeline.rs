//! The threads of a backup, from file to blob.
//!
//! ```text
//!           files            chunks              sealed blobs
//! walk ────────────► readers ────────► workers ─────────────► packs (crate::packer)
//!   │ events, in order                    │ ids
//!   └────────────────► assemble ◄─────────┘
//!                          │ trees
//!                          └────────► workers
//! ```
//!
//! The walk runs ahead of everything and says, in the order of the tree, what the assembler will
//! need. Readers cut files into chunks; workers hash, deduplicate, compress, seal and verify
//! them. The assembler follows the walk's events, waits for each file in turn, and writes trees.
//!
//! **Bounds.** Every queue is bounded. Plaintext between readers and workers is bounded in
//! bytes too ([`Budget`]), since chunks differ by a factor of thousands.
//!
//! **Ends.** A file in flight reports to the assembler when its last chunk is done or dropped.
//! What lies in a queue is not dropped when its receivers are gone but when its senders are
//! too, and these may be waiting for a report. So a thread that fails closes the budget, which
//! stops the readers, and then empties its queue until nobody sends any more.

use std::{
    fs::File as OsFile,
    io::{self, Read},
    num::NonZeroU32,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crossbeam_channel::{Receiver, Sender};
use rustix::{
    fs::{FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat, seek},
    io::Errno,
};

use super::{
    budget::{Budget, Plaintext},
    metadata::{self, NodeMaker},
};
use crate::{
    chunker::{
        CHUNK_BYTES_MIN, Chunker, Tables,
        pages::{self, Fineness, PageLayout},
    },
    format::{
        pack::BlobKind,
        tree::{Node, NodeKind},
    },
    id::BlobId,
    large_tree::CompressedTree,
    packer::{PackWriter, Sealer, WriteError},
    run::Run,
};

/// How much of a database's file is read and handed over at a time: a multiple of every layout's
/// period, so that each piece lies in one buffer.
const PAGES_READ_BYTES: u64 = CHUNK_BYTES_MIN as u64;
const _: () = {
    assert!(PAGES_READ_BYTES.is_multiple_of(PageLayout::Table.period() as u64));
    assert!(PAGES_READ_BYTES.is_multiple_of(PageLayout::Btree.period() as u64));
};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file to read.
pub(super) struct FileJob {
    pub(super) folder: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    pub(super) node: Node,
    /// Where the content is, when not in the file itself.
    pub(super) copy: Option<PathBuf>,
    /// How finely it may be cut.
    pub(super) fineness: Fineness,
    pub(super) done: Sender<FileOutcome>,
}

/// What became of a file.
pub(super) enum FileOutcome {
    /// All chunks are stored or known.
    Read(Box<Node>),
    /// It could not be read.
    Unreadable {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// A thread failed before the file was done.
    Dropped,
}

/// Blobs to store.
pub(super) struct BlobJob {
    kind: BlobKind,
    content: Content,
    /// The file that waits for the chunks, and which chunk is the first.
    file: Option<(Arc<InFlight>, usize)>,
}

impl BlobJob {
    /// The content of the one blob, if that is to be named.
    fn plain(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Plain(plaintext) => Some(&plaintext.bytes),
            Content::Tree(..) | Content::Pages(..) | Content::Zeros => None,
        }
    }
}

/// A file that is being read. Reports its outcome when dropped.
struct InFlight {
    state: Mutex<InFlightState>,
    done: Sender<FileOutcome>,
}

struct InFlightState {
    node: Option<Box<Node>>,
    chunks: Vec<Option<BlobId>>,
    /// Set when the reader came to the end of the file.
    complete: bool,
    failure: Option<(&'static str, io::Error)>,
}

impl InFlight {
    fn set_chunk(&self, number: usize, id: BlobId) {
        lock(&self.state).chunks[number] = Some(id);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let chunks: Option<Vec<BlobId>> = state.chunks.drain(..).collect();
        let outcome = match (state.failure.take(), state.node.take(), chunks) {
            (Some((operation, error)), ..) => FileOutcome::Unreadable { operation, error },
            (None, Some(mut node), Some(chunks)) if state.complete => {
                node.content = Some(chunks);
                FileOutcome::Read(node)
            }
            _ => FileOutcome::Dropped,
        };
        // An assembler that is gone has failed, and wants no more outcomes.
        drop(self.done.send(outcome));
    }
}

/// What blobs hold.
enum Content {
    /// One holds this.
    Plain(Plaintext),
    /// One holds this tree; the plaintext is what it was compressed to, with its id.
    Tree(Plaintext, BlobId, NonZeroU32),
    /// Each holds a piece of this, which begins where the layout's cuts repeat.
    Pages(Plaintext, PageLayout),
    /// A chunk of zeros as long as chunks of zeros are: a piece of a hole, which nobody read.
    Zeros,
}

/// A run of zeros is cut wherever that is allowed (`crate::chunker`).
static ZEROS: [u8; CHUNK_BYTES_MIN] = [0; CHUNK_BYTES_MIN];
static ZEROS_ID: LazyLock<BlobId> = LazyLock::new(|| BlobId::of(&ZEROS));

impl Content {
    /// How many blobs there are.
    fn count(&self) -> usize {
        match self {
            Self::Plain(_) | Self::Tree(..) | Self::Zeros => 1,
            Self::Pages(plaintext, layout) => layout.pieces(plaintext.bytes.len()).count(),
        }
    }
}

/// Sends a tree to the workers.
///
/// # Errors
/// Fails when the workers are gone.
pub(super) fn send_tree(
    budget: &Arc<Budget>,
    jobs: &Sender<BlobJob>,
    plaintext: Vec<u8>,
) -> Result<(), WriteError> {
    let plaintext = budget.admit(plaintext)?;
    let job = BlobJob { kind: BlobKind::Tree, content: Content::Plain(plaintext), file: None };
    jobs.send(job).map_err(|_| WriteError::Aborted)
}

/// Sends a large tree to the workers.
///
/// # Errors
/// As [`send_tree`].
pub(super) fn send_large_tree(
    budget: &Arc<Budget>,
    jobs: &Sender<BlobJob>,
    tree: CompressedTree,
) -> Result<(), WriteError> {
    let CompressedTree { id, behind_room: bytes, plaintext_bytes } = tree;
    let content = Content::Tree(budget.admit(bytes)?, id, plaintext_bytes);
    jobs.send(BlobJob { kind: BlobKind::Tree, content, file: None })
        .map_err(|_| WriteError::Aborted)
}

/// Reads files and cuts them into chunks; one of several threads.
pub(super) struct Reader<'a> {
    maker: &'a NodeMaker,
    budget: Arc<Budget>,
    chunks: Sender<BlobJob>,
    chunker: Chunker<Box<dyn Read + Send + 'a>>,
    run: &'a Run,
    attributes: Vec<u8>,
    /// Pieces of all streams of the run: which folder they are in is not known here.
    stream_pieces: Arc<AtomicU64>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        maker: &'a NodeMaker,
        tables: Arc<Tables>,
        budget: Arc<Budget>,
        chunks: Sender<BlobJob>,
        run: &'a Run,
    ) -> Self {
        let chunker = Chunker::new(tables, Box::new(io::empty()) as Box<dyn Read + Send>);
        let stream_pieces = Arc::default();
        Self { maker, budget, chunks, chunker, run, attributes: Vec::new(), stream_pieces }
    }

    /// Reads files until there are no more.
    ///
    /// # Errors
    /// Fails when the run is cancelled or the workers are gone.
    pub(super) fn work(mut self, jobs: &Receiver<FileJob>) -> Result<(), WriteError> {
        let result = jobs.iter().try_for_each(|job| {
            self.run.cancel.check()?;
            self.read(job)
        });
        if result.is_err() {
            jobs.iter().for_each(drop);
        }
        result
    }

    fn read(&mut self, job: FileJob) -> Result<(), WriteError> {
        let FileJob { folder, name, mut node, copy, fineness, done } = job;
        let opened = match copy {
            Some(copy) => open_copy(&copy),
            None => self.open(&folder, &name, &mut node),
        };
        let file = in_flight(node, done);
        match opened {
            Ok(open) => self.read_content(&file, open, fineness),
            Err((operation, error)) => {
                lock(&file.state).failure = Some((operation, error));
                Ok(())
            }
        }
    }

    /// Opens the file and takes its metadata from what was opened: between the walk's look and
    /// now another file may have come to stand under the name.
    fn open(
        &mut self,
        folder: &OwnedFd,
        name: &[u8],
        node: &mut Node,
    ) -> Result<Open, (&'static str, io::Error)> {
        let open = open_quietly(folder, name).map_err(|error| ("open", error.into()))?;
        let stat = fstat(&open).map_err(|error| ("look at", error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(("read", io::Error::other("it is no longer a regular file")));
        }
        self.maker.fill(node, &stat);
        node.extended_attributes = metadata::attributes_of_open(&open, &mut self.attributes)
            .map_err(|error| ("read the attributes of", error))?;
        Ok(Open { file: open.into(), size: node.size, sparse: is_sparse(&stat) })
    }

    fn read_content(
        &mut self,
        file: &Arc<InFlight>,
        open: Open,
        fineness: Fineness,
    ) -> Result<(), WriteError> {
        let Open { file: mut open, size, sparse } = open;
        match usize::try_from(size) {
            // One chunk at most: no need to look for cuts, nor to copy.
            Ok(size) if size < CHUNK_BYTES_MIN => {
                let mut bytes = Vec::with_capacity(size + 1);
                // It may have grown meanwhile; then it goes on as a large file.
                let read = (&mut open).take(CHUNK_BYTES_MIN as u64).read_to_end(&mut bytes);
                match read {
                    Ok(read) if read < CHUNK_BYTES_MIN => self.send_whole(file, bytes),
                    Ok(_) => self.read_chunks(file, Box::new(io::Cursor::new(bytes).chain(open))),
                    Err(error) => self.fail(file, error),
                }
            }
            _ => match layout_of(&open, size, fineness) {
                Ok(Some(layout)) => self.read_pages(file, Box::new(open), layout),
                Ok(None) if sparse => self.read_sparse(file, open),
                Ok(None) => self.read_chunks(file, Box::new(open)),
                Err(error) => self.fail(file, error),
            },
        }
    }

    fn send_whole(&mut self, file: &Arc<InFlight>, bytes: Vec<u8>) -> Result<(), WriteError> {
        let length = bytes.len() as u64;
        if length > 0 {
            self.send(file, Content::Plain(self.budget.admit(bytes)?))?;
        }
        finish(file, length);
        Ok(())
    }

    fn read_chunks(
        &mut self,
        file: &Arc<InFlight>,
        content: Box<dyn Read + Send + 'a>,
    ) -> Result<(), WriteError> {
        self.chunker.reset(content);
        let mut length = 0;
        let result = self.send_chunks(file, None, &mut length);
        self.end(file, result, length)
    }

    /// Reads a file of a database, which is cut at its pages; what is longer than such files are goes
    /// on by its content.
    fn read_pages(
        &mut self,
        file: &Arc<InFlight>,
        mut content: Box<dyn Read + Send + 'a>,
        layout: PageLayout,
    ) -> Result<(), WriteError> {
        let mut length = 0;
        while length < pages::FILE_BYTES_MAX {
            self.run.cancel.check()?;
            let mut buffer = self.budget.buffer()?;
            let read = match content.by_ref().take(PAGES_READ_BYTES).read_to_end(&mut buffer.bytes)
            {
                Ok(0) => {
                    finish(file, length);
                    return Ok(());
                }
                Ok(read) => read as u64,
                Err(error) => return self.fail(file, error),
            };
            // A file that is one chunk at most is one blob, whatever is in it.
            let content = match length == 0 && read < PAGES_READ_BYTES {
                true => Content::Plain(buffer),
                false => Content::Pages(buffer, layout),
            };
            length += read;
            self.send(file, content)?;
        }
        self.chunker.reset(content);
        let result = self.send_chunks(file, None, &mut length);
        self.end(file, result, length)
    }

    /// Reads a file that has holes; those are not read.
    fn read_sparse(&mut self, file: &Arc<InFlight>, open: OsFile) -> Result<(), WriteError> {
        let open = Arc::new(open);
        self.chunker.reset(Box::new(Shared(Arc::clone(&open))));
        let mut length = 0;
        let result = self.send_chunks(file, Some(&open), &mut length);
        self.end(file, result, length)
    }

    /// Sends the chunks of what the chunker was given, and counts their bytes. `sparse` is the file
    /// that it reads, if that has holes.
    fn send_chunks(
        &mut self,
        file: &Arc<InFlight>,
        sparse: Option<&OsFile>,
        length: &mut u64,
    ) -> Result<io::Result<()>, WriteError> {
        loop {
            self.run.cancel.check()?;
            if let Some(open) = sparse {
                match self.skip_hole(open, *length) {
                    Ok(chunks) => {
                        for _ in 0..chunks {
                            self.run.cancel.check()?;
                            self.send(file, Content::Zeros)?;
                        }
                        *length += chunks * CHUNK_BYTES_MIN as u64;
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
            let mut chunk = self.budget.buffer()?;
            match self.chunker.next_chunk(&mut chunk.bytes) {
                Ok(true) => {
                    *length += chunk.bytes.len() as u64;
                    self.send(file, Content::Plain(chunk))?;
                }
                Ok(false) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Passes over the chunks of zeros that begin at `offset`, where the next chunk begins too, as
    /// far as they lie in a hole; returns how many there are.
    fn skip_hole(&mut self, open: &OsFile, offset: u64) -> io::Result<u64> {
        let end = match seek(open, SeekFrom::Data(offset)) {
            Ok(data) => data,
            // No data behind: the hole reaches to the end.
            Err(Errno::NXIO) => fstat(open).map(|stat| u64::try_from(stat.st_size).unwrap_or(0))?,
            // A file system that knows no holes has none.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => offset,
            Err(error) => return Err(error.into()),
        };
        let chunks = end.saturating_sub(offset) / CHUNK_BYTES_MIN as u64;
        if chunks > 0 {
            self.chunker.drop_read_ahead();
        }
        // Asking for data moved the file, which must go on behind what was read ahead.
        let next_chunk = offset + chunks * CHUNK_BYTES_MIN as u64;
        seek(open, SeekFrom::Start(next_chunk + self.chunker.read_ahead() as u64))?;
        Ok(chunks)
    }

    fn end(
        &mut self,
        file: &Arc<InFlight>,
        result: Result<io::Result<()>, WriteError>,
        length: u64,
    ) -> Result<(), WriteError> {
        self.chunker.reset(Box::new(io::empty()));
        match result? {
            Ok(()) => finish(file, length),
            Err(error) => self.fail(file, error)?,
        }
        Ok(())
    }

    fn fail(&self, file: &Arc<InFlight>, error: io::Error) -> Result<(), WriteError> {
        lock(&file.state).failure = Some(("read", error));
        self.run.cancel.check().map_err(WriteError::from)
    }

    fn send(&self, file: &Arc<InFlight>, content: Content) -> Result<(), WriteError> {
        let number = {
            let mut state = lock(&file.state);
            let number = state.chunks.len();
            state.chunks.resize(number + content.count(), None);
            number
        };
        let file = Some((Arc::clone(file), number));
        let job = BlobJob { kind: BlobKind::Data, content, file };
        self.chunks.send(job).map_err(|_| WriteError::Aborted)
    }

    /// What more readers for the same workers can be made of.
    pub(super) fn into_parts(self, tables: Arc<Tables>) -> ReaderParts<'a> {
        let Self { maker, budget, chunks, run, stream_pieces, .. } = self;
        ReaderParts { maker, tables, budget, chunks, run, stream_pieces }
    }

    /// Reads a stream as the content of one file.
    ///
    /// # Errors
    /// As [`Reader::work`]. That the stream failed is told through the outcome.
    pub(super) fn read_stream(
        mut self,
        node: Node,
        stream: Box<dyn Read + Send + 'a>,
        done: Sender<FileOutcome>,
    ) -> Result<(), WriteError> {
        let file = in_flight(node, done);
        let mut stream = stream;
        let mut head = Vec::with_capacity(pages::HEAD_BYTES);
        if let Err(error) = stream.by_ref().take(pages::HEAD_BYTES as u64).read_to_end(&mut head) {
            return self.fail(&file, error);
        }
        let pieces = self.stream_pieces.load(Ordering::Relaxed);
        let fineness = Fineness::of(pieces, pages::FILE_BYTES_MAX);
        let layout = PageLayout::of(&head).and_then(|layout| fineness.bound(layout));
        let content: Box<dyn Read + Send> = Box::new(io::Cursor::new(head).chain(stream));
        let result = match layout {
            Some(layout) => self.read_pages(&file, content, layout),
            None => self.read_chunks(&file, content),
        };
        let pieces = lock(&file.state).chunks.len();
        self.stream_pieces.fetch_add(pieces as u64, Ordering::Relaxed);
        result
    }
}

/// What readers share; may be shared among threads, each of which makes its own reader.
pub(super) struct ReaderParts<'a> {
    pub(super) maker: &'a NodeMaker,
    tables: Arc<Tables>,
    budget: Arc<Budget>,
    chunks: Sender<BlobJob>,
    pub(super) run: &'a Run,
    stream_pieces: Arc<AtomicU64>,
}

impl ReaderParts<'_> {
    /// A reader that lives as long as one stream.
    pub(super) fn reader<'s>(&'s self) -> Reader<'s> {
        let (tables, budget) = (Arc::clone(&self.tables), Arc::clone(&self.budget));
        let reader = Reader::new(self.maker, tables, budget, self.chunks.clone(), self.run);
        Reader { stream_pieces: Arc::clone(&self.stream_pieces), ..reader }
    }
}

fn in_flight(node: Node, done: Sender<FileOutcome>) -> Arc<InFlight> {
    let state = InFlightState {
        node: Some(Box::new(node)),
        chunks: Vec::new(),
        complete: false,
        failure: None,
    };
    Arc::new(InFlight { state: Mutex::new(state), done })
}

fn finish(file: &InFlight, length: u64) {
    let mut state = lock(&file.state);
    state.complete = true;
    if let Some(node) = &mut state.node {
        debug_assert_eq!(node.kind, NodeKind::File);
        node.size = length;
    }
}

/// A file that was opened to be read.
struct Open {
    file: OsFile,
    size: u64,
    /// Whether it may have holes.
    sparse: bool,
}

/// How a file of `size` bytes is cut that is longer than one chunk. The file stays where it is.
fn layout_of(file: &OsFile, size: u64, fineness: Fineness) -> io::Result<Option<PageLayout>> {
    if size > pages::FILE_BYTES_MAX {
        return Ok(None);
    }
    let mut head = [0; pages::HEAD_BYTES];
    let read = file.read_at(&mut head, 0)?;
    Ok(PageLayout::of(&head[..read]).and_then(|layout| fineness.bound(layout)))
}

/// Whether less is stored of a file than its length says; compressing file systems say so too.
fn is_sparse(stat: &Stat) -> bool {
    const UNIT_OF_BLOCKS: i64 = 512;
    stat.st_blocks.saturating_mul(UNIT_OF_BLOCKS) < stat.st_size
}

/// A file that is read by one and moved by another, both on one thread.
struct Shared(Arc<OsFile>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

/// Opens what is read in a file's place.
fn open_copy(copy: &Path) -> Result<Open, (&'static str, io::Error)> {
    let file = OsFile::open(copy).map_err(|error| ("open the copy of", error))?;
    let stat = fstat(&file).map_err(|error| ("look at the copy of", error.into()))?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Open { file, size, sparse: is_sparse(&stat) })
}

/// Opens a file for reading without touching its access time, where that is allowed.
fn open_quietly(folder: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    // Without NONBLOCK the open would hang should a pipe stand there by now.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match openat(folder, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(folder, name, flags, Mode::empty()),
        result => result,
    }
}

/// Hashes, deduplicates, seals and packs blobs until there are no more; one of several threads.
///
/// # Errors
/// Fails when a blob cannot be written or the run is cancelled.
pub(super) fn work_on_blobs(
    writer: &PackWriter<'_>,
    jobs: &Receiver<BlobJob>,
    budget: &Budget,
    run: &Run,
) -> Result<(), WriteError> {
    let result = write_blobs(writer, jobs, run);
    if result.is_err() {
        budget.close();
        jobs.iter().for_each(drop);
    }
    result
}

fn write_blobs(
    writer: &PackWriter<'_>,
    jobs: &Receiver<BlobJob>,
    run: &Run,
) -> Result<(), WriteError> {
    let mut blobs = BlobWriter {
        writer,
        data: writer.sealer(BlobKind::Data)?,
        trees: writer.sealer(BlobKind::Tree)?,
    };
    for job in jobs {
        run.cancel.check()?;
        // Another one, if it is there, is named with this one: see `crate::sha256`.
        let jobs: Vec<BlobJob> = [Some(job), jobs.try_recv().ok()].into_iter().flatten().collect();
        let plain: Option<Vec<&[u8]>> = jobs.iter().map(BlobJob::plain).collect();
        let ids = plain.map(|plain| writer.names(&plain)).unwrap_or_default();
        for (number, job) in jobs.into_iter().enumerate() {
            blobs.work(job, ids.get(number).copied(), run)?;
        }
    }
    Ok(())
}

/// Writes what the repository has not yet.
struct BlobWriter<'w, 'a> {
    writer: &'w PackWriter<'a>,
    data: Sealer<'a>,
    trees: Sealer<'a>,
}

impl BlobWriter<'_, '_> {
    /// Writes the blobs of a job; `id` is that of a plain one, where it is known.
    fn work(&mut self, job: BlobJob, id: Option<BlobId>, run: &Run) -> Result<(), WriteError> {
        let BlobJob { kind, content, file } = job;
        let done = |place: usize, (id, is_new), bytes: usize| {
            if let Some((file, first)) = &file {
                // What is new counts when it is stored.
                run.progress.add_done(0, if is_new { 0 } else { bytes as u64 });
                file.set_chunk(first + place, id);
            }
        };
        match content {
            Content::Tree(mut compressed, id, plaintext_bytes) => {
                let behind_room = std::mem::take(&mut compressed.bytes);
                self.write_tree(CompressedTree { id, behind_room, plaintext_bytes })?;
            }
            Content::Plain(plaintext) => {
                let bytes = &plaintext.bytes;
                let id = id.unwrap_or_else(|| BlobId::of(bytes));
                done(0, self.write(kind, id, bytes)?, bytes.len());
            }
            Content::Zeros => done(0, self.write(kind, *ZEROS_ID, &ZEROS)?, ZEROS.len()),
            Content::Pages(plaintext, layout) => {
                let pieces = layout.pieces(plaintext.bytes.len());
                let pieces: Vec<&[u8]> = pieces.map(|piece| &plaintext.bytes[piece]).collect();
                let ids = self.writer.names(&pieces);
                for (place, (id, piece)) in ids.into_iter().zip(pieces).enumerate() {
                    done(place, self.write(kind, id, piece)?, piece.len());
                }
            }
        }
        Ok(())
    }

    /// Writes a blob, and tells whether it was new.
    fn write(
        &mut self,
        kind: BlobKind,
        id: BlobId,
        plaintext: &[u8],
    ) -> Result<(BlobId, bool), WriteError> {
        let is_new = self.writer.claim(kind, id);
        if is_new {
            let bytes = plaintext.len() as u64;
            let (sealed, counted) = match kind {
                BlobKind::Data => (self.data.seal(id, plaintext)?, bytes),
                BlobKind::Tree => (self.trees.seal(id, plaintext)?, 0),
            };
            self.writer.add_counting(kind, id, (bytes, counted), sealed)?;
        }
        Ok((id, is_new))
    }

    fn write_tree(&mut self, tree: CompressedTree) -> Result<(), WriteError> {
        match self.writer.claim(BlobKind::Tree, tree.id) {
            true => self.trees.write_tree(self.writer, tree),
            false => Ok(()),
        }
    }
}
