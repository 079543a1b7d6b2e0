//! Giving what was restored its owner, attributes, mode and times.
//!
//! The order matters and is the same for every kind:
//!
//! 1. **Owner.** A change of owner clears setuid, setgid and `security.capability`.
//! 2. **Extended attributes**, ACLs among them. Before the mode, because `user.*` can be set
//!    only on what its owner may write.
//! 3. **Mode.** After the ACLs, which change the permission bits and may clear setgid.
//! 4. **Times**, last, because everything before may touch them.
//!
//! Who is not root cannot give files away. That is no problem worth a line for every file, so
//! it is counted; but then setuid and setgid are left out where they would give the rights of
//! the wrong owner or group.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use rustix::{
    fs::{
        AtFlags, CWD, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat,
        fchmod, fchown, flistxattr, fremovexattr, fsetxattr, fstat, futimens, listxattr,
        removexattr, setxattr, utimensat,
    },
    io::Errno,
    process::{getegid, geteuid},
};

use super::report::beside_content;
use crate::format::{
    mode::unix_mode,
    time::Timestamp,
    tree::{ExtendedAttribute, Node, NodeKind},
};

/// The attribute that holds an ACL.
pub(super) const ACCESS_ACL: &str = "system.posix_acl_access";
/// The attribute of a folder that holds the ACL of what is made in it.
pub(super) const DEFAULT_ACL: &str = "system.posix_acl_default";

/// Attributes that belong to the data, so that one too many is removed. Others (the labels of
/// security modules) are the system's.
const OWN_ATTRIBUTES: [&[u8]; 5] =
    [b"user.", b"trusted.", b"security.capability", b"system.posix_acl_access", DEFAULT_ACL_BYTES];
const DEFAULT_ACL_BYTES: &[u8] = DEFAULT_ACL.as_bytes();

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// Linux lists at most this many bytes of attribute names (`XATTR_LIST_MAX`).
const ATTRIBUTE_LIST_BYTES_MAX: usize = 65_536;

/// What a node says about itself, apart from name and content.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) kind: NodeKind,
    /// The low twelve bits of `st_mode`.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    pub(super) atime: Timestamp,
    pub(super) attributes: Box<[ExtendedAttribute]>,
}

impl Metadata {
    /// Takes the metadata out of a node.
    pub(super) fn take(node: &mut Node) -> Self {
        Self {
            kind: node.kind,
            mode: unix_mode(node.mode),
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
            atime: node.atime,
            attributes: std::mem::take(&mut node.extended_attributes).into_boxed_slice(),
        }
    }
}

/// Who restores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Rights {
    pub(super) fn of_process() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    pub(super) fn is_root(self) -> bool {
        self.uid == 0
    }
}

/// What the item has before it gets its metadata, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present {
    /// Owner and group.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) attributes: PresentAttributes,
}

/// Attributes that an item may have before it gets its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PresentAttributes {
    /// None that belong to the data.
    None,
    /// ACLs that its folder gave to it.
    Inherited,
    /// Any.
    Unknown,
}

/// An open item.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    /// Opened for reading or writing.
    Open(BorrowedFd<'a>),
    /// Opened with `O_PATH`: held fast, whatever becomes of its name.
    Pinned(BorrowedFd<'a>),
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Something was left out that this user may not set or the file system cannot keep.
    pub(super) denied: bool,
    /// The first thing that failed.
    pub(super) problem: Option<(&'static str, io::Error)>,
}

/// Gives `item` its metadata; goes on after a failure with what is left to do.
pub(super) fn apply(
    item: Item<'_>,
    wanted: &Metadata,
    present: Present,
    rights: Rights,
) -> Applied {
    let mut applying = Applying { item, wanted, rights, applied: Applied::default() };
    let (owner_is_right, group_is_right) = applying.set_owner(present.owner);
    applying.remove_attributes(present.attributes);
    applying.set_attributes();
    applying.set_mode(owner_is_right, group_is_right);
    applying.set_times();
    applying.applied
}

struct Applying<'a> {
    item: Item<'a>,
    wanted: &'a Metadata,
    rights: Rights,
    applied: Applied,
}

impl Applying<'_> {
    /// Returns whether owner and group are what they should be.
    fn set_owner(&mut self, present: Option<(u32, u32)>) -> (bool, bool) {
        let (uid, gid) = (self.wanted.uid, self.wanted.gid);
        if present == Some((uid, gid)) {
            return (true, true);
        }
        match self.item.set_owner(Some(uid), Some(gid)) {
            Ok(()) => return (true, true),
            Err(errno) => self.failed(beside_content::SET_OWNER, errno),
        }
        // A group of ours can be given even when the owner cannot.
        let group_given = self.item.set_owner(None, Some(gid)).is_ok();
        let Ok(stat) = self.item.stat() else { return (false, false) };
        (stat.st_uid == uid, group_given || stat.st_gid == gid)
    }

    fn remove_attributes(&mut self, present: PresentAttributes) {
        match present {
            PresentAttributes::None => {}
            PresentAttributes::Inherited => {
                for name in [ACCESS_ACL, DEFAULT_ACL] {
                    if !self.wants(name.as_bytes()) {
                        self.remove_attribute(name.as_bytes());
                    }
                }
            }
            PresentAttributes::Unknown => {
                let Ok(names) = self.item.attributes() else { return };
                let own = |name: &&[u8]| OWN_ATTRIBUTES.iter().any(|own| name.starts_with(own));
                for name in names.split(|&byte| byte == 0).filter(own) {
                    if !self.wants(name) {
                        self.remove_attribute(name);
                    }
                }
            }
        }
    }

    fn wants(&self, name: &[u8]) -> bool {
        self.wanted.attributes.iter().any(|attribute| attribute.name.as_bytes() == name)
    }

    fn remove_attribute(&mut self, name: &[u8]) {
        match self.item.remove_attribute(name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => self.failed(beside_content::REMOVE_ATTRIBUTE, errno),
        }
    }

    fn set_attributes(&mut self) {
        for attribute in &self.wanted.attributes {
            match self.item.set_attribute(&attribute.name, &attribute.value) {
                Ok(()) => {}
                // restic ignores this too: the file system has no such attributes.
                Err(Errno::OPNOTSUPP) => self.applied.denied = true,
                // Some file systems keep attributes in one block: that says nothing about the
                // room for files, which would end the restore.
                Err(Errno::NOSPC) => self.add_problem(
                    beside_content::SET_ATTRIBUTE,
                    io::Error::other("the file system has no room for attributes so long"),
                ),
                Err(errno) => self.failed(beside_content::SET_ATTRIBUTE, errno),
            }
        }
    }

    fn set_mode(&mut self, owner_is_right: bool, group_is_right: bool) {
        if self.wanted.kind == NodeKind::Symlink {
            return;
        }
        let mut mode = self.wanted.mode;
        if self.wanted.kind != NodeKind::Dir {
            let granted = [(SETUID, owner_is_right), (SETGID, group_is_right)];
            for (bit, _) in granted.iter().filter(|(_, is_right)| !is_right) {
                mode &= !bit;
            }
        }
        if let Err(errno) = self.item.set_mode(mode) {
            self.failed(beside_content::SET_MODE, errno);
        }
    }

    fn set_times(&mut self) {
        let times = Timestamps {
            last_access: timespec(self.wanted.atime),
            last_modification: timespec(self.wanted.mtime),
        };
        if let Err(errno) = self.item.set_times(&times) {
            self.failed(beside_content::SET_TIMES, errno);
        }
    }

    fn failed(&mut self, operation: &'static str, errno: Errno) {
        if !self.rights.is_root() && matches!(errno, Errno::PERM | Errno::ACCESS) {
            self.applied.denied = true;
        } else {
            self.add_problem(operation, errno.into());
        }
    }

    fn add_problem(&mut self, operation: &'static str, error: io::Error) {
        self.applied.problem.get_or_insert((operation, error));
    }
}

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.seconds(), tv_nsec: time.nanoseconds().into() }
}

impl Item<'_> {
    /// What the kernel knows of the item.
    pub(super) fn stat(self) -> rustix::io::Result<Stat> {
        match self {
            Self::Open(fd) | Self::Pinned(fd) => fstat(fd),
        }
    }

    fn set_owner(self, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
        // The largest number means "leave as it is" to the kernel, and is nobody's.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            Self::Pinned(fd) => chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn set_mode(self, mode: u32) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            Self::Pinned(fd) => chmod(pinned_path(fd), mode),
        }
    }

    fn set_times(self, times: &Timestamps) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => futimens(fd, times),
            Self::Pinned(fd) => match utimensat(fd, "", times, AtFlags::EMPTY_PATH) {
                // Linux before 5.8 does not know the flag.
                Err(Errno::INVAL) => utimensat(CWD, pinned_path(fd), times, AtFlags::empty()),
                result => result,
            },
        }
    }

    fn set_attribute(self, name: &str, value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Pinned(fd) => setxattr(pinned_path(fd), name, value, XattrFlags::empty()),
        }
    }

    fn remove_attribute(self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fremovexattr(fd, name),
            Self::Pinned(fd) => removexattr(pinned_path(fd), name),
        }
    }

    /// The names of the attributes, each ended by a zero byte.
    fn attributes(self) -> rustix::io::Result<Vec<u8>> {
        let mut names = vec![0; ATTRIBUTE_LIST_BYTES_MAX];
        let length = match self {
            Self::Open(fd) => flistxattr(fd, names.as_mut_slice()),
            Self::Pinned(fd) => listxattr(pinned_path(fd), names.as_mut_slice()),
        }?;
        names.truncate(length);
        Ok(names)
    }
}

/// A path to what is held by `fd`, for calls that take paths only. The kernel resolves it to
/// the item itself, also when that is a symbolic link.
fn pinned_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Adds the owner's permissions to a folder that is ours, so that we can work in it.
pub(super) fn make_accessible(folder: impl AsFd, mode: u32) -> io::Result<()> {
    Item::Pinned(folder.as_fd()).set_mode(mode & 0o7777 | 0o700).map_err(Into::into)
}
