//! Targets that hold something already.

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
    let node = Node { mtime: Timestamp::new(1000, 7, 0), ..file(&mut builder, "f", b"snapshot") };
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
        Arc::new(|path, _| Choice {
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
    assert_eq!((counts.files_restored, counts.folders_restored, counts.others_restored), (2, 1, 1));
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
