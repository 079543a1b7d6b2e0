//! Comparing restored files with their snapshot, byte for byte.
//!
//! A snapshot lists each file's chunks by their SHA-256, so the comparison reads the restored
//! files and the repository's trees, and no content from the repository: each stretch of a file
//! is hashed and must give the id of its chunk. It shares no code with the restore that wrote
//! the files.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use muster_repository::{
    format::{
        pack::BlobKind,
        tree::{Node, NodeKind},
    },
    id::{BlobId, SnapshotId},
    repository::{IndexedRepository, ReadError},
    run::Run,
    tree_walk::{Entry, Step, TreeWalk},
};

use super::FilesError;
use crate::layout::Layout;

/// A restored file that is not what the snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The file, relative to the target.
    pub path: PathBuf,
    /// What is wrong with it.
    pub difference: Difference,
}

/// How a restored file differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It is not there, or cannot be read.
    Unreadable(String),
    /// It is no regular file, or a link that leads elsewhere.
    Kind,
    /// It is shorter or longer.
    Length {
        /// As in the snapshot, in bytes.
        expected: u64,
        /// As found, in bytes.
        actual: u64,
    },
    /// Its content differs in the chunk that begins here.
    Content {
        /// The first byte of the chunk, counted from 0.
        offset: u64,
    },
}

/// Reads every file of a snapshot back from `target` and compares its content. Also compares
/// where symbolic links lead. What lies in `target` besides is not looked at.
///
/// # Errors
/// Fails when the snapshot or one of its trees cannot be read, or the run is cancelled. Files
/// that differ, or cannot be read, are in the answer.
pub fn checksums(
    repository: &IndexedRepository,
    snapshot: SnapshotId,
    target: &Path,
    run: &Run,
) -> Result<Vec<Mismatch>, FilesError> {
    let snapshot = repository.snapshot(snapshot)?;
    let mut comparison =
        Comparison { repository, target, run, buffer: Vec::new(), found: Vec::new() };
    match Layout::of(repository, &snapshot)? {
        Layout::Content { tree, .. } => comparison.compare(tree, None)?,
        Layout::Names(named) => {
            named
                .iter()
                .try_for_each(|named| comparison.compare(named.parent, Some(&named.name)))?;
        }
    }
    Ok(comparison.found)
}

struct Comparison<'a> {
    repository: &'a IndexedRepository,
    target: &'a Path,
    run: &'a Run,
    buffer: Vec<u8>,
    found: Vec<Mismatch>,
}

impl Comparison<'_> {
    /// Compares what is below a tree: all, or what has this name.
    fn compare(&mut self, tree: BlobId, name: Option<&str>) -> Result<(), FilesError> {
        let mut walk = TreeWalk::new(self.repository, tree, b"")?;
        let wanted = name.map(|name| format!("/{name}").into_bytes());
        while let Some(step) = walk.next() {
            self.run.cancel.check()?;
            match step {
                Step::Unreadable { error, .. } => return Err(error.into()),
                Step::Left { .. } => {}
                Step::Entry(entry) => match wanted.as_deref().is_none_or(|name| {
                    entry
                        .path
                        .strip_prefix(name)
                        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
                }) {
                    true => self.entry(&entry)?,
                    false => walk.skip_folder(),
                },
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), FilesError> {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&entry.path[1..]));
        let restored = self.target.join(&path);
        let difference = match entry.node.kind {
            NodeKind::File => self.file(&restored, &entry.node)?,
            NodeKind::Symlink => link(&restored, &entry.node),
            _ => None,
        };
        self.found.extend(difference.map(|difference| Mismatch { path, difference }));
        Ok(())
    }

    fn file(&mut self, restored: &Path, node: &Node) -> Result<Option<Difference>, FilesError> {
        let content = node.content.as_deref().unwrap_or_default();
        let chunks: Vec<(BlobId, u64)> = content
            .iter()
            .map(|&id| Ok((id, self.length(id)?)))
            .collect::<Result<_, FilesError>>()?;
        Ok(match open(restored) {
            Ok(Some(file)) => self
                .content(file, &chunks)
                .unwrap_or_else(|error| Some(Difference::Unreadable(error.to_string()))),
            Ok(None) => Some(Difference::Kind),
            Err(error) => Some(Difference::Unreadable(error.to_string())),
        })
    }

    fn length(&self, id: BlobId) -> Result<u64, FilesError> {
        let kind = BlobKind::Data;
        let found = self.repository.index().find(kind, id);
        let found = found.ok_or(ReadError::MissingBlob { kind, id })?;
        Ok(u64::from(found.blob.plaintext_length()))
    }

    fn content(
        &mut self,
        mut file: File,
        chunks: &[(BlobId, u64)],
    ) -> io::Result<Option<Difference>> {
        let expected: u64 = chunks.iter().map(|(_, length)| length).sum();
        let actual = file.metadata()?.len();
        if actual != expected {
            return Ok(Some(Difference::Length { expected, actual }));
        }
        let mut offset = 0;
        for &(id, length) in chunks {
            self.buffer.clear();
            (&mut file).take(length).read_to_end(&mut self.buffer)?;
            if BlobId::of(&self.buffer) != id {
                return Ok(Some(Difference::Content { offset }));
            }
            offset += length;
            self.run.progress.add_done(0, length);
        }
        Ok(None)
    }
}

/// Opens a regular file; `None` when something else lies there.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    if !path.symlink_metadata()?.is_file() {
        return Ok(None);
    }
    OpenOptions::new().read(true).custom_flags(flags).open(path).map(Some)
}

fn link(restored: &Path, node: &Node) -> Option<Difference> {
    match std::fs::read_link(restored) {
        Ok(target) if target.as_os_str().as_bytes() == node.link_target => None,
        Ok(_) => Some(Difference::Kind),
        Err(error) => Some(Difference::Unreadable(error.to_string())),
    }
}
