//! The walk: reads trees, decides about each entry, makes what is quickly made, plans files.
//!
//! It keeps a stack of its own, because trees may be deep, and expands a folder whole: its
//! files go into the batch, its subfolders onto the stack, and the tree is forgotten. The
//! subfolders of a folder with very many entries are read from its tree once more, one by one.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, mknodat, openat, symlinkat};

use super::{
    Context, DEPTH_MAX, Overwrite, RestoreError, RestoreReport,
    dirs::Folder,
    existing::Verdict,
    links::{FirstName, Links, Restored},
    listed::Listed,
    metadata::{Item, Metadata, Present, PresentAttributes, apply},
    plan::{BatchBuilder, FileProgress, LeftFolder, PlannedFile, PlannedLink},
    report::{Problem, ProblemCause, beside_content},
    target::LOST_AND_FOUND,
    workers::{Begun, Workers},
    write::present_in,
};
use crate::{
    format::{
        pack::BlobKind,
        tree::{Node, NodeKind},
    },
    id::BlobId,
    index::Location,
    repository::{BlobReader, Entries, ReadError},
};

/// Of how many copies of a chunk it is asked whether their packs are read anyway. Sound
/// repositories hold one or two; an index may claim any number, for each chunk of a file.
const COPIES_LOOKED_AT: usize = 4;

/// Why an entry cannot be restored: what was tried, and how it failed.
pub(super) type Failure = (&'static str, ProblemCause);

/// A restore under way, as its main thread sees it.
pub(super) struct Walk<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) workers: Workers,
    reader: BlobReader<'a>,
    stack: Vec<Step>,
    pub(super) builder: BatchBuilder,
    /// The batch that the workers are busy with.
    pub(super) under_way: Option<Begun>,
    pub(super) links: Links,
    /// Folders that lock us out once they have their mode: they get it at the very end.
    pub(super) late: Vec<(Arc<Folder>, Metadata)>,
    pub(super) report: RestoreReport,
}

enum Step {
    Enter(Entering),
    Subfolders(Subfolders),
    Leave(LeftFolder),
}

struct Entering {
    folder: Arc<Folder>,
    tree: BlobId,
    metadata: Option<Metadata>,
    selected: bool,
    descend: bool,
}

/// The subfolders of a folder that are still to be entered, among its other entries.
struct Subfolders {
    folder: Arc<Folder>,
    entries: Entries,
}

impl<'a> Walk<'a> {
    pub(super) fn new(context: &'a Context<'a>, workers: Workers) -> Result<Self, RestoreError> {
        Ok(Self {
            context,
            workers,
            reader: context.repository.blob_reader()?,
            stack: Vec::new(),
            builder: BatchBuilder::new(0, &context.repository.storage().costs()),
            under_way: None,
            links: Links::default(),
            late: Vec::new(),
            report: RestoreReport::default(),
        })
    }

    /// Restores everything below `tree`.
    pub(super) fn restore(mut self, tree: BlobId) -> Result<RestoreReport, RestoreError> {
        let folder = self.context.dirs.target().clone();
        let root = Entering { folder, tree, metadata: None, selected: true, descend: true };
        match self.walk(root).and_then(|()| self.complete_all()) {
            Ok(()) => {
                self.report.sort();
                Ok(self.report)
            }
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }

    fn walk(&mut self, root: Entering) -> Result<(), RestoreError> {
        self.stack.push(Step::Enter(root));
        while let Some(step) = self.stack.pop() {
            self.check_stop()?;
            match step {
                Step::Enter(entering) => self.enter(entering)?,
                Step::Subfolders(subfolders) => self.next_subfolder(subfolders),
                Step::Leave(left) => {
                    self.builder.add_left(left);
                    self.submit_if_full()?;
                }
            }
        }
        self.context.run.progress.total_is_known();
        Ok(())
    }

    /// Fails when the restore shall end early. The fatal error itself is taken at the end.
    pub(super) fn check_stop(&self) -> Result<(), RestoreError> {
        self.context.run.cancel.check()?;
        match self.context.fatal.get() {
            Some(RestoreError::TargetFull { path, source }) => {
                let source = io::Error::from(source.kind());
                Err(RestoreError::TargetFull { path: path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, entering: Entering) -> Result<(), RestoreError> {
        let Entering { folder, tree, metadata, selected, descend } = entering;
        let path = folder.path();
        self.context.run.progress.set_current(|current| {
            current.push_str(&String::from_utf8_lossy(&path));
        });
        if selected {
            if !self.ensure(&folder) {
                return Ok(());
            }
        } else {
            self.adopt_if_there(&folder);
        }
        let place = self.stack.len();
        let extra = match descend.then(|| self.reader.entries(tree)) {
            Some(Ok(entries)) => self.expand(&folder, tree, entries, path)?,
            Some(Err(error)) if folder.parent().is_none() => return Err(error.into()),
            Some(Err(error)) => {
                self.problem(path, "read the folder", Arc::new(error));
                Vec::new()
            }
            None => Vec::new(),
        };
        let left = LeftFolder { folder, metadata, extra };
        self.stack.insert(place, Step::Leave(left));
        self.stack[place + 1..].reverse();
        Ok(())
    }

    /// Sees to the entries of a folder. Gives what lies in it and is not in the snapshot.
    fn expand(
        &mut self,
        folder: &Arc<Folder>,
        tree: BlobId,
        entries: Entries,
        mut path: Vec<u8>,
    ) -> Result<Vec<(Vec<u8>, FileType)>, RestoreError> {
        let mut present = self.list_present(folder, &path);
        let is_large = entries.is_large();
        let folder_path_length = path.len();
        let mut later = false;
        for node in entries {
            self.check_stop()?;
            path.truncate(folder_path_length);
            let node = match node {
                Ok(node) => node,
                Err(error) => {
                    self.problem(path, "read the folder", Arc::new(error));
                    return Ok(Vec::new());
                }
            };
            present.pass(&node.name);
            if is_large && node.kind == NodeKind::Dir {
                later = true;
                continue;
            }
            path.push(b'/');
            path.extend_from_slice(&node.name);
            self.entry(folder, node, &path);
            self.submit_if_full()?;
        }
        path.truncate(folder_path_length);
        if later {
            match self.reader.entries(tree) {
                Ok(entries) => {
                    self.stack
                        .push(Step::Subfolders(Subfolders { folder: folder.clone(), entries }));
                }
                Err(error) => self.problem(path.clone(), "read the folder", Arc::new(error)),
            }
        }
        Ok(self.extra(folder, &present, &path))
    }

    fn next_subfolder(&mut self, mut subfolders: Subfolders) {
        let is_folder =
            |node: &Result<Node, _>| node.as_ref().map_or(true, |node| node.kind == NodeKind::Dir);
        let folder = subfolders.folder.clone();
        match subfolders.entries.find(is_folder) {
            None => {}
            Some(Err(error)) => self.problem(folder.path(), "read the folder", Arc::new(error)),
            Some(Ok(node)) => {
                self.stack.push(Step::Subfolders(subfolders));
                let path = folder.path_of(&node.name);
                self.entry(&folder, node, &path);
            }
        }
    }

    fn entry(&mut self, folder: &Arc<Folder>, mut node: Node, path: &[u8]) {
        let choice = self.context.select(path, node.kind);
        if node.kind == NodeKind::Dir {
            if choice.selected || choice.child_may_be_selected {
                self.subfolder(folder, &mut node, choice, path);
            }
            return;
        }
        if !choice.selected {
            return;
        }
        if matches!(node.kind, NodeKind::Socket | NodeKind::Irregular) {
            self.report.add_not_restored(path.to_vec(), node.kind);
            return;
        }
        if !self.ensure(folder) {
            return;
        }
        let result = match node.kind {
            NodeKind::File => self.file(folder, node, path),
            _ => self.other(folder, node),
        };
        if let Err((operation, cause)) = result {
            self.problem(path.to_vec(), operation, cause);
        }
    }

    fn subfolder(
        &mut self,
        folder: &Arc<Folder>,
        node: &mut Node,
        choice: super::Choice,
        path: &[u8],
    ) {
        let Some(tree) = node.subtree else { return };
        if folder.depth >= DEPTH_MAX {
            self.problem(path.to_vec(), "create", ProblemCause::TooDeep(DEPTH_MAX));
            return;
        }
        self.stack.push(Step::Enter(Entering {
            folder: Folder::below(folder, &node.name),
            tree,
            metadata: Some(Metadata::take(node)),
            selected: choice.selected,
            descend: choice.child_may_be_selected,
        }));
    }

    pub(super) fn problem(
        &mut self,
        path: Vec<u8>,
        operation: &'static str,
        cause: impl Into<ProblemCause>,
    ) {
        let cause = cause.into();
        if let ProblemCause::Io(error) = &cause {
            self.context.stop_if_full(error, || path.clone());
        }
        self.context.run.progress.add_error();
        self.report.add_problem(Problem::new(path, operation, cause));
    }
}

/// Folders.
impl Walk<'_> {
    /// Makes sure that a folder is there, with all folders on the way to it. A failure is told
    /// once, for the first folder that cannot be made.
    fn ensure(&mut self, folder: &Arc<Folder>) -> bool {
        let mut chain = Vec::new();
        let mut next = Some(folder);
        while let Some(folder) = next.filter(|folder| !folder.touched.load(Ordering::Relaxed)) {
            chain.push(folder);
            next = folder.parent();
        }
        for folder in chain.into_iter().rev() {
            folder.touched.store(true, Ordering::Relaxed);
            let parent_failed =
                folder.parent().is_some_and(|parent| parent.failed.load(Ordering::Relaxed));
            if parent_failed {
                folder.failed.store(true, Ordering::Relaxed);
                continue;
            }
            match self.bring(folder) {
                Ok(()) => self.context.run.progress.add_total(1, 0),
                Err((operation, cause)) => {
                    folder.failed.store(true, Ordering::Relaxed);
                    self.problem(folder.path(), operation, cause);
                }
            }
        }
        !folder.failed.load(Ordering::Relaxed)
    }

    fn bring(&mut self, folder: &Arc<Folder>) -> Result<(), Failure> {
        let Context { dirs, options, .. } = self.context;
        let parent = folder.parent().filter(|parent| parent.facts().is_some());
        let Some(parent) = parent else { return Ok(()) };
        if folder.facts().is_some() {
            return match options.dry_run {
                true => Ok(()),
                false => dirs.open_up(folder).map_err(|error| ("open", error.into())),
            };
        }
        if !parent.is_fresh() {
            let found = dirs.look(parent, folder.name()).map_err(|e| ("look at", e.into()))?;
            match found.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                None => {}
                Some(FileType::Directory) => {
                    let opened = match options.dry_run {
                        true => Ok(()),
                        false => dirs.open_up(folder),
                    };
                    let adopted = opened.and_then(|()| dirs.adopt(folder));
                    return adopted.map_err(|error| ("open", error.into()));
                }
                Some(_) => self.remove_for_folder(parent, folder)?,
            }
        }
        if options.dry_run {
            return Ok(());
        }
        dirs.make(folder).map_err(|error| ("create", creation_failure(error)))
    }

    /// Something that is no folder lies where one is needed.
    fn remove_for_folder(&self, parent: &Arc<Folder>, folder: &Folder) -> Result<(), Failure> {
        let Context { dirs, options, .. } = self.context;
        match options.overwrite {
            Overwrite::Always | Overwrite::IfChanged if options.dry_run => Ok(()),
            Overwrite::Always | Overwrite::IfChanged => dirs
                .unlink(parent, folder.name())
                .map_err(|error| ("remove what lies in place of", error.into())),
            Overwrite::Refuse | Overwrite::IfNewer | Overwrite::Never => Err((
                "create",
                ProblemCause::InTheWay("something that is no folder lies there; it was kept"),
            )),
        }
    }

    /// Takes notice of a folder that is not selected itself, should it be there.
    fn adopt_if_there(&mut self, folder: &Arc<Folder>) {
        let Context { dirs, .. } = self.context;
        let in_old = folder.parent().is_some_and(|p| p.facts().is_some() && !p.is_fresh());
        if in_old
            && matches!(dirs.look(folder.parent().unwrap_or(folder), folder.name()), Ok(Some(stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        {
            // When it cannot be opened now, that is told when something is restored in it.
            drop(dirs.adopt(folder));
        }
    }

    /// What lies in a folder before anything is restored in it.
    fn list_present(&mut self, folder: &Arc<Folder>, path: &[u8]) -> Listed {
        if folder.is_fresh() {
            return Listed::default();
        }
        let mut listed = Listed::default();
        match self.context.dirs.list(folder, |name, kind| listed.push(name, kind)) {
            Ok(()) => listed.sorted(),
            Err(error) => {
                self.problem(path.to_vec(), beside_content::LIST, error);
                Listed::default()
            }
        }
    }

    /// What of it is not in the snapshot, and is ours to remove.
    fn extra(
        &self,
        folder: &Arc<Folder>,
        present: &Listed,
        path: &[u8],
    ) -> Vec<(Vec<u8>, FileType)> {
        let is_target = folder.parent().is_none();
        let is_ours = |&(name, kind): &(&[u8], FileType)| {
            let is_own = is_target && name == LOST_AND_FOUND;
            let path = [path, b"/", name].concat();
            !is_own && self.context.select(&path, kind_of(kind)).selected
        };
        let ours = present.not_passed().filter(is_ours);
        ours.map(|(name, kind)| (name.to_vec(), kind)).collect()
    }
}

/// Files.
impl Walk<'_> {
    fn file(&mut self, folder: &Arc<Folder>, mut node: Node, path: &[u8]) -> Result<(), Failure> {
        let key = self.links.key(&node);
        let is_other_name = key.is_some_and(|key| self.links.get(key).is_some());
        let links = node.links;
        let content = node.content.take().unwrap_or_default();
        let verdict = self.verdict(folder, &node, &content, is_other_name)?;
        let replaces = match verdict {
            Verdict::Make => false,
            Verdict::Replace(stat) => !self.clear(folder, &node.name, &stat)?,
            Verdict::Unchanged(stat) => {
                self.skip_file(node.size);
                self.set_metadata_only(folder, &mut node, &stat)?;
                if let Some(key) = key {
                    let identity = (stat.st_dev, stat.st_ino);
                    let name = node.name.into();
                    let first = Restored { folder: folder.clone(), name, identity };
                    self.links.insert(key, FirstName::Restored(first), links);
                }
                return Ok(());
            }
            Verdict::Keep => {
                self.skip_file(node.size);
                if let Some(key) = key.filter(|_| is_other_name) {
                    self.links.count_name(key);
                }
                return Ok(());
            }
        };
        let file = PlannedFile {
            folder: folder.clone(),
            name: std::mem::take(&mut node.name).into(),
            content: content.into(),
            size: 0,
            metadata: Metadata::take(&mut node),
            replaces,
            link: key,
            progress: FileProgress::default(),
        };
        match key.filter(|_| is_other_name) {
            Some(key) => {
                self.context.run.progress.add_total(1, 0);
                if self.context.options.dry_run {
                    self.report.counts.files_restored += 1;
                } else {
                    self.builder.add_link(PlannedLink { key, file });
                }
            }
            None => {
                let number = self.plan_file(file).map_err(|e| ("find the content of", e.into()))?;
                if let Some(key) = key {
                    let first = FirstName::Planned { batch: self.builder.number(), file: number };
                    self.links.insert(key, first, links);
                }
            }
        }
        self.show_file(path);
        Ok(())
    }

    /// Adds a file to the batch and returns its number there.
    pub(super) fn plan_file(&mut self, mut file: PlannedFile) -> Result<u32, Arc<ReadError>> {
        let places = self.places(&file.content).map_err(Arc::new)?;
        file.size = places.iter().map(|place| u64::from(place.blob.plaintext_length())).sum();
        self.context.run.progress.add_total(1, file.size);
        if self.context.options.dry_run {
            // Each chunk's first place: a real run goes elsewhere only for what it reads anyway.
            self.report.packs.extend(places.iter().map(|place| place.pack));
            self.report.counts.files_restored += 1;
            self.report.counts.bytes_restored += file.size;
            self.context.run.progress.add_done(1, file.size);
            return Ok(0);
        }
        Ok(self.builder.add_file(file, &places))
    }

    /// Where the chunks lie; of several copies rather one in a pack that is read anyway.
    fn places(&self, content: &[BlobId]) -> Result<Vec<Location>, ReadError> {
        let index = self.context.repository.index();
        let place = |&id: &BlobId| {
            let mut copies = index.find_all(BlobKind::Data, id);
            let first = copies.next().ok_or(ReadError::MissingBlob { kind: BlobKind::Data, id })?;
            if self.builder.knows_pack(&first.pack) {
                return Ok(first);
            }
            let mut few = copies.take(COPIES_LOOKED_AT);
            Ok(few.find(|copy| self.builder.knows_pack(&copy.pack)).unwrap_or(first))
        };
        content.iter().map(place).collect()
    }

    fn skip_file(&mut self, bytes: u64) {
        self.report.counts.files_skipped += 1;
        self.report.counts.bytes_skipped += bytes;
    }

    fn show_file(&self, path: &[u8]) {
        if self.context.options.dry_run {
            let text = String::from_utf8_lossy(path);
            self.context.run.progress.set_current(|current| current.push_str(&text));
        }
    }

    fn set_metadata_only(
        &mut self,
        folder: &Arc<Folder>,
        node: &mut Node,
        stat: &Stat,
    ) -> Result<(), Failure> {
        if self.context.options.dry_run {
            return Ok(());
        }
        let pinned = self.pin(folder, &node.name).map_err(|error| ("open", error.into()))?;
        let now = fstat(&pinned).map_err(|error| ("open", io::Error::from(error).into()))?;
        if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
            let swapped = io::Error::other("somebody put another file in its place");
            return Err(("open", swapped.into()));
        }
        let owner = Some((now.st_uid, now.st_gid));
        let present = Present { owner, attributes: PresentAttributes::Unknown };
        self.apply_pinned(&pinned, &Metadata::take(node), present)
    }
}

/// Links, pipes and devices.
impl Walk<'_> {
    fn other(&mut self, folder: &Arc<Folder>, mut node: Node) -> Result<(), Failure> {
        let key = self.links.key(&node);
        let first = key.and_then(|key| self.links.get(key)).cloned();
        match self.verdict(folder, &node, &[], first.is_some())? {
            Verdict::Make => {}
            Verdict::Replace(stat) => {
                let same = matches!(&first, Some(FirstName::Restored(first))
                    if first.identity == (stat.st_dev, stat.st_ino));
                let cleared = same || self.clear(folder, &node.name, &stat)?;
                if !cleared && !self.context.options.dry_run {
                    let removed = self.context.dirs.unlink(folder, &node.name);
                    removed.map_err(|error| ("replace", error.into()))?;
                }
            }
            Verdict::Unchanged(_) | Verdict::Keep => {
                self.report.counts.others_skipped += 1;
                return Ok(());
            }
        }
        self.context.run.progress.add_total(1, 0);
        if !self.context.options.dry_run {
            match first {
                Some(FirstName::Restored(first)) => {
                    let linked = self.link(&first, folder, &node.name);
                    linked.map_err(|error| ("link", creation_failure(error)))?;
                }
                _ => self.make_other(folder, &mut node, key)?,
            }
        }
        if let Some(key) = key {
            self.links.count_name(key);
        }
        self.context.run.progress.add_done(1, 0);
        self.report.counts.others_restored += 1;
        Ok(())
    }

    fn make_other(
        &mut self,
        folder: &Arc<Folder>,
        node: &mut Node,
        key: Option<super::links::LinkKey>,
    ) -> Result<(), Failure> {
        let made = self.create(folder, node);
        made.map_err(|error| ("create", creation_failure(error)))?;
        let pinned = self.pin(folder, &node.name).map_err(|error| ("open", error.into()))?;
        let stat = fstat(&pinned).map_err(|error| ("open", io::Error::from(error).into()))?;
        // Whoever may write in the folder could have put something there that is not theirs to
        // give away.
        if kind_of(FileType::from_raw_mode(stat.st_mode)) != node.kind || stat.st_nlink != 1 {
            let swapped = io::Error::other("somebody put something else in its place");
            return Err(("open", swapped.into()));
        }
        if let Some(key) = key {
            let identity = (stat.st_dev, stat.st_ino);
            let name = node.name.as_slice().into();
            let first = Restored { folder: folder.clone(), name, identity };
            // This name will be counted too.
            self.links.insert(key, FirstName::Restored(first), node.links.saturating_add(1));
        }
        let present = present_in(folder, self.context);
        self.apply_pinned(&pinned, &Metadata::take(node), present)
    }

    fn create(&self, folder: &Arc<Folder>, node: &Node) -> io::Result<()> {
        let fd = self.context.dirs.fd(folder)?;
        let name = node.name.as_slice();
        let mode = Mode::RUSR | Mode::WUSR;
        match node.kind {
            NodeKind::Symlink => symlinkat(node.link_target.as_slice(), &*fd, name)?,
            NodeKind::Fifo => mknodat(&*fd, name, FileType::Fifo, mode, 0)?,
            NodeKind::CharDevice => {
                mknodat(&*fd, name, FileType::CharacterDevice, mode, node.device)?;
            }
            NodeKind::BlockDevice => {
                mknodat(&*fd, name, FileType::BlockDevice, mode, node.device)?;
            }
            NodeKind::File | NodeKind::Dir | NodeKind::Socket | NodeKind::Irregular => {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        Ok(())
    }

    /// Holds an entry fast, whatever becomes of its name.
    fn pin(&self, folder: &Arc<Folder>, name: &[u8]) -> io::Result<OwnedFd> {
        let fd = self.context.dirs.fd(folder)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&*fd, name, flags, Mode::empty())?)
    }

    fn apply_pinned(
        &mut self,
        pinned: &OwnedFd,
        metadata: &Metadata,
        present: Present,
    ) -> Result<(), Failure> {
        let applied = apply(Item::Pinned(pinned.as_fd()), metadata, present, self.context.rights);
        self.report.counts.metadata_denied += u64::from(applied.denied);
        match applied.problem {
            Some((operation, error)) => Err((operation, error.into())),
            None => Ok(()),
        }
    }
}

/// In a folder that we made, an entry can exist already only on file systems for which two
/// different names are the same.
fn creation_failure(error: io::Error) -> ProblemCause {
    match error.kind() {
        io::ErrorKind::AlreadyExists => ProblemCause::InTheWay(
            "something has this name already, or one that the file system takes for the same",
        ),
        _ => error.into(),
    }
}

fn kind_of(kind: FileType) -> NodeKind {
    match kind {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::Unknown => NodeKind::Irregular,
    }
}
