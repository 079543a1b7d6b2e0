//! What Linux knows of a file, as a node.
//!
//! Extended attributes are kept in the order in which the system lists them, as restic keeps
//! them; POSIX ACLs are among them (`system.posix_acl_access`, `…_default`).

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{Mutex, PoisonError},
};

use jiff::tz::TimeZone;
use nix::unistd::{Gid, Group, Uid, User};
use rustix::{
    fs::{FileType, Stat},
    io::Errno,
};

use crate::format::{
    mode::go_mode,
    time::Timestamp,
    tree::{ExtendedAttribute, Node, NodeKind},
};

/// What is to be recorded of an entry besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Permission bits, as `0o600`.
    pub permissions: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Time of the last change, in seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
}

/// Turns `stat` results into nodes; remembers the names of users and groups.
#[derive(Debug)]
pub(super) struct NodeMaker {
    zone: TimeZone,
    with_atime: bool,
    users: Mutex<HashMap<u32, String>>,
    groups: Mutex<HashMap<u32, String>>,
}

impl NodeMaker {
    /// Times are written in `zone`; the access time is the modification time unless
    /// `with_atime`, because else every read would change every tree.
    pub(super) fn new(zone: TimeZone, with_atime: bool) -> Self {
        Self { zone, with_atime, users: Mutex::default(), groups: Mutex::default() }
    }

    /// The node for an inode, without content, link target and extended attributes.
    pub(super) fn node(&self, name: &[u8], stat: &Stat) -> Node {
        let kind = kind(stat);
        let mut node = Node::new(name.to_vec(), kind);
        self.fill(&mut node, stat);
        node
    }

    /// Sets all of `node` that `stat` tells; for a file that was opened after the first look.
    pub(super) fn fill(&self, node: &mut Node, stat: &Stat) {
        let [mtime, atime, ctime] = self.times(stat);
        node.mode = go_mode(node.kind, stat.st_mode & 0o7777);
        node.mtime = mtime;
        node.atime = atime;
        node.ctime = ctime;
        // A name that is there already is that of the number.
        if node.user.is_empty() || node.uid != stat.st_uid {
            node.user = self.user(stat.st_uid);
        }
        if node.group.is_empty() || node.gid != stat.st_gid {
            node.group = self.group(stat.st_gid);
        }
        node.uid = stat.st_uid;
        node.gid = stat.st_gid;
        node.inode = stat.st_ino;
        node.device_id = stat.st_dev;
        // As restic counts them; of pipes and sockets it keeps no count, so only one that
        // matters is written.
        let links = u64::from(u32::try_from(stat.st_nlink).unwrap_or(u32::MAX));
        node.links = match node.kind {
            NodeKind::Dir | NodeKind::Irregular => 0,
            NodeKind::Fifo | NodeKind::Socket if links == 1 => 0,
            _ => links,
        };
        if node.kind == NodeKind::File {
            node.size = u64::try_from(stat.st_size).unwrap_or(0);
        }
        if matches!(node.kind, NodeKind::BlockDevice | NodeKind::CharDevice) {
            node.device = stat.st_rdev;
        }
    }

    /// The node for something that no inode stands for, or none that matters.
    pub(super) fn made(&self, name: &[u8], kind: NodeKind, facts: &Facts) -> Node {
        let mut node = Node::new(name.to_vec(), kind);
        let (seconds, nanoseconds) = facts.modified;
        let time = Timestamp::from_unix(seconds, nanoseconds, &self.zone).clamped();
        (node.mtime, node.atime, node.ctime) = (time, time, time);
        node.mode = go_mode(kind, facts.permissions & 0o7777);
        (node.uid, node.gid) = (facts.uid, facts.gid);
        node.user = self.user(facts.uid);
        node.group = self.group(facts.gid);
        node.links = u64::from(kind == NodeKind::File);
        node
    }

    fn user(&self, uid: u32) -> String {
        remember(&self.users, uid, |uid| {
            User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
        })
    }

    fn group(&self, gid: u32) -> String {
        remember(&self.groups, gid, |gid| {
            Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name)
        })
    }

    /// Modification, access and change time, as they stand in a tree.
    pub(super) fn times(&self, stat: &Stat) -> [Timestamp; 3] {
        let time = |seconds: i64, nanoseconds| {
            let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
            Timestamp::from_unix(seconds, nanoseconds, &self.zone).clamped()
        };
        let mtime = time(stat.st_mtime, stat.st_mtime_nsec);
        let atime = match self.with_atime {
            true => time(stat.st_atime, stat.st_atime_nsec),
            false => mtime,
        };
        [mtime, atime, time(stat.st_ctime, stat.st_ctime_nsec)]
    }
}

fn remember(
    names: &Mutex<HashMap<u32, String>>,
    id: u32,
    look_up: impl FnOnce(u32) -> Option<String>,
) -> String {
    let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
    names.entry(id).or_insert_with(|| look_up(id).unwrap_or_default()).clone()
}

/// What kind of node an inode is.
pub(super) fn kind(stat: &Stat) -> NodeKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::Unknown => NodeKind::Irregular,
    }
}

/// The longest list of attribute names and the longest value that Linux allows, in bytes
/// (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// The extended attributes of an open file or folder.
///
/// # Errors
/// Fails when they cannot be listed or one cannot be read; a file system without them has none.
pub(super) fn attributes_of_open(
    file: impl AsFd,
    buffer: &mut Vec<u8>,
) -> io::Result<Vec<ExtendedAttribute>> {
    let file = file.as_fd();
    collect(
        buffer,
        |names| rustix::fs::flistxattr(file, names),
        |name, value| rustix::fs::fgetxattr(file, name, value),
    )
}

/// The extended attributes of an entry that cannot be opened (symlink, device, FIFO, socket).
///
/// # Errors
/// As [`attributes_of_open`].
pub(super) fn attributes_of_entry(
    folder: BorrowedFd<'_>,
    name: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<Vec<ExtendedAttribute>> {
    // There is no `listxattrat`; the folder's descriptor as a path keeps the look-up relative.
    let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let result = collect(
        buffer,
        |names| rustix::fs::llistxattr(path.as_slice(), names),
        |attribute, value| rustix::fs::lgetxattr(path.as_slice(), attribute, value),
    );
    match result {
        // Without /proc nothing can be asked; such entries hardly ever have attributes.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}

fn collect(
    buffer: &mut Vec<u8>,
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<ExtendedAttribute>> {
    buffer.resize(2 * XATTR_BYTES_MAX, 0);
    let (names, value) = buffer.split_at_mut(XATTR_BYTES_MAX);
    let length = match list(names) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NODATA) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut attributes = Vec::new();
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match get(name, value) {
            Ok(length) => attributes.push(ExtendedAttribute {
                name: String::from_utf8_lossy(name).into_owned(),
                value: value[..length].to_vec(),
            }),
            // Removed since it was listed.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(attributes)
}
