//! Reading blobs one by one: of data, and the trees of folders.
//!
//! Deliberately not here: reading many blobs in ranges, which those plan who do it.

use super::{BlobOpener, Entries, IndexedRepository, ReadError};
use crate::{
    format::{FormatError, pack::BlobKind, tree::Tree},
    id::BlobId,
    index::Location,
    large_tree::{CompressedTree, Flaw, LARGE_TREE_BYTES, StoredTree},
    storage::{File, Storage, StorageError, StorageProblem},
};

/// How much is read on the word of an index alone, in bytes. It is longer than any blob of restic
/// or Muster but the trees of folders with tens of thousands of entries, so that the size of the
/// file is hardly ever asked for.
const UNCHECKED_BYTES_MAX: usize = 16 << 20;

/// Reads blobs one by one; buffers and contexts are reused.
pub struct BlobReader<'r> {
    repository: &'r IndexedRepository,
    opener: BlobOpener<'r>,
    sealed: Vec<u8>,
}

impl<'r> BlobReader<'r> {
    pub(super) fn new(repository: &'r IndexedRepository, opener: BlobOpener<'r>) -> Self {
        Self { repository, opener, sealed: Vec::new() }
    }

    /// Replaces the content of `plaintext` with a blob. When a copy of it is damaged and
    /// another pack holds the blob too, that one is read.
    ///
    /// # Errors
    /// Fails when the blob is in no index, or no copy can be read whole.
    pub fn read(
        &mut self,
        kind: BlobKind,
        id: BlobId,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let mut last = ReadError::MissingBlob { kind, id };
        let repository = self.repository;
        for location in repository.index.find_all(kind, id) {
            match self.read_at(&location, plaintext) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Replaces the content of `plaintext` with the blob at `location`. When that is an archived
    /// tree, all trees are brought back first, if that is allowed: one wait does for all.
    ///
    /// # Errors
    /// Fails when the pack cannot be read or the blob is not what its id says.
    pub fn read_at(
        &mut self,
        location: &Location,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        self.with_folders_back(location, |reader| reader.read_as_it_is(location, plaintext))
    }

    fn with_folders_back<T>(
        &mut self,
        location: &Location,
        mut read: impl FnMut(&mut Self) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        match read(self) {
            Err(error) if error.is_archived() && location.blob.kind == BlobKind::Tree => {
                match self.repository.folders.bring_back(self.repository)? {
                    true => read(self),
                    false => Err(error),
                }
            }
            read => read,
        }
    }

    fn read_as_it_is(
        &mut self,
        location: &Location,
        plaintext: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let IndexedRepository { repository, index, windows, .. } = self.repository;
        let storage = repository.storage.as_ref();
        let of_pack = |error| ReadError::of_pack(location.pack, error);
        if location.blob.kind == BlobKind::Tree
            && windows.take(storage, index, location, &mut self.sealed).map_err(of_pack)?
            && self.opener.open(location, &mut self.sealed, plaintext).is_ok()
        {
            return Ok(());
        }
        let file = File::Pack(location.pack);
        let offset = u64::from(location.blob.offset);
        let length = location.blob.length as usize;
        read_claimed(storage, file, offset, length, &mut self.sealed).map_err(of_pack)?;
        self.opener.open(location, &mut self.sealed, plaintext)
    }

    /// A folder's tree, if it is a large one. Its hash is compared; that it is a tree shows as it is
    /// read.
    ///
    /// # Errors
    /// As [`BlobReader::tree`].
    pub(crate) fn large_tree(&mut self, id: BlobId) -> Result<Option<StoredTree>, ReadError> {
        let repository = self.repository;
        let mut failed = None;
        for copy in repository.index.find_all(BlobKind::Tree, id).filter(is_large_tree) {
            let tree = self.stored_tree(&copy).and_then(|tree| {
                let length = u64::from(copy.blob.plaintext_length());
                let sound = tree.verify(id, length).map_err(|error| damaged_tree(&copy, error));
                sound.map(|()| tree)
            });
            match tree {
                Ok(tree) => return Ok(Some(tree)),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Begins to read the entries of a folder, in order. All of the tree is known to be sound then;
    /// one that is large is read as its entries are taken.
    ///
    /// # Errors
    /// As [`BlobReader::tree`].
    pub fn entries(&mut self, id: BlobId) -> Result<Entries, ReadError> {
        let repository = self.repository;
        let copies = repository.index.find_all(BlobKind::Tree, id).filter(is_large_tree);
        for copy in copies {
            if let Ok(Ok(entries)) = self.large_entries(&copy) {
                return Ok(entries);
            }
        }
        // A small one, or one of which no copy is as it should be: this tells what is wrong.
        self.tree(id).map(Entries::from)
    }

    /// As [`BlobReader::entries`], for one copy of a large tree; what is wrong with the tree itself is
    /// told apart from what is wrong with the copy.
    pub(crate) fn large_entries(
        &mut self,
        copy: &Location,
    ) -> Result<Result<Entries, FormatError>, ReadError> {
        let tree = self.stored_tree(copy)?;
        match tree.examine(copy.blob.id, u64::from(copy.blob.plaintext_length())) {
            Err(Flaw::Damaged(error)) => Err(damaged_tree(copy, error)),
            Err(Flaw::Invalid(error)) => Ok(Err(error)),
            Ok(()) => Ok(tree.nodes().map(|nodes| Entries::large(nodes, copy))),
        }
    }

    /// A large tree that is stored compressed, as it is.
    pub(crate) fn compressed_tree(&mut self, id: BlobId) -> Option<CompressedTree> {
        let repository = self.repository;
        let copies = repository.index.find_all(BlobKind::Tree, id).filter(is_large_tree);
        for copy in copies {
            let Some(plaintext_bytes) = copy.blob.uncompressed_length else { continue };
            if let Ok(tree) = self.stored_tree(&copy)
                && tree.verify(id, plaintext_bytes.get().into()).is_ok()
            {
                let behind_room = tree.into_bytes();
                return Some(CompressedTree { id, behind_room, plaintext_bytes });
            }
        }
        None
    }

    fn stored_tree(&mut self, location: &Location) -> Result<StoredTree, ReadError> {
        self.with_folders_back(location, |reader| {
            let mut sealed = Vec::new();
            let length = location.blob.length as usize;
            let (file, offset) = (File::Pack(location.pack), u64::from(location.blob.offset));
            read_claimed(reader.repository.storage.as_ref(), file, offset, length, &mut sealed)
                .map_err(|error| ReadError::of_pack(location.pack, error))?;
            let tree = reader.opener.open_tree(location, sealed);
            tree.map_err(|source| damaged_tree(location, source))
        })
    }

    /// Reads a folder's tree.
    ///
    /// # Errors
    /// As [`BlobReader::read`]; also when the plaintext is no valid tree.
    pub fn tree(&mut self, id: BlobId) -> Result<Tree, ReadError> {
        let mut plaintext = Vec::new();
        self.read(BlobKind::Tree, id, &mut plaintext)?;
        Tree::parse(&plaintext).map_err(|source| ReadError::DamagedBlob {
            kind: BlobKind::Tree,
            id,
            pack: self.repository.index.find(BlobKind::Tree, id).map(|found| found.pack),
            source,
        })
    }
}

/// Whether a tree is not held as a whole.
pub(crate) fn is_large_tree(location: &Location) -> bool {
    let blob = &location.blob;
    blob.kind == BlobKind::Tree && blob.plaintext_length() as usize > LARGE_TREE_BYTES
}

pub(super) fn damaged_tree(location: &Location, source: FormatError) -> ReadError {
    let (kind, id, pack) = (BlobKind::Tree, location.blob.id, Some(location.pack));
    ReadError::DamagedBlob { kind, id, pack, source }
}

/// Replaces the content of `buffer` with `length` bytes of a file that an index claims to be
/// there. Memory for many is taken only when the file is long enough.
pub(crate) fn read_claimed(
    storage: &dyn Storage,
    file: File,
    offset: u64,
    length: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), StorageError> {
    if length > UNCHECKED_BYTES_MAX && storage.size(file)? < offset.saturating_add(length as u64) {
        return Err(StorageError::new("read", file, StorageProblem::TooShort));
    }
    buffer.resize(length, 0);
    storage.read_range(file, offset, buffer)
}

#[cfg(test)]
mod tests {
    use muster_model::{Class, Fault};

    use super::*;
    use crate::{
        format::tree::{Node, NodeKind, TreeWriter},
        testing::{RepositoryBuilder, symlink_node},
    };

    /// An index may claim that a gigabyte lies in a file of a hundred bytes.
    #[test]
    fn memory_is_not_taken_on_the_word_of_an_index() {
        let mut builder = RepositoryBuilder::new();
        let real = builder.add_data_blob(b"small");
        let repository = builder.finish();
        let mut lie = repository.index().find(BlobKind::Data, real).unwrap();
        lie.blob.length = 1 << 30;
        let mut reader = repository.blob_reader().unwrap();
        let error = reader.read_at(&lie, &mut Vec::new()).unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Corrupt, "storage-too-short"));
        assert!(reader.sealed.capacity() <= UNCHECKED_BYTES_MAX);
    }

    /// More entries than are held.
    fn many() -> Vec<Node> {
        let target = b"a link's target ".repeat(250);
        (0..2500).map(|n| symlink_node(format!("{n:04}").as_bytes(), &target)).collect()
    }

    fn json(nodes: &[Node]) -> Vec<u8> {
        let mut writer = TreeWriter::new();
        nodes.iter().for_each(|node| writer.push(node).unwrap());
        writer.finish()
    }

    fn read(repository: &IndexedRepository, tree: BlobId) -> Result<(bool, Vec<Node>), ReadError> {
        let entries = repository.blob_reader().unwrap().entries(tree)?;
        Ok((entries.is_large(), entries.collect::<Result<_, _>>()?))
    }

    #[test]
    fn entries_are_those_of_the_tree_be_it_large_or_small() {
        let (many, few) = (many(), many()[..5].to_vec());
        for stored_as_is in [false, true] {
            let mut builder = RepositoryBuilder::new();
            if stored_as_is {
                builder = builder.uncompressed();
            }
            let (large, small) = (builder.add_tree(many.clone()), builder.add_tree(few.clone()));
            let repository = builder.finish();
            assert!(read(&repository, large).unwrap() == (true, many.clone()));
            assert!(read(&repository, small).unwrap() == (false, few.clone()));
            let missing = read(&repository, BlobId::of(b"nowhere")).err().unwrap();
            assert_eq!(missing.code(), "blob-missing");
        }
    }

    #[test]
    fn a_damaged_copy_of_a_large_tree_is_passed_over() {
        let mut builder = RepositoryBuilder::new();
        let sound = json(&many());
        let mut other = sound.clone();
        other[9_000_000] ^= 1;
        let id = builder.add(BlobKind::Tree, BlobId::of(&sound), &other);
        builder.close_packs();
        assert_eq!(builder.add_tree_bytes(&sound), id);
        let lost = builder.add(BlobKind::Tree, BlobId::of(b"lost"), &sound);
        let repository = builder.finish();
        assert!(read(&repository, id).unwrap() == (true, many()));
        let error = read(&repository, lost).err().unwrap();
        assert_eq!((error.class(), error.code()), (Class::Corrupt, "blob-damaged"));
    }

    /// As a small one, it is refused as a whole: nobody acts upon what comes before the flaw.
    #[test]
    fn a_large_tree_that_is_none_is_refused() {
        let nodes = many();
        let sound = json(&nodes);
        let mut swapped = nodes.clone();
        swapped.swap(2400, 2401);
        let parts: Vec<Vec<u8>> =
            swapped.iter().map(|node| json(std::slice::from_ref(node))).collect();
        let parts: Vec<&[u8]> = parts.iter().map(|part| &part[10..part.len() - 3]).collect();
        let list = |parts: &[&[u8]], comma: &[u8]| {
            [br#"{"nodes":["#, parts.join(comma).as_slice(), b"]}\n"].concat()
        };
        let bad = [
            list(&parts, b","),
            list(&parts[..2400], b",,"),
            list(&parts[..2400], b" "),
            [&sound[..sound.len() - 3], b",]}"].concat(),
            [&sound[..sound.len() - 2], b"x}"].concat(),
            [&sound[..], b"{}"].concat(),
            sound[..sound.len() - 2].to_vec(),
            [&sound[..sound.len() - 3], br#",{"name":"..","type":"fifo"}]}"#].concat(),
        ];
        for plaintext in bad {
            let mut builder = RepositoryBuilder::new();
            let tree = builder.add_tree_bytes(&plaintext);
            let repository = builder.finish();
            assert!(Tree::parse(&plaintext).is_err());
            assert_eq!(read(&repository, tree).err().unwrap().code(), "blob-damaged");
        }
        // Not as Muster writes it, and still a tree; one that begins so is held.
        let spaced = list(&parts[..2400], b" ,\n");
        let indented = [b"{ ", &spaced[1..]].concat();
        for (plaintext, is_large) in [(spaced, true), (indented, false)] {
            let mut builder = RepositoryBuilder::new();
            let tree = builder.add_tree_bytes(&plaintext);
            assert!(read(&builder.finish(), tree).unwrap() == (is_large, nodes[..2400].to_vec()));
        }
        assert_eq!(nodes[0].kind, NodeKind::Symlink);
    }
}
