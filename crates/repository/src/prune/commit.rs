//! The second phase and the third: what leaves the index, what is marked, what is deleted.
//!
//! `plan` decides with everything known and nobody else at work. It does not rely on earlier
//! decisions: a pack leaves the index only if each needed blob in it lies in a pack that stays.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::{PruneError, PruneReport, catalogue::Catalogue, decide::COPIES_FEW, usage::Used};
use crate::{
    format::{
        index_file::{IndexFile, IndexPack, MarkedPack},
        pack::{PackedBlob, pack_bytes},
        time::Timestamp,
    },
    id::{IndexId, PackId},
    immutable,
    index::Index,
    packer::INDEX_BLOBS_MAX,
    repository::Repository,
    run::Run,
    storage::{File, FileKind},
};

/// Packs that are deleted between two looks at the own lock: seconds, in far stores.
const DELETIONS_UNLOOKED: usize = 256;

type Packs = HashSet<PackId, RandomState>;

/// What is to be done.
pub(super) struct Commit {
    /// Index files that are replaced.
    replaced: Vec<IndexId>,
    /// Packs that the new files list.
    packs: Vec<IndexPack>,
    /// Marks that stay and stand in replaced files, and new ones.
    marks: Vec<MarkedPack>,
    /// Packs that are marked now, with their sizes.
    marked: Vec<(PackId, u64)>,
    /// Among them, such as no index had listed.
    unindexed: Vec<(PackId, u64)>,
    /// Packs that are put back.
    recovered: Vec<(PackId, u64)>,
    /// Marked packs that are deleted now.
    due: Vec<(PackId, u64)>,
    /// Marked packs that go on waiting.
    waiting: Vec<(PackId, u64)>,
    /// Among them, those that the store holds.
    held: Vec<(PackId, u64)>,
}

impl Commit {
    pub(super) fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.marks.is_empty() && self.due.is_empty()
    }

    /// Lets packs wait on that the store holds: their marks stay, and a later prune looks again.
    pub(super) fn keep_held(
        &mut self,
        repository: &Repository,
        now: Timestamp,
        run: &Run,
    ) -> Result<(), PruneError> {
        let files = self.due.iter().map(|(pack, _)| File::Pack(*pack)).collect();
        let held = immutable::held(repository, files, now, run)?;
        let is_held = |(pack, _): &(PackId, u64)| held.contains_key(&File::Pack(*pack));
        self.held.extend(self.due.extract_if(.., |pack| is_held(pack)));
        self.waiting.extend(&self.held);
        Ok(())
    }

    pub(super) fn tell(&self, report: &mut PruneReport, written: bool) {
        let lists = [
            (&self.marked, &mut report.marked),
            (&self.unindexed, &mut report.unindexed),
            (&self.recovered, &mut report.recovered),
            (&self.due, &mut report.deleted),
            (&self.waiting, &mut report.waiting),
            (&self.held, &mut report.held),
        ];
        for (packs, amount) in lists {
            packs.iter().for_each(|(_, bytes)| amount.add(*bytes));
        }
        if written {
            let files = self.index_files().len() as u64;
            report.index_files = (files, self.replaced.len() as u64);
        }
    }

    /// The new index files, each of a bounded number of blobs.
    fn index_files(&self) -> Vec<IndexFile> {
        let mut files = vec![IndexFile::default()];
        let mut blobs = 0;
        let mut room_for = |files: &mut Vec<IndexFile>, more: usize| {
            if blobs > 0 && blobs + more > INDEX_BLOBS_MAX {
                files.push(IndexFile::default());
                blobs = 0;
            }
            blobs += more.max(1);
        };
        for pack in &self.packs {
            room_for(&mut files, pack.blobs.len());
            files.last_mut().expect("there is one").packs.push(pack.clone());
        }
        for mark in &self.marks {
            room_for(&mut files, mark.blobs.len());
            files.last_mut().expect("there is one").packs_to_delete.push(mark.clone());
        }
        files.retain(|file| !file.packs.is_empty() || !file.packs_to_delete.is_empty());
        files
    }
}

/// Decides what to write and delete. `planned` are the packs that shall leave the index, unless it
/// turns out that they are needed; `on_paper` those among them that a dry run does not repack.
pub(super) fn plan(
    catalogue: &Catalogue,
    index: &Index,
    used: &Used,
    planned: Packs,
    on_paper: &Packs,
    now: Timestamp,
    grace: std::time::Duration,
) -> Commit {
    let leaving = confirm(catalogue, index, used, planned, on_paper);
    let fate = |mark: &MarkedPack| fate_of(catalogue, index, &leaving, mark);
    let is_replaced = |file: &super::catalogue::Listing| {
        let drops =
            |pack: &PackId| catalogue.marks.get(pack).is_none_or(|mark| fate(mark) != Fate::Stays);
        file.packs.iter().any(|pack| leaving.contains(pack)) || file.marks.iter().any(drops)
    };
    let (replaced, staying): (Vec<_>, Vec<_>) =
        catalogue.files.iter().partition(|file| is_replaced(file));
    let size = |pack: PackId| (pack, catalogue.sizes.get(&pack).copied().unwrap_or_default());
    let mut commit = Commit {
        replaced: replaced.iter().map(|file| file.id).collect(),
        packs: Vec::new(),
        marks: Vec::new(),
        marked: Vec::new(),
        unindexed: Vec::new(),
        recovered: sorted(&catalogue.recovered).into_iter().map(size).collect(),
        due: Vec::new(),
        waiting: Vec::new(),
        held: Vec::new(),
    };
    let listed_elsewhere: Packs = staying.iter().flat_map(|file| &file.packs).copied().collect();
    let mut to_list: Packs = replaced.iter().flat_map(|file| &file.packs).copied().collect();
    to_list.extend(&catalogue.recovered);
    to_list.retain(|pack| !leaving.contains(pack) && !listed_elsewhere.contains(pack));
    commit.packs = sorted(&to_list).into_iter().map(|pack| listing_of(index, pack)).collect();

    let in_replaced: Packs = replaced.iter().flat_map(|file| &file.marks).copied().collect();
    let mut old_marks: Vec<&MarkedPack> = catalogue.marks.values().collect();
    old_marks.sort_unstable_by_key(|mark| mark.id);
    for mark in old_marks.into_iter().filter(|mark| fate(mark) == Fate::Stays) {
        if in_replaced.contains(&mark.id) {
            commit.marks.push(mark.clone());
        }
        let list = if is_due(mark, now, grace) { &mut commit.due } else { &mut commit.waiting };
        list.push(size(mark.id));
    }
    for mark in new_marks(catalogue, index, &leaving, now) {
        commit.marked.push(size(mark.id));
        if mark.blobs.is_empty() {
            commit.unindexed.push(size(mark.id));
        }
        let list = if is_due(&mark, now, grace) { &mut commit.due } else { &mut commit.waiting };
        list.push(size(mark.id));
        commit.marks.push(mark);
    }
    commit
}

/// The packs of `planned` that may leave: each needed blob in them lies in a pack that stays.
fn confirm(
    catalogue: &Catalogue,
    index: &Index,
    used: &Used,
    planned: Packs,
    on_paper: &Packs,
) -> Packs {
    let mut leaving = planned;
    let mut known: HashMap<PackId, bool, RandomState> = HashMap::default();
    let mut is_whole = |pack: PackId| {
        let look = || catalogue.sizes.get(&pack) == Some(&pack_bytes(&index.pack_blobs(&pack)));
        *known.entry(pack).or_insert_with(look)
    };
    // Of what lies in many places, what stays somewhere: packs leave `leaving`, and none comes into
    // it. An index may claim a blob for any number of packs.
    let mut staying: HashSet<_, RandomState> = HashSet::default();
    for pack in sorted(&leaving) {
        if on_paper.contains(&pack) {
            continue;
        }
        let mut stays_elsewhere = |blob: &PackedBlob| {
            let places = || index.find_all(blob.kind, blob.id).map(|location| location.pack);
            let key = (blob.kind, blob.id);
            let stays = staying.contains(&key)
                || places().any(|other| !leaving.contains(&other) && is_whole(other));
            if stays && places().nth(COPIES_FEW).is_some() {
                staying.insert(key);
            }
            stays
        };
        let blobs = index.pack_blobs(&pack);
        let mut needed = blobs.iter().filter(|blob| used.needs(index, blob.kind, blob.id));
        if !needed.all(&mut stays_elsewhere) {
            leaving.remove(&pack);
        }
    }
    leaving
}

/// What becomes of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    /// The pack is in use again, is marked anew, or is gone.
    Goes,
}

fn fate_of(catalogue: &Catalogue, index: &Index, leaving: &Packs, mark: &MarkedPack) -> Fate {
    let is_there = catalogue.sizes.contains_key(&mark.id);
    let is_listed = index.has_pack(&mark.id) || leaving.contains(&mark.id);
    match is_there && !is_listed && mark.time.is_some() {
        true => Fate::Stays,
        false => Fate::Goes,
    }
}

fn is_due(mark: &MarkedPack, now: Timestamp, grace: std::time::Duration) -> bool {
    let grace = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    mark.time.is_some_and(|time| now.seconds().saturating_sub(time.seconds()) >= grace)
}

/// Marks for packs that leave the index, for packs that no index lists, and for those that were
/// marked without a time. What is not there needs no mark.
fn new_marks(
    catalogue: &Catalogue,
    index: &Index,
    leaving: &Packs,
    now: Timestamp,
) -> Vec<MarkedPack> {
    let mut there: Vec<(PackId, u64)> =
        catalogue.sizes.iter().map(|(&pack, &size)| (pack, size)).collect();
    there.sort_unstable();
    let mut marks = Vec::new();
    for (id, size) in there {
        let is_marked = catalogue.marks.get(&id).is_some_and(|mark| mark.time.is_some());
        let is_listed = index.has_pack(&id);
        let blobs = match (leaving.contains(&id), is_listed, is_marked) {
            (true, ..) => listing_of(index, id).blobs,
            (false, false, false) => {
                catalogue.marks.get(&id).map(|mark| mark.blobs.clone()).unwrap_or_default()
            }
            _ => continue,
        };
        marks.push(MarkedPack { id, blobs, time: Some(now), size: Some(size) });
    }
    marks
}

fn listing_of(index: &Index, id: PackId) -> IndexPack {
    let mut blobs = index.pack_blobs(&id);
    blobs.sort_unstable_by_key(|blob| blob.offset);
    blobs.dedup();
    IndexPack { id, blobs: blobs.into_iter().map(Into::into).collect() }
}

fn sorted(packs: &Packs) -> Vec<PackId> {
    let mut packs: Vec<PackId> = packs.iter().copied().collect();
    packs.sort_unstable();
    packs
}

/// Writes the new index files, and then deletes those that they replace.
pub(super) fn write(repository: &Repository, commit: &Commit, run: &Run) -> Result<(), PruneError> {
    let mut written = HashMap::<IndexId, (), RandomState>::default();
    for file in commit.index_files() {
        run.cancel.check_condition()?;
        written.insert(repository.save_unpacked(File::Index, &file)?, ());
    }
    run.cancel.check_condition()?;
    let replaced = commit.replaced.iter().filter(|id| !written.contains_key(id));
    delete(repository, replaced.map(|id| File::Index(*id)))
}

/// Deletes the packs that are due. The caller holds a lock without a gap since `plan`.
pub(super) fn delete_packs(
    repository: &Repository,
    commit: &Commit,
    run: &Run,
) -> Result<(), PruneError> {
    if commit.due.is_empty() {
        return Ok(());
    }
    // What was deleted before must not come back when what it refers to is gone.
    for kind in [FileKind::Snapshot, FileKind::Index] {
        repository.storage().settle(kind)?;
    }
    run.progress.add_total(commit.due.len() as u64, 0);
    for some in commit.due.chunks(DELETIONS_UNLOOKED) {
        run.cancel.check_condition()?;
        delete(repository, some.iter().map(|(pack, _)| File::Pack(*pack)))?;
        run.progress.add_done(some.len() as u64, 0);
    }
    Ok(())
}

fn delete(repository: &Repository, files: impl Iterator<Item = File>) -> Result<(), PruneError> {
    let files: Vec<File> = files.collect();
    repository.storage().delete_all(&files).into_iter().collect::<Result<(), _>>()?;
    Ok(())
}
