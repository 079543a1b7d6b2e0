//! A folder with everything that Linux can store, built the same way each time.
//!
//! Each part has its own folder below the root and its own switch in [`Options`], because not every
//! peer, file system or user can take all of it. What a missing right or a missing feature of the
//! file system keeps from being built is named in [`Built::left_out`]; nothing else may fail.
//!
//! Every entry gets a time of its own that depends on its name only, folders included, so that a
//! restore that forgets a time is seen. Owners are changed only by root.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::walker::path_by_descriptor;

mod content;
mod names;

/// Which parts to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `modes/`: permission bits incl. setuid, setgid and sticky, a folder without write permission.
    pub modes: bool,
    /// `times/`: from 1901 to 2200, with nanoseconds, around 1970 and 2038 in particular.
    pub times: bool,
    /// `times/`: also the year 2400, which does not fit into 64 bits of nanoseconds since 1970.
    pub far_future: bool,
    /// `owners/`: other users and groups, known and unknown ones (root only).
    pub owners: bool,
    /// `xattrs/`: `user.*` attributes on files and folders: empty, binary, 1,000 bytes long, many.
    pub xattrs: bool,
    /// `xattrs/`: also `trusted.*` attributes on a file and a folder (root only).
    pub trusted_xattrs: bool,
    /// `xattrs/`: also a `trusted.*` attribute on a symlink (root only).
    pub symlink_xattrs: bool,
    /// `xattrs/`: also a file capability (`security.capability`), which a later chown or write
    /// would remove (root only).
    pub capabilities: bool,
    /// `acls/`: POSIX ACLs for access, and default ones on a folder.
    pub acls: bool,
    /// `links/`: inodes with two and three names, in the same folder and across folders.
    pub hard_links: bool,
    /// `links/`: also a symlink and a FIFO with two names each.
    pub linked_specials: bool,
    /// `sparse/`: files with leading, middle and trailing holes, one of 64 MiB that is all hole.
    pub sparse: bool,
    /// `symlinks/`: to a file, a folder, nothing, itself and outside, and to a name with a newline.
    pub symlinks: bool,
    /// `symlinks/`: also to names that are not UTF-8; one of them in `names/`, with `raw_names`.
    pub raw_targets: bool,
    /// `symlinks/`: also one whose target is 4,000 bytes long.
    pub long_symlink: bool,
    /// `special/`: a FIFO and a Unix socket.
    pub special: bool,
    /// `special/`: also character and block devices (root only).
    pub devices: bool,
    /// `names/`: UTF-8 names that tools trip over: newline, quotes, backslash, control characters,
    /// line separators, a leading dash, spaces at the ends, equal but for their normalisation.
    pub odd_names: bool,
    /// `names/`: also names that are not UTF-8.
    pub raw_names: bool,
    /// `names/`: also names of 255 bytes.
    pub long_names: bool,
    /// `deep/`: this many folders, each in the one before; a path of about 2 bytes a level.
    pub deep_levels: usize,
    /// `past-path-max/`: folders with names of 220 bytes up to a path of more than 4,400 bytes,
    /// beyond what `open` takes in one piece. Most tools fail here.
    pub past_path_max: bool,
    /// `empty/`: empty files and folders.
    pub empties: bool,
    /// `sizes/`: 0 and 1 byte, and around the chunker's edges: 512 KiB and 8 MiB each exactly and
    /// one byte off, and 20 MiB; random content, plus one file of repeated text. About 43 MiB.
    pub chunk_edges: bool,
    /// `unreadable/`: a file of mode 000, which only root can read.
    pub unreadable: bool,
    /// `many/`: this many small files in one folder.
    pub many_files: usize,
}

impl Options {
    /// Builds nothing; switch on what you need.
    pub fn nothing() -> Self {
        Self {
            modes: false,
            times: false,
            far_future: false,
            owners: false,
            xattrs: false,
            trusted_xattrs: false,
            symlink_xattrs: false,
            capabilities: false,
            acls: false,
            hard_links: false,
            linked_specials: false,
            sparse: false,
            symlinks: false,
            raw_targets: false,
            long_symlink: false,
            special: false,
            devices: false,
            odd_names: false,
            raw_names: false,
            long_names: false,
            deep_levels: 0,
            past_path_max: false,
            empties: false,
            chunk_edges: false,
            unreadable: false,
            many_files: 0,
        }
    }

    /// Builds what restic, from the version in Debian 12 on, backs up and restores without loss.
    ///
    /// Left out are attributes of symlinks and targets that are not UTF-8, which newer versions
    /// keep; and hard links of anything but files, the year 2400 and paths beyond `PATH_MAX`.
    /// Sockets are backed up, but no version restores them.
    pub fn for_restic() -> Self {
        Self {
            far_future: false,
            linked_specials: false,
            raw_targets: false,
            symlink_xattrs: false,
            past_path_max: false,
            ..Self::everything()
        }
    }

    /// Builds what rustic 0.11 backs up and restores without loss, sockets included.
    ///
    /// Left out are hard links of anything but files, and paths beyond `PATH_MAX`.
    pub fn for_rustic() -> Self {
        Self { linked_specials: false, past_path_max: false, ..Self::everything() }
    }

    /// Builds every part.
    pub fn everything() -> Self {
        Self {
            modes: true,
            times: true,
            far_future: true,
            owners: true,
            xattrs: true,
            trusted_xattrs: true,
            symlink_xattrs: true,
            capabilities: true,
            acls: true,
            hard_links: true,
            linked_specials: true,
            sparse: true,
            symlinks: true,
            raw_targets: true,
            long_symlink: true,
            special: true,
            devices: true,
            odd_names: true,
            raw_names: true,
            long_names: true,
            deep_levels: 260,
            past_path_max: true,
            empties: true,
            chunk_edges: true,
            unreadable: true,
            many_files: 1500,
        }
    }
}

/// What was built. A test that needs a part looks whether it was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What this machine or user could not do, each with the reason: `"owners: EPERM …"`.
    pub left_out: Vec<String>,
}

/// Builds the tree in the folder `root`, which is made if it is missing and must be empty.
///
/// The same options give the same tree on every run by the same user.
///
/// # Errors
///
/// `root` is not an empty folder, or a call failed for another reason than missing rights or a
/// missing feature of the file system.
pub fn build(root: &Path, options: &Options) -> Result<Built> {
    std::fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
    let is_empty = std::fs::read_dir(root).context("list the root")?.next().is_none();
    ensure!(is_empty, "{} is not empty", root.display());
    let descriptor =
        rustix::fs::openat(CWD, root, FOLDER, Mode::empty()).context("open the root")?;

    let mut builder = Builder { left_out: Vec::new() };
    let root = Folder { descriptor, name: b"root".to_vec() };
    builder.parts(&root, options)?;
    root.finish(&Node::folder())?;
    Ok(Built { left_out: builder.left_out })
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Builds the parts, and remembers what it could not do.
struct Builder {
    left_out: Vec<String>,
}

impl Builder {
    fn parts(&mut self, root: &Folder, options: &Options) -> Result<()> {
        if options.modes {
            self.modes(root).context("build modes/")?;
        }
        if options.times || options.far_future {
            self.times(root, options).context("build times/")?;
        }
        if options.owners {
            self.owners(root).context("build owners/")?;
        }
        if options.xattrs
            || options.trusted_xattrs
            || options.symlink_xattrs
            || options.capabilities
        {
            self.xattrs(root, options).context("build xattrs/")?;
        }
        if options.acls {
            self.acls(root).context("build acls/")?;
        }
        if options.hard_links || options.linked_specials {
            hard_links(root, options).context("build links/")?;
        }
        if options.sparse {
            sparse(root).context("build sparse/")?;
        }
        if options.symlinks || options.raw_targets || options.long_symlink {
            self.symlinks(root, options).context("build symlinks/")?;
        }
        if options.special || options.devices {
            self.special(root, options).context("build special/")?;
        }
        if options.odd_names || options.raw_names || options.long_names {
            self.names(root, options).context("build names/")?;
        }
        if options.deep_levels > 0 {
            let levels = (0..options.deep_levels).map(|_| b"d".to_vec());
            nested(root, b"deep", levels).context("build deep/")?;
        }
        if options.past_path_max {
            let levels = (0..20u8).map(|level| vec![b'a' + level; 220]);
            nested(root, b"past-path-max", levels).context("build past-path-max/")?;
        }
        if options.empties {
            empties(root).context("build empty/")?;
        }
        if options.chunk_edges {
            chunk_edges(root).context("build sizes/")?;
        }
        if options.unreadable {
            let folder = root.folder(b"unreadable")?;
            folder.file(b"secret", b"for root's eyes only\n", &Node::file().permissions(0))?;
            folder.finish(&Node::folder())?;
        }
        if options.many_files > 0 {
            many(root, options.many_files).context("build many/")?;
        }
        Ok(())
    }

    /// Takes a failure for want of rights or features as a part that is left out.
    fn attempt(&mut self, part: &str, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        match error.downcast_ref::<Errno>() {
            Some(
                &errno @ (Errno::PERM
                | Errno::ACCESS
                | Errno::OPNOTSUPP
                | Errno::INVAL
                | Errno::ILSEQ
                | Errno::NOSPC
                | Errno::OVERFLOW),
            ) => {
                self.left_out.push(format!("{part}: {errno}"));
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn modes(&mut self, root: &Folder) -> Result<()> {
        let folder = root.folder(b"modes")?;
        for permissions in
            [0o400, 0o444, 0o600, 0o640, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644]
        {
            let name = format!("file-{permissions:04o}");
            folder.file(name.as_bytes(), b"mode\n", &Node::file().permissions(permissions))?;
        }
        for permissions in [0o500, 0o555, 0o700, 0o750, 0o1777, 0o2775, 0o3770, 0o4755] {
            let name = format!("folder-{permissions:04o}");
            let inner = folder.folder(name.as_bytes())?;
            inner.file(b"inner", b"in a folder with a mode\n", &Node::file())?;
            inner.finish(&Node::folder().permissions(permissions))?;
        }
        folder.finish(&Node::folder())
    }

    fn times(&mut self, root: &Folder, options: &Options) -> Result<()> {
        const USUAL: &[(&str, i64, u32)] = &[
            ("1901-first-ext4-second", -0x8000_0000, 0),
            ("1960-before-the-epoch", -315_619_200, 123_456_789),
            ("1969-last-nanosecond", -1, 999_999_999),
            ("1970-epoch", 0, 0),
            ("1970-first-nanosecond", 0, 1),
            ("2004-leap-day", 1_078_012_800, 500_000_000),
            ("2038-last-31-bit-second", 0x7fff_ffff, 999_999_999),
            ("2106-after-32-bits", 0x1_0000_0001, 7),
            ("2200-new-year", 7_258_118_400, 1),
        ];
        const FAR: &[(&str, i64, u32)] = &[("2400-new-year", 13_569_465_600, 987_654_321)];
        let folder = root.folder(b"times")?;
        let usual = if options.times { USUAL } else { &[] };
        let far = if options.far_future { FAR } else { &[] };
        for &(name, seconds, nanoseconds) in usual.iter().chain(far) {
            let outcome =
                folder.file(name.as_bytes(), b"time\n", &Node::file().at(seconds, nanoseconds));
            self.attempt("times", outcome)?;
        }
        let inner = folder.folder(b"folder-1950")?;
        inner.symlink(b"symlink-1950", b"nowhere", &Node::symlink().at(-631_152_000, 250))?;
        inner.finish(&Node::folder().at(-631_152_000, 999_999_999))?;
        folder.finish(&Node::folder())
    }

    fn owners(&mut self, root: &Folder) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            self.left_out.push("owners: only root can give files away".to_owned());
            return Ok(());
        }
        let folder = root.folder(b"owners")?;
        for (uid, gid) in
            [(0, 0), (1, 1), (65534, 65534), (12345, 54321), (0xffff_fffe, 0x8000_0000)]
        {
            let name = format!("file-of-{uid}-{gid}");
            let node = Node::file().owner(uid, gid);
            self.attempt("owners", folder.file(name.as_bytes(), b"owned\n", &node))?;
        }
        // A chown clears setuid: a restore has to do it first.
        let setuid = Node::file().owner(12345, 54321).permissions(0o6755);
        self.attempt("owners", folder.file(b"setuid-of-12345", b"owned\n", &setuid))?;
        let target = Node::symlink().owner(1, 2);
        self.attempt("owners", folder.symlink(b"symlink-of-1-2", b"file-of-1-1", &target))?;
        let inner = folder.folder(b"folder-of-12345")?;
        let node = Node::folder().owner(12345, 54321).permissions(0o2750);
        self.attempt("owners", inner.finish(&node))?;
        folder.finish(&Node::folder())
    }

    fn xattrs(&mut self, root: &Folder, options: &Options) -> Result<()> {
        let folder = root.folder(b"xattrs")?;
        if options.xattrs {
            let node = Node::file()
                .xattr("user.comment", b"a plain comment")
                .xattr("user.empty", b"")
                .xattr("user.binary", b"\0\xff\xfe binary \0")
                .xattr("user.quoted \"name\" <&>", b"odd name");
            self.attempt("xattrs", folder.file(b"file", b"with attributes\n", &node))?;
            let node = Node::file().xattr("user.long", &content::random(b"xattr", 1000));
            self.attempt("xattrs", folder.file(b"long-value", b"long\n", &node))?;
            let many = (0..40).fold(Node::file(), |node, number| {
                node.xattr(&format!("user.number-{number:02}"), format!("{number}").as_bytes())
            });
            self.attempt("xattrs", folder.file(b"many", b"forty\n", &many))?;
            let inner = folder.folder(b"folder")?;
            self.attempt("xattrs", inner.finish(&Node::folder().xattr("user.colour", b"blue")))?;
        }
        let trusted = |node: Node| node.xattr("trusted.muster", b"only root sees this\0");
        if options.trusted_xattrs {
            let outcome = folder.file(b"trusted-file", b"trusted\n", &trusted(Node::file()));
            self.attempt("trusted xattrs", outcome)?;
            let inner = folder.folder(b"trusted-folder")?;
            self.attempt("trusted xattrs", inner.finish(&trusted(Node::folder())))?;
        }
        if options.symlink_xattrs {
            let outcome = folder.symlink(b"trusted-symlink", b"file", &trusted(Node::symlink()));
            self.attempt("symlink xattrs", outcome)?;
        }
        if options.capabilities {
            // struct vfs_cap_data, revision 2, effective: CAP_NET_BIND_SERVICE (bit 10) permitted.
            let words: [u32; 5] = [0x0200_0001, 1 << 10, 0, 0, 0];
            let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let node = Node::file().permissions(0o755).xattr("security.capability", &value);
            self.attempt("capabilities", folder.file(b"capable", b"#!/bin/true\n", &node))?;
        }
        folder.finish(&Node::folder())
    }

    fn acls(&mut self, root: &Folder) -> Result<()> {
        let folder = root.folder(b"acls")?;
        let access = acl(&[(OWNER, 6, ANYONE), (USER, 7, 12345), (GROUP_OWNER, 4, ANYONE)], 7, 0);
        let node = Node::file().permissions(0o670).xattr("system.posix_acl_access", &access);
        self.attempt("acls", folder.file(b"file", b"user 12345 may do all\n", &node))?;

        let inner = folder.folder(b"folder")?;
        let access = acl(&[(OWNER, 7, ANYONE), (GROUP_OWNER, 5, ANYONE), (GROUP, 7, 54321)], 7, 5);
        let default = acl(&[(OWNER, 7, ANYONE), (USER, 4, 1), (GROUP_OWNER, 0, ANYONE)], 4, 0);
        // Made before the default ACL: what is in the folder must not inherit it on restore.
        inner.file(b"older-than-the-acl", b"inherits nothing\n", &Node::file())?;
        let node = Node::folder()
            .permissions(0o775)
            .xattr("system.posix_acl_access", &access)
            .xattr("system.posix_acl_default", &default);
        self.attempt("acls", inner.finish(&node))?;
        folder.finish(&Node::folder())
    }

    fn symlinks(&mut self, root: &Folder, options: &Options) -> Result<()> {
        let folder = root.folder(b"symlinks")?;
        folder.file(b"file", b"the target\n", &Node::file())?;
        if options.symlinks {
            let links: &[(&[u8], &[u8])] = &[
                (b"to-file", b"file"),
                (b"to-folder", b".."),
                (b"to-nothing", b"no/such/thing"),
                (b"to-itself", b"to-itself"),
                (b"to-outside", b"/etc/hostname"),
                (b"to-odd", b"line\nbreak \"quote\" \\ <&> \xe2\x80\xa8"),
                (b"to-folder-slash", b"../"),
            ];
            for (name, target) in links {
                self.attempt("symlinks", folder.symlink(name, target, &Node::symlink()))?;
            }
        }
        if options.raw_targets {
            let target = b"not \xff\xfe utf-8 \xc3\x28";
            self.attempt("raw targets", folder.symlink(b"to-raw", target, &Node::symlink()))?;
        }
        if options.long_symlink {
            let target = b"long/".repeat(800);
            let outcome = folder.symlink(b"to-4000-bytes", &target, &Node::symlink());
            self.attempt("long symlink", outcome)?;
        }
        folder.finish(&Node::folder())
    }

    fn special(&mut self, root: &Folder, options: &Options) -> Result<()> {
        use FileType::{BlockDevice, CharacterDevice, Fifo, Socket};
        let folder = root.folder(b"special")?;
        let node = Node::file().permissions(0o640);
        if options.special {
            folder.special(b"fifo", Fifo, (0, 0), &node)?;
            let outcome = folder.special(b"socket", Socket, (0, 0), &node);
            self.attempt("sockets", outcome)?;
        }
        if options.devices {
            // Minor numbers above 255 and 65535 do not fit into the old 16-bit device numbers.
            for (name, kind, device) in [
                ("null", CharacterDevice, (1, 3)),
                ("character-10-300", CharacterDevice, (10, 300)),
                ("block-7-200", BlockDevice, (7, 200)),
                ("block-259-70000", BlockDevice, (259, 70_000)),
            ] {
                let outcome = folder.special(name.as_bytes(), kind, device, &node);
                self.attempt("devices", outcome)?;
            }
        }
        folder.finish(&Node::folder())
    }

    fn names(&mut self, root: &Folder, options: &Options) -> Result<()> {
        let folder = root.folder(b"names")?;
        let odd = names::odd().into_iter().filter(|_| options.odd_names);
        let raw = names::raw().into_iter().filter(|_| options.raw_names);
        let long = names::long(options.raw_names).into_iter().filter(|_| options.long_names);
        for name in odd.chain(raw).chain(long) {
            self.attempt("names", folder.file(&name, &name, &Node::file()))?;
        }
        if options.odd_names {
            // Sorted as paths these three lie in another order than sorted as names.
            for name in [b"a".as_slice(), b"a-", b"a.b"] {
                let inner = folder.folder(name)?;
                inner.file(b"inner \"\n\\", b"in an oddly named folder\n", &Node::file())?;
                inner.finish(&Node::folder())?;
            }
        }
        if options.raw_names {
            let inner = folder.folder(b"folder \xff")?;
            inner.file(b"inner \xe4", b"raw all the way\n", &Node::file())?;
            if options.raw_targets {
                inner.symlink(b"symlink \xe4", b"inner \xe4", &Node::symlink())?;
            }
            inner.finish(&Node::folder())?;
        }
        folder.finish(&Node::folder())
    }
}

fn hard_links(root: &Folder, options: &Options) -> Result<()> {
    let folder = root.folder(b"links")?;
    let (left, right) = (folder.folder(b"left")?, folder.folder(b"right")?);
    if options.hard_links {
        left.file(b"two", b"two names in one folder\n", &Node::file())?;
        left.link(b"two", &left, b"two-again")?;
        left.file(b"three", b"three names in three folders\n", &Node::file())?;
        left.link(b"three", &right, b"three")?;
        left.link(b"three", &folder, b"three")?;
        left.file(b"big", &content::random(b"hard link", 700 << 10), &Node::file())?;
        left.link(b"big", &right, b"aaa-first-by-name")?;
        left.file(b"empty", b"", &Node::file())?;
        left.link(b"empty", &right, b"empty")?;
        left.file(b"same-content-other-inode", b"two names in one folder\n", &Node::file())?;
    }
    if options.linked_specials {
        left.symlink(b"symlink", b"two", &Node::symlink())?;
        left.link(b"symlink", &right, b"symlink")?;
        left.special(b"fifo", FileType::Fifo, (0, 0), &Node::file())?;
        left.link(b"fifo", &right, b"fifo")?;
    }
    left.finish(&Node::folder())?;
    right.finish(&Node::folder())?;
    folder.finish(&Node::folder())
}

fn sparse(root: &Folder) -> Result<()> {
    const MIB: u64 = 1 << 20;
    let folder = root.folder(b"sparse")?;
    let data = content::random(b"sparse", 100_000);
    let spots: &[(&str, u64, &[u64])] = &[
        ("leading-hole", 3 * MIB + data.len() as u64, &[3 * MIB]),
        ("middle-hole", 5 * MIB + data.len() as u64, &[0, 5 * MIB]),
        ("trailing-hole", 4 * MIB, &[0]),
        ("trailing-hole-odd-size", 4 * MIB + 12_345, &[0]),
        ("many-holes", 9 * MIB + 1, &[MIB, 3 * MIB + 4096, 6 * MIB + 4095]),
        ("all-hole", 64 * MIB, &[]),
    ];
    for &(name, size, offsets) in spots {
        let file = folder.create(name.as_bytes())?;
        file.set_len(size).context("set the length")?;
        for &offset in offsets {
            file.write_all_at(&data, offset).context("write between the holes")?;
        }
        folder.finish_child(&c_name(name.as_bytes())?, &Node::file())?;
    }
    // Zeros that were written are no hole, though they read the same.
    folder.file(b"written-zeros", &vec![0; 2 << 20], &Node::file())?;
    folder.finish(&Node::folder())
}

/// Folders, each in the one before, with a file in the innermost; one descriptor at a time.
fn nested(root: &Folder, name: &[u8], levels: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let mut folder = root.folder(name)?;
    let mut names = vec![name.to_vec()];
    for level in levels {
        folder = folder.folder(&level)?;
        names.push(level);
    }
    folder.file(b"bottom", b"at the very bottom\n", &Node::file())?;
    while let Some(name) = names.pop() {
        let parent = rustix::fs::openat(&folder.descriptor, c"..", FOLDER, Mode::empty())
            .context("go up to the parent folder")?;
        folder.finish_as(&name, &Node::folder())?;
        folder = Folder { descriptor: parent, name: Vec::new() };
    }
    Ok(())
}

fn empties(root: &Folder) -> Result<()> {
    let folder = root.folder(b"empty")?;
    folder.file(b"file", b"", &Node::file())?;
    folder.folder(b"folder")?.finish(&Node::folder())?;
    let outer = folder.folder(b"folder-with-empty-folder")?;
    outer.folder(b"inner")?.finish(&Node::folder())?;
    outer.finish(&Node::folder())?;
    folder.finish(&Node::folder())
}

fn chunk_edges(root: &Folder) -> Result<()> {
    const MIN: usize = 512 << 10;
    const MAX: usize = 8 << 20;
    let folder = root.folder(b"sizes")?;
    for size in [0, 1, MIN - 1, MIN, MIN + 1, MAX, MAX + 1, (20 << 20) + 77] {
        let name = format!("random-{size}");
        folder.file(name.as_bytes(), &content::random(name.as_bytes(), size), &Node::file())?;
    }
    folder.file(b"text", &content::text(3_000_000), &Node::file())?;
    folder.finish(&Node::folder())
}

fn many(root: &Folder, count: usize) -> Result<()> {
    let folder = root.folder(b"many")?;
    for number in 0..count {
        let name = format!("file-{number:06}");
        folder.file(name.as_bytes(), format!("number {number}\n").as_bytes(), &Node::file())?;
    }
    folder.finish(&Node::folder())
}

/// Tags of ACL entries (acl(5); `include/uapi/linux/posix_acl.h`).
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OWNER: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// The id of entries that need none.
const ANYONE: u32 = u32::MAX;

/// Encodes an ACL as the kernel's xattr: version 2, then tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)], mask: u16, other: u16) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    let ends = [(MASK, mask, ANYONE), (OTHER, other, ANYONE)];
    for (tag, permissions, id) in entries.iter().chain(&ends) {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

/// The metadata that an entry shall have in the end.
#[derive(Clone)]
struct Node {
    owner: Option<(u32, u32)>,
    /// `None` for symlinks, which have none of their own.
    permissions: Option<u32>,
    xattrs: Vec<(CString, Vec<u8>)>,
    /// `None` for a time made from the name.
    modified: Option<(i64, u32)>,
}

impl Node {
    fn file() -> Self {
        Self { owner: None, permissions: Some(0o644), xattrs: Vec::new(), modified: None }
    }

    fn folder() -> Self {
        Self::file().permissions(0o755)
    }

    fn symlink() -> Self {
        Self { permissions: None, ..Self::file() }
    }

    fn permissions(self, permissions: u32) -> Self {
        Self { permissions: Some(permissions), ..self }
    }

    fn owner(self, uid: u32, gid: u32) -> Self {
        Self { owner: Some((uid, gid)), ..self }
    }

    fn at(self, seconds: i64, nanoseconds: u32) -> Self {
        Self { modified: Some((seconds, nanoseconds)), ..self }
    }

    fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        let name = CString::new(name).expect("attribute names here hold no zero byte");
        self.xattrs.push((name, value.to_vec()));
        self
    }
}

/// An open folder that is being filled.
struct Folder {
    descriptor: OwnedFd,
    /// Its own name, from which its time is made.
    name: Vec<u8>,
}

impl Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn folder(&self, name: &[u8]) -> Result<Self> {
        rustix::fs::mkdirat(&self.descriptor, name, Mode::RWXU).context("make a folder")?;
        let descriptor = rustix::fs::openat(&self.descriptor, name, FOLDER, Mode::empty())
            .context("open a folder")?;
        Ok(Self { descriptor, name: name.to_vec() })
    }

    fn create(&self, name: &[u8]) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.descriptor, name, flags, Mode::RUSR | Mode::WUSR)
            .context("create a file")?;
        Ok(file.into())
    }

    fn file(&self, name: &[u8], content: &[u8], node: &Node) -> Result<()> {
        self.create(name)?.write_all_at(content, 0).context("write a file")?;
        self.finish_child(&c_name(name)?, node)
    }

    fn symlink(&self, name: &[u8], target: &[u8], node: &Node) -> Result<()> {
        rustix::fs::symlinkat(target, &self.descriptor, name).context("make a symlink")?;
        self.finish_child(&c_name(name)?, node)
    }

    fn special(&self, name: &[u8], kind: FileType, device: (u32, u32), node: &Node) -> Result<()> {
        let device = rustix::fs::makedev(device.0, device.1);
        rustix::fs::mknodat(&self.descriptor, name, kind, Mode::RUSR | Mode::WUSR, device)
            .context("make a special file")?;
        self.finish_child(&c_name(name)?, node)
    }

    fn link(&self, name: &[u8], folder: &Self, new_name: &[u8]) -> Result<()> {
        let (from, to) = (&self.descriptor, &folder.descriptor);
        rustix::fs::linkat(from, name, to, new_name, AtFlags::empty()).context("make a hard link")
    }

    /// Sets the folder's own metadata; call it after the last child was made.
    fn finish(&self, node: &Node) -> Result<()> {
        self.finish_as(&self.name, node)
    }

    fn finish_as(&self, name: &[u8], node: &Node) -> Result<()> {
        set_metadata(self.as_fd(), c".", name, node)
    }

    fn finish_child(&self, name: &CStr, node: &Node) -> Result<()> {
        set_metadata(self.as_fd(), name, name.to_bytes(), node)
    }
}

/// Sets metadata in the only order that keeps it: a chown clears setuid and capabilities, an ACL
/// needs the final mode, a read-only file takes no attributes, and all of them come before the
/// time.
///
/// The time is set also when something before it failed.
fn set_metadata(folder: BorrowedFd<'_>, name: &CStr, time_from: &[u8], node: &Node) -> Result<()> {
    let outcome = set_all_but_time(folder, name, node);
    let (tv_sec, nanoseconds) = node.modified.unwrap_or_else(|| time_of(time_from));
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .context("set the time")?;
    outcome
}

fn set_all_but_time(folder: BorrowedFd<'_>, name: &CStr, node: &Node) -> Result<()> {
    let path = path_by_descriptor(folder, name);
    if let Some((uid, gid)) = node.owner {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .context("set the owner")?;
    }
    let set_xattrs = |of_mode: bool| -> Result<()> {
        for (attribute, value) in &node.xattrs {
            if attribute.to_bytes().starts_with(b"system.") == of_mode {
                rustix::fs::lsetxattr(&path, attribute, value, XattrFlags::empty())
                    .context("set an extended attribute")?;
            }
        }
        Ok(())
    };
    set_xattrs(false)?;
    if let Some(permissions) = node.permissions {
        let mode = Mode::from_raw_mode(permissions);
        rustix::fs::chmodat(folder, name, mode, AtFlags::empty()).context("set the mode")?;
    }
    set_xattrs(true)
}

/// Makes a time between 2001 and 2020 from a name.
fn time_of(name: &[u8]) -> (i64, u32) {
    const START: i64 = 978_307_200;
    const SPAN_SECONDS: u64 = 19 * 365 * 86_400;
    let mut numbers = content::Numbers::seeded_by(name);
    let seconds = i64::try_from(numbers.next() % SPAN_SECONDS).expect("19 years fit");
    let nanoseconds = u32::try_from(numbers.next() % 1_000_000_000).expect("below 2^30");
    (START + seconds, nanoseconds)
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).context("a name with a zero byte")
}

#[cfg(test)]
mod tests;
