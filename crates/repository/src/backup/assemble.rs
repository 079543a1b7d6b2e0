//! Building trees from the walk's events.
//!
//! A folder in which everything is as the parent recorded it has the parent's tree. So long as that
//! may be, entries are only counted, and nothing is encoded or hashed.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender};

use super::{
    BackupError, Problem,
    budget::Budget,
    pipeline::{BlobJob, FileOutcome, send_large_tree, send_tree},
    recorded::{Beginning, ParentTree, Place},
};
use crate::{
    compression::CompressionLevel,
    format::{
        FormatError,
        snapshot::Summary,
        tree::{Node, NodeKind},
    },
    id::BlobId,
    large_tree::{GrowingTree, WrittenTree},
    packer::WriteError,
    run::Run,
};

/// What the walk found, in the order of the tree.
pub(super) enum Event {
    /// A folder begins; with the tree the parent recorded for it.
    Enter {
        /// The folder's node, without its tree.
        node: Box<Node>,
        /// The parent's tree, if it has the folder.
        before: Option<Before>,
    },
    /// Files that are in every respect what the parent recorded.
    Same(SameFiles),
    /// All that comes of the parent's tree comes from this section or later ones.
    Section(usize),
    /// An entry that needs nothing more.
    Ready {
        /// The entry.
        node: Box<Node>,
        /// How it compares with the parent.
        change: Change,
    },
    /// A file that is being read.
    File {
        /// Its path, for people.
        path: Vec<u8>,
        /// What the parent recorded.
        before: Option<Box<Node>>,
        /// Gets the outcome.
        outcome: Receiver<FileOutcome>,
    },
    /// The folder is done.
    Leave,
}

/// What the parent recorded of a folder's entries.
pub(super) struct Before {
    pub(super) id: BlobId,
    /// The tree; missing when it could not be read.
    pub(super) tree: Option<ParentTree>,
}

/// Files one after another that are in every respect what the parent recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SameFiles {
    /// Where they stand in the parent's tree.
    pub(super) place: Place,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// How an entry compares with the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    New,
    Changed,
    Unmodified,
}

/// What could not be backed up, from all threads.
#[derive(Debug, Default)]
pub(super) struct Problems(Mutex<Vec<Problem>>);

impl Problems {
    pub(super) fn add(&self, problem: Problem, run: &Run) {
        run.progress.add_error();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Folder {
    node: Box<Node>,
    before: Option<BlobId>,
    entries: Entries,
}

/// The entries of a folder so far.
struct Entries {
    now: Now,
    level: Option<CompressionLevel>,
    /// A record, for the moment.
    record: Vec<u8>,
}

enum Now {
    /// What the parent's tree begins with.
    Same(Box<Beginning>),
    /// A tree of its own, with that of the parent as long as there is one.
    New(Box<GrowingTree>, Option<Box<Beginning>>),
}

/// A folder's tree.
enum Finished {
    /// The one that the parent has.
    Unchanged,
    /// This.
    New(WrittenTree),
}

impl Entries {
    fn new(
        before: Option<ParentTree>,
        level: Option<CompressionLevel>,
    ) -> Result<Self, WriteError> {
        let now = match before {
            Some(tree) => Now::Same(Box::new(Beginning::new(tree)?)),
            None => Now::New(Box::new(GrowingTree::new(level)), None),
        };
        Ok(Self { now, level, record: Vec::new() })
    }

    fn push(&mut self, node: &Node) -> Result<(), WriteError> {
        if let Now::Same(beginning) = &mut self.now {
            self.record.clear();
            node.write(&mut self.record)?;
            if beginning.take_record(&self.record) {
                return Ok(());
            }
        }
        Ok(self.tree()?.0.push(node)?)
    }

    /// Pushes the entries at this place of the parent's tree.
    fn push_same(&mut self, place: &Place) -> Result<(), WriteError> {
        if let Now::Same(beginning) = &mut self.now
            && beginning.take(place)
        {
            return Ok(());
        }
        let (tree, before) = self.tree()?;
        let no_tree = || FormatError::invalid("entries of the parent's tree are there without it");
        Ok(tree.push_text(before.ok_or_else(no_tree)?.entries(place)?)?)
    }

    /// Lets go of what the parent's tree has before a section, unless that may still be copied.
    fn go_to(&mut self, section: usize) -> Result<(), WriteError> {
        match &mut self.now {
            Now::New(_, Some(before)) => Ok(before.go_to(section)?),
            Now::New(_, None) | Now::Same(_) => Ok(()),
        }
    }

    /// The tree as it is written; what was the same so far is made up for.
    fn tree(&mut self) -> Result<(&mut GrowingTree, Option<&mut Beginning>), WriteError> {
        if let Now::Same(beginning) = &mut self.now {
            let mut tree = Box::new(GrowingTree::new(self.level));
            beginning.copy_to(&mut tree)?;
            let now = std::mem::replace(&mut self.now, Now::New(tree, None));
            if let (Now::New(_, before), Now::Same(beginning)) = (&mut self.now, now) {
                *before = Some(beginning);
            }
        }
        match &mut self.now {
            Now::New(tree, before) => Ok((tree, before.as_deref_mut())),
            Now::Same(_) => unreachable!("it was made just now"),
        }
    }

    fn finish(mut self) -> Result<Finished, WriteError> {
        if let Now::Same(beginning) = &mut self.now
            && beginning.is_whole()
        {
            return Ok(Finished::Unchanged);
        }
        self.tree()?;
        match self.now {
            Now::New(tree, _) => Ok(Finished::New(tree.finish()?)),
            Now::Same(_) => unreachable!("it was made just now"),
        }
    }
}

/// Builds trees and sends them to the workers.
pub(super) struct Assembler<'a> {
    pub(super) budget: Arc<Budget>,
    pub(super) jobs: Sender<BlobJob>,
    pub(super) problems: &'a Problems,
    pub(super) run: &'a Run,
    pub(super) summary: Summary,
    /// How trees are compressed, if they are.
    pub(super) level: Option<CompressionLevel>,
}

impl Assembler<'_> {
    /// Follows the events to their end; returns the root tree and the counts.
    ///
    /// # Errors
    /// Fails when another thread failed or the run is cancelled.
    pub(super) fn work(
        mut self,
        events: Receiver<Event>,
    ) -> Result<(BlobId, Summary), BackupError> {
        let mut root = Entries::new(None, self.level)?;
        let mut stack: Vec<Folder> = Vec::new();
        for event in events {
            let node = match event {
                Event::Enter { node, before } => {
                    let (before, tree) =
                        before.map_or((None, None), |before| (Some(before.id), before.tree));
                    let entries = Entries::new(tree, self.level)?;
                    stack.push(Folder { node, before, entries });
                    continue;
                }
                Event::Same(same) => {
                    let entries = stack.last_mut().map_or(&mut root, |folder| &mut folder.entries);
                    entries.push_same(&same.place)?;
                    self.count_unmodified(same.files, same.bytes);
                    continue;
                }
                Event::Section(section) => {
                    let entries = stack.last_mut().map_or(&mut root, |folder| &mut folder.entries);
                    entries.go_to(section)?;
                    continue;
                }
                Event::Ready { node, change } => {
                    self.count_file(&node, change);
                    Some(node)
                }
                Event::File { path, before, outcome } => {
                    self.file(path, before.as_deref(), &outcome)?
                }
                Event::Leave => match stack.pop() {
                    Some(folder) => Some(self.finish_folder(folder)?),
                    None => None,
                },
            };
            if let Some(node) = node {
                let entries = stack.last_mut().map_or(&mut root, |folder| &mut folder.entries);
                entries.push(&node)?;
            }
        }
        if !stack.is_empty() {
            // The walk ended within a folder: it failed, and its own error is the one to tell.
            return Err(WriteError::Aborted.into());
        }
        let id = self.finish(root, None)?;
        Ok((id, self.summary))
    }

    fn file(
        &mut self,
        path: Vec<u8>,
        before: Option<&Node>,
        outcome: &Receiver<FileOutcome>,
    ) -> Result<Option<Box<Node>>, BackupError> {
        self.run.progress.set_current(|text| text.push_str(&String::from_utf8_lossy(&path)));
        match outcome.recv() {
            Ok(FileOutcome::Read(node)) => {
                let change = match before {
                    None => Change::New,
                    Some(before) if *before == *node => Change::Unmodified,
                    Some(_) => Change::Changed,
                };
                self.count_file(&node, change);
                Ok(Some(node))
            }
            Ok(FileOutcome::Unreadable { operation, error }) => {
                self.problems.add(Problem { path, operation, error }, self.run);
                Ok(None)
            }
            Ok(FileOutcome::Dropped) | Err(_) => {
                self.run.cancel.check().map_err(WriteError::from)?;
                Err(WriteError::Aborted.into())
            }
        }
    }

    fn count_file(&mut self, node: &Node, change: Change) {
        if node.kind != NodeKind::File {
            return;
        }
        match change {
            Change::New => self.summary.files_new += 1,
            Change::Changed => self.summary.files_changed += 1,
            Change::Unmodified => return self.count_unmodified(1, node.size),
        }
        self.summary.total_files_processed += 1;
        self.summary.total_bytes_processed += node.size;
        self.run.progress.add_done(1, 0);
    }

    fn count_unmodified(&mut self, files: u64, bytes: u64) {
        self.summary.files_unmodified += files;
        self.summary.total_files_processed += files;
        self.summary.total_bytes_processed += bytes;
        self.run.progress.add_done(files, 0);
    }

    fn finish_folder(&mut self, folder: Folder) -> Result<Box<Node>, BackupError> {
        let Folder { mut node, before, entries } = folder;
        let id = self.finish(entries, before)?;
        match before {
            None => self.summary.dirs_new += 1,
            Some(before) if before == id => self.summary.dirs_unmodified += 1,
            Some(_) => self.summary.dirs_changed += 1,
        }
        node.subtree = Some(id);
        Ok(node)
    }

    /// Sends the tree to the workers, unless the parent, which has it as `before`, has the same.
    fn finish(&mut self, entries: Entries, before: Option<BlobId>) -> Result<BlobId, BackupError> {
        let tree = match (entries.finish()?, before) {
            (Finished::Unchanged, Some(before)) => return Ok(before),
            (Finished::Unchanged, None) => {
                GrowingTree::new(None).finish().map_err(WriteError::from)?
            }
            (Finished::New(tree), _) => tree,
        };
        match tree {
            WrittenTree::Plain(plaintext) => {
                let id = BlobId::of(&plaintext);
                send_tree(&self.budget, &self.jobs, plaintext)?;
                Ok(id)
            }
            WrittenTree::Compressed(tree) => {
                let id = tree.id;
                send_large_tree(&self.budget, &self.jobs, tree)?;
                Ok(id)
            }
        }
    }
}
