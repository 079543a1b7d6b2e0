//! Repositories made blob by blob, for tests: also such as no backup would ever make.

use std::sync::Arc;

use crate::{
    compression::{CompressionLevel, Compressor},
    environment::Environment,
    format::{
        config::Version,
        index_file::{IndexFile, IndexPack},
        key_file::Cost,
        mode::go_mode,
        pack::{BlobKind, PackedBlob, append_header},
        tree::{Node, NodeKind, TreeWriter},
    },
    id::{BlobId, IndexId, PackId},
    index::Index,
    repository::{IndexedRepository, InitOptions, Repository},
    storage::{File, Storage, memory::MemoryStorage},
};

/// The password of repositories made here.
pub const PASSWORD: &[u8] = b"test";

/// Puts a repository together in memory.
///
/// Blobs go into one open pack for each kind; [`RepositoryBuilder::close_packs`] begins new
/// ones. What is added twice is stored twice.
pub struct RepositoryBuilder {
    storage: Arc<MemoryStorage>,
    repository: Repository,
    compression: Option<Compressor>,
    data: OpenPack,
    trees: OpenPack,
    packs: Vec<IndexPack>,
}

#[derive(Default)]
struct OpenPack {
    content: Vec<u8>,
    blobs: Vec<PackedBlob>,
}

impl Default for RepositoryBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl RepositoryBuilder {
    /// An empty repository in memory whose blobs are compressed.
    ///
    /// # Panics
    /// Panics when the repository cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let author = Environment::detect().author();
        let polynomial = None;
        let options =
            InitOptions { version: Version::V2, polynomial, cost: Cost::FOR_TESTS, author };
        let repository = Repository::init(storage.clone(), PASSWORD, options)
            .expect("a repository can be made in memory");
        let compressor = Compressor::new(CompressionLevel::Fastest).expect("zstd has memory");
        Self {
            storage,
            repository,
            compression: Some(compressor),
            data: OpenPack::default(),
            trees: OpenPack::default(),
            packs: Vec::new(),
        }
    }

    /// Stores blobs as they are from here on.
    #[must_use]
    pub fn uncompressed(mut self) -> Self {
        self.compression = None;
        self
    }

    /// The store, for looking into it and damaging it.
    #[must_use]
    pub fn storage(&self) -> Arc<MemoryStorage> {
        self.storage.clone()
    }

    /// Adds a chunk.
    pub fn add_data_blob(&mut self, plaintext: &[u8]) -> BlobId {
        self.add(BlobKind::Data, BlobId::of(plaintext), plaintext)
    }

    /// Adds a folder's tree; the entries may come in any order.
    ///
    /// # Panics
    /// Panics when the entries make no valid tree; for such there is
    /// [`RepositoryBuilder::add_tree_bytes`].
    pub fn add_tree(&mut self, mut nodes: Vec<Node>) -> BlobId {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut writer = TreeWriter::new();
        for node in &nodes {
            writer.push(node).expect("valid nodes with different names");
        }
        self.add_tree_bytes(&writer.finish())
    }

    /// Adds any bytes as a folder's tree.
    pub fn add_tree_bytes(&mut self, plaintext: &[u8]) -> BlobId {
        self.add(BlobKind::Tree, BlobId::of(plaintext), plaintext)
    }

    /// Adds any bytes under any id.
    ///
    /// # Panics
    /// Panics when the bytes cannot be sealed.
    pub fn add(&mut self, kind: BlobKind, id: BlobId, plaintext: &[u8]) -> BlobId {
        let pack = match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        };
        let position = |length: usize| u32::try_from(length).expect("packs in tests are small");
        let offset = position(pack.content.len());
        let key = self.repository.key();
        let mut uncompressed_length = None;
        if let Some(compressor) = &mut self.compression {
            let mut compressed = Vec::new();
            compressor.compress_always(plaintext, &mut compressed).expect("zstd has memory");
            uncompressed_length = position(plaintext.len()).try_into().ok();
            key.seal(&compressed, &mut pack.content).expect("the system has randomness");
        } else {
            key.seal(plaintext, &mut pack.content).expect("the system has randomness");
        }
        let length = position(pack.content.len()) - offset;
        pack.blobs.push(PackedBlob { id, kind, offset, length, uncompressed_length });
        id
    }

    /// Writes the open packs and begins new ones.
    ///
    /// # Panics
    /// Panics when a pack cannot be sealed.
    pub fn close_packs(&mut self) {
        for pack in [std::mem::take(&mut self.data), std::mem::take(&mut self.trees)] {
            let OpenPack { mut content, blobs } = pack;
            if blobs.is_empty() {
                continue;
            }
            append_header(self.repository.key(), &blobs, &mut content).expect("few blobs");
            let id = PackId::of(&content);
            self.storage.put(File::Pack(id), &content).expect("memory stores everything");
            let blobs = blobs.into_iter().map(Into::into).collect();
            self.packs.push(IndexPack { id, blobs });
        }
    }

    /// Adds a pack to the index that need not exist, and may be described wrongly.
    pub fn add_index_entry(&mut self, pack: IndexPack) {
        self.packs.push(pack);
    }

    /// The packs written so far, as the index will describe them.
    #[must_use]
    pub fn packs(&self) -> &[IndexPack] {
        &self.packs
    }

    /// The repository without an index, for joining it with one that lies.
    #[must_use]
    pub fn repository(&self) -> Repository {
        self.repository.clone()
    }

    /// Writes packs and index, and hands the repository over.
    ///
    /// # Panics
    /// Panics when the index cannot be sealed.
    #[must_use]
    pub fn finish(mut self) -> IndexedRepository {
        self.close_packs();
        let file = IndexFile { packs: self.packs, packs_to_delete: Vec::new() };
        self.repository
            .save_unpacked(|id: IndexId| File::Index(id), &file)
            .expect("memory stores everything");
        let mut index = Index::new();
        index.add_file(&file);
        IndexedRepository::with_index(self.repository, index)
    }
}

/// A file of these chunks, mode 0644, owned by whoever runs the test.
#[must_use]
pub fn file_node(name: &[u8], content: Vec<BlobId>, size: u64) -> Node {
    Node { content: Some(content), size, links: 1, ..node(name, NodeKind::File, 0o644) }
}

/// A folder, mode 0755, owned by whoever runs the test.
#[must_use]
pub fn dir_node(name: &[u8], subtree: BlobId) -> Node {
    Node { subtree: Some(subtree), ..node(name, NodeKind::Dir, 0o755) }
}

/// A symbolic link, owned by whoever runs the test.
#[must_use]
pub fn symlink_node(name: &[u8], target: &[u8]) -> Node {
    Node { link_target: target.to_vec(), links: 1, ..node(name, NodeKind::Symlink, 0o777) }
}

/// A node of any kind with the low twelve bits of `st_mode`, owned by whoever runs the test.
#[must_use]
pub fn node(name: &[u8], kind: NodeKind, unix_mode: u32) -> Node {
    Node {
        mode: go_mode(kind, unix_mode),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..Node::new(name.to_vec(), kind)
    }
}
