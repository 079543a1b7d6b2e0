//! What a check found.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use muster_model::units::{agree, counted, format_size};

use crate::{
    format::pack::BlobKind,
    id::{BlobId, PackId, SnapshotId},
    storage::{File, FileKind},
};

/// Everything that a check found.
#[must_use = "an unread report is not actionable"]
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// What is damaged, one entry for each file or blob, in the order of their names.
    pub damages: Vec<Damage>,
    /// What is unusual and harms nothing.
    pub hints: Vec<Hint>,
    /// What was looked at.
    pub counts: Counts,
    /// The packs that were read back whole and are sound.
    pub sound_packs: Vec<PackId>,
    /// The packs that could not be read back, since they are archived.
    pub archived_packs: Vec<PackId>,
    /// What reading in turn has come to; `None` when data was not read in turn.
    pub in_turn: Option<InTurn>,
}

/// What reading in turn has come to, damaged packs aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InTurn {
    /// All packs that snapshots may need.
    pub packs: Vec<PackId>,
    /// Their size.
    pub bytes: u64,
    /// How many of them were never found sound.
    pub never_read: u64,
    /// When the one was found sound whose turn is the longest ago, in Unix seconds.
    pub oldest: Option<i64>,
}

impl CheckReport {
    /// Whether nothing is damaged. Hints do not count.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damages.is_empty()
    }

    /// The snapshots that lose something, each once, in the order of their ids.
    #[must_use]
    pub fn affected_snapshots(&self) -> Vec<SnapshotId> {
        let mut ids: Vec<_> =
            self.damages.iter().flat_map(|damage| damage.snapshots.iter().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The packs that are damaged or missing.
    pub fn broken_packs(&self) -> impl Iterator<Item = PackId> + '_ {
        self.damages.iter().filter_map(|damage| match (damage.subject, &damage.problem) {
            (_, Problem::PackNotIndexed { .. }) => None,
            (Subject::File(File::Pack(pack)), _) => Some(pack),
            _ => None,
        })
    }

    /// Whether `repair index` would bring something back.
    #[must_use]
    pub fn suggests_repair_index(&self) -> bool {
        self.damages.iter().any(|damage| {
            matches!(
                (damage.subject, &damage.problem),
                (Subject::File(File::Index(_)), _)
                    | (
                        _,
                        Problem::PackNotIndexed { .. }
                            | Problem::ImpossibleLayout { .. }
                            | Problem::HeaderDisagrees { .. }
                    )
            )
        })
    }

    /// Whether a prune would free space or tidy up.
    #[must_use]
    pub fn suggests_prune(&self) -> bool {
        self.hints.iter().any(|hint| {
            let harmless = [HintKind::DuplicateBlobs, HintKind::UnindexedPacks];
            harmless.contains(&hint.kind())
        })
    }
}

/// Written as restic writes the summary of its check, with Muster's own fields added.
impl Serialize for CheckReport {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut report = to.serialize_struct("CheckReport", 9)?;
        report.serialize_field("message_type", "summary")?;
        report.serialize_field("num_errors", &self.damages.len())?;
        report.serialize_field("broken_packs", &self.broken_packs().collect::<Vec<_>>())?;
        report.serialize_field("suggest_repair_index", &self.suggests_repair_index())?;
        report.serialize_field("suggest_prune", &self.suggests_prune())?;
        report.serialize_field("damages", &self.damages)?;
        report.serialize_field("hints", &self.hints)?;
        report.serialize_field("affected_snapshots", &self.affected_snapshots())?;
        report.serialize_field("counts", &self.counts)?;
        report.end()
    }
}

/// How many things were looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Key files.
    pub keys: u64,
    /// Lock files.
    pub locks: u64,
    /// Snapshot files.
    pub snapshots: u64,
    /// Index files.
    pub indexes: u64,
    /// Packs that an index lists.
    pub packs: u64,
    /// Blobs that an index lists, each copy counted.
    pub blobs: u64,
    /// Trees that snapshots reach, each once.
    pub trees: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Bytes of the packs that were read whole.
    pub bytes_read: u64,
    /// Packs that were to be read and were not, since the time for it was over.
    pub packs_due: u64,
    /// Bytes of these.
    pub bytes_due: u64,
    /// Packs that were to be read and are archived, also those that were when they were tried last
    /// and had no turn now.
    pub packs_archived: u64,
    /// Bytes of these.
    pub bytes_archived: u64,
    /// Folders that lie in such a pack: neither they nor what is below them was looked at.
    pub trees_archived: u64,
}

/// One thing that is not what it should be, and what that costs.
#[derive(Debug, Clone)]
pub struct Damage {
    /// What is damaged.
    pub subject: Subject,
    /// What is wrong with it.
    pub problem: Problem,
    /// Whether all that snapshots could want of it can still be read, from here or elsewhere.
    pub recoverable: bool,
    /// The snapshots that lose something by it, newest first.
    pub snapshots: Vec<SnapshotId>,
    /// Some of the paths that lose something by it, in the snapshots' own terms; a folder's
    /// ends in `/`.
    pub files: Vec<String>,
    /// How many such paths there are. Folders that cannot be read count as one each.
    pub files_total: u64,
}

impl Damage {
    pub(super) fn new(subject: Subject, problem: Problem) -> Self {
        let (snapshots, files) = (Vec::new(), Vec::new());
        Self { subject, problem, recoverable: false, snapshots, files, files_total: 0 }
    }

    /// The next step.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match (self.subject, &self.problem) {
            (_, Problem::PackNotIndexed { .. }) => {
                "the data is there: 'muster repo repair index' puts it back into the index, and \
                 so does the next 'muster repo backup' while nobody else is at work"
            }
            (Subject::File(File::Lock(_)), _) => {
                "if nobody works in the repository, run 'muster repo unlock --remove-all'"
            }
            (Subject::File(File::Snapshot(_)), _) => {
                "bring the file back from a copy of the repository; without one this snapshot \
                 is lost, and all others are untouched by it. 'muster repo repair snapshots' \
                 stores it anew if it only lies under a wrong name"
            }
            (Subject::File(File::Key(_)), _) => {
                "bring the file back from a copy of the repository, or remove it: the data can \
                 be read with another key"
            }
            (Subject::File(File::Index(_)), _) if self.recoverable => {
                "rebuild the index from the packs with 'muster repo repair index'"
            }
            (_, Problem::HeaderDisagrees { .. } | Problem::ImpossibleLayout { .. })
                if self.recoverable =>
            {
                "rebuild the index from the packs with 'muster repo repair index'"
            }
            (_, Problem::Swapped { .. }) => {
                "its own content may lie under the other name: 'muster repo repair' finds it \
                 there (packs by both ids, index, snapshots)"
            }
            (Subject::File(File::Pack(_)), _) if self.recoverable => {
                "nothing is lost: what it holds can still be read. 'muster repo repair packs' \
                 with its id puts it into a new pack"
            }
            (Subject::File(File::Pack(_)), _) if self.snapshots.is_empty() => {
                "no snapshot that could be read needs it"
            }
            (_, Problem::SizesDisagree { .. }) => {
                "the file changed while it was backed up, or the tool that did it has a fault: \
                 restore the file and look at it"
            }
            _ => {
                "keep the repository as it is and bring the file back from a copy of it. \
                 Without a copy: 'muster repo repair packs' with its id, 'repair index', a full \
                 backup, which stores again what is still at its source, 'repair snapshots'"
            }
        }
    }
}

/// One line: what, and what is wrong.
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.problem)
    }
}

impl Serialize for Damage {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut damage = to.serialize_struct("Damage", 9)?;
        damage.serialize_field("subject", &self.subject.to_string())?;
        damage.serialize_field("kind", self.subject.noun())?;
        damage.serialize_field("code", self.problem.word())?;
        damage.serialize_field("message", &self.problem.to_string())?;
        damage.serialize_field("recoverable", &self.recoverable)?;
        damage.serialize_field("snapshots", &self.snapshots)?;
        damage.serialize_field("files", &self.files)?;
        damage.serialize_field("files_total", &self.files_total)?;
        damage.serialize_field("help", self.help())?;
        damage.end()
    }
}

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A file of the repository.
    File(File),
    /// A blob, as far as no file can be blamed.
    Blob(BlobKind, BlobId),
    /// Blobs beyond those that are listed one by one.
    MoreBlobs,
}

impl Subject {
    fn noun(&self) -> &'static str {
        match self {
            Self::File(file) => file.kind().noun(),
            Self::Blob(BlobKind::Data, _) => "data blob",
            Self::Blob(BlobKind::Tree, _) => "tree blob",
            Self::MoreBlobs => "blobs",
        }
    }
}

/// The file's path below the repository, or the blob's kind and id.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.fmt(f),
            Self::Blob(kind, id) => write!(f, "{} blob {id}", kind.as_str()),
            Self::MoreBlobs => f.write_str("more blobs"),
        }
    }
}

/// What is wrong with a file or blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The file is not there.
    Missing,
    /// The store cannot read the file.
    Unreadable {
        /// What the store says.
        reason: String,
    },
    /// The file is there and empty.
    Empty,
    /// The pack has another size than the index accounts for. In bytes.
    WrongSize {
        /// The size it has.
        actual: u64,
        /// The size it should have.
        expected: u64,
    },
    /// The content is not what the name says.
    WrongContent {
        /// SHA-256 of the content, in hexadecimal.
        actual: String,
    },
    /// The content is that of another file of the repository.
    Swapped {
        /// The file whose content this is.
        with: File,
    },
    /// The content is what the name says, or has no such name, and cannot be understood.
    Invalid {
        /// What could not be done, fit to stand after "failed to".
        reason: String,
    },
    /// What the index says of the pack cannot be: blobs overlap or leave gaps.
    ImpossibleLayout {
        /// Where.
        reason: String,
    },
    /// The pack is what its name says, and lists other blobs than the index.
    HeaderDisagrees {
        /// How they differ.
        reason: String,
    },
    /// Some blobs of the pack are not what their ids say. The pack was not read whole.
    BlobsDamaged {
        /// How many were found so far.
        count: u64,
        /// What is wrong with the first of them.
        first: String,
    },
    /// The blob is what its id says, and is no valid tree.
    InvalidTree {
        /// What could not be done, fit to stand after "failed to".
        reason: String,
    },
    /// A file's size is not the sum of its chunks' lengths. In bytes.
    SizesDisagree {
        /// The file's name in this tree.
        name: String,
        /// The size that the tree records.
        size: u64,
        /// What the chunks add up to.
        content: u64,
    },
    /// Snapshots need the blob, and no index lists it.
    NotIndexed,
    /// As [`Problem::NotIndexed`] or a faulty tree, for many blobs.
    Many {
        /// How many.
        count: u64,
    },
    /// Snapshots need blobs of this pack, and no index lists it: an index file is gone.
    PackNotIndexed {
        /// How many blobs they need.
        blobs_needed: u64,
    },
}

impl Problem {
    /// A stable word in kebab case, `code` in JSON. `docs/reference/damage.md` explains them.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable { .. } => "unreadable",
            Self::Empty => "empty",
            Self::WrongSize { actual, expected } if actual < expected => "truncated",
            Self::WrongSize { .. } => "too-long",
            Self::WrongContent { .. } => "wrong-content",
            Self::Swapped { .. } => "swapped",
            Self::Invalid { .. } => "invalid",
            Self::ImpossibleLayout { .. } => "impossible-layout",
            Self::HeaderDisagrees { .. } => "header-disagrees",
            Self::BlobsDamaged { .. } => "blobs-damaged",
            Self::InvalidTree { .. } => "invalid-tree",
            Self::SizesDisagree { .. } => "sizes-disagree",
            Self::NotIndexed => "blob-missing",
            Self::Many { .. } => "more-blobs",
            Self::PackNotIndexed { .. } => "pack-not-indexed",
        }
    }

    /// Of two problems of one thing, the one with the higher rank says more and is reported.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Swapped { .. } => 9,
            Self::Missing => 8,
            Self::ImpossibleLayout { .. } => 7,
            Self::Empty => 6,
            Self::WrongSize { .. } => 5,
            Self::WrongContent { .. } => 4,
            Self::Unreadable { .. } => 3,
            Self::HeaderDisagrees { .. } => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Unreadable { reason } => write!(f, "cannot be read: {reason}"),
            Self::Empty => f.write_str("empty: has 0 bytes"),
            Self::WrongSize { actual, expected } => {
                let what = if actual < expected { "truncated" } else { "too long" };
                write!(f, "{what}: has {actual} bytes, should be {expected}")
            }
            Self::WrongContent { actual } => {
                write!(f, "damaged: its name is not the SHA-256 of its content, which is {actual}")
            }
            Self::Swapped { with } => write!(f, "swapped with {with}: holds that file's content"),
            Self::Invalid { reason } => write!(f, "not sound: failed to {reason}"),
            Self::ImpossibleLayout { reason } => write!(f, "cannot be as the index says: {reason}"),
            Self::HeaderDisagrees { reason } => {
                write!(f, "its header disagrees with the index: {reason}")
            }
            Self::BlobsDamaged { count: 1, first } => write!(f, "a blob in it is damaged: {first}"),
            Self::BlobsDamaged { count, first } => {
                write!(f, "{count} blobs in it are damaged; the first: {first}")
            }
            Self::InvalidTree { reason } => write!(f, "no valid tree: failed to {reason}"),
            Self::SizesDisagree { name, size, content } => {
                write!(f, "the size of '{name}' is {size} bytes, its chunks hold {content}")
            }
            Self::NotIndexed => f.write_str("missing: snapshots need it and no index lists it"),
            Self::Many { count } => {
                let are = agree(*count, "is", "are");
                write!(f, "{count} {are} missing or faulty beyond those that are listed")
            }
            Self::PackNotIndexed { blobs_needed } => write!(
                f,
                "no index lists it, and snapshots need {blobs_needed} of its blobs: an index \
                 file is missing"
            ),
        }
    }
}

/// Something unusual that harms nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Hint {
    /// No index lists these packs and no snapshot needs them: an interrupted backup or prune
    /// left them, or another process is storing them just now.
    UnindexedPacks {
        /// The first of them.
        packs: Vec<PackId>,
        /// How many there are.
        count: u64,
        /// What they take, in bytes.
        bytes: u64,
    },
    /// Blobs that lie in more than one pack.
    DuplicateBlobs {
        /// How many copies are more than needed.
        count: u64,
        /// What these take, in bytes.
        bytes: u64,
    },
    /// Packs that hold both data and trees, as restic wrote them before version 2.
    MixedPacks {
        /// The first of them.
        packs: Vec<PackId>,
        /// How many there are.
        count: u64,
    },
    /// The pack was sound only when it was read a second time.
    SoundOnSecondRead {
        /// The pack.
        pack: PackId,
    },
    /// As [`Problem::SizesDisagree`], in a repository that rustic wrote to: rustic records the
    /// size from before it reads a file.
    SizesDisagree {
        /// The tree.
        tree: BlobId,
        /// The file's name in it.
        name: String,
        /// The size that the tree records.
        size: u64,
        /// What the chunks add up to.
        content: u64,
    },
    /// There is so much damage that the affected snapshots and files are not all listed.
    AffectedIncomplete,
}

/// The kinds of [`Hint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HintKind {
    UnindexedPacks,
    DuplicateBlobs,
    Other,
}

impl Hint {
    fn kind(&self) -> HintKind {
        match self {
            Self::UnindexedPacks { .. } => HintKind::UnindexedPacks,
            Self::DuplicateBlobs { .. } => HintKind::DuplicateBlobs,
            _ => HintKind::Other,
        }
    }

    /// A stable word in kebab case, `code` in JSON. `docs/reference/damage.md` explains them.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::UnindexedPacks { .. } => "unindexed-packs",
            Self::DuplicateBlobs { .. } => "duplicate-blobs",
            Self::MixedPacks { .. } => "mixed-packs",
            Self::SoundOnSecondRead { .. } => "sound-on-second-read",
            Self::SizesDisagree { .. } => "sizes-disagree",
            Self::AffectedIncomplete => "affected-incomplete",
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnindexedPacks { packs, count, bytes } => write!(
                f,
                "packs that no index names and nothing needs ({count}, {} in all): {}",
                format_size(*bytes),
                list(packs, *count)
            ),
            Self::DuplicateBlobs { count, bytes } => {
                let (blobs, are) = (counted(*count, "blob"), agree(*count, "is", "are"));
                let take = agree(*count, "takes", "take");
                write!(f, "{blobs} {are} stored more than once and {take} {bytes} bytes")
            }
            Self::MixedPacks { packs, count } => {
                let (all, hold) = (counted(*count, "pack"), agree(*count, "holds", "hold"));
                write!(f, "{all} {hold} both data and trees: {}", list(packs, *count))
            }
            Self::SoundOnSecondRead { pack } => write!(
                f,
                "{} was damaged when it was read first and sound the second time: suspect the \
                 memory, the disk or the network",
                File::Pack(*pack)
            ),
            Self::SizesDisagree { tree, name, size, content } => write!(
                f,
                "in tree {tree} the size of '{name}' is {size} bytes and its chunks hold \
                 {content}, as rustic writes when a file changes while it is read"
            ),
            Self::AffectedIncomplete => f.write_str(
                "there is so much damage that not all affected snapshots and files are listed",
            ),
        }
    }
}

fn list(packs: &[PackId], count: u64) -> String {
    let mut text: Vec<_> = packs.iter().map(|&pack| File::Pack(pack).to_string()).collect();
    if count > packs.len() as u64 {
        text.push("…".to_owned());
    }
    text.join(", ")
}

impl Serialize for Hint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut hint = to.serialize_struct("Hint", 2)?;
        hint.serialize_field("code", self.word())?;
        hint.serialize_field("message", &self.to_string())?;
        hint.end()
    }
}

/// Whether losing a file of this kind takes nothing from any snapshot.
pub(super) fn holds_no_data(kind: FileKind) -> bool {
    matches!(kind, FileKind::Key | FileKind::Lock)
}
