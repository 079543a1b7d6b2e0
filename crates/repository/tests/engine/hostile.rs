//! Repositories by somebody who wishes us ill, and who has the key: everything is sealed well.
//!
//! What is claimed is bounded before it is believed: nothing panics, takes for ever, or is told
//! without a name. (What a restore does with hostile trees is in `src/restore/tests.rs`, and what
//! a check says of hostile trees in `src/check/tests.rs`.)

use std::{
    num::NonZeroU32,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use muster_model::{Class, Fault};
use muster_repository::{
    backup::BackupOptions,
    check::{CheckOptions, CheckReport, ReadData, check},
    crypto::Key,
    diff::{DiffOptions, diff},
    environment::Environment,
    find::{FindEntries, FindOptions, FindStep},
    format::{
        index_file::{IndexFile, IndexPack},
        lock_file::LockFile,
        pack::{BlobKind, PackedBlob, append_header},
        snapshot::Snapshot,
        time::Timestamp,
        tree::{ExtendedAttribute, Node, NodeKind},
    },
    id::{BlobId, PackId, SnapshotId},
    lock,
    ls::{Ls, LsOptions, LsStep},
    repository::{IndexedRepository, ReadError, Repository},
    restore::{Overwrite, RestoreOptions, RestoreReport, restore},
    run::Run,
    stats::{StatsCounter, StatsMode},
    storage::{File, Storage as _, memory::MemoryStorage},
    testing::{self, RepositoryBuilder, dir_node, file_node, node, symlink_node},
};

use crate::common::{Sandbox, backup};

mod copies;
mod trees;

/// Far more than anything here takes, far less than what is attempted would take.
const SOON: Duration = Duration::from_secs(60);

fn soon<T>(act: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = act();
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    result
}

/// Deeper than any stack.
const DEEP: usize = 100_000;

fn nested(depth: usize, opening: &str, closing: &str) -> String {
    opening.repeat(depth) + &closing.repeat(depth)
}

fn snapshot(tree: BlobId) -> Snapshot {
    Snapshot {
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
        program_version: String::new(),
        summary: None,
    }
}

fn save_snapshot(repository: &Repository, tree: BlobId) -> SnapshotId {
    repository.save_unpacked(File::Snapshot, &snapshot(tree)).expect("memory stores everything")
}

fn seal(key: &Key, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    key.seal(plaintext, &mut sealed).expect("the system has randomness");
    sealed
}

fn check_all(repository: &Repository) -> CheckReport {
    let options = CheckOptions { read_data: ReadData::All };
    soon(|| check(repository, &options, &Run::new()).expect("damage is no error"))
}

/// The report as lines.
fn told(report: &CheckReport) -> Vec<String> {
    report.damages.iter().map(ToString::to_string).collect()
}

fn restore_into(
    target: &Path,
    repository: &IndexedRepository,
    tree: BlobId,
    overwrite: Overwrite,
) -> anyhow::Result<RestoreReport> {
    let options = RestoreOptions { overwrite, ..RestoreOptions::new(target) };
    Ok(soon(|| restore(repository, tree, &options, &Run::new()))?)
}

fn open(storage: &Arc<MemoryStorage>) -> Result<Repository, (Class, &'static str, String)> {
    let opened = soon(|| Repository::open(storage.clone(), testing::PASSWORD, None));
    opened.map_err(|error| (error.class(), error.code(), error.to_string()))
}

/// A key file decides how long scrypt takes and how much memory, before the password is known
/// to be right.
#[test]
fn a_key_file_cannot_make_us_work_for_ever() -> anyhow::Result<()> {
    let builder = RepositoryBuilder::new();
    let storage = builder.storage();
    let name = File::Key(builder.finish().key_id());
    let sound = String::from_utf8(storage.files()[&name].clone())?;
    assert!(sound.contains(r#""N":16,"r":1,"p":1"#), "{sound}");
    for cost in [
        r#""N":4611686018427387904,"r":8,"p":1"#,
        r#""N":9223372036854775808,"r":4294967295,"p":4294967295"#,
        r#""N":32768,"r":8,"p":4294967295"#,
        r#""N":2,"r":4294967295,"p":1"#,
        r#""N":0,"r":0,"p":0"#,
        r#""N":3,"r":8,"p":1"#,
        r#""N":-1,"r":8,"p":1"#,
        r#""N":1e300,"r":8,"p":1"#,
    ] {
        let hostile = sound.replace(r#""N":16,"r":1,"p":1"#, cost);
        storage.put(name, hostile.as_bytes())?;
        let (class, code, text) = open(&storage).err().expect(cost);
        assert_eq!((class, code), (Class::Corrupt, "key-damaged"), "{cost}");
        assert!(text.contains(&name.to_string()), "{text}");
    }
    Ok(())
}

#[test]
fn a_config_is_refused_unless_all_of_it_is_sound() {
    let builder = RepositoryBuilder::new();
    let storage = builder.storage();
    let repository = builder.finish();
    let id = &repository.config().id;
    let good = repository.config().chunker_polynomial.to_string();
    let config = |version: &str, id: &str, polynomial: &str| {
        format!(r#"{{"version":{version},"id":"{id}","chunker_polynomial":"{polynomial}"}}"#)
    };
    let too_deep = format!(r#"{{"x":{},"id":""}}"#, nested(10_000, "[", "]"));
    let put = |text: &str| {
        storage.put(File::Config, &seal(repository.key(), text.as_bytes())).expect("memory");
        open(&storage)
    };
    assert!(put(&config("2", id, &good)).is_ok());
    for hostile in [
        // x^53 is x times x^52; the next is divisible by x + 1; then degrees 63, 52 and none.
        config("2", id, "20000000000000"),
        config("2", id, "20000000000003"),
        config("2", id, "8000000000000001"),
        config("2", id, "10000000000001"),
        config("2", id, "0"),
        config("2", id, ""),
        config("2", id, &"f".repeat(1000)),
        config("3", id, &good),
        config("-1", id, &good),
        config("2", "../../etc/passwd", &good),
        too_deep,
        "[]".to_owned(),
        String::new(),
        "\u{2}".to_owned(),
    ] {
        let (class, code, text) = put(&hostile).err().expect("refused");
        assert_eq!((class, code), (Class::Corrupt, "file-damaged"), "{hostile:.200}");
        assert!(text.contains("config"), "{text}");
    }
}

/// Nothing recurses as deeply as somebody else says.
#[test]
fn deeply_nested_json_is_refused_wherever_it_stands() -> anyhow::Result<()> {
    for nest in [nested(DEEP, "[", "]"), nested(DEEP, r#"{"a":"#, "}").replace(":}", ":0}")] {
        let mut builder = RepositoryBuilder::new();
        let storage = builder.storage();
        let attributes =
            format!(r#"{{"nodes":[{{"name":"a","type":"file","content":[],"x":{nest}}}]}}"#);
        let generic = attributes.replace(r#""x":"#, r#""generic_attributes":{"x":"#) + "}";
        let known = attributes.replace(r#""x":"#, r#""linktarget":"#);
        let trees = [attributes, generic.replace("]}}", "}]}"), known, nest.clone()];
        let trees = trees.map(|text| builder.add_tree_bytes(text.as_bytes()));
        let repository = builder.finish();
        for tree in trees {
            save_snapshot(&repository, tree);
        }
        let mut expected: Vec<String> =
            trees.iter().map(|tree| format!("tree blob {tree}")).collect();
        for text in [nest.clone(), format!(r#"{{"packs":{nest}}}"#), format!(r#"{{"x":{nest}}}"#)] {
            let sealed = seal(repository.key(), text.as_bytes());
            let id = PackId::of(&sealed);
            for file in [
                File::Snapshot(SnapshotId::from_bytes(*id.as_bytes())),
                File::Index(muster_repository::id::IndexId::from_bytes(*id.as_bytes())),
                File::Lock(muster_repository::id::LockId::from_bytes(*id.as_bytes())),
            ] {
                storage.put(file, &sealed)?;
                expected.push(file.to_string());
            }
        }
        // An unknown field of an index is read over, however deep: that takes no stack.
        let told = told(&check_all(&repository));
        for name in expected {
            let is_told = told.iter().any(|line| line.starts_with(&name));
            let may_be_sound = name.starts_with("index/") || name.starts_with("tree blob");
            assert!(is_told || may_be_sound, "{name} is not in {told:#?}");
        }
        assert!(told.len() >= 7, "{told:#?}");
    }
    Ok(())
}

/// Blobs whose packs and indexes agree on a lie about what comes out of them.
#[test]
fn a_blob_is_never_longer_than_it_claims() -> anyhow::Result<()> {
    let zeros = vec![0; 64 << 20];
    let compressed = {
        use muster_repository::compression::{CompressionLevel, Compressor};
        let mut compressed = Vec::new();
        Compressor::new(CompressionLevel::Max)?.compress(&zeros, &mut compressed)?;
        compressed
    };
    assert!(compressed.len() < 10_000);
    let id = BlobId::of(&zeros);
    let actual = 64 << 20;
    for claimed in [1, actual - 1, actual + 1, 256 << 20] {
        let builder = RepositoryBuilder::new();
        let storage = builder.storage();
        let base = builder.finish();
        let mut content = seal(base.key(), &compressed);
        let length = u32::try_from(content.len())?;
        let uncompressed_length = NonZeroU32::new(claimed);
        let blob = PackedBlob { id, kind: BlobKind::Data, offset: 0, length, uncompressed_length };
        append_header(base.key(), &[blob], &mut content)?;
        let pack = PackId::of(&content);
        storage.put(File::Pack(pack), &content)?;
        let packs = vec![IndexPack { id: pack, blobs: vec![blob.into()] }];
        base.save_unpacked(File::Index, &IndexFile { packs, packs_to_delete: Vec::new() })?;
        let repository = base.load_index(&Run::new())?;
        let mut reader = repository.blob_reader()?;
        let mut plaintext = Vec::new();
        let error = soon(|| reader.read(BlobKind::Data, id, &mut plaintext)).expect_err("a lie");
        assert_eq!(error.class(), Class::Corrupt);
        assert!(error.to_string().contains(&id.to_hex()), "{error}");
        assert!(plaintext.len() <= claimed as usize, "{} came out", plaintext.len());
        let told = told(&check_all(&repository));
        assert!(told.len() == 1 && told[0].contains(&id.to_hex()), "{told:#?}");
    }
    Ok(())
}

/// Sound packs whose last bytes speak of other blobs than there are.
#[test]
fn packs_whose_headers_lie_are_told() -> anyhow::Result<()> {
    let builder = RepositoryBuilder::new();
    let storage = builder.storage();
    let repository = builder.finish();
    let blob = |offset, length, uncompressed| PackedBlob {
        id: BlobId::of(b"x"),
        kind: BlobKind::Data,
        offset,
        length,
        uncompressed_length: NonZeroU32::new(uncompressed),
    };
    let mut expected = Vec::new();
    let mut put = |content: &[u8], blobs: &[PackedBlob]| {
        let id = PackId::of(content);
        storage.put(File::Pack(id), content).expect("memory stores everything");
        expected.push(File::Pack(id).to_string());
        IndexPack { id, blobs: blobs.iter().map(|&blob| blob.into()).collect() }
    };
    let mut packs = Vec::new();
    let real = seal(repository.key(), b"x");
    let length = u32::try_from(real.len())?;
    for field in [0, 1, 31, 32, 68, 70, 1 << 24, u32::MAX - 4, u32::MAX] {
        let mut content = real.clone();
        append_header(repository.key(), &[blob(0, length, 0)], &mut content)?;
        let field_at = content.len() - 4;
        content[field_at..].copy_from_slice(&u32::to_le_bytes(field));
        packs.push(put(&content, &[blob(0, length, 0)]));
    }
    for header in [
        vec![blob(0, u32::MAX, 0), blob(0, u32::MAX, 0)],
        vec![blob(0, 1 << 28, 0); 20],
        vec![blob(0, length, u32::MAX)],
        vec![blob(0, 0, 0); 1000],
        vec![],
    ] {
        let mut content = real.clone();
        append_header(repository.key(), &header, &mut content)?;
        packs.push(put(&content, &[blob(0, length, 0)]));
    }
    for content in [&b""[..], b"\xff\xff\xff\xff", b"abc"] {
        packs.push(put(content, &[blob(0, length, 0)]));
    }
    // Without an index they are litter; nothing needs them.
    let report = check_all(&repository);
    assert!(report.is_clean(), "{:#?}", told(&report));
    repository.save_unpacked(File::Index, &IndexFile { packs, packs_to_delete: Vec::new() })?;
    let told = told(&check_all(&repository));
    for name in expected {
        assert!(told.iter().any(|line| line.starts_with(&name)), "{name} is not in {told:#?}");
    }
    Ok(())
}

/// An index may place blobs anywhere in packs that are not as long as it says.
#[test]
fn an_index_that_points_beyond_its_packs_is_told() -> anyhow::Result<()> {
    let mut builder = RepositoryBuilder::new();
    let chunk = builder.add_data_blob(b"sound");
    builder.close_packs();
    let ids = [b"a", b"b", b"c", b"d"].map(|seed| BlobId::of(seed));
    let mut nodes = vec![file_node(b"sound", vec![chunk], 5)];
    for (name, id) in [b"a", b"b", b"c", b"d"].into_iter().zip(ids) {
        nodes.push(file_node(name, vec![id, chunk], 6));
    }
    let tree = builder.add_tree(nodes);
    let storage = builder.storage();
    let base = builder.finish();
    let pack = base.index().find(BlobKind::Data, chunk).expect("it was added").pack;
    let blob = |id, offset, length| {
        let uncompressed_length = None;
        PackedBlob { id, kind: BlobKind::Data, offset, length, uncompressed_length }.into()
    };
    let blobs = vec![
        blob(ids[0], u32::MAX - 40, 40),
        blob(ids[1], 0, 256 << 20),
        blob(ids[2], 1, 40),
        blob(ids[3], 3 << 30, 1 << 28),
    ];
    let packs = vec![IndexPack { id: pack, blobs }];
    base.save_unpacked(File::Index, &IndexFile { packs, packs_to_delete: Vec::new() })?;
    save_snapshot(&base, tree);
    let repository = base.load_index(&Run::new())?;
    let told = told(&check_all(&repository));
    let name = File::Pack(pack).to_string();
    assert!(told.iter().any(|line| line.starts_with(&name)), "{told:#?}");
    let sandbox = Sandbox::new("beyond")?;
    let target = sandbox.join("target");
    let report = restore_into(&target, &repository, tree, Overwrite::Refuse)?;
    let mut paths: Vec<_> = report.problems.iter().map(|p| p.path.display().to_string()).collect();
    paths.sort();
    assert_eq!(paths, ["a", "b", "c", "d"]);
    assert!(report.problems.iter().all(|problem| problem.class() == Class::Corrupt));
    assert_eq!(std::fs::read(target.join("sound"))?, b"sound");
    assert_eq!(std::fs::read_dir(&target)?.count(), 1);
    // Impossible even on paper: the file as a whole is refused.
    for (offset, length) in [(u32::MAX, 40), (0, 32), (0, 0), (0, u32::MAX), (u32::MAX - 39, 40)] {
        let packs = vec![IndexPack { id: pack, blobs: vec![blob(ids[0], offset, length)] }];
        let file = IndexFile { packs, packs_to_delete: Vec::new() };
        let id = repository.save_unpacked(File::Index, &file)?;
        let error = repository.load_index(&Run::new()).err().expect("refused");
        assert_eq!(error.class(), Class::Corrupt);
        assert!(error.to_string().contains(&File::Index(id).to_string()), "{error}");
        storage.delete(File::Index(id))?;
    }
    Ok(())
}

/// Thousands of places for one blob, and thousands of descriptions of one pack: an index that is
/// small in the store takes no time out of proportion.
#[test]
fn an_index_that_repeats_itself_takes_no_longer_than_others() -> anyhow::Result<()> {
    let blob = |id: BlobId, offset| {
        let uncompressed_length = None;
        PackedBlob { id, kind: BlobKind::Data, offset, length: 40, uncompressed_length }.into()
    };
    let one_blob = |n: u32| IndexPack {
        id: PackId::of(&n.to_le_bytes()),
        blobs: vec![blob(BlobId::of(b"everywhere"), 0)],
    };
    let one_pack = |n: u32| IndexPack {
        id: PackId::of(b"again and again"),
        blobs: vec![blob(BlobId::of(&n.to_le_bytes()), n)],
    };
    let one_pack_one_blob = |n: u32| IndexPack {
        id: PackId::of(b"again and again"),
        blobs: vec![blob(BlobId::of(b"everywhere"), n)],
    };
    for packs in [
        (0..200_000).map(one_blob).collect::<Vec<_>>(),
        (0..200_000).map(one_pack).collect(),
        (0..200_000).map(one_pack_one_blob).collect(),
    ] {
        let repository = RepositoryBuilder::new().finish();
        repository.save_unpacked(File::Index, &IndexFile { packs, packs_to_delete: Vec::new() })?;
        let indexed = soon(|| repository.load_index(&Run::new()))?;
        assert_eq!(indexed.index().len(), 200_000);
        assert!(!check_all(&repository).is_clean());
    }
    Ok(())
}

#[test]
fn a_snapshot_of_a_million_paths_is_only_long() -> anyhow::Result<()> {
    let mut builder = RepositoryBuilder::new();
    let tree = builder.add_tree(Vec::new());
    let repository = builder.finish();
    let paths = (0..1_000_000).map(|n| format!("/{n}")).collect();
    let tags = vec!["x".repeat(1 << 20); 10];
    let hostile = Snapshot { paths, tags, ..snapshot(tree) };
    let id = repository.save_unpacked(File::Snapshot, &hostile)?;
    assert_eq!(soon(|| repository.snapshots())?, [(id, hostile)]);
    assert!(check_all(&repository).is_clean());
    Ok(())
}

/// Locks are written by whoever likes.
#[test]
fn locks_of_nobody_are_read() -> anyhow::Result<()> {
    let repository = RepositoryBuilder::new().finish();
    let environment = Environment::detect();
    for pid in [0, -1, i64::MIN, i64::MAX, i64::from(i32::MAX)] {
        for time in ["0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"] {
            let lock = LockFile {
                time: Timestamp::parse(time).expect("a time"),
                exclusive: true,
                hostname: environment.hostname.clone(),
                username: "x".repeat(1 << 20),
                pid,
                uid: u32::MAX,
                gid: u32::MAX,
            };
            repository.save_unpacked(File::Lock, &lock)?;
        }
    }
    let held = soon(|| lock::held(&repository, &environment))?;
    assert_eq!(held.len(), 10);
    // No process has such a number, and a signal must never go to a group of them.
    assert!(held.iter().all(|held| held.stale), "{held:?}");
    assert_eq!(lock::remove_stale(&repository, &environment)?, 10);
    Ok(())
}
