//! Trees that no backup makes, and what becomes of those who read them.

use std::sync::mpsc::{self, RecvTimeoutError};

use muster_repository::{
    copy::copy,
    exclude::Patterns,
    packer::PackOptions,
    repair::snapshots,
    rewrite::{RewriteOptions, rewrite},
};

use super::*;

/// What is no tree is told by all who read trees, by name, and is no end.
#[test]
fn what_is_no_tree_is_read_by_nobody() -> anyhow::Result<()> {
    let with_name =
        |name: &str| format!(r#"{{"nodes":[{{"name":"{name}","type":"file","content":[]}}]}}"#);
    let twice = |a: &str, b: &str| {
        let entry =
            |name: &str| format!(r#"{{"name":"{name}","type":"symlink","linktarget":"/"}}"#);
        format!(r#"{{"nodes":[{},{}]}}"#, entry(a), entry(b))
    };
    let long = "x".repeat(10_000);
    for text in [
        with_name(".."),
        with_name("."),
        with_name(""),
        with_name("a/b"),
        with_name("/etc/passwd"),
        with_name("a\\u0000b"),
        with_name("a\\\\x00b"),
        with_name("\\\\056\\\\056"),
        with_name("a\\\\x2fb"),
        with_name("\\\\u002e."),
        with_name("\\\\"),
        twice("a", "a"),
        twice("a", "\\\\x61"),
        twice("b", "a"),
        r#"{"nodes":[{"name":"a","type":"file"}]}"#.to_owned(),
        r#"{"nodes":[{"name":"a","type":"dir"}]}"#.to_owned(),
        r#"{"nodes":[{"name":"a","type":"rocket"}]}"#.to_owned(),
        r#"{"nodes":[{"name":"a","type":"file","content":[],"size":-1}]}"#.to_owned(),
        r#"{"nodes":[{"name":"a","type":"file","content":["00"]}]}"#.to_owned(),
        r#"{"nodes":7}"#.to_owned(),
        format!("data, no tree: {long}"),
        " ".to_owned(),
    ] {
        let mut builder = RepositoryBuilder::new();
        let bad = builder.add_tree_bytes(text.as_bytes());
        let below = builder.add_tree(Vec::new());
        let root = builder.add_tree(vec![dir_node(b"bad", bad), dir_node(b"good", below)]);
        let other = builder.add_tree(vec![dir_node(b"good", below)]);
        let repository = builder.finish();
        save_snapshot(&repository, root);
        let lines = told(&check_all(&repository));
        let is_named = |line: &String| line.starts_with(&format!("tree blob {bad}"));
        assert!(lines.len() == 1 && is_named(&lines[0]), "{text:.200}: {lines:#?}");
        let is_corrupt = |error: &ReadError| error.class() == Class::Corrupt;
        let options = LsOptions { recursive: true, ..LsOptions::default() };
        let listed = Ls::new(&repository, root, &options)?;
        let unreadable = listed.filter(|step| match step {
            LsStep::Unreadable { path, error } => path == b"/bad" && is_corrupt(error),
            _ => false,
        });
        assert_eq!(unreadable.count(), 1, "{text:.200}");
        let mut told = 0;
        let options = DiffOptions::default();
        let report = diff(&repository, root, other, options, &Run::new(), |_| {
            told += 1;
            Ok::<_, ReadError>(())
        })?;
        assert!(report.unreadable == 1 && told >= 1, "{text:.200}");
        for mode in StatsMode::ALL {
            let mut counter = StatsCounter::new(&repository, mode);
            counter.add(&snapshot(root), &Run::new())?;
            assert_eq!(counter.finish().unreadable.len(), 1, "{mode} of {text:.200}");
        }
        let root_itself = restore(
            &repository,
            bad,
            &RestoreOptions::new(Sandbox::new("no-tree")?.join("target")),
            &Run::new(),
        );
        assert_eq!(root_itself.expect_err("no tree").class(), Class::Corrupt);
    }
    Ok(())
}

/// Thirty folders, each of which holds the next one twice: a billion paths in a few kilobytes.
/// Whoever must go all of them stops when told.
#[test]
fn countless_paths_can_be_cancelled() -> anyhow::Result<()> {
    let build = |builder: &mut RepositoryBuilder, leaf: &[u8]| {
        let mut tree = builder.add_tree(vec![file_node(leaf, vec![], u64::MAX)]);
        for _ in 0..30 {
            tree = builder.add_tree(vec![dir_node(b"x", tree), dir_node(b"y", tree)]);
        }
        tree
    };
    let mut builder = RepositoryBuilder::new();
    let (one, two) = (build(&mut builder, b"one"), build(&mut builder, b"two"));
    let repository = builder.finish();
    save_snapshot(&repository, one);
    let report = check_all(&repository);
    assert_eq!(report.counts.trees, 31);
    for mode in StatsMode::ALL {
        let run = Run::new();
        let mut counter = StatsCounter::new(&repository, mode);
        let counted = cancelled_after(10_000, &run, || counter.add(&snapshot(one), &run));
        // Each tree once is not many.
        assert_eq!(counted.is_ok(), mode == StatsMode::RawData, "{mode}");
        assert!(counted.err().is_none_or(|error| error.class() == Class::Interrupted));
    }
    let run = Run::new();
    let mut steps = 0_u64;
    let compared = soon(|| {
        diff(&repository, one, two, DiffOptions::default(), &run, |_| {
            steps += 1;
            if steps == 1000 {
                run.cancel.request("enough");
            }
            Ok::<_, ReadError>(())
        })
    });
    assert_eq!(compared.expect_err("cancelled").class(), Class::Interrupted);
    let options = LsOptions { recursive: true, ..LsOptions::default() };
    assert_eq!(
        soon(|| Ls::new(&repository, one, &options).map(|ls| ls.take(10_000).count()))?,
        10_000
    );
    Ok(())
}

/// Cancels the run when it has counted so many items, from another thread as a signal would.
fn cancelled_after<T>(items: u64, run: &Run, act: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            while run.progress.read().files_done < items {
                let waited = ended.recv_timeout(Duration::from_millis(1));
                if waited != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
            run.cancel.request("enough");
        });
        let result = soon(act);
        drop(done);
        result
    })
}

/// Names that together make a path of gigabytes.
#[test]
fn endless_names_do_not_add_up() -> anyhow::Result<()> {
    let name = vec![b'x'; 1 << 20];
    let mut builder = RepositoryBuilder::new();
    let mut tree = builder.add_tree(Vec::new());
    for _ in 0..200 {
        tree = builder.add_tree(vec![dir_node(&name, tree)]);
    }
    let repository = builder.finish();
    save_snapshot(&repository, tree);
    let options = LsOptions { recursive: true, ..LsOptions::default() };
    let longest = soon(|| {
        let lengths = Ls::new(&repository, tree, &options)?.map(|step| match step {
            LsStep::Listed(entry) | LsStep::OnTheWay(entry) => entry.path.len(),
            LsStep::Unreadable { path, error } => {
                assert_eq!(error.class(), Class::Corrupt);
                path.len()
            }
            LsStep::Left { path } => path.len(),
        });
        Ok::<_, ReadError>(lengths.max())
    })?;
    assert!(longest.is_some_and(|bytes| bytes < 16 << 20), "a path of {longest:?} bytes");
    assert!(check_all(&repository).is_clean());
    let sandbox = Sandbox::new("names")?;
    let report = restore_into(&sandbox.join("target"), &repository, tree, Overwrite::Refuse)?;
    assert_eq!(report.counts.problems, 1);
    Ok(())
}

/// A first snapshot puts a link, a second one a folder of the same name: what is restored over
/// it stays inside, whichever way of overwriting is chosen.
#[test]
fn a_link_of_one_snapshot_is_no_way_out_for_the_next() -> anyhow::Result<()> {
    let sandbox = Sandbox::new("link-then-folder")?;
    let outside = sandbox.folder("outside")?;
    std::fs::write(outside.join("victim"), "precious")?;
    std::fs::create_dir(outside.join("dir"))?;
    let before = std::fs::metadata(outside.join("victim"))?;
    let mut builder = RepositoryBuilder::new();
    let chunk = builder.add_data_blob(b"evil");
    let evil = |name: &[u8]| {
        let (inode, device_id, links) = (before.ino(), before.dev(), 2);
        Node { inode, device_id, links, ..file_node(name, vec![chunk], 4) }
    };
    let link = |name: &[u8], to: &Path| symlink_node(name, to.as_os_str().as_encoded_bytes());
    let first = builder.add_tree(vec![
        link(b"d", &outside),
        link(b"e", &outside.join("dir")),
        link(b"victim", &outside.join("victim")),
        link(b"loop", Path::new("loop")),
    ]);
    let below = builder.add_tree(vec![evil(b"dir"), evil(b"new"), evil(b"victim")]);
    let second = builder.add_tree(vec![
        dir_node(b"d", below),
        dir_node(b"e", below),
        evil(b"victim"),
        dir_node(b"loop", below),
    ]);
    let repository = builder.finish();
    let modes = [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never];
    for (n, overwrite) in modes.into_iter().enumerate() {
        let target = sandbox.join(&format!("target-{n}"));
        for (tree, overwrite) in [
            (first, Overwrite::Refuse),
            (second, overwrite),
            (first, overwrite),
            (second, overwrite),
        ] {
            drop(restore_into(&target, &repository, tree, overwrite)?);
        }
        let replaced = matches!(overwrite, Overwrite::Always | Overwrite::IfChanged);
        assert_eq!(target.join("d").symlink_metadata()?.is_dir(), replaced, "{overwrite:?}");
        let mut names: Vec<_> = std::fs::read_dir(&outside)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort();
        assert_eq!(names, ["dir", "victim"], "{overwrite:?}");
        assert_eq!(std::fs::read_dir(outside.join("dir"))?.count(), 0);
        let after = std::fs::metadata(outside.join("victim"))?;
        let facts = |of: &std::fs::Metadata| {
            (of.ino(), of.nlink(), of.mode(), of.uid(), of.mtime(), of.ctime(), of.ctime_nsec())
        };
        assert_eq!(facts(&after), facts(&before), "{overwrite:?}");
        assert_eq!(std::fs::read(outside.join("victim"))?, b"precious");
    }
    Ok(())
}

/// Everything but names and references is only a number or a text, and may be any.
#[test]
fn impossible_metadata_is_told_and_no_end() -> anyhow::Result<()> {
    let mut builder = RepositoryBuilder::new();
    let chunk = builder.add_data_blob(b"sound");
    let far = |text: &str| Timestamp::parse(text).expect("a time");
    let attribute = |name: &str, bytes: usize| ExtendedAttribute {
        name: name.to_owned(),
        value: vec![b'v'; bytes],
    };
    let wild = |name: &[u8], kind| Node {
        mode: u32::MAX,
        uid: u32::MAX,
        gid: u32::MAX,
        size: u64::MAX,
        inode: u64::MAX,
        device_id: u64::MAX,
        links: u64::MAX,
        device: u64::MAX,
        mtime: far("9999-12-31T23:59:59.999999999-23:59"),
        atime: far("0000-01-01T00:00:00+23:59"),
        ctime: far("0000-01-01T00:00:00+23:59"),
        extended_attributes: vec![
            attribute("", 1),
            attribute("user.", 1),
            attribute("user.a\0b", 1),
            attribute("user.long", 100_000),
            attribute(&format!("user.{}", "x".repeat(1000)), 1),
            attribute("system.posix_acl_access", 3),
            attribute("no.such.namespace", 0),
        ],
        ..node(name, kind, 0)
    };
    let empty = builder.add_tree(Vec::new());
    let mut nodes = vec![file_node(b"sound", vec![chunk], 5)];
    for kind in NodeKind::ALL {
        let name = format!("wild-{}", kind.as_str());
        let content = (kind == NodeKind::File).then(|| vec![chunk]);
        let subtree = (kind == NodeKind::Dir).then_some(empty);
        let link_target = b"a\0b".to_vec();
        nodes.push(Node { content, subtree, link_target, ..wild(name.as_bytes(), kind) });
    }
    nodes.push(symlink_node(b"nowhere", b""));
    nodes.push(symlink_node(b"far", &vec![b'x'; 1 << 20]));
    nodes.push(file_node(&vec![b'n'; 300], vec![chunk], 5));
    let tree = builder.add_tree(nodes);
    let repository = builder.finish();
    save_snapshot(&repository, tree);
    let told = told(&check_all(&repository));
    assert!(told.len() == 1 && told[0].contains("18446744073709551615"), "{told:#?}");
    let sandbox = Sandbox::new("wild")?;
    let target = sandbox.join("target");
    let report = restore_into(&target, &repository, tree, Overwrite::Refuse)?;
    let paths: Vec<_> = report.problems.iter().map(|p| p.path.display().to_string()).collect();
    for name in ["wild-file", "wild-dir", "wild-symlink", "nowhere", "far"] {
        assert!(paths.iter().any(|path| path == name), "{name} is not in {paths:?}");
    }
    assert_eq!(std::fs::read(target.join("sound"))?, b"sound");
    assert_eq!(std::fs::metadata(target.join("wild-file"))?.len(), 5);
    Ok(())
}

/// The parent of a backup is a snapshot like any other, and may be anybody's.
#[test]
fn a_backup_survives_its_parent() -> anyhow::Result<()> {
    let sandbox = Sandbox::new("parent")?;
    let source = sandbox.folder("source")?;
    std::fs::create_dir(source.join("inner"))?;
    std::fs::write(source.join("inner/file"), "content")?;
    let hostname = Environment::detect().hostname;
    let path = source.to_str().expect("a name in UTF-8").to_owned();
    for text in [r#"{"nodes":[{"name":"..","type":"dir"}]}"#.to_owned(), nested(DEEP, "[", "]")] {
        let mut builder = RepositoryBuilder::new();
        let mut tree = builder.add_tree_bytes(text.as_bytes());
        for name in path.split('/').rev().filter(|name| !name.is_empty()) {
            tree = builder.add_tree(vec![dir_node(name.as_bytes(), tree)]);
        }
        let repository = builder.finish();
        let (hostname, paths) = (hostname.clone(), vec![path.clone()]);
        let parent = Snapshot { hostname, paths, ..snapshot(tree) };
        let parent = repository.save_unpacked(File::Snapshot, &parent)?;
        let report = soon(|| backup(&repository, BackupOptions::new(vec![source.clone()])))?;
        assert_eq!(report.snapshot.parent, Some(parent));
        let target = sandbox.join("restored");
        let indexed = repository.load_index(&Run::new())?;
        let restored = restore_into(&target, &indexed, report.snapshot.tree, Overwrite::Refuse)?;
        assert!(restored.is_complete());
        let restored = target.join(path.trim_start_matches('/')).join("inner/file");
        assert_eq!(std::fs::read(restored)?, b"content");
        std::fs::remove_dir_all(&target)?;
    }
    Ok(())
}

/// A search goes on behind what it cannot read.
#[test]
fn a_search_goes_on_behind_what_is_no_tree() -> anyhow::Result<()> {
    let mut builder = RepositoryBuilder::new();
    let bad = builder.add_data_blob(b"a chunk, and no tree");
    let leaf = builder.add_tree(vec![file_node(b"wanted", vec![], 0)]);
    let root = builder.add_tree(vec![dir_node(b"a", bad), dir_node(b"b", leaf)]);
    let repository = builder.finish();
    let options = FindOptions {
        matches: &|path| path.ends_with(b"/wanted"),
        may_match_below: &|_| true,
        oldest: None,
        newest: None,
    };
    let steps: Vec<_> = FindEntries::new(&repository, root, options)?.collect();
    let [FindStep::Unreadable { path, tree, error }, FindStep::Found(entry)] = &steps[..] else {
        panic!("{steps:?}");
    };
    assert_eq!((path.as_slice(), *tree, error.class()), (&b"/a"[..], bad, Class::Corrupt));
    assert_eq!(entry.path, b"/b/wanted");
    Ok(())
}

/// Thirty folders, each of which lists the next one ten times. Whoever writes trees anew or copies
/// them takes each a few times only, whatever the patterns go by; whoever lists them streams.
#[test]
fn trees_that_share_one_another_are_written_anew_soon() -> anyhow::Result<()> {
    let mut builder = RepositoryBuilder::new();
    let gone = file_node(b"gone", vec![BlobId::of(b"nowhere")], 7);
    let mut tree = builder.add_tree(vec![file_node(b"a.tmp", vec![], 0), gone]);
    for _ in 0..30 {
        let names: [&[u8]; 10] = [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"x", b"y"];
        tree = builder.add_tree(names.iter().map(|name| dir_node(name, tree)).collect());
    }
    let repository = builder.finish();
    save_snapshot(&repository, tree);
    let ours = repository.snapshots()?;
    for patterns in [&["*.tmp"][..], &["x/y/a.tmp", "/**/x/**/y/q", "/0/**/y/*.tmp", "!1/*.tmp"]] {
        let excludes = vec![Patterns::parse(patterns)?];
        let options = RewriteOptions { excludes, ..RewriteOptions::default() };
        let report = soon(|| rewrite(&repository, &ours, &options, &Run::new()))?;
        assert!(report.failed.is_empty() && report.snapshots[0].changed, "{patterns:?}");
        assert!(report.snapshots[0].excluded_total > 1 << 40, "{:?}", report.snapshots[0]);
    }
    let target = RepositoryBuilder::new().finish();
    let copied = soon(|| {
        let (target, options) = (target.into(), PackOptions::default());
        copy(&repository, target, &ours, options, &Run::new(), &mut |_| {})
    })?;
    assert_eq!((copied.copied.len(), copied.failed.len()), (0, 1), "a chunk is missing");
    let run = Run::new();
    let indexed = repository.load_index(&run)?;
    let list = snapshots::list(&indexed)?;
    let options = snapshots::RepairSnapshotsOptions::default();
    let repaired = soon(|| snapshots::repair(&indexed, &list, &options, &run))?;
    assert!(repaired.snapshots.iter().any(|repaired| repaired.losses_total > 1 << 40));
    let some = FindOptions {
        matches: &|path| path.ends_with(b"/0/0"),
        may_match_below: &|_| true,
        oldest: None,
        newest: None,
    };
    let mut found = FindEntries::new(&repository, tree, some)?;
    assert_eq!(soon(|| found.by_ref().take(1000).count()), 1000);
    Ok(())
}
