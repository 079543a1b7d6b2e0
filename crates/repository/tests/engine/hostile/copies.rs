//! Copies and key rotations out of repositories by somebody who wishes us ill.
//!
//! What cannot be read is told of the snapshots that need it, and of it nothing comes into the
//! target; the others are copied. What the source claims costs no more than it is worth.

use std::collections::HashSet;

use muster_repository::{
    copy::{CopyReport, copy},
    format::{
        key_file::Cost,
        pack::{header_span, read_header},
    },
    index::Index,
    packer::PackOptions,
    prune::{Limit, PruneOptions, prune},
    repair::snapshots,
    rotate,
    storage::FileKind,
};

use super::*;

/// Copies everything of `source` into a new repository, in which all is sound afterwards: no blob
/// is there, in a pack or in the index, that does not match its id. Then a key is rotated, too,
/// with the same outcome, and is not taken for finished unless all was copied.
fn copied(source: &IndexedRepository) -> anyhow::Result<CopyReport> {
    let snapshots = source.snapshots()?;
    let builder = RepositoryBuilder::new();
    let storage = builder.storage();
    let target = builder.finish();
    let copy_to = |target: IndexedRepository| {
        let (to, options) = (target.into(), PackOptions::default());
        soon(|| copy(source, to, &snapshots, options, &Run::new(), &mut |_| {}))
    };
    let report = copy_to(target.clone())?;
    assert_sound(&storage, &target);

    let place = Arc::new(MemoryStorage::new());
    let password = testing::PASSWORD.to_vec().into();
    let author = Environment::detect().author();
    let new = rotate::begin(source, place.clone(), &password, Cost::FOR_TESTS, author)?;
    let rotated = copy_to(new.load_index(&Run::new())?)?;
    assert_eq!(rotated.copied.len(), report.copied.len());
    assert_sound(&place, &new);
    let proof = soon(|| rotate::verify(source, &new, ReadData::All, None, &Run::new()))?;
    assert_eq!(proof.is_complete(), report.failed.is_empty());
    assert_eq!(proof.standing.missing.len(), report.failed.len());
    Ok(report)
}

/// Everything in the repository is whole, and every blob in it is what its id says.
fn assert_sound(storage: &MemoryStorage, repository: &Repository) {
    let report = check_all(repository);
    assert!(report.is_clean() && report.hints.is_empty(), "{:#?}", told(&report));
    let indexed = repository.load_index(&Run::new()).expect("a sound index");
    let mut reader = indexed.blob_reader().expect("memory");
    let mut plaintext = Vec::new();
    let mut in_index = 0;
    for location in indexed.index().iter() {
        reader.read_at(&location, &mut plaintext).expect("a sound blob");
        assert_eq!(BlobId::of(&plaintext), location.blob.id);
        in_index += 1;
    }
    let mut in_packs = 0;
    for listed in storage.list(FileKind::Pack).expect("memory") {
        let content = storage.read(listed.file, 1 << 30).expect("memory");
        let field = *content.last_chunk().expect("a pack has an end");
        let span = header_span(field, listed.bytes).expect("a sound pack");
        let header = &content[content.len() - span..];
        in_packs += read_header(repository.key(), header, listed.bytes).expect("sound").len();
    }
    assert_eq!(in_packs, in_index);
}

/// The class of each failure; each names what is wrong.
fn failures(report: &CopyReport) -> Vec<Class> {
    for (_, error) in &report.failed {
        assert!(error.to_string().len() < 1000 && !error.code().is_empty(), "{error}");
    }
    report.failed.iter().map(|(_, error)| error.class()).collect()
}

#[test]
fn content_under_another_id_is_never_copied() -> anyhow::Result<()> {
    let mut builder = RepositoryBuilder::new();
    let (good, claimed) = (builder.add_data_blob(b"good"), BlobId::of(b"what it is said to be"));
    builder.add(BlobKind::Data, claimed, b"something else");
    let sound = builder.add_tree(vec![file_node(b"good", vec![good], 4)]);
    let evil = builder.add_tree(vec![file_node(b"evil", vec![claimed, good], 25)]);
    let other = BlobId::of(b"a tree that is said to be there");
    builder.add(BlobKind::Tree, other, b"{\"nodes\":[]}");
    // A chunk as a tree, and a tree as a chunk.
    let as_tree = builder.add_tree(vec![dir_node(b"chunk", good)]);
    let as_chunk = builder.add_tree(vec![file_node(b"tree", vec![sound], 9)]);
    let repository = builder.finish();
    for tree in [evil, sound, other, as_tree, as_chunk] {
        save_snapshot(&repository, tree);
    }
    let report = copied(&repository)?;
    assert_eq!(report.copied.len(), 1);
    assert_eq!(failures(&report), [Class::Corrupt; 4]);
    Ok(())
}

/// Blobs that lie over one another, beyond the end of their pack, and are longer than they are.
#[test]
fn an_index_that_lies_about_places_costs_only_its_snapshots() -> anyhow::Result<()> {
    let mut builder = RepositoryBuilder::new().uncompressed();
    let good = builder.add_data_blob(b"good");
    builder.close_packs();
    let pack = builder.packs()[0].id;
    let sound = builder.add_tree(vec![file_node(b"good", vec![good], 4)]);
    builder.close_packs();
    let mut trees = vec![sound];
    let blob = |id, offset, length, uncompressed| PackedBlob {
        id,
        kind: BlobKind::Data,
        offset,
        length,
        uncompressed_length: NonZeroU32::new(uncompressed),
    };
    let mut blobs = Vec::new();
    for (n, (offset, length, uncompressed)) in [
        (0, 36, 0),
        (1, 36, 0),
        (0, 35, 0),
        (0, 36, 4),
        (0, 36, 256 << 20),
        (0, 256 << 20, 0),
        (u32::MAX - 40, 40, 0),
        (2 << 30, 1 << 28, 1 << 28),
    ]
    .into_iter()
    .enumerate()
    {
        let id = BlobId::of(&[u8::try_from(n)?]);
        blobs.push(blob(id, offset, length, uncompressed).into());
        trees.push(builder.add_tree(vec![file_node(b"lie", vec![good, id], 8)]));
    }
    builder.add_index_entry(IndexPack { id: pack, blobs });
    let repository = builder.finish();
    for tree in trees {
        save_snapshot(&repository, tree);
    }
    let report = copied(&repository)?;
    assert_eq!((report.copied.len(), report.failed.len()), (1, 8));
    assert_eq!(failures(&report), [Class::Corrupt; 8]);
    Ok(())
}

/// A billion paths in thirty trees are copied as thirty trees.
#[test]
fn shared_trees_are_copied_once() -> anyhow::Result<()> {
    let mut builder = RepositoryBuilder::new();
    let name = vec![b'x'; 100_000];
    let mut tree = builder.add_tree(vec![file_node(b"leaf", vec![], 0)]);
    for _ in 0..30 {
        tree = builder.add_tree(vec![dir_node(&name, tree), dir_node(b"y", tree)]);
    }
    let repository = builder.finish();
    save_snapshot(&repository, tree);
    let report = copied(&repository)?;
    assert_eq!((report.copied.len(), report.stats.tree_blobs), (1, 31));
    Ok(())
}

/// A chunk that an index claims for very many packs, one of which there is, and a file that names
/// it as often: whoever asked all packs for each name would be at it for hours.
#[test]
fn countless_copies_of_a_chunk_are_not_asked_for_each_name() -> anyhow::Result<()> {
    const COPIES: u32 = 60_000;
    const NAMES: usize = 200_000;
    let build = |real: bool| -> (IndexedRepository, BlobId) {
        let mut builder = RepositoryBuilder::new().uncompressed();
        let chunk = BlobId::of(b"x");
        let uncompressed_length = None;
        let kind = BlobKind::Data;
        let blob = PackedBlob { id: chunk, kind, offset: 0, length: 33, uncompressed_length };
        for n in 0..COPIES {
            let id = PackId::of(&n.to_le_bytes());
            builder.add_index_entry(IndexPack { id, blobs: vec![blob.into()] });
        }
        if real {
            builder.add_data_blob(b"x");
            builder.close_packs();
        }
        let content = vec![chunk; NAMES];
        let tree = builder.add_tree(vec![file_node(b"many", content, NAMES as u64)]);
        let repository = builder.finish();
        save_snapshot(&repository, tree);
        (repository, tree)
    };
    let (repository, tree) = build(true);
    assert_eq!(copies(repository.index()), COPIES as usize + 1);
    let sandbox = Sandbox::new("copies")?;
    let target = sandbox.join("target");
    let report = restore_into(&target, &repository, tree, Overwrite::Refuse)?;
    assert!(report.is_complete(), "{:#?}", report.problems);
    assert_eq!(std::fs::read(target.join("many"))?, vec![b'x'; NAMES]);
    let report = copied(&repository)?;
    assert_eq!((report.copied.len(), report.stats.data_blobs), (1, 1));
    let options =
        PruneOptions { max_unused: Limit::Bytes(0), dry_run: true, ..PruneOptions::default() };
    let planned = soon(|| prune(&repository, &options, &Environment::detect(), &Run::new()));
    assert!(planned.is_ok(), "one copy is there: {planned:?}");

    // None of them is there.
    let (repository, _) = build(false);
    let report = copied(&repository)?;
    assert_eq!(report.failed.len(), 1);
    let list = snapshots::list(&repository)?;
    let options = snapshots::RepairSnapshotsOptions::default();
    let repaired = soon(|| snapshots::repair(&repository, &list, &options, &Run::new()))?;
    assert_eq!(repaired.snapshots.len(), 1);
    Ok(())
}

fn copies(index: &Index) -> usize {
    let packs: HashSet<PackId> = index.packs().collect();
    packs.iter().filter(|pack| index.pack_blobs(pack)[0].kind == BlobKind::Data).count()
}
