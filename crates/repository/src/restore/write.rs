//! Workers: have chunks opened, write files.
//!
//! A worker takes the next job of a batch, with the range of a pack that was read for it. Whoever
//! writes the last chunk of a file completes it: length, metadata, final name.
//!
//! **What stands under its final name is whole.** A file that is written in one go is made
//! under its name and removed again when that fails. One of several chunks, and one that
//! replaces something, is staged under a name that begins with `.muster-` and renamed when it
//! is whole; what lay there before stays until then.
//!
//! **Zeros are not written.** Files are always new, so what is not written reads as zeros and
//! takes no space.

use std::{
    collections::{HashMap, VecDeque},
    fs::File as OpenFile,
    io, ops,
    os::{fd::AsFd, unix::fs::FileExt},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use rustix::{
    fs::{Mode, OFlags, RenameFlags, fstat, openat, renameat, renameat_with},
    io::Errno,
};
use sha2::{Digest, Sha256};

use super::{
    Context,
    dirs::Folder,
    metadata::{Item, Present, PresentAttributes, apply},
    open::{BUFFER_KEPT_BYTES_MAX, Chunk, Opener, Range},
    plan::{Batch, FileState, Job, PlannedFile, Want},
    report::{ProblemCause, beside_content},
};
use crate::{
    format::pack::BlobKind,
    id::{BlobId, PackId},
    index::{Index, Location},
    repository::{ReadError, read_claimed},
    storage::File,
};

/// Zeros become holes in units of this many bytes, aligned in the file: a page, and a block of
/// most file systems.
const HOLE_BYTES: usize = 4096;

/// How many files that are not written in one go stay open, for all workers together.
const OPEN_FILES_MAX: usize = 128;

/// How much is read back at once to compare it, in bytes.
const COMPARE_BYTES: usize = 128 << 10;

/// Why a file cannot be whole: what was tried, and how it failed.
type Spoilt = (&'static str, ProblemCause);

/// One thread's tools.
pub(super) struct Worker<'a> {
    opener: Opener<'a>,
    writer: Writer<'a>,
}

/// Writes what was opened.
struct Writer<'a> {
    context: &'a Context<'a>,
}

/// Takes the next job of the batch and reads what it needs into a buffer; none when there are none
/// left, or the restore shall stop.
pub(super) fn read_next(
    context: &Context<'_>,
    batch: &Batch,
    buffer: impl FnOnce() -> Vec<u8>,
) -> Option<(usize, Range)> {
    if context.is_stopped() {
        return None;
    }
    let next = batch.next_job.fetch_add(1, Ordering::Relaxed);
    let mut range = Range::default();
    if let Job::Chunks { pack, offset, length, .. } = batch.jobs.get(next)? {
        range.offset = *offset;
        let storage = context.repository.storage().as_ref();
        let (file, length) = (File::Pack(*pack), *length as usize);
        range.bytes = buffer();
        let read = read_claimed(storage, file, u64::from(*offset), length, &mut range.bytes);
        range.is_read = read.is_ok();
    }
    Some((next, range))
}

impl<'a> Worker<'a> {
    /// One that opens so much at once, in bytes.
    pub(super) fn new(context: &'a Context<'a>, together: u32) -> Result<Self, ReadError> {
        let opener = Opener::new(context.repository, together as usize)?;
        Ok(Self { opener, writer: Writer { context } })
    }

    /// Does a job of the batch, unless the restore shall stop. Gives the buffer back.
    pub(super) fn work(&mut self, batch: &Batch, job: usize, mut range: Range) -> Vec<u8> {
        match &batch.jobs[job] {
            _ if self.writer.context.is_stopped() => {}
            Job::Chunks { pack, wants, .. } => {
                self.do_chunks(batch, *pack, &batch.wants[wants.clone()], &mut range);
            }
            Job::Empty(files) => {
                for &file in &batch.empty[files.clone()] {
                    self.writer.make_empty(batch, file);
                }
            }
        }
        match range.bytes.capacity() > BUFFER_KEPT_BYTES_MAX {
            true => Vec::new(),
            false => range.bytes,
        }
    }

    fn do_chunks(&mut self, batch: &Batch, pack: PackId, wants: &[Want], range: &mut Range) {
        let Self { opener, writer } = self;
        writer.show_current(batch, wants[0].file);
        let same = |a: &Want, b: &Want| a.offset == b.offset && id_of(batch, a) == id_of(batch, b);
        let chunk = |group| Chunk::new(group, writer.place(batch, pack, group));
        let mut chunks = wants.chunk_by(same).map(chunk).peekable();
        while !writer.context.is_stopped() && chunks.peek().is_some() {
            let mut together = opener.take_together(&mut chunks);
            opener.open(&mut together, range);
            for chunk in &together {
                writer.deliver(batch, chunk.group, opener.content(chunk, range));
            }
        }
        opener.shrink();
    }
}

impl Writer<'_> {
    /// Where the chunk lies that is wanted at several places.
    fn place(&self, batch: &Batch, pack: PackId, group: &[Want]) -> Location {
        let want = &group[0];
        let planned = |place: &Location| {
            let part = (place.pack, place.blob.offset, place.blob.length);
            part == (pack, want.offset, want.length)
        };
        let id = id_of(batch, want);
        let place = self.context.repository.index().find_all(BlobKind::Data, id).find(planned);
        place.expect("a chunk is planned at a place that the index gave")
    }

    /// Writes a chunk everywhere it is wanted.
    fn deliver(&self, batch: &Batch, group: &[Want], content: Result<&[u8], ProblemCause>) {
        let is_zero = content.as_ref().is_ok_and(|plaintext| is_zero(plaintext));
        for want in group {
            // A chunk may be wanted at any number of places.
            if self.context.is_stopped() {
                return;
            }
            let cause = match &content {
                Ok(plaintext) => {
                    self.write_chunk(batch, want, plaintext, is_zero);
                    continue;
                }
                Err(ProblemCause::Read(error)) => ProblemCause::Read(error.clone()),
                Err(error) => ProblemCause::Damaged(error.to_string()),
            };
            self.spoil(batch, want.file, ("read the content of", cause));
            self.count_chunk(batch, want.file, None);
        }
    }

    fn write_chunk(&self, batch: &Batch, want: &Want, plaintext: &[u8], is_zero: bool) {
        let file = &batch.files[want.file as usize];
        let mut handle = None;
        if !file.progress.is_spoilt.load(Ordering::Acquire) {
            match self.handle(batch, want.file) {
                Ok(open) => handle = Some(open),
                Err(error) => self.spoil(batch, want.file, ("create", error.into())),
            }
        }
        if let Some(open) = handle.as_ref().filter(|_| !is_zero)
            && let Err(error) = self.write_runs(batch, want, plaintext, open)
        {
            self.spoil(batch, want.file, ("write", error.into()));
        }
        self.context.run.progress.add_done(0, plaintext.len() as u64);
        self.count_chunk(batch, want.file, handle);
    }

    /// Writes what is not zeros of a chunk.
    fn write_runs(
        &self,
        batch: &Batch,
        want: &Want,
        plaintext: &[u8],
        open: &OpenFile,
    ) -> io::Result<()> {
        let file = &batch.files[want.file as usize];
        let mut written = 0;
        let mut end = 0;
        for run in runs(plaintext, want.at) {
            end = run.end;
            written += run.len() as u64;
            let at = want.at + run.start as u64;
            self.context.pace.write_all_at(open, &plaintext[run], at)?;
        }
        batch.bytes_written.fetch_add(written, Ordering::Relaxed);
        if want.chunk as usize + 1 == file.content.len() && end == plaintext.len() {
            file.progress.has_end.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// One chunk less to come; with the last one the file is completed.
    fn count_chunk(&self, batch: &Batch, number: u32, handle: Option<Arc<OpenFile>>) {
        let file = &batch.files[number as usize];
        if file.progress.chunks_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let handle = match batch.open.remove(number).or(handle) {
                None if file.progress.is_spoilt.load(Ordering::Acquire) => None,
                None => self.handle(batch, number).ok(),
                handle => handle,
            };
            self.complete(batch, number, handle);
        }
    }

    fn make_empty(&self, batch: &Batch, number: u32) {
        match self.create(batch, number) {
            Ok(handle) => self.complete(batch, number, Some(Arc::new(handle))),
            Err(error) => {
                self.spoil(batch, number, ("create", error.into()));
                self.complete(batch, number, None);
            }
        }
    }

    fn complete(&self, batch: &Batch, number: u32, handle: Option<Arc<OpenFile>>) {
        let file = &batch.files[number as usize];
        if let Some(handle) = handle.filter(|_| !file.progress.is_spoilt.load(Ordering::Acquire)) {
            match self.make_whole(batch, number, &handle) {
                Ok(()) => {
                    file.progress.set_state(FileState::Whole);
                    self.context.run.progress.add_done(1, 0);
                    return;
                }
                Err(spoilt) => self.spoil(batch, number, spoilt),
            }
        }
        self.context.discard(batch, number);
    }

    fn make_whole(&self, batch: &Batch, number: u32, handle: &OpenFile) -> Result<(), Spoilt> {
        let file = &batch.files[number as usize];
        if file.size > 0 && !file.progress.has_end.load(Ordering::Acquire) {
            handle.set_len(file.size).map_err(|error| ("write", error.into()))?;
        }
        if self.context.options.verify {
            let index = self.context.repository.index();
            match first_difference(handle, &file.content, index) {
                Ok(None) => {}
                Ok(Some(part)) => {
                    let ops::Range { start, end } = part;
                    return Err(("verify", ProblemCause::Differs { start, end }));
                }
                Err(error) => return Err(("read back", error.into())),
            }
        }
        let present = present_in(&file.folder, self.context);
        let item = Item::Open(handle.as_fd());
        let applied = apply(item, &file.metadata, present, self.context.rights);
        if applied.denied {
            batch.metadata_denied.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((operation, error)) = applied.problem {
            batch.add_problem(number, (operation, error.into()));
        }
        if file.is_staged() {
            self.give_final_name(batch, number).map_err(|error| ("rename", error.into()))?;
        }
        Ok(())
    }

    fn give_final_name(&self, batch: &Batch, number: u32) -> io::Result<()> {
        let file = &batch.files[number as usize];
        let folder = self.context.dirs.fd(&file.folder)?;
        let staged = self.context.staged_name(batch, number);
        let name: &[u8] = &file.name;
        if file.replaces {
            return Ok(renameat(&*folder, &*staged, &*folder, name)?);
        }
        match renameat_with(&*folder, &*staged, &*folder, name, RenameFlags::NOREPLACE) {
            // Network file systems do not know the flag.
            Err(Errno::INVAL | Errno::NOSYS) => Ok(renameat(&*folder, &*staged, &*folder, name)?),
            result => Ok(result?),
        }
    }

    /// The open file, made when this is the first time.
    fn handle(&self, batch: &Batch, number: u32) -> io::Result<Arc<OpenFile>> {
        let file = &batch.files[number as usize];
        if file.content.len() <= 1 {
            return Ok(Arc::new(self.create(batch, number)?));
        }
        batch.open.get_or_open(number, || match file.progress.identity.get() {
            None => self.create(batch, number),
            Some(identity) => self.reopen(batch, number, *identity),
        })
    }

    fn create(&self, batch: &Batch, number: u32) -> io::Result<OpenFile> {
        let file = &batch.files[number as usize];
        let folder = self.context.dirs.fd(&file.folder)?;
        let flags = self.access() | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::RUSR | Mode::WUSR;
        let made = openat(&*folder, &*self.working_name(batch, number), flags, mode)?;
        file.progress.set_state(FileState::Begun);
        if file.content.len() > 1 || file.link.is_some() {
            let stat = fstat(&made)?;
            file.progress.identity.get_or_init(|| (stat.st_dev, stat.st_ino));
        }
        Ok(made.into())
    }

    fn reopen(&self, batch: &Batch, number: u32, identity: (u64, u64)) -> io::Result<OpenFile> {
        let file = &batch.files[number as usize];
        let folder = self.context.dirs.fd(&file.folder)?;
        let name = self.working_name(batch, number);
        let open = openat(&*folder, &*name, self.access(), Mode::empty())?;
        let stat = fstat(&open)?;
        if (stat.st_dev, stat.st_ino) != identity {
            return Err(io::Error::other("somebody put another file in its place"));
        }
        Ok(open.into())
    }

    fn access(&self) -> OFlags {
        let access = if self.context.options.verify { OFlags::RDWR } else { OFlags::WRONLY };
        access | OFlags::NOFOLLOW | OFlags::CLOEXEC
    }

    fn working_name<'f>(&self, batch: &'f Batch, number: u32) -> std::borrow::Cow<'f, [u8]> {
        let file = &batch.files[number as usize];
        match file.is_staged() {
            true => self.context.staged_name(batch, number).into(),
            false => (&*file.name).into(),
        }
    }

    /// The file will not be whole. Only the first reason is told.
    fn spoil(&self, batch: &Batch, number: u32, (operation, cause): Spoilt) {
        let file = &batch.files[number as usize];
        if let ProblemCause::Io(error) = &cause {
            self.context.stop_if_full(error, || file.folder.path_of(&file.name));
        }
        if !file.progress.is_spoilt.swap(true, Ordering::AcqRel) {
            batch.add_problem(number, (operation, cause));
        }
    }

    fn show_current(&self, batch: &Batch, number: u32) {
        let file = &batch.files[number as usize];
        self.context.run.progress.set_current(|current| {
            current.push_str(&String::from_utf8_lossy(&file.folder.path_of(&file.name)));
        });
    }
}

/// The chunk that is wanted.
fn id_of(batch: &Batch, want: &Want) -> BlobId {
    batch.files[want.file as usize].content[want.chunk as usize]
}

/// What new files in a folder have before they get their metadata.
pub(super) fn present_in(folder: &Folder, context: &Context<'_>) -> Present {
    let ours = (context.rights.uid, context.rights.gid);
    let facts = folder.facts();
    // The folder's group may be handed down to what is made in it, so it is known only when it
    // is the same.
    let owner = facts.filter(|facts| facts.owner == ours).map(|_| ours);
    let attributes = match facts.is_some_and(|facts| facts.gives_acl) {
        true => PresentAttributes::Inherited,
        false => PresentAttributes::None,
    };
    Present { owner, attributes }
}

impl Batch {
    fn add_problem(&self, number: u32, (operation, cause): Spoilt) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.push((number, operation, cause));
    }
}

impl Context<'_> {
    /// The name under which a file is written that is not yet whole. It is random, so that
    /// leftovers of an interrupted run are never in the way.
    fn staged_name(&self, batch: &Batch, number: u32) -> Vec<u8> {
        format!(".muster-{:016x}-{}-{number}", self.tag, batch.number).into_bytes()
    }

    /// Removes a file that was begun and will not be whole.
    pub(super) fn discard(&self, batch: &Batch, number: u32) {
        let file: &PlannedFile = &batch.files[number as usize];
        if file.progress.state() == FileState::Begun {
            let staged = self.staged_name(batch, number);
            let name = if file.is_staged() { &staged } else { &*file.name };
            if let Err(error) = self.dirs.unlink(&file.folder, name) {
                batch.add_problem(number, (beside_content::REMOVE_INCOMPLETE, error.into()));
            }
        }
        file.progress.set_state(FileState::Failed);
    }
}

/// The open files of a batch that are not written in one go.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    state: Mutex<OpenState>,
}

#[derive(Debug, Default)]
struct OpenState {
    handles: HashMap<u32, Arc<OpenFile>>,
    /// In the order of opening; some may be gone.
    order: VecDeque<u32>,
}

impl OpenFiles {
    fn get_or_open(
        &self,
        number: u32,
        open: impl FnOnce() -> io::Result<OpenFile>,
    ) -> io::Result<Arc<OpenFile>> {
        // Held while opening, so that two workers do not both create the file.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = state.handles.get(&number) {
            return Ok(handle.clone());
        }
        let handle = Arc::new(open()?);
        state.handles.insert(number, handle.clone());
        state.order.push_back(number);
        while state.handles.len() > OPEN_FILES_MAX {
            let Some(oldest) = state.order.pop_front() else { break };
            state.handles.remove(&oldest);
        }
        Ok(handle)
    }

    fn remove(&self, number: u32) -> Option<Arc<OpenFile>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = state.handles.remove(&number);
        if handle.is_some() && state.order.len() > 4 * OPEN_FILES_MAX {
            let OpenState { handles, order } = &mut *state;
            order.retain(|number| handles.contains_key(number));
        }
        handle
    }
}

/// The parts of a chunk at position `at` of its file that are not zeros.
fn runs(data: &[u8], at: u64) -> impl Iterator<Item = ops::Range<usize>> + '_ {
    // The remainder is smaller than 4096.
    let misaligned = usize::try_from(at % HOLE_BYTES as u64).unwrap_or(0);
    let block_end =
        move |start: usize| data.len().min(start + HOLE_BYTES - (misaligned + start) % HOLE_BYTES);
    let mut position = 0;
    std::iter::from_fn(move || {
        while position < data.len() && is_zero(&data[position..block_end(position)]) {
            position = block_end(position);
        }
        let start = position;
        while position < data.len() && !is_zero(&data[position..block_end(position)]) {
            position = block_end(position);
        }
        (start < position).then_some(start..position)
    })
}

fn is_zero(data: &[u8]) -> bool {
    const ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];
    data.chunks(HOLE_BYTES).all(|block| block == &ZEROS[..block.len()])
}

/// Compares a file with its chunks and returns where the first one lies that differs.
pub(super) fn first_difference(
    file: &OpenFile,
    content: &[BlobId],
    index: &Index,
) -> io::Result<Option<ops::Range<u64>>> {
    let mut buffer = vec![0; COMPARE_BYTES];
    let mut at = 0;
    for &id in content {
        let place = index.find(BlobKind::Data, id).ok_or(io::ErrorKind::NotFound)?;
        let end = at + u64::from(place.blob.plaintext_length());
        let mut hash = Sha256::new();
        let mut position = at;
        while position < end {
            let length = usize::try_from(end - position)
                .map_or(COMPARE_BYTES, |left| left.min(COMPARE_BYTES));
            let part = &mut buffer[..length];
            match file.read_exact_at(part, position) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Some(at..end));
                }
                result => result?,
            }
            hash.update(&*part);
            position += length as u64;
        }
        let actual: [u8; 32] = hash.finalize().into();
        if actual != *id.as_bytes() {
            return Ok(Some(at..end));
        }
        at = end;
    }
    Ok((file.metadata()?.len() != at).then_some(at..at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(at: u64, parts: &[(u8, usize)], expected: &[ops::Range<usize>]) {
        let data: Vec<u8> =
            parts.iter().flat_map(|&(byte, count)| std::iter::repeat_n(byte, count)).collect();
        assert_eq!(runs(&data, at).collect::<Vec<_>>(), expected, "{at} {parts:?}");
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of ranges with one member")]
    fn zero_blocks_are_left_out() {
        check(0, &[], &[]);
        check(0, &[(1, 10)], &[0..10]);
        check(0, &[(0, 10)], &[]);
        check(0, &[(1, 4096), (0, 4096), (1, 4096)], &[0..4096, 8192..12288]);
        check(0, &[(1, 1), (0, 4095), (0, 4096)], &[0..4096]);
        check(0, &[(0, 4097), (1, 1)], &[4096..4098]);
        check(96, &[(1, 4000), (0, 4096), (1, 5)], &[0..4000, 8096..8101]);
        check(96, &[(1, 3999), (0, 4096), (1, 6)], &[0..8101]);
    }
}
