//! Hard links.

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
    let select: Select = Arc::new(|path, _| Choice {
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
