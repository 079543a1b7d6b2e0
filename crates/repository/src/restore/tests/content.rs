//! Content, selection, and what is told.

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
    let inner = vec![file(&mut builder, "keep.txt", b"1"), file(&mut builder, "drop.bin", b"2")];
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
    let select: Select = Arc::new(|path, kind| Choice {
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

/// Whatever is under its final name when the restore is told to stop is whole.
#[test]
fn a_cancelled_restore_leaves_nothing_half_done() {
    let mut builder = RepositoryBuilder::new();
    let chunks = vec![builder.add_data_blob(b"first"), builder.add_data_blob(b"second")];
    builder.close_packs();
    let last = builder.add_data_blob(b"third");
    let nodes = (0..12_000).map(|i| {
        let mut chunks = chunks.clone();
        // More files wait for their end than may be open.
        chunks.extend((i % 2 == 0).then_some(last));
        file_node(format!("f{i:05}").as_bytes(), chunks, if i % 2 == 0 { 16 } else { 11 })
    });
    let tree = builder.add_tree(nodes.collect());
    let target = folder();
    let observer = Run::new();
    let cancel = observer.cancel.clone();
    let select: Select = Arc::new(move |path, _| {
        // The workers are busy with the first batch by then.
        if path == b"/f10500" {
            cancel.request("enough");
        }
        Choice::ALL
    });
    let options = RestoreOptions { select: Some(select), ..RestoreOptions::new(target.path()) };
    let error = restore(&builder.finish(), tree, &options, &observer).unwrap_err();
    assert_eq!(error.class(), Class::Interrupted);
    for name in names(target.path()) {
        let content = fs::read(target.path().join(&name)).unwrap();
        let number: u32 = name[1..].parse().unwrap();
        let expected: &[u8] =
            if number.is_multiple_of(2) { b"firstsecondthird" } else { b"firstsecond" };
        assert_eq!(content, expected, "{name}");
    }
}
