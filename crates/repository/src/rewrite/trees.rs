//! Writing trees anew without some of what is in them.
//!
//! A [`Rule`] says of each entry whether it stays, changes or goes, and what is to become of a
//! folder that cannot be read. Here is the walk: depth first, without recursion, only the folders
//! between the root and the present one in memory. A folder in which nothing changed keeps its
//! tree, to the byte, whoever wrote it.
//!
//! What became of a tree is remembered, so that snapshots that share it cost nothing more; also
//! trees that a hostile writer made share one another are walked once. Where the rule goes by
//! paths, they are walked once for each way in which a path matters to it ([`Rule::State`]).
//!
//! What a rule leaves out is noted with its path, a bounded number for each tree.
//!
//! A large tree (`crate::large_tree`) is read entry by entry, and written on the way: it would be too
//! much to hold until something changes.

use std::{collections::HashMap, hash::Hash, rc::Rc};

use foldhash::fast::RandomState;
use serde_json::Value;

use crate::{
    format::{
        FormatError,
        pack::BlobKind,
        tree::{Node, NodeKind, TreeWriter},
    },
    id::BlobId,
    large_tree::{GrowingTree, LargeTree, WrittenTree},
    packer::{PackWriter, Sealer, WriteError},
    repository::{BlobReader, Entries, IndexedRepository, ReadError},
    run::Run,
    supersede::ChangeError,
};

/// The deepest folder that is walked into, as in `tree_walk`.
const DEPTH_MAX: usize = 16_384;

/// How many notes are kept of a tree and all below it; the rest is counted.
const NOTES_MAX: usize = 1000;

/// How many bytes their paths have together. A long chain of folders copies them at each step.
const NOTES_BYTES_MAX: usize = 128 << 10;

/// The longest path that is noted: Linux takes no longer ones.
const NOTED_PATH_BYTES_MAX: usize = 4096;

/// What becomes of an entry.
pub(crate) enum Fate {
    /// It stays as it is; a folder is walked into.
    Stays,
    /// It changes into this.
    Becomes(Box<Node>),
    /// It goes, with all below it.
    Goes,
}

/// Says what becomes of entries.
pub(crate) trait Rule {
    /// What is noted of something that changes or goes.
    type Note: Clone;

    /// All that the fates of what is in a folder depend on, besides the folder's tree.
    type State: Copy + Eq + Hash;

    /// Whether a tree may only be written anew when nothing of it is lost that is not
    /// understood here.
    const LOSSLESS: bool;

    /// The state at the root.
    fn at_root(&mut self) -> Self::State;

    /// The state at the folder `name` in another one.
    fn below(&mut self, above: Self::State, name: &[u8]) -> Self::State;

    /// What becomes of the entry at `path`, and what is to be noted of it.
    fn judge(&mut self, path: &[u8], node: &Node) -> (Fate, Option<Self::Note>);

    /// What is to be noted of a folder that cannot be read and becomes an empty one; an error
    /// ends the rewriting.
    fn unreadable(&mut self, tree: BlobId, error: ReadError) -> Result<Self::Note, ReadError>;
}

/// Files, and the bytes in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files of all kinds but folders.
    pub files: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// What became of a tree. Paths of notes are relative to it.
pub(crate) struct Rewritten<N> {
    /// The tree in its place.
    pub(crate) tree: BlobId,
    /// What is in it.
    pub(crate) totals: Totals,
    /// What was noted.
    pub(crate) notes: Rc<Vec<(Vec<u8>, N)>>,
    /// How much was noted, with what is not listed.
    pub(crate) notes_total: u64,
    /// Whether the tree itself could not be read.
    pub(crate) is_unreadable: bool,
}

impl<N> Clone for Rewritten<N> {
    fn clone(&self) -> Self {
        Self { notes: Rc::clone(&self.notes), ..*self }
    }
}

/// Rewrites the trees of one repository by one rule.
pub(crate) struct TreeRewriter<'w, R: Rule> {
    reader: BlobReader<'w>,
    writer: &'w PackWriter<'w>,
    sealer: Sealer<'w>,
    run: &'w Run,
    /// By tree, and by what the rule makes of its path.
    known: HashMap<(BlobId, R::State), Rewritten<R::Note>, RandomState>,
    /// The rule.
    pub(crate) rule: R,
}

/// A folder's entry in the one above, and what became of the folder.
type Done<N> = (Option<Node>, Rewritten<N>);

/// A folder on the way.
struct Frame<N, S> {
    tree: BlobId,
    state: S,
    /// The folder's entry in the one above; none for the root.
    entry: Option<Node>,
    entries: Entries,
    kept: Kept,
    changed: bool,
    path_length: usize,
    totals: Totals,
    notes: Vec<(Vec<u8>, N)>,
    notes_bytes: usize,
    notes_total: u64,
}

/// What stays of a folder's entries.
enum Kept {
    /// To be written if anything changed.
    Nodes(Vec<Node>),
    /// Written at once, since they are many.
    Written(Box<GrowingTree>),
}

impl Kept {
    fn push(&mut self, node: Node) -> Result<(), WriteError> {
        match self {
            Self::Nodes(nodes) => nodes.push(node),
            Self::Written(tree) => tree.push(&node)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<WrittenTree, WriteError> {
        match self {
            Self::Nodes(nodes) => {
                let mut writer = TreeWriter::new();
                nodes.iter().try_for_each(|node| writer.push(node))?;
                Ok(WrittenTree::Plain(writer.finish()))
            }
            Self::Written(tree) => Ok(tree.finish()?),
        }
    }
}

impl<N: Clone, S> Frame<N, S> {
    fn note(&mut self, path: Vec<u8>, note: N) {
        self.notes_total = self.notes_total.saturating_add(1);
        self.keep_note(&[&path], note);
    }

    /// Keeps a note of the path of these parts, if there is room.
    fn keep_note(&mut self, path: &[&[u8]], note: N) {
        let bytes = path.iter().map(|part| part.len()).sum::<usize>();
        let all = self.notes_bytes.saturating_add(bytes);
        if self.notes.len() < NOTES_MAX && all <= NOTES_BYTES_MAX && bytes <= NOTED_PATH_BYTES_MAX {
            self.notes_bytes = all;
            self.notes.push((path.concat(), note));
        }
    }

    /// Takes over what became of a folder in this one.
    fn take(&mut self, mut entry: Node, below: &Rewritten<N>) -> Result<(), WriteError> {
        self.changed |= entry.subtree != Some(below.tree);
        for (path, note) in below.notes.iter() {
            let slash = if path.is_empty() { &b""[..] } else { b"/" };
            self.keep_note(&[&entry.name, slash, path], note.clone());
        }
        self.notes_total = self.notes_total.saturating_add(below.notes_total);
        self.totals.files = self.totals.files.saturating_add(below.totals.files);
        self.totals.bytes = self.totals.bytes.saturating_add(below.totals.bytes);
        entry.subtree = Some(below.tree);
        self.kept.push(entry)
    }

    fn keep(&mut self, node: Node) -> Result<(), WriteError> {
        self.totals.files = self.totals.files.saturating_add(1);
        if node.kind == NodeKind::File {
            self.totals.bytes = self.totals.bytes.saturating_add(node.size);
        }
        self.kept.push(node)
    }
}

impl<'w, R: Rule> TreeRewriter<'w, R> {
    /// A rewriter that reads from `repository` and writes to `writer`.
    pub(crate) fn new(
        repository: &'w IndexedRepository,
        writer: &'w PackWriter<'w>,
        rule: R,
        run: &'w Run,
    ) -> Result<Self, ChangeError> {
        let sealer = writer.sealer(BlobKind::Tree)?;
        let reader = repository.blob_reader()?;
        Ok(Self { reader, writer, sealer, run, known: HashMap::default(), rule })
    }

    /// Rewrites a snapshot's tree.
    pub(crate) fn rewrite(&mut self, root: BlobId) -> Result<Rewritten<R::Note>, ChangeError> {
        let mut path = vec![b'/'];
        let mut open = Vec::new();
        let state = self.rule.at_root();
        let mut done = self.enter(root, state, None, &path, &mut open)?;
        loop {
            self.run.cancel.check()?;
            if let Some((entry, rewritten)) = done.take() {
                // The path of a folder that was entered ends with its name and a slash.
                match (open.last_mut(), entry) {
                    (Some(above), Some(entry)) => {
                        path.truncate(above.path_length);
                        above.take(entry, &rewritten)?;
                    }
                    _ => return Ok(rewritten),
                }
            }
            let Some(frame) = open.last_mut() else { return Err(bug().into()) };
            let Some(node) = frame.entries.next().transpose()? else {
                let frame = open.pop().expect("the frame that was just looked at");
                done = Some(self.finish(frame, &path)?);
                continue;
            };
            path.extend_from_slice(&node.name);
            let (fate, note) = self.rule.judge(&path, &node);
            if let Some(note) = note {
                frame.note(node.name.clone(), note);
            }
            match (fate, node.kind, node.subtree) {
                (Fate::Goes, ..) => frame.changed = true,
                (Fate::Becomes(node), ..) => {
                    frame.changed = true;
                    frame.keep(*node)?;
                }
                (Fate::Stays, NodeKind::Dir, Some(subtree)) => {
                    path.push(b'/');
                    let state = self.rule.below(frame.state, &node.name);
                    done = self.enter(subtree, state, Some(node), &path, &mut open)?;
                    continue;
                }
                (Fate::Stays, ..) => frame.keep(node)?,
            }
            let length = frame.path_length;
            path.truncate(length);
        }
    }

    /// Opens a folder; gives what became of it at once when that is known, or it cannot be read.
    fn enter(
        &mut self,
        tree: BlobId,
        state: R::State,
        entry: Option<Node>,
        path: &[u8],
        open: &mut Vec<Frame<R::Note, R::State>>,
    ) -> Result<Option<Done<R::Note>>, ChangeError> {
        if let Some(known) = self.known.get(&(tree, state)) {
            return Ok(Some((entry, known.clone())));
        }
        let read = match open.len() < DEPTH_MAX {
            true => self.reader.entries(tree),
            false => Err(too_deep(tree)),
        };
        match read {
            Ok(entries) => {
                self.run.progress.add_done(1, 0);
                let kept = match entries.is_large() {
                    true => {
                        let level = self.writer.tree_compression();
                        Kept::Written(Box::new(GrowingTree::new(level)))
                    }
                    false => Kept::Nodes(Vec::new()),
                };
                open.push(Frame {
                    tree,
                    state,
                    entry,
                    entries,
                    kept,
                    changed: false,
                    path_length: path.len(),
                    totals: Totals::default(),
                    notes: Vec::new(),
                    notes_bytes: 0,
                    notes_total: 0,
                });
                Ok(None)
            }
            Err(error) => {
                let note = self.rule.unreadable(tree, error)?;
                self.run.progress.add_error();
                let rewritten = Rewritten {
                    tree: self.store(WrittenTree::Plain(TreeWriter::new().finish()))?,
                    totals: Totals::default(),
                    notes: Rc::new(vec![(Vec::new(), note)]),
                    notes_total: 1,
                    is_unreadable: true,
                };
                self.known.insert((tree, state), rewritten.clone());
                Ok(Some((entry, rewritten)))
            }
        }
    }

    fn finish(
        &mut self,
        frame: Frame<R::Note, R::State>,
        path: &[u8],
    ) -> Result<Done<R::Note>, ChangeError> {
        let Frame { tree, state, entry, kept, changed, totals, notes, notes_total, .. } = frame;
        let key = (tree, state);
        let tree = match changed {
            false => tree,
            true => {
                if R::LOSSLESS && !self.is_understood(tree)? {
                    let end = path.len().saturating_sub(1).max(1);
                    return Err(ChangeError::WouldLose { path: path[..end].to_vec() });
                }
                self.store(kept.finish()?)?
            }
        };
        let rewritten =
            Rewritten { tree, totals, notes: Rc::new(notes), notes_total, is_unreadable: false };
        self.known.insert(key, rewritten.clone());
        Ok((entry, rewritten))
    }

    /// Whether the tree says the same after it was understood and written again.
    fn is_understood(&mut self, tree: BlobId) -> Result<bool, ChangeError> {
        // One that is written in an odd way is compared as a whole: it was read so, too.
        if let Some(large) = self.reader.large_tree(tree)?
            && let Ok(understood) = large.nodes().and_then(is_list_understood)
        {
            return Ok(understood);
        }
        let mut plaintext = Vec::new();
        self.reader.read(BlobKind::Tree, tree, &mut plaintext)?;
        let mut writer = TreeWriter::new();
        for node in &self.reader.tree(tree)?.nodes {
            writer.push(node).map_err(WriteError::from)?;
        }
        let again = writer.finish();
        if again == plaintext {
            return Ok(true);
        }
        Ok(says_all_of(&json(&again), &json(&plaintext)))
    }

    fn store(&mut self, tree: WrittenTree) -> Result<BlobId, ChangeError> {
        let plaintext = match tree {
            WrittenTree::Plain(plaintext) => plaintext,
            WrittenTree::Compressed(tree) => {
                let id = tree.id;
                if self.writer.claim(BlobKind::Tree, id) {
                    self.sealer.write_tree(self.writer, tree)?;
                }
                return Ok(id);
            }
        };
        let id = BlobId::of(&plaintext);
        if self.writer.claim(BlobKind::Tree, id) {
            let sealed = self.sealer.seal(id, &plaintext)?;
            self.writer.add(BlobKind::Tree, id, plaintext.len() as u64, sealed)?;
        }
        Ok(id)
    }
}

/// Whether each entry of a large tree says the same after it was understood and written again.
fn is_list_understood(mut nodes: LargeTree) -> Result<bool, FormatError> {
    let mut again = Vec::new();
    while let Some(text) = nodes.next_text()? {
        again.clear();
        Node::parse(text)?.write(&mut again)?;
        if again != text && !says_all_of(&json(&again), &json(text)) {
            return Ok(false);
        }
    }
    nodes.end().map(|()| true)
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_default()
}

/// Whether everything that `before` says stands in `after`, too. What is left out when it is empty
/// or zero may be missing on either side.
fn says_all_of(after: &Value, before: &Value) -> bool {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => before.iter().all(|(key, value)| {
            after.get(key).map_or_else(|| is_nothing(value), |after| says_all_of(after, value))
        }),
        (Value::Array(after), Value::Array(before)) => {
            after.len() == before.len()
                && after.iter().zip(before).all(|(after, before)| says_all_of(after, before))
        }
        (after, before) => after == before || (is_nothing(after) && is_nothing(before)),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn too_deep(tree: BlobId) -> ReadError {
    let source = FormatError::invalid(format!("it lies more than {DEPTH_MAX} folders deep"));
    ReadError::DamagedBlob { kind: BlobKind::Tree, id: tree, pack: None, source }
}

/// The loop returns with the root before nothing is open any more.
fn bug() -> ReadError {
    ReadError::Decoder(FormatError::invalid("a walk without a root"))
}
