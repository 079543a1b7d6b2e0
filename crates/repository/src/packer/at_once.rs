//! How many packs are on their way at once: decided from what a store says of itself, before the first.
//! Here nothing waits and nothing is stored.

use super::{PackOptions, SYNCED_AT_ONCE};
use crate::storage::Storage;

/// How much of a disk's write-behind is used, in bytes: full packs that wait for the disk, and whose
/// content is the system's. What cannot be compressed comes faster than a disk takes it, and what can
/// be more slowly, so the disk catches up while the processor works.
const UNSYNCED_BYTES: u64 = 320 << 20;

/// What packs that are being stored take together, in bytes, unless two are larger. Two of the usual
/// size: while the answer for one is waited for, the other is sent, and at 50 ms that takes longer
/// on any line of less than 320 MiB a second.
const STORING_BYTES: u64 = 32 << 20;

/// The same where a store sends them from their files: what they take on the disk is bounded.
const SENT_FROM_FILES_BYTES: u64 = 64 << 20;

/// How many packs are stored at once: as many as the store takes requests and memory allows, two
/// at least, so that one is sent while the other's answer is waited for. A folder of this machine
/// takes the content at once ([`SYNCED_AT_ONCE`]) and needs one.
pub(super) fn stored_at_once(storage: &dyn Storage, pack_bytes: u32) -> usize {
    if storage.local_folder().is_some() {
        return 1;
    }
    let together = match storage.sends_from_files() {
        true => SENT_FROM_FILES_BYTES,
        false => STORING_BYTES,
    };
    storage.costs().connections.clamp(1, fitting(together, pack_bytes).max(2))
}

/// How many packs' buffers there are beside those of the open ones.
pub(super) fn buffers_of_stored(storage: &dyn Storage, pack_bytes: u32) -> usize {
    stored_at_once(storage, pack_bytes).min(fitting(STORING_BYTES, pack_bytes).max(2))
}

fn fitting(bytes: u64, pack_bytes: u32) -> usize {
    usize::try_from(bytes / u64::from(pack_bytes.max(1))).unwrap_or(usize::MAX)
}

/// How many full packs may wait for a storing thread. Only a folder's may, as they take no memory
/// once they are hashed; and not when nothing is written.
pub(super) fn waiting_at_most(storage: &dyn Storage, options: &PackOptions) -> usize {
    if storage.local_folder().is_none() || options.dry_run {
        return 0;
    }
    fitting(UNSYNCED_BYTES, options.pack_bytes).saturating_sub(SYNCED_AT_ONCE)
}
