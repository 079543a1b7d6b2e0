//! What is written of packs and not hashed yet.
//!
//! A pack's hash takes its bytes one after the other, and alone it takes half as long again as beside
//! another (`crate::sha256`). So what was written to a pack waits until somebody names chunks, and is
//! hashed beside them, outside the pack's lock. What waits is the buffer that was written from: the
//! hash is of what was sealed and verified, not of what the disk says.
//!
//! What is not given away, as prune's blobs that lie in what was read of a pack, is hashed at once.
//!
//! **Bounds.** When more than [`WAITING_BYTES_MAX`] wait, who added the last hashes before going on. The
//! buffers are used again, what a large blob made large in part only.
//!
//! **Locks.** Who holds a pack's hash waits for no other's.

use std::{
    cmp::Reverse,
    mem,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, TryLockError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::lock;
use crate::{
    id::{BlobId, ID_BYTES, PackId},
    sha256::{self, Stream},
};

/// How much may wait before who adds more has to hash, in bytes.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// How many packs are gone on with at once: more are not hashed side by side.
const AT_ONCE: usize = 2;

/// Buffers that are kept for the next ones.
const SPARES_MAX: usize = 8;

/// What is behind this in a buffer is not kept: it would take memory until the end.
const SPARE_BYTES_MAX: usize = 3 << 20;

/// The hash of a pack, which lags behind what is written of it.
pub(super) struct LateHash {
    /// What was added since somebody hashed last.
    added: Mutex<Vec<Vec<u8>>>,
    /// All before. Who hashes holds it.
    stream: Mutex<Stream<Vec<u8>>>,
    /// How much waits in both, in bytes.
    waiting: AtomicUsize,
    /// The same for all packs of the run.
    waiting_of_all: Arc<AtomicUsize>,
}

impl Drop for LateHash {
    fn drop(&mut self) {
        self.waiting_of_all.fetch_sub(self.waiting(), Ordering::Relaxed);
    }
}

/// A hash in the hands of who goes on with it.
struct InHand<'h> {
    hash: &'h LateHash,
    stream: MutexGuard<'h, Stream<Vec<u8>>>,
}

impl Deref for InHand<'_> {
    type Target = Stream<Vec<u8>>;

    fn deref(&self) -> &Self::Target {
        &self.stream
    }
}

impl DerefMut for InHand<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.stream
    }
}

impl LateHash {
    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn take(&self) -> InHand<'_> {
        self.with_added(lock(&self.stream))
    }

    /// Nothing, when somebody else goes on with it.
    fn try_take(&self) -> Option<InHand<'_>> {
        match self.stream.try_lock() {
            Ok(stream) => Some(self.with_added(stream)),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(error)) => Some(self.with_added(error.into_inner())),
        }
    }

    /// Takes over what was added: in its order, because one at a time does.
    fn with_added<'h>(&'h self, mut stream: MutexGuard<'h, Stream<Vec<u8>>>) -> InHand<'h> {
        mem::take(&mut *lock(&self.added)).into_iter().for_each(|part| stream.push(part));
        InHand { hash: self, stream }
    }
}

/// The late hashes of a run.
#[derive(Default)]
pub(super) struct Unhashed {
    hashes: Mutex<Vec<Weak<LateHash>>>,
    /// How much waits for all, in bytes.
    waiting: Arc<AtomicUsize>,
    spares: Mutex<Vec<Vec<u8>>>,
}

impl Unhashed {
    /// The hash of a new pack.
    pub(super) fn begin(&self) -> Arc<LateHash> {
        let hash = Arc::new(LateHash {
            added: Mutex::default(),
            stream: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waiting_of_all: Arc::clone(&self.waiting),
        });
        let mut hashes = lock(&self.hashes);
        hashes.retain(|hash| hash.strong_count() > 0);
        hashes.push(Arc::downgrade(&hash));
        hash
    }

    /// Adds a part to a hash.
    pub(super) fn add(&self, hash: &LateHash, part: Vec<u8>) {
        hash.waiting.fetch_add(part.len(), Ordering::Relaxed);
        self.waiting.fetch_add(part.len(), Ordering::Relaxed);
        lock(&hash.added).push(part);
    }

    /// Adds what is not given away to a hash.
    pub(super) fn add_now(&self, hash: &LateHash, part: &[u8]) {
        let mut hash = hash.take();
        hash.add_now(part);
        self.recycle(&mut hash);
    }

    /// The names of chunks. Goes on with packs beside them.
    pub(super) fn names(&self, plaintexts: &[&[u8]]) -> Vec<BlobId> {
        let mut digests = vec![[0; ID_BYTES]; plaintexts.len()];
        let hashes = self.unfinished();
        let mut in_hand: Vec<InHand<'_>> =
            hashes.iter().filter_map(|hash| hash.try_take()).take(AT_ONCE).collect();
        sha256::digests_beside(plaintexts, &mut digests, &mut in_hand);
        in_hand.iter_mut().for_each(|hash| self.recycle(hash));
        digests.into_iter().map(BlobId::from_bytes).collect()
    }

    /// Goes on with packs until not too much waits.
    pub(super) fn catch_up(&self) {
        while self.waiting() > WAITING_BYTES_MAX {
            self.names(&[]);
            // What is left is of one pack, or others are at it.
            let hashes = self.unfinished();
            if let Some(most) = hashes.first().filter(|_| self.waiting() > WAITING_BYTES_MAX) {
                let mut most = most.take();
                most.catch_up();
                self.recycle(&mut most);
            }
        }
    }

    /// The name of a pack that ends with `last`.
    pub(super) fn finish(&self, hash: &LateHash, last: &[u8]) -> PackId {
        let own = hash.take();
        let hashes = self.unfinished();
        let mut others = hashes.iter().filter(|other| !std::ptr::eq(other.as_ref(), hash));
        let beside = others.find_map(|other| other.try_take());
        let mut both: Vec<InHand<'_>> = [Some(own), beside].into_iter().flatten().collect();
        sha256::digests_beside(&[], &mut [], &mut both);
        both[0].add_now(last);
        both.iter_mut().for_each(|hash| self.recycle(hash));
        PackId::from_bytes(mem::take(&mut *both[0]).finish())
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A buffer, with content of no use. What of it is never used takes no memory.
    pub(super) fn spare(&self) -> Vec<u8> {
        lock(&self.spares).pop().unwrap_or_else(|| Vec::with_capacity(SPARE_BYTES_MAX))
    }

    /// The hashes that something waits for, first those that most waits for.
    fn unfinished(&self) -> Vec<Arc<LateHash>> {
        if self.waiting() == 0 {
            return Vec::new();
        }
        let hashes = lock(&self.hashes);
        let mut unfinished: Vec<_> =
            hashes.iter().filter_map(Weak::upgrade).filter(|hash| hash.waiting() > 0).collect();
        drop(hashes);
        unfinished.sort_by_cached_key(|hash| Reverse(hash.waiting()));
        unfinished
    }

    /// Takes the buffers of what is hashed.
    fn recycle(&self, in_hand: &mut InHand<'_>) {
        let hash = in_hand.hash;
        for mut buffer in in_hand.take_hashed() {
            hash.waiting.fetch_sub(buffer.len(), Ordering::Relaxed);
            self.waiting.fetch_sub(buffer.len(), Ordering::Relaxed);
            let mut spares = lock(&self.spares);
            if buffer.capacity() >= SPARE_BYTES_MAX && spares.len() < SPARES_MAX {
                // What a large blob made of it goes back to the system.
                buffer.truncate(SPARE_BYTES_MAX);
                buffer.shrink_to(SPARE_BYTES_MAX);
                spares.push(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    fn noise(seed: usize, bytes: usize) -> Vec<u8> {
        let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[5]
        })
        .take(bytes)
        .collect()
    }

    /// Two packs that four threads add to, while each names chunks of its own.
    #[test]
    fn packs_and_chunks_have_their_names_whoever_hashes_them() {
        let unhashed = Unhashed::default();
        let packs = [(); 2].map(|()| (unhashed.begin(), Mutex::new(Vec::new())));
        let begin = Barrier::new(4);
        let work = |number: usize| {
            begin.wait();
            for turn in 0..60 {
                let chunks = [0, 1].map(|n| noise(number * 1_000 + turn * 2 + n, 3_000 * turn + n));
                let names = unhashed.names(&chunks.each_ref().map(Vec::as_slice));
                assert_eq!(names, chunks.each_ref().map(|chunk| BlobId::of(chunk)));
                let (hash, content) = &packs[(number + turn) % 2];
                let mut buffer = unhashed.spare();
                buffer.clear();
                buffer.extend_from_slice(&chunks[turn % 2]);
                // The order of a pack's content is that of its lock.
                let mut content = lock(content);
                content.extend_from_slice(&buffer);
                match turn % 7 {
                    0 => unhashed.add_now(hash, &buffer),
                    _ => unhashed.add(hash, buffer),
                }
                drop(content);
                unhashed.catch_up();
            }
        };
        thread::scope(|scope| {
            let threads = [0, 1, 2, 3].map(|number| scope.spawn(move || work(number)));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        for (hash, content) in packs {
            let content = [&lock(&content)[..], b"end"].concat();
            assert_eq!(unhashed.finish(&hash, b"end"), PackId::of(&content));
        }
        assert_eq!(unhashed.waiting(), 0);
    }

    #[test]
    fn what_waits_is_bounded_and_so_are_the_buffers_that_are_kept() {
        let unhashed = Unhashed::default();
        let hash = unhashed.begin();
        let part = noise(1, WAITING_BYTES_MAX / 4 + 1);
        for times in 1..=40 {
            unhashed.add(&hash, part.clone());
            assert_eq!(hash.waiting() > WAITING_BYTES_MAX, times % 4 == 0);
            unhashed.catch_up();
            assert!(hash.waiting() <= WAITING_BYTES_MAX);
        }
        let huge = noise(2, 2 * SPARE_BYTES_MAX);
        unhashed.add(&hash, huge.clone());
        unhashed.add(&hash, b"small".to_vec());
        let content = [&part.repeat(40), &huge, &b"small"[..]].concat();
        assert_eq!(unhashed.finish(&hash, b""), PackId::of(&content));
        let spares = lock(&unhashed.spares);
        assert!((1..=SPARES_MAX).contains(&spares.len()));
        assert!(spares.iter().all(|spare| spare.capacity() == SPARE_BYTES_MAX));
    }

    #[test]
    fn packs_are_hashed_beside_what_is_named_and_beside_each_other() {
        let unhashed = Unhashed::default();
        let hashes = [(); 3].map(|()| unhashed.begin());
        let part = noise(1, 640_000);
        let waiting = || hashes.each_ref().map(|hash| hash.waiting());
        unhashed.add(&hashes[0], part.clone());
        assert_eq!(unhashed.names(&[&part]), [BlobId::of(&part)]);
        assert_eq!(waiting(), [0, 0, 0]);
        hashes.iter().for_each(|hash| unhashed.add(hash, part.clone()));
        assert_eq!(
            unhashed.finish(&hashes[0], b"!"),
            PackId::of(&[&part[..], &part, b"!"].concat())
        );
        assert_eq!(waiting().iter().filter(|&&waiting| waiting == 0).count(), 2);
    }

    /// Each finds the other's while it has its own.
    #[test]
    fn two_that_are_finished_at_once_do_not_wait_for_each_other() {
        let unhashed = Unhashed::default();
        let part = noise(1, 64_000);
        let begin = Barrier::new(2);
        let work = || {
            for _ in 0..500 {
                let hash = unhashed.begin();
                unhashed.add(&hash, part.clone());
                begin.wait();
                assert_eq!(unhashed.finish(&hash, b""), PackId::of(&part));
            }
        };
        thread::scope(|scope| {
            let other = scope.spawn(work);
            work();
            other.join().unwrap();
        });
    }

    #[test]
    fn a_panic_is_no_reason_to_wait_forever() {
        let unhashed = Unhashed::default();
        let hash = unhashed.begin();
        unhashed.add(&hash, noise(1, 100_000));
        let panic = thread::scope(|scope| {
            let taken = scope.spawn(|| {
                let _in_hand = hash.take();
                panic!("with a hash in hand");
            });
            taken.join()
        });
        assert!(panic.is_err());
        unhashed.names(&[&noise(2, 100_000)]);
        assert_eq!(unhashed.finish(&hash, b""), PackId::of(&noise(1, 100_000)));
    }

    #[test]
    fn a_pack_that_is_given_up_is_not_gone_on_with() {
        let unhashed = Unhashed::default();
        let hash = unhashed.begin();
        unhashed.add(&hash, noise(1, 100_000));
        assert_eq!(unhashed.unfinished().len(), 1);
        drop(hash);
        assert!(unhashed.unfinished().is_empty());
        assert_eq!(unhashed.waiting(), 0);
        let names = unhashed.names(&[b"chunk"]);
        assert_eq!(names, [BlobId::of(b"chunk")]);
    }
}
