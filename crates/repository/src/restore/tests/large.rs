//! Folders with so many entries that their tree is read as they are restored.

use super::*;

/// More than is held: links with long targets, and folders and a file among them.
fn many(builder: &mut RepositoryBuilder) -> Vec<Node> {
    let target = b"a link's target ".repeat(250);
    let link = |n: usize| symlink_node(format!("{n:04}").as_bytes(), &target);
    let mut nodes: Vec<_> = (0..2500).map(link).collect();
    for name in ["0000 folder", "1200 folder", "folder"] {
        let inner = vec![file(builder, "f", name.as_bytes())];
        nodes.push(dir_node(name.as_bytes(), builder.add_tree(inner)));
    }
    nodes.push(file(builder, "1100 file", b"content"));
    nodes
}

fn check(target: &Path, tree: &Path) {
    assert_eq!(names(tree).len(), 2504);
    for name in ["0000 folder", "1200 folder", "folder"] {
        assert_eq!(fs::read(tree.join(name).join("f")).unwrap(), name.as_bytes());
    }
    assert_eq!(fs::read(tree.join("1100 file")).unwrap(), b"content");
    assert_eq!(fs::read_link(tree.join("2499")).unwrap().as_os_str().len(), 4000);
    assert_eq!(fs::metadata(target).unwrap().mode() & 0o700, 0o700);
}

#[test]
fn all_of_a_large_folder_comes_back_and_what_is_extra_is_told() {
    let mut builder = RepositoryBuilder::new();
    let nodes = many(&mut builder);
    let large = builder.add_tree(nodes);
    let tree = builder.add_tree(vec![dir_node(b"large", large)]);
    let repository = builder.finish();
    assert!(repository.blob_reader().unwrap().entries(large).unwrap().is_large());
    let target = folder();
    let report = run(&repository, tree, &RestoreOptions::new(target.path())).unwrap();
    assert!(report.is_complete(), "{:?}", report.problems);
    assert_eq!(report.counts.folders_restored, 4);
    check(target.path(), &target.path().join("large"));

    // Restored once more, over what is there and over things that are not in the snapshot.
    for name in ["0", "1200 g", "zz"] {
        fs::write(target.path().join("large").join(name), "x").unwrap();
    }
    fs::remove_dir_all(target.path().join("large/1200 folder")).unwrap();
    let again = RestoreOptions {
        overwrite: Overwrite::IfChanged,
        delete: true,
        ..RestoreOptions::new(target.path())
    };
    let report = run(&repository, tree, &again).unwrap();
    assert_eq!((report.counts.deleted, report.counts.extra), (3, 3));
    check(target.path(), &target.path().join("large"));
}

/// The hash of a tree is compared before anything is made of it, and a large one has no time at
/// which only its beginning was read.
#[test]
fn nothing_is_made_of_a_large_tree_that_is_damaged() {
    let mut builder = RepositoryBuilder::new();
    let nodes = many(&mut builder);
    let mut writer = crate::format::tree::TreeWriter::new();
    let mut sorted = nodes;
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted.iter().for_each(|node| writer.push(node).unwrap());
    let mut json = writer.finish();
    let id = BlobId::of(&json);
    let end = json.len() - 1000;
    json[end] ^= 1;
    builder.add(BlobKind::Tree, id, &json);
    let tree = builder.add_tree(vec![dir_node(b"large", id), dir_node(b"sound", id)]);
    let target = folder();
    fs::create_dir(target.path().join("large")).unwrap();
    fs::write(target.path().join("large/kept"), "x").unwrap();
    let options = RestoreOptions {
        overwrite: Overwrite::Always,
        delete: true,
        ..RestoreOptions::new(target.path())
    };
    let report = run(&builder.finish(), tree, &options).unwrap();
    assert_eq!(paths(&report), ["large", "sound"]);
    assert!(report.found_damage());
    assert_eq!(names(&target.path().join("large")), ["kept"]);
    assert_eq!(names(&target.path().join("sound")), Vec::<String>::new());
}
