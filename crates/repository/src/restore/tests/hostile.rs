//! Repositories and targets made by somebody who wishes us ill.

use super::*;

/// Every kind of link in the target, in place of folders and files, leads nowhere.
#[test]
fn nothing_is_followed_out_of_the_target() {
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never]
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
    let options = RestoreOptions { dry_run: true, ..RestoreOptions::new(target.path().join("t")) };
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
