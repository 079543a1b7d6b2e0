//! Restores of hand-made repositories: hostile, damaged, and awkward ones.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use muster_model::{Class, Fault};
use tempfile::TempDir;

use super::*;
use crate::{
    format::{
        index_file::IndexPack,
        pack::{BlobKind, PackedBlob},
        time::Timestamp,
        tree::Node,
    },
    storage::{File, memory::MemoryStorage},
    testing::{RepositoryBuilder, dir_node, file_node, node, symlink_node},
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn run(
    repository: &IndexedRepository,
    tree: BlobId,
    options: &RestoreOptions,
) -> Result<RestoreReport, RestoreError> {
    restore(repository, tree, options, &Run::new())
}

/// Restores a tree over whatever is in `target`.
fn over(
    target: &Path,
    overwrite: Overwrite,
    builder: RepositoryBuilder,
    tree: BlobId,
) -> RestoreReport {
    let options = RestoreOptions { overwrite, ..RestoreOptions::new(target) };
    run(&builder.finish(), tree, &options).unwrap()
}

/// A file with one chunk.
fn file(builder: &mut RepositoryBuilder, name: &str, content: &[u8]) -> Node {
    let chunk = builder.add_data_blob(content);
    file_node(name.as_bytes(), vec![chunk], content.len() as u64)
}

fn paths(report: &RestoreReport) -> Vec<String> {
    let mut paths: Vec<_> =
        report.problems.iter().map(|problem| problem.path.display().to_string()).collect();
    paths.sort();
    paths
}

/// The files of a folder, as they are and not what links lead to.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Damages the pack that holds the chunk, at the chunk.
fn damage(storage: &MemoryStorage, repository: &IndexedRepository, id: BlobId) {
    let place = repository.index().find(BlobKind::Data, id).unwrap();
    let mut files = storage.files();
    files.get_mut(&File::Pack(place.pack)).unwrap()[place.blob.offset as usize + 20] ^= 1;
}

mod damaged {
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
}

mod hostile {
    use super::*;

    /// Every kind of link in the target, in place of folders and files, leads nowhere.
    #[test]
    fn nothing_is_followed_out_of_the_target() {
        for overwrite in
            [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never]
        {
            let outside = folder();
            fs::write(outside.path().join("file"), "outside").unwrap();
            fs::create_dir(outside.path().join("sub")).unwrap();
            let before = fs::metadata(outside.path()).unwrap();
            let target = folder();
            symlink(outside.path(), target.path().join("dir")).unwrap();
            symlink(outside.path().join("file"), target.path().join("file")).unwrap();
            symlink(outside.path().join("new"), target.path().join("new")).unwrap();
            fs::hard_link(outside.path().join("file"), target.path().join("hard")).unwrap();

            let mut builder = RepositoryBuilder::new();
            let inner =
                vec![file(&mut builder, "file", b"inside"), file(&mut builder, "planted", b"x")];
            let inner = builder.add_tree(inner);
            let nodes = vec![
                Node { mtime: Timestamp::new(5_000_000_000, 0, 0), ..dir_node(b"dir", inner) },
                file(&mut builder, "file", b"inside!"),
                file(&mut builder, "hard", b"inside!"),
                file(&mut builder, "new", b"inside"),
            ];
            let tree = builder.add_tree(nodes);
            let repository = builder.finish();
            for delete in [false, true] {
                let options =
                    RestoreOptions { overwrite, delete, ..RestoreOptions::new(target.path()) };
                drop(run(&repository, tree, &options).unwrap());
            }
            assert_eq!(names(outside.path()), ["file", "sub"], "{overwrite:?}");
            assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"outside");
            let after = fs::metadata(outside.path()).unwrap();
            assert_eq!((after.mode(), after.mtime()), (before.mode(), before.mtime()));
            if matches!(overwrite, Overwrite::Always | Overwrite::IfChanged) {
                assert_eq!(fs::read(target.path().join("dir/planted")).unwrap(), b"x");
            }
        }
    }

    /// A snapshot whose own link points outside, and whose later entries would go through it.
    #[test]
    fn links_of_the_snapshot_lead_nowhere() {
        let outside = folder();
        let mut builder = RepositoryBuilder::new();
        let inner = vec![file(&mut builder, "f", b"x")];
        let inner = builder.add_tree(inner);
        let tree = builder.add_tree(vec![
            symlink_node(b"a", outside.path().as_os_str().as_encoded_bytes()),
            dir_node(b"b", inner),
        ]);
        // The same name twice, as link and as folder, is refused when the tree is read.
        let twice = builder.add_tree_bytes(
            format!(
                r#"{{"nodes":[{{"name":"a","type":"symlink","linktarget":"/tmp"}},
                {{"name":"a","type":"dir","subtree":"{inner}"}}]}}"#
            )
            .as_bytes(),
        );
        let repository = builder.finish();
        let target = folder();
        assert!(run(&repository, tree, &RestoreOptions::new(target.path())).unwrap().is_complete());
        assert_eq!(names(target.path()), ["a", "b"]);
        assert_eq!(names(outside.path()), Vec::<String>::new());
        let target = folder();
        assert!(run(&repository, twice, &RestoreOptions::new(target.path())).is_err());
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        for name in ["..", ".", "", "a/b", "/etc", "a\\u0000b", "../x"] {
            let mut builder = RepositoryBuilder::new();
            let bytes = format!(r#"{{"nodes":[{{"name":"{name}","type":"fifo"}}]}}"#);
            let bad = builder.add_tree_bytes(bytes.as_bytes());
            let tree = builder.add_tree(vec![dir_node(b"d", bad)]);
            let target = folder();
            let report = over(target.path(), Overwrite::Refuse, builder, tree);
            assert_eq!(paths(&report), ["d"], "{name}");
            assert_eq!(names(&target.path().join("d")), Vec::<String>::new());
        }
    }

    /// A file of the target that has another name outside is never changed, not even its owner.
    #[test]
    fn metadata_is_not_given_to_other_names_of_a_file() {
        let outside = folder();
        let secret = outside.path().join("secret");
        fs::write(&secret, "12345").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let found = fs::metadata(&secret).unwrap();
        let target = folder();
        fs::hard_link(&secret, target.path().join("f")).unwrap();
        let mut builder = RepositoryBuilder::new();
        let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap();
        let open = Node {
            mtime: Timestamp::new(found.mtime(), nanoseconds, 0),
            ..file(&mut builder, "f", b"12345")
        };
        let tree = builder.add_tree(vec![open]);
        let report = over(target.path(), Overwrite::IfChanged, builder, tree);
        assert!(report.is_complete());
        assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(target.path().join("f")).unwrap().mode() & 0o777, 0o644);
    }

    /// Deeper than any path can be, and then deeper than is accepted.
    #[test]
    fn depth_is_bounded_only_by_reason() {
        let mut builder = RepositoryBuilder::new();
        let leaf = vec![file(&mut builder, "leaf", b"deep")];
        let mut tree = builder.add_tree(leaf);
        let name = [b'n'; 200];
        for _ in 0..1500 {
            tree = builder.add_tree(vec![dir_node(&name, tree)]);
        }
        let repository = builder.finish();
        let target = folder();
        let mut options = RestoreOptions::new(target.path().join("t"));
        let report = run(&repository, tree, &options).unwrap();
        assert!(report.is_complete(), "{:?}", report.problems);
        assert_eq!((report.counts.folders_restored, report.counts.files_restored), (1500, 1));
        // Once more over it, and then away with it.
        (options.overwrite, options.delete) = (Overwrite::Always, true);
        let report = run(&repository, tree, &options).unwrap();
        assert_eq!((report.counts.folders_restored, report.counts.files_restored), (1500, 1));
        let mut builder = RepositoryBuilder::new();
        let nothing = builder.add_tree(vec![]);
        let report = run(&builder.finish(), nothing, &options).unwrap();
        assert_eq!((report.counts.deleted, report.counts.extra), (1501, 1));
        assert_eq!(names(&options.target), Vec::<String>::new());
    }

    #[test]
    fn deeper_still_is_a_problem_and_no_crash() {
        let mut builder = RepositoryBuilder::new();
        let mut tree = builder.add_tree(vec![]);
        for _ in 0..=DEPTH_MAX {
            tree = builder.add_tree(vec![dir_node(b"d", tree)]);
        }
        let repository = builder.finish();
        let target = folder();
        let options =
            RestoreOptions { dry_run: true, ..RestoreOptions::new(target.path().join("t")) };
        let report = run(&repository, tree, &options).unwrap();
        assert_eq!(report.problems.len(), 1);
        assert_eq!(report.problems[0].code(), "too-deep");
    }

    /// A tree that is small in the repository and has 2^40 folders when walked.
    #[test]
    fn endless_trees_can_be_cancelled() {
        let mut builder = RepositoryBuilder::new();
        let mut tree = builder.add_tree(vec![]);
        for _ in 0..40 {
            tree = builder.add_tree(vec![dir_node(b"a", tree), dir_node(b"b", tree)]);
        }
        let repository = builder.finish();
        let target = folder();
        let observer = Run::new();
        let watched = observer.clone();
        let canceller = thread::spawn(move || {
            while watched.progress.read().current.len() < "/a".repeat(40).len() {
                thread::yield_now();
            }
            watched.cancel.request("enough");
        });
        let error = restore(&repository, tree, &RestoreOptions::new(target.path()), &observer);
        canceller.join().unwrap();
        assert_eq!(error.unwrap_err().class(), Class::Interrupted);
    }

    /// One small chunk, wanted a hundred thousand times by a file, is opened once.
    #[test]
    fn repeated_chunks_are_opened_once() {
        let mut builder = RepositoryBuilder::new();
        let chunk = builder.add_data_blob(&[7; 1000]);
        let zeros = builder.add_data_blob(&[0; 100_000]);
        let tree = builder.add_tree(vec![
            file_node(b"sevens", vec![chunk; 100_000], 100_000_000),
            file_node(b"zeros", vec![zeros; 100_000], 10_000_000_000),
        ]);
        let target = folder();
        let report = over(target.path(), Overwrite::Refuse, builder, tree);
        assert!(report.is_complete(), "{:?}", report.problems);
        assert_eq!(report.counts.bytes_written, 100_000_000);
        let zeros = fs::metadata(target.path().join("zeros")).unwrap();
        assert_eq!((zeros.len(), zeros.blocks()), (10_000_000_000, 0));
    }
}

mod links {
    use super::*;

    fn name(name: &[u8], chunk: BlobId, inode: u64) -> Node {
        Node { links: 3, inode, device_id: 9, ..file_node(name, vec![chunk], 4) }
    }

    #[test]
    fn join_what_was_one_inode_and_nothing_else() {
        let mut builder = RepositoryBuilder::new();
        let (one, other) = (builder.add_data_blob(b"aaaa"), builder.add_data_blob(b"bbbb"));
        let inner = builder.add_tree(vec![name(b"c", one, 5)]);
        let fifo = |name: &[u8]| Node { links: 2, inode: 7, ..node(name, NodeKind::Fifo, 0o600) };
        let tree = builder.add_tree(vec![
            name(b"a", one, 5),
            name(b"b", other, 5),
            dir_node(b"d", inner),
            name(b"e", one, 6),
            fifo(b"p1"),
            fifo(b"p2"),
        ]);
        let target = folder();
        let report = over(target.path(), Overwrite::Refuse, builder, tree);
        assert!(report.is_complete(), "{:?}", report.problems);
        let inode = |path: &str| fs::metadata(target.path().join(path)).unwrap().ino();
        assert_eq!(inode("a"), inode("d/c"));
        assert_eq!(inode("p1"), inode("p2"));
        assert_ne!(inode("a"), inode("b"), "the content differs");
        assert_ne!(inode("a"), inode("e"));
        assert_eq!(fs::read(target.path().join("b")).unwrap(), b"bbbb");
    }

    /// When the first name is not selected or is kept, the next one gets the content.
    #[test]
    fn the_next_name_steps_in() {
        let mut builder = RepositoryBuilder::new();
        let chunk = builder.add_data_blob(b"aaaa");
        let inner = builder.add_tree(vec![name(b"x", chunk, 5), name(b"y", chunk, 5)]);
        let tree = builder.add_tree(vec![name(b"a", chunk, 5), dir_node(b"d", inner)]);
        let repository = builder.finish();
        let target = folder();
        let select: Select = Box::new(|path, _| Choice {
            selected: path.starts_with(b"/d/"),
            child_may_be_selected: true,
        });
        let options = RestoreOptions { select: Some(select), ..RestoreOptions::new(target.path()) };
        assert!(run(&repository, tree, &options).unwrap().is_complete());
        assert_eq!(names(target.path()), ["d"]);
        let meta = |path: &str| fs::metadata(target.path().join(path)).unwrap();
        assert_eq!(fs::read(target.path().join("d/x")).unwrap(), b"aaaa");
        assert_eq!(meta("d/x").ino(), meta("d/y").ino());

        let target = folder();
        fs::write(target.path().join("a"), "mine").unwrap();
        let options =
            RestoreOptions { overwrite: Overwrite::Never, ..RestoreOptions::new(target.path()) };
        assert!(run(&repository, tree, &options).unwrap().is_complete());
        assert_eq!(fs::read(target.path().join("a")).unwrap(), b"mine");
        assert_eq!(fs::read(target.path().join("d/x")).unwrap(), b"aaaa");
    }

    /// The first name is too long for the file system, its content is sound.
    #[test]
    fn a_first_name_that_cannot_be_made_is_replaced_by_the_next() {
        let mut builder = RepositoryBuilder::new();
        let chunk = builder.add_data_blob(b"aaaa");
        let tree = builder.add_tree(vec![
            name(&[b'a'; 300], chunk, 5),
            name(b"b", chunk, 5),
            name(b"c", chunk, 5),
        ]);
        let target = folder();
        let report = over(target.path(), Overwrite::Refuse, builder, tree);
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
        assert_eq!(names(target.path()), ["b", "c"]);
        assert_eq!(fs::metadata(target.path().join("b")).unwrap().nlink(), 2);
        assert_eq!(report.counts.files_restored, 2);
    }
}

mod existing {
    use super::*;

    #[test]
    fn a_target_that_is_not_empty_is_refused() {
        let mut builder = RepositoryBuilder::new();
        let tree = vec![file(&mut builder, "f", b"x")];
        let tree = builder.add_tree(tree);
        let repository = builder.finish();
        let target = folder();
        fs::create_dir(target.path().join("lost+found")).unwrap();
        assert!(run(&repository, tree, &RestoreOptions::new(target.path())).is_ok());
        let error = run(&repository, tree, &RestoreOptions::new(target.path())).unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Denied, "target-not-empty"));
        let file = target.path().join("f");
        let error = run(&repository, tree, &RestoreOptions::new(&file)).unwrap_err();
        assert_eq!(error.class(), Class::Input);
    }

    /// What is in the target (content, seconds since 1970), and what is there afterwards.
    fn check(overwrite: Overwrite, there: (&str, i64), expected: &str, skipped: u64) {
        let mut builder = RepositoryBuilder::new();
        let node =
            Node { mtime: Timestamp::new(1000, 7, 0), ..file(&mut builder, "f", b"snapshot") };
        let tree = builder.add_tree(vec![node]);
        let target = folder();
        let path = target.path().join("f");
        fs::write(&path, there.0).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(there.1.unsigned_abs(), 7);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let report = over(target.path(), overwrite, builder, tree);
        assert!(report.is_complete(), "{:?}", report.problems);
        assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{overwrite:?} {there:?}");
        assert_eq!(report.counts.files_skipped, skipped, "{overwrite:?} {there:?}");
        if skipped == 0 || overwrite == Overwrite::IfChanged {
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec()), (1000, 7));
            assert_eq!(found.mode() & 0o777, 0o644);
        }
    }

    #[test]
    fn files_are_replaced_as_told() {
        check(Overwrite::Always, ("longer than before", 5000), "snapshot", 0);
        check(Overwrite::Always, ("snapshot", 1000), "snapshot", 0);
        check(Overwrite::Never, ("other", 10), "other", 1);
        check(Overwrite::IfNewer, ("older", 999), "snapshot", 0);
        check(Overwrite::IfNewer, ("as old", 1000), "as old", 1);
        check(Overwrite::IfNewer, ("newer", 1001), "newer", 1);
        check(Overwrite::IfChanged, ("longer than before", 1000), "snapshot", 0);
        check(Overwrite::IfChanged, ("snapshot", 5000), "snapshot", 1);
        check(Overwrite::IfChanged, ("snapsh0t", 5000), "snapshot", 0);
        // Size and mtime are trusted, as by restic.
        check(Overwrite::IfChanged, ("snapsh0t", 1000), "snapsh0t", 1);
    }

    #[test]
    fn extra_things_are_listed_and_removed_only_when_told() {
        let build = |target: &Path| {
            fs::create_dir_all(target.join("d/extra/deep")).unwrap();
            fs::write(target.join("d/extra/deep/f"), "x").unwrap();
            fs::write(target.join("other"), "x").unwrap();
            fs::write(target.join("keep.log"), "x").unwrap();
            symlink("/etc", target.join("d/link")).unwrap();
        };
        let select = || -> Select {
            Box::new(|path, _| Choice {
                selected: !path.ends_with(b".log"),
                child_may_be_selected: true,
            })
        };
        let mut builder = RepositoryBuilder::new();
        let inner = vec![file(&mut builder, "f", b"x")];
        let inner = builder.add_tree(inner);
        let tree = builder.add_tree(vec![dir_node(b"d", inner)]);
        let repository = builder.finish();
        let extra = ["d/extra", "d/link", "other"];
        for (delete, dry_run, left) in [
            (false, false, vec!["d", "keep.log", "other"]),
            (true, true, vec!["d", "keep.log", "other"]),
            (true, false, vec!["d", "keep.log"]),
        ] {
            let target = folder();
            build(target.path());
            let options = RestoreOptions {
                delete,
                dry_run,
                overwrite: Overwrite::Always,
                select: Some(select()),
                ..RestoreOptions::new(target.path())
            };
            let report = run(&repository, tree, &options).unwrap();
            let mut found: Vec<_> = report.extra.iter().map(|p| p.display().to_string()).collect();
            found.sort();
            assert_eq!(found, extra);
            assert_eq!(names(target.path()), left);
            assert_eq!(report.counts.deleted, if delete && !dry_run { 5 } else { 0 });
            assert_eq!(target.path().join("d/f").exists(), !dry_run);
        }
    }

    #[test]
    fn folders_in_the_way_go_only_when_told() {
        let mut builder = RepositoryBuilder::new();
        let nodes = vec![
            file(&mut builder, "empty", b"1"),
            file(&mut builder, "full", b"2"),
            symlink_node(b"s", b"x"),
        ];
        let tree = builder.add_tree(nodes);
        let repository = builder.finish();
        let target = folder();
        for name in ["empty", "full", "s"] {
            fs::create_dir(target.path().join(name)).unwrap();
        }
        fs::write(target.path().join("full/f"), "x").unwrap();
        let mut options =
            RestoreOptions { overwrite: Overwrite::Always, ..RestoreOptions::new(target.path()) };
        let report = run(&repository, tree, &options).unwrap();
        assert_eq!(paths(&report), ["full"]);
        assert_eq!(report.problems[0].class(), Class::Conflict);
        assert!(target.path().join("full/f").exists());
        options.delete = true;
        let report = run(&repository, tree, &options).unwrap();
        assert!(report.is_complete(), "{:?}", report.problems);
        assert_eq!(fs::read(target.path().join("full")).unwrap(), b"2");
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let mut builder = RepositoryBuilder::new();
        let inner = vec![file(&mut builder, "f", b"xyz")];
        let inner = builder.add_tree(inner);
        let nodes =
            vec![dir_node(b"d", inner), file(&mut builder, "g", b"gg"), symlink_node(b"s", b"x")];
        let tree = builder.add_tree(nodes);
        let repository = builder.finish();
        let target = folder();
        let mut options =
            RestoreOptions { dry_run: true, ..RestoreOptions::new(target.path().join("new")) };
        let report = run(&repository, tree, &options).unwrap();
        let counts = &report.counts;
        assert_eq!(
            (counts.files_restored, counts.folders_restored, counts.others_restored),
            (2, 1, 1)
        );
        assert_eq!((counts.bytes_restored, counts.bytes_written), (5, 0));
        assert!(!options.target.exists());
        fs::create_dir(&options.target).unwrap();
        fs::write(options.target.join("d"), "in the way").unwrap();
        options.overwrite = Overwrite::Always;
        let report = run(&repository, tree, &options).unwrap();
        assert!(report.is_complete(), "{:?}", report.problems);
        assert_eq!(names(&options.target), ["d"]);
    }

    /// Folders whose ACL is inherited give it to nothing that is restored.
    #[test]
    fn nothing_is_inherited_from_the_target() {
        let target = folder();
        // user::rwx user:1000:rwx group::--- mask::rwx other::---
        let acl: Vec<u8> = [2, 0, 0, 0]
            .into_iter()
            .chain(
                [
                    (1_u16, 7_u16, u32::MAX),
                    (2, 7, 1000),
                    (4, 0, u32::MAX),
                    (16, 7, u32::MAX),
                    (32, 0, u32::MAX),
                ]
                .into_iter()
                .flat_map(|(tag, permissions, id)| {
                    [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
                }),
            )
            .collect();
        let set = rustix::fs::setxattr(
            target.path(),
            metadata::DEFAULT_ACL,
            &acl,
            rustix::fs::XattrFlags::empty(),
        );
        if set.is_err() {
            return; // The file system has no ACLs.
        }
        fs::set_permissions(target.path(), fs::Permissions::from_mode(0o2775)).unwrap();
        let mut builder = RepositoryBuilder::new();
        let inner = vec![file(&mut builder, "f", b"x")];
        let inner = builder.add_tree(inner);
        let nodes = vec![
            dir_node(b"d", inner),
            file(&mut builder, "f", b"x"),
            node(b"p", NodeKind::Fifo, 0o640),
        ];
        let tree = builder.add_tree(nodes);
        let report = over(target.path(), Overwrite::Refuse, builder, tree);
        assert!(report.is_complete(), "{:?}", report.problems);
        for (path, mode) in [("d", 0o755), ("d/f", 0o644), ("f", 0o644), ("p", 0o640)] {
            let path = target.path().join(path);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{}", path.display());
            for acl in [metadata::ACCESS_ACL, metadata::DEFAULT_ACL] {
                assert!(rustix::fs::getxattr_query(&path, acl).is_err(), "{}", path.display());
            }
        }
    }
}

mod content {
    use super::*;

    #[test]
    fn zeros_become_holes() {
        let mut content = vec![0; 3 << 20];
        content[1 << 20] = 1;
        let mut builder = RepositoryBuilder::new();
        let chunks: Vec<BlobId> =
            content.chunks(1_000_000).map(|chunk| builder.add_data_blob(chunk)).collect();
        let tree = builder.add_tree(vec![file_node(b"f", chunks, content.len() as u64)]);
        let target = folder();
        fs::write(target.path().join("f"), vec![0xff; 5 << 20]).unwrap();
        let report = over(target.path(), Overwrite::Always, builder, tree);
        let path = target.path().join("f");
        assert!(fs::read(&path).unwrap() == content, "nothing of the old content shines through");
        assert!(report.counts.bytes_written <= 4096, "{:?}", report.counts);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 <= 64 << 10);
    }

    #[test]
    fn files_of_many_chunks_in_many_packs_are_put_together() {
        let mut builder = RepositoryBuilder::new();
        let mut files: Vec<(String, Vec<BlobId>, Vec<u8>)> =
            (0..300).map(|i| (format!("f{i}"), Vec::new(), Vec::new())).collect();
        // Chunk by chunk across all files, so that each file lies in every pack and more files
        // are under way than may be open.
        for round in 0..5_u8 {
            for (i, (_, chunks, content)) in files.iter_mut().enumerate() {
                let chunk = vec![round; i + 1];
                chunks.push(builder.add_data_blob(&chunk));
                content.extend(chunk);
            }
            builder.close_packs();
        }
        let nodes = files
            .iter()
            .map(|(name, chunks, content)| {
                file_node(name.as_bytes(), chunks.clone(), content.len() as u64)
            })
            .collect();
        let tree = builder.add_tree(nodes);
        let target = folder();
        let options = RestoreOptions { verify: true, ..RestoreOptions::new(target.path()) };
        let report = run(&builder.finish(), tree, &options).unwrap();
        assert!(report.is_complete(), "{:?}", report.problems);
        assert_eq!(names(target.path()).len(), 300, "no temporary name is left");
        for (name, _, content) in files {
            assert!(fs::read(target.path().join(&name)).unwrap() == content, "{name}");
        }
    }

    #[test]
    fn what_is_not_selected_is_not_there_and_its_folders_keep_their_times() {
        let mut builder = RepositoryBuilder::new();
        let inner =
            vec![file(&mut builder, "keep.txt", b"1"), file(&mut builder, "drop.bin", b"2")];
        let inner = builder.add_tree(inner);
        let empty = builder.add_tree(vec![]);
        let at = |seconds| Timestamp::new(seconds, 0, 0);
        let tree = builder.add_tree(vec![
            Node {
                mtime: at(-86_400),
                mode: crate::format::mode::go_mode(NodeKind::Dir, 0o1711),
                ..dir_node(b"d", inner)
            },
            dir_node(b"e", empty),
        ]);
        let target = folder();
        let select: Select = Box::new(|path, kind| Choice {
            selected: path.ends_with(b".txt"),
            child_may_be_selected: kind == NodeKind::Dir,
        });
        let options = RestoreOptions { select: Some(select), ..RestoreOptions::new(target.path()) };
        let report = run(&builder.finish(), tree, &options).unwrap();
        assert!(report.is_complete());
        assert_eq!(names(target.path()), ["d"]);
        assert_eq!(names(&target.path().join("d")), ["keep.txt"]);
        let found = fs::metadata(target.path().join("d")).unwrap();
        assert_eq!((found.mtime(), found.mode() & 0o7777), (-86_400, 0o1711));
        assert_eq!(report.counts.folders_restored, 1);
    }

    #[test]
    fn verifying_notices_what_differs() {
        let (dir, mut builder) = (folder(), RepositoryBuilder::new());
        let (one, two) = (builder.add_data_blob(b"first"), builder.add_data_blob(b"second"));
        let repository = builder.finish();
        let path = dir.path().join("f");
        fs::write(&path, b"firstsecond").unwrap();
        let open = fs::File::options().read(true).write(true).open(&path).unwrap();
        let compare = || write::first_difference(&open, &[one, two], repository.index()).unwrap();
        assert_eq!(compare(), None);
        open.write_at(b"S", 5).unwrap();
        assert_eq!(compare(), Some(5..11));
        open.set_len(8).unwrap();
        assert_eq!(compare(), Some(5..11));
        fs::write(&path, b"firstsecond and more").unwrap();
        assert_eq!(compare(), Some(11..11));
    }

    #[test]
    fn progress_ends_at_its_totals() {
        let mut builder = RepositoryBuilder::new();
        let inner = vec![file(&mut builder, "f", b"xyz"), symlink_node(b"s", b"x")];
        let inner = builder.add_tree(inner);
        let tree = builder.add_tree(vec![dir_node(b"d", inner)]);
        let target = folder();
        let observer = Run::new();
        let options = RestoreOptions::new(target.path());
        assert!(restore(&builder.finish(), tree, &options, &observer).unwrap().is_complete());
        let reading = observer.progress.read();
        assert_eq!((reading.files_done, reading.files_total), (3, Some(3)));
        assert_eq!((reading.bytes_done, reading.bytes_total), (3, Some(3)));
    }
}
