//! What is known to be damaged so far, and which blobs that takes out of reach.
//!
//! One thread owns the findings; the others send it what they see. A file or blob has one
//! entry, however often and by however many stages it is found to be damaged.

use std::{collections::HashMap, error::Error};

use foldhash::fast::RandomState;

use super::report::{CheckReport, Counts, Damage, Hint, Problem, Subject, holds_no_data};
use crate::{
    format::{
        FormatError,
        pack::{BlobKind, pack_bytes},
    },
    id::{BlobId, PackId},
    index::{Index, Location},
    repository::ReadError,
    storage::{File, StorageError, StorageProblem},
};

/// Missing blobs and faulty trees beyond this many (of each) are counted and not listed one by
/// one.
const BLOBS_LISTED_MAX: usize = 1000;

/// Sound repositories hold a blob once or twice. Of what lies in more places than this it is
/// remembered whether it can be read, or every lost pack would ask all the others.
const COPIES_FEW: usize = 4;

/// The SHA-256 of nothing.
const EMPTY_DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(super) type Map<K, V> = HashMap<K, V, RandomState>;

/// The number of a damage.
pub(super) type DamageNumber = u32;

/// A fault within a tree that was read: which damage, and which of its entries it concerns.
#[derive(Debug, Clone)]
pub(super) struct TreeFault {
    pub(super) damage: DamageNumber,
    /// The entry's name; `None` when all of the tree is lost.
    pub(super) name: Option<Vec<u8>>,
}

#[derive(Default)]
pub(super) struct Findings {
    damages: Vec<Damage>,
    by_subject: Map<Subject, DamageNumber>,
    pub(super) hints: Vec<Hint>,
    pub(super) counts: Counts,
    /// Packs that were read whole, at the first try, without any damage.
    pub(super) sound: Vec<PackId>,
    /// Packs of which no blob can be read.
    lost_packs: Map<PackId, DamageNumber>,
    /// Single blobs of packs that cannot be read.
    bad_copies: Map<(PackId, BlobKind, BlobId), DamageNumber>,
    /// Blobs that are in no pack at all.
    missing: Map<(BlobKind, BlobId), DamageNumber>,
    /// Packs that no index lists, and how many of their blobs are needed.
    unindexed: Map<PackId, u64>,
    tree_faults: Map<BlobId, Vec<TreeFault>>,
    /// Packs that were wanted and are archived; whether that was seen now.
    archived: Map<PackId, bool>,
}

impl Findings {
    /// Records a problem. When the subject has one already, the one that says more stays.
    pub(super) fn add(&mut self, subject: Subject, problem: Problem) -> DamageNumber {
        if let Some(&number) = self.by_subject.get(&subject) {
            self.damages[number as usize].problem.merge(problem);
            return number;
        }
        let number = u32::try_from(self.damages.len()).expect("fewer than 2^32 damages");
        self.damages.push(Damage::new(subject, problem));
        self.by_subject.insert(subject, number);
        number
    }

    pub(super) fn damages_mut(&mut self) -> &mut [Damage] {
        &mut self.damages
    }

    pub(super) fn damages(&self) -> &[Damage] {
        &self.damages
    }

    pub(super) fn lose_pack(&mut self, pack: PackId, problem: Problem) {
        let number = self.add(Subject::File(File::Pack(pack)), problem);
        self.lost_packs.insert(pack, number);
    }

    /// Records that a pack cannot be read before it is brought back: nobody knows more of it.
    pub(super) fn archive(&mut self, pack: PackId) {
        self.archived.insert(pack, true);
    }

    /// Records that a pack was archived when somebody wanted it last, and was not looked at now.
    pub(super) fn leave_archived(&mut self, pack: PackId) {
        self.archived.entry(pack).or_insert(false);
    }

    pub(super) fn has_archived(&self) -> bool {
        !self.archived.is_empty()
    }

    pub(super) fn is_lost(&self, pack: &PackId) -> bool {
        self.lost_packs.contains_key(pack)
    }

    /// Records that a blob cannot be read from one of the packs that hold it.
    pub(super) fn lose_copy(&mut self, pack: PackId, kind: BlobKind, id: BlobId, problem: Problem) {
        if self.is_lost(&pack) || self.bad_copies.contains_key(&(pack, kind, id)) {
            return;
        }
        let number = self.add(Subject::File(File::Pack(pack)), problem);
        self.bad_copies.insert((pack, kind, id), number);
    }

    pub(super) fn miss_blob(&mut self, kind: BlobKind, id: BlobId) {
        if self.missing.contains_key(&(kind, id)) {
            return;
        }
        let number = match self.missing.len() < BLOBS_LISTED_MAX {
            true => self.add(Subject::Blob(kind, id), Problem::NotIndexed),
            false => self.add(Subject::MoreBlobs, Problem::Many { count: 1 }),
        };
        self.missing.insert((kind, id), number);
    }

    pub(super) fn add_unindexed(&mut self, pack: PackId) {
        self.unindexed.insert(pack, 0);
    }

    pub(super) fn is_unindexed(&self, pack: &PackId) -> bool {
        self.unindexed.contains_key(pack)
    }

    /// The packs that no index lists and that hold nothing a snapshot needs.
    pub(super) fn superfluous_packs(&self) -> impl Iterator<Item = PackId> + '_ {
        self.unindexed.iter().filter(|&(_, needed)| *needed == 0).map(|(pack, _)| *pack)
    }

    /// Records that snapshots need a blob that only packs outside every index hold.
    pub(super) fn need_unindexed(&mut self, pack: PackId) {
        *self.unindexed.entry(pack).or_default() += 1;
    }

    /// Blames the packs that are needed and not indexed, unless a damaged index file explains
    /// why they are not.
    pub(super) fn blame_unindexed(&mut self) {
        if self.damaged_indexes().next().is_some() {
            return;
        }
        let needed: Vec<_> = self.unindexed.iter().map(|(&pack, &blobs)| (pack, blobs)).collect();
        for (pack, blobs_needed) in needed.into_iter().filter(|&(_, blobs)| blobs > 0) {
            self.add(Subject::File(File::Pack(pack)), Problem::PackNotIndexed { blobs_needed });
        }
    }

    fn damaged_indexes(&self) -> impl Iterator<Item = DamageNumber> + '_ {
        let is_index = |subject: &Subject| matches!(subject, Subject::File(File::Index(_)));
        self.by_subject.iter().filter(move |(subject, _)| is_index(subject)).map(|(_, &n)| n)
    }

    pub(super) fn fault_tree(&mut self, tree: BlobId, name: Option<Vec<u8>>, problem: Problem) {
        let subject = Subject::Blob(BlobKind::Tree, tree);
        let listed =
            self.tree_faults.len() < BLOBS_LISTED_MAX || self.by_subject.contains_key(&subject);
        let damage = match listed {
            true => self.add(subject, problem),
            false => self.add(Subject::MoreBlobs, Problem::Many { count: 1 }),
        };
        self.tree_faults.entry(tree).or_default().push(TreeFault { damage, name });
    }

    pub(super) fn tree_faults(&self, tree: &BlobId) -> &[TreeFault] {
        self.tree_faults.get(tree).map_or(&[], Vec::as_slice)
    }

    /// Whether any damage takes something from a snapshot's trees.
    pub(super) fn touches_trees(&self) -> bool {
        let copies = self.lost_packs.len() + self.bad_copies.len() + self.missing.len();
        copies + self.tree_faults.len() > 0 || self.unindexed.values().any(|&needed| needed > 0)
    }

    /// The damages that keep restores from reading a blob; none when a sound copy is left.
    pub(super) fn reasons(&self, index: &Index, kind: BlobKind, id: BlobId) -> Vec<DamageNumber> {
        let mut reasons = Vec::new();
        for copy in index.find_all(kind, id) {
            match self.damage_of(&copy) {
                Some(damage) => reasons.push(damage),
                None if self.is_unindexed(&copy.pack) => {
                    reasons.extend(self.by_subject.get(&Subject::File(File::Pack(copy.pack))));
                    reasons.extend(self.damaged_indexes());
                }
                None => return Vec::new(),
            }
        }
        reasons.extend(self.missing.get(&(kind, id)));
        reasons
    }

    fn damage_of(&self, copy: &Location) -> Option<DamageNumber> {
        let single = || self.bad_copies.get(&(copy.pack, copy.blob.kind, copy.blob.id));
        self.lost_packs.get(&copy.pack).or_else(single).copied()
    }

    /// Decides for each damage whether all that it concerns can still be read.
    fn settle_recoverable(&mut self, index: &Index) {
        let nothing_missing = self.missing.is_empty();
        let mut widespread: Map<(BlobKind, BlobId), bool> = Map::default();
        let mut readable = |id: BlobId, kind| {
            let is_sound = |copy: Location| self.damage_of(&copy).is_none();
            let mut copies = index.find_all(kind, id);
            if copies.by_ref().take(COPIES_FEW).any(is_sound) {
                return true;
            }
            let Some(next) = copies.next() else { return false };
            *widespread.entry((kind, id)).or_insert_with(|| is_sound(next) || copies.any(is_sound))
        };
        let recoverable: Vec<bool> = self
            .damages
            .iter()
            .map(|damage| match (damage.subject, &damage.problem) {
                (_, Problem::PackNotIndexed { .. }) => true,
                (Subject::File(File::Index(_)), _) => nothing_missing,
                (Subject::File(File::Pack(pack)), _) => {
                    index.pack_blobs(&pack).iter().all(|blob| readable(blob.id, blob.kind))
                }
                (Subject::File(file), _) => holds_no_data(file.kind()),
                _ => false,
            })
            .collect();
        for (damage, recoverable) in self.damages.iter_mut().zip(recoverable) {
            damage.recoverable = recoverable;
        }
    }

    /// Finds out which contents are merely under a wrong name. `has` tells whether the
    /// repository has a file.
    fn settle_swapped(&mut self, has: impl Fn(&File) -> bool) {
        for damage in &mut self.damages {
            let Problem::WrongContent { actual } = &damage.problem else { continue };
            if actual == EMPTY_DIGEST {
                damage.problem = Problem::Empty;
                continue;
            }
            let kinds = crate::storage::FileKind::ALL.into_iter();
            let files = kinds.filter_map(|kind| kind.file(actual));
            if let Some(with) = files.filter(|file| *file != File::Config).find(&has) {
                damage.problem = Problem::Swapped { with };
            }
        }
    }

    /// Ends the check.
    pub(super) fn into_report(mut self, index: &Index, has: impl Fn(&File) -> bool) -> CheckReport {
        self.settle_swapped(has);
        self.settle_recoverable(index);
        self.damages.sort_by_key(|damage| damage.subject);
        let Self { damages, hints, mut counts, sound, archived, .. } = self;
        counts.packs_archived = archived.len() as u64;
        let bytes = archived.keys().map(|pack| pack_bytes(&index.pack_blobs(pack)));
        counts.bytes_archived = bytes.sum();
        let seen = archived.into_iter().filter(|&(_, is_seen)| is_seen).map(|(pack, _)| pack);
        let (archived_packs, sound_packs) = (seen.collect(), sound);
        CheckReport { damages, hints, counts, sound_packs, archived_packs, in_turn: None }
    }
}

impl Problem {
    fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::BlobsDamaged { count, .. }, Self::BlobsDamaged { count: more, .. })
            | (Self::Many { count }, Self::Many { count: more }) => {
                *count += more;
            }
            (this, other) if other.rank() > this.rank() => *this = other,
            _ => {}
        }
    }

    /// What a format error says about the file it was found in.
    pub(super) fn of_format(error: &FormatError) -> Self {
        match error {
            FormatError::WrongHash { actual } => Self::WrongContent { actual: actual.clone() },
            other => Self::Invalid { reason: explain(other) },
        }
    }

    /// What a store's error says about the file that was wanted.
    pub(super) fn of_storage(error: &StorageError) -> Self {
        match error.problem() {
            StorageProblem::NotFound => Self::Missing,
            _ => Self::Unreadable { reason: explain(error) },
        }
    }

    /// The same of a file that every command needs; an error that tells of the store, or that the file
    /// is archived, ends the check.
    pub(super) fn of_small_file(error: StorageError) -> Result<Self, StorageError> {
        match error.problem() {
            StorageProblem::Archived => Err(error),
            problem if problem.is_of_store() => Err(error),
            _ => Ok(Self::of_storage(&error)),
        }
    }

    /// What an error in reading a blob says about the pack it lies in.
    pub(super) fn of_blob(error: &ReadError) -> Self {
        match error {
            ReadError::Storage(error) => Self::of_storage(error),
            other => {
                Self::BlobsDamaged { count: 1, first: format!("failed to {}", explain(other)) }
            }
        }
    }
}

/// Longest text that is taken over from what was read, in characters: names in a tree can be
/// of any length.
const SHOWN_MAX: usize = 400;

/// Text that was read, fit for a terminal: one line, not too long, without control characters.
pub(super) fn shown(text: &str) -> String {
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut shown: String = text.chars().take(SHOWN_MAX).map(visible).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// An error with its causes, in one line.
pub(super) fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    shown(&text)
}
