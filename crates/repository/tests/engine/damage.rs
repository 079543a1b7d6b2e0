//! The damage matrix: every kind of file, damaged in every way, and what is said about it.
//!
//! A small repository of two snapshots is made once, in memory. Each case damages a copy of
//! it, opens it, and checks it. What comes out is asserted here and written down in
//! `docs/reference/damage.md`, which must not differ from what this test finds.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, sync::Arc};

use muster_model::{Class, Fault};
use muster_repository::{
    backup::BackupOptions,
    check::{CheckOptions, CheckReport, Damage, ReadData, Subject, check},
    environment::Environment,
    format::{
        config::Version,
        key_file::{Cost, KeyFile},
        lock_file::LockFile,
        pack::BlobKind,
    },
    id::{BlobId, KeyId, PackId, SnapshotId},
    repository::{InitOptions, ReadError, Repository},
    run::Run,
    storage::{File, FileKind, memory::MemoryStorage},
};

use crate::{
    common::{PASSWORD, Sandbox, backup},
    mend::{Left, check_all, left_of, mend},
};

const DOCUMENT: &str = "docs/reference/damage.md";

const INTRODUCTION: &str = "\
# Damage: what is found, and by what

Written by `crates/repository/tests/engine/damage.rs`, which makes a repository of two snapshots, \
damages one file of it at a time, opens it, checks it, mends it and checks it again. `MUSTER_BLESS=1 cargo test -p \
muster-repository --test engine damage` writes this page anew.

\"Found by\" names the cheapest that finds it: opening the repository (every command does), \
`muster repo check`, or `muster repo check --read-data`. The exit code is that of the command. \
\"Snapshots\" are those that the report names as losing something: *its own* means those which \
need the file, *both* those which need one of the two that were swapped, *all* that none can be \
read.

\"Mended by\" are the commands that bring the repository to where `check --read-data` finds nothing, in \
their order, as the test ran them; *a copy* stands where the file has to come from a copy of the repository. \
\"Left\" is what can be restored afterwards, read back to the last byte: of the snapshot that needs the file, \
and of the other one. *In part* means without what the file held, marked with the tag `repaired`; a full \
backup before `repair snapshots` puts back what is still at its source.

Some losses leave no trace in the format, and are not damage but something that people do on \
purpose: nothing refers to snapshots, keys and locks. Keep a list of them elsewhere if you \
need to notice.

";

const WORDS: &str = "
## Codes of a check

They stand in `code` of each entry of `damages` and `hints` that `muster repo check --json` \
prints. Codes of failures to open have pages of their own in `docs/errors`.

| code | what is wrong |
|---|---|
| `missing` | an index lists the pack and it is not there |
| `unreadable` | the store fails to read the file: permissions, a bad sector, a network |
| `empty` | the file is there and has 0 bytes |
| `truncated`, `too-long` | the pack's size is not what its blobs, header and length field add up to |
| `wrong-content` | the file's name is not the SHA-256 of its content |
| `swapped` | the file holds the content of another file of the repository |
| `invalid` | the content is what the name says and cannot be understood |
| `impossible-layout` | by the index, the pack's blobs overlap or leave gaps |
| `header-disagrees` | the pack is what its name says and lists other blobs than the index |
| `blobs-damaged` | blobs of the pack are not what their ids say; the pack was not read whole |
| `invalid-tree` | the blob is what its id says and is no valid tree |
| `sizes-disagree` | a file's size is not the sum of its chunks' lengths (a hint where rustic wrote: it \
records the size from before it reads) |
| `blob-missing` | snapshots need the blob and no index lists it |
| `pack-not-indexed` | snapshots need the pack's blobs and no index lists it |
| `more-blobs` | a count of missing blobs and faulty trees beyond those that are listed |
| `unindexed-packs` (hint) | no index lists these packs and nothing needs them |
| `duplicate-blobs` (hint) | blobs are stored more than once |
| `mixed-packs` (hint) | packs hold both data and trees, as old versions of restic wrote them |
| `sound-on-second-read` (hint) | a pack was damaged when it was read first and sound when it was \
read again |
| `affected-incomplete` (hint) | there is too much damage to name everything that is affected |
";

/// The files of a small repository and what is in them.
struct Base {
    files: BTreeMap<File, Vec<u8>>,
    /// Per snapshot, in order of time.
    snapshots: [Parts; 2],
    keys: [KeyId; 2],
    locks: Vec<File>,
}

/// What belongs to one snapshot alone.
#[derive(Clone)]
struct Parts {
    id: SnapshotId,
    index: File,
    data: File,
    tree: File,
}

/// `bytes` bytes that do not compress.
fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let mut noise = Vec::new();
    for n in 0.. {
        if noise.len() >= bytes {
            break;
        }
        noise.extend_from_slice(BlobId::of(format!("{seed} {n}").as_bytes()).as_bytes());
    }
    noise.truncate(bytes);
    noise
}

fn init(password: &str) -> anyhow::Result<(Arc<MemoryStorage>, Repository)> {
    let storage = Arc::new(MemoryStorage::new());
    let author = Environment::detect().author();
    let (version, cost) = (Version::V2, Cost::FOR_TESTS);
    let options = InitOptions { version, polynomial: None, cost, author };
    let repository = Repository::init(storage.clone(), password.as_bytes(), options)?;
    Ok((storage, repository))
}

impl Base {
    /// Two snapshots, each with one file of so many bytes that only it has.
    fn new(data_bytes: [usize; 2]) -> anyhow::Result<Self> {
        loop {
            let base = Self::attempt(data_bytes)?;
            // Which trees share a pack is left to chance, and what is said of two swapped
            // packs depends on whether they are equally long.
            let tree_bytes = base.snapshots.each_ref().map(|parts| base.files[&parts.tree].len());
            if tree_bytes[0] != tree_bytes[1] {
                return Ok(base);
            }
        }
    }

    fn attempt(data_bytes: [usize; 2]) -> anyhow::Result<Self> {
        let (storage, repository) = init(PASSWORD)?;
        let sandbox = Sandbox::new("damage")?;
        let mut made = Vec::new();
        for (name, bytes) in ["first", "second"].into_iter().zip(data_bytes) {
            let source = sandbox.folder(name)?;
            let content = noise(name, bytes);
            std::fs::write(source.join("noise"), &content)?;
            let report = backup(&repository, BackupOptions::new(vec![source]))?;
            made.push((report.id.expect("a snapshot"), report.snapshot.tree, BlobId::of(&content)));
        }
        let environment = Environment::detect();
        let (author, material) = (environment.author(), repository.key().material());
        let second = KeyFile::wrap(material, b"second", Cost::FOR_TESTS, author)?.to_bytes()?;
        let keys = [repository.key_id(), KeyId::of(&second)];
        storage.files().insert(File::Key(keys[1]), second);
        let mut locks = Vec::new();
        for pid in [1, 2] {
            let lock = LockFile {
                time: environment.now(),
                exclusive: false,
                hostname: "elsewhere".to_owned(),
                username: String::new(),
                pid,
                uid: 0,
                gid: 0,
            };
            locks.push(File::Lock(repository.save_unpacked(File::Lock, &lock)?));
        }
        let parts = |&(id, tree, data)| Parts::find(&repository, id, tree, data);
        let snapshots = [parts(&made[0])?, parts(&made[1])?];
        let files = storage.files().clone();
        Ok(Self { files, snapshots, keys, locks })
    }

    /// The file of this kind that is damaged, and the one it is swapped with.
    fn pair(&self, target: Target) -> (File, File) {
        let [first, second] = &self.snapshots;
        let foreign = (File::Config, File::Config);
        match target {
            Target::Config => foreign,
            Target::OnlyKey => (File::Key(self.keys[0]), File::Key(self.keys[0])),
            Target::OneOfTwoKeys => (File::Key(self.keys[1]), File::Key(self.keys[0])),
            Target::Lock => (self.locks[0], self.locks[1]),
            Target::Snapshot => (File::Snapshot(second.id), File::Snapshot(first.id)),
            Target::Index => (second.index, first.index),
            Target::DataPack => (second.data, first.data),
            Target::TreePack => (second.tree, first.tree),
        }
    }
}

impl Parts {
    fn find(
        repository: &Repository,
        id: SnapshotId,
        tree: BlobId,
        data: BlobId,
    ) -> anyhow::Result<Self> {
        let indexed = repository.load_index(&Run::new())?;
        let pack = |kind, blob| {
            indexed.index().find(kind, blob).map(|found| found.pack).expect("an indexed blob")
        };
        let (data, tree) = (pack(BlobKind::Data, data), pack(BlobKind::Tree, tree));
        let index = index_of(repository, data)?;
        assert_eq!(index, index_of(repository, tree)?, "one index file for each backup");
        Ok(Self { id, index, data: File::Pack(data), tree: File::Pack(tree) })
    }
}

fn index_of(repository: &Repository, pack: PackId) -> anyhow::Result<File> {
    let mut found = None;
    repository.for_each_index_file(&Run::new(), |file, content| {
        if content?.packs.iter().any(|listed| listed.id == pack) {
            found = Some(file);
        }
        Ok::<_, ReadError>(())
    })?;
    Ok(found.expect("an index file that lists the pack"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Config,
    OnlyKey,
    OneOfTwoKeys,
    Lock,
    Snapshot,
    Index,
    DataPack,
    TreePack,
}

impl Target {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Config, "config"),
        (Self::OnlyKey, "the only key"),
        (Self::OneOfTwoKeys, "one of two keys"),
        (Self::Lock, "lock"),
        (Self::Snapshot, "snapshot"),
        (Self::Index, "index"),
        (Self::DataPack, "pack of data"),
        (Self::TreePack, "pack of trees"),
    ];

    fn is_pack(self) -> bool {
        matches!(self, Self::DataPack | Self::TreePack)
    }

    fn is_key(self) -> bool {
        matches!(self, Self::OnlyKey | Self::OneOfTwoKeys)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Missing,
    Empty,
    Truncated,
    /// In what matters most: a blob, the sealed key, anywhere else.
    Flipped,
    /// In the header of a pack; in the plain part of a key.
    FlippedElsewhere,
    Swapped,
    /// With a pack of the same length.
    SwappedSameLength,
}

impl Harm {
    const ALL: [Self; 7] = [
        Self::Missing,
        Self::Empty,
        Self::Truncated,
        Self::Flipped,
        Self::FlippedElsewhere,
        Self::Swapped,
        Self::SwappedSameLength,
    ];

    fn is_possible(self, target: Target) -> bool {
        match self {
            Self::FlippedElsewhere => target.is_pack() || target.is_key(),
            Self::SwappedSameLength => target == Target::DataPack,
            _ => true,
        }
    }

    fn is_swap(self) -> bool {
        matches!(self, Self::Swapped | Self::SwappedSameLength)
    }

    fn describe(self, target: Target) -> &'static str {
        match (self, target) {
            (Self::Missing, _) => "missing",
            (Self::Empty, _) => "empty",
            (Self::Truncated, _) => "truncated",
            (Self::Flipped, Target::DataPack | Target::TreePack) => "one bit flipped in a blob",
            (Self::Flipped, Target::OnlyKey | Target::OneOfTwoKeys) => {
                "one bit flipped in the sealed part"
            }
            (Self::Flipped, _) => "one bit flipped",
            (Self::FlippedElsewhere, Target::DataPack | Target::TreePack) => {
                "one bit flipped in the header"
            }
            (Self::FlippedElsewhere, _) => "one bit flipped in the host's name",
            (Self::Swapped, Target::Config | Target::OnlyKey) => {
                "swapped with another repository's"
            }
            (Self::Swapped, Target::DataPack | Target::TreePack) => {
                "swapped with one of another length"
            }
            (Self::Swapped, _) => "swapped with another",
            (Self::SwappedSameLength, _) => "swapped with one of the same length",
        }
    }

    /// Harms `file`; `other` is of the same kind, `foreign` from another repository.
    fn strike(
        self,
        files: &mut BTreeMap<File, Vec<u8>>,
        (file, other): (File, File),
        foreign: &BTreeMap<File, Vec<u8>>,
    ) {
        let content = files.get_mut(&file).expect("the file to harm");
        match self {
            Self::Missing => drop(files.remove(&file)),
            Self::Empty => content.clear(),
            Self::Truncated => content.truncate(content.len() * 2 / 3),
            Self::Flipped => {
                let at = place_in(file, content, b"\"data\":\"");
                content[at] ^= 1;
            }
            Self::FlippedElsewhere if file.kind() == FileKind::Key => {
                let at = place_in(file, content, b"\"hostname\":\"");
                content[at] ^= 1;
            }
            Self::FlippedElsewhere => {
                let at = content.len() - 20;
                content[at] ^= 1;
            }
            Self::Swapped | Self::SwappedSameLength if file != other => {
                let ours = files.remove(&file).expect("the file to harm");
                let theirs = files.insert(other, ours).expect("the file to swap with");
                files.insert(file, theirs);
            }
            Self::Swapped | Self::SwappedSameLength => {
                let same_kind = |name: &&File| name.kind() == file.kind();
                let name = foreign.keys().find(same_kind).expect("one of the same kind");
                *content = foreign[name].clone();
            }
        }
    }
}

/// In keys right behind `mark`, elsewhere near the beginning.
fn place_in(file: File, content: &[u8], mark: &[u8]) -> usize {
    if file.kind() != FileKind::Key {
        return 40;
    }
    let found = content.windows(mark.len()).position(|window| window == mark);
    found.expect("the mark") + mark.len()
}

/// What is said about one case.
struct Outcome {
    found_by: &'static str,
    code: String,
    names: &'static str,
    snapshots: Vec<SnapshotId>,
    exit: u8,
    mended_by: String,
    left: &'static str,
}

fn judge(base: &Base, target: Target, harm: Harm) -> anyhow::Result<Option<Outcome>> {
    let mut files = base.files.clone();
    if target == Target::OnlyKey {
        files.remove(&File::Key(base.keys[1]));
    }
    let foreign = init("another password")?.0.files().clone();
    harm.strike(&mut files, base.pair(target), &foreign);
    let storage = Arc::new(MemoryStorage::new());
    *storage.files() = files;
    let repository = match Repository::open(storage, PASSWORD.as_bytes(), None) {
        Ok(repository) => repository,
        Err(error) => return Ok(Some(refused(&error, base.pair(target).0))),
    };
    for (found_by, read_data) in [("`check`", ReadData::No), ("`check --read-data`", ReadData::All)]
    {
        let report = check(&repository, &CheckOptions { read_data }, &Run::new())?;
        if !report.is_clean() {
            let outcome = reported(&report, found_by, base.pair(target));
            return Ok(Some(mended(base, &repository, (target, harm), outcome)?));
        }
    }
    Ok(None)
}

/// Runs the repairs and sees what they came to.
fn mended(
    base: &Base,
    repository: &Repository,
    (target, harm): (Target, Harm),
    outcome: Outcome,
) -> anyhow::Result<Outcome> {
    let steps = mend(repository)?;
    let password = PASSWORD.as_bytes();
    let repository = Repository::open(repository.storage().clone(), password, None)?;
    let report = check_all(&repository)?;
    assert!(report.is_clean(), "{:?} {}: {:#?}", outcome.code, outcome.names, report.damages);
    let [first, second] = base.snapshots.each_ref().map(|parts| parts.id);
    let left = (left_of(&repository, second)?, left_of(&repository, first)?);
    // Which of the trees lies where in its pack is left to chance, and so is which one is hit.
    let hits_any_tree =
        target == Target::TreePack && matches!(harm, Harm::Truncated | Harm::Flipped);
    let left = match left {
        (Left::Part | Left::Nothing, Left::Whole) if hits_any_tree => {
            "its own without the folders that were hit, the other whole"
        }
        (Left::Whole, Left::Whole) => "everything",
        (Left::Part, Left::Whole) => "its own in part, the other whole",
        (Left::Nothing, Left::Whole) => "the other, whole",
        (Left::Part, Left::Part) => "both in part",
        other => panic!("one damage cost more than it could: {other:?}"),
    };
    let mended_by = steps.iter().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ");
    Ok(Outcome { mended_by, left, ..outcome })
}

fn refused(error: &muster_repository::repository::OpenError, file: File) -> Outcome {
    let named = error.to_string().contains(&file.to_string())
        || std::error::Error::source(error)
            .is_some_and(|cause| cause.to_string().contains(&file.to_string()));
    assert_eq!(error.class(), Class::Corrupt, "{error}");
    Outcome {
        found_by: "opening",
        code: error.code().to_owned(),
        names: if named { "the file" } else { "what is missing" },
        snapshots: Vec::new(),
        exit: 3,
        mended_by: "a copy".to_owned(),
        left: "nothing without one",
    }
}

fn reported(report: &CheckReport, found_by: &'static str, pair: (File, File)) -> Outcome {
    let about = |damage: &&Damage| damage.subject == Subject::File(pair.0);
    let damage = report.damages.iter().find(about);
    let mut codes: Vec<_> = report.damages.iter().map(|damage| damage.problem.word()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), 1, "one cause, one code: {:#?}", report.damages);
    for damage in &report.damages {
        let swapped_too = damage.subject == Subject::File(pair.1);
        let unindexed = damage.problem.word() == "pack-not-indexed";
        assert!(about(&damage) || swapped_too || unindexed, "a false accusation: {damage}");
    }
    Outcome {
        found_by,
        code: codes[0].to_owned(),
        names: if damage.is_some() { "the file" } else { "the packs that it listed" },
        snapshots: report.affected_snapshots(),
        exit: 3,
        mended_by: String::new(),
        left: "",
    }
}

/// What a case must come to, as far as it is a matter of right and wrong.
fn assert_right(base: &Base, target: Target, harm: Harm, outcome: Option<&Outcome>) {
    let case = format!("{target:?} {harm:?}");
    let [first, second] = base.snapshots.each_ref().map(|parts| parts.id);
    let leaves_no_trace = match harm {
        Harm::Missing => {
            matches!(target, Target::OneOfTwoKeys | Target::Lock | Target::Snapshot)
        }
        Harm::Empty => target == Target::Lock,
        _ => false,
    };
    assert_eq!(outcome.is_none(), leaves_no_trace, "{case}");
    let Some(outcome) = outcome else { return };
    let mut expected = match target {
        Target::Snapshot | Target::Index | Target::DataPack | Target::TreePack => {
            if harm.is_swap() { vec![first, second] } else { vec![second] }
        }
        _ => Vec::new(),
    };
    let header_only = target.is_pack() && harm == Harm::FlippedElsewhere;
    if header_only {
        expected.clear();
    }
    expected.sort_unstable();
    assert_eq!(outcome.snapshots, expected, "{case}");
    let nameless = harm == Harm::Missing && matches!(target, Target::Index | Target::OnlyKey);
    assert_eq!(outcome.names == "the file", !nameless, "{case}");
}

fn row(base: &Base, target: Target, name: &str, harm: Harm) -> anyhow::Result<String> {
    let outcome = judge(base, target, harm)?;
    assert_right(base, target, harm, outcome.as_ref());
    let harm_text = harm.describe(target);
    let Some(outcome) = outcome else {
        let same_as = match (target, harm) {
            (Target::OneOfTwoKeys, _) => "a key that was removed",
            (Target::Lock, Harm::Empty) => "a lock whose writer was cut off, which restic ignores",
            (Target::Lock, _) => "a lock that was released",
            _ => "a snapshot that was forgotten",
        };
        return Ok(format!(
            "| {name} | {harm_text} | not damage: indistinguishable from {same_as} | 0 | – | – | – | – | – |\n"
        ));
    };
    let snapshots = match outcome.snapshots.len() {
        0 if outcome.found_by == "opening" => "all",
        0 => "none",
        1 => "its own",
        _ => "both",
    };
    let Outcome { found_by, code, names, exit, mended_by, left, .. } = outcome;
    Ok(format!(
        "| {name} | {harm_text} | {found_by} | {exit} | `{code}` | {names} | {snapshots} | \
         {mended_by} | {left} |\n"
    ))
}

#[test]
fn every_damage_is_found_or_said_to_leave_no_trace() -> anyhow::Result<()> {
    let different_lengths = Base::new([100_000, 120_000])?;
    let same_length = Base::new([100_000, 100_000])?;
    let mut document = INTRODUCTION.to_owned();
    let header =
        "| file | damage | found by | exit code | code | names | snapshots | mended by | left |";
    writeln!(document, "{header}\n|---|---|---|---|---|---|---|---|---|")?;
    for (target, name) in Target::ALL {
        for harm in Harm::ALL.into_iter().filter(|harm| harm.is_possible(target)) {
            let base = match harm {
                Harm::SwappedSameLength => &same_length,
                _ => &different_lengths,
            };
            document.push_str(&row(base, target, name, harm)?);
        }
    }
    document.push_str(WORDS);
    compare(&document)
}

/// Compares the document with the one in the tree, or writes it when asked to.
fn compare(document: &str) -> anyhow::Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(DOCUMENT);
    if std::env::var_os("MUSTER_BLESS").is_some_and(|value| value == "1") {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, document)?;
        return Ok(());
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == document,
        "{DOCUMENT} is not what this test finds; if the change is meant, write it anew with \
         'MUSTER_BLESS=1 cargo test -p muster-repository --test engine damage'. Found:\n{document}"
    );
    Ok(())
}
