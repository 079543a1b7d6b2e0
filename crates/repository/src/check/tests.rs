//! Repositories made by hand, blob by blob, with everything that can be wrong with them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::{
    environment::Environment,
    format::{
        config::Version,
        index_file::{IndexFile, IndexPack},
        key_file::Cost,
        pack::{BlobKind, PackedBlob, append_header},
        snapshot::Snapshot,
        time::Timestamp,
        tree::{Node, NodeKind, TreeWriter},
    },
    id::{BlobId, LockId, PackId, SnapshotId},
    repository::InitOptions,
    storage::{FileKind, Storage, StorageProblem, forward, memory::MemoryStorage},
};

/// Makes a repository; nothing is right about it but what the test makes right.
struct Maker {
    storage: Arc<MemoryStorage>,
    repository: Repository,
    packs: Vec<IndexPack>,
}

impl Maker {
    fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let author = Environment::detect().author();
        let (version, cost) = (Version::V2, Cost::FOR_TESTS);
        let options = InitOptions { version, polynomial: None, cost, author };
        let repository = Repository::init(storage.clone(), b"x", options).unwrap();
        Self { storage, repository, packs: Vec::new() }
    }

    /// Stores a pack; it gets into the next index.
    fn pack(&mut self, blobs: &[(BlobKind, &[u8])]) -> PackId {
        let (mut pack, mut packed) = (Vec::new(), Vec::new());
        for &(kind, plaintext) in blobs {
            let offset = u32::try_from(pack.len()).unwrap();
            self.repository.key().seal(plaintext, &mut pack).unwrap();
            let length = u32::try_from(pack.len()).unwrap() - offset;
            let id = BlobId::of(plaintext);
            packed.push(PackedBlob { id, kind, offset, length, uncompressed_length: None });
        }
        append_header(self.repository.key(), &packed, &mut pack).unwrap();
        let id = PackId::of(&pack);
        self.storage.put(File::Pack(id), &pack).unwrap();
        self.packs.push(IndexPack { id, blobs: packed.into_iter().map(Into::into).collect() });
        id
    }

    fn data(&mut self, plaintext: &[u8]) -> PackId {
        self.pack(&[(BlobKind::Data, plaintext)])
    }

    fn tree(&mut self, nodes: &[Node]) -> BlobId {
        let plaintext = tree(nodes);
        self.pack(&[(BlobKind::Tree, &plaintext)]);
        BlobId::of(&plaintext)
    }

    fn index(&mut self) -> File {
        let packs = std::mem::take(&mut self.packs);
        let file = IndexFile { packs, packs_to_delete: Vec::new() };
        File::Index(self.repository.save_unpacked(File::Index, &file).unwrap())
    }

    fn snapshot_by(&mut self, tree: BlobId, program: &str) -> SnapshotId {
        let snapshot = Snapshot {
            time: Timestamp::UNIX_EPOCH,
            parent: None,
            tree,
            paths: vec!["/".to_owned()],
            hostname: String::new(),
            username: String::new(),
            uid: 0,
            gid: 0,
            excludes: Vec::new(),
            tags: Vec::new(),
            original: None,
            program_version: program.to_owned(),
            summary: None,
        };
        self.repository.save_unpacked(File::Snapshot, &snapshot).unwrap()
    }

    fn snapshot(&mut self, tree: BlobId) -> SnapshotId {
        self.snapshot_by(tree, "")
    }

    /// A sound repository: one file `a` with the content `hello`.
    fn hello() -> (Self, PackId, BlobId, SnapshotId) {
        let mut maker = Self::new();
        let pack = maker.data(b"hello");
        let tree = maker.tree(&[file("a", 5, &[b"hello"])]);
        let snapshot = maker.snapshot(tree);
        (maker, pack, tree, snapshot)
    }

    fn check(&self) -> CheckReport {
        run(&self.repository, ReadData::No)
    }

    fn check_all(&self) -> CheckReport {
        run(&self.repository, ReadData::All)
    }

    fn flip(&self, file: File, byte: usize) {
        self.storage.files().get_mut(&file).unwrap()[byte] ^= 1;
    }
}

fn run(repository: &Repository, read_data: ReadData) -> CheckReport {
    check(repository, &CheckOptions { read_data }, &Run::new()).unwrap()
}

fn tree(nodes: &[Node]) -> Vec<u8> {
    let mut writer = TreeWriter::new();
    nodes.iter().for_each(|node| writer.push(node).unwrap());
    writer.finish()
}

fn file(name: &str, size: u64, content: &[&[u8]]) -> Node {
    let content = Some(content.iter().map(|chunk| BlobId::of(chunk)).collect());
    Node { content, size, ..Node::new(name.into(), NodeKind::File) }
}

fn folder(name: &str, subtree: BlobId) -> Node {
    Node { subtree: Some(subtree), ..Node::new(name.into(), NodeKind::Dir) }
}

/// The only damage of a report.
fn only(report: &CheckReport) -> &Damage {
    let shown: Vec<_> = report.damages.iter().map(ToString::to_string).collect();
    assert_eq!(report.damages.len(), 1, "{shown:#?}");
    &report.damages[0]
}

#[test]
fn a_sound_repository_is_clean() {
    let (mut maker, ..) = Maker::hello();
    maker.index();
    let report = maker.check_all();
    assert!(report.is_clean() && report.hints.is_empty(), "{report:?}");
    let Counts { keys, snapshots, indexes, packs, blobs, trees, packs_read, .. } = report.counts;
    assert_eq!((keys, snapshots, indexes, packs, blobs), (1, 1, 1, 2, 2));
    assert_eq!((trees, packs_read), (1, 2));
    assert_eq!(maker.check().counts.packs_read, 0);
}

#[test]
fn a_missing_pack_names_snapshots_and_files() {
    let (mut maker, pack, _, snapshot) = Maker::hello();
    maker.index();
    maker.storage.delete(File::Pack(pack)).unwrap();
    let report = maker.check();
    let damage = only(&report);
    assert_eq!(damage.subject, Subject::File(File::Pack(pack)));
    assert_eq!(damage.problem, Problem::Missing);
    assert_eq!((&damage.snapshots, damage.recoverable), (&vec![snapshot], false));
    assert_eq!((&damage.files, damage.files_total), (&vec!["/a".to_owned()], 1));
    assert_eq!(report.broken_packs().collect::<Vec<_>>(), [pack]);
}

#[test]
fn a_copy_elsewhere_saves_the_snapshots() {
    let (mut maker, pack, ..) = Maker::hello();
    maker.pack(&[(BlobKind::Data, b"hello"), (BlobKind::Data, b"more")]);
    maker.index();
    assert!(matches!(maker.check().hints[..], [Hint::DuplicateBlobs { count: 1, bytes: 37 }]));
    maker.storage.delete(File::Pack(pack)).unwrap();
    let report = maker.check();
    let damage = only(&report);
    assert!(damage.recoverable && damage.snapshots.is_empty() && damage.files.is_empty());
}

#[test]
fn garbage_that_is_lost_affects_nobody() {
    let (mut maker, ..) = Maker::hello();
    let garbage = maker.data(b"garbage");
    maker.index();
    maker.storage.delete(File::Pack(garbage)).unwrap();
    let report = maker.check();
    let damage = only(&report);
    assert!(!damage.recoverable && damage.snapshots.is_empty());
    assert!(damage.help().contains("no snapshot"), "{}", damage.help());
}

#[test]
fn a_truncated_pack_tells_what_is_left() {
    let mut maker = Maker::new();
    let (a, b) = (vec![1; 100_000], vec![2; 100_000]);
    let pack = maker.pack(&[(BlobKind::Data, &a), (BlobKind::Data, &b)]);
    let tree = maker.tree(&[file("a", 100_000, &[&a]), file("b", 100_000, &[&b])]);
    maker.snapshot(tree);
    maker.index();
    maker.storage.files().get_mut(&File::Pack(pack)).unwrap().truncate(150_000);
    let report = maker.check();
    let damage = only(&report);
    assert_eq!(damage.problem.word(), "truncated");
    assert!(damage.problem.to_string().contains("has 150000 bytes, should be 200"), "{damage}");
    assert_eq!(damage.files, ["/b"], "a is still whole");
}

#[test]
fn packs_without_an_index_are_damage_when_they_are_needed() {
    let (mut maker, pack, tree, snapshot) = Maker::hello();
    let index = maker.index();
    maker.storage.delete(index).unwrap();
    let report = maker.check();
    assert_eq!(report.damages.len(), 2);
    for damage in &report.damages {
        assert_eq!(damage.problem, Problem::PackNotIndexed { blobs_needed: 1 });
        assert!(damage.recoverable && damage.help().contains("repair index"));
        assert_eq!(damage.snapshots, [snapshot]);
    }
    let of_data = |damage: &&Damage| damage.subject == Subject::File(File::Pack(pack));
    assert_eq!(report.damages.iter().find(of_data).unwrap().files, ["/a"]);
    assert!(report.suggests_repair_index() && report.broken_packs().next().is_none());
    // Without the packs, the tree itself is what is missing.
    maker.storage.files().retain(|file, _| file.kind() != FileKind::Pack);
    let report = maker.check();
    assert_eq!(only(&report).subject, Subject::Blob(BlobKind::Tree, tree));
}

#[test]
fn a_damaged_index_takes_the_blame_for_its_packs() {
    let (mut maker, _, _, snapshot) = Maker::hello();
    let index = maker.index();
    maker.flip(index, 20);
    let report = maker.check();
    let damage = only(&report);
    assert_eq!((damage.subject, damage.problem.word()), (Subject::File(index), "wrong-content"));
    assert_eq!(damage.snapshots, [snapshot]);
    assert!(damage.recoverable && damage.help().contains("repair index"));
}

#[test]
fn packs_that_nobody_needs_are_a_hint() {
    let (mut maker, ..) = Maker::hello();
    maker.index();
    let orphan = maker.data(b"orphan");
    maker.storage.put(File::Pack(PackId::of(b"torn")), b"torn").unwrap();
    let report = maker.check();
    assert!(report.is_clean() && report.suggests_prune());
    let [Hint::UnindexedPacks { packs, count: 2, .. }] = &report.hints[..] else {
        panic!("{:?}", report.hints);
    };
    assert!(packs.contains(&orphan));
}

#[test]
fn gaps_and_overlaps_are_found_without_reading() {
    for (offset, word) in [(7, "gap"), (u32::MAX - 100, "gap")] {
        let (mut maker, pack, ..) = Maker::hello();
        let mut blob = PackedBlob::from(maker.packs[0].blobs[0]);
        blob.offset = offset;
        maker.packs[0].blobs = vec![blob.into()];
        maker.index();
        let report = maker.check();
        let damage = only(&report);
        assert_eq!(damage.subject, Subject::File(File::Pack(pack)));
        assert!(damage.problem.to_string().contains(word), "{damage}");
        assert_eq!(damage.snapshots.len(), 1);
    }
    let (mut maker, ..) = Maker::hello();
    let blob = maker.packs[0].blobs[0];
    let other = PackedBlob { id: BlobId::of(b"other"), ..blob.into() };
    maker.packs[0].blobs.push(other.into());
    maker.index();
    let report = maker.check();
    assert!(only(&report).to_string().contains("overlap"), "{report:?}");
    assert!(only(&report).snapshots.is_empty(), "the real blob can be read");
}

#[test]
fn an_index_that_lies_about_a_sound_pack_is_told_apart() {
    let mut maker = Maker::new();
    let pack = maker.pack(&[(BlobKind::Data, b"one"), (BlobKind::Data, b"two")]);
    maker.packs[0].blobs.pop();
    maker.index();
    let report = maker.check();
    let damage = only(&report);
    assert_eq!(damage.subject, Subject::File(File::Pack(pack)));
    assert_eq!(damage.problem.word(), "header-disagrees");
    assert!(damage.recoverable && damage.help().contains("repair index"));
}

#[test]
fn a_header_that_disagrees_is_found_by_reading() {
    let (mut maker, pack, ..) = Maker::hello();
    let blob = PackedBlob::from(maker.packs[0].blobs[0]);
    maker.packs[0].blobs = vec![PackedBlob { id: BlobId::of(b"other"), ..blob }.into()];
    maker.data(b"hello");
    maker.index();
    assert!(maker.check().is_clean());
    let report = maker.check_all();
    let damage = only(&report);
    assert_eq!(damage.subject, Subject::File(File::Pack(pack)));
    assert_eq!(damage.problem.word(), "header-disagrees");
}

#[test]
fn every_flipped_bit_of_a_pack_is_found_by_reading() {
    let (mut maker, pack, ..) = Maker::hello();
    maker.index();
    let bytes = maker.storage.size(File::Pack(pack)).unwrap();
    for byte in 0..usize::try_from(bytes).unwrap() {
        maker.flip(File::Pack(pack), byte);
        let report = maker.check_all();
        let damage = only(&report);
        assert_eq!(damage.problem.word(), "wrong-content", "byte {byte}");
        let in_blob = byte < 37;
        assert_eq!((damage.recoverable, damage.snapshots.len()), (!in_blob, usize::from(in_blob)));
        maker.flip(File::Pack(pack), byte);
    }
}

#[test]
fn blobs_of_any_size_pass_through_the_window() {
    let mut maker = Maker::new();
    let sizes = [1, 700_000, 1 << 20, (1 << 20) - 32, 3 << 20, 5, 1_048_544, 2_500_000];
    let chunks: Vec<Vec<u8>> =
        sizes.iter().zip(1..).map(|(&size, seed)| vec![seed; size]).collect();
    let blobs: Vec<_> = chunks.iter().map(|chunk| (BlobKind::Data, chunk.as_slice())).collect();
    let pack = maker.pack(&blobs);
    maker.index();
    let report = maker.check_all();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.counts.bytes_read, maker.storage.size(File::Pack(pack)).unwrap());
    let mut start = 0;
    for size in sizes {
        maker.flip(File::Pack(pack), start + size / 2);
        assert!(!only(&maker.check_all()).recoverable);
        maker.flip(File::Pack(pack), start + size / 2);
        start += size + 32;
    }
}

#[test]
fn a_subset_reads_no_more_than_it_should() {
    let mut maker = Maker::new();
    for n in 0..40_u32 {
        maker.data(&n.to_le_bytes());
    }
    maker.index();
    let read = |share: ReadData| run(&maker.repository, share).counts.packs_read;
    assert_eq!(read(ReadData::Percent(50.0)), 20);
    let parts: u64 = (1..=3).map(|part| read(ReadData::Part { part, of: 3 })).sum();
    assert_eq!(parts, 40);
}

#[test]
fn blobs_that_are_no_trees_are_found() {
    let mut maker = Maker::new();
    maker.pack(&[(BlobKind::Tree, b"no tree")]);
    let good = maker.tree(&[]);
    let mut nodes = vec![folder("bad", BlobId::of(b"no tree")), folder("good", good)];
    let root = maker.tree(&nodes);
    let snapshot = maker.snapshot(root);
    maker.index();
    let report = maker.check();
    let damage = only(&report);
    assert_eq!(damage.problem.word(), "invalid-tree");
    assert_eq!((&damage.snapshots, &damage.files), (&vec![snapshot], &vec!["/bad/".to_owned()]));
    // A tree is not data: the same id as a chunk is in no index.
    nodes = vec![file("x", 7, &[b"no tree"])];
    let root = maker.tree(&nodes);
    maker.snapshot(root);
    maker.index();
    let missing = Subject::Blob(BlobKind::Data, BlobId::of(b"no tree"));
    assert!(maker.check().damages.iter().any(|damage| damage.subject == missing));
}

#[test]
fn sizes_must_be_the_sums_of_chunks() {
    let make = |program: &str| {
        let mut maker = Maker::new();
        maker.data(b"hello");
        let root = maker.tree(&[file("a", 10, &[b"hello", b"hello"]), file("b", 9, &[b"hello"])]);
        let snapshot = maker.snapshot_by(root, program);
        maker.index();
        (maker.check(), snapshot)
    };
    let (report, snapshot) = make("restic 0.14.0");
    let damage = only(&report);
    assert_eq!(damage.problem.to_string(), "the size of 'b' is 9 bytes, its chunks hold 5");
    assert_eq!((&damage.snapshots, &damage.files), (&vec![snapshot], &vec!["/b".to_owned()]));
    let (report, _) = make("rustic 0.11.4");
    assert!(report.is_clean());
    assert!(matches!(report.hints[..], [Hint::SizesDisagree { size: 9, content: 5, .. }]));
}

#[test]
fn many_missing_blobs_end_in_a_count() {
    let mut maker = Maker::new();
    let names: Vec<_> = (0..1500).map(|n| format!("{n:04}")).collect();
    let nodes: Vec<_> = names.iter().map(|name| file(name, 4, &[name.as_bytes()])).collect();
    let root = maker.tree(&nodes);
    let snapshot = maker.snapshot(root);
    maker.index();
    let report = maker.check();
    assert_eq!(report.damages.len(), 1001);
    let more = report.damages.last().unwrap();
    assert_eq!(more.problem, Problem::Many { count: 500 });
    assert_eq!((more.snapshots.as_slice(), more.files_total), (&[snapshot][..], 500));
    assert_eq!(more.files.len(), 20);
    assert_eq!(report.affected_snapshots(), [snapshot]);
}

/// Sixty folders, each of which holds the next one twice: 2^60 paths to one file.
#[test]
fn a_tree_with_countless_paths_is_walked_once() {
    let (mut maker, pack, tree, _) = Maker::hello();
    let mut root = tree;
    for _ in 0..60 {
        root = maker.tree(&[folder("x", root), folder("y", root)]);
    }
    let snapshot = maker.snapshot(root);
    maker.index();
    assert_eq!(maker.check().counts.trees, 61);
    maker.storage.delete(File::Pack(pack)).unwrap();
    let report = maker.check();
    assert!(only(&report).snapshots.contains(&snapshot));
}

#[test]
fn deep_trees_are_walked() {
    let mut maker = Maker::new();
    let mut plaintexts = vec![tree(&[file("leaf", 1, &[b"lost"])])];
    for _ in 0..20_000 {
        let below = BlobId::of(plaintexts.last().unwrap());
        plaintexts.push(tree(&[folder("d", below)]));
    }
    let blobs: Vec<_> = plaintexts.iter().map(|text| (BlobKind::Tree, &text[..])).collect();
    maker.pack(&blobs);
    let snapshot = maker.snapshot(BlobId::of(plaintexts.last().unwrap()));
    maker.index();
    let report = maker.check_all();
    assert_eq!(report.counts.trees, 20_001);
    let damage = only(&report);
    assert_eq!(damage.snapshots, [snapshot]);
    assert!(damage.files[0].len() == 4096 && damage.files[0].ends_with("/d/d/leaf"));
}

#[test]
fn hostile_names_reach_no_terminal() {
    let mut maker = Maker::new();
    maker.data(b"hello");
    let name = format!("\u{1b}[2J{}", "x".repeat(100_000));
    let root = maker.tree(&[file(&name, 9, &[b"hello"])]);
    maker.snapshot(root);
    let text = r#"{"nodes":[{"name":"a/\n","type":"file","content":[]}]}"#;
    maker.pack(&[(BlobKind::Tree, text.as_bytes())]);
    maker.snapshot(BlobId::of(text.as_bytes()));
    maker.index();
    let report = maker.check();
    assert_eq!(report.damages.len(), 2);
    for damage in &report.damages {
        let line = damage.to_string();
        assert!(line.len() < 1000 && !line.contains(char::is_control), "{line}");
    }
}

#[test]
fn mixed_packs_are_a_hint() {
    let mut maker = Maker::new();
    let plaintext = tree(&[file("a", 5, &[b"hello"])]);
    let pack = maker.pack(&[(BlobKind::Data, b"hello"), (BlobKind::Tree, &plaintext)]);
    maker.snapshot(BlobId::of(&plaintext));
    maker.index();
    let report = maker.check_all();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.hints, [Hint::MixedPacks { packs: vec![pack], count: 1 }]);
}

#[test]
fn locks_are_read_and_empty_ones_are_not() {
    let (mut maker, ..) = Maker::hello();
    maker.index();
    maker.storage.put(File::Lock(LockId::of(b"empty")), b"").unwrap();
    assert!(maker.check().is_clean());
    let lock = File::Lock(LockId::of(b"something"));
    maker.storage.put(lock, b"something").unwrap();
    let report = maker.check();
    let damage = only(&report);
    assert_eq!((damage.subject, damage.problem.word()), (Subject::File(lock), "invalid"));
    assert!(damage.snapshots.is_empty() && damage.help().contains("unlock --remove-all"));
}

#[test]
fn a_stop_is_obeyed() {
    let (mut maker, ..) = Maker::hello();
    maker.index();
    let run = Run::new();
    run.cancel.request("enough");
    let error = check(&maker.repository, &CheckOptions::default(), &run).err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Interrupted, "interrupted"));
}

#[test]
fn progress_counts_the_bytes_that_are_read() {
    let (mut maker, ..) = Maker::hello();
    maker.index();
    let run = Run::new();
    let read_data = ReadData::All;
    let report = check(&maker.repository, &CheckOptions { read_data }, &run).unwrap();
    let reading = run.progress.read();
    assert_eq!(reading.bytes_total, Some(report.counts.bytes_read));
    assert_eq!(reading.bytes_done, report.counts.bytes_read);
    assert_eq!((reading.files_done, reading.files_total), (2, Some(2)));
}

#[test]
fn the_json_is_restics_summary_and_more() {
    let (mut maker, pack, _, snapshot) = Maker::hello();
    maker.index();
    maker.storage.delete(File::Pack(pack)).unwrap();
    let json = serde_json::to_value(maker.check()).unwrap();
    assert_eq!(json["message_type"], "summary");
    assert_eq!(json["num_errors"], 1);
    assert_eq!(json["broken_packs"][0], pack.to_hex());
    let damage = &json["damages"][0];
    assert_eq!(damage["subject"], File::Pack(pack).to_string());
    assert_eq!((&damage["code"], &damage["kind"]), (&"missing".into(), &"pack".into()));
    assert_eq!(damage["snapshots"][0], snapshot.to_hex());
    assert_eq!(damage["files"][0], "/a");
    assert_eq!(json["counts"]["packs"], 2);
}

/// What a [`Moody`] store does to one file.
#[derive(Debug)]
enum Mood {
    Fail(StorageProblem),
    /// Flips a bit in the first range that is read.
    FlipOnce(AtomicBool),
}

/// A store that mistreats one file.
#[derive(Debug)]
struct Moody {
    inner: Arc<MemoryStorage>,
    file: File,
    mood: Mood,
}

impl Moody {
    fn denies(&self, file: File) -> Result<(), StorageError> {
        match self.mood {
            Mood::Fail(problem) if file == self.file => {
                Err(StorageError::new("read", file, problem))
            }
            _ => Ok(()),
        }
    }
}

impl Storage for Moody {
    forward!(inner: location, prepare, list, size, put, put_new, delete);

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        self.denies(file)?;
        self.inner.read(file, bytes_max)
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.denies(file)?;
        self.inner.read_range(file, offset, buffer)?;
        if let Mood::FlipOnce(done) = &self.mood
            && file == self.file
            && !done.swap(true, Ordering::SeqCst)
        {
            buffer[0] ^= 1;
        }
        Ok(())
    }
}

#[test]
fn a_file_that_cannot_be_read_is_damage_and_no_end() {
    let (mut maker, pack, tree, snapshot) = Maker::hello();
    let tree_pack = maker.packs[1].id;
    let index = maker.index();
    let key = File::Key(maker.repository.key_id());
    let files = [File::Pack(pack), File::Pack(tree_pack), File::Snapshot(snapshot), index, key];
    for file in files {
        let inner = maker.storage.clone();
        let storage = Arc::new(Moody { inner, file, mood: Mood::Fail(StorageProblem::Denied) });
        let report = run(&maker.repository.clone().on(storage), ReadData::All);
        let damage = only(&report);
        assert_eq!((damage.subject, damage.problem.word()), (Subject::File(file), "unreadable"));
        let affects = file.kind() != FileKind::Key;
        assert_eq!(damage.snapshots.contains(&snapshot), affects, "{file} {tree}");
    }
}

#[test]
fn a_store_that_does_not_answer_is_no_damage() {
    let (mut maker, pack, ..) = Maker::hello();
    let tree_pack = maker.packs[1].id;
    let snapshot = maker.storage.list(FileKind::Snapshot).unwrap()[0].file;
    let key = File::Key(maker.repository.key_id());
    let files = [File::Pack(pack), File::Pack(tree_pack), snapshot, maker.index(), key];
    for file in files {
        for problem in [StorageProblem::TimedOut, StorageProblem::Credentials] {
            let inner = maker.storage.clone();
            let storage = Arc::new(Moody { inner, file, mood: Mood::Fail(problem) });
            let repository = maker.repository.clone().on(storage);
            let options = CheckOptions { read_data: ReadData::All };
            let error = check(&repository, &options, &Run::new()).err().unwrap();
            let expected = StorageError::new("read", file, problem);
            assert_eq!((error.class(), error.code()), (expected.class(), expected.code()));
            assert_eq!(error.help(), expected.help(), "{file}");
        }
    }
}

#[test]
fn a_fault_of_the_moment_is_a_hint() {
    let (mut maker, pack, ..) = Maker::hello();
    maker.index();
    let mood = Mood::FlipOnce(AtomicBool::new(false));
    let inner = maker.storage.clone();
    let storage = Arc::new(Moody { inner, file: File::Pack(pack), mood });
    let report = run(&maker.repository.clone().on(storage), ReadData::All);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.hints, [Hint::SoundOnSecondRead { pack }]);
}
