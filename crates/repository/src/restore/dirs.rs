//! Folders of the target, opened one component at a time.
//!
//! No path is ever handed to the kernel: every call names one entry of an open folder and does
//! not follow links. So a symbolic link in the target leads nowhere, whoever put it there and
//! whenever, and a tree may be deeper than `PATH_MAX`.
//!
//! A [`Folder`] knows its parent and its name. Its handle is kept while it is in use and may be
//! closed to make room; then it is opened again from the nearest folder that is open, and
//! must be the same inode as before.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr_query, fremovexattr, fstat, mkdirat,
        openat, statat, unlinkat,
    },
    io::Errno,
};

use super::metadata::{ACCESS_ACL, DEFAULT_ACL, Rights, make_accessible};

/// How many folders stay open. Far below the usual limit of 1,024 handles, and deep enough that
/// a chain of 10,000 folders is walked up again in reasonable time.
const OPEN_MAX: usize = 200;

const OPEN_FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is known of a folder that exists in the target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Made by this restore: nothing lies in it that the restore did not put there.
    pub(super) fresh: bool,
    /// Its owner and group, which tell what new entries get.
    pub(super) owner: (u32, u32),
    /// New entries in it inherit an ACL.
    pub(super) gives_acl: bool,
    mode: u32,
    device: u64,
    inode: u64,
}

/// One folder of the tree that is restored.
#[derive(Debug)]
pub(super) struct Folder {
    parent: Option<Arc<Folder>>,
    name: Box<[u8]>,
    /// How many folders lie between this one and the target.
    pub(super) depth: u32,
    /// Set when the folder was found in the target or made there.
    facts: OnceLock<Facts>,
    handle: Mutex<Option<Arc<OwnedFd>>>,
    /// Used since the last look for a handle to close.
    used: AtomicBool,
    /// Something is restored in it, so that it gets its metadata.
    pub(super) touched: AtomicBool,
    /// It could not be made; told once.
    pub(super) failed: AtomicBool,
}

impl Folder {
    fn new(parent: Option<Arc<Folder>>, name: &[u8]) -> Self {
        let depth = parent.as_ref().map_or(0, |parent| parent.depth + 1);
        Self {
            parent,
            name: name.into(),
            depth,
            facts: OnceLock::new(),
            handle: Mutex::new(None),
            used: AtomicBool::new(false),
            touched: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// A folder below `parent`, which need not exist yet.
    pub(super) fn below(parent: &Arc<Self>, name: &[u8]) -> Arc<Self> {
        assert_name(name);
        Arc::new(Self::new(Some(parent.clone()), name))
    }

    /// The folder that it lies in; none for the target.
    pub(super) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// What is known, if the folder exists.
    pub(super) fn facts(&self) -> Option<&Facts> {
        self.facts.get()
    }

    /// Whether nothing can lie in it but what this restore made.
    pub(super) fn is_fresh(&self) -> bool {
        self.facts().is_none_or(|facts| facts.fresh)
    }

    /// The path from the target, which is empty for the target itself and else begins with a
    /// slash.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut folder = self;
        while let Some(parent) = &folder.parent {
            names.push(&folder.name);
            folder = parent;
        }
        let mut path = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    /// The path of an entry.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path();
        path.push(b'/');
        path.extend_from_slice(name);
        path
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_handle(&self) -> Option<Arc<OwnedFd>> {
        self.used.store(true, Ordering::Relaxed);
        self.lock().clone()
    }
}

/// Dropped one after another: a chain of 10,000 would otherwise need a deep stack.
impl Drop for Folder {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut folder) = next.and_then(Arc::into_inner) {
            next = folder.parent.take();
        }
    }
}

/// What `Tree::parse` has promised, asserted where it matters: one component, and not a way up.
pub(super) fn assert_name(name: &[u8]) {
    let is_component = !name.is_empty() && !name.contains(&b'/') && !name.contains(&0);
    assert!(is_component && name != b"." && name != b"..", "a name must not leave its folder");
}

/// All open folders of the target.
#[derive(Debug)]
pub(super) struct Dirs {
    target: Arc<Folder>,
    rights: Rights,
    /// Open folders, except the target, in the order in which to look for one to close.
    open: Mutex<VecDeque<Weak<Folder>>>,
}

impl Dirs {
    /// Folders below the open folder `target`; without one nothing exists (dry run).
    pub(super) fn new(target: Option<OwnedFd>, fresh: bool, rights: Rights) -> io::Result<Self> {
        let folder = Folder::new(None, b"");
        folder.touched.store(true, Ordering::Relaxed);
        if let Some(fd) = target {
            let facts = facts_of(&fd, fresh)?;
            folder.facts.get_or_init(|| facts);
            *folder.lock() = Some(Arc::new(fd));
        }
        Ok(Self { target: Arc::new(folder), rights, open: Mutex::default() })
    }

    /// The target.
    pub(super) fn target(&self) -> &Arc<Folder> {
        &self.target
    }

    /// A handle of a folder that exists.
    pub(super) fn fd(&self, folder: &Arc<Folder>) -> io::Result<Arc<OwnedFd>> {
        if let Some(fd) = folder.open_handle() {
            return Ok(fd);
        }
        let mut closed = vec![folder];
        let mut open = None;
        while open.is_none() {
            let last = closed[closed.len() - 1];
            let parent = last.parent.as_ref().ok_or(io::ErrorKind::NotFound)?;
            open = parent.open_handle();
            if open.is_none() {
                closed.push(parent);
            }
        }
        let mut fd = open.ok_or(io::ErrorKind::NotFound)?;
        for folder in closed.into_iter().rev() {
            fd = self.reopen(folder, &fd)?;
        }
        Ok(fd)
    }

    fn reopen(&self, folder: &Arc<Folder>, parent: &OwnedFd) -> io::Result<Arc<OwnedFd>> {
        let fd = openat(parent, &*folder.name, OPEN_FOLDER, Mode::empty())?;
        if let Some(facts) = folder.facts() {
            let stat = fstat(&fd)?;
            if (stat.st_dev, stat.st_ino) != (facts.device, facts.inode) {
                return Err(io::Error::other("somebody put another folder in its place"));
            }
        }
        Ok(self.keep(folder, fd))
    }

    /// Keeps a handle, and closes another one when there are too many.
    fn keep(&self, folder: &Arc<Folder>, fd: OwnedFd) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        *folder.lock() = Some(fd.clone());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(folder));
        while open.len() > OPEN_MAX {
            let Some(candidate) = open.pop_front() else { break };
            let Some(other) = candidate.upgrade() else { continue };
            if other.used.swap(false, Ordering::Relaxed) {
                open.push_back(candidate);
            } else {
                other.lock().take();
            }
        }
        fd
    }

    /// Looks at an entry of a folder, if folder and entry exist.
    pub(super) fn look(&self, folder: &Arc<Folder>, name: &[u8]) -> io::Result<Option<Stat>> {
        assert_name(name);
        if folder.facts().is_none() {
            return Ok(None);
        }
        let fd = self.fd(folder)?;
        match statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a folder that does not exist, with mode 0700.
    pub(super) fn make(&self, folder: &Arc<Folder>) -> io::Result<()> {
        let parent = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let parent_fd = self.fd(parent)?;
        mkdirat(&*parent_fd, &*folder.name, Mode::RWXU)?;
        let fd = openat(&*parent_fd, &*folder.name, OPEN_FOLDER, Mode::empty())?;
        if parent.facts().is_some_and(|facts| facts.gives_acl) {
            for acl in [ACCESS_ACL, DEFAULT_ACL] {
                match fremovexattr(&fd, acl) {
                    Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        let stat = fstat(&fd)?;
        folder.facts.get_or_init(|| facts_from(&stat, true, false));
        self.keep(folder, fd);
        Ok(())
    }

    /// Takes a folder that exists as it is. Leaves its mode alone.
    pub(super) fn adopt(&self, folder: &Arc<Folder>) -> io::Result<()> {
        let parent_fd = self.fd(folder.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let fd = openat(&*parent_fd, &*folder.name, OPEN_FOLDER, Mode::empty())?;
        let facts = facts_of(&fd, false)?;
        folder.facts.get_or_init(|| facts);
        self.keep(folder, fd);
        Ok(())
    }

    /// Makes sure that we can work in a folder that exists, when it is ours to change.
    pub(super) fn open_up(&self, folder: &Arc<Folder>) -> io::Result<()> {
        if self.rights.is_root() {
            return Ok(());
        }
        if let Some(facts) = folder.facts() {
            if facts.fresh || facts.mode & 0o700 == 0o700 || facts.owner.0 != self.rights.uid {
                return Ok(());
            }
            return make_accessible(&*self.fd(folder)?, facts.mode);
        }
        let parent_fd = self.fd(folder.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&*parent_fd, &*folder.name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        match stat.st_uid == self.rights.uid && stat.st_mode & 0o700 != 0o700 {
            true => make_accessible(&fd, stat.st_mode),
            false => Ok(()),
        }
    }

    /// Tells the entries of a folder that exists, with their kinds.
    pub(super) fn list(
        &self,
        folder: &Arc<Folder>,
        mut tell: impl FnMut(&[u8], FileType) -> io::Result<()>,
    ) -> io::Result<()> {
        let fd = self.fd(folder)?;
        for entry in Dir::read_from(&*fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            tell(name, kind)?;
        }
        Ok(())
    }

    /// Removes an entry that is no folder.
    pub(super) fn unlink(&self, folder: &Arc<Folder>, name: &[u8]) -> io::Result<()> {
        assert_name(name);
        Ok(unlinkat(&*self.fd(folder)?, name, AtFlags::empty())?)
    }

    /// Removes an empty folder.
    pub(super) fn remove_empty(&self, folder: &Arc<Folder>, name: &[u8]) -> io::Result<()> {
        assert_name(name);
        Ok(unlinkat(&*self.fd(folder)?, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes a folder with everything in it, and returns how many entries that were. Does not
    /// go into other file systems that are mounted there. `go_on` is asked before each entry.
    pub(super) fn remove_whole(
        &self,
        parent: &Arc<Folder>,
        name: &[u8],
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<u64> {
        let device = parent.facts().map(|facts| facts.device);
        let top = Folder::below(parent, name);
        let mut removed = 0;
        let mut stack = vec![(top.clone(), self.entries_to_remove(&top, device)?)];
        while let Some((folder, entries)) = stack.last_mut() {
            if !go_on() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match entries.pop() {
                Some((name, FileType::Directory)) => {
                    let inner = Folder::below(folder, &name);
                    let entries = self.entries_to_remove(&inner, device)?;
                    stack.push((inner, entries));
                }
                Some((name, _)) => {
                    self.unlink(folder, &name)?;
                    removed += 1;
                }
                None => {
                    let folder = folder.clone();
                    stack.pop();
                    let parent = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
                    self.remove_empty(parent, folder.name())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn entries_to_remove(
        &self,
        folder: &Arc<Folder>,
        device: Option<u64>,
    ) -> io::Result<Vec<(Vec<u8>, FileType)>> {
        self.open_up(folder)?;
        self.adopt(folder)?;
        if folder.facts().map(|facts| facts.device) != device {
            return Err(io::Error::other("another file system is mounted there"));
        }
        let mut entries = Vec::new();
        self.list(folder, |name, kind| {
            entries.push((name.to_vec(), kind));
            Ok(())
        })?;
        Ok(entries)
    }
}

fn facts_of(fd: &OwnedFd, fresh: bool) -> io::Result<Facts> {
    let gives_acl = fgetxattr_query(fd, DEFAULT_ACL).is_ok();
    Ok(facts_from(&fstat(fd)?, fresh, gives_acl))
}

fn facts_from(stat: &Stat, fresh: bool, gives_acl: bool) -> Facts {
    Facts {
        fresh,
        owner: (stat.st_uid, stat.st_gid),
        gives_acl,
        mode: stat.st_mode,
        device: stat.st_dev,
        inode: stat.st_ino,
    }
}
