//! Comparing two trees: what was added, removed and changed, and what that means in blobs.
//!
//! Both trees are walked in lockstep, folder by folder in the order of names. Subtrees of the
//! same id are equal and skipped, so a comparison takes as long as there are differences. Only
//! the statistics look into equal subtrees, afterwards: a blob is new only when it was in no
//! unchanged place either (somebody copied a file).
//!
//! Memory is bounded by the depth, the size of folders, and the number of blobs in folders that
//! differ.
//!
//! # Source
//! restic, `cmd/restic/cmd_diff.go`.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use serde::Serialize;

use crate::{
    format::{
        go_json::RawText,
        pack::BlobKind,
        tree::{ExtendedAttribute, Node, NodeKind},
    },
    id::BlobId,
    repository::{BlobReader, Entries, IndexedRepository, ReadError},
    run::Run,
};

/// How to compare.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiffOptions {
    /// Whether changes of metadata alone are told (`U`).
    pub metadata: bool,
}

/// One step of a comparison.
#[derive(Debug)]
pub enum DiffStep<'d> {
    /// Something differs.
    Change(Change<'d>),
    /// A folder cannot be read, so what is below it was not compared.
    Unreadable {
        /// The folder.
        path: &'d [u8],
        /// Its tree.
        tree: BlobId,
        /// Why.
        error: ReadError,
    },
}

/// A difference, as restic writes it in JSON. Write it with
/// [`go_json`](crate::format::go_json): paths need not be UTF-8.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Change<'d> {
    message_type: &'static str,
    path: RawText<'d>,
    modifier: &'static str,
}

impl<'d> Change<'d> {
    /// The path, with a `/` at its end when it is (now) a folder.
    #[must_use]
    pub fn path(&self) -> &'d [u8] {
        self.path.0
    }

    /// `+` added, `-` removed, `M` content changed, `U` metadata changed, `T` type changed,
    /// `TU` type and metadata; `M?` content changed and metadata did not: possibly a rotten
    /// disk.
    #[must_use]
    pub fn modifier(&self) -> &'static str {
        self.modifier
    }
}

/// Counts of one side: what was added, or what was removed. Field names are restic's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiffCounts {
    /// Files.
    pub files: u64,
    /// Folders.
    pub dirs: u64,
    /// Links, devices and the like.
    pub others: u64,
    /// Blobs of data that the other side has nowhere.
    pub data_blobs: u64,
    /// Trees that the other side has nowhere.
    pub tree_blobs: u64,
    /// Bytes of these blobs before compression.
    pub bytes: u64,
}

/// What a comparison found, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "unread folders and missing blobs mean that the comparison is incomplete"]
pub struct DiffReport {
    /// Files whose content changed.
    pub changed_files: u64,
    /// What only the target has.
    pub added: DiffCounts,
    /// What only the source had.
    pub removed: DiffCounts,
    /// Folders that could not be read.
    pub unreadable: u64,
    /// Blobs that no index lists, so that their size is not in the numbers.
    pub missing_blobs: u64,
}

impl DiffReport {
    /// The statistics as restic writes them in JSON; the names are as the user gave them.
    #[must_use]
    pub fn statistics<'s>(&self, source: &'s str, target: &'s str) -> DiffStatistics<'s> {
        DiffStatistics {
            message_type: "statistics",
            source_snapshot: source,
            target_snapshot: target,
            changed_files: self.changed_files,
            added: self.added,
            removed: self.removed,
        }
    }
}

/// The last line of a comparison in JSON.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DiffStatistics<'s> {
    message_type: &'static str,
    source_snapshot: &'s str,
    target_snapshot: &'s str,
    changed_files: u64,
    added: DiffCounts,
    removed: DiffCounts,
}

/// Compares two trees and hands every difference to `visit`, in order. Stops at the first
/// error that `visit` returns.
///
/// # Errors
/// Fails when a root tree cannot be read, the run is cancelled, or `visit` fails.
pub fn diff<E: From<ReadError>>(
    repository: &IndexedRepository,
    source: BlobId,
    target: BlobId,
    options: DiffOptions,
    run: &Run,
    mut visit: impl FnMut(DiffStep<'_>) -> Result<(), E>,
) -> Result<DiffReport, E> {
    let mut comparer = Comparer {
        reader: repository.blob_reader()?,
        run,
        options,
        open: Vec::new(),
        blobs: HashMap::default(),
        equal: Vec::new(),
        report: DiffReport::default(),
    };
    comparer.mark(Side::Source, BlobKind::Tree, source);
    comparer.mark(Side::Target, BlobKind::Tree, target);
    if source == target {
        return Ok(comparer.report);
    }
    let root = Level::Both(b"/".to_vec(), comparer.nodes(source)?, comparer.nodes(target)?);
    comparer.open.push(root);
    while comparer.advance(&mut visit)? {}
    comparer.forget_what_stayed(&mut visit)?;
    comparer.count_blobs(repository);
    Ok(comparer.report)
}

/// One of the two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}

impl Side {
    fn modifier(self) -> &'static str {
        match self {
            Self::Source => "-",
            Self::Target => "+",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Source => 1,
            Self::Target => 2,
        }
    }
}

const BOTH: u8 = 3;

/// Entries of a folder that are still to be compared.
struct Nodes {
    entries: Entries,
    next: Option<Box<Node>>,
}

impl Nodes {
    fn new(entries: Entries) -> Result<Self, ReadError> {
        let mut nodes = Self { entries, next: None };
        nodes.pop()?;
        Ok(nodes)
    }

    /// Takes the next entry.
    fn pop(&mut self) -> Result<Option<Node>, ReadError> {
        let next = self.entries.next().transpose()?.map(Box::new);
        Ok(std::mem::replace(&mut self.next, next).map(|node| *node))
    }
}

/// A folder that is being compared; its path ends with `/`.
enum Level {
    Both(Vec<u8>, Nodes, Nodes),
    One(Vec<u8>, Side, Nodes),
}

struct Comparer<'r> {
    reader: BlobReader<'r>,
    run: &'r Run,
    options: DiffOptions,
    open: Vec<Level>,
    /// The sides on which each blob of a folder that differs was seen, as bits.
    blobs: HashMap<(BlobKind, BlobId), u8, RandomState>,
    /// The equal subtrees and where they are.
    equal: Vec<(Vec<u8>, BlobId)>,
    report: DiffReport,
}

/// A step's consequence: a folder to go into next.
enum Next {
    Nothing,
    Both(Vec<u8>, BlobId, BlobId),
    One(Vec<u8>, Side, BlobId),
}

impl Comparer<'_> {
    fn nodes(&mut self, tree: BlobId) -> Result<Nodes, ReadError> {
        Nodes::new(self.reader.entries(tree)?)
    }

    /// Compares the next pair of entries; says whether there was one.
    fn advance<E: From<ReadError>>(
        &mut self,
        visit: &mut impl FnMut(DiffStep<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        self.run.cancel.check().map_err(ReadError::from)?;
        let next = match self.open.last_mut() {
            None => return Ok(false),
            Some(Level::Both(prefix, source, target)) => {
                let prefix = prefix.clone();
                match next_pair(source, target)? {
                    (None, None) => {
                        self.open.pop();
                        return Ok(true);
                    }
                    (Some(source), Some(target)) => self.pair(&prefix, source, target, visit)?,
                    (Some(node), None) => self.alone(&prefix, Side::Source, &node, visit)?,
                    (None, Some(node)) => self.alone(&prefix, Side::Target, &node, visit)?,
                }
            }
            Some(Level::One(prefix, side, nodes)) => {
                let (prefix, side) = (prefix.clone(), *side);
                let Some(node) = nodes.pop()? else {
                    self.open.pop();
                    return Ok(true);
                };
                self.alone(&prefix, side, &node, visit)?
            }
        };
        self.enter(next, visit)?;
        Ok(true)
    }

    /// Opens a folder, or both forms of it. One that cannot be read is told and left out.
    fn enter<E: From<ReadError>>(
        &mut self,
        next: Next,
        visit: &mut impl FnMut(DiffStep<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut read = |comparer: &mut Self, path: &[u8], tree| match comparer.nodes(tree) {
            Ok(nodes) => Ok(Some(nodes)),
            Err(error) => {
                comparer.report.unreadable += 1;
                visit(DiffStep::Unreadable { path, tree, error }).map(|()| None)
            }
        };
        match next {
            Next::Nothing => {}
            Next::One(path, side, tree) => {
                if let Some(nodes) = read(self, &path, tree)? {
                    self.open.push(Level::One(path, side, nodes));
                }
            }
            Next::Both(path, source, target) => {
                let source = read(self, &path, source)?;
                if let (Some(source), Some(target)) = (source, read(self, &path, target)?) {
                    self.open.push(Level::Both(path, source, target));
                }
            }
        }
        Ok(())
    }

    /// An entry that only one side has.
    fn alone<E>(
        &mut self,
        prefix: &[u8],
        side: Side,
        node: &Node,
        visit: &mut impl FnMut(DiffStep<'_>) -> Result<(), E>,
    ) -> Result<Next, E> {
        let path = path_of(prefix, node);
        visit(change(&path, side.modifier()))?;
        let counts = match side {
            Side::Source => &mut self.report.removed,
            Side::Target => &mut self.report.added,
        };
        match node.kind {
            NodeKind::File => counts.files += 1,
            NodeKind::Dir => counts.dirs += 1,
            _ => counts.others += 1,
        }
        self.mark_node(side, node);
        Ok(node.subtree.map_or(Next::Nothing, |tree| Next::One(path, side, tree)))
    }

    /// Two entries of the same name.
    fn pair<E>(
        &mut self,
        prefix: &[u8],
        source: Node,
        target: Node,
        visit: &mut impl FnMut(DiffStep<'_>) -> Result<(), E>,
    ) -> Result<Next, E> {
        self.mark_node(Side::Source, &source);
        self.mark_node(Side::Target, &target);
        let path = path_of(prefix, &target);
        let files = source.kind == NodeKind::File && target.kind == NodeKind::File;
        let content_differs = files && source.content != target.content;
        let subtrees = (source.subtree, target.subtree);
        let modifier = if content_differs {
            self.report.changed_files += 1;
            let without_content = |node| Node { content: None, ..node };
            let rotten = is_same(without_content(source), without_content(target));
            if rotten { "M?" } else { "M" }
        } else {
            let retyped = source.kind != target.kind;
            let updated = self.options.metadata && !is_same(source, target);
            match (retyped, updated) {
                (true, true) => "TU",
                (true, false) => "T",
                (false, true) => "U",
                (false, false) => "",
            }
        };
        if !modifier.is_empty() {
            visit(change(&path, modifier))?;
        }
        Ok(match subtrees {
            (Some(source), Some(target)) if source == target => {
                self.equal.push((path, source));
                Next::Nothing
            }
            (Some(source), Some(target)) => Next::Both(path, source, target),
            _ => Next::Nothing,
        })
    }

    fn mark_node(&mut self, side: Side, node: &Node) {
        for &id in node.content.iter().flatten().filter(|_| node.kind == NodeKind::File) {
            self.mark(side, BlobKind::Data, id);
        }
        if let Some(subtree) = node.subtree {
            self.mark(side, BlobKind::Tree, subtree);
        }
    }

    fn mark(&mut self, side: Side, kind: BlobKind, id: BlobId) {
        *self.blobs.entry((kind, id)).or_default() |= side.bit();
    }

    /// Takes the blobs of equal subtrees out of the count: they were there before and after.
    fn forget_what_stayed<E: From<ReadError>>(
        &mut self,
        visit: &mut impl FnMut(DiffStep<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.blobs.retain(|_, sides| *sides != BOTH);
        let mut seen: HashSet<BlobId, RandomState> = HashSet::default();
        for (path, root) in std::mem::take(&mut self.equal) {
            let mut to_read = vec![root];
            while let Some(tree) = to_read.pop() {
                if self.blobs.is_empty() {
                    return Ok(());
                }
                if !seen.insert(tree) {
                    continue;
                }
                self.run.cancel.check().map_err(ReadError::from)?;
                let read = self.reader.entries(tree).and_then(|mut entries| {
                    entries.try_for_each(|node| node.map(|node| self.forget(&node, &mut to_read)))
                });
                if let Err(error) = read {
                    self.report.unreadable += 1;
                    visit(DiffStep::Unreadable { path: &path, tree, error })?;
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, node: &Node, to_read: &mut Vec<BlobId>) {
        for &id in node.content.iter().flatten() {
            self.blobs.remove(&(BlobKind::Data, id));
        }
        if let Some(subtree) = node.subtree {
            self.blobs.remove(&(BlobKind::Tree, subtree));
            to_read.push(subtree);
        }
    }

    fn count_blobs(&mut self, repository: &IndexedRepository) {
        for (&(kind, id), &sides) in &self.blobs {
            let counts = match sides == Side::Source.bit() {
                true => &mut self.report.removed,
                false => &mut self.report.added,
            };
            match kind {
                BlobKind::Data => counts.data_blobs += 1,
                BlobKind::Tree => counts.tree_blobs += 1,
            }
            match repository.index().find(kind, id) {
                Some(found) => counts.bytes += u64::from(found.blob.plaintext_length()),
                None => self.report.missing_blobs += 1,
            }
        }
    }
}

/// The next entries of two sorted folders: both when their names are equal, else the smaller.
fn next_pair(
    source: &mut Nodes,
    target: &mut Nodes,
) -> Result<(Option<Node>, Option<Node>), ReadError> {
    Ok(match (&source.next, &target.next) {
        (Some(a), Some(b)) if a.name < b.name => (source.pop()?, None),
        (Some(a), Some(b)) if a.name > b.name => (None, target.pop()?),
        _ => (source.pop()?, target.pop()?),
    })
}

fn path_of(prefix: &[u8], node: &Node) -> Vec<u8> {
    let end: &[u8] = if node.kind == NodeKind::Dir { b"/" } else { b"" };
    [prefix, &node.name, end].concat()
}

fn change<'d>(path: &'d [u8], modifier: &'static str) -> DiffStep<'d> {
    DiffStep::Change(Change { message_type: "change", path: RawText(path), modifier })
}

/// Whether two entries are equal in everything; the order of attributes does not count.
fn is_same(mut a: Node, mut b: Node) -> bool {
    for node in [&mut a, &mut b] {
        let name = |attribute: &ExtendedAttribute| attribute.name.clone();
        node.extended_attributes.sort_by_key(name);
    }
    a == b
}

#[cfg(test)]
mod tests {
    use muster_model::Fault;

    use super::*;
    use crate::{
        format::{go_json, time::Timestamp},
        tree_walk::sample::{Item, Sample, dir, file},
    };

    fn link(target: &[u8]) -> Item {
        let mut node = Node::new(Vec::new(), NodeKind::Symlink);
        node.link_target = target.to_vec();
        Item::Node(Box::new(node))
    }

    fn compare(source: &Item, target: &Item, metadata: bool) -> (Vec<String>, DiffReport) {
        let sample = Sample::new();
        let (source, target) = (sample.write(source), sample.write(target));
        let repository = sample.indexed();
        let mut words = Vec::new();
        let options = DiffOptions { metadata };
        let report = diff(&repository, source, target, options, &Run::new(), |step| {
            words.push(match step {
                DiffStep::Change(change) => {
                    format!("{} {}", change.modifier(), change.path().escape_ascii())
                }
                DiffStep::Unreadable { path, .. } => format!("! {}", path.escape_ascii()),
            });
            Ok::<_, ReadError>(())
        });
        (words, report.unwrap())
    }

    #[test]
    fn differences_are_told_in_order() {
        let common = || dir([(&b"x"[..], file(b"same"))]);
        let source = dir([
            (&b"a"[..], file(b"1")),
            (b"common", common()),
            (b"gone", dir([(&b"f"[..], file(b"2")), (b"l", link(b"t"))])),
            (b"was\xff", link(b"t")),
        ]);
        let target = dir([
            (&b"a"[..], file(b"22")),
            (b"common", common()),
            (b"new", dir([(&b"f"[..], file(b"same"))])),
            (b"was\xff", file(b"3")),
        ]);
        let (words, report) = compare(&source, &target, false);
        let expected =
            ["M /a", "- /gone/", "- /gone/f", "- /gone/l", "+ /new/", "+ /new/f", "T /was\\xff"];
        assert_eq!(words, expected);
        assert_eq!(report.changed_files, 1);
        assert_eq!((report.removed.files, report.removed.dirs, report.removed.others), (1, 1, 1));
        assert_eq!((report.added.files, report.added.dirs, report.added.others), (1, 1, 0));
        // `same` lies in an unchanged folder as well, so it is not new.
        assert_eq!((report.added.data_blobs, report.removed.data_blobs), (2, 2));
        let (backwards, reverse) = compare(&target, &source, false);
        assert_eq!(
            (backwards.len(), reverse.added, reverse.removed),
            (7, report.removed, report.added)
        );
        assert_eq!(compare(&source, &source, true), (vec![], DiffReport::default()));
    }

    #[test]
    fn metadata_and_rot_are_told_apart() {
        let node = |content: &[u8], second| {
            let mut node = Node::new(Vec::new(), NodeKind::File);
            node.content = Some(vec![BlobId::of(content)]);
            node.mtime = Timestamp::new(second, 0, 0);
            dir([(&b"f"[..], Item::Node(Box::new(node)))])
        };
        let check = |a: &Item, b: &Item, metadata, expected: &[&str]| {
            assert_eq!(compare(a, b, metadata).0, expected);
        };
        check(&node(b"1", 1), &node(b"2", 1), false, &["M? /f"]);
        check(&node(b"1", 1), &node(b"2", 2), true, &["M /f"]);
        check(&node(b"1", 1), &node(b"1", 2), true, &["U /f"]);
        check(&node(b"1", 1), &node(b"1", 2), false, &[]);
        assert_eq!(compare(&node(b"1", 1), &node(b"2", 1), false).1.missing_blobs, 2);
    }

    #[test]
    fn an_unreadable_folder_does_not_end_the_comparison() {
        let lost = |name: &[u8]| {
            let mut node = Node::new(Vec::new(), NodeKind::Dir);
            node.subtree = Some(BlobId::of(name));
            Item::Node(Box::new(node))
        };
        let source = dir([(&b"d"[..], lost(b"1")), (b"e", lost(b"3")), (b"z", file(b"1"))]);
        let target = dir([(&b"d"[..], lost(b"2")), (b"e", lost(b"3"))]);
        let (words, report) = compare(&source, &target, false);
        assert_eq!(words, ["! /d/", "! /d/", "- /z", "! /e/"]);
        assert_eq!(report.unreadable, 3);
    }

    #[test]
    fn json_is_that_of_restic() {
        let DiffStep::Change(line) = change(b"/a/", "+") else { panic!("a change") };
        let json = go_json::to_vec(&line).unwrap();
        assert_eq!(json, br#"{"message_type":"change","path":"/a/","modifier":"+"}"#);
        let json = go_json::to_vec(&DiffReport::default().statistics("a", "b")).unwrap();
        let counts = r#"{"files":0,"dirs":0,"others":0,"data_blobs":0,"tree_blobs":0,"bytes":0}"#;
        let expected = format!(
            r#"{{"message_type":"statistics","source_snapshot":"a","target_snapshot":"b","changed_files":0,"added":{counts},"removed":{counts}}}"#
        );
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }

    #[test]
    fn a_cancelled_run_ends() {
        let sample = Sample::new();
        let (a, b) = (sample.write(&dir([])), sample.write(&dir([(&b"f"[..], file(b""))])));
        let run = Run::new();
        run.cancel.request("enough");
        let nothing = |_: DiffStep<'_>| Ok::<_, ReadError>(());
        let result = diff(&sample.indexed(), a, b, DiffOptions::default(), &run, nothing);
        assert_eq!(result.unwrap_err().code(), "interrupted");
    }
}
