//! Restores of hand-made repositories: hostile, damaged, and awkward ones.

mod content;
mod damaged;
mod existing;
mod far;
mod hostile;
mod large;
mod links;

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use muster_model::{Class, Fault};
use tempfile::TempDir;

use super::*;
use crate::{
    format::{
        index_file::IndexPack,
        pack::{BlobKind, PackedBlob},
        time::Timestamp,
        tree::Node,
    },
    repository::Repository,
    storage::{File, memory::MemoryStorage},
    testing::{RepositoryBuilder, dir_node, file_node, node, symlink_node},
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn run(
    repository: &IndexedRepository,
    tree: BlobId,
    options: &RestoreOptions,
) -> Result<RestoreReport, RestoreError> {
    restore(repository, tree, options, &Run::new())
}

/// Restores a tree over whatever is in `target`.
fn over(
    target: &Path,
    overwrite: Overwrite,
    builder: RepositoryBuilder,
    tree: BlobId,
) -> RestoreReport {
    let options = RestoreOptions { overwrite, ..RestoreOptions::new(target) };
    run(&builder.finish(), tree, &options).unwrap()
}

/// A file with one chunk.
fn file(builder: &mut RepositoryBuilder, name: &str, content: &[u8]) -> Node {
    let chunk = builder.add_data_blob(content);
    file_node(name.as_bytes(), vec![chunk], content.len() as u64)
}

fn paths(report: &RestoreReport) -> Vec<String> {
    let mut paths: Vec<_> =
        report.problems.iter().map(|problem| problem.path.display().to_string()).collect();
    paths.sort();
    paths
}

/// The files of a folder, as they are and not what links lead to.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Damages the pack that holds the chunk, at the chunk.
fn damage(storage: &MemoryStorage, repository: &IndexedRepository, id: BlobId) {
    let place = repository.index().find(BlobKind::Data, id).unwrap();
    let mut files = storage.files();
    files.get_mut(&File::Pack(place.pack)).unwrap()[place.blob.offset as usize + 20] ^= 1;
}
