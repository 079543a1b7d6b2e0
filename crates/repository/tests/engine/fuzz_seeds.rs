//! What the fuzzer starts from, and what it found: every file in `fuzz/seeds/` goes through its
//! target in every run of the tests, also where no fuzzer can be built.
//!
//! `MUSTER_BLESS=1 cargo test -p muster-repository --test engine fuzz_seeds` writes the seeds
//! anew from the fixtures. It leaves alone what begins with `crash-`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_repository::{
    compression::decompress_bounded,
    crypto::KeyMaterial,
    format::{
        go_json, go_quote,
        lock_file::LockFile,
        pack::{BlobKind, header_span},
        time::Timestamp,
        tree::Tree,
    },
    id::BlobId,
    repository::Repository,
    run::Run,
    storage::{File, FileKind, LocalStorage},
};
use muster_testkit::{Scratch, fixtures};

#[path = "../../../../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "a crate of its own uses it too")]
mod targets;

/// Larger examples say nothing that smaller ones do not, in bytes.
const SEED_BYTES_MAX: usize = 2500;

/// How many seeds of one target a fixture may give.
const SEEDS_PER_FIXTURE_MAX: usize = 3;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds")
}

#[test]
fn every_seed_passes_its_target() -> anyhow::Result<()> {
    if std::env::var_os("MUSTER_BLESS").is_some() {
        write_seeds()?;
    }
    for (name, target) in targets::TARGETS {
        let mut count = 0;
        for entry in
            fs::read_dir(folder().join(name)).with_context(|| format!("seeds of {name}"))?
        {
            let path = entry?.path();
            let bytes = fs::read(&path)?;
            let passed = std::panic::catch_unwind(|| target(&bytes));
            assert!(passed.is_ok(), "{} broke it", path.display());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
    Ok(())
}

/// The seeds of all targets, as they are collected.
struct Seeds {
    seen: BTreeSet<(&'static str, BlobId)>,
}

impl Seeds {
    fn add(&mut self, target: &'static str, name: &str, bytes: &[u8]) -> anyhow::Result<bool> {
        let is_new = bytes.len() <= SEED_BYTES_MAX && self.seen.insert((target, BlobId::of(bytes)));
        if is_new {
            fs::write(folder().join(target).join(name), bytes)?;
        }
        Ok(is_new)
    }

    /// The smallest few of what one fixture has for a target.
    fn add_some(
        &mut self,
        target: &'static str,
        fixture: &str,
        mut all: Vec<Vec<u8>>,
    ) -> anyhow::Result<()> {
        all.sort_by_key(|bytes| (bytes.len(), BlobId::of(bytes)));
        let mut added = 0;
        for bytes in all {
            let name = format!("{fixture}-{}", added + 1);
            if added < SEEDS_PER_FIXTURE_MAX && self.add(target, &name, &bytes)? {
                added += 1;
            }
        }
        Ok(())
    }
}

fn write_seeds() -> anyhow::Result<()> {
    for (target, _) in targets::TARGETS {
        let folder = folder().join(target);
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with("crash-") {
                fs::remove_file(entry.path())?;
            }
        }
    }
    let mut seeds = Seeds { seen: BTreeSet::new() };
    let scratch = Scratch::new("seeds")?;
    for fixture in fixtures::names()? {
        let path = fixtures::unpack(&fixture, scratch.path())?;
        let storage = Arc::new(LocalStorage::new(path));
        let repository = Repository::open(storage, fixtures::PASSWORD.as_bytes(), None)?;
        add_files(&mut seeds, &fixture, &repository)?;
        add_blobs(&mut seeds, &fixture, &repository)?;
    }
    add_handmade(&mut seeds)
}

fn add_files(seeds: &mut Seeds, fixture: &str, repository: &Repository) -> anyhow::Result<()> {
    let storage = repository.storage();
    let sealed = storage.read(File::Config, 1 << 20)?;
    seeds.add("config", fixture, &plaintext(repository, &sealed)?)?;
    for (kind, target) in [(FileKind::Index, "index_file"), (FileKind::Snapshot, "snapshot")] {
        let mut all = Vec::new();
        for listed in storage.list(kind)? {
            let plaintext = plaintext(repository, &storage.read(listed.file, 1 << 20)?)?;
            if let [2, compressed @ ..] = &plaintext[..] {
                all.push(decompress_bounded(compressed, 1 << 20)?);
            }
            all.push(plaintext);
        }
        seeds.add_some(target, fixture, all)?;
    }
    let mut keys = Vec::new();
    for listed in storage.list(FileKind::Key)? {
        keys.push(storage.read(listed.file, 1 << 20)?);
    }
    seeds.add_some("key_file", fixture, keys)?;
    let mut headers = Vec::new();
    for listed in storage.list(FileKind::Pack)? {
        let pack = storage.read(listed.file, 1 << 30)?;
        let field = pack.last_chunk().context("a pack has an end")?;
        let span = header_span(*field, pack.len() as u64)?;
        headers.push(plaintext(repository, &pack[pack.len() - span..pack.len() - 4])?);
    }
    seeds.add_some("pack_header", fixture, headers)
}

fn plaintext(repository: &Repository, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut plaintext = Vec::new();
    repository.key().open(sealed, &mut plaintext)?;
    Ok(plaintext)
}

fn add_blobs(seeds: &mut Seeds, fixture: &str, repository: &Repository) -> anyhow::Result<()> {
    let indexed = repository.load_index(&Run::new())?;
    let mut reader = indexed.blob_reader()?;
    let (mut trees, mut names) = (Vec::new(), Vec::new());
    for location in indexed.index().iter().filter(|found| found.blob.kind == BlobKind::Tree) {
        let mut plaintext = Vec::new();
        reader.read(BlobKind::Tree, location.blob.id, &mut plaintext)?;
        for node in Tree::parse(&plaintext)?.nodes {
            let quoted = go_quote::quote(&node.name).into_owned().into_bytes();
            if quoted != node.name {
                names.extend([quoted, node.name]);
            }
        }
        trees.push(plaintext);
    }
    seeds.add_some("tree", fixture, trees)?;
    seeds.add_some("go_quote", fixture, names)
}

fn add_handmade(seeds: &mut Seeds) -> anyhow::Result<()> {
    let lock = LockFile {
        time: Timestamp::parse("2024-03-01T09:00:00.123456789+01:00")?,
        exclusive: true,
        hostname: "host".to_owned(),
        username: "user".to_owned(),
        pid: 4711,
        uid: 1000,
        gid: 100,
    };
    seeds.add("lock_file", "exclusive", &go_json::to_vec(&lock)?)?;
    let shared = LockFile { exclusive: false, uid: 0, gid: 0, ..lock };
    seeds.add("lock_file", "shared", &go_json::to_vec(&shared)?)?;
    let KeyMaterial { encrypt, mac_k, mac_r } = &KeyMaterial::from_bytes(&[1; 64]);
    let [encrypt, k, r] = [&encrypt[..], mac_k, mac_r].map(|bytes| STANDARD.encode(bytes));
    let master = format!(r#"{{"mac":{{"k":"{k}","r":"{r}"}},"encrypt":"{encrypt}"}}"#);
    seeds.add("key_file", "master", master.as_bytes())?;
    for (name, text) in [
        ("escapes", r#"\a\b\f\n\r\t\v\\\"\x00\xff\007\u00e4\U0001f600"#),
        ("unprintable", "a\u{7f}\u{a0}\u{ad}\u{2028}\u{feff}\u{e000}\u{10ffff}\u{897}"),
        ("broken", r#"\q"#),
    ] {
        seeds.add("go_quote", name, text.as_bytes())?;
    }
    for (name, text) in [
        ("anywhere", "/home/ann/src/main.o\n*.o\n!main.*\n"),
        ("rooted", "/home/ann/.cache/x\n/home/*/.cache\n/home\n"),
        ("any-depth", "/a/b/c/d\n/a/**/d\n**/b/**\n**\n"),
        ("classes", "/a/[x]\n[a-c^-]?\\[x\\]\n[^a-z]\n[]\n"),
        ("file", "/h/u/x\n# comment\n  $HOME/${USER}/x$$ \n\n\u{feff}\n"),
        ("letters", "/Straße/ÄÖ\nSTRASSE\n/straße/äö\n"),
        ("unclean", "/a/b\n/a//b/\na/../b\n./a\n"),
    ] {
        seeds.add("patterns", name, text.as_bytes())?;
    }
    Ok(())
}
