//! Small repositories in memory for the tests of what reads snapshots.

use std::sync::Arc;

use crate::{
    environment::Environment,
    format::{
        config::Version,
        key_file::Cost,
        pack::BlobKind,
        snapshot::Snapshot,
        time::Timestamp,
        tree::{Node, NodeKind, TreeWriter},
    },
    id::{BlobId, SnapshotId},
    packer::{PackOptions, PackWriter, WriteError, write_packs},
    repository::{IndexedRepository, InitOptions, Repository},
    run::Run,
    storage::{File, memory::MemoryStorage},
};

/// What lies in a folder.
pub(crate) enum Item {
    /// A file of these chunks.
    File(Vec<Vec<u8>>),
    /// A folder.
    Dir(Vec<(Vec<u8>, Item)>),
    /// Anything, as it is but for its name.
    Node(Box<Node>),
}

/// A file of one chunk; of none when it is empty.
pub(crate) fn file(content: &[u8]) -> Item {
    let chunks = if content.is_empty() { vec![] } else { vec![content.to_vec()] };
    Item::File(chunks)
}

/// A folder. Entries must come in order.
pub(crate) fn dir<const N: usize>(entries: [(&[u8], Item); N]) -> Item {
    Item::Dir(entries.into_iter().map(|(name, item)| (name.to_vec(), item)).collect())
}

/// A repository in memory.
pub(crate) struct Sample {
    pub(crate) storage: Arc<MemoryStorage>,
    pub(crate) repository: Repository,
}

impl Sample {
    pub(crate) fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let author = Environment::detect().author();
        let options =
            InitOptions { version: Version::V2, polynomial: None, cost: Cost::FOR_TESTS, author };
        let repository = Repository::init(storage.clone(), b"x", options).unwrap();
        Self { storage, repository }
    }

    /// The repository with what its index says now.
    pub(crate) fn indexed(&self) -> IndexedRepository {
        self.repository.load_index(&Run::new()).unwrap()
    }

    /// Stores a folder and all below it; returns its tree.
    pub(crate) fn write(&self, root: &Item) -> BlobId {
        let indexed = self.indexed();
        let (known, options) = (indexed.index(), PackOptions::default());
        let written = write_packs(&self.repository, known, options, vec![], &Run::new(), |to| {
            Ok::<_, WriteError>(write_folder(to, root))
        });
        written.unwrap().0
    }

    /// Records a snapshot of a tree.
    pub(crate) fn snapshot(&self, tree: BlobId, second: i64) -> SnapshotId {
        let snapshot = Snapshot {
            time: Timestamp::new(second, 0, 0),
            parent: None,
            tree,
            paths: vec!["/".to_owned()],
            hostname: "host".to_owned(),
            username: String::new(),
            uid: 0,
            gid: 0,
            excludes: vec![],
            tags: vec![],
            original: None,
            program_version: String::new(),
            summary: None,
        };
        self.repository.save_unpacked(File::Snapshot, &snapshot).unwrap()
    }
}

/// A folder being written: the tree so far, the entries to come, its name.
type Frame<'i> = (TreeWriter, std::slice::Iter<'i, (Vec<u8>, Item)>, &'i [u8]);

/// Without recursion, because tests write trees as deep as the walk allows.
fn write_folder(to: &PackWriter<'_>, root: &Item) -> BlobId {
    let Item::Dir(entries) = root else { panic!("the root is a folder") };
    let mut open: Vec<Frame<'_>> = vec![(TreeWriter::new(), entries.iter(), b"")];
    loop {
        let (writer, entries, _) = open.last_mut().unwrap();
        match entries.next() {
            Some((name, Item::Dir(below))) => open.push((TreeWriter::new(), below.iter(), name)),
            Some((name, item)) => writer.push(&write_leaf(to, name, item)).unwrap(),
            None => {
                let (writer, _, name) = open.pop().unwrap();
                let id = add(to, BlobKind::Tree, &writer.finish());
                let Some((above, _, _)) = open.last_mut() else { return id };
                let mut node = Node::new(name.to_vec(), NodeKind::Dir);
                node.subtree = Some(id);
                above.push(&node).unwrap();
            }
        }
    }
}

fn write_leaf(to: &PackWriter<'_>, name: &[u8], item: &Item) -> Node {
    match item {
        Item::Node(node) => Node { name: name.to_vec(), ..(**node).clone() },
        Item::File(chunks) => {
            let mut node = Node::new(name.to_vec(), NodeKind::File);
            node.size = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            node.links = 1;
            let ids = chunks.iter().map(|chunk| add(to, BlobKind::Data, chunk));
            node.content = Some(ids.collect());
            node
        }
        Item::Dir(_) => unreachable!("folders are written by the caller"),
    }
}

fn add(to: &PackWriter<'_>, kind: BlobKind, plaintext: &[u8]) -> BlobId {
    let id = BlobId::of(plaintext);
    if to.claim(kind, id) {
        let mut sealer = to.sealer(kind).unwrap();
        to.add(kind, id, plaintext.len() as u64, sealer.seal(id, plaintext).unwrap()).unwrap();
    }
    id
}
