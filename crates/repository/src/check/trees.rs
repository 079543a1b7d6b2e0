//! Walking every tree that a snapshot reaches, each once, on several threads.
//!
//! Trees wait on a stack, so that the walk goes into the depth and only the brothers of the
//! folders above are waiting: 32 bytes each. A tree is put on the stack when it is first seen,
//! which is why neither a tree of a million snapshots nor one that a hostile writer made refer
//! to itself through many paths is walked twice. Nothing recurses.
//!
//! Large trees are walked one at a time, and their entries are read one by one.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crossbeam_channel::{Sender, bounded};

use super::{
    CheckError,
    files::Roots,
    findings::{Findings, Map, explain, shown},
    parallel::asking_threads,
    report::{Hint, Problem},
};
use crate::{
    format::{
        FormatError,
        pack::BlobKind,
        tree::{Node, NodeKind, Tree},
    },
    id::{BlobId, PackId},
    index::Location,
    repository::{BlobReader, Entries, IndexedRepository, ReadError, is_large_tree},
    run::{Progress, Run},
};

/// Reading a tree is waiting, on remote stores: a few threads more than cores do no harm.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 8;

/// Trees larger than this are walked one at a time, for a parsed tree takes several times its
/// length. In bytes of plaintext.
const ALONE_BYTES: u32 = 4 << 20;

/// How many files with a wrong size are listed when it is only a hint.
const HINTS_MAX: usize = 20;

/// Something that a walker saw.
enum Event {
    Walked,
    BadCopy(Location, Problem),
    Archived(PackId),
    NotLookedInto,
    StoreFailed(ReadError),
    Missing(BlobKind, BlobId),
    NotIndexed(BlobKind, BlobId, PackId),
    Fault(BlobId, Option<Vec<u8>>, Problem),
}

/// Walks all trees from the roots of `roots` on, and counts them in the run's progress if
/// `count` says so.
pub(super) fn walk(
    repository: &IndexedRepository,
    roots: &Roots,
    count: bool,
    run: &Run,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let threads = asking_threads(repository.storage().as_ref()).clamp(THREADS_MIN, THREADS_MAX);
    let readers: Result<Vec<_>, _> = (0..threads).map(|_| repository.blob_reader()).collect();
    let unindexed: Map<PackId, ()> = findings.superfluous_packs().map(|pack| (pack, ())).collect();
    let (to_take, events) = bounded(1024);
    let queue = Queue::default();
    let progress = count.then_some(&*run.progress);
    let mut collector = Collector::new(findings, roots.any_by_rustic(), progress);
    let large = Mutex::new(());
    std::thread::scope(|scope| -> Result<(), CheckError> {
        let readers = readers?;
        let mut starter = Walker {
            repository,
            unindexed: &unindexed,
            queue: &queue,
            large: &large,
            events: to_take.clone(),
            found: Vec::new(),
        };
        // One thread feeds the roots in, newest first, while the others walk; here, events
        // must be taken at the same time.
        scope.spawn(move || {
            for root in roots.newest_first.iter().rev() {
                starter.refer(BlobKind::Tree, root.tree);
            }
            starter.queue.push(&mut starter.found);
            starter.queue.start();
        });
        for reader in readers {
            let walker = Walker {
                repository,
                unindexed: &unindexed,
                queue: &queue,
                large: &large,
                events: to_take.clone(),
                found: Vec::new(),
            };
            scope.spawn(move || walker.run(reader, run));
        }
        drop(to_take);
        events.iter().for_each(|event| collector.take(event));
        Ok(())
    })?;
    run.cancel.check()?;
    match collector.finish() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Trees that wait to be walked.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
    gave_up: AtomicBool,
}

#[derive(Default)]
struct QueueState {
    started: bool,
    waiting: Vec<BlobId>,
    seen: Map<BlobId, ()>,
    walking: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds those of `found` that were not seen before, the first on top.
    fn push(&self, found: &mut Vec<BlobId>) {
        let mut state = self.lock();
        for tree in found.drain(..).rev() {
            if state.seen.insert(tree, ()).is_none() {
                state.waiting.push(tree);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn start(&self) {
        self.lock().started = true;
        self.changed.notify_all();
    }

    /// The next tree; waits while others may still find some. `None` at the end.
    fn next(&self) -> Option<BlobId> {
        let nothing_yet = |state: &mut QueueState| {
            state.waiting.is_empty() && (state.walking > 0 || !state.started)
        };
        let mut state = self
            .changed
            .wait_while(self.lock(), nothing_yet)
            .unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.pop();
        state.walking += usize::from(next.is_some());
        next
    }

    fn done(&self) {
        self.lock().walking -= 1;
        self.changed.notify_all();
    }

    /// Whatever waits is only taken off from now on.
    fn give_up(&self) {
        self.gave_up.store(true, Ordering::SeqCst);
    }
}

/// One of the threads that walk.
struct Walker<'w> {
    repository: &'w IndexedRepository,
    unindexed: &'w Map<PackId, ()>,
    queue: &'w Queue,
    large: &'w Mutex<()>,
    events: Sender<Event>,
    found: Vec<BlobId>,
}

impl Walker<'_> {
    fn run(mut self, mut reader: BlobReader<'_>, run: &Run) {
        let mut plaintext = Vec::new();
        while let Some(id) = self.queue.next() {
            // After a stop the queue is only emptied, so that every thread comes to its end.
            let goes_on = !run.cancel.is_requested() && !self.queue.gave_up.load(Ordering::SeqCst);
            if goes_on {
                self.read(&mut reader, id, &mut plaintext);
            }
            self.queue.push(&mut self.found);
            self.queue.done();
        }
    }

    fn tell(&self, event: Event) {
        // The receiver outlives the threads.
        drop(self.events.send(event));
    }

    /// Walks a tree, from the first sound copy; tells of those that are not, or are archived.
    fn read(&mut self, reader: &mut BlobReader<'_>, id: BlobId, plaintext: &mut Vec<u8>) {
        let mut copies: Vec<_> = self.repository.index().find_all(BlobKind::Tree, id).collect();
        copies.sort_by_key(|copy| self.unindexed.contains_key(&copy.pack));
        let (mut is_archived, mut failed) = (false, None);
        for copy in copies {
            let large = self.large;
            let _alone = (copy.blob.plaintext_length() > ALONE_BYTES)
                .then(|| large.lock().unwrap_or_else(PoisonError::into_inner));
            match open(reader, &copy, plaintext) {
                Ok(tree) => return self.walk(id, tree),
                Err(error) if error.is_archived() => {
                    is_archived = true;
                    self.tell(Event::Archived(copy.pack));
                }
                Err(error) if error.is_of_store() => {
                    failed.get_or_insert(error);
                }
                Err(error) => self.tell(Event::BadCopy(copy, Problem::of_blob(&error))),
            }
        }
        if let Some(error) = failed {
            self.queue.give_up();
            self.tell(Event::StoreFailed(error));
        } else if is_archived {
            self.tell(Event::NotLookedInto);
        }
    }

    fn walk(&mut self, id: BlobId, tree: Result<Entries, FormatError>) {
        let walked = match tree {
            Ok(mut entries) => entries
                .try_for_each(|node| node.map(|node| self.visit(id, &node)))
                .map_err(|error| explain(&error)),
            Err(error) => Err(explain(&error)),
        };
        self.tell(match walked {
            Ok(()) => Event::Walked,
            Err(reason) => Event::Fault(id, None, Problem::InvalidTree { reason }),
        });
    }

    fn visit(&mut self, tree: BlobId, node: &Node) {
        match (node.kind, node.subtree, &node.content) {
            (NodeKind::Dir, Some(subtree), _) => {
                self.refer(BlobKind::Tree, subtree);
            }
            (NodeKind::File, _, Some(content)) => self.visit_content(tree, node, content),
            _ => {}
        }
    }

    fn visit_content(&mut self, tree: BlobId, node: &Node, content: &[BlobId]) {
        let mut bytes = Some(0);
        for &chunk in content {
            let length = self.refer(BlobKind::Data, chunk);
            bytes = bytes.zip(length).map(|(sum, length)| sum + length);
        }
        // When a chunk is missing the sum is unknown, and that is told already.
        if let Some(content) = bytes.filter(|&bytes| bytes != node.size) {
            let name = shown(&String::from_utf8_lossy(&node.name));
            let problem = Problem::SizesDisagree { name, size: node.size, content };
            self.tell(Event::Fault(tree, Some(node.name.clone()), problem));
        }
    }

    /// Notes that a snapshot needs a blob. Returns the length of its plaintext in bytes, if it
    /// is anywhere.
    fn refer(&mut self, kind: BlobKind, id: BlobId) -> Option<u64> {
        let copies = self.repository.index().find_all(kind, id);
        let mut somewhere = None;
        for copy in copies {
            let indexed = !self.unindexed.contains_key(&copy.pack);
            somewhere = Some(copy);
            if indexed {
                self.want(kind, id);
                return Some(u64::from(copy.blob.plaintext_length()));
            }
        }
        let Some(copy) = somewhere else {
            self.tell(Event::Missing(kind, id));
            return None;
        };
        self.tell(Event::NotIndexed(kind, id, copy.pack));
        self.want(kind, id);
        Some(u64::from(copy.blob.plaintext_length()))
    }

    fn want(&mut self, kind: BlobKind, id: BlobId) {
        if kind == BlobKind::Tree {
            self.found.push(id);
        }
    }
}

/// Opens a copy of a tree. What is wrong with the tree itself is told apart from what is wrong with
/// the copy.
fn open(
    reader: &mut BlobReader<'_>,
    copy: &Location,
    plaintext: &mut Vec<u8>,
) -> Result<Result<Entries, FormatError>, ReadError> {
    if is_large_tree(copy) {
        return reader.large_entries(copy);
    }
    reader.read_at(copy, plaintext)?;
    Ok(Tree::parse(plaintext).map(Entries::from))
}

/// Takes the events on the thread that owns the findings.
struct Collector<'f> {
    findings: &'f mut Findings,
    by_rustic: bool,
    progress: Option<&'f Progress>,
    not_indexed: Map<(BlobKind, BlobId), ()>,
    hints: usize,
    failure: Option<ReadError>,
}

impl<'f> Collector<'f> {
    fn new(findings: &'f mut Findings, by_rustic: bool, progress: Option<&'f Progress>) -> Self {
        Self { findings, by_rustic, progress, not_indexed: Map::default(), hints: 0, failure: None }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Walked => {
                self.findings.counts.trees += 1;
                if let Some(progress) = self.progress {
                    progress.add_done(1, 0);
                }
            }
            Event::BadCopy(copy, problem) => {
                self.findings.lose_copy(copy.pack, copy.blob.kind, copy.blob.id, problem);
            }
            Event::Archived(pack) => self.findings.archive(pack),
            Event::NotLookedInto => self.findings.counts.trees_archived += 1,
            Event::StoreFailed(error) => {
                self.failure.get_or_insert(error);
            }
            Event::Missing(kind, id) => self.findings.miss_blob(kind, id),
            Event::NotIndexed(kind, id, pack) => {
                if self.not_indexed.insert((kind, id), ()).is_none() {
                    self.findings.need_unindexed(pack);
                }
            }
            Event::Fault(tree, _, Problem::SizesDisagree { name, size, content })
                if self.by_rustic =>
            {
                self.hints += 1;
                if self.hints <= HINTS_MAX {
                    let hint = Hint::SizesDisagree { tree, name, size, content };
                    self.findings.hints.push(hint);
                }
            }
            Event::Fault(tree, name, problem) => self.findings.fault_tree(tree, name, problem),
        }
    }

    /// Ends the walk. Tells why it could not go on, if so.
    fn finish(self) -> Option<ReadError> {
        self.findings.blame_unindexed();
        self.failure
    }
}
