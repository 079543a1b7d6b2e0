//! What a backup leaves out.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, Stat, openat};

use super::names::Names;
use crate::exclude::Patterns;

/// First bytes of a file `CACHEDIR.TAG` that says its folder is a cache.
///
/// # Source
/// Cache Directory Tagging Specification, bford.info/cachedir.
pub const CACHEDIR_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// A file whose presence leaves out all else in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerFile {
    /// The file's name.
    pub name: Vec<u8>,
    /// What it must begin with; empty for any content.
    pub header: Vec<u8>,
}

impl MarkerFile {
    /// The marker of caches (`--exclude-caches`).
    #[must_use]
    pub fn cache() -> Self {
        Self { name: b"CACHEDIR.TAG".to_vec(), header: CACHEDIR_SIGNATURE.to_vec() }
    }
}

/// What a backup leaves out.
#[derive(Debug, Default)]
pub struct Filter {
    /// Patterns for absolute paths.
    pub patterns: Vec<Patterns>,
    /// Files that mark their folders.
    pub markers: Vec<MarkerFile>,
    /// Files larger than this many bytes.
    pub larger_than: Option<u64>,
    /// Whether other file systems than each source's are left out.
    pub one_file_system: bool,
    /// Device and inode of the repository's folder.
    pub(super) destination: Option<(u64, u64)>,
}

impl Filter {
    pub(super) fn excludes_path(&self, path: &[u8]) -> bool {
        self.patterns.iter().any(|patterns| patterns.matches(path))
    }

    /// By what `stat` tells of anything but a folder.
    pub(super) fn excludes_entry(&self, stat: &Stat, device: Option<u64>) -> bool {
        let file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let too_large = file && self.larger_than.is_some_and(|max| size > max);
        let foreign = self.one_file_system && device.is_some_and(|device| device != stat.st_dev);
        too_large || foreign
    }

    pub(super) fn is_destination(&self, stat: &Stat) -> bool {
        self.destination == Some((stat.st_dev, stat.st_ino))
    }

    /// Keeps only the marker when a folder holds one.
    pub(super) fn thin_out(&self, folder: BorrowedFd<'_>, names: Names) -> std::io::Result<Names> {
        let marked = self
            .markers
            .iter()
            .find(|marker| names.contains(&marker.name) && begins_with(folder, marker));
        match marked {
            Some(marker) => Names::only(&marker.name),
            None => Ok(names),
        }
    }
}

fn begins_with(folder: BorrowedFd<'_>, marker: &MarkerFile) -> bool {
    if marker.header.is_empty() {
        return true;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(file) = openat(folder, marker.name.as_slice(), flags, Mode::empty()) else {
        return false;
    };
    let mut start = vec![0; marker.header.len()];
    let read = rustix::io::retry_on_intr(|| rustix::io::pread(&file, start.as_mut_slice(), 0));
    read == Ok(start.len()) && start == marker.header
}
