//! Walking the sources: every entry once, in the order of a tree, relative to open folders.
//!
//! One `openat` and one listing per folder, one `statat` per entry; no path is resolved twice,
//! so paths may be longer than `PATH_MAX` and nothing is read through a symbolic link that
//! appears while we walk. The walk is a loop over a stack of frames. Of these only the deepest
//! [`OPEN_FOLDERS`] keep their descriptor; a shallower folder is opened again through `..` of
//! the one below it, and compared with what it was.

use std::{
    collections::{BTreeMap, HashSet, btree_map},
    io, mem,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::Errno,
};

use super::{BackupError, filter::Filter, names::Names, targets::Target};
use crate::run::Run;

/// How many folders along the path keep their descriptors.
const OPEN_FOLDERS: usize = 256;

/// How deep a walk goes. Linux has no limit; this one keeps a bind-mounted loop from going on
/// for ever.
const DEPTH_MAX: usize = 20_000;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// An entry of a folder, as the walk finds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    /// The folder it is in.
    pub(super) folder: &'a Arc<OwnedFd>,
    /// The name under which it can be opened in there.
    pub(super) name: &'a [u8],
    /// The name it has in the snapshot.
    pub(super) stored_name: &'a [u8],
    /// Its absolute path, for people and patterns.
    pub(super) path: &'a [u8],
    /// What it is.
    pub(super) stat: &'a Stat,
}

/// Told of everything that the walk finds; what does not matter to one it need not hear.
pub(super) trait Visitor {
    /// A folder begins; its entries follow until `leave`. `open` is missing for a folder on
    /// the way to a source that may not be read.
    fn enter(
        &mut self,
        _stored_name: &[u8],
        _path: &[u8],
        _stat: &Stat,
        _open: Option<&Arc<OwnedFd>>,
    ) -> Result<(), BackupError> {
        Ok(())
    }

    /// Anything but a folder.
    fn entry(&mut self, found: Found<'_>) -> Result<(), BackupError>;

    /// The folder entered last is done.
    fn leave(&mut self) -> Result<(), BackupError> {
        Ok(())
    }

    /// Something could not be looked at and is left out.
    fn problem(&mut self, _path: &[u8], _operation: &'static str, _error: io::Error) {}

    /// Something is left out on purpose that the user may not expect.
    fn notice(&mut self, _text: String) {}
}

/// What the walk looks at next within a frame.
enum Next {
    Names(Names),
    Targets(btree_map::IntoIter<Vec<u8>, Target>),
}

struct Frame {
    path: Vec<u8>,
    next: Next,
    /// `None` for folders on the way to a source, and for such that were closed meanwhile.
    folder: Option<Arc<OwnedFd>>,
    /// Device and inode, to know a reopened folder again.
    identity: (u64, u64),
    /// Devices below which the walk stays, with `one_file_system`.
    device: u64,
}

/// Walks `targets` and tells `visitor`.
///
/// # Errors
/// Fails when the visitor does or the run is cancelled. What cannot be read is told to the
/// visitor as a problem.
pub(super) fn walk(
    targets: BTreeMap<Vec<u8>, Target>,
    filter: &Filter,
    run: &Run,
    visitor: &mut dyn Visitor,
) -> Result<(), BackupError> {
    let (stack, told) = (Vec::new(), HashSet::new());
    let mut walk = Walk { filter, visitor, stack, told, name: Vec::new(), path: Vec::new() };
    walk.push_targets(b"/".to_vec(), targets);
    while let Some(frame) = walk.stack.last_mut() {
        run.cancel.check().map_err(crate::packer::WriteError::from)?;
        match &mut frame.next {
            Next::Names(names) => match names.next(&mut walk.name) {
                true => walk.step()?,
                false => walk.leave()?,
            },
            Next::Targets(targets) => match targets.next() {
                Some((name, target)) => walk.step_to_target(&name, target)?,
                None => walk.leave()?,
            },
        }
    }
    Ok(())
}

struct Walk<'a> {
    filter: &'a Filter,
    visitor: &'a mut dyn Visitor,
    stack: Vec<Frame>,
    told: HashSet<Vec<u8>>,
    /// The entry that is looked at: its name and its path, in memory that is used again.
    name: Vec<u8>,
    path: Vec<u8>,
}

impl Walk<'_> {
    fn push_targets(&mut self, path: Vec<u8>, targets: BTreeMap<Vec<u8>, Target>) {
        let next = Next::Targets(targets.into_iter());
        self.stack.push(Frame { path, next, folder: None, identity: (0, 0), device: 0 });
    }

    /// The next name of the folder on top of the stack.
    fn step(&mut self) -> Result<(), BackupError> {
        let (name, mut path) = (mem::take(&mut self.name), mem::take(&mut self.path));
        let result = self.step_to(&name, &mut path);
        (self.name, self.path) = (name, path);
        result
    }

    fn step_to(&mut self, name: &[u8], path: &mut Vec<u8>) -> Result<(), BackupError> {
        let Some(frame) = self.stack.last() else { return Ok(()) };
        join(path, &frame.path, name);
        if self.filter.excludes_path(path) {
            return Ok(());
        }
        let Some(folder) = frame.folder.clone() else { return Ok(()) };
        let device = frame.device;
        match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.visit(&folder, name, name, path, &stat, Some(device)),
            // Gone since the folder was listed: as if it had never been there.
            Err(Errno::NOENT) => Ok(()),
            Err(error) => {
                self.visitor.problem(path, "look at", error.into());
                Ok(())
            }
        }
    }

    fn step_to_target(&mut self, stored_name: &[u8], target: Target) -> Result<(), BackupError> {
        match target {
            Target::Way { path, entries } => {
                let shown = absolute(&path);
                let stat = match statat(CWD, &path, AtFlags::empty()) {
                    Ok(stat) => stat,
                    Err(error) => {
                        self.visitor.problem(&shown, "look at", error.into());
                        return Ok(());
                    }
                };
                let open = openat(CWD, &path, FOLDER, Mode::empty()).ok().map(Arc::new);
                self.visitor.enter(stored_name, &shown, &stat, open.as_ref())?;
                self.push_targets(shown, entries);
                Ok(())
            }
            Target::Source { path, named } => self.step_to_source(stored_name, &path, named),
        }
    }

    fn step_to_source(
        &mut self,
        stored_name: &[u8],
        path: &Path,
        named: bool,
    ) -> Result<(), BackupError> {
        let shown = absolute(path);
        if !named && self.filter.excludes_path(&shown) {
            return Ok(());
        }
        match open_parent(path) {
            Ok((folder, name, stat)) => {
                self.visit(&Arc::new(folder), &name, stored_name, &shown, &stat, None)
            }
            Err(error) => {
                self.visitor.problem(&shown, "look at", error);
                Ok(())
            }
        }
    }

    fn visit(
        &mut self,
        folder: &Arc<OwnedFd>,
        name: &[u8],
        stored_name: &[u8],
        path: &[u8],
        stat: &Stat,
        device: Option<u64>,
    ) -> Result<(), BackupError> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let found = Found { folder, name, stored_name, path, stat };
            if self.filter.excludes_entry(stat, device) {
                return Ok(());
            }
            return self.visitor.entry(found);
        }
        if self.filter.is_destination(stat) {
            if self.told.insert(path.to_vec()) {
                let shown = String::from_utf8_lossy(path).into_owned();
                let text = format!("{shown} is the repository itself: it is not backed up");
                self.visitor.notice(text);
            }
            return Ok(());
        }
        self.enter(folder, name, stored_name, path, stat, device)
    }

    fn enter(
        &mut self,
        folder: &Arc<OwnedFd>,
        name: &[u8],
        stored_name: &[u8],
        path: &[u8],
        stat: &Stat,
        device: Option<u64>,
    ) -> Result<(), BackupError> {
        if self.stack.len() >= DEPTH_MAX {
            let error = io::Error::other("too deep: is a folder mounted within itself?");
            self.visitor.problem(path, "enter", error);
            return Ok(());
        }
        let opened = openat(folder, name, FOLDER, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|open| Ok((fstat(&open)?, open)));
        let (stat_open, open) = match opened {
            Ok((stat, open)) => (stat, Arc::new(open)),
            Err(error) => {
                self.visitor.problem(path, "open", error);
                return Ok(());
            }
        };
        // A mount point is kept as a folder; what is mounted on it is not ours.
        let foreign = self.filter.one_file_system && device.is_some_and(|d| d != stat.st_dev);
        let names = match foreign {
            true => Ok(Names::default()),
            false => Names::list(&open).and_then(|names| self.filter.thin_out(open.as_fd(), names)),
        };
        let names = match names {
            Ok(names) => names,
            Err(error) => {
                self.visitor.problem(path, "list", error);
                return Ok(());
            }
        };
        self.visitor.enter(stored_name, path, &stat_open, Some(&open))?;
        self.stack.push(Frame {
            path: path.to_vec(),
            next: Next::Names(names),
            folder: Some(open),
            identity: (stat_open.st_dev, stat_open.st_ino),
            device: device.unwrap_or(stat_open.st_dev),
        });
        if let Some(shallow) = self.stack.len().checked_sub(OPEN_FOLDERS + 1) {
            let frame = &mut self.stack[shallow];
            // Folders on the way have no descriptor and need none.
            if frame.identity != (0, 0) {
                frame.folder = None;
            }
        }
        Ok(())
    }

    /// Leaves the top folder. The one below it may have been closed: then it is opened again.
    fn leave(&mut self) -> Result<(), BackupError> {
        let Some(left) = self.stack.pop() else { return Ok(()) };
        if let (Some(frame), Some(below)) = (self.stack.last_mut(), &left.folder)
            && frame.folder.is_none()
            && frame.identity != (0, 0)
        {
            match reopen(below, frame.identity) {
                Ok(folder) => frame.folder = Some(Arc::new(folder)),
                Err(error) => {
                    let path = frame.path.clone();
                    frame.next = Next::Names(Names::default());
                    self.visitor.problem(&path, "return to", error);
                }
            }
        }
        // The lowest frame is the list of targets, which nobody entered.
        if self.stack.is_empty() { Ok(()) } else { self.visitor.leave() }
    }
}

fn reopen(below: &OwnedFd, identity: (u64, u64)) -> io::Result<OwnedFd> {
    let folder = openat(below, "..", FOLDER, Mode::empty())?;
    let stat = fstat(&folder)?;
    if (stat.st_dev, stat.st_ino) != identity {
        return Err(io::Error::other("the folder was moved during the backup"));
    }
    Ok(folder)
}

/// Opens the folder that holds a source, and looks at the source in it. Links on the way to a
/// source are followed; the source itself is not, should it be one.
fn open_parent(path: &Path) -> io::Result<(OwnedFd, Vec<u8>, Stat)> {
    const WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let folder = openat(CWD, parent, WAY, Mode::empty())?;
    let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((folder, name.as_bytes().to_vec(), stat))
}

fn join(path: &mut Vec<u8>, folder: &[u8], name: &[u8]) {
    path.clear();
    path.extend_from_slice(folder);
    if !folder.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// The absolute form of a path, by its text; relative when the working folder is unknown.
pub(super) fn absolute(path: &Path) -> Vec<u8> {
    let path = match std::env::current_dir() {
        Ok(folder) => super::targets::clean(&folder.join(path)),
        Err(_) => PathBuf::from(path),
    };
    path.as_os_str().as_bytes().to_vec()
}
