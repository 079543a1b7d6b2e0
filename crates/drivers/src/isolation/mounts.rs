//! Mounts: where in which file system a path really is.
//!
//! The same folder can be mounted in several places, for everybody or for one process only. Its
//! device and its path within the file system are the same everywhere.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

/// A place in a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Major and minor number, as `mountinfo` writes them.
    device: String,
    /// From the file system's own root.
    path: PathBuf,
}

impl Place {
    /// At or below the other one.
    pub(super) fn is_in(&self, other: &Self) -> bool {
        self.device == other.device && self.path.starts_with(&other.path)
    }
}

/// The mounts that a process sees.
#[derive(Debug, Default)]
pub(super) struct Mounts(Vec<Mount>);

#[derive(Debug)]
struct Mount {
    device: String,
    root: PathBuf,
    point: PathBuf,
}

impl Mounts {
    pub(super) fn of_self() -> Self {
        Self::read("/proc/self/mountinfo")
    }

    pub(super) fn of(pid: u32) -> Self {
        Self::read(&format!("/proc/{pid}/mountinfo"))
    }

    /// None when they cannot be read: then only names are compared.
    fn read(file: &str) -> Self {
        let text = fs::read(file).unwrap_or_default();
        Self(text.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
    }

    /// Where an absolute path without symlinks is. Of mounts over one another the last counts.
    pub(super) fn place(&self, path: &Path) -> Option<Place> {
        let depth = |mount: &&Mount| mount.point.components().count();
        let mount =
            self.0.iter().filter(|mount| path.starts_with(&mount.point)).max_by_key(depth)?;
        let rest = path.strip_prefix(&mount.point).ok()?;
        Some(Place { device: mount.device.clone(), path: mount.root.join(rest) })
    }
}

impl Mount {
    /// # Source
    /// proc_pid_mountinfo(5): `ID PARENT MAJOR:MINOR ROOT POINT …`.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
        let root = unescaped(fields.next()?);
        Some(Self { device, root, point: unescaped(fields.next()?) })
    }
}

/// Undoes the kernel's `\040` for blanks and the like.
pub(super) fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

/// The path that the kernel shows for a file, without its note that the file was deleted.
pub(super) fn without_note(shown: &Path) -> &Path {
    let bytes = shown.as_os_str().as_bytes();
    bytes
        .strip_suffix(b" (deleted)")
        .map_or(shown, |bytes| Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_found_through_every_mount() {
        let lines = "1 0 8:1 / / rw - ext4 x rw\n\
                     2 1 8:2 / /srv rw - ext4 y rw\n\
                     3 1 8:2 /orders/up\\040loads /mnt rw - ext4 y rw\n\
                     4 1 0:9 / /srv/orders/tmp rw - tmpfs z rw";
        let mounts =
            Mounts(lines.as_bytes().split(|b| *b == b'\n').filter_map(Mount::parse).collect());
        let place = |path: &str| mounts.place(Path::new(path)).unwrap();
        let production = place("/srv/orders");
        assert!(place("/srv/orders/db").is_in(&production));
        assert!(place("/mnt/a").is_in(&production));
        assert_eq!(place("/mnt/a"), place("/srv/orders/up loads/a"));
        assert!(!place("/srv/orders-2").is_in(&production));
        assert!(!place("/srv/orders/tmp/x").is_in(&production));
        assert!(!place("/orders/db").is_in(&production));
    }

    #[test]
    fn notes_and_escapes_are_undone() {
        assert_eq!(unescaped(b"a\\012b\\\\040"), Path::new("a\nb\\ "));
        assert_eq!(without_note(Path::new("/a (deleted)")), Path::new("/a"));
    }
}
