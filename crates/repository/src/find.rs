//! Searching snapshots: for entries by path and age, and for blobs, trees and packs by id.
//!
//! What a path matches is for the caller to say, with two functions: whether a path matches,
//! and whether anything below a folder may. The second spares the walk into folders that
//! cannot hold a match.
//!
//! # Source
//! restic, `cmd/restic/cmd_find.go`.

use std::collections::{HashSet, VecDeque};

use muster_model::{Class, Fault};
use serde::Serialize;
use thiserror::Error;

use crate::{
    format::{
        FormatError,
        go_json::RawText,
        pack::{self, BlobKind, LENGTH_FIELD_BYTES},
        snapshot::Snapshot,
        time::Timestamp,
        tree::{Node, NodeKind},
    },
    id::{BlobId, PackId, SnapshotId},
    ls::permissions,
    repository::{IndexedRepository, ReadError, Repository},
    select::{IdPrefix, SelectError, find_by_prefix},
    storage::{File, FileKind},
    tree_walk::{Entry, Step, TreeWalk},
};

/// A test of a path such as `/home/ann/notes.txt`.
pub type PathTest<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Which entries to find.
#[derive(Clone, Copy)]
pub struct FindOptions<'a> {
    /// Whether a path matches.
    pub matches: PathTest<'a>,
    /// Whether anything below a folder may match.
    pub may_match_below: PathTest<'a>,
    /// Entries changed before this moment are left out.
    pub oldest: Option<Timestamp>,
    /// Entries changed after this moment are left out.
    pub newest: Option<Timestamp>,
}

impl FindOptions<'_> {
    fn is_in_time(&self, node: &Node) -> bool {
        self.oldest.is_none_or(|oldest| node.mtime >= oldest)
            && self.newest.is_none_or(|newest| node.mtime <= newest)
    }
}

/// One step of a search.
#[derive(Debug)]
pub enum FindStep<T> {
    /// Something that was looked for.
    Found(T),
    /// A folder cannot be read, so what is below it was not searched.
    Unreadable {
        /// The folder.
        path: Vec<u8>,
        /// Its tree.
        tree: BlobId,
        /// Why.
        error: ReadError,
    },
}

/// A search for entries of one snapshot; an iterator.
pub struct FindEntries<'r, 'a> {
    walk: TreeWalk<'r>,
    options: FindOptions<'a>,
}

impl<'r, 'a> FindEntries<'r, 'a> {
    /// A search below `tree`.
    ///
    /// # Errors
    /// Fails when the reader cannot allocate its tables.
    pub fn new(
        repository: &'r IndexedRepository,
        tree: BlobId,
        options: FindOptions<'a>,
    ) -> Result<Self, ReadError> {
        Ok(Self { walk: TreeWalk::new(repository, tree, b"")?, options })
    }

    fn judge(&mut self, entry: Entry) -> Option<FindStep<Entry>> {
        let found = (self.options.matches)(&entry.path) && self.options.is_in_time(&entry.node);
        if !found
            && entry.node.kind == NodeKind::Dir
            && !(self.options.may_match_below)(&entry.path)
        {
            self.walk.skip_folder();
        }
        found.then_some(FindStep::Found(entry))
    }
}

impl Iterator for FindEntries<'_, '_> {
    type Item = FindStep<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let step = match self.walk.next()? {
                Step::Entry(entry) => self.judge(entry),
                Step::Unreadable { path, tree, error } => {
                    Some(FindStep::Unreadable { path, tree, error })
                }
                Step::Left { .. } => None,
            };
            if step.is_some() {
                return step;
            }
        }
    }
}

/// An entry as restic's `find` writes it in JSON. Write it with
/// [`go_json`](crate::format::go_json): paths need not be UTF-8.
#[derive(Debug, Clone, Serialize)]
pub struct FoundNode<'e> {
    path: RawText<'e>,
    permissions: String,
    #[serde(rename = "type")]
    kind: NodeKind,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    mtime: Timestamp,
    atime: Timestamp,
    ctime: Timestamp,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'e str,
    #[serde(skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    device_id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    links: u64,
    #[serde(skip_serializing_if = "is_empty")]
    linktarget: RawText<'e>,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'e str,
}

impl<'e> From<&'e Entry> for FoundNode<'e> {
    fn from(entry: &'e Entry) -> Self {
        let Entry { path, node, .. } = entry;
        Self {
            path: RawText(path),
            permissions: permissions(node.mode),
            kind: node.kind,
            mode: u64::from(node.mode),
            mtime: node.mtime,
            atime: node.atime,
            ctime: node.ctime,
            uid: node.uid,
            gid: node.gid,
            user: &node.user,
            group: &node.group,
            inode: node.inode,
            device_id: node.device_id,
            size: node.size,
            links: node.links,
            linktarget: RawText(&node.link_target),
            error: &node.error,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_empty(text: &RawText<'_>) -> bool {
    text.0.is_empty()
}

/// Blobs and trees to look for.
#[derive(Debug, Clone, Default)]
pub struct ObjectQuery {
    prefixes: Vec<(BlobKind, IdPrefix)>,
    ids: HashSet<(BlobKind, BlobId)>,
}

impl ObjectQuery {
    /// Looks for objects of one kind whose ids begin so.
    #[must_use]
    pub fn of(kind: BlobKind, prefixes: &[IdPrefix]) -> Self {
        let prefixes = prefixes.iter().map(|prefix| (kind, prefix.clone())).collect();
        Self { prefixes, ids: HashSet::new() }
    }

    /// Looks for everything in the packs whose ids begin so. A pack that no index lists is
    /// asked itself.
    ///
    /// # Errors
    /// Fails when no pack, or more than one, is meant, or an unlisted pack cannot be read.
    pub fn of_packs(
        repository: &IndexedRepository,
        prefixes: &[IdPrefix],
    ) -> Result<Self, FindError> {
        let index = repository.index();
        let listed = repository.storage().list(FileKind::Pack).map_err(ReadError::from)?;
        let stored = listed.iter().filter_map(|listed| match listed.file {
            File::Pack(id) => Some(id),
            _ => None,
        });
        let mut packs: Vec<PackId> = stored.chain(index.packs()).collect();
        packs.sort_unstable();
        packs.dedup();
        let mut ids = HashSet::new();
        for prefix in prefixes {
            let pack = find_by_prefix(&packs, prefix)?;
            let blobs = match index.pack_blobs(&pack) {
                blobs if blobs.is_empty() => read_pack_header(repository, pack)?,
                blobs => blobs,
            };
            ids.extend(blobs.iter().map(|blob| (blob.kind, blob.id)));
        }
        Ok(Self { prefixes: Vec::new(), ids })
    }

    /// Whether the object is looked for.
    #[must_use]
    pub fn matches(&self, kind: BlobKind, id: BlobId) -> bool {
        self.ids.contains(&(kind, id))
            || self.prefixes.iter().any(|(of, prefix)| *of == kind && prefix.matches(&id))
    }
}

/// Asks a pack what it holds.
fn read_pack_header(
    repository: &Repository,
    id: PackId,
) -> Result<Vec<pack::PackedBlob>, ReadError> {
    let (storage, file) = (repository.storage(), File::Pack(id));
    let damaged = |source: FormatError| ReadError::damaged(file, source);
    let bytes = storage.size(file)?;
    let mut field = [0; LENGTH_FIELD_BYTES];
    storage.read_range(file, bytes.saturating_sub(LENGTH_FIELD_BYTES as u64), &mut field)?;
    let span = pack::header_span(field, bytes).map_err(damaged)?;
    let mut tail = vec![0; span];
    storage.read_range(file, bytes - span as u64, &mut tail)?;
    pack::read_header(repository.key(), &tail, bytes).map_err(damaged)
}

/// A place where an object is used, as restic writes it in JSON. Write it with
/// [`go_json`](crate::format::go_json).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundObject {
    /// `blob` or `tree`.
    pub object_type: &'static str,
    /// The object.
    pub id: BlobId,
    /// The file that has the blob, or the folder that is the tree.
    #[serde(serialize_with = "raw_text")]
    pub path: Vec<u8>,
    /// The tree that lists the file (blobs only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_tree: Option<BlobId>,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The snapshot's time.
    pub time: Timestamp,
}

fn raw_text<S: serde::Serializer>(path: &[u8], to: S) -> Result<S::Ok, S::Error> {
    RawText(path).serialize(to)
}

/// A search for objects in one snapshot; an iterator. Every use is found, also the second and
/// later ones (restic stops searching when it has seen every tree once).
pub struct FindObjects<'r, 'q> {
    walk: TreeWalk<'r>,
    query: &'q ObjectQuery,
    snapshot: SnapshotId,
    time: Timestamp,
    /// Found and not given yet: a file may hold several.
    found: VecDeque<FoundObject>,
}

impl<'r, 'q> FindObjects<'r, 'q> {
    /// A search in a snapshot.
    ///
    /// # Errors
    /// Fails when the reader cannot allocate its tables.
    pub fn new(
        repository: &'r IndexedRepository,
        (id, snapshot): &(SnapshotId, Snapshot),
        query: &'q ObjectQuery,
    ) -> Result<Self, ReadError> {
        let walk = TreeWalk::new(repository, snapshot.tree, b"")?;
        let (snapshot_id, time, tree) = (*id, snapshot.time, snapshot.tree);
        let mut find = Self { walk, query, snapshot: snapshot_id, time, found: VecDeque::new() };
        find.look_at(BlobKind::Tree, tree, b"/", None);
        Ok(find)
    }

    fn look_at(&mut self, kind: BlobKind, id: BlobId, path: &[u8], parent_tree: Option<BlobId>) {
        if self.query.matches(kind, id) {
            let object_type = if kind == BlobKind::Data { "blob" } else { "tree" };
            let (snapshot, time, path) = (self.snapshot, self.time, path.to_vec());
            self.found.push_back(FoundObject {
                object_type,
                id,
                path,
                parent_tree,
                snapshot,
                time,
            });
        }
    }

    fn look_into(&mut self, entry: &Entry) {
        if let Some(subtree) = entry.node.subtree {
            self.look_at(BlobKind::Tree, subtree, &entry.path, None);
        }
        if entry.node.kind == NodeKind::File {
            for &id in entry.node.content.iter().flatten() {
                self.look_at(BlobKind::Data, id, &entry.path, Some(entry.parent_tree));
            }
        }
    }
}

impl Iterator for FindObjects<'_, '_> {
    type Item = FindStep<FoundObject>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(FindStep::Found(found));
            }
            match self.walk.next()? {
                Step::Entry(entry) => self.look_into(&entry),
                Step::Unreadable { path, tree, error } => {
                    return Some(FindStep::Unreadable { path, tree, error });
                }
                Step::Left { .. } => {}
            }
        }
    }
}

/// A search could not begin.
#[derive(Debug, Error)]
pub enum FindError {
    /// No one pack is meant.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A pack or the repository cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Fault for FindError {
    fn class(&self) -> Class {
        match self {
            Self::Select(error) => error.class(),
            Self::Read(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Select(error) => error.code(),
            Self::Read(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Select(SelectError::NotFound { .. }) => {
                Some("check the id: neither the store nor an index knows such a pack".to_owned())
            }
            Self::Select(error) => error.help(),
            Self::Read(error) => error.help(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::go_json,
        tree_walk::sample::{Item, Sample, dir, file},
    };

    fn tree() -> Item {
        let mut old = Node::new(Vec::new(), NodeKind::File);
        old.content = Some(vec![]);
        old.mtime = Timestamp::new(-5, 0, 0);
        dir([
            (
                &b"a"[..],
                dir([(&b"notes"[..], file(b"1")), (b"old-notes", Item::Node(Box::new(old)))]),
            ),
            (b"b", dir([(&b"notes"[..], file(b"1"))])),
        ])
    }

    fn find(options: FindOptions<'_>) -> Vec<String> {
        let sample = Sample::new();
        let root = sample.write(&tree());
        let repository = sample.indexed();
        let steps = FindEntries::new(&repository, root, options).unwrap();
        let path = |step: FindStep<Entry>| match step {
            FindStep::Found(entry) => String::from_utf8(entry.path).unwrap(),
            FindStep::Unreadable { .. } => "!".to_owned(),
        };
        steps.map(path).collect()
    }

    #[test]
    fn entries_are_found_by_path_and_age() {
        let matches: PathTest<'_> = &|path| path.ends_with(b"notes");
        let everywhere: PathTest<'_> = &|_| true;
        let options =
            FindOptions { matches, may_match_below: everywhere, oldest: None, newest: None };
        assert_eq!(find(options), ["/a/notes", "/a/old-notes", "/b/notes"]);
        let oldest = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(find(FindOptions { oldest, ..options }), ["/a/notes", "/b/notes"]);
        let newest = Some(Timestamp::new(-5, 0, 0));
        assert_eq!(find(FindOptions { newest, ..options }), ["/a/old-notes"]);
        let may_match_below: PathTest<'_> = &|path| path != b"/a";
        assert_eq!(find(FindOptions { may_match_below, ..options }), ["/b/notes"]);
    }

    #[test]
    fn objects_are_found_wherever_they_are_used() {
        let sample = Sample::new();
        let root = sample.write(&tree());
        let id = sample.snapshot(root, 7);
        let repository = sample.indexed();
        let snapshot = (id, repository.snapshot(id).unwrap());
        let find = |query: &ObjectQuery| -> Vec<(String, &str)> {
            let steps = FindObjects::new(&repository, &snapshot, query).unwrap();
            let found = steps.map(|step| match step {
                FindStep::Found(found) => found,
                FindStep::Unreadable { .. } => panic!("all is readable"),
            });
            found.map(|found| (String::from_utf8(found.path).unwrap(), found.object_type)).collect()
        };
        let blob = BlobId::of(b"1").to_hex()[..10].parse().unwrap();
        let places = [("/a/notes".to_owned(), "blob"), ("/b/notes".to_owned(), "blob")];
        assert_eq!(find(&ObjectQuery::of(BlobKind::Data, &[blob])), places);
        let tree: IdPrefix = root.to_hex().parse().unwrap();
        let query = ObjectQuery::of(BlobKind::Tree, &[tree]);
        assert_eq!(find(&query), [("/".to_owned(), "tree")]);
        let pack = repository.index().find(BlobKind::Data, BlobId::of(b"1")).unwrap().pack;
        let prefix: IdPrefix = pack.to_hex().parse().unwrap();
        let query = ObjectQuery::of_packs(&repository, &[prefix]).unwrap();
        assert_eq!(find(&query), places);
        let header = read_pack_header(&repository, pack).unwrap();
        assert_eq!(header, repository.index().pack_blobs(&pack));
    }

    #[test]
    fn json_has_the_fields_of_restic() {
        let mut node = Node::new(b"l\xff".to_vec(), NodeKind::Symlink);
        node.link_target = b"to".to_vec();
        let entry = Entry { path: b"/l\xff".to_vec(), node, parent_tree: BlobId::of(b"") };
        let json = String::from_utf8(go_json::to_vec(&FoundNode::from(&entry)).unwrap()).unwrap();
        let times = r#""mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z""#;
        assert_eq!(
            json,
            format!(
                r#"{{"path":"/l\ufffd","permissions":"L---------","type":"symlink","mode":134217728,{times},"uid":0,"gid":0,"linktarget":"to"}}"#
            )
        );
    }
}
