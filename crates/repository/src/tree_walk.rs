//! Walking the tree of a snapshot, and finding a place in it.
//!
//! [`TreeWalk`] goes depth first and in the order of names, without recursion. Only the folders
//! between the root and the present one are in memory, so what a walk takes is bounded by the
//! depth and by the size of folders, not by the size of the snapshot.
//!
//! Nothing stops a walk: a subtree that cannot be read is a [`Step::Unreadable`] and the walk
//! goes on behind it. Whether that ends the operation is for the caller to say. The walk can be
//! hostile in one way that memory bounds do not help against: trees may be shared, so a few
//! small ones can unfold into more entries than anybody will live to see. Callers check their
//! [`Run`](crate::run::Run) between steps.
//!
//! Paths are bytes, absolute, with `/` between names: `/home/ann`. The root is `/`.

#[cfg(test)]
pub(crate) mod sample;

use muster_model::{Class, Fault};
use thiserror::Error;

use crate::{
    format::{
        FormatError,
        pack::BlobKind,
        tree::{Node, NodeKind},
    },
    id::BlobId,
    repository::{BlobReader, Entries, IndexedRepository, ReadError},
};

/// The deepest folder that is walked into. Linux takes paths of 4,096 bytes, so 2,048 levels;
/// deeper trees can be made step by step and are backed up, but this deep they are an attack.
const DEPTH_MAX: usize = 16_384;

/// The longest path of a folder that is walked into, in bytes: names have 255 bytes on Linux, so
/// that no real path is longer at any depth that is walked into.
const PATH_BYTES_MAX: usize = DEPTH_MAX * 256;

/// One thing that a walk comes by.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "only one step exists at a time")]
pub enum Step {
    /// An entry of a folder.
    Entry(Entry),
    /// A folder's tree cannot be read; its entries are left out. For the root, there is no
    /// entry before this.
    Unreadable {
        /// The folder.
        path: Vec<u8>,
        /// Its tree.
        tree: BlobId,
        /// Why it cannot be read.
        error: ReadError,
    },
    /// All of a folder was seen, skipped, or found unreadable. Comes once for every folder's
    /// entry, and not for the root.
    Left {
        /// The folder.
        path: Vec<u8>,
    },
}

/// An entry and where it is.
#[derive(Debug)]
pub struct Entry {
    /// The entry's path.
    pub path: Vec<u8>,
    /// The entry.
    pub node: Node,
    /// The tree of the folder that it is in.
    pub parent_tree: BlobId,
}

/// A walk over a tree; an iterator that can be told to skip.
pub struct TreeWalk<'r> {
    reader: BlobReader<'r>,
    /// The present folder's path, `/` at its end.
    path: Vec<u8>,
    /// The folders from the root to the present one.
    open: Vec<Folder>,
    /// The tree to open before the next step.
    pending: Option<BlobId>,
    /// Whether the folder on top of `path` failed or was skipped and must be left.
    leave: bool,
}

/// A folder on the way.
struct Folder {
    tree: BlobId,
    entries: Entries,
    /// Length of the path up to and with the `/` after the folder's name.
    path_length: usize,
}

impl<'r> TreeWalk<'r> {
    /// A walk over `tree`, whose entries get paths below `root` (`/` when empty).
    ///
    /// # Errors
    /// Fails when the reader cannot allocate its tables.
    pub fn new(
        repository: &'r IndexedRepository,
        tree: BlobId,
        root: &[u8],
    ) -> Result<Self, ReadError> {
        let reader = repository.blob_reader()?;
        let mut path = Vec::new();
        for name in components(root) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path.push(b'/');
        Ok(Self { reader, path, open: Vec::new(), pending: Some(tree), leave: false })
    }

    /// Does not walk into the folder whose entry came last. Has no effect after any other step.
    pub fn skip_folder(&mut self) {
        self.leave |= self.pending.take().is_some() && !self.open.is_empty();
    }

    /// Opens the pending tree; gives the step to report when that fails.
    fn open_folder(&mut self, tree: BlobId) -> Option<Step> {
        let is_in_bounds = self.open.len() < DEPTH_MAX && self.path.len() <= PATH_BYTES_MAX;
        let entries = match is_in_bounds {
            true => self.reader.entries(tree),
            false => Err(too_deep(tree)),
        };
        match entries {
            Ok(entries) => {
                let path_length = self.path.len();
                self.open.push(Folder { tree, entries, path_length });
                None
            }
            Err(error) => Some(self.unreadable(tree, error)),
        }
    }

    /// The folder on top of the path, which is not open, cannot be read.
    fn unreadable(&mut self, tree: BlobId, error: ReadError) -> Step {
        self.leave = !self.open.is_empty();
        let path = if self.leave { self.folder_path() } else { self.root_path() };
        Step::Unreadable { path, tree, error }
    }

    /// The present folder's path without the `/` at the end.
    fn folder_path(&self) -> Vec<u8> {
        self.path[..self.path.len() - 1].to_vec()
    }

    fn root_path(&self) -> Vec<u8> {
        if self.path.len() == 1 { self.path.clone() } else { self.folder_path() }
    }

    /// Goes back from the folder on top of the path to the one that holds it.
    fn leave(&mut self) -> Option<Step> {
        let above = self.open.last()?.path_length;
        let path = self.folder_path();
        self.path.truncate(above);
        Some(Step::Left { path })
    }
}

fn too_deep(tree: BlobId) -> ReadError {
    let source = FormatError::invalid(format!(
        "it lies more than {DEPTH_MAX} folders or {PATH_BYTES_MAX} bytes of path deep"
    ));
    ReadError::DamagedBlob { kind: BlobKind::Tree, id: tree, pack: None, source }
}

impl Iterator for TreeWalk<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if std::mem::take(&mut self.leave) {
            return self.leave();
        }
        if let Some(tree) = self.pending.take()
            && let Some(unreadable) = self.open_folder(tree)
        {
            return Some(unreadable);
        }
        let folder = self.open.last_mut()?;
        let parent_tree = folder.tree;
        let node = match folder.entries.next() {
            Some(Ok(node)) => node,
            Some(Err(error)) => {
                self.open.pop();
                return Some(self.unreadable(parent_tree, error));
            }
            None => {
                self.open.pop();
                return self.leave();
            }
        };
        let mut path = self.path.clone();
        path.extend_from_slice(&node.name);
        if let (NodeKind::Dir, Some(subtree)) = (node.kind, node.subtree) {
            self.path.extend_from_slice(&node.name);
            self.path.push(b'/');
            self.pending = Some(subtree);
        }
        Some(Step::Entry(Entry { path, node, parent_tree }))
    }
}

/// The names in a path: without empty ones and `.`, and `..` takes the name before it away.
/// Whether the path begins with `/` makes no difference.
#[must_use]
pub fn components(path: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names
}

/// A place in a snapshot.
#[derive(Debug)]
pub enum Place {
    /// The root of the tree.
    Root(BlobId),
    /// Anything below it.
    Entry(Box<Node>),
}

/// Finds the entry at `path` below `tree`.
///
/// # Errors
/// Fails when there is none, something on the way is no folder, or a tree cannot be read.
pub fn find_place(
    reader: &mut BlobReader<'_>,
    tree: BlobId,
    path: &[u8],
) -> Result<Place, PlaceError> {
    let names = components(path);
    let mut place = Place::Root(tree);
    for (depth, name) in names.iter().enumerate() {
        let at = || join(&names[..=depth]);
        let subtree = folder_at(&place, &names[..depth])?;
        let node = find_entry(reader, subtree, name)
            .map_err(|error| PlaceError::Unreadable { path: at(), source: error.into() })?;
        place = Place::Entry(Box::new(node.ok_or_else(|| PlaceError::Missing { path: at() })?));
    }
    Ok(place)
}

fn find_entry(
    reader: &mut BlobReader<'_>,
    tree: BlobId,
    name: &[u8],
) -> Result<Option<Node>, ReadError> {
    let is_it = |node: &Result<Node, _>| node.as_ref().map_or(true, |node| node.name == name);
    reader.entries(tree)?.find(is_it).transpose()
}

/// Finds the tree of the folder at `path` below `tree`; an empty path is `tree` itself.
///
/// # Errors
/// As [`find_place`], and when the place is no folder.
///
/// # Source
/// restic, `internal/data/tree.go`, `FindTreeDirectory`.
pub fn find_subtree(
    reader: &mut BlobReader<'_>,
    tree: BlobId,
    path: &[u8],
) -> Result<BlobId, PlaceError> {
    folder_at(&find_place(reader, tree, path)?, &components(path))
}

fn folder_at(place: &Place, names: &[&[u8]]) -> Result<BlobId, PlaceError> {
    match place {
        Place::Root(tree) => Ok(*tree),
        Place::Entry(node) => match (node.kind, node.subtree) {
            (NodeKind::Dir, Some(subtree)) => Ok(subtree),
            (kind, _) => Err(PlaceError::NotAFolder { path: join(names), kind }),
        },
    }
}

fn join(names: &[&[u8]]) -> Vec<u8> {
    names.iter().fold(Vec::new(), |path, name| [&path, &b"/"[..], name].concat())
}

/// A path leads nowhere.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// There is nothing of this name.
    #[error("find '{}' in the snapshot", String::from_utf8_lossy(path))]
    Missing {
        /// The path up to the name that is missing.
        path: Vec<u8>,
    },
    /// Something on the way, or at the end of it, is no folder.
    #[error("go into '{}': it is a {}, no folder", String::from_utf8_lossy(path), kind.as_str())]
    NotAFolder {
        /// The path up to what is no folder.
        path: Vec<u8>,
        /// What it is.
        kind: NodeKind,
    },
    /// A folder on the way cannot be read.
    #[error("read the folder that holds '{}'", String::from_utf8_lossy(path))]
    Unreadable {
        /// The path up to the name that was looked for.
        path: Vec<u8>,
        /// Why the folder cannot be read.
        #[source]
        source: Box<ReadError>,
    },
}

impl Fault for PlaceError {
    fn class(&self) -> Class {
        match self {
            Self::Missing { .. } => Class::NotFound,
            Self::NotAFolder { .. } => Class::Input,
            Self::Unreadable { source, .. } => source.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "path-not-found",
            Self::NotAFolder { .. } => "not-a-folder",
            Self::Unreadable { source, .. } => source.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Missing { .. } | Self::NotAFolder { .. } => {
                Some("see what the snapshot holds with 'muster repo ls SNAPSHOT'".to_owned())
            }
            Self::Unreadable { source, .. } => source.help(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        sample::{Item, Sample, dir, file},
        *,
    };
    use crate::format::tree::Tree;

    fn shown(path: &[u8]) -> String {
        path.escape_ascii().to_string()
    }

    /// One word for each step: the path of an entry, `!path` unreadable, `<path` left.
    fn steps(walk: &mut TreeWalk<'_>, skip: &[u8]) -> Vec<String> {
        let mut words = Vec::new();
        while let Some(step) = walk.next() {
            words.push(match step {
                Step::Entry(entry) => {
                    if entry.path == skip {
                        walk.skip_folder();
                    }
                    shown(&entry.path)
                }
                Step::Unreadable { path, .. } => format!("!{}", shown(&path)),
                Step::Left { path } => format!("<{}", shown(&path)),
            });
        }
        words
    }

    fn tree() -> Item {
        dir([(&b"a"[..], dir([(&b"b"[..], dir([])), (b"c\xff", file(b"1"))])), (b"z", file(b"2"))])
    }

    #[test]
    fn walks_depth_first_and_leaves_what_it_enters() {
        let sample = Sample::new();
        let root = sample.write(&tree());
        let repository = sample.indexed();
        let walk = |root_path: &[u8], skip: &[u8]| {
            steps(&mut TreeWalk::new(&repository, root, root_path).unwrap(), skip)
        };
        assert_eq!(walk(b"", b""), ["/a", "/a/b", "</a/b", "/a/c\\xff", "</a", "/z"]);
        assert_eq!(walk(b"/", b"/a"), ["/a", "</a", "/z"]);
        assert_eq!(walk(b"/r/s/", b"/r/s/z")[0], "/r/s/a");
        assert_eq!(walk(b"x", b"/x/a/b")[1..3], ["/x/a/b", "</x/a/b"]);
    }

    #[test]
    fn a_missing_subtree_is_told_and_the_walk_goes_on() {
        let sample = Sample::new();
        let mut lost = Node::new(b"lost".to_vec(), NodeKind::Dir);
        lost.subtree = Some(BlobId::of(b"nowhere"));
        let root =
            sample.write(&dir([(&b"lost"[..], Item::Node(Box::new(lost))), (b"z", file(b""))]));
        let repository = sample.indexed();
        let mut walk = TreeWalk::new(&repository, root, b"").unwrap();
        assert_eq!(steps(&mut walk, b""), ["/lost", "!/lost", "</lost", "/z"]);
        let mut walk = TreeWalk::new(&repository, BlobId::of(b"nowhere"), b"/r").unwrap();
        assert_eq!(steps(&mut walk, b""), ["!/r"]);
    }

    #[test]
    fn depth_is_bounded() {
        let sample = Sample::new();
        let mut item = dir([]);
        for _ in 0..DEPTH_MAX + 5 {
            item = dir([(&b"d"[..], item)]);
        }
        let root = sample.write(&item);
        std::mem::forget(item); // Dropping it would need as much stack as it is deep.
        let repository = sample.indexed();
        let walk = TreeWalk::new(&repository, root, b"").unwrap();
        let mut entries = 0;
        let mut unreadable = 0;
        for step in walk {
            entries += usize::from(matches!(step, Step::Entry(_)));
            unreadable += usize::from(matches!(step, Step::Unreadable { .. }));
        }
        assert_eq!((entries, unreadable), (DEPTH_MAX, 1));
    }

    #[test]
    fn places_are_found() {
        let sample = Sample::new();
        let root = sample.write(&tree());
        let repository = sample.indexed();
        let mut reader = repository.blob_reader().unwrap();
        let mut names = |path: &[u8]| -> Result<Vec<String>, PlaceError> {
            let subtree = find_subtree(&mut reader, root, path)?;
            let Tree { nodes } = reader.tree(subtree).unwrap();
            Ok(nodes.iter().map(|node| shown(&node.name)).collect())
        };
        assert_eq!(names(b"").unwrap(), ["a", "z"]);
        assert_eq!(names(b"/./a/b/../").unwrap(), ["b", "c\\xff"]);
        assert_eq!(names(b"../../a").unwrap(), ["b", "c\\xff"]);
        assert_eq!(names(b"a/b").unwrap(), [""; 0]);
        let error = names(b"a/x/y").unwrap_err();
        assert_eq!(
            (error.class(), error.to_string().as_str()),
            (Class::NotFound, "find '/a/x' in the snapshot")
        );
        assert_eq!(names(b"z").unwrap_err().code(), "not-a-folder");
        assert_eq!(names(b"z/q").unwrap_err().code(), "not-a-folder");
        let place = find_place(&mut reader, root, b"a/c\xff").unwrap();
        assert!(matches!(place, Place::Entry(node) if node.kind == NodeKind::File));
    }
}
