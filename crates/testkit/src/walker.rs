//! An independent witness: reads a folder into a [`Listing`], and compares two listings.
//!
//! It goes down by file descriptor (`openat`) and up by `..`, one descriptor at a time, so paths
//! may be longer than `PATH_MAX` and trees deeper than the limit of open files. It shares no code
//! with the engine that it judges. It is written for clarity, not for speed, and reads every byte.
//!
//! What it cannot read for want of rights (a file of mode 000, a folder without search permission)
//! it lists with `readable: false`. Every other failure is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix domain socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl Kind {
    /// Names the kind with the word that the repository format uses for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Folder => "dir",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharDevice => "chardev",
            Self::BlockDevice => "dev",
        }
    }
}

/// A time of last modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Modified {
    /// Whole seconds since 1970, rounded down: negative before.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl fmt::Display for Modified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:09}ns", self.seconds, self.nanoseconds)
    }
}

/// Extended attributes: values by raw name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Everything about one path that a backup should bring back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// The lowest 12 bits of the mode: rwx three times, setuid, setgid, sticky.
    pub permissions: u32,
    /// The owner's user id.
    pub uid: u32,
    /// The owner's group id.
    pub gid: u32,
    /// Bytes of content, or of a symlink's target; 0 for everything else.
    pub size: u64,
    /// When the content was last changed.
    pub modified: Modified,
    /// Extended attributes, POSIX ACLs (`system.posix_acl_*`) among them.
    pub xattrs: Xattrs,
    /// Where a symlink points to, raw.
    pub link_target: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// The first path (in byte order) of those that are hard links to the same inode, when the
    /// listing has at least two of them.
    pub hard_link_group: Option<Vec<u8>>,
    /// SHA-256 of a regular file's content.
    pub sha256: Option<[u8; 32]>,
    /// Bytes allocated on disk, for regular files; less than `size` for a file with holes.
    pub allocated: u64,
    /// False when content or children could not be read for want of rights.
    pub readable: bool,
}

/// A tree as it was read: raw relative path to entry. The root's path is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The entries in byte order of their paths, `/` between the parts.
    pub entries: BTreeMap<Vec<u8>, Entry>,
}

impl Listing {
    /// Finds the entry at a path relative to the root.
    pub fn get(&self, path: impl AsRef<[u8]>) -> Option<&Entry> {
        self.entries.get(path.as_ref())
    }

    /// Sums up the sizes of all regular files, hard links counted each time, in bytes.
    pub fn content_bytes(&self) -> u64 {
        self.entries.values().filter(|entry| entry.kind == Kind::File).map(|entry| entry.size).sum()
    }

    /// Renders the tree, without its root, in the format of the `*.listing` files in `fixtures/`.
    ///
    /// One line a path, in byte order, with these columns between tabs, `-` where one has nothing
    /// to say: path, type, permissions (4 octal digits), size, mtime (`seconds.nanoseconds`),
    /// SHA-256, link target, first path of the hard link group, `user.*` xattrs
    /// (`name=hex,name=hex`). Bytes outside of 0x20–0x7e and backslashes are written `\xNN`.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        for (path, entry) in self.entries.iter().filter(|(path, _)| !path.is_empty()) {
            let columns = [
                escape(path),
                entry.kind.word().to_owned(),
                format!("{:04o}", entry.permissions),
                match entry.kind {
                    Kind::File | Kind::Symlink => entry.size.to_string(),
                    _ => "-".to_owned(),
                },
                format!("{}.{:09}", entry.modified.seconds, entry.modified.nanoseconds),
                entry.sha256.as_ref().map_or_else(|| "-".to_owned(), |digest| hex(digest)),
                entry.link_target.as_deref().map_or_else(|| "-".to_owned(), escape),
                entry.hard_link_group.as_deref().map_or_else(|| "-".to_owned(), escape),
                user_xattrs(&entry.xattrs),
            ];
            lines.push_str(&columns.join("\t"));
            lines.push('\n');
        }
        lines
    }
}

fn user_xattrs(xattrs: &Xattrs) -> String {
    let user: Vec<String> = xattrs
        .iter()
        .filter(|(name, _)| name.starts_with(b"user."))
        .map(|(name, value)| format!("{}={}", escape(name), hex(value)))
        .collect();
    if user.is_empty() { "-".to_owned() } else { user.join(",") }
}

/// Writes bytes outside of 0x20–0x7e, and backslashes, as `\xNN`.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            0x20..=0x7e if byte != b'\\' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the tree below (and with) `root`, content included.
///
/// # Errors
///
/// `root` is not a folder, or something in it cannot be read for another reason than want of
/// rights: it vanished, the disk failed.
pub fn walk(root: &Path) -> Result<Listing> {
    let mut folder: OwnedFd =
        rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("open the folder {}", root.display()))?;
    let mut walk = Walk::default();
    let (root_entry, _) = walk.describe(folder.as_fd(), c".", b"")?;
    walk.listing.entries.insert(Vec::new(), root_entry);

    // The folders from the root to the current one. Only the current one is open.
    let mut levels = vec![Level::enter(folder.as_fd(), 0)?];
    let mut path = Vec::new();
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path_length);
        let Some(name) = level.names.pop() else {
            levels.pop();
            if let Some(parent) = levels.last() {
                folder = parent.back_from(folder.as_fd())?;
            }
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let (mut entry, is_folder) = walk.describe(folder.as_fd(), &name, &path)?;
        if is_folder {
            match open_folder(folder.as_fd(), &name)
                .with_context(|| format!("open the folder {}", abbreviate(&path)))?
            {
                Some(child) => {
                    levels.push(Level::enter(child.as_fd(), path.len())?);
                    folder = child;
                }
                None => entry.readable = false,
            }
        }
        walk.listing.entries.insert(path.clone(), entry);
    }
    Ok(walk.finish())
}

/// A folder on the way from the root to where the walk is.
struct Level {
    /// Children still to be visited.
    names: Vec<CString>,
    /// Device and inode, to notice when `..` leads elsewhere because someone moves folders.
    identity: (u32, u32, u64),
    /// How much of the path is this folder's own.
    path_length: usize,
}

impl Level {
    fn enter(folder: BorrowedFd<'_>, path_length: usize) -> Result<Self> {
        let mut names = Vec::new();
        for child in Dir::read_from(folder).context("list a folder")? {
            let name = child.context("list a folder")?.file_name().to_owned();
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                names.push(name);
            }
        }
        Ok(Self { names, identity: identity(&stat(folder, c".")?), path_length })
    }

    fn back_from(&self, child: BorrowedFd<'_>) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(child, c"..", flags, Mode::empty())
            .context("go up to the parent folder")?;
        let found = identity(&stat(folder.as_fd(), c".")?);
        ensure!(found == self.identity, "the tree was changed during the walk");
        Ok(folder)
    }
}

/// Opens a folder for listing and visiting; `None` when rights are missing for either.
fn open_folder(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => return Ok(None),
        opened => opened?,
    };
    match stat(folder.as_fd(), c"..") {
        Err(Errno::ACCESS) => Ok(None),
        searchable => searchable.map(|_| Some(folder)),
    }
}

/// What a walk gathers.
#[derive(Default)]
struct Walk {
    listing: Listing,
    /// Paths by inode, for inodes with more than one name.
    links: BTreeMap<(u32, u32, u64), Vec<Vec<u8>>>,
}

impl Walk {
    /// Reads one entry; the flag says that it is a folder.
    fn describe(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> Result<(Entry, bool)> {
        read_entry(folder, name)
            .map(|(entry, status)| {
                let is_folder = entry.kind == Kind::Folder;
                if !is_folder && status.stx_nlink > 1 {
                    self.links.entry(identity(&status)).or_default().push(path.to_vec());
                }
                (entry, is_folder)
            })
            .with_context(|| format!("read {}", abbreviate(path)))
    }

    fn finish(mut self) -> Listing {
        for paths in self.links.into_values().filter(|paths| paths.len() > 1) {
            let first = paths.iter().min().cloned();
            for path in paths {
                if let Some(entry) = self.listing.entries.get_mut(&path) {
                    entry.hard_link_group.clone_from(&first);
                }
            }
        }
        self.listing
    }
}

fn read_entry(folder: BorrowedFd<'_>, name: &CStr) -> Result<(Entry, Statx)> {
    let status = stat(folder, name).context("read the status")?;
    let kind = kind_of(&status)?;
    let (xattrs, mut readable) = read_xattrs(folder, name)?;
    let link_target = match kind {
        Kind::Symlink => {
            let target = rustix::fs::readlinkat(folder, name, Vec::new());
            Some(target.context("read the link's target")?.into_bytes())
        }
        _ => None,
    };
    let mut sha256 = None;
    if kind == Kind::File {
        sha256 = hash_content(folder, name)?;
        readable &= sha256.is_some();
    }
    let device = match kind {
        Kind::CharDevice | Kind::BlockDevice => {
            Some((status.stx_rdev_major, status.stx_rdev_minor))
        }
        _ => None,
    };
    let entry = Entry {
        kind,
        permissions: u32::from(status.stx_mode) & 0o7777,
        uid: status.stx_uid,
        gid: status.stx_gid,
        size: if matches!(kind, Kind::File | Kind::Symlink) { status.stx_size } else { 0 },
        modified: Modified {
            seconds: status.stx_mtime.tv_sec,
            nanoseconds: status.stx_mtime.tv_nsec,
        },
        xattrs,
        link_target,
        device,
        hard_link_group: None,
        sha256,
        allocated: if kind == Kind::File { status.stx_blocks * 512 } else { 0 },
        readable,
    };
    Ok((entry, status))
}

fn stat(folder: BorrowedFd<'_>, name: &CStr) -> Result<Statx, Errno> {
    rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
}

fn identity(status: &Statx) -> (u32, u32, u64) {
    (status.stx_dev_major, status.stx_dev_minor, status.stx_ino)
}

fn kind_of(status: &Statx) -> Result<Kind> {
    Ok(match FileType::from_raw_mode(status.stx_mode.into()) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Unknown => anyhow::bail!("mode {:o} is of no known type", status.stx_mode),
    })
}

/// Hashes a file's content; `None` when it may not be read.
fn hash_content(folder: BorrowedFd<'_>, name: &CStr) -> Result<Option<[u8; 32]>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => return Ok(None),
        opened => File::from(opened.context("open the file")?),
    };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).context("read the content")? {
            0 => return Ok(Some(hasher.finalize().into())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// The kernel's limits for a list of names and for one value (xattr(7)), in bytes.
const XATTR_MAX: usize = 65536;

/// Reads all extended attributes; the flag is false when a value may not be read.
///
/// There are no `…at` calls for them before Linux 6.13, hence the detour over `/proc`.
fn read_xattrs(folder: BorrowedFd<'_>, name: &CStr) -> Result<(Xattrs, bool)> {
    let path = path_by_descriptor(folder, name);
    let mut names = vec![0; XATTR_MAX];
    let length = match rustix::fs::llistxattr(&path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        listed => listed.context("list the extended attributes")?,
    };
    names.truncate(length);

    let mut xattrs = Xattrs::new();
    let mut readable = true;
    let mut value = vec![0; if length == 0 { 0 } else { XATTR_MAX }];
    for attribute in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match rustix::fs::lgetxattr(&path, attribute, &mut value[..]) {
            Err(Errno::ACCESS) => readable = false,
            got => {
                let length = got.with_context(|| {
                    format!("read the extended attribute {}", attribute.escape_ascii())
                })?;
                xattrs.insert(attribute.to_vec(), value[..length].to_vec());
            }
        }
    }
    Ok((xattrs, readable))
}

/// Names a child of an open folder by a short path, however long the folder's own is.
pub(crate) fn path_by_descriptor(folder: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).expect("a number and a C string hold no zero byte")
}

/// What may differ between two trees without being reported; the default is nothing but labels
/// that the machine's security policy sets on its own.
#[derive(Debug, Clone)]
pub struct Tolerance {
    /// Leave the roots themselves out: a restore into an existing folder may keep its metadata.
    pub ignore_root: bool,
    /// Leave out uid and gid, for restores without root.
    pub ignore_owners: bool,
    /// Leave out permission bits.
    pub ignore_permissions: bool,
    /// Leave out the times of all entries.
    pub ignore_times: bool,
    /// Leave out the times of folders only.
    pub ignore_folder_times: bool,
    /// Leave out the times of symlinks only.
    pub ignore_symlink_times: bool,
    /// Leave out which paths are hard links to the same inode.
    pub ignore_hard_links: bool,
    /// Leave out extended attributes whose names start with one of these; `""` means all.
    pub ignore_xattrs: Vec<String>,
    /// Kinds of entries that the second tree may lack.
    pub may_miss: Vec<Kind>,
    /// When set, a file of the second tree may take no more than this many bytes on disk above
    /// the first tree's: the check that holes stay holes. `None` (the default) does not look.
    pub allocated_slack: Option<u64>,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            ignore_root: false,
            ignore_owners: false,
            ignore_permissions: false,
            ignore_times: false,
            ignore_folder_times: false,
            ignore_symlink_times: false,
            ignore_hard_links: false,
            ignore_xattrs: vec!["security.selinux".to_owned(), "security.ima".to_owned()],
            may_miss: Vec::new(),
            allocated_slack: None,
        }
    }
}

/// One thing in which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The raw path, relative to the roots; empty for the roots themselves.
    pub path: Vec<u8>,
    /// What differs: `"permissions"`, `"content"`, …, or `"presence"`.
    pub aspect: &'static str,
    /// How it is in the first tree.
    pub first: String,
    /// How it is in the second tree.
    pub second: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, aspect, first, second } = self;
        write!(f, "{}: {aspect}: {first} | {second}", abbreviate(path))
    }
}

/// Lists in which ways the second tree differs from the first, in byte order of the paths.
#[must_use = "differences that nobody looks at prove nothing"]
pub fn compare(first: &Listing, second: &Listing, tolerance: &Tolerance) -> Vec<Difference> {
    let mut differences = Vec::new();
    let paths: BTreeSet<&Vec<u8>> = first.entries.keys().chain(second.entries.keys()).collect();
    for path in paths {
        if path.is_empty() && tolerance.ignore_root {
            continue;
        }
        match (first.get(path), second.get(path)) {
            (Some(a), Some(b)) => compare_entries(path, a, b, tolerance, &mut differences),
            (Some(a), None) if tolerance.may_miss.contains(&a.kind) => {}
            (a, b) => differences.push(Difference {
                path: path.clone(),
                aspect: "presence",
                first: presence(a),
                second: presence(b),
            }),
        }
    }
    differences
}

/// Panics with all differences when there are any, the first fifty of them in full.
///
/// # Panics
///
/// The trees differ by more than `tolerance` allows.
#[track_caller]
pub fn assert_same(first: &Listing, second: &Listing, tolerance: &Tolerance) {
    const SHOWN: usize = 50;
    let differences = compare(first, second, tolerance);
    if differences.is_empty() {
        return;
    }
    let mut message = format!("the trees differ in {} ways (first | second):", differences.len());
    for difference in differences.iter().take(SHOWN) {
        message.push_str(&format!("\n  {difference}"));
    }
    if differences.len() > SHOWN {
        message.push_str(&format!("\n  … and {} more", differences.len() - SHOWN));
    }
    panic!("{message}");
}

fn presence(entry: Option<&Entry>) -> String {
    entry.map_or("missing", |entry| entry.kind.word()).to_owned()
}

fn compare_entries(
    path: &[u8],
    a: &Entry,
    b: &Entry,
    tolerance: &Tolerance,
    differences: &mut Vec<Difference>,
) {
    let mut pair = Pair { path, differences };
    if a.kind != b.kind {
        // All else differs by necessity.
        pair.check("type", &a.kind, &b.kind, |kind| kind.word().to_owned());
        return;
    }
    if !tolerance.ignore_permissions {
        pair.check("permissions", &a.permissions, &b.permissions, |bits| format!("{bits:04o}"));
    }
    if !tolerance.ignore_owners {
        pair.check("uid", &a.uid, &b.uid, u32::to_string);
        pair.check("gid", &a.gid, &b.gid, u32::to_string);
    }
    pair.check("size", &a.size, &b.size, u64::to_string);
    if !ignores_time(a.kind, tolerance) {
        pair.check("mtime", &a.modified, &b.modified, Modified::to_string);
    }
    pair.check("content", &a.sha256, &b.sha256, |digest| or_none(digest, |digest| hex(digest)));
    pair.check("link target", &a.link_target, &b.link_target, |target| {
        or_none(target, |target| abbreviate(target))
    });
    pair.check("device", &a.device, &b.device, |device| {
        or_none(device, |(major, minor)| format!("{major}:{minor}"))
    });
    if !tolerance.ignore_hard_links {
        pair.check("hard link to", &a.hard_link_group, &b.hard_link_group, |group| {
            or_none(group, |path| abbreviate(path))
        });
    }
    let names: BTreeSet<&Vec<u8>> = a.xattrs.keys().chain(b.xattrs.keys()).collect();
    for name in names.into_iter().filter(|name| !ignores_xattr(name, tolerance)) {
        pair.check("xattr", &a.xattrs.get(name), &b.xattrs.get(name), |value| {
            format!("{}={}", escape(name), or_none(value, |value| escape(value)))
        });
    }
    pair.check("readable", &a.readable, &b.readable, bool::to_string);
    if let Some(slack) = tolerance.allocated_slack
        && b.allocated > a.allocated.saturating_add(slack)
    {
        pair.check("bytes on disk", &a.allocated, &b.allocated, u64::to_string);
    }
}

/// Notes what differs at one path.
struct Pair<'a> {
    path: &'a [u8],
    differences: &'a mut Vec<Difference>,
}

impl Pair<'_> {
    fn check<T: PartialEq>(
        &mut self,
        aspect: &'static str,
        first: &T,
        second: &T,
        show: impl Fn(&T) -> String,
    ) {
        if first != second {
            let (first, second) = (show(first), show(second));
            self.differences.push(Difference { path: self.path.to_vec(), aspect, first, second });
        }
    }
}

fn or_none<T>(value: &Option<T>, show: impl Fn(&T) -> String) -> String {
    value.as_ref().map_or_else(|| "none".to_owned(), show)
}

fn ignores_time(kind: Kind, tolerance: &Tolerance) -> bool {
    tolerance.ignore_times
        || (tolerance.ignore_folder_times && kind == Kind::Folder)
        || (tolerance.ignore_symlink_times && kind == Kind::Symlink)
}

fn ignores_xattr(name: &[u8], tolerance: &Tolerance) -> bool {
    tolerance.ignore_xattrs.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Escapes a path for people, and cuts the middle out of a very long one but tells its digest, so
/// that different texts stay different.
fn abbreviate(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    if bytes.is_empty() {
        return ".".to_owned();
    }
    if bytes.len() <= 3 * SHOWN {
        return escape(bytes);
    }
    let (head, tail) = (&bytes[..SHOWN], &bytes[bytes.len() - SHOWN..]);
    let digest = Sha256::digest(bytes);
    format!(
        "{}…({} bytes, sha256 {})…{}",
        escape(head),
        bytes.len(),
        hex(&digest[..4]),
        escape(tail)
    )
}

#[cfg(test)]
mod tests;
