//! A repository as a read-only file system: numbers for folders and files, entries, reads.
//!
//! The layout is that of `restic mount`:
//!
//! ```text
//! ids/ID/…            snapshots/TIME/…       snapshots/latest -> TIME
//! hosts/HOST/TIME/…   tags/TAG/TIME/…        (each with its own latest)
//! ```
//!
//! Whoever mounts it (the command line does, through FUSE) asks here. Nothing in here knows of
//! kernels, and nothing writes.
//!
//! **Bounds.** Of entries below snapshots only those are remembered that somebody has looked up
//! and not forgotten. Trees and chunks that were read last are kept, up to a fixed sum.
//!
//! **Damage** stops nothing else: what cannot be read is an error for who asks for just that.
//!
//! # Source
//! restic, `internal/fuse`.

mod cache;
mod layout;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;
use muster_model::{Class, Fault};
use thiserror::Error;

use self::{
    cache::Cache,
    layout::{Fixed, Layout},
};
use crate::{
    format::{
        mode::unix_mode,
        pack::BlobKind,
        snapshot::Snapshot,
        time::Timestamp,
        tree::{ExtendedAttribute, Node, NodeKind, Tree},
    },
    id::{BlobId, SnapshotId},
    repository::{IndexedRepository, ReadError},
};

/// The number of the folder at the top.
pub const ROOT: u64 = 1;

/// Numbers of what lies below snapshots have this bit; those of the layout do not.
const BELOW_SNAPSHOTS: u64 = 1 << 63;

/// Bytes of the trees that are kept, in memory.
const TREE_BYTES_KEPT: usize = 64 << 20;

/// The longest name that is shown, in bytes. Linux knows no longer ones; one that a listing held
/// would be an error for all that is in the folder.
const NAME_BYTES_MAX: usize = 255;

/// Bytes of the chunks that are kept.
const CHUNK_BYTES_KEPT: usize = 64 << 20;

/// What is told of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub number: u64,
    /// What it is.
    pub kind: NodeKind,
    /// The low twelve bits of `st_mode`.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Last read.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Owner; `None` for the layout's own folders.
    pub owner: Option<(u32, u32)>,
    /// How many names it has.
    pub links: u64,
    /// The device's number, of devices.
    pub device: u64,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its number.
    pub number: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
}

/// A file that is being read.
#[derive(Debug)]
pub struct OpenFile {
    chunks: Vec<BlobId>,
    /// Where each chunk ends; fewer than there are chunks when one's length is unknown.
    ends: Vec<u64>,
    size: u64,
}

/// A repository as a file system.
pub struct FileSystem {
    repository: IndexedRepository,
    layout: Layout,
    known: Mutex<HashMap<u64, Known, RandomState>>,
    trees: Mutex<Cache<Tree>>,
    chunks: Mutex<Cache<Vec<u8>>>,
}

/// What was looked up below a snapshot.
struct Known {
    node: Arc<Node>,
    identity: BlobId,
    /// The number of the snapshot's folder.
    snapshot: u64,
    /// How often it was looked up.
    lookups: u64,
}

/// A mutex whose data stays sound when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileSystem {
    /// A file system of these snapshots.
    #[must_use]
    pub fn new(repository: IndexedRepository, snapshots: Vec<(SnapshotId, Snapshot)>) -> Self {
        Self {
            repository,
            layout: Layout::new(snapshots),
            known: Mutex::default(),
            trees: Mutex::new(Cache::new(TREE_BYTES_KEPT)),
            chunks: Mutex::new(Cache::new(CHUNK_BYTES_KEPT)),
        }
    }

    /// Finds an entry of a folder, and remembers it until it is forgotten.
    ///
    /// # Errors
    /// Fails when there is none, the folder is none, or its tree cannot be read.
    pub fn look_up(&self, parent: u64, name: &[u8]) -> Result<Attributes, FileSystemError> {
        if let Some(Fixed::Folder(entries)) = self.layout.get(parent) {
            let number = *entries.get(name).ok_or(FileSystemError::NotFound)?;
            return self.attributes(number);
        }
        let (tree, snapshot) = self.tree_of(parent)?;
        let tree = self.tree(tree)?;
        let node = tree.get(name).ok_or(FileSystemError::NotFound)?;
        let identity = identity(parent, snapshot, node);
        let mut known = lock(&self.known);
        let mut number = number_of(&identity);
        // Another entry with the same number, by chance: the next one is as good.
        while known.get(&number).is_some_and(|other| other.identity != identity) {
            number = number.wrapping_add(1) | BELOW_SNAPSHOTS;
        }
        let entry = known.entry(number).or_insert_with(|| Known {
            node: Arc::new(node.clone()),
            identity,
            snapshot,
            lookups: 0,
        });
        entry.lookups += 1;
        Ok(attributes_of(number, &entry.node))
    }

    /// Forgets that an entry was looked up so many times.
    pub fn forget(&self, number: u64, lookups: u64) {
        let mut known = lock(&self.known);
        if let Some(entry) = known.get_mut(&number) {
            entry.lookups = entry.lookups.saturating_sub(lookups);
            if entry.lookups == 0 {
                known.remove(&number);
            }
        }
    }

    /// What is told of something that was looked up.
    ///
    /// # Errors
    /// Fails when it was not.
    pub fn attributes(&self, number: u64) -> Result<Attributes, FileSystemError> {
        match self.layout.attributes(number) {
            Some(attributes) => Ok(attributes),
            None => self.node(number).map(|node| attributes_of(number, &node)),
        }
    }

    /// The entries of a folder, in order, but for those whose names no file system takes.
    ///
    /// # Errors
    /// As [`FileSystem::look_up`].
    pub fn entries(&self, number: u64) -> Result<Vec<DirEntry>, FileSystemError> {
        let mut entries = self.all_entries(number)?;
        entries.retain(|entry| entry.name.len() <= NAME_BYTES_MAX);
        Ok(entries)
    }

    fn all_entries(&self, number: u64) -> Result<Vec<DirEntry>, FileSystemError> {
        if let Some(entries) = self.layout.entries(number) {
            return Ok(entries);
        }
        let (tree, snapshot) = self.tree_of(number)?;
        let tree = self.tree(tree)?;
        let entry = |node: &Node| DirEntry {
            number: number_of(&identity(number, snapshot, node)),
            name: node.name.clone(),
            kind: node.kind,
        };
        Ok(tree.nodes.iter().map(entry).collect())
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// Fails when it is none.
    pub fn link_target(&self, number: u64) -> Result<Vec<u8>, FileSystemError> {
        if let Some(Fixed::Link(target)) = self.layout.get(number) {
            return Ok(target.clone());
        }
        let node = self.node(number)?;
        match node.kind {
            NodeKind::Symlink => Ok(node.link_target.clone()),
            _ => Err(FileSystemError::WrongKind),
        }
    }

    /// The extended attributes of something that was looked up.
    ///
    /// # Errors
    /// Fails when it was not.
    pub fn extended_attributes(
        &self,
        number: u64,
    ) -> Result<Vec<ExtendedAttribute>, FileSystemError> {
        match self.layout.get(number) {
            Some(_) => Ok(Vec::new()),
            None => Ok(self.node(number)?.extended_attributes.clone()),
        }
    }

    /// Opens a file: finds out where its chunks lie.
    ///
    /// # Errors
    /// Fails when it is no regular file.
    pub fn open(&self, number: u64) -> Result<OpenFile, FileSystemError> {
        let node = self.node(number)?;
        if node.kind != NodeKind::File {
            return Err(FileSystemError::WrongKind);
        }
        let chunks = node.content.clone().unwrap_or_default();
        let mut ends = Vec::with_capacity(chunks.len());
        let mut end = 0_u64;
        for &chunk in &chunks {
            // Where a chunk ends that no index lists, nobody knows.
            let Some(found) = self.repository.index().find(BlobKind::Data, chunk) else { break };
            end = end.saturating_add(u64::from(found.blob.plaintext_length()));
            ends.push(end);
        }
        Ok(OpenFile { chunks, ends, size: node.size })
    }

    /// Reads up to `length` bytes from `offset` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// Fails when a chunk that is needed cannot be read.
    pub fn read(
        &self,
        file: &OpenFile,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, FileSystemError> {
        let end = offset.saturating_add(length as u64).min(file.size);
        let mut content = Vec::new();
        let mut at = offset;
        while at < end {
            let position = file.ends.partition_point(|&chunk_end| chunk_end <= at);
            let Some(&chunk_end) = file.ends.get(position) else {
                return match file.chunks.get(file.ends.len()) {
                    Some(&id) => Err(ReadError::MissingBlob { kind: BlobKind::Data, id }.into()),
                    // The size that was recorded is more than the content has.
                    None => Ok(content),
                };
            };
            let start = position.checked_sub(1).map_or(0, |before| file.ends[before]);
            let chunk = self.chunk(file.chunks[position])?;
            let within = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
            let part = chunk.get(within(at)..within(end.min(chunk_end)));
            content.extend_from_slice(part.ok_or(FileSystemError::WrongKind)?);
            at = chunk_end;
        }
        Ok(content)
    }

    fn node(&self, number: u64) -> Result<Arc<Node>, FileSystemError> {
        let known = lock(&self.known);
        known.get(&number).map(|known| known.node.clone()).ok_or(FileSystemError::NotFound)
    }

    /// The tree of a folder, and the snapshot's folder that it lies in.
    fn tree_of(&self, number: u64) -> Result<(BlobId, u64), FileSystemError> {
        if let Some(fixed) = self.layout.get(number) {
            return match fixed {
                Fixed::Snapshot(_, tree) => Ok((*tree, number)),
                _ => Err(FileSystemError::WrongKind),
            };
        }
        let known = lock(&self.known);
        let entry = known.get(&number).ok_or(FileSystemError::NotFound)?;
        match (entry.node.kind, entry.node.subtree) {
            (NodeKind::Dir, Some(tree)) => Ok((tree, entry.snapshot)),
            _ => Err(FileSystemError::WrongKind),
        }
    }

    fn tree(&self, id: BlobId) -> Result<Arc<Tree>, FileSystemError> {
        if let Some(tree) = lock(&self.trees).get(&id) {
            return Ok(tree);
        }
        let tree = Arc::new(self.repository.blob_reader()?.tree(id)?);
        lock(&self.trees).put(id, tree.clone(), tree.nodes.iter().map(bytes_of).sum());
        Ok(tree)
    }

    fn chunk(&self, id: BlobId) -> Result<Arc<Vec<u8>>, FileSystemError> {
        if let Some(chunk) = lock(&self.chunks).get(&id) {
            return Ok(chunk);
        }
        let mut plaintext = Vec::new();
        self.repository.blob_reader()?.read(BlobKind::Data, id, &mut plaintext)?;
        let chunk = Arc::new(plaintext);
        lock(&self.chunks).put(id, chunk.clone(), chunk.len());
        Ok(chunk)
    }
}

/// About what a node takes in memory.
fn bytes_of(node: &Node) -> usize {
    let attribute =
        |attribute: &ExtendedAttribute| attribute.name.len() + attribute.value.len() + 64;
    size_of::<Node>()
        + node.name.len()
        + node.link_target.len()
        + node.content.as_ref().map_or(0, |content| content.len() * size_of::<BlobId>())
        + node.extended_attributes.iter().map(attribute).sum::<usize>()
}

/// What makes an entry the same: its place; of hard links what they share, the content included,
/// so that a tree that lies about its inodes shows nothing under another name.
fn identity(parent: u64, snapshot: u64, node: &Node) -> BlobId {
    let mut text = Vec::new();
    if node.is_hard_link() {
        for number in [snapshot, node.device_id, node.inode, node.size, node.links] {
            text.extend_from_slice(&number.to_le_bytes());
        }
        text.extend_from_slice(node.kind.as_str().as_bytes());
        for chunk in node.content.iter().flatten() {
            text.extend_from_slice(chunk.as_bytes());
        }
    } else {
        text.extend_from_slice(&parent.to_le_bytes());
        text.extend_from_slice(b"/");
        text.extend_from_slice(&node.name);
    }
    BlobId::of(&text)
}

fn number_of(identity: &BlobId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *identity.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) | BELOW_SNAPSHOTS
}

fn attributes_of(number: u64, node: &Node) -> Attributes {
    let size = match node.kind {
        NodeKind::File => node.size,
        NodeKind::Symlink => node.link_target.len() as u64,
        _ => 0,
    };
    Attributes {
        number,
        kind: node.kind,
        mode: unix_mode(node.mode),
        size,
        atime: node.atime,
        mtime: node.mtime,
        ctime: node.ctime,
        owner: Some((node.uid, node.gid)),
        links: node.links.max(1),
        device: node.device,
    }
}

/// Something in the file system cannot be had.
#[derive(Debug, Error)]
pub enum FileSystemError {
    /// There is nothing of this name or number.
    #[error("find it: there is no such file or folder")]
    NotFound,
    /// It is something else: no folder, no link, no file.
    #[error("read it as what it is not")]
    WrongKind,
    /// The repository cannot be read there.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Fault for FileSystemError {
    fn class(&self) -> Class {
        match self {
            Self::NotFound => Class::NotFound,
            Self::WrongKind => Class::Input,
            Self::Read(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "path-not-found",
            Self::WrongKind => "not-a-folder",
            Self::Read(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.help(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
