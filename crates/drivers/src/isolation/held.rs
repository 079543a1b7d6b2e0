//! What one process holds, as `/proc/PID` shows it.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    Breach, Observer, Touch,
    connections::{Connection, connections_around},
    mounts::{Mounts, unescaped, without_note},
    unix_peers::UnixPeers,
};
use crate::text::quote;

/// One look at many processes: what they share is read once.
pub(super) struct Look<'a> {
    observer: &'a Observer,
    /// By mount namespace, and by network namespace.
    mounts: HashMap<PathBuf, Mounts>,
    connections: HashMap<PathBuf, HashMap<u64, Connection>>,
    unix: Option<UnixPeers>,
}

impl<'a> Look<'a> {
    pub(super) fn new(observer: &'a Observer) -> Self {
        Self { observer, mounts: HashMap::new(), connections: HashMap::new(), unix: None }
    }

    /// What a process holds of production's; nothing when it does not let itself be looked at.
    /// One that vanishes meanwhile holds nothing any more.
    pub(super) fn at(&mut self, pid: u32) -> Option<Vec<Breach>> {
        let mut touches = BTreeSet::new();
        self.load_namespaces(pid);
        match self.descriptors(pid, &mut touches) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            // It vanished: what was seen before counts.
            Err(_) | Ok(()) => {}
        }
        self.directories(pid, &mut touches);
        self.mapped(pid, &mut touches);
        if touches.is_empty() {
            return Some(Vec::new());
        }
        let argv0 = name_of(pid);
        let breach = |what| Breach { pid, argv0: argv0.clone(), what };
        Some(touches.into_iter().map(breach).collect())
    }

    fn load_namespaces(&mut self, pid: u32) {
        let mounts = namespace(pid, "mnt");
        self.mounts.entry(mounts).or_insert_with(|| Mounts::of(pid));
    }

    fn owns(&self, pid: u32, path: &Path) -> bool {
        let mounts = self.mounts.get(&namespace(pid, "mnt"));
        mounts.is_some_and(|mounts| self.observer.owns(path, mounts))
    }

    fn descriptors(&mut self, pid: u32, touches: &mut BTreeSet<Touch>) -> io::Result<()> {
        let mut sockets = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let link = entry?.path();
            let Ok(target) = fs::read_link(&link) else { continue };
            if let Some(inode) = socket_inode(&target) {
                sockets.push(inode);
            } else if target.is_absolute() {
                let path = without_note(&target);
                if self.owns(pid, path) || self.is_owned_file(&link) {
                    touches.insert(Touch::Open(path.to_owned()));
                }
            }
        }
        if !sockets.is_empty() {
            self.sockets(pid, &sockets, touches);
        }
        Ok(())
    }

    /// The link leads to the open file itself, even when its name is gone.
    fn is_owned_file(&self, link: &Path) -> bool {
        fs::metadata(link).is_ok_and(|status| self.observer.owns_file((status.dev(), status.ino())))
    }

    fn sockets(&mut self, pid: u32, inodes: &[u64], touches: &mut BTreeSet<Touch>) {
        let network = namespace(pid, "net");
        let known = self.connections.entry(network).or_insert_with(|| connections_around(pid));
        let mut others = Vec::new();
        for inode in inodes {
            match known.get(inode) {
                Some(connection) if self.observer.owns_far_end(connection) => {
                    touches.insert(Touch::Connected(connection.far));
                }
                Some(_) => {}
                None => others.push(*inode),
            }
        }
        if !others.is_empty() {
            self.unix_sockets(pid, &others, touches);
        }
    }

    fn unix_sockets(&mut self, pid: u32, inodes: &[u64], touches: &mut BTreeSet<Touch>) {
        if self.unix.is_none() {
            self.unix = UnixPeers::ask().ok();
        }
        let Some(unix) = &self.unix else { return };
        for path in inodes.iter().flat_map(|inode| unix.paths(*inode)) {
            if self.owns(pid, path) {
                touches.insert(Touch::Socket(path.clone()));
            }
        }
    }

    fn directories(&self, pid: u32, touches: &mut BTreeSet<Touch>) {
        let mut look = |name: &str, touch: fn(PathBuf) -> Touch| {
            let Ok(at) = fs::read_link(format!("/proc/{pid}/{name}")) else { return };
            let at = without_note(&at);
            if self.owns(pid, at) {
                touches.insert(touch(at.to_owned()));
            }
        };
        look("cwd", Touch::WorkingDirectory);
        look("root", Touch::RootDirectory);
    }

    fn mapped(&self, pid: u32, touches: &mut BTreeSet<Touch>) {
        let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
        let paths: BTreeSet<&[u8]> = maps.split(|byte| *byte == b'\n').filter_map(path).collect();
        for path in paths {
            let path = unescaped(path);
            let path = without_note(&path);
            if self.owns(pid, path) {
                touches.insert(Touch::Mapped(path.to_owned()));
            }
        }
    }
}

/// What stands behind the five columns of a line of `maps`, if it is a path.
fn path(line: &[u8]) -> Option<&[u8]> {
    let at = line.iter().position(|byte| *byte == b'/')?;
    // Before the path there are only numbers and rights.
    Some(&line[at..])
}

/// `socket:[4242]`.
fn socket_inode(target: &Path) -> Option<u64> {
    let text = target.as_os_str().to_str()?;
    text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A name of the namespace; empty when it may not be known.
fn namespace(pid: u32, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default()
}

fn name_of(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = Path::new(std::ffi::OsStr::from_bytes(first));
    quote(&name.to_string_lossy())
}
