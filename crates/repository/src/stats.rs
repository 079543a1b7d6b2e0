//! How large snapshots are, counted in four ways.
//!
//! # Source
//! restic, `cmd/restic/cmd_stats.go`; the manual's *Getting information about a repository*.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    str::FromStr,
};

use foldhash::fast::RandomState;
use serde::Serialize;

use crate::{
    crypto::OVERHEAD_BYTES,
    format::{
        config::Version,
        pack::BlobKind,
        snapshot::Snapshot,
        tree::{Node, NodeKind},
    },
    id::BlobId,
    repository::{IndexedRepository, ReadError},
    run::Run,
    tree_walk::{Step, TreeWalk},
};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatsMode {
    /// The size of the files when restored; hard links once for each snapshot.
    #[default]
    RestoreSize,
    /// The size of files, those of equal content once.
    FilesByContents,
    /// The blobs that files refer to, each once for each file.
    BlobsPerFile,
    /// The blobs as they are stored, each once.
    RawData,
}

impl StatsMode {
    /// All modes.
    pub const ALL: [Self; 4] =
        [Self::RestoreSize, Self::FilesByContents, Self::BlobsPerFile, Self::RawData];

    /// The mode as it is written in flags.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RestoreSize => "restore-size",
            Self::FilesByContents => "files-by-contents",
            Self::BlobsPerFile => "blobs-per-file",
            Self::RawData => "raw-data",
        }
    }
}

impl fmt::Display for StatsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StatsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("'{text}' is no way of counting: write one of {names}")
        })
    }
}

/// The numbers, with restic's names in JSON. Sizes are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Stats {
    /// Size of what was counted: of files, or in raw-data of sealed blobs.
    pub total_size: u64,
    /// What the blobs would take without compression (raw-data).
    #[serde(skip_serializing_if = "is_zero")]
    pub total_uncompressed_size: u64,
    /// Uncompressed size of the compressed blobs by their size (raw-data).
    #[serde(skip_serializing_if = "is_nothing")]
    pub compression_ratio: f64,
    /// Per cent of the data that is compressed (raw-data).
    #[serde(skip_serializing_if = "is_nothing")]
    pub compression_progress: f64,
    /// Per cent of space that compression saved (raw-data).
    #[serde(skip_serializing_if = "is_nothing")]
    pub compression_space_saving: f64,
    /// How many entries were counted, folders and links among them in restore-size.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_file_count: u64,
    /// How many blobs, or references to blobs in blobs-per-file, were counted.
    #[serde(skip_serializing_if = "is_zero")]
    pub total_blob_count: u64,
    /// How many snapshots were counted.
    pub snapshots_count: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_nothing(number: &f64) -> bool {
    *number == 0.0
}

/// What was counted, and what could not be.
#[derive(Debug, Default)]
#[must_use = "what could not be read is missing from the numbers"]
pub struct StatsReport {
    /// The numbers.
    pub stats: Stats,
    /// Folders that could not be read: their trees, and why.
    pub unreadable: Vec<(BlobId, ReadError)>,
    /// Blobs that no index lists.
    pub missing_blobs: u64,
}

/// Counts one snapshot after the other.
pub struct StatsCounter<'r> {
    repository: &'r IndexedRepository,
    mode: StatsMode,
    report: StatsReport,
    /// Hashes of the contents of files that were counted.
    contents: HashSet<BlobId, RandomState>,
    /// The blobs of each path that were counted.
    by_path: HashMap<Vec<u8>, HashSet<BlobId, RandomState>, RandomState>,
    /// All blobs that are used.
    used: HashSet<(BlobKind, BlobId), RandomState>,
}

impl<'r> StatsCounter<'r> {
    /// A counter of nothing yet.
    #[must_use]
    pub fn new(repository: &'r IndexedRepository, mode: StatsMode) -> Self {
        Self {
            repository,
            mode,
            report: StatsReport::default(),
            contents: HashSet::default(),
            by_path: HashMap::default(),
            used: HashSet::default(),
        }
    }

    /// Counts a snapshot in. Folders that cannot be read are noted and left out.
    ///
    /// # Errors
    /// Fails when the run is cancelled or the reader cannot allocate its tables.
    pub fn add(&mut self, snapshot: &Snapshot, run: &Run) -> Result<(), ReadError> {
        self.report.stats.snapshots_count += 1;
        match self.mode {
            StatsMode::RawData => self.collect_used(snapshot.tree, run),
            _ => self.walk(snapshot.tree, run),
        }
    }

    /// The numbers of all snapshots together.
    pub fn finish(mut self) -> StatsReport {
        if self.mode == StatsMode::RawData {
            self.count_used();
        }
        self.report
    }

    fn walk(&mut self, tree: BlobId, run: &Run) -> Result<(), ReadError> {
        let mut hard_links = HashSet::<_, RandomState>::default();
        for step in TreeWalk::new(self.repository, tree, b"")? {
            run.cancel.check()?;
            match step {
                Step::Unreadable { tree, error, .. } => self.report.unreadable.push((tree, error)),
                Step::Left { .. } => {}
                Step::Entry(entry) => {
                    run.progress.add_done(1, entry.node.size);
                    match self.mode {
                        StatsMode::RestoreSize => self.count_size(&entry.node, &mut hard_links),
                        StatsMode::FilesByContents => self.count_content(&entry.node),
                        _ => self.count_references(entry.path, &entry.node),
                    }
                }
            }
        }
        Ok(())
    }

    fn count_size(&mut self, node: &Node, hard_links: &mut HashSet<(u64, u64), RandomState>) {
        let stats = &mut self.report.stats;
        stats.total_file_count += 1;
        let sole = node.links == 1 || node.kind == NodeKind::Dir || node.inode == 0;
        if sole || hard_links.insert((node.inode, node.device_id)) {
            stats.total_size = stats.total_size.saturating_add(node.size);
        }
    }

    /// Whether a file of this content was not counted yet. As in restic, everything without
    /// content is one empty file.
    fn is_new_content(&mut self, node: &Node) -> bool {
        let ids = node.content.iter().flatten().flat_map(|id| id.as_bytes()).copied();
        self.contents.insert(BlobId::of(&ids.collect::<Vec<u8>>()))
    }

    fn count_content(&mut self, node: &Node) {
        if self.is_new_content(node) {
            let stats = &mut self.report.stats;
            stats.total_size = stats.total_size.saturating_add(node.size);
            stats.total_file_count += 1;
        }
    }

    fn count_references(&mut self, path: Vec<u8>, node: &Node) {
        if node.content.as_ref().is_none_or(Vec::is_empty) || !self.is_new_content(node) {
            return;
        }
        let stats = &mut self.report.stats;
        let counted = self.by_path.entry(path).or_insert_with(|| {
            stats.total_file_count += 1;
            HashSet::default()
        });
        for &id in node.content.iter().flatten() {
            if !counted.insert(id) {
                continue;
            }
            match self.repository.index().find(BlobKind::Data, id) {
                None => self.report.missing_blobs += 1,
                Some(found) => {
                    stats.total_size += u64::from(found.blob.plaintext_length());
                    stats.total_blob_count += 1;
                }
            }
        }
    }

    /// Notes every blob that a tree needs. Trees that were seen are not read again.
    fn collect_used(&mut self, tree: BlobId, run: &Run) -> Result<(), ReadError> {
        let mut reader = self.repository.blob_reader()?;
        let mut to_read = vec![tree];
        while let Some(tree) = to_read.pop() {
            run.cancel.check()?;
            if !self.used.insert((BlobKind::Tree, tree)) {
                continue;
            }
            let read = reader.entries(tree).and_then(|mut entries| {
                entries.try_for_each(|node| {
                    let node = node?;
                    run.progress.add_done(1, node.size);
                    let content = node.content.into_iter().flatten();
                    self.used.extend(content.map(|id| (BlobKind::Data, id)));
                    to_read.extend(node.subtree);
                    Ok(())
                })
            });
            if let Err(error) = read {
                self.report.unreadable.push((tree, error));
            }
        }
        Ok(())
    }

    fn count_used(&mut self) {
        let (mut compressed, mut compressed_plain) = (0, 0);
        let stats = &mut self.report.stats;
        let knows_compression = self.repository.config().version == Version::V2;
        for &(kind, id) in &self.used {
            let Some(found) = self.repository.index().find(kind, id) else {
                self.report.missing_blobs += 1;
                continue;
            };
            let size = u64::from(found.blob.length);
            stats.total_blob_count += 1;
            stats.total_size += size;
            if knows_compression {
                let plain = u64::from(found.blob.plaintext_length()) + OVERHEAD_BYTES as u64;
                stats.total_uncompressed_size += plain;
                if found.blob.uncompressed_length.is_some() {
                    compressed += size;
                    compressed_plain += plain;
                }
            }
        }
        let all_plain = stats.total_uncompressed_size;
        stats.compression_ratio = ratio(compressed_plain, compressed);
        stats.compression_progress = ratio(compressed_plain, all_plain) * 100.0;
        if all_plain > 0 {
            stats.compression_space_saving = (1.0 - ratio(stats.total_size, all_plain)) * 100.0;
        }
    }
}

/// `a / b`, or 0 where there is nothing to compare with.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree_walk::sample::{Item, Sample, dir, file};

    fn tree() -> Item {
        let chunks = Item::File(vec![b"one ".repeat(99), b"two".to_vec(), b"two".to_vec()]);
        let mut linked = Node::new(Vec::new(), NodeKind::File);
        (linked.links, linked.inode, linked.size) = (2, 7, 3);
        linked.content = Some(vec![BlobId::of(b"two")]);
        let linked = || Item::Node(Box::new(linked.clone()));
        dir([
            (&b"a"[..], dir([(&b"copy"[..], file(b"two"))])),
            (b"b", chunks),
            (b"c", linked()),
            (b"d", linked()),
        ])
    }

    fn count(mode: StatsMode, snapshots: usize) -> StatsReport {
        let sample = Sample::new();
        let id = sample.snapshot(sample.write(&tree()), 1);
        let repository = sample.indexed();
        let mut counter = StatsCounter::new(&repository, mode);
        for _ in 0..snapshots {
            counter.add(&repository.snapshot(id).unwrap(), &Run::new()).unwrap();
        }
        counter.finish()
    }

    #[test]
    fn each_mode_counts_its_own_way() {
        let check = |mode, snapshots, size, files, blobs| {
            let stats = count(mode, snapshots).stats;
            let counts = (stats.total_size, stats.total_file_count, stats.total_blob_count);
            assert_eq!(counts, (size, files, blobs), "{mode}");
            assert_eq!(stats.snapshots_count, snapshots as u64);
        };
        check(StatsMode::RestoreSize, 1, 3 + 402 + 3, 5, 0);
        check(StatsMode::RestoreSize, 2, 2 * (3 + 402 + 3), 10, 0);
        // The folder counts as one empty file.
        check(StatsMode::FilesByContents, 2, 3 + 402, 3, 0);
        check(StatsMode::BlobsPerFile, 2, 3 + 399, 2, 3);
    }

    #[test]
    fn raw_data_counts_blobs_once_and_tells_of_compression() {
        let StatsReport { stats, missing_blobs, .. } = count(StatsMode::RawData, 3);
        assert_eq!((stats.total_blob_count, missing_blobs), (4, 0));
        assert!(stats.total_size < stats.total_uncompressed_size);
        assert!(stats.compression_ratio > 1.0);
        assert!((0.0..=100.0).contains(&stats.compression_progress));
        assert!((0.0..=100.0).contains(&stats.compression_space_saving));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let sample = Sample::new();
        let mut lost = Node::new(Vec::new(), NodeKind::Dir);
        lost.subtree = Some(BlobId::of(b"nowhere"));
        let id = sample.snapshot(sample.write(&dir([(&b"l"[..], Item::Node(Box::new(lost)))])), 1);
        let repository = sample.indexed();
        for mode in StatsMode::ALL {
            let mut counter = StatsCounter::new(&repository, mode);
            counter.add(&repository.snapshot(id).unwrap(), &Run::new()).unwrap();
            assert_eq!(counter.finish().unreadable.len(), 1, "{mode}");
        }
    }
}
