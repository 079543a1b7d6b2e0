//! A repository, looked at as a file system.

use super::*;
use crate::{
    format::tree::Node,
    storage::File,
    tree_walk::sample::{Item, Sample, dir, file},
};

fn names(file_system: &FileSystem, number: u64) -> Vec<String> {
    let entries = file_system.entries(number).unwrap();
    entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
}

/// Looks up a path, name by name.
fn at(file_system: &FileSystem, path: &str) -> Result<Attributes, FileSystemError> {
    let mut attributes = file_system.attributes(ROOT)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        attributes = file_system.look_up(attributes.number, name.as_bytes())?;
    }
    Ok(attributes)
}

fn content(file_system: &FileSystem, path: &str) -> Result<Vec<u8>, FileSystemError> {
    let attributes = at(file_system, path)?;
    let open = file_system.open(attributes.number)?;
    file_system.read(&open, 0, usize::try_from(attributes.size).unwrap() + 10)
}

fn sample() -> Sample {
    let sample = Sample::new();
    let large = Item::File(vec![vec![1; 1000], vec![2; 500], vec![3; 700]]);
    let mut link = Node::new(Vec::new(), NodeKind::Symlink);
    link.link_target = b"sub/large".to_vec();
    let tree = dir([
        (&b"a"[..], file(b"alpha")),
        (b"link", Item::Node(Box::new(link))),
        (b"sub", dir([(&b"large"[..], large)])),
    ]);
    let tree = sample.write(&tree);
    sample.snapshot(tree, 0);
    sample.snapshot(tree, 0);
    sample
}

fn mounted(sample: &Sample) -> FileSystem {
    FileSystem::new(sample.indexed(), sample.repository.snapshots().unwrap())
}

/// What no file system takes must not hide what lies beside it, and what is heavy in memory is not
/// kept for being few entries.
#[test]
fn long_names_and_heavy_trees_harm_nobody() {
    let sample = Sample::new();
    let long = vec![b'n'; 256];
    let mut heavy = Node::new(Vec::new(), NodeKind::File);
    heavy.content = Some(vec![BlobId::of(b"nowhere"); 50_000]);
    let tree = dir([
        (&b"a"[..], file(b"alpha")),
        (b"heavy", Item::Node(Box::new(heavy))),
        (&long, file(b"beta")),
        (b"z", file(b"omega")),
    ]);
    let tree = sample.write(&tree);
    sample.snapshot(tree, 0);
    let file_system = mounted(&sample);
    let root = at(&file_system, "snapshots/latest").unwrap();
    let root = file_system.link_target(root.number).unwrap();
    let root = format!("snapshots/{}", String::from_utf8(root).unwrap());
    let number = at(&file_system, &root).unwrap().number;
    assert_eq!(names(&file_system, number), ["a", "heavy", "z"]);
    assert_eq!(content(&file_system, &format!("{root}/z")).unwrap(), b"omega");
    let error = content(&file_system, &format!("{root}/heavy")).unwrap_or_default();
    assert_eq!(error, b"", "its size says that it is empty");
    assert!(lock(&file_system.trees).weight() > 50_000 * 32);
}

/// Ten thousand snapshots of one second: each has a name, and soon.
#[test]
fn any_number_of_snapshots_may_have_one_time() {
    let sample = sample();
    let (_, snapshot) = sample.repository.snapshots().unwrap().remove(0);
    let id = |n: u32| SnapshotId::of(&n.to_le_bytes());
    let snapshots = (0..10_000).map(|n| (id(n), snapshot.clone())).collect();
    let begun = std::time::Instant::now();
    let file_system = FileSystem::new(sample.indexed(), snapshots);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    let folder = at(&file_system, "snapshots").unwrap().number;
    assert_eq!(file_system.entries(folder).unwrap().len(), 10_001);
}

#[test]
fn snapshots_are_found_by_time_id_and_host() {
    let sample = sample();
    let file_system = mounted(&sample);
    assert_eq!(names(&file_system, ROOT), ["hosts", "ids", "snapshots", "tags"]);
    let times = ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z-1", "latest"];
    for folder in ["snapshots", "hosts/host"] {
        assert_eq!(names(&file_system, at(&file_system, folder).unwrap().number), times);
    }
    let latest = at(&file_system, "snapshots/latest").unwrap();
    assert_eq!(file_system.link_target(latest.number).unwrap(), times[1].as_bytes());
    assert_eq!(names(&file_system, at(&file_system, "ids").unwrap().number).len(), 2);
    assert!(matches!(at(&file_system, "tags/none"), Err(FileSystemError::NotFound)));
    let below = format!("snapshots/{}", times[0]);
    assert_eq!(names(&file_system, at(&file_system, &below).unwrap().number), ["a", "link", "sub"]);
}

#[test]
fn files_are_read_in_any_pieces() {
    let sample = sample();
    let file_system = mounted(&sample);
    let path = "snapshots/1970-01-01T00:00:00Z/sub/large";
    let whole = [vec![1; 1000], vec![2; 500], vec![3; 700]].concat();
    assert_eq!(content(&file_system, path).unwrap(), whole);
    let open = file_system.open(at(&file_system, path).unwrap().number).unwrap();
    for (offset, length) in
        [(0, 1), (999, 2), (900, 700), (1499, 1), (2199, 5), (2200, 5), (9000, 1)]
    {
        let expected = whole.get(offset..).unwrap_or_default();
        let expected = &expected[..length.min(expected.len())];
        assert_eq!(file_system.read(&open, offset as u64, length).unwrap(), expected, "{offset}");
    }
}

#[test]
fn a_damaged_chunk_is_an_error_where_it_is_and_nowhere_else() {
    let sample = sample();
    let found = sample.indexed().index().find(BlobKind::Data, BlobId::of(&[2; 500])).unwrap();
    let file_system = mounted(&sample);
    let place = found.blob.offset as usize + 20;
    sample.storage.files().get_mut(&File::Pack(found.pack)).unwrap()[place] ^= 1;
    let path = "snapshots/1970-01-01T00:00:00Z/sub/large";
    let open = file_system.open(at(&file_system, path).unwrap().number).unwrap();
    assert_eq!(file_system.read(&open, 0, 1000).unwrap(), [1; 1000]);
    assert_eq!(file_system.read(&open, 1500, 700).unwrap(), [3; 700]);
    let error = file_system.read(&open, 999, 2).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert_eq!(content(&file_system, "snapshots/1970-01-01T00:00:00Z/a").unwrap(), b"alpha");
}

#[test]
fn only_what_was_looked_up_and_not_forgotten_is_remembered() {
    let sample = sample();
    let file_system = mounted(&sample);
    let path = "snapshots/1970-01-01T00:00:00Z/a";
    let first = at(&file_system, path).unwrap().number;
    assert_eq!(at(&file_system, path).unwrap().number, first);
    file_system.forget(first, 1);
    assert!(file_system.attributes(first).is_ok());
    file_system.forget(first, 1);
    assert!(file_system.attributes(first).is_err());
    assert_eq!(lock(&file_system.known).len(), 0);
    let listed =
        file_system.entries(at(&file_system, "snapshots/1970-01-01T00:00:00Z").unwrap().number);
    assert_eq!(listed.unwrap()[0].number, first, "a listing has the numbers of look-ups");
}

/// Trees can say what they like of inodes: other content is another file.
#[test]
fn hard_links_share_a_number_when_they_share_their_content() {
    let sample = Sample::new();
    let linked = |chunk: &[u8]| {
        let mut node = Node::new(Vec::new(), NodeKind::File);
        (node.links, node.inode, node.size) = (2, 77, chunk.len() as u64);
        node.content = Some(vec![BlobId::of(chunk)]);
        Item::Node(Box::new(node))
    };
    let tree = dir([(&b"a"[..], linked(b"x")), (b"b", linked(b"x")), (b"liar", linked(b"y"))]);
    let tree = sample.write(&tree);
    sample.snapshot(tree, 0);
    let file_system = mounted(&sample);
    let number = |name: &str| {
        at(&file_system, &format!("snapshots/1970-01-01T00:00:00Z/{name}")).unwrap().number
    };
    assert_eq!(number("a"), number("b"));
    assert_ne!(number("a"), number("liar"));
}
