//! Reading packs back: every byte once, through a window of bounded size.
//!
//! Each worker takes one pack wholly. It reads a piece, opens the blobs that are complete by then,
//! and hashes each beside as much of the file: two take little longer than one (`crate::sha256`).
//! So there is nothing to hand over between threads but whole packs, any number of cores
//! is kept busy, and a pack of 4 GiB takes no more memory than one of 4 MiB. What a worker
//! needs depends on the largest blob of its pack; a common budget makes workers wait when the
//! sum would grow too large.

use std::{
    num::NonZeroU32,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    CheckError,
    findings::{Findings, explain},
    parallel::{asking_threads, each_on_threads},
    report::{Hint, Problem, Subject},
    rota::Order,
};
use crate::{
    compression::{self, Decompressor},
    format::{
        FormatError,
        pack::{
            BlobKind, HEADER_BYTES_MAX, LENGTH_FIELD_BYTES, PackedBlob, header_span, read_header,
        },
    },
    id::{BlobId, PackId},
    index::Index,
    large_tree::LARGE_TREE_BYTES,
    repository::Repository,
    run::{Cancel, Progress},
    sha256::Running,
    storage::{File, Storage, StorageError, StorageProblem},
};

/// How much is read at once: large enough that the cost of a request does not show, small
/// enough that it is still in the cache when it is hashed.
const PIECE_BYTES: usize = 1 << 20;

/// The same when asking takes long: several pieces are under way, and each lasts a while.
const FAR_PIECE_BYTES: usize = 2 << 20;

/// What all workers together may keep in buffers.
const BUDGET_BYTES: u64 = 96 << 20;

/// A buffer that grew beyond this is given back after the pack that needed it.
const BUFFER_KEPT_BYTES: usize = 16 << 20;

/// A pack to read, and what the store says of its size.
pub(super) struct Wanted {
    pub(super) pack: PackId,
    pub(super) bytes: u64,
}

/// What was seen of a pack.
pub(super) struct Seen {
    pub(super) pack: PackId,
    /// What is wrong with the file as a whole.
    pub(super) problem: Option<Problem>,
    /// Blobs that cannot be read from it, and why.
    pub(super) bad: Vec<(BlobKind, BlobId, String)>,
    /// Whether a first reading found it damaged and the second did not.
    only_second_time: bool,
    /// It cannot be read before it is brought back: nobody knows whether it is sound.
    pub(super) is_archived: bool,
    /// What keeps the store from telling: nobody knows, either.
    failure: Option<StorageError>,
    bytes: u64,
}

impl Seen {
    /// The size of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_sound(&self) -> bool {
        self.problem.is_none() && self.bad.is_empty() && !self.is_unknown()
    }

    /// Whether nobody can say.
    fn is_unknown(&self) -> bool {
        self.is_archived || self.failure.is_some()
    }

    /// Takes what a store says when it is asked for the pack.
    fn blame(&mut self, error: StorageError) {
        match error.problem() {
            StorageProblem::Archived => self.is_archived = true,
            problem if problem.is_of_store() => self.failure = Some(error),
            _ => self.problem = Some(Problem::of_storage(&error)),
        }
    }

    /// Records what was seen.
    pub(super) fn tell(self, findings: &mut Findings) {
        if self.is_archived {
            findings.archive(self.pack);
            if let Some(suspected) = self.problem {
                findings.add(Subject::File(File::Pack(self.pack)), suspected);
            }
            return;
        }
        let sound = self.is_sound() && !self.only_second_time;
        findings.counts.packs_read += 1;
        findings.counts.bytes_read += self.bytes;
        if self.only_second_time {
            findings.hints.push(Hint::SoundOnSecondRead { pack: self.pack });
        }
        for (kind, id, first) in self.bad {
            let problem = Problem::BlobsDamaged { count: 1, first };
            findings.lose_copy(self.pack, kind, id, problem);
        }
        if sound {
            findings.sound.push(self.pack);
        }
        if let Some(problem) = self.problem {
            findings.add(Subject::File(File::Pack(self.pack)), problem);
        }
    }
}

/// Why the end of a pack was not found sound.
enum NotSound {
    Problem(Problem),
    Store(StorageError),
}

/// How many packs are tried at most when the time is over and nothing was read yet.
const LATE_TRIES_MAX: u32 = 100;

/// Reads `wanted` packs in an order and hands what is seen of each to `take`. Counts in `progress`,
/// if given.
pub(super) fn read(
    repository: &Repository,
    index: &Index,
    mut wanted: Vec<Wanted>,
    order: Order,
    cancel: &Cancel,
    progress: Option<&Progress>,
    mut take: impl FnMut(Seen),
) -> Result<(), CheckError> {
    if matches!(order, Order::LargestFirst) {
        wanted.sort_by_key(|wanted| (std::cmp::Reverse(wanted.bytes), wanted.pack));
    }
    // One is read whatever the time: when it is over, one after the other is tried until then, since
    // what is archived is none. Where all is archived, a few tries say so.
    let (has_read, late) = (AtomicBool::new(false), Mutex::new(0));
    let refused_ns = AtomicU64::new(0);
    let budget = Budget::new(BUDGET_BYTES);
    let readers: Result<Vec<_>, _> = (0..asking_threads(repository.storage().as_ref())
        .min(wanted.len()))
        .map(|_| PackReader::new(repository, cancel, progress))
        .collect();
    let readers = readers.map_err(CheckError::Decoder)?;
    // So many are refused at the same time.
    let at_once = readers.len().max(1) as u64;
    let has_failed = AtomicBool::new(false);
    let work = |reader: &mut PackReader<'_>, wanted: Wanted| {
        if has_failed.load(Ordering::SeqCst) {
            return None;
        }
        let refused = Duration::from_nanos(refused_ns.load(Ordering::SeqCst) / at_once);
        let is_late = order.is_over(refused);
        let mut tries = is_late.then(|| late.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(tries) = &mut tries {
            if has_read.load(Ordering::SeqCst) || **tries == LATE_TRIES_MAX {
                return None;
            }
            **tries += 1;
        }
        let mut blobs = index.pack_blobs(&wanted.pack);
        blobs.sort_by_key(|blob| blob.offset);
        blobs.dedup();
        let _held = budget.hold(bytes_needed(&blobs));
        let began = Instant::now();
        let seen = reader.read_doubting(&wanted, &blobs);
        reader.shrink();
        if seen.is_archived {
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            refused_ns.fetch_add(took, Ordering::SeqCst);
        }
        has_failed.fetch_or(seen.failure.is_some(), Ordering::SeqCst);
        has_read.fetch_or(!seen.is_archived, Ordering::SeqCst);
        Some(seen)
    };
    let mut failure = None;
    let take = |seen: Option<Seen>| match seen {
        Some(Seen { failure: Some(error), .. }) => failure = failure.take().or(Some(error)),
        Some(seen) => take(seen),
        None => {}
    };
    each_on_threads(readers, wanted, cancel, work, take)?;
    match failure {
        // What else is damaged nobody can ask now.
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// What the buffers of a worker can grow to, in bytes.
fn bytes_needed(blobs: &[PackedBlob]) -> u64 {
    let plaintext = |length: NonZeroU32| if is_large(length) { 0 } else { length.get() };
    let buffers = |blob: &PackedBlob| {
        2 * u64::from(blob.length) + u64::from(blob.uncompressed_length.map_or(0, plaintext))
    };
    let header = 3 * 41 * blobs.len() as u64;
    blobs.iter().map(buffers).max().unwrap_or(0) + header + 2 * FAR_PIECE_BYTES as u64
}

/// Whether a blob, a tree then, is hashed as it is decompressed, and what comes out is not held.
fn is_large(length: NonZeroU32) -> bool {
    length.get() as usize > LARGE_TREE_BYTES
}

/// Memory that workers share.
struct Budget {
    bytes_max: u64,
    held: Mutex<u64>,
    released: Condvar,
}

struct Held<'b> {
    budget: &'b Budget,
    bytes: u64,
}

impl Budget {
    fn new(bytes_max: u64) -> Self {
        Self { bytes_max, held: Mutex::new(0), released: Condvar::new() }
    }

    /// Waits until `bytes` more fit. Who is alone gets what it needs, however much.
    fn hold(&self, bytes: u64) -> Held<'_> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |held: &mut u64| *held > 0 && *held + bytes > self.bytes_max;
        let mut held =
            self.released.wait_while(held, is_full).unwrap_or_else(PoisonError::into_inner);
        *held += bytes;
        Held { budget: self, bytes }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.budget.held.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.released.notify_all();
    }
}

/// Reads packs one after another; buffers and contexts are reused.
struct PackReader<'r> {
    repository: &'r Repository,
    cancel: &'r Cancel,
    progress: Option<&'r Progress>,
    opening: Opening,
    window: Window,
    single: Vec<u8>,
}

/// What opening a blob takes.
struct Opening {
    decompressor: Decompressor,
    /// Decrypted.
    opened: Vec<u8>,
    /// Decompressed, too.
    plaintext: Vec<u8>,
}

impl<'r> PackReader<'r> {
    fn new(
        repository: &'r Repository,
        cancel: &'r Cancel,
        progress: Option<&'r Progress>,
    ) -> Result<Self, FormatError> {
        let decompressor = Decompressor::new()?;
        let opening = Opening { decompressor, opened: Vec::new(), plaintext: Vec::new() };
        let (window, single) = (Window::default(), Vec::new());
        Ok(Self { repository, cancel, progress, opening, window, single })
    }

    /// Reads a pack, and once more when it seems damaged: memory, cables and networks flip
    /// bits, too.
    fn read_doubting(&mut self, wanted: &Wanted, blobs: &[PackedBlob]) -> Seen {
        let first = self.read(wanted, blobs, self.progress);
        if let Some(progress) = self.progress {
            progress.add_done(1, 0);
        }
        if first.is_sound() || first.is_unknown() || self.cancel.is_requested() {
            return first;
        }
        let second = self.read(wanted, blobs, None);
        Seen { only_second_time: second.is_sound(), ..second }
    }

    fn read(&mut self, wanted: &Wanted, blobs: &[PackedBlob], progress: Option<&Progress>) -> Seen {
        let &Wanted { pack, bytes } = wanted;
        let storage = self.repository.storage().as_ref();
        let mut seen = Seen {
            pack,
            problem: None,
            bad: Vec::new(),
            only_second_time: false,
            is_archived: false,
            failure: None,
            bytes,
        };
        let mut stream = Stream {
            storage,
            pack,
            bytes,
            progress,
            digest: Running::new(),
            window: std::mem::take(&mut self.window),
            piece_bytes: match storage.costs().is_far() {
                true => FAR_PIECE_BYTES,
                false => PIECE_BYTES,
            },
        };
        stream.window.rewind();
        for blob in blobs {
            if seen.is_unknown() || self.cancel.is_requested() {
                break;
            }
            if let Err(reason) = self.read_blob(&mut stream, blob, &mut seen) {
                seen.bad.push((blob.kind, blob.id, reason));
            }
        }
        if seen.problem.is_none() && !seen.is_unknown() && !self.cancel.is_requested() {
            match self.read_end(&mut stream, blobs) {
                Ok(()) => {}
                Err(NotSound::Problem(problem)) => seen.problem = Some(problem),
                Err(NotSound::Store(error)) => seen.blame(error),
            }
        }
        self.window = stream.window;
        seen
    }

    /// Verifies one blob. After the stream broke, and where blobs overlap, it is read by
    /// itself.
    fn read_blob(
        &mut self,
        stream: &mut Stream<'_>,
        blob: &PackedBlob,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let (start, end) = (u64::from(blob.offset), u64::from(blob.offset + blob.length));
        if end > stream.bytes {
            return Err(format!("blob {} lies beyond the end of the file", blob.id));
        }
        let told = |error: FormatError| format!("blob {}: failed to {}", blob.id, explain(&error));
        let in_stream = seen.problem.is_none() && start >= stream.window.consumed();
        if in_stream {
            match stream.take(start, end) {
                Ok(sealed) => {
                    let opened = self.opening.open(self.repository, blob, sealed);
                    return opened
                        .map(|content| content.id(|plaintext| stream.hash_beside(plaintext)))
                        .and_then(|actual| compare_ids(actual, blob))
                        .map_err(told);
                }
                Err(error) => seen.blame(error),
            }
            if seen.is_unknown() {
                return Ok(());
            }
        }
        self.single.resize(blob.length as usize, 0);
        stream
            .storage
            .read_range(File::Pack(stream.pack), start, &mut self.single)
            .map_err(|error| format!("blob {}: failed to {}", blob.id, explain(&error)))?;
        let opened = self.opening.open(self.repository, blob, &self.single);
        opened
            .map(|content| content.id(BlobId::of))
            .and_then(|actual| compare_ids(actual, blob))
            .map_err(told)
    }

    /// Reads what follows the blobs, and judges file and header.
    fn read_end(&self, stream: &mut Stream<'_>, blobs: &[PackedBlob]) -> Result<(), NotSound> {
        let tail_max = (HEADER_BYTES_MAX + LENGTH_FIELD_BYTES) as u64;
        let bytes = stream.bytes;
        // Blobs that the index does not know, if there are any, are only hashed.
        while bytes - stream.window.consumed() > tail_max {
            let start = stream.window.consumed();
            let end = (start + PIECE_BYTES as u64).min(bytes - tail_max);
            stream.take(start, end).map_err(NotSound::Store)?;
        }
        let start = stream.window.consumed();
        stream.take(start, bytes).map_err(NotSound::Store)?;
        let actual = stream.finish();
        if actual != *stream.pack.as_bytes() {
            let actual = PackId::from_bytes(actual).to_hex();
            return Err(NotSound::Problem(Problem::WrongContent { actual }));
        }
        let tail = stream.window.bytes(start, bytes);
        let header = header_of(self.repository, tail, bytes);
        let disagrees = |reason| NotSound::Problem(Problem::HeaderDisagrees { reason });
        let header = header.map_err(|error| disagrees(explain(&error)))?;
        compare(&header, blobs).map_err(disagrees)
    }

    fn shrink(&mut self) {
        let Opening { opened, plaintext, .. } = &mut self.opening;
        for buffer in [&mut self.window.buffer, &mut self.single, opened, plaintext] {
            if buffer.capacity() > BUFFER_KEPT_BYTES {
                *buffer = Vec::new();
            }
        }
    }
}

/// What was opened.
enum Content<'c> {
    Plaintext(&'c [u8]),
    /// Hashed as it came out, since it is not held.
    Hashed(BlobId),
}

impl Content<'_> {
    fn id(&self, hash: impl FnOnce(&[u8]) -> BlobId) -> BlobId {
        match self {
            Self::Plaintext(plaintext) => hash(plaintext),
            Self::Hashed(id) => *id,
        }
    }
}

impl Opening {
    /// Authenticates, decrypts and decompresses a blob.
    fn open(
        &mut self,
        repository: &Repository,
        blob: &PackedBlob,
        sealed: &[u8],
    ) -> Result<Content<'_>, FormatError> {
        let Self { decompressor, opened, plaintext } = self;
        repository.key().open(sealed, opened)?;
        match blob.uncompressed_length {
            None => Ok(Content::Plaintext(opened)),
            Some(length) if is_large(length) => {
                compression::digest(opened, length.get().into()).map(Content::Hashed)
            }
            Some(length) => {
                decompressor.decompress_exact(opened, length.get() as usize, plaintext)?;
                Ok(Content::Plaintext(plaintext))
            }
        }
    }
}

fn compare_ids(actual: BlobId, blob: &PackedBlob) -> Result<(), FormatError> {
    match actual == blob.id {
        true => Ok(()),
        false => Err(FormatError::WrongHash { actual: actual.to_hex() }),
    }
}

/// Reads the header at the end of `tail`, the last bytes of a pack of `pack_bytes`.
pub(super) fn header_of(
    repository: &Repository,
    tail: &[u8],
    pack_bytes: u64,
) -> Result<Vec<PackedBlob>, FormatError> {
    let too_short = || FormatError::invalid("the header begins before the blobs end");
    let field = tail.last_chunk().ok_or_else(too_short)?;
    let span = header_span(*field, pack_bytes)?;
    let start = tail.len().checked_sub(span).ok_or_else(too_short)?;
    read_header(repository.key(), &tail[start..], pack_bytes)
}

/// Compares what a pack's header lists with what the index does.
fn compare(header: &[PackedBlob], index: &[PackedBlob]) -> Result<(), String> {
    if header.len() != index.len() {
        return Err(format!("it lists {} blobs, the index {}", header.len(), index.len()));
    }
    match header.iter().zip(index).find(|(a, b)| a != b) {
        None => Ok(()),
        Some((blob, _)) => {
            Err(format!("the index says otherwise of {} blob {}", blob.kind.as_str(), blob.id))
        }
    }
}

/// A pack as a stream of bytes, all of which are hashed.
struct Stream<'s> {
    storage: &'s dyn Storage,
    pack: PackId,
    bytes: u64,
    progress: Option<&'s Progress>,
    digest: Running,
    window: Window,
    /// How much is read at once.
    piece_bytes: usize,
}

impl Stream<'_> {
    /// The bytes from `start` to `end`; gives up what lies before.
    fn take(&mut self, start: u64, end: u64) -> Result<&[u8], StorageError> {
        while self.window.end() < end {
            // A gap larger than the window passes through it piece by piece.
            let consumed = start.min(self.window.end());
            self.window.consume(consumed);
            let passed = self.digest.add(self.window.to_hash(self.window.consumed()));
            self.window.hashed += passed as u64;
            let left = usize::try_from(self.bytes - self.window.end()).unwrap_or(usize::MAX);
            let offset = self.window.end();
            let piece = self.window.room(left.min(self.piece_bytes));
            self.storage.read_range(File::Pack(self.pack), offset, piece)?;
            let read = piece.len();
            self.window.filled += read;
            if let Some(progress) = self.progress {
                progress.add_done(0, read as u64);
            }
        }
        self.window.consume(end);
        Ok(self.window.bytes(start, end))
    }

    /// Hashes a blob, and as much of the pack as there is.
    fn hash_beside(&mut self, plaintext: &[u8]) -> BlobId {
        let (id, passed) =
            self.digest.add_beside(self.window.to_hash(self.window.end()), plaintext);
        self.window.hashed += passed as u64;
        BlobId::from_bytes(id)
    }

    /// The hash of the pack, when all of it was read.
    fn finish(&mut self) -> [u8; 32] {
        let digest = std::mem::replace(&mut self.digest, Running::new());
        digest.finish(self.window.to_hash(self.window.end()))
    }
}

/// A stretch of a pack in memory.
#[derive(Default)]
struct Window {
    buffer: Vec<u8>,
    /// Where in the pack the buffer begins.
    start: u64,
    /// How much of the buffer is in use.
    filled: usize,
    /// Up to where in the pack bytes were handed out.
    consumed: u64,
    /// Up to where in the pack bytes were hashed: whole blocks.
    hashed: u64,
}

impl Window {
    fn rewind(&mut self) {
        (self.start, self.filled, self.consumed, self.hashed) = (0, 0, 0, 0);
    }

    fn end(&self) -> u64 {
        self.start + self.filled as u64
    }

    fn consumed(&self) -> u64 {
        self.consumed
    }

    fn consume(&mut self, to: u64) {
        self.consumed = self.consumed.max(to);
    }

    /// What is to be hashed up to a place.
    fn to_hash(&self, end: u64) -> &[u8] {
        self.bytes(self.hashed, end.max(self.hashed))
    }

    /// Room for `bytes` more at the end; drops what is consumed and hashed to make it.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        let keep_from = self.consumed.min(self.hashed).min(self.end());
        let dropped = self.position(keep_from);
        self.buffer.copy_within(dropped..self.filled, 0);
        (self.start, self.filled) = (keep_from, self.filled - dropped);
        if self.buffer.len() < self.filled + bytes {
            self.buffer.resize(self.filled + bytes, 0);
        }
        &mut self.buffer[self.filled..self.filled + bytes]
    }

    /// Where in the buffer a place of the pack is.
    fn position(&self, at: u64) -> usize {
        usize::try_from(at - self.start).expect("a place within the buffer")
    }

    fn bytes(&self, start: u64, end: u64) -> &[u8] {
        &self.buffer[self.position(start)..self.position(end)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_kept_and_nobody_starves() {
        let (budget, together) = (Budget::new(100), Mutex::new((0, 0)));
        let hold = &|bytes: u64| {
            let _held = budget.hold(bytes);
            let mut sum = together.lock().unwrap();
            *sum = (sum.0 + bytes, sum.1.max(sum.0 + bytes));
            drop(sum);
            std::thread::yield_now();
            together.lock().unwrap().0 -= bytes;
        };
        std::thread::scope(|scope| {
            for bytes in [30, 60, 70, 250] {
                scope.spawn(move || (0..200).for_each(|_| hold(bytes)));
            }
        });
        let (left, most) = *together.lock().unwrap();
        assert_eq!((left, most), (0, 250), "250 alone, else at most 100");
    }
}
