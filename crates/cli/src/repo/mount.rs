//! `muster repo mount`: snapshots as folders, through the kernel's FUSE.
//!
//! What is in them says [`muster_repository::file_system`]; here its answers are put into the
//! kernel's words. Read-only; a lock is held as long as it is mounted. Ctrl-C unmounts, and so
//! does `umount`.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use clap::ValueHint;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr, Request, SessionACL,
};
use muster_model::Fault;
use muster_repository::{
    file_system::{Attributes, DirEntry, FileSystem, FileSystemError, OpenFile},
    format::{time::Timestamp, tree::NodeKind},
};
use nix::mount::{MntFlags, umount2};

use super::{counted, release, select_several};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome, Problem, STALE_MOUNT, is_stale_mount},
    exit::Exit,
    output::warn,
};

/// Arguments of `mount`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// An empty folder to mount at
    #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    target: PathBuf,
    /// Let other users look at it, too
    #[arg(long)]
    allow_other: bool,
    /// Show everything as owned by whoever mounts it
    #[arg(long)]
    owner_root: bool,
    /// Do not let the kernel check permissions
    #[arg(long)]
    no_default_permissions: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "Snapshots lie in FOLDER/snapshots/TIME, ids/ID, hosts/HOST/TIME and \
tags/TAG/TIME, as they are
when it is mounted. Ctrl-C unmounts.

Examples:
  muster repo mount /mnt/backup
  diff -r /srv/www /mnt/backup/snapshots/latest/srv/www";

/// How long the kernel may believe what it was told: nothing in a snapshot ever changes.
const VALID: Duration = Duration::from_secs(3600);

/// How often is looked whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// Threads that answer the kernel: one that waits for the disk does not keep others waiting.
const THREADS: usize = 4;

/// Mounts until it is told to stop.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let is_empty = fs::read_dir(&args.target).map(|mut entries| entries.next().is_none());
    match is_empty {
        Ok(true) => {}
        Ok(false) => {
            return Err(failed(&args.target)
                .caused_by(&io::Error::other("the folder is not empty"))
                .help("choose an empty folder"));
        }
        Err(error) => return Err(failed(&args.target).caused_by(&error).help(no_target(&error))),
    }
    let repository = app.open()?;
    let lock = app.lock_to_read(&repository)?;
    let snapshots = select_several(app, &repository, &[], &args.filter)?;
    let number = snapshots.len();
    let repository = app.load_index(&repository)?;
    let mounted = Mounted {
        files: FileSystem::new(repository, snapshots),
        teller: Teller { is_json: app.output.is_json(), told: Mutex::default() },
        handles: Mutex::default(),
        next_handle: AtomicU64::new(1),
        owner: (app.environment.uid, app.environment.gid),
        owner_only: args.owner_root,
    };
    let session = mount(args, mounted)?;
    app.output.summary(format_args!(
        "{} at {}; Ctrl-C unmounts",
        counted(number, "snapshot"),
        args.target.display()
    ))?;
    while !app.run.cancel.is_requested() && !session.guard.is_finished() {
        thread::park_timeout(TICK);
    }
    let ended = unmount(session, &args.target);
    release(lock)?;
    ended?;
    match app.run.cancel.check_condition() {
        // Ctrl-C is how it is meant to end; a lost lock is not.
        Err(error) if error.code() != "interrupted" => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}

/// What to do about a folder that cannot be mounted at.
fn no_target(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make the folder first, with mkdir",
        io::ErrorKind::NotADirectory => "choose an empty folder",
        _ if is_stale_mount(error) => STALE_MOUNT,
        _ => "choose an empty folder that this user may read",
    }
}

fn failed(target: &Path) -> Failure {
    Failure::new(Problem::MountFailed, format!("mount the repository at {}", target.display()))
}

fn mount(args: &Args, mounted: Mounted) -> Result<BackgroundSession, Failure> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("muster".to_owned()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if !args.no_default_permissions {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.acl = if args.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(THREADS);
    fuser::spawn_mount(mounted, &args.target, &config).map_err(|error| {
        failed(&args.target).caused_by(&error).help(
            "this needs /dev/fuse, and for others than root the program fusermount3 (package \
             fuse3)",
        )
    })
}

/// Takes the file system away, also while somebody is still in it.
fn unmount(session: BackgroundSession, target: &Path) -> Result<(), Failure> {
    if session.guard.is_finished() {
        return session.join().map_err(|error| failed(target).caused_by(&error));
    }
    match umount2(target, MntFlags::MNT_DETACH) {
        // Who still has something open is told so by the kernel when this process ends.
        Ok(()) => Ok(()),
        Err(_) => session.umount_and_join().map_err(|error| {
            failed(target).caused_by(&error).help("run 'fusermount3 -u FOLDER' or 'umount FOLDER'")
        }),
    }
}

/// How many different things that cannot be read are told; a program that walks through all of a
/// damaged repository must not fill a log.
const TOLD_MAX: usize = 100;

/// Tells what the kernel cannot tell: it knows one error for all that cannot be read.
struct Teller {
    is_json: bool,
    told: Mutex<HashSet<String>>,
}

impl Teller {
    fn tell(&self, error: &FileSystemError) {
        let FileSystemError::Read(error) = error else { return };
        let failure = Failure::of(error);
        let text = failure.one_line();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX || !told.insert(text.clone()) {
            return;
        }
        let last = if told.len() == TOLD_MAX { "; no more are told" } else { "" };
        let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
        warn(self.is_json, format_args!("cannot {text}{help}{last}"));
    }
}

/// What the kernel asks.
struct Mounted {
    files: FileSystem,
    teller: Teller,
    handles: Mutex<HashMap<u64, Handle>>,
    next_handle: AtomicU64,
    /// Who mounts it, the owner of what has none.
    owner: (u32, u32),
    /// Whether everything is shown as theirs.
    owner_only: bool,
}

/// Something that is open.
#[derive(Clone)]
enum Handle {
    File(Arc<OpenFile>),
    Folder(Arc<Vec<DirEntry>>),
}

fn errno(error: &FileSystemError) -> Errno {
    match error {
        FileSystemError::NotFound => Errno::ENOENT,
        FileSystemError::WrongKind => Errno::EINVAL,
        FileSystemError::Read(_) => Errno::EIO,
    }
}

impl Mounted {
    /// What the kernel is told of an error.
    fn errno(&self, error: &FileSystemError) -> Errno {
        self.teller.tell(error);
        errno(error)
    }

    fn hold(&self, handle: Handle) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).insert(number, handle);
        FileHandle(number)
    }

    fn held(&self, handle: FileHandle) -> Option<Handle> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.get(&handle.0).cloned()
    }

    fn let_go(&self, handle: FileHandle) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
    }

    fn told(&self, attributes: &Attributes) -> FileAttr {
        let (uid, gid) = match (self.owner_only, attributes.owner) {
            (false, Some(owner)) => owner,
            _ => self.owner,
        };
        FileAttr {
            ino: INodeNo(attributes.number),
            size: attributes.size,
            blocks: attributes.size.div_ceil(512),
            atime: moment(&attributes.atime),
            mtime: moment(&attributes.mtime),
            ctime: moment(&attributes.ctime),
            crtime: SystemTime::UNIX_EPOCH,
            kind: file_type(attributes.kind),
            perm: u16::try_from(attributes.mode & 0o7777).unwrap_or(0),
            nlink: u32::try_from(attributes.links).unwrap_or(u32::MAX),
            uid,
            gid,
            rdev: u32::try_from(attributes.device).unwrap_or(0),
            blksize: 4096,
            flags: 0,
        }
    }
}

fn moment(time: &Timestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::from(time.nanoseconds()));
    let seconds = Duration::from_secs(time.seconds().unsigned_abs());
    let whole = match time.seconds() >= 0 {
        true => SystemTime::UNIX_EPOCH.checked_add(seconds),
        false => SystemTime::UNIX_EPOCH.checked_sub(seconds),
    };
    whole.and_then(|whole| whole.checked_add(nanoseconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File | NodeKind::Irregular => FileType::RegularFile,
        NodeKind::Dir => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::BlockDevice => FileType::BlockDevice,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.files.look_up(parent.0, name.as_bytes()) {
            Ok(attributes) => reply.entry(&VALID, &self.told(&attributes), Generation(0)),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        self.files.forget(number.0, lookups);
    }

    fn getattr(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.files.attributes(number.0) {
            Ok(attributes) => reply.attr(&VALID, &self.told(&attributes)),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        match self.files.link_target(number.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.files.open(number.0) {
            Ok(file) => {
                let handle = self.hold(Handle::File(Arc::new(file)));
                reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(Handle::File(file)) = self.held(handle) else { return reply.error(Errno::EBADF) };
        match self.files.read(&file, offset, size as usize) {
            Ok(content) => reply.data(&content),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.let_go(handle);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.files.entries(number.0) {
            Ok(entries) => {
                let handle = self.hold(Handle::Folder(Arc::new(entries)));
                reply.opened(handle, FopenFlags::empty());
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(Handle::Folder(entries)) = self.held(handle) else {
            return reply.error(Errno::EBADF);
        };
        // The folder itself and the one above come first; the kernel knows their numbers.
        let dots =
            [(number, FileType::Directory, &b"."[..]), (number, FileType::Directory, &b".."[..])];
        let rest = entries
            .iter()
            .map(|entry| (INodeNo(entry.number), file_type(entry.kind), entry.name.as_slice()));
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (position, (number, kind, name)) in dots.into_iter().chain(rest).enumerate().skip(start)
        {
            if reply.add(number, position as u64 + 1, kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.let_go(handle);
        reply.ok();
    }

    fn getxattr(
        &self,
        _request: &Request,
        number: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let attributes = match self.files.extended_attributes(number.0) {
            Ok(attributes) => attributes,
            Err(error) => return reply.error(self.errno(&error)),
        };
        match attributes.iter().find(|attribute| attribute.name.as_bytes() == name.as_bytes()) {
            Some(attribute) => answer(&attribute.value, size, reply),
            None => reply.error(Errno::ENODATA),
        }
    }

    fn listxattr(&self, _request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        match self.files.extended_attributes(number.0) {
            Ok(attributes) => {
                let names = attributes
                    .iter()
                    .flat_map(|attribute| attribute.name.as_bytes().iter().copied().chain([0]));
                answer(&names.collect::<Vec<u8>>(), size, reply);
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }
}

/// The kernel asks for the size first, with no room at all.
fn answer(value: &[u8], room: u32, reply: ReplyXattr) {
    match (room, value.len() <= room as usize) {
        (0, _) => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        (_, true) => reply.data(value),
        (_, false) => reply.error(Errno::ERANGE),
    }
}
