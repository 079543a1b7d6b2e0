//! Index files and packs: what lies where, and whether it can.

use super::{
    CheckError,
    findings::{Findings, Map},
    parallel::{asking_threads, each_on_threads},
    read_data::{self, Seen, Wanted, header_of},
    report::{Hint, Problem, Subject},
    rota::Order,
};
use crate::{
    format::{
        FormatError,
        index_file::IndexPack,
        pack::{
            BlobKind, LENGTH_FIELD_BYTES, PackedBlob, TAIL_GUESS_BYTES, header_span, pack_bytes,
        },
    },
    id::PackId,
    index::Index,
    repository::{ReadError, Repository},
    run::Run,
    storage::{File, FileKind, StorageProblem},
};

/// How many packs a hint names.
pub(super) const PACKS_NAMED_MAX: usize = 100;

/// Where everything lies.
pub(super) struct Structure {
    /// All blobs of all packs: those that index files list, and those of unindexed packs.
    pub(super) index: Index,
    /// The packs that are there, with their sizes in bytes.
    pub(super) sizes: Map<PackId, u64>,
    /// The indexed packs that are there and that nobody read yet.
    pub(super) unread: Vec<Wanted>,
}

/// Checks all index files and packs, as far as it can be done without reading packs. Those
/// whose size is wrong are read all the same: only so it is known what is left of them.
pub(super) fn check(
    repository: &Repository,
    run: &Run,
    findings: &mut Findings,
) -> Result<Structure, CheckError> {
    let mut index = load_index(repository, run, findings)?;
    findings.counts.packs = index.pack_count() as u64;
    findings.counts.blobs = index.len() as u64;
    // Listed after the index was read: whatever an index lists was stored before.
    let listed = repository.storage().list(FileKind::Pack)?;
    let mut sizes = Map::default();
    for entry in listed {
        if let File::Pack(pack) = entry.file {
            sizes.insert(pack, entry.bytes);
        }
    }
    hint_at_duplicates(&index, findings);
    let (unread, suspects) = compare_sizes(&index, &sizes, run, findings)?;
    examine(repository, &index, &sizes, suspects, run, findings)?;
    add_unindexed(repository, &mut index, &sizes, run, findings)?;
    Ok(Structure { index, sizes, unread })
}

fn load_index(
    repository: &Repository,
    run: &Run,
    findings: &mut Findings,
) -> Result<Index, CheckError> {
    let mut index = Index::new();
    repository.for_each_index_file(run, |file, result| {
        findings.counts.indexes += 1;
        match result {
            Ok(content) => index.add_file(&content),
            Err(ReadError::Damaged { source, .. }) => {
                findings.add(Subject::File(file), Problem::of_format(&source));
            }
            // Replaced by another process since it was listed. If it was not, the trees tell.
            Err(ReadError::Storage(error)) if error.problem() == StorageProblem::NotFound => {
                findings.counts.indexes -= 1;
            }
            Err(ReadError::Storage(error)) => {
                findings.add(Subject::File(file), Problem::of_small_file(error)?);
            }
            Err(other) => return Err(CheckError::from(other)),
        }
        Ok::<_, CheckError>(())
    })?;
    Ok(index)
}

fn hint_at_duplicates(index: &Index, findings: &mut Findings) {
    let is_copy = |location: &crate::index::Location| {
        index.find(location.blob.kind, location.blob.id).as_ref() != Some(location)
    };
    let (mut count, mut bytes) = (0, 0);
    for copy in index.iter().filter(is_copy) {
        count += 1;
        bytes += u64::from(copy.blob.length);
    }
    if count > 0 {
        findings.hints.push(Hint::DuplicateBlobs { count, bytes });
    }
}

/// A pack that is not as the index says.
struct Suspect {
    pack: PackId,
    problem: Problem,
}

/// Compares every pack of the index with the list of files. Returns those that fit, and those
/// that do not.
fn compare_sizes(
    index: &Index,
    sizes: &Map<PackId, u64>,
    run: &Run,
    findings: &mut Findings,
) -> Result<(Vec<Wanted>, Vec<Suspect>), CheckError> {
    let (mut fitting, mut suspects, mut mixed) = (Vec::new(), Vec::new(), Vec::new());
    for pack in index.packs() {
        run.cancel.check()?;
        let mut blobs = index.pack_blobs(&pack);
        blobs.sort_by_key(|blob| blob.offset);
        blobs.dedup();
        if is_mixed(&blobs) {
            mixed.push(pack);
        }
        let Some(&bytes) = sizes.get(&pack) else {
            findings.lose_pack(pack, Problem::Missing);
            continue;
        };
        match fit(&blobs, bytes) {
            None => fitting.push(Wanted { pack, bytes }),
            Some(problem) => suspects.push(Suspect { pack, problem }),
        }
    }
    if !mixed.is_empty() {
        mixed.sort_unstable();
        let count = mixed.len() as u64;
        mixed.truncate(PACKS_NAMED_MAX);
        findings.hints.push(Hint::MixedPacks { packs: mixed, count });
    }
    Ok((fitting, suspects))
}

fn is_mixed(blobs: &[PackedBlob]) -> bool {
    let has = |kind| blobs.iter().any(|blob| blob.kind == kind);
    has(BlobKind::Data) && has(BlobKind::Tree)
}

/// What keeps `blobs`, in order of their offsets, from being all that a file of `bytes` holds.
pub(crate) fn fit(blobs: &[PackedBlob], bytes: u64) -> Option<Problem> {
    let mut end = 0;
    for blob in blobs {
        let start = u64::from(blob.offset);
        if start != end {
            let what = if start < end { "overlap" } else { "leave a gap" };
            let reason = format!("the blobs {what} at offset {}", start.min(end));
            return Some(Problem::ImpossibleLayout { reason });
        }
        end = start + u64::from(blob.length);
    }
    let expected = pack_bytes(blobs);
    (bytes != expected).then_some(Problem::WrongSize { actual: bytes, expected })
}

/// Reads the suspects to learn which of their blobs are left, and who is at fault: the pack
/// or the index.
fn examine(
    repository: &Repository,
    index: &Index,
    sizes: &Map<PackId, u64>,
    suspects: Vec<Suspect>,
    run: &Run,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let wanted = |suspect: &Suspect| {
        let bytes = sizes.get(&suspect.pack).copied().unwrap_or_default();
        Wanted { pack: suspect.pack, bytes }
    };
    let packs = suspects.iter().map(wanted).collect();
    let mut problems: Map<_, _> =
        suspects.into_iter().map(|suspect| (suspect.pack, suspect.problem)).collect();
    read_data::read(repository, index, packs, Order::LargestFirst, &run.cancel, None, |mut seen| {
        if let Some(suspected) = problems.remove(&seen.pack) {
            judge(&mut seen, suspected, sizes);
        }
        seen.tell(findings);
    })
}

fn judge(seen: &mut Seen, suspected: Problem, sizes: &Map<PackId, u64>) {
    if seen.is_archived {
        seen.problem = Some(suspected);
        return;
    }
    let actual = match &seen.problem {
        Some(Problem::WrongContent { actual }) => PackId::parse(actual),
        _ => None,
    };
    seen.problem = match (seen.problem.take(), suspected) {
        (Some(Problem::Missing), _) => Some(Problem::Missing),
        (Some(Problem::WrongContent { .. }), _)
            if actual.is_some_and(|id| sizes.contains_key(&id)) =>
        {
            actual.map(|id| Problem::Swapped { with: File::Pack(id) })
        }
        // The file is what its name says, so it is the index that is wrong about its size.
        (None | Some(Problem::HeaderDisagrees { .. }), Problem::WrongSize { actual, expected }) => {
            let reason = format!("it has {actual} bytes, the index accounts for {expected}");
            Some(Problem::HeaderDisagrees { reason })
        }
        (_, suspected) => Some(suspected),
    };
}

/// Reads the headers of packs that no index lists (or that only rustic's list of packs to
/// delete names), and adds their blobs to the index, so that trees can be followed into them.
fn add_unindexed(
    repository: &Repository,
    index: &mut Index,
    sizes: &Map<PackId, u64>,
    run: &Run,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let indexed: std::collections::HashSet<PackId> = index.packs().collect();
    let packs: Vec<_> = sizes
        .iter()
        .map(|(&pack, &bytes)| Wanted { pack, bytes })
        .filter(|wanted| !indexed.contains(&wanted.pack))
        .collect();
    let read = |(): &mut (), wanted: Wanted| {
        (wanted.pack, read_header_of(repository, wanted.pack, wanted.bytes))
    };
    each_on_threads(
        vec![(); asking_threads(repository.storage().as_ref())],
        packs,
        &run.cancel,
        read,
        |(pack, header)| {
            findings.add_unindexed(pack);
            // One without a header is what an interrupted upload leaves: superfluous, no damage.
            if let Ok(blobs) = header {
                let blobs = blobs.into_iter().map(Into::into).collect();
                index.add_pack(&IndexPack { id: pack, blobs });
            }
        },
    )?;
    Ok(())
}

/// Reads the header of a pack of `bytes` bytes: once its likely length, and once more if it is
/// longer.
pub(crate) fn read_header_of(
    repository: &Repository,
    pack: PackId,
    bytes: u64,
) -> Result<Vec<PackedBlob>, ReadError> {
    let file = File::Pack(pack);
    let damaged = |source: FormatError| ReadError::Damaged { file, source };
    let read_tail = |span: u64| {
        let span = span.min(bytes);
        let length = usize::try_from(span).map_err(|_| FormatError::invalid("too long"));
        let mut tail = vec![0; length.map_err(damaged)?];
        repository.storage().read_range(file, bytes - span, &mut tail)?;
        Ok::<_, ReadError>(tail)
    };
    let mut tail = read_tail(TAIL_GUESS_BYTES)?;
    let field: [u8; LENGTH_FIELD_BYTES] =
        *tail.last_chunk().ok_or_else(|| damaged(FormatError::invalid("the pack is empty")))?;
    let span = header_span(field, bytes).map_err(damaged)?;
    if span > tail.len() {
        tail = read_tail(span as u64)?;
    }
    header_of(repository, &tail, bytes).map_err(damaged)
}

/// Tells of the packs that no index lists and nothing needs.
pub(super) fn hint_at_unindexed(index: &Index, sizes: &Map<PackId, u64>, findings: &mut Findings) {
    // Those that rustic marked for deletion are known, and wait.
    let marked: std::collections::HashSet<PackId> = index.packs_to_delete().collect();
    let mut packs: Vec<_> =
        findings.superfluous_packs().filter(|pack| !marked.contains(pack)).collect();
    if packs.is_empty() {
        return;
    }
    packs.sort_unstable();
    let bytes = packs.iter().filter_map(|pack| sizes.get(pack)).sum();
    let count = packs.len() as u64;
    packs.truncate(PACKS_NAMED_MAX);
    findings.hints.push(Hint::UnindexedPacks { packs, count, bytes });
}
