//! Repositories with damage.

use super::*;

#[test]
fn concerns_only_the_files_that_need_it() {
    let mut builder = RepositoryBuilder::new();
    let storage = builder.storage();
    let (good, bad) = (builder.add_data_blob(b"good"), builder.add_data_blob(b"bad"));
    let inner = builder.add_tree(vec![file_node(b"x", vec![bad], 3)]);
    let tree = builder.add_tree(vec![
        file_node(b"a", vec![good], 4),
        file_node(b"b", vec![good, bad, good], 11),
        file_node(b"c", vec![bad], 3),
        file_node(b"d", vec![good, good], 8),
        dir_node(b"e", inner),
    ]);
    let repository = builder.finish();
    damage(&storage, &repository, bad);
    let target = folder();
    let report = run(&repository, tree, &RestoreOptions::new(target.path())).unwrap();
    assert_eq!(paths(&report), ["b", "c", "e/x"]);
    assert!(report.found_damage() && !report.is_complete());
    assert!(report.problems.iter().all(|p| p.class() == Class::Corrupt));
    assert_eq!(names(target.path()), ["a", "d", "e"]);
    assert_eq!(fs::read(target.path().join("d")).unwrap(), b"goodgood");
    assert_eq!(names(&target.path().join("e")), Vec::<String>::new());
}

#[test]
fn copies_are_used_instead() {
    let mut builder = RepositoryBuilder::new();
    let storage = builder.storage();
    let bad = builder.add_data_blob(b"content");
    builder.close_packs();
    builder.add_data_blob(b"other");
    builder.add_data_blob(b"content");
    let tree = builder.add_tree(vec![file_node(b"f", vec![bad, bad], 14)]);
    let repository = builder.finish();
    for place in repository.index().find_all(BlobKind::Data, bad).collect::<Vec<_>>() {
        // One copy after the other, and the whole pack of the first.
        let target = folder();
        let sound = storage.files().remove(&File::Pack(place.pack)).unwrap();
        let report = run(&repository, tree, &RestoreOptions::new(target.path())).unwrap();
        assert!(report.is_complete(), "{:?}", report.problems);
        assert_eq!(fs::read(target.path().join("f")).unwrap(), b"contentcontent");
        storage.files().insert(File::Pack(place.pack), sound);
    }
}

#[test]
fn chunks_in_no_index_and_trees_that_are_gone() {
    let mut builder = RepositoryBuilder::new();
    let missing = BlobId::of(b"missing");
    let broken = builder.add_tree_bytes(b"{\"nodes\":[{}]}");
    let sound = file(&mut builder, "z", b"z");
    let tree = builder.add_tree(vec![
        dir_node(b"broken", broken),
        file_node(b"f", vec![missing], 7),
        dir_node(b"gone", missing),
        sound,
    ]);
    let repository = builder.finish();
    let target = folder();
    fs::create_dir(target.path().join("gone")).unwrap();
    fs::write(target.path().join("gone/kept"), "x").unwrap();
    let mut options = RestoreOptions::new(target.path());
    (options.overwrite, options.delete) = (Overwrite::Always, true);
    let report = run(&repository, tree, &options).unwrap();
    assert_eq!(paths(&report), ["broken", "f", "gone"]);
    assert!(report.problems.iter().all(|problem| problem.class() == Class::Corrupt));
    assert_eq!(names(target.path()), ["broken", "gone", "z"]);
    assert!(target.path().join("gone/kept").exists(), "nothing is known to be extra there");
    let error = run(&repository, missing, &options).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
}

#[test]
fn what_lay_there_before_stays() {
    let mut builder = RepositoryBuilder::new();
    let storage = builder.storage();
    let bad = builder.add_data_blob(b"bad");
    let tree = builder.add_tree(vec![file_node(b"f", vec![bad], 3)]);
    let repository = builder.finish();
    damage(&storage, &repository, bad);
    let target = folder();
    fs::write(target.path().join("f"), "the last copy").unwrap();
    let options =
        RestoreOptions { overwrite: Overwrite::Always, ..RestoreOptions::new(target.path()) };
    let report = run(&repository, tree, &options).unwrap();
    assert_eq!(paths(&report), ["f"]);
    assert_eq!(fs::read(target.path().join("f")).unwrap(), b"the last copy");
    assert_eq!(names(target.path()), ["f"]);
}

/// Other names of an unreadable inode are each listed.
#[test]
fn hard_links_of_unreadable_files_are_all_told() {
    let mut builder = RepositoryBuilder::new();
    let storage = builder.storage();
    let bad = builder.add_data_blob(b"bad");
    let name = |name: &[u8]| Node { links: 3, inode: 5, ..file_node(name, vec![bad], 3) };
    let tree = builder.add_tree(vec![name(b"a"), name(b"b"), name(b"c")]);
    let repository = builder.finish();
    damage(&storage, &repository, bad);
    let target = folder();
    let report = run(&repository, tree, &RestoreOptions::new(target.path())).unwrap();
    assert_eq!(paths(&report), ["a", "b", "c"]);
    assert_eq!(names(target.path()), Vec::<String>::new());
}

/// An index that lies about a chunk's length.
#[test]
fn lies_of_the_index_are_noticed() {
    let mut builder = RepositoryBuilder::new().uncompressed();
    let chunk = builder.add_data_blob(b"0123456789");
    builder.close_packs();
    let tree = builder.add_tree(vec![file_node(b"f", vec![chunk, chunk], 20)]);
    let pack = builder.packs()[0].id;
    for (offset, length, promised) in
        [(0, 40, None), (1, 42, None), (0, 42, Some(11)), (9000, 50, None)]
    {
        let uncompressed_length = promised.and_then(std::num::NonZeroU32::new);
        let blob =
            PackedBlob { id: chunk, kind: BlobKind::Data, offset, length, uncompressed_length };
        let lie = IndexPack { id: pack, blobs: vec![blob.into()] };
        builder.close_packs();
        let mut index = crate::index::Index::new();
        index.add_pack(&lie);
        for sound in builder.packs() {
            index.add_pack(sound);
        }
        let repository = IndexedRepository::with_index(builder.repository(), index);
        let target = folder();
        let report = run(&repository, tree, &RestoreOptions::new(target.path())).unwrap();
        match report.is_complete() {
            true => {
                assert_eq!(fs::read(target.path().join("f")).unwrap(), b"01234567890123456789")
            }
            false => assert_eq!(names(target.path()), Vec::<String>::new()),
        }
    }
}
