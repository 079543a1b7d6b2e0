//! Which files are trusted to be unchanged.
//!
//! A backup compares with one earlier snapshot, its parent. A file whose size, modification
//! time, change time and inode are those that the parent recorded is not read again: its chunks
//! are taken from there, provided that the index still has all of them.
//!
//! One case needs care. A file that is changed twice within one tick of the file system's clock
//! has the same times after both. If the first backup read it between the two, its times would
//! vouch for the wrong content for ever. So a file whose change time is not clearly older than
//! the parent backup's start is read again; git calls such entries "racily clean".

use muster_model::{BackupKind, Class, Fault as _};

use super::{
    BackupError, BackupOptions,
    assemble::Before,
    metadata,
    recorded::{ParentTree, Recorded, SameEntry},
};
use crate::{
    environment::Environment,
    format::{
        pack::BlobKind,
        snapshot::Snapshot,
        time::Timestamp,
        tree::{Node, NodeKind},
    },
    id::{BlobId, SnapshotId},
    index::Index,
    packer::PackWriter,
    repository::{BlobReader, ReadError, Repository},
    select::{self, SourceQuery},
};

/// How far before the parent's start a change must lie to be trusted, in seconds. File systems
/// tick in milliseconds (ext4, xfs, btrfs) to 2 seconds (FAT); network clocks may differ a bit.
const RACY_SECONDS: i64 = 3;

/// Which earlier snapshot a backup compares with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParentChoice {
    /// The latest one of the same host and paths that the kind of backup allows.
    #[default]
    Latest,
    /// This one.
    Snapshot(SnapshotId),
    /// None: every file is read.
    Nothing,
}

/// The earlier backups of the same source among the snapshots with these ids.
pub(super) fn earlier(
    repository: &Repository,
    ids: Vec<SnapshotId>,
    options: &BackupOptions,
    paths: &[String],
    start: Timestamp,
    environment: &Environment,
) -> Vec<(SnapshotId, Snapshot)> {
    // A damaged snapshot is no parent and no measure; `check` is there to tell of it.
    let snapshots = repository.snapshots_of(&ids).into_iter();
    let snapshots = snapshots.filter_map(|(id, snapshot)| Some((id, snapshot.ok()?)));
    let hostname = options.hostname.as_deref().unwrap_or(&environment.hostname);
    let time = options.time.unwrap_or(start);
    let query = SourceQuery { hostname, paths, time };
    snapshots.filter(|(_, snapshot)| query.matches(snapshot)).collect()
}

pub(super) fn find_parent(
    repository: &Repository,
    options: &BackupOptions,
    earlier: &[(SnapshotId, Snapshot)],
) -> Result<Option<(SnapshotId, Snapshot)>, BackupError> {
    if options.kind == BackupKind::Full {
        return Ok(None);
    }
    match options.parent {
        ParentChoice::Nothing => Ok(None),
        ParentChoice::Snapshot(id) => Ok(Some((id, repository.snapshot(id)?))),
        ParentChoice::Latest => {
            let only_full = options.kind == BackupKind::Differential;
            Ok(select::find_parent(earlier, only_full).cloned())
        }
    }
}

/// What must agree for a file to be trusted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trust {
    pub(super) ignore_ctime: bool,
    pub(super) ignore_inode: bool,
    /// When the parent backup began.
    pub(super) parent_start: Timestamp,
}

impl Trust {
    /// The parent's record of a file, if the file is surely unchanged since.
    pub(super) fn unchanged<'n>(
        &self,
        now: &Node,
        before: Option<&'n Node>,
        index: &Index,
    ) -> Option<&'n Node> {
        let before = before.filter(|before| before.kind == NodeKind::File)?;
        let same = before.size == now.size
            && before.mtime == now.mtime
            && (self.ignore_ctime || before.ctime == now.ctime)
            && (self.ignore_inode || before.inode == now.inode);
        let stored =
            |content: &Vec<BlobId>| content.iter().all(|&id| index.contains(BlobKind::Data, id));
        (same && !self.is_racy(now) && before.content.as_ref().is_some_and(stored))
            .then_some(before)
    }

    /// Whether the file's times are too young to be believed.
    pub(super) fn is_racy(&self, now: &Node) -> bool {
        let changed = if self.ignore_ctime { now.mtime } else { now.ctime };
        changed.seconds() >= self.parent_start.seconds() - RACY_SECONDS
    }
}

/// Follows the walk through the parent's trees.
pub(super) struct ParentWalk<'r> {
    reader: BlobReader<'r>,
    stack: Vec<Level>,
    /// Is told of the trees that are damaged.
    writer: &'r PackWriter<'r>,
}

/// A folder that the walk is in, as the parent recorded it, if it did.
type Level = Option<Box<Recorded>>;

/// A tree that is written in an odd way is none.
fn read_tree(reader: &mut BlobReader<'_>, id: BlobId) -> Result<Option<ParentTree>, ReadError> {
    if let Some(tree) = reader.large_tree(id)? {
        return Ok(Some(ParentTree::Large(tree.share())));
    }
    let mut text = Vec::new();
    reader.read(BlobKind::Tree, id, &mut text)?;
    Ok(ParentTree::whole(text))
}

fn level(tree: ParentTree) -> Level {
    Recorded::new(tree).ok().map(Box::new)
}

impl<'r> ParentWalk<'r> {
    /// Starts at the parent's root.
    pub(super) fn new(
        reader: BlobReader<'r>,
        root: Option<BlobId>,
        writer: &'r PackWriter<'r>,
    ) -> Self {
        let mut walk = Self { reader, stack: Vec::new(), writer };
        let root = walk.tree(root);
        walk.stack.push(root.and_then(level));
        walk
    }

    /// A tree that cannot be read is none: everything in it is read again. If it is damaged, it is
    /// also written again.
    fn tree(&mut self, id: Option<BlobId>) -> Option<ParentTree> {
        let id = id?;
        read_tree(&mut self.reader, id).unwrap_or_else(|error| {
            if error.class() == Class::Corrupt {
                self.writer.distrust(BlobKind::Tree, id);
            }
            None
        })
    }

    /// Goes past the next entry of the current folder, if its record begins with `opening` and
    /// speaks for content that is stored; see [`Recorded::take_same`].
    pub(super) fn take_same(
        &mut self,
        opening: &[u8],
        is_stored: impl FnMut(BlobId) -> bool,
    ) -> Option<SameEntry> {
        self.stack.last_mut()?.as_mut()?.take_same(opening, is_stored)
    }

    /// See [`Recorded::new_section`].
    pub(super) fn new_section(&mut self) -> Option<usize> {
        self.stack.last_mut()?.as_mut()?.new_section()
    }

    /// Goes on to this name, the next one of the current folder.
    pub(super) fn go_to(&mut self, name: &[u8]) {
        let Some(level) = self.stack.last_mut() else { return };
        if level.as_mut().is_some_and(|recorded| recorded.find(name).is_err()) {
            *level = None;
        }
    }

    /// What the parent has under the name that was gone to.
    pub(super) fn node(&self, name: &[u8]) -> Option<&Node> {
        self.stack.last()?.as_ref()?.found(name)
    }

    /// Enters a folder; returns what the parent recorded for it.
    pub(super) fn enter(&mut self, name: &[u8]) -> Option<Before> {
        self.go_to(name);
        let id = self.node(name).and_then(|node| node.subtree);
        let tree = self.tree(id);
        let level = tree.clone().and_then(level);
        let tree = tree.filter(|_| level.is_some());
        self.stack.push(level);
        id.map(|id| Before { id, tree })
    }

    pub(super) fn leave(&mut self) {
        self.stack.pop();
    }
}

/// Whether a node's attributes can be taken from its unchanged predecessor: any change of them
/// changes the inode's change time.
pub(super) fn attributes_unchanged(now: &Node, before: &Node) -> bool {
    now.ctime == before.ctime && now.inode == before.inode && now.device_id == before.device_id
}

/// Takes over content and attributes of an unchanged file.
pub(super) fn take_over(
    now: &mut Node,
    before: &Node,
    found: &super::walk::Found<'_>,
    buffer: &mut Vec<u8>,
) -> std::io::Result<()> {
    use std::os::fd::AsFd;
    now.content.clone_from(&before.content);
    now.extended_attributes = match attributes_unchanged(now, before) {
        true => before.extended_attributes.clone(),
        false => metadata::attributes_of_entry(found.folder.as_fd(), found.name, buffer)?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_agrees_in_everything_is_trusted() {
        let mut index = Index::new();
        let chunk = BlobId::of(b"chunk");
        let blob = crate::format::pack::PackedBlob {
            id: chunk,
            kind: BlobKind::Data,
            offset: 0,
            length: 40,
            uncompressed_length: None,
        };
        let id = crate::id::PackId::of(b"pack");
        index.add_pack(&crate::format::index_file::IndexPack { id, blobs: vec![blob.into()] });
        let mut before = Node::new(b"f".to_vec(), NodeKind::File);
        before.content = Some(vec![chunk]);
        before.size = 8;
        before.inode = 7;
        before.mtime = Timestamp::new(100, 5, 0);
        before.ctime = Timestamp::new(200, 6, 0);
        let strict = Trust {
            ignore_ctime: false,
            ignore_inode: false,
            parent_start: Timestamp::new(1000, 0, 0),
        };
        let trusted = |trust: &Trust, change: &dyn Fn(&mut Node)| {
            let mut now = before.clone();
            change(&mut now);
            trust.unchanged(&now, Some(&before), &index).is_some()
        };
        assert!(trusted(&strict, &|_| {}));
        assert!(!trusted(&strict, &|n| n.size += 1));
        assert!(!trusted(&strict, &|n| n.mtime = Timestamp::new(100, 6, 0)));
        assert!(!trusted(&strict, &|n| n.ctime = Timestamp::new(201, 6, 0)));
        assert!(!trusted(&strict, &|n| n.inode += 1));
        let lax = Trust { ignore_ctime: true, ignore_inode: true, ..strict };
        assert!(trusted(&lax, &|n| (n.inode, n.ctime) = (1, Timestamp::new(0, 0, 0))));
        let racy = Trust { parent_start: Timestamp::new(201, 0, 0), ..strict };
        assert!(!trusted(&racy, &|_| {}), "changed within the clock's tick of the parent");
        assert!(strict.unchanged(&before, None, &index).is_none());
        assert!(strict.unchanged(&before, Some(&before), &Index::new()).is_none());
    }
}
