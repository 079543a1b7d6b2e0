//! Trees that are too large to be held as a whole: folders with hundreds of thousands of entries.
//!
//! A tree is one blob, some 350 bytes of JSON an entry, of which zstd leaves a sixth. One that grows
//! beyond [`LARGE_TREE_BYTES`] is hashed and compressed while it is written, and read entry by entry;
//! only the compressed tree is in memory then. Who acts upon entries has the whole tree examined
//! first, so a tree is either read to its end or not at all, as a small one is. Who only compares it
//! (a backup with its parent) has the hash compared.
//!
//! Deliberately not here: smaller trees (`format::tree`), which are quicker to handle whole.

mod sections;

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read, Write},
    num::NonZeroU32,
    sync::Arc,
};

use sha2::{Digest, Sha256};

pub(crate) use sections::TreeSections;

use crate::{
    compression::{self, CompressionLevel, StreamCompressor},
    crypto::{IV_BYTES, Key},
    format::{
        FormatError,
        tree::{Node, TREE_OPENING, TreeWriter},
    },
    id::BlobId,
};

/// Length of a tree's plaintext, in bytes, above which it is not held: some 25,000 entries.
pub(crate) const LARGE_TREE_BYTES: usize = 8 << 20;

/// How much of a shared tree is let go of at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// A tree that is written entry by entry.
pub(crate) struct GrowingTree {
    writer: TreeWriter,
    /// `None` where blobs are stored as they are; then all is held.
    level: Option<CompressionLevel>,
    spool: Option<Spool>,
}

/// What a tree has become.
pub(crate) enum WrittenTree {
    /// Its plaintext.
    Plain(Vec<u8>),
    /// A large one.
    Compressed(CompressedTree),
}

/// A large tree, whose plaintext is gone.
pub(crate) struct CompressedTree {
    pub(crate) id: BlobId,
    /// A frame of zstd, behind room for an initialisation vector: it is sealed where it lies.
    pub(crate) behind_room: Vec<u8>,
    /// Length of the plaintext.
    pub(crate) plaintext_bytes: NonZeroU32,
}

/// The part of a tree that is not held any more.
struct Spool {
    digest: Sha256,
    compressor: StreamCompressor,
    bytes: u64,
}

impl Spool {
    fn write(&mut self, json: &[u8]) -> Result<(), FormatError> {
        self.digest.update(json);
        self.bytes += json.len() as u64;
        self.compressor.write_all(json).map_err(compression_failed)
    }
}

fn compression_failed(error: io::Error) -> FormatError {
    FormatError::Compression(error.to_string())
}

impl GrowingTree {
    /// An empty tree, compressed with `level` when it grows large.
    pub(crate) fn new(level: Option<CompressionLevel>) -> Self {
        Self { writer: TreeWriter::new(), level, spool: None }
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, node: &Node) -> Result<(), FormatError> {
        self.writer.push(node)?;
        self.spill_if_large()
    }

    /// Adds the text of entries of another tree; their names come next.
    pub(crate) fn push_text(&mut self, entries: &[u8]) -> Result<(), FormatError> {
        self.writer.push_text(entries);
        self.spill_if_large()
    }

    fn spill_if_large(&mut self) -> Result<(), FormatError> {
        match self.level {
            Some(level) if self.writer.json().len() >= LARGE_TREE_BYTES => self.spill(level),
            _ => Ok(()),
        }
    }

    fn spill(&mut self, level: CompressionLevel) -> Result<(), FormatError> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            spool => spool.insert(Spool {
                digest: Sha256::new(),
                compressor: compression::stream_compressor(level, vec![0; IV_BYTES])?,
                bytes: 0,
            }),
        };
        spool.write(self.writer.json())?;
        self.writer.forget_json();
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<WrittenTree, FormatError> {
        let rest = self.writer.finish();
        let Some(mut spool) = self.spool else { return Ok(WrittenTree::Plain(rest)) };
        spool.write(&rest)?;
        let too_long = || FormatError::invalid("a tree is longer than 4 GiB");
        let plaintext_bytes =
            u32::try_from(spool.bytes).ok().and_then(NonZeroU32::new).ok_or_else(too_long)?;
        let id = BlobId::from_bytes(spool.digest.finalize().into());
        let behind_room = spool.compressor.finish().map_err(compression_failed)?;
        Ok(WrittenTree::Compressed(CompressedTree { id, behind_room, plaintext_bytes }))
    }
}

/// A tree as it is stored, opened where it lay and not decompressed.
pub(crate) struct StoredTree {
    /// Behind [`IV_BYTES`] of room.
    bytes: Vec<u8>,
    is_compressed: bool,
}

/// What is wrong with a stored tree.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// It is not what its id says.
    Damaged(FormatError),
    /// It is, and no tree.
    Invalid(FormatError),
}

impl From<Flaw> for FormatError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Damaged(error) | Flaw::Invalid(error) => error,
        }
    }
}

impl StoredTree {
    /// Opens a sealed tree.
    pub(crate) fn open(
        key: &Key,
        mut sealed: Vec<u8>,
        is_compressed: bool,
    ) -> Result<Self, FormatError> {
        let end = IV_BYTES + key.open_in_place(&mut sealed)?.len();
        sealed.truncate(end);
        Ok(Self { bytes: sealed, is_compressed })
    }

    /// The tree with this plaintext, stored compressed.
    #[cfg(test)]
    pub(crate) fn from_plaintext(plaintext: &[u8]) -> Self {
        let mut compressed = Vec::new();
        let mut compressor = compression::Compressor::new(CompressionLevel::Auto).unwrap();
        compressor.compress_always(plaintext, &mut compressed).unwrap();
        Self { bytes: [vec![0; IV_BYTES], compressed].concat(), is_compressed: true }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[IV_BYTES..]
    }

    /// What was opened, behind [`IV_BYTES`] of room.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether the plaintext is `length` bytes with this hash, and a tree from its first entry to
    /// its last.
    pub(crate) fn examine(&self, id: BlobId, length: u64) -> Result<(), Flaw> {
        let content = self.content().map_err(Flaw::Damaged)?.take(length + 1);
        let mut hashed = Hashed { content, digest: Sha256::new(), bytes: 0 };
        let whole = TreeNodes::new(&mut hashed).and_then(TreeNodes::run_through);
        // Nodes may have stopped early; then the hash still tells whose fault that is.
        let rest = io::copy(&mut hashed, &mut io::sink());
        let Hashed { digest, bytes, .. } = hashed;
        let actual = BlobId::from_bytes(digest.finalize().into());
        match (whole, rest) {
            (whole, Ok(_)) if bytes == length && actual == id => whole.map_err(Flaw::Invalid),
            (Err(error @ FormatError::Compression(_)), _) => Err(Flaw::Damaged(error)),
            (_, Err(error)) => Err(Flaw::Damaged(compression_failed(error))),
            _ => Err(Flaw::Damaged(FormatError::WrongHash { actual: actual.to_hex() })),
        }
    }

    fn content(&self) -> Result<Box<dyn Read + '_>, FormatError> {
        match self.is_compressed {
            true => Ok(Box::new(compression::stream_decompressor(self.bytes())?)),
            false => Ok(Box::new(self.bytes())),
        }
    }

    /// Whether the plaintext is `length` bytes with this hash.
    pub(crate) fn verify(&self, id: BlobId, length: u64) -> Result<(), FormatError> {
        let actual = match self.is_compressed {
            true => compression::digest(self.bytes(), length)?,
            false => BlobId::of(self.bytes()),
        };
        match actual == id {
            true => Ok(()),
            false => Err(FormatError::WrongHash { actual: actual.to_hex() }),
        }
    }

    /// The tree, for several to read.
    pub(crate) fn share(self) -> SharedTree {
        let Self { bytes: mut rest, is_compressed } = self;
        let mut pieces = VecDeque::new();
        // From the end: what is left shrinks where it lies.
        while rest.len() > IV_BYTES {
            let start = rest.len().saturating_sub(PIECE_BYTES).max(IV_BYTES);
            pieces.push_front(Arc::new(rest[start..].to_vec()));
            rest.truncate(start);
            rest.shrink_to_fit();
        }
        SharedTree { pieces, is_compressed }
    }

    /// The entries, in order. What was read takes no memory any more.
    pub(crate) fn nodes(self) -> Result<LargeTree, FormatError> {
        TreeNodes::new(self.share().content()?)
    }
}

/// A large tree that several read. What all of them have read takes no memory any more.
#[derive(Clone)]
pub(crate) struct SharedTree {
    pieces: VecDeque<Arc<Vec<u8>>>,
    is_compressed: bool,
}

impl SharedTree {
    /// The text of the entries, some at a time.
    pub(crate) fn sections(self) -> Result<TreeSections, FormatError> {
        Ok(TreeSections::new(self.content()?))
    }

    fn content(self) -> Result<Box<dyn Read + Send>, FormatError> {
        let pieces = Pieces { left: self.pieces, taken: 0 };
        Ok(match self.is_compressed {
            true => Box::new(compression::stream_decompressor(pieces)?),
            false => Box::new(pieces),
        })
    }
}

/// Reads pieces one after another, and lets go of each at its end.
struct Pieces {
    left: VecDeque<Arc<Vec<u8>>>,
    /// How much of the first was read.
    taken: usize,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.left.front().map_or(&[][..], |piece| &piece[self.taken..]))
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.left.front().is_some_and(|piece| piece.len() == self.taken) {
            self.left.pop_front();
            self.taken = 0;
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.fill_buf()?;
        let length = rest.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

/// What is read, and its hash.
struct Hashed<R> {
    content: R,
    digest: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.digest.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// How much is decompressed at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// A large tree that is read.
pub(crate) type LargeTree = TreeNodes<Box<dyn Read + Send>>;

/// Reads the entries of a tree one by one.
pub(crate) struct TreeNodes<R> {
    input: R,
    /// Read and not yet taken: `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    /// Whether an entry was taken.
    has_begun: bool,
    /// Whether the list's end was.
    has_ended: bool,
}

impl<R: Read> TreeNodes<R> {
    fn new(input: R) -> Result<Self, FormatError> {
        let (has_begun, has_ended) = (false, false);
        let mut nodes = Self { input, buffer: Vec::new(), start: 0, has_begun, has_ended };
        while nodes.buffer.len() < TREE_OPENING.len() && nodes.fill()? {}
        if !nodes.buffer.starts_with(TREE_OPENING) {
            return Err(FormatError::invalid("a tree does not begin with its nodes"));
        }
        nodes.start = TREE_OPENING.len();
        Ok(nodes)
    }

    /// Takes the next entry.
    pub(crate) fn next(&mut self) -> Result<Option<Node>, FormatError> {
        self.next_text()?.map(Node::parse).transpose()
    }

    /// Takes the next entry, as it stands in the tree.
    pub(crate) fn next_text(&mut self) -> Result<Option<&[u8]>, FormatError> {
        if self.has_ended {
            return Ok(None);
        }
        let Some(length) = self.object()? else {
            self.has_ended = true;
            return Ok(None);
        };
        let start = self.start;
        self.start += length;
        Ok(Some(&self.buffer[start..self.start]))
    }

    /// Whether all that is left are entries in their order and a tree's end.
    fn run_through(mut self) -> Result<(), FormatError> {
        let mut last: Option<Node> = None;
        while let Some(node) = self.next()? {
            if last.is_some_and(|last| last.name >= node.name) {
                let name = String::from_utf8_lossy(&node.name).into_owned();
                return Err(FormatError::invalid(format!("'{name}' is out of order")));
            }
            last = Some(node);
        }
        self.end()
    }

    /// Whether nothing follows the list, which was taken, but a tree's end.
    pub(crate) fn end(mut self) -> Result<(), FormatError> {
        let mut is_closed = false;
        loop {
            for &byte in &self.buffer[self.start..] {
                match (is_closed, byte) {
                    (false, b'}') => is_closed = true,
                    (_, b' ' | b'\n' | b'\r' | b'\t') => {}
                    _ => return Err(FormatError::invalid("a tree goes on behind its nodes")),
                }
            }
            self.start = self.buffer.len();
            if !self.fill()? {
                let early = || FormatError::invalid("a tree ends too early");
                return is_closed.then_some(()).ok_or_else(early);
            }
        }
    }

    /// The length of the object that comes next; `None` at the end of the list.
    fn object(&mut self) -> Result<Option<usize>, FormatError> {
        let mut scan = Scan::default();
        let mut is_due = !self.has_begun;
        let mut at = self.start;
        loop {
            while let Some(&byte) = self.buffer.get(at) {
                at += 1;
                if !scan.is_before() {
                    if scan.step(byte) {
                        self.has_begun = true;
                        return Ok(Some(at - self.start));
                    }
                    continue;
                }
                match byte {
                    b' ' | b'\n' | b'\r' | b'\t' => {}
                    b',' if !is_due => (is_due, self.start) = (true, at),
                    b'{' if is_due => _ = scan.step(byte),
                    b']' if is_due != self.has_begun => {
                        self.start = at;
                        return Ok(None);
                    }
                    _ => return Err(FormatError::invalid("a tree's list is not of objects")),
                }
            }
            let taken = self.start;
            if !self.fill()? {
                return Err(FormatError::invalid("a tree ends too early"));
            }
            at -= taken;
        }
    }

    /// Reads on; drops what was taken. Whether there was anything.
    fn fill(&mut self) -> Result<bool, FormatError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut more = self.input.by_ref().take(READ_BYTES as u64);
        Ok(more.read_to_end(&mut self.buffer).map_err(compression_failed)? > 0)
    }
}

/// Where in an object's text a reader is, as far as its end depends on it.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    fn is_before(&self) -> bool {
        self.depth == 0
    }

    /// Takes a byte; whether it ends the object.
    fn step(&mut self, byte: u8) -> bool {
        if std::mem::take(&mut self.escaped) {
            return false;
        }
        match (self.in_text, byte) {
            (true, b'\\') => self.escaped = true,
            (_, b'"') => self.in_text = !self.in_text,
            (false, b'{' | b'[') => self.depth += 1,
            (false, b'}' | b']') => self.depth -= 1,
            _ => {}
        }
        self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::NodeKind;

    fn node(name: &str) -> Node {
        let mut node = Node::new(name.as_bytes().to_vec(), NodeKind::File);
        node.content = Some(vec![BlobId::of(name.as_bytes())]);
        node.user = r#"{"]},\"#.to_owned();
        node
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("file [{n:06}] \"}}\\")).collect()
    }

    fn plain(names: &[String]) -> Vec<u8> {
        let mut writer = TreeWriter::new();
        names.iter().for_each(|name| writer.push(&node(name)).unwrap());
        writer.finish()
    }

    fn stored(plaintext: &[u8]) -> StoredTree {
        StoredTree::from_plaintext(plaintext)
    }

    #[test]
    fn a_large_tree_is_what_a_small_one_would_be() {
        let names = names(40_000);
        let plaintext = plain(&names);
        assert!(plaintext.len() > LARGE_TREE_BYTES);
        let mut tree = GrowingTree::new(Some(CompressionLevel::Auto));
        names.iter().for_each(|name| tree.push(&node(name)).unwrap());
        let WrittenTree::Compressed(tree) = tree.finish().unwrap() else { panic!("it is large") };
        assert_eq!(tree.id, BlobId::of(&plaintext));
        let length = u64::from(tree.plaintext_bytes.get());
        assert_eq!(length, plaintext.len() as u64);
        let stored = StoredTree { bytes: tree.behind_room, is_compressed: true };
        stored.verify(tree.id, length).unwrap();
        assert!(stored.verify(tree.id, length - 1).is_err());
        assert!(stored.verify(BlobId::of(b""), length).is_err());
        let back = compression::decompress_bounded(stored.bytes(), length).unwrap();
        assert!(back == plaintext);
    }

    #[test]
    fn small_trees_and_those_of_old_repositories_are_held() {
        for (count, level) in [(10, Some(CompressionLevel::Auto)), (40_000, None)] {
            let names = names(count);
            let mut tree = GrowingTree::new(level);
            names.iter().for_each(|name| tree.push(&node(name)).unwrap());
            let WrittenTree::Plain(written) = tree.finish().unwrap() else { panic!("it is held") };
            assert!(written == plain(&names));
        }
    }

    #[test]
    fn entries_come_in_their_order() {
        for count in [0, 3_000] {
            let names = names(count);
            let mut nodes = stored(&plain(&names)).nodes().unwrap();
            for name in &names {
                assert_eq!(nodes.next().unwrap(), Some(node(name)));
            }
            assert!(nodes.next().unwrap().is_none());
            assert!(nodes.next().unwrap().is_none(), "there is nothing behind the end");
        }
    }

    #[test]
    fn what_all_readers_have_read_is_gone() {
        let bytes = [vec![0; IV_BYTES], plain(&names(20_000))].concat();
        let tree = StoredTree { bytes, is_compressed: false }.share();
        let pieces: Vec<_> = tree.pieces.iter().map(Arc::downgrade).collect();
        let held = || pieces.iter().filter(|piece| piece.strong_count() > 0).count();
        assert!(held() > 3, "{} pieces", held());
        let (mut quick, mut slow) = (tree.clone().sections().unwrap(), tree.sections().unwrap());
        while quick.next().unwrap().is_some() {}
        assert_eq!(held(), pieces.len(), "one has read nothing yet");
        let mut before = held();
        while slow.next().unwrap().is_some() {
            assert!(before - held() <= 1);
            before = held();
        }
        assert_eq!(held(), 0);
    }

    #[test]
    fn what_is_no_tree_is_an_error_and_no_panic() {
        let sound = plain(&names(3));
        let cut = &sound[..sound.len() - 20];
        for plaintext in [&b""[..], b"{", b"[]", br#"{"nodes":null}"#, br#"{"nodes":[7]}"#, cut] {
            let nodes = stored(plaintext).nodes();
            assert!(nodes.and_then(TreeNodes::run_through).is_err());
        }
    }
}
