//! Listing what a snapshot holds: all of it, or only some folders.
//!
//! Given folders, [`Ls`] lists these and what is directly inside; with
//! [`LsOptions::recursive`] all that is below. Without folders everything is listed, as restic
//! does. What cannot be read is a step of the listing and does not end it.
//!
//! # Source
//! restic, `cmd/restic/cmd_ls.go`.

use std::{cmp::Ordering, str::FromStr};

use serde::Serialize;

use crate::{
    format::{
        go_json::RawText,
        time::Timestamp,
        tree::{Node, NodeKind},
    },
    id::BlobId,
    repository::{IndexedRepository, ReadError},
    tree_walk::{Entry, Step, TreeWalk, components},
};

/// What to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LsOptions {
    /// The folders to list, as absolute paths; none means all.
    pub folders: Vec<Vec<u8>>,
    /// Whether what is below the folders' own folders is listed too.
    pub recursive: bool,
}

/// One step of a listing.
#[derive(Debug)]
pub enum LsStep {
    /// An entry that belongs to the listing.
    Listed(Entry),
    /// A folder on the way to one that was asked for; only formats that nest show it.
    OnTheWay(Entry),
    /// A folder cannot be read; its entries are missing from the listing.
    Unreadable {
        /// The folder.
        path: Vec<u8>,
        /// Why.
        error: ReadError,
    },
    /// A folder's entries are over, for formats that nest. Comes once for every folder that
    /// was listed or on the way.
    Left {
        /// The folder.
        path: Vec<u8>,
    },
}

/// A listing; an iterator over its steps.
pub struct Ls<'r> {
    walk: TreeWalk<'r>,
    folders: Vec<Vec<u8>>,
    recursive: bool,
    /// Whether the next folder that is left was never shown.
    hidden: bool,
}

impl<'r> Ls<'r> {
    /// A listing of `tree`, whose root is `/`.
    ///
    /// # Errors
    /// Fails when the reader cannot allocate its tables.
    pub fn new(
        repository: &'r IndexedRepository,
        tree: BlobId,
        options: &LsOptions,
    ) -> Result<Self, ReadError> {
        let clean = |folder: &Vec<u8>| {
            components(folder)
                .iter()
                .fold(Vec::new(), |path, name| [&path, &b"/"[..], name].concat())
        };
        Ok(Self {
            walk: TreeWalk::new(repository, tree, b"")?,
            folders: options.folders.iter().map(clean).collect(),
            recursive: options.recursive,
            hidden: false,
        })
    }

    fn judge(&mut self, entry: Entry) -> Option<LsStep> {
        let any = |test: &dyn Fn(&[u8]) -> bool| {
            self.folders.is_empty() || self.folders.iter().any(|folder| test(folder))
        };
        let listed = any(&|folder| is_at_or_below(&entry.path, folder));
        let on_the_way = any(&|folder| is_at_or_below(folder, &entry.path));
        if !(on_the_way || listed && self.recursive) {
            self.walk.skip_folder();
        }
        match (listed, on_the_way) {
            (true, _) => Some(LsStep::Listed(entry)),
            (false, true) if entry.node.kind == NodeKind::Dir => Some(LsStep::OnTheWay(entry)),
            (false, _) => {
                // A folder that is not shown is not walked into, so its end comes next.
                self.hidden = entry.node.kind == NodeKind::Dir;
                None
            }
        }
    }
}

/// Whether `path` is `folder` or lies in it; the root is the empty path.
fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

impl Iterator for Ls<'_> {
    type Item = LsStep;

    fn next(&mut self) -> Option<LsStep> {
        loop {
            let step = match self.walk.next()? {
                Step::Entry(entry) => self.judge(entry),
                Step::Unreadable { path, error, .. } => Some(LsStep::Unreadable { path, error }),
                Step::Left { path } => {
                    (!std::mem::take(&mut self.hidden)).then_some(LsStep::Left { path })
                }
            };
            if step.is_some() {
                return step;
            }
        }
    }
}

/// An entry as restic writes it in JSON. Write it with
/// [`go_json`](crate::format::go_json): names need not be UTF-8.
#[derive(Debug, Clone, Serialize)]
pub struct LsNode<'e> {
    name: RawText<'e>,
    #[serde(rename = "type")]
    kind: NodeKind,
    path: RawText<'e>,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    permissions: String,
    mtime: Timestamp,
    atime: Timestamp,
    ctime: Timestamp,
    #[serde(skip_serializing_if = "is_zero")]
    inode: u64,
    message_type: &'static str,
    struct_type: &'static str,
}

impl<'e> From<&'e Entry> for LsNode<'e> {
    fn from(entry: &'e Entry) -> Self {
        let Entry { path, node, .. } = entry;
        Self {
            name: RawText(&node.name),
            kind: node.kind,
            path: RawText(path),
            uid: node.uid,
            gid: node.gid,
            size: (node.kind == NodeKind::File).then_some(node.size),
            mode: u64::from(node.mode),
            permissions: permissions(node.mode),
            mtime: node.mtime,
            atime: node.atime,
            ctime: node.ctime,
            inode: node.inode,
            message_type: "node",
            struct_type: "node",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A Go mode as text, for example `drwxr-xr-x`, `Lrwxrwxrwx`, `urwxr-xr-x`, `dtrwxrwxrwx`.
///
/// # Source
/// Go, package `io/fs`, `FileMode.String`.
#[must_use]
pub fn permissions(go_mode: u32) -> String {
    let letters = b"dalTLDpSugct?";
    let set = |(position, _): &(usize, &u8)| go_mode & (1 << (31 - position)) != 0;
    let mut text: String =
        letters.iter().enumerate().filter(set).map(|(_, &letter)| char::from(letter)).collect();
    if text.is_empty() {
        text.push('-');
    }
    for (position, letter) in "rwxrwxrwx".chars().enumerate() {
        text.push(if go_mode & (1 << (8 - position)) != 0 { letter } else { '-' });
    }
    text
}

/// In which order to show a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LsSort {
    /// As the folders are walked.
    #[default]
    Name,
    /// By size, smallest first.
    Size,
    /// By time of the last change of content, oldest first.
    Mtime,
    /// By time of the last reading, oldest first.
    Atime,
    /// By time of the last change of the inode, oldest first.
    Ctime,
    /// By what follows the last dot of the name.
    Extension,
}

impl LsSort {
    /// Compares two entries. By [`LsSort::Name`] they are equal: the walk's order is the one.
    #[must_use]
    pub fn compare(self, a: &Entry, b: &Entry) -> Ordering {
        let size = |node: &Node| if node.kind == NodeKind::File { node.size } else { 0 };
        let by_key = match self {
            Self::Name => return Ordering::Equal,
            Self::Size => size(&a.node).cmp(&size(&b.node)),
            Self::Mtime => a.node.mtime.cmp(&b.node.mtime),
            Self::Atime => a.node.atime.cmp(&b.node.atime),
            Self::Ctime => a.node.ctime.cmp(&b.node.ctime),
            Self::Extension => extension(&a.node.name).cmp(extension(&b.node.name)),
        };
        by_key.then_with(|| a.path.cmp(&b.path))
    }
}

fn extension(name: &[u8]) -> &[u8] {
    name.iter().rposition(|&byte| byte == b'.').map_or(b"", |dot| &name[dot..])
}

impl FromStr for LsSort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "name" => Self::Name,
            "size" => Self::Size,
            "time" | "mtime" => Self::Mtime,
            "atime" => Self::Atime,
            "ctime" => Self::Ctime,
            "extension" => Self::Extension,
            _ => {
                return Err(format!(
                    "'{text}' is no order: write name, size, time, mtime, atime, ctime or \
                     extension"
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree_walk::sample::{Item, Sample, dir, file};

    fn tree() -> Item {
        dir([
            (&b"a"[..], dir([(&b"b"[..], dir([(&b"deep"[..], file(b"1"))])), (b"c", file(b"2"))])),
            (b"ab", file(b"3")),
        ])
    }

    fn list(folders: &[&str], recursive: bool) -> Vec<String> {
        let sample = Sample::new();
        let root = sample.write(&tree());
        let repository = sample.indexed();
        let folders = folders.iter().map(|folder| folder.as_bytes().to_vec()).collect();
        let steps = Ls::new(&repository, root, &LsOptions { folders, recursive }).unwrap();
        let word = |step| match step {
            LsStep::Listed(entry) => String::from_utf8(entry.path).unwrap(),
            LsStep::OnTheWay(entry) => format!("({})", String::from_utf8(entry.path).unwrap()),
            LsStep::Unreadable { .. } => "!".to_owned(),
            LsStep::Left { .. } => "<".to_owned(),
        };
        steps.map(word).collect()
    }

    #[test]
    fn folders_are_listed_as_restic_lists_them() {
        assert_eq!(list(&[], false), ["/a", "/a/b", "/a/b/deep", "<", "/a/c", "<", "/ab"]);
        assert_eq!(list(&["/"], false), ["/a", "<", "/ab"]);
        assert_eq!(list(&["/a"], false), ["/a", "/a/b", "<", "/a/c", "<"]);
        assert_eq!(list(&["/a/"], true), ["/a", "/a/b", "/a/b/deep", "<", "/a/c", "<"]);
        assert_eq!(list(&["/a/b", "/ab"], false), ["(/a)", "/a/b", "/a/b/deep", "<", "<", "/ab"]);
        assert_eq!(list(&["/x"], false), [""; 0]);
    }

    #[test]
    fn permissions_are_written_as_go_does() {
        let check = |mode: u32, expected: &str| assert_eq!(permissions(mode), expected);
        check(0o644, "-rw-r--r--");
        check(2_147_484_141, "drwxr-xr-x");
        check(134_218_239, "Lrwxrwxrwx");
        check(0x8010_01ff, "dtrwxrwxrwx");
        check(0x80_01ed, "urwxr-xr-x");
        check(1 << 26 | 1 << 21 | 0o660, "Dcrw-rw----");
        check(33_554_816, "prw-------");
    }

    #[test]
    fn orders_fall_back_to_the_path() {
        let entry = |path: &str, size| {
            let mut node = Node::new(path.as_bytes()[1..].to_vec(), NodeKind::File);
            node.size = size;
            Entry { path: path.as_bytes().to_vec(), node, parent_tree: BlobId::of(b"") }
        };
        let mut entries = [entry("/b.txt", 2), entry("/a.zip", 2), entry("/c", 1)];
        let order = |entries: &[Entry]| -> Vec<u8> { entries.iter().map(|e| e.path[1]).collect() };
        entries.sort_by(|a, b| LsSort::Size.compare(a, b));
        assert_eq!(order(&entries), b"cab");
        entries.sort_by(|a, b| "extension".parse::<LsSort>().unwrap().compare(a, b));
        assert_eq!(order(&entries), b"cba");
        assert!("colour".parse::<LsSort>().is_err());
    }
}
