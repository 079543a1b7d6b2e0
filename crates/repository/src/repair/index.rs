//! Making the index say what packs there really are.
//!
//! Packs that are gone leave the index; packs that no index lists are read (their headers) and
//! added; where index and file do not fit together, the header decides. Index files that cannot
//! be read are replaced by what the packs say. Index files with nothing wrong in them stay as
//! they are.
//!
//! **Never dropped** is a pack that is cut short or has lost its header, and of which an index
//! still knows what lies where: without that nobody could salvage what is sound in it. It is
//! named, and [`super::packs`] is for it. restic drops it.
//!
//! Content is not read: a flipped bit in a blob goes unseen here, as everywhere without
//! `--read-data`.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use muster_model::{Class, Fault as _};

use super::index_files::{self, Replaced};
use crate::{
    check::{asking_threads, each_on_threads, fit, read_header_of},
    format::{index_file::IndexPack, pack::PackedBlob},
    id::PackId,
    index::Index,
    repository::{ReadError, Repository},
    run::Run,
    storage::{File, FileKind},
    supersede::ChangeError,
};

/// How the index is repaired.
#[derive(Debug, Clone, Copy, Default)]
pub struct RepairIndexOptions {
    /// Whether the headers of all packs are read, also where the index fits.
    pub read_all_packs: bool,
}

/// What is wrong with the index, and what is to be done about it.
#[derive(Debug, Default)]
#[must_use = "a proposal changes nothing"]
pub struct IndexProposal {
    /// Index files that cannot be read, and why.
    pub damaged: Vec<(File, String)>,
    /// Packs that the index lists and that are not there, or hold nothing.
    pub gone: Vec<PackId>,
    /// Packs of which the index says what their headers do not.
    pub corrected: Vec<PackId>,
    /// Packs that no index lists.
    pub added: Vec<PackId>,
    /// Packs that no index lists and whose headers cannot be read. They stay as they are.
    pub unreadable: Vec<(PackId, String)>,
    /// Packs that are damaged and of which only the index knows what they hold. They stay in it,
    /// and want [`super::packs`].
    pub to_salvage: Vec<PackId>,
    /// Packs that are there.
    pub packs: u64,
    /// The descriptions of `corrected` and `added`.
    descriptions: Vec<IndexPack>,
    /// Packs marked for deletion that are gone.
    dead_marks: Vec<PackId>,
    /// Index files to be replaced.
    obsolete: HashSet<File, RandomState>,
}

impl IndexProposal {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.obsolete.is_empty() && self.descriptions.is_empty()
    }

    /// How many index files are to be replaced.
    #[must_use]
    pub fn replaced(&self) -> usize {
        self.obsolete.len()
    }
}

/// Compares the index with the packs. The caller holds a lock.
///
/// Progress counts packs whose headers are read.
///
/// # Errors
/// Fails when the store does, or the run is cancelled. Damage is what it is about.
pub fn propose(
    repository: &Repository,
    options: RepairIndexOptions,
    run: &Run,
) -> Result<IndexProposal, ChangeError> {
    let mut proposal = IndexProposal::default();
    let index = read_index(repository, &mut proposal, run)?;
    let mut sizes: HashMap<PackId, u64, RandomState> = HashMap::default();
    for listed in repository.storage().list(FileKind::Pack)? {
        if let File::Pack(pack) = listed.file {
            sizes.insert(pack, listed.bytes);
        }
    }
    proposal.packs = sizes.len() as u64;
    proposal.dead_marks =
        index.packs_to_delete().filter(|pack| !sizes.contains_key(pack)).collect();
    let to_read = judge_listed(&index, &sizes, options, &mut proposal);
    let unknown = |pack: &&PackId| !index.knows_pack(pack);
    let unindexed: Vec<PackId> = sizes.keys().filter(unknown).copied().collect();
    let to_read: Vec<(PackId, u64)> =
        to_read.into_iter().chain(unindexed).map(|pack| (pack, sizes[&pack])).collect();
    read_headers(repository, &index, to_read, &mut proposal, run)?;
    find_obsolete(repository, &mut proposal, run)?;
    for list in
        [&mut proposal.gone, &mut proposal.corrected, &mut proposal.added, &mut proposal.to_salvage]
    {
        list.sort_unstable();
    }
    proposal.unreadable.sort();
    Ok(proposal)
}

fn read_index(
    repository: &Repository,
    proposal: &mut IndexProposal,
    run: &Run,
) -> Result<Index, ChangeError> {
    let mut index = Index::new();
    let mut suspects = Vec::new();
    repository.for_each_index_file(run, |file, content| {
        match content {
            Ok(content) => index.add_file(&content),
            Err(error) if error.class() == Class::Corrupt => suspects.push(file),
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    // Memory and cables flip bits, too: what will be deleted is looked at twice.
    for file in suspects {
        match repository.read_index_file(file) {
            Ok(content) => index.add_file(&content),
            Err(error) if error.class() == Class::Corrupt => {
                let reason = std::error::Error::source(&error).map(ToString::to_string);
                proposal.damaged.push((file, reason.unwrap_or_else(|| error.to_string())));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(index)
}

/// Judges the packs that the index lists; returns those whose headers have to be read.
fn judge_listed(
    index: &Index,
    sizes: &HashMap<PackId, u64, RandomState>,
    options: RepairIndexOptions,
    proposal: &mut IndexProposal,
) -> Vec<PackId> {
    let mut to_read = Vec::new();
    for pack in index.packs() {
        match sizes.get(&pack) {
            None => proposal.gone.push(pack),
            Some(&bytes) => {
                if options.read_all_packs || fit(&blobs_of(index, pack), bytes).is_some() {
                    to_read.push(pack);
                }
            }
        }
    }
    to_read
}

/// What the index says of a pack, in order.
fn blobs_of(index: &Index, pack: PackId) -> Vec<PackedBlob> {
    let mut blobs = index.pack_blobs(&pack);
    blobs.sort_by_key(|blob| blob.offset);
    blobs.dedup();
    blobs
}

fn read_headers(
    repository: &Repository,
    index: &Index,
    packs: Vec<(PackId, u64)>,
    proposal: &mut IndexProposal,
    run: &Run,
) -> Result<(), ChangeError> {
    run.progress.add_total(packs.len() as u64, 0);
    run.progress.total_is_known();
    let read = |(): &mut (), (pack, bytes): (PackId, u64)| {
        let header = read_header_of(repository, pack, bytes);
        run.progress.add_done(1, 0);
        (pack, bytes, header)
    };
    let mut failure = None;
    let states = vec![(); asking_threads(repository.storage().as_ref())];
    each_on_threads(states, packs, &run.cancel, read, |(pack, bytes, header)| {
        let result = judge_header(index, pack, bytes, header, proposal);
        failure = failure.take().or(result.err());
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

fn judge_header(
    index: &Index,
    pack: PackId,
    bytes: u64,
    header: Result<Vec<PackedBlob>, ReadError>,
    proposal: &mut IndexProposal,
) -> Result<(), ReadError> {
    let listed = blobs_of(index, pack);
    match header {
        Ok(header) if header == listed => {}
        Ok(header) => {
            let blobs = header.into_iter().map(Into::into).collect();
            proposal.descriptions.push(IndexPack { id: pack, blobs });
            match listed.is_empty() {
                true => proposal.added.push(pack),
                false => proposal.corrected.push(pack),
            }
        }
        Err(error) if !is_damage(&error) => return Err(error),
        Err(error) if listed.is_empty() => {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            proposal.unreadable.push((pack, reason.unwrap_or_else(|| error.to_string())));
        }
        // Nothing of what it held is left.
        Err(_) if bytes < u64::from(listed[0].offset + listed[0].length) => {
            proposal.gone.push(pack)
        }
        Err(_) => proposal.to_salvage.push(pack),
    }
    Ok(())
}

/// Whether trying again cannot help.
fn is_damage(error: &ReadError) -> bool {
    matches!(error.class(), Class::Corrupt | Class::NotFound)
}

/// Finds the index files that say something wrong.
fn find_obsolete(
    repository: &Repository,
    proposal: &mut IndexProposal,
    run: &Run,
) -> Result<(), ChangeError> {
    let wrong: HashSet<PackId, RandomState> =
        proposal.gone.iter().chain(&proposal.corrected).copied().collect();
    proposal.obsolete.extend(proposal.damaged.iter().map(|(file, _)| *file));
    if wrong.is_empty() {
        return Ok(());
    }
    let obsolete = &mut proposal.obsolete;
    repository.for_each_index_file(run, |file, content| {
        if content.is_ok_and(|content| content.packs.iter().any(|pack| wrong.contains(&pack.id))) {
            obsolete.insert(file);
        }
        Ok::<_, ReadError>(())
    })?;
    Ok(())
}

/// Does what was proposed. The caller holds an exclusive lock since before the proposal.
///
/// # Errors
/// Fails when the store does or the run is cancelled. The index says then at least what it said
/// before, and running the repair again completes it.
pub fn apply(
    repository: &Repository,
    proposal: IndexProposal,
    run: &Run,
) -> Result<Replaced, ChangeError> {
    let IndexProposal { gone, corrected, dead_marks, descriptions, obsolete, .. } = proposal;
    let wrong: HashSet<PackId, RandomState> =
        gone.into_iter().chain(corrected).chain(dead_marks).collect();
    let keep = |pack: &PackId| !wrong.contains(pack);
    index_files::replace(repository, &obsolete, keep, descriptions, run)
}

#[cfg(test)]
mod tests;
