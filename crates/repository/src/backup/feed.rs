//! What the walk's findings become: events for the assembler, jobs for the readers.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use crossbeam_channel::{Sender, bounded};
use rustix::fs::{FileType, Stat, readlinkat};

use super::{
    BackupError, Problem, StandIn,
    assemble::{Change, Event, Problems, SameFiles},
    metadata::{self, NodeMaker},
    parent::{self, ParentWalk, Trust},
    pipeline::FileJob,
    recorded::{Place, SameEntry},
    walk::{self, Found, Visitor},
};
use crate::{
    chunker::pages::Fineness,
    format::{
        file_opening,
        pack::BlobKind,
        tree::{Node, NodeKind},
    },
    index::Index,
    packer::WriteError,
    run::Run,
};

/// How many files that are what they were are told of at once; a count that people see waits for it.
const SAME_FILES_MAX: u64 = 1024;

fn change(before: Option<&Node>, now: &Node) -> Change {
    match before {
        None => Change::New,
        Some(before) if before == now => Change::Unmodified,
        Some(_) => Change::Changed,
    }
}

/// Decides for each entry what has to be done with it.
pub(super) struct Feed<'a> {
    pub(super) maker: &'a NodeMaker,
    pub(super) parent: ParentWalk<'a>,
    /// What is trusted; `None` to read every file.
    pub(super) trust: Option<Trust>,
    pub(super) index: &'a Index,
    pub(super) events: Sender<Event>,
    pub(super) files: Sender<FileJob>,
    pub(super) problems: &'a Problems,
    pub(super) notices: &'a mut Vec<String>,
    pub(super) run: &'a Run,
    pub(super) attributes: Vec<u8>,
    /// Files that are what they were and were not told of yet.
    pub(super) same: Option<SameFiles>,
    /// A file's node and the text that it begins with, for the moment.
    pub(super) node: Node,
    pub(super) opening: Vec<u8>,
    /// A source whose content is read from elsewhere.
    pub(super) stand_in: Option<&'a StandIn>,
    /// The pieces of the files so far, for each folder that the walk is in.
    pub(super) pieces: Vec<u64>,
}

impl Feed<'_> {
    fn send(&mut self, event: Event) -> Result<(), BackupError> {
        self.send_same()?;
        self.events.send(event).map_err(|_| WriteError::Aborted.into())
    }

    fn send_same(&mut self) -> Result<(), BackupError> {
        match self.same.take() {
            Some(same) => {
                self.events.send(Event::Same(same)).map_err(|_| WriteError::Aborted.into())
            }
            None => Ok(()),
        }
    }

    /// Tells which part of the parent's tree is no longer needed.
    fn send_section(&mut self) -> Result<(), BackupError> {
        match self.parent.new_section() {
            Some(section) => self.send(Event::Section(section)),
            None => Ok(()),
        }
    }

    fn ready(&mut self, node: Node, change: Change) -> Result<(), BackupError> {
        self.send_section()?;
        self.send(Event::Ready { node: Box::new(node), change })
    }

    fn file(&mut self, found: Found<'_>) -> Result<(), BackupError> {
        let stand_in =
            self.stand_in.filter(|stand_in| walk::absolute(&stand_in.source) == found.path);
        if let Some(stand_in) = stand_in {
            return self.stand_in(found, stand_in);
        }
        if let Some((entry, bytes)) = self.take_same(&found) {
            self.count_pieces(entry.pieces);
            self.run.progress.add_done(0, bytes);
            return self.same(entry.place, bytes);
        }
        self.parent.go_to(found.stored_name);
        let mut node = self.maker.node(found.stored_name, found.stat);
        let before = self.parent.node(found.stored_name);
        let trusted =
            self.trust.as_ref().and_then(|trust| trust.unchanged(&node, before, self.index));
        if let Some(before) = trusted {
            if let Err(error) = parent::take_over(&mut node, before, &found, &mut self.attributes) {
                self.problem(found.path, "read the attributes of", error);
                return Ok(());
            }
            self.run.progress.add_done(0, node.size);
            let pieces = node.content.as_ref().map_or(0, Vec::len) as u64;
            let change = change(Some(before), &node);
            self.ready(node, change)?;
            self.count_pieces(pieces);
            return Ok(());
        }
        let before = before.cloned();
        self.read(found, node, before, None)
    }

    /// A file that is what the parent recorded in every respect, and its size: most files of most
    /// backups, so this makes nothing and looks at nothing a second time.
    fn take_same(&mut self, found: &Found<'_>) -> Option<(SameEntry, u64)> {
        // Entries that lie in no folder are not compared with the parent's.
        if self.pieces.is_empty() {
            return None;
        }
        let trust = self.trust.as_ref()?;
        let node = &mut self.node;
        node.name.clear();
        node.name.extend_from_slice(found.stored_name);
        self.maker.fill(node, found.stat);
        if trust.is_racy(node) {
            return None;
        }
        self.opening.clear();
        file_opening::write(node, &mut self.opening).ok()?;
        let index = self.index;
        let is_stored = |id| index.contains(BlobKind::Data, id);
        let entry = self.parent.take_same(&self.opening, is_stored)?;
        Some((entry, self.node.size))
    }

    /// Counts a file that needs no more, to be told with others.
    fn same(&mut self, place: Place, bytes: u64) -> Result<(), BackupError> {
        if self.same.as_ref().is_some_and(|same| same.files >= SAME_FILES_MAX) {
            self.send_same()?;
        }
        if let Some(same) = &mut self.same
            && same.place.join(&place)
        {
            same.files += 1;
            same.bytes += bytes;
            return Ok(());
        }
        self.send_same()?;
        self.same = Some(SameFiles { place, files: 1, bytes });
        Ok(())
    }

    fn count_pieces(&mut self, pieces: u64) {
        if let Some(sum) = self.pieces.last_mut() {
            *sum += pieces;
        }
    }

    /// A file that is not opened; see [`StandIn`].
    fn stand_in(&mut self, found: Found<'_>, stand_in: &StandIn) -> Result<(), BackupError> {
        let mut node = self.maker.node(found.stored_name, found.stat);
        if let Some(mtime) = stand_in.mtime {
            (node.mtime, node.atime) = (mtime.clamped(), mtime.clamped());
        }
        match metadata::attributes_of_entry(found.folder.as_fd(), found.name, &mut self.attributes)
        {
            Ok(attributes) => node.extended_attributes = attributes,
            Err(error) => self.problem(found.path, "read the attributes of", error),
        }
        self.parent.go_to(found.stored_name);
        let before = self.parent.node(found.stored_name).cloned();
        self.read(found, node, before, Some(stand_in.copy.clone()))
    }

    /// Hands the file to the readers.
    fn read(
        &mut self,
        found: Found<'_>,
        node: Node,
        before: Option<Node>,
        copy: Option<PathBuf>,
    ) -> Result<(), BackupError> {
        let (done, outcome) = bounded(1);
        let before = before.map(Box::new);
        self.send_section()?;
        self.send(Event::File { path: found.path.to_vec(), before, outcome })?;
        let name = found.name.to_vec();
        let fineness = Fineness::of(self.pieces.last().copied().unwrap_or(0), node.size);
        self.count_pieces(fineness.pieces(node.size));
        let job = FileJob { folder: found.folder.clone(), name, node, copy, fineness, done };
        self.files.send(job).map_err(|_| WriteError::Aborted.into())
    }

    fn other(&mut self, found: Found<'_>) -> Result<(), BackupError> {
        self.parent.go_to(found.stored_name);
        match self.other_node(found) {
            Ok(node) => {
                let change = change(self.parent.node(found.stored_name), &node);
                self.ready(node, change)
            }
            Err((operation, error)) => {
                self.problem(found.path, operation, error);
                Ok(())
            }
        }
    }

    fn other_node(&mut self, found: Found<'_>) -> Result<Node, (&'static str, io::Error)> {
        let mut node = self.maker.node(found.stored_name, found.stat);
        if node.kind == NodeKind::Symlink {
            let target = readlinkat(found.folder, found.name, Vec::new())
                .map_err(|error| ("read the link", error.into()))?;
            node.link_target = target.into_bytes();
        }
        let attributes = &mut self.attributes;
        node.extended_attributes =
            metadata::attributes_of_entry(found.folder.as_fd(), found.name, attributes)
                .map_err(|error| ("read the attributes of", error))?;
        Ok(node)
    }
}

impl Visitor for Feed<'_> {
    fn enter(
        &mut self,
        stored_name: &[u8],
        path: &[u8],
        stat: &Stat,
        open: Option<&Arc<OwnedFd>>,
    ) -> Result<(), BackupError> {
        let mut node = self.maker.node(stored_name, stat);
        if let Some(open) = open {
            match metadata::attributes_of_open(open, &mut self.attributes) {
                Ok(attributes) => node.extended_attributes = attributes,
                Err(error) => self.problem(path, "read the attributes of", error),
            }
        }
        // Of the folder above, so before this one is entered.
        self.parent.go_to(stored_name);
        self.send_section()?;
        let before = self.parent.enter(stored_name);
        self.pieces.push(0);
        self.send(Event::Enter { node: Box::new(node), before })
    }

    fn entry(&mut self, found: Found<'_>) -> Result<(), BackupError> {
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => self.file(found),
            _ => self.other(found),
        }
    }

    fn leave(&mut self) -> Result<(), BackupError> {
        self.parent.leave();
        self.pieces.pop();
        self.send(Event::Leave)
    }

    fn problem(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
        self.problems.add(Problem { path: path.to_vec(), operation, error }, self.run);
    }

    fn notice(&mut self, text: String) {
        self.notices.push(text);
    }
}

/// Counts what a backup will have to do, for the time left. Of problems the backup's own walk tells.
pub(super) struct Count<'a> {
    pub(super) run: &'a Run,
}

impl Visitor for Count<'_> {
    fn entry(&mut self, found: Found<'_>) -> Result<(), BackupError> {
        if FileType::from_raw_mode(found.stat.st_mode) == FileType::RegularFile {
            let bytes = u64::try_from(found.stat.st_size).unwrap_or(0);
            self.run.progress.add_total(1, bytes);
        }
        Ok(())
    }
}
