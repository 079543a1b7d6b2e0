//! Taking damaged packs out of a repository, and what is sound in them into new ones.
//!
//! A damaged pack in the index is worse than none: the next backup takes what it lists for
//! stored. Each named pack is read whole, by what the index says of it and by what its header
//! says (of a pack that was swapped with another, the header knows what is really in it). Blobs
//! that are what their ids say go into new packs, unless another pack holds them too; then the
//! index is written without the damaged pack, and last the pack is deleted. Whoever wants to
//! keep it takes a copy before ([`keep_copy`] makes one).
//!
//! A pack in which nothing is wrong is left alone.
//!
//! # Source
//! restic, `internal/repository/repair_pack.go`.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use foldhash::fast::RandomState;
use muster_model::{Class, Fault};
use sha2::{Digest, Sha256};

use super::index_files::{self, Replaced};
use crate::{
    check::read_header_of,
    format::pack::{BlobKind, PackedBlob},
    id::{BlobId, PackId},
    index::{Index, Location},
    packer::{PackOptions, PackStats, PackWriter, write_packs},
    repository::{BlobReader, IndexedRepository, ReadError},
    run::Run,
    storage::{File, Storage, StorageError, StorageProblem},
    supersede::ChangeError,
};

/// How much of a pack is read at once for its hash, in bytes.
const PIECE_BYTES: u64 = 4 << 20;

/// What was found in a pack that was named.
#[derive(Debug)]
pub struct PackFinding {
    /// The pack.
    pub pack: PackId,
    /// Its size in bytes; `None` when the file is missing.
    pub bytes: Option<u64>,
    /// What is wrong with the file; `None` when nothing is.
    pub problem: Option<String>,
    /// Blobs that can be read from it.
    pub sound: Vec<Location>,
    /// Blobs that cannot be read from it; and whether another pack holds them, soundly.
    pub lost: Vec<(BlobKind, BlobId, bool)>,
}

impl PackFinding {
    /// Whether the pack is what it should be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problem.is_none() && self.lost.is_empty()
    }

    /// How many blobs are lost for good.
    #[must_use]
    pub fn lost_for_good(&self) -> usize {
        self.lost.iter().filter(|(.., elsewhere)| !elsewhere).count()
    }
}

/// What was found in all packs that were named.
#[derive(Debug, Default)]
#[must_use = "a proposal changes nothing"]
pub struct PacksProposal {
    /// One finding for each pack.
    pub packs: Vec<PackFinding>,
}

impl PacksProposal {
    /// The packs that will be taken out.
    pub fn damaged(&self) -> impl Iterator<Item = &PackFinding> {
        self.packs.iter().filter(|finding| !finding.is_sound())
    }
}

/// Reads the named packs. The caller holds a lock.
///
/// Progress counts packs and their bytes.
///
/// # Errors
/// Fails when the store does or the run is cancelled. A pack that is not there is a finding.
pub fn propose(
    repository: &IndexedRepository,
    packs: &[PackId],
    run: &Run,
) -> Result<PacksProposal, ChangeError> {
    let mut proposal = PacksProposal::default();
    let named: HashSet<PackId, RandomState> = packs.iter().copied().collect();
    let mut reader = repository.blob_reader()?;
    let mut seen = HashSet::<PackId, RandomState>::default();
    for &pack in packs.iter().filter(|&&pack| seen.insert(pack)) {
        run.cancel.check()?;
        let mut finding = examine(repository, &mut reader, pack, run)?;
        for (kind, id, elsewhere) in &mut finding.lost {
            *elsewhere = is_elsewhere(repository, &mut reader, &named, *kind, *id)?;
        }
        run.progress.add_done(1, 0);
        proposal.packs.push(finding);
    }
    // A blob that one of the named packs lost may be sound in another of them.
    let sound: HashSet<(BlobKind, BlobId), RandomState> = proposal
        .packs
        .iter()
        .flat_map(|finding| &finding.sound)
        .map(|location| (location.blob.kind, location.blob.id))
        .collect();
    for (kind, id, elsewhere) in proposal.packs.iter_mut().flat_map(|finding| &mut finding.lost) {
        *elsewhere |= sound.contains(&(*kind, *id));
    }
    Ok(proposal)
}

fn examine(
    repository: &IndexedRepository,
    reader: &mut BlobReader<'_>,
    pack: PackId,
    run: &Run,
) -> Result<PackFinding, ChangeError> {
    let storage = repository.storage().as_ref();
    let bytes = match storage.size(File::Pack(pack)) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.problem() == StorageProblem::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let mut listed = repository.index().pack_blobs(&pack);
    listed.sort_by_key(|blob| blob.offset);
    listed.dedup();
    let header = match bytes {
        Some(bytes) => tolerate(read_header_of(repository, pack, bytes))?,
        None => None,
    };
    let problem = match bytes {
        None => Some("it is missing".to_owned()),
        Some(bytes) => file_problem(storage, pack, bytes, run)?,
    };
    let header_problem = match &header {
        None => Some("its header cannot be read".to_owned()),
        Some(header) if !listed.is_empty() && *header != listed => {
            Some("its header lists other blobs than the index".to_owned())
        }
        Some(_) => None,
    };
    let problem = problem.or(header_problem);
    let mut finding = PackFinding { pack, bytes, problem, sound: Vec::new(), lost: Vec::new() };
    let mut plaintext = Vec::new();
    let mut done = HashMap::<(BlobKind, BlobId), bool, RandomState>::default();
    for blob in listed.iter().chain(header.iter().flatten()) {
        let key = (blob.kind, blob.id);
        if done.get(&key) == Some(&true) {
            continue;
        }
        let location = Location { pack, blob: *blob };
        let is_sound = bytes.is_some_and(|bytes| ends_within(blob, bytes))
            && tolerate(reader.read_at(&location, &mut plaintext))?.is_some();
        done.insert(key, is_sound);
        if is_sound {
            finding.sound.push(location);
        }
    }
    let lost = done.into_iter().filter(|(_, is_sound)| !is_sound);
    finding.lost = lost.map(|((kind, id), _)| (kind, id, false)).collect();
    finding.lost.sort_unstable();
    Ok(finding)
}

fn ends_within(blob: &PackedBlob, bytes: u64) -> bool {
    u64::from(blob.offset) + u64::from(blob.length) <= bytes
}

/// Damage is `None`; what may pass stays an error.
fn tolerate<T>(result: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.class(), Class::Corrupt | Class::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the whole file and holds it against its name.
fn file_problem(
    storage: &dyn Storage,
    pack: PackId,
    bytes: u64,
    run: &Run,
) -> Result<Option<String>, ChangeError> {
    let mut digest = Sha256::new();
    let mut piece = Vec::new();
    let mut offset = 0;
    while offset < bytes {
        run.cancel.check()?;
        let length = PIECE_BYTES.min(bytes - offset);
        piece.resize(usize::try_from(length).unwrap_or(0), 0);
        storage.read_range(File::Pack(pack), offset, &mut piece)?;
        digest.update(&piece);
        run.progress.add_done(0, length);
        offset += length;
    }
    let actual: [u8; 32] = digest.finalize().into();
    let is_right = actual == *pack.as_bytes();
    Ok((!is_right).then(|| "its name is not the SHA-256 of its content".to_owned()))
}

/// Whether a pack that was not named holds the blob, and it can be read there.
fn is_elsewhere(
    repository: &IndexedRepository,
    reader: &mut BlobReader<'_>,
    named: &HashSet<PackId, RandomState>,
    kind: BlobKind,
    id: BlobId,
) -> Result<bool, ReadError> {
    let mut plaintext = Vec::new();
    for location in repository.index().find_all(kind, id) {
        if !named.contains(&location.pack)
            && tolerate(reader.read_at(&location, &mut plaintext))?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct PacksReport {
    /// What was stored anew.
    pub stats: PackStats,
    /// What became of the index.
    pub indexes: Replaced,
    /// Packs that were deleted.
    pub deleted: Vec<PackId>,
}

/// Does what was proposed. The caller holds an exclusive lock since before the index was loaded.
///
/// # Errors
/// Fails when the store does or the run is cancelled. Nothing that was sound is lost then, and
/// running the repair again completes it.
pub fn apply(
    repository: &IndexedRepository,
    proposal: &PacksProposal,
    options: PackOptions,
    run: &Run,
) -> Result<PacksReport, ChangeError> {
    let damaged: HashSet<PackId, RandomState> =
        proposal.damaged().map(|finding| finding.pack).collect();
    let mut report = PacksReport::default();
    if damaged.is_empty() {
        return Ok(report);
    }
    // What the damaged packs hold counts as not there; what others hold is asked for below.
    let nothing = Index::new();
    let ((), stats) = write_packs(repository, &nothing, options, Vec::new(), run, |writer| {
        salvage(repository, proposal, &damaged, writer, run)
    })?;
    report.stats = stats;
    let mut obsolete = HashSet::default();
    repository.for_each_index_file(run, |file, content| {
        let lists = |content: crate::format::index_file::IndexFile| {
            content.packs.iter().any(|pack| damaged.contains(&pack.id))
        };
        if content.map(lists)? {
            obsolete.insert(file);
        }
        Ok::<_, ReadError>(())
    })?;
    let keep = |pack: &PackId| !damaged.contains(pack);
    report.indexes = index_files::replace(repository, &obsolete, keep, Vec::new(), run)?;
    for finding in proposal.damaged() {
        run.cancel.check_condition()?;
        match repository.storage().delete(File::Pack(finding.pack)) {
            Ok(()) => report.deleted.push(finding.pack),
            Err(error) if error.problem() == StorageProblem::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(report)
}

/// Stores the sound blobs of the damaged packs anew, unless a pack that stays holds them.
fn salvage(
    repository: &IndexedRepository,
    proposal: &PacksProposal,
    damaged: &HashSet<PackId, RandomState>,
    writer: &PackWriter<'_>,
    run: &Run,
) -> Result<(), ChangeError> {
    let mut reader = repository.blob_reader()?;
    let mut data = writer.sealer(BlobKind::Data)?;
    let mut trees = writer.sealer(BlobKind::Tree)?;
    let mut plaintext = Vec::new();
    for location in proposal.damaged().flat_map(|finding| &finding.sound) {
        run.cancel.check()?;
        let (kind, id) = (location.blob.kind, location.blob.id);
        if is_elsewhere(repository, &mut reader, damaged, kind, id)? || !writer.claim(kind, id) {
            continue;
        }
        reader.read_at(location, &mut plaintext)?;
        let sealer = match kind {
            BlobKind::Data => &mut data,
            BlobKind::Tree => &mut trees,
        };
        writer.add(kind, id, plaintext.len() as u64, sealer.seal(id, &plaintext)?)?;
    }
    Ok(())
}

/// Writes a durable copy of a pack, as it is, to `folder`; returns its path. A copy that is there
/// already is kept.
///
/// # Errors
/// Fails when the pack cannot be read whole, or the folder cannot be written.
pub fn keep_copy(
    storage: &dyn Storage,
    pack: PackId,
    folder: &Path,
) -> Result<PathBuf, StorageError> {
    let path = folder.join(format!("pack-{pack}"));
    let failed = |error: io::Error| StorageError::io("write a copy to", path.display(), error);
    let content = storage.read(File::Pack(pack), u64::from(u32::MAX))?;
    if fs::read(&path).is_ok_and(|there| there == content) {
        return Ok(path);
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    io::Write::write_all(&mut file, &content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(path)
}

#[cfg(test)]
mod tests;
