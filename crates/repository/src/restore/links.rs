//! Which inodes were restored under which name, for their other names.
//!
//! An inode is known by device and number, and also by kind and content: numbers are used
//! again, and a file may have changed between the moments at which two names of it were read.
//! Such names become files of their own.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::dirs::Folder;
use crate::format::tree::{Node, NodeKind};

/// Tells inodes of the source apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LinkKey {
    inode: u64,
    device: u64,
    kind: NodeKind,
    content: u64,
}

/// Where an inode was restored.
#[derive(Debug, Clone)]
pub(super) enum FirstName {
    /// It will be: in the batch, as the file with this number.
    Planned { batch: u32, file: u32 },
    /// It is there.
    Restored(Restored),
}

/// A name that was restored, and the inode behind it.
#[derive(Debug, Clone)]
pub(super) struct Restored {
    pub(super) folder: Arc<Folder>,
    pub(super) name: Box<[u8]>,
    /// Device and inode in the target.
    pub(super) identity: (u64, u64),
}

#[derive(Debug)]
struct Entry {
    first: FirstName,
    /// How many other names are still to come; with the last one the entry goes.
    names_left: u64,
}

/// The inodes with several names, as long as names are still to come.
#[derive(Debug, Default)]
pub(super) struct Links {
    entries: HashMap<LinkKey, Entry>,
    hasher: RandomState,
}

impl Links {
    /// The key of a node that has other names; none for a node that is alone.
    pub(super) fn key(&self, node: &Node) -> Option<LinkKey> {
        node.is_hard_link().then(|| LinkKey {
            inode: node.inode,
            device: node.device_id,
            kind: node.kind,
            content: self.hasher.hash_one((&node.content, &node.link_target, node.device)),
        })
    }

    pub(super) fn get(&self, key: LinkKey) -> Option<&FirstName> {
        self.entries.get(&key).map(|entry| &entry.first)
    }

    /// Remembers the first name of an inode with `links` names.
    pub(super) fn insert(&mut self, key: LinkKey, first: FirstName, links: u64) {
        self.entries.insert(key, Entry { first, names_left: links.saturating_sub(1).max(1) });
    }

    /// The planned first name is there.
    pub(super) fn set_restored(&mut self, key: LinkKey, restored: Restored) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.first = FirstName::Restored(restored);
        }
    }

    /// The planned first name could not be restored: the next one becomes the first.
    pub(super) fn forget_planned(&mut self, key: LinkKey, batch: u32, file: u32) {
        let planned = |entry: &Entry| matches!(entry.first, FirstName::Planned { batch: b, file: f } if (b, f) == (batch, file));
        if self.entries.get(&key).is_some_and(planned) {
            self.entries.remove(&key);
        }
    }

    /// One more name was dealt with.
    pub(super) fn count_name(&mut self, key: LinkKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.names_left -= 1;
            if entry.names_left == 0 {
                self.entries.remove(&key);
            }
        }
    }
}
