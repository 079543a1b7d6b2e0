//! What one process holds, as `/proc/PID` shows it.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    rc::Rc,
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
    mounts: HashMap<PathBuf, Rc<Mounts>>,
    connections: HashMap<PathBuf, HashMap<u64, Connection>>,
    unix: Option<UnixPeers>,
}

impl<'a> Look<'a> {
    pub(super) fn new(observer: &'a Observer) -> Self {
        Self { observer, mounts: HashMap::new(), connections: HashMap::new(), unix: None }
    }

    /// What a process holds of production's, and whether all of it could be looked at. One that
    /// vanishes meanwhile holds nothing any more.
    pub(super) fn at(&mut self, pid: u32) -> (Vec<Breach>, bool) {
        let mut touches = BTreeSet::new();
        let mounts = self.mounts.entry(namespace(pid, "mnt"));
        let mounts = Rc::clone(mounts.or_insert_with(|| Rc::new(Mounts::of(pid))));
        let owns = |path: &Path| self.observer.owns(path, &mounts);
        directories(pid, owns, &mut touches);
        mapped(pid, owns, &mut touches);
        let is_complete = match self.descriptors(pid, &mounts, &mut touches) {
            Ok(()) => true,
            Err(error) => error.kind() != io::ErrorKind::PermissionDenied,
        };
        let argv0 = if touches.is_empty() { String::new() } else { name_of(pid) };
        let breach = |what| Breach { pid, argv0: argv0.clone(), what };
        (touches.into_iter().map(breach).collect(), is_complete)
    }

    /// # Errors
    /// Fails when the process vanished, or does not let itself be looked at.
    fn descriptors(
        &mut self,
        pid: u32,
        mounts: &Mounts,
        touches: &mut BTreeSet<Touch>,
    ) -> io::Result<()> {
        let mut sockets = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let link = entry?.path();
            let Ok(target) = fs::read_link(&link) else { continue };
            if let Some(inode) = socket_inode(&target) {
                sockets.push(inode);
            } else if target.is_absolute() {
                let path = without_note(&target);
                if self.observer.owns(path, mounts) || self.is_owned_file(&link) {
                    touches.insert(Touch::Open(path.to_owned()));
                }
            }
        }
        let others = self.connected(pid, &sockets, touches);
        if others.is_empty() { Ok(()) } else { self.unix_sockets(&others, mounts, touches) }
    }

    /// The link leads to the open file itself, even when its name is gone.
    fn is_owned_file(&self, link: &Path) -> bool {
        fs::metadata(link).is_ok_and(|status| self.observer.owns_file((status.dev(), status.ino())))
    }

    /// Looks at the sockets that have addresses; gives those that have none.
    fn connected(&mut self, pid: u32, inodes: &[u64], touches: &mut BTreeSet<Touch>) -> Vec<u64> {
        if inodes.is_empty() {
            return Vec::new();
        }
        let network = namespace(pid, "net");
        let known = self.connections.entry(network).or_insert_with(|| connections_around(pid));
        for connection in inodes.iter().filter_map(|inode| known.get(inode)) {
            if self.observer.owns_far_end(connection) {
                touches.insert(Touch::Connected(connection.far));
            }
        }
        inodes.iter().copied().filter(|inode| !known.contains_key(inode)).collect()
    }

    fn unix_sockets(
        &mut self,
        inodes: &[u64],
        mounts: &Mounts,
        touches: &mut BTreeSet<Touch>,
    ) -> io::Result<()> {
        if self.unix.is_none() {
            // Without the kernel's word nobody knows where they lead.
            let asked = UnixPeers::ask().map_err(|_| io::ErrorKind::PermissionDenied)?;
            self.unix = Some(asked);
        }
        let paths =
            self.unix.iter().flat_map(|unix| inodes.iter().flat_map(|inode| unix.paths(*inode)));
        let owned = paths.filter(|path| self.observer.owns(path, mounts));
        touches.extend(owned.cloned().map(Touch::Socket));
        Ok(())
    }
}

fn directories(pid: u32, owns: impl Fn(&Path) -> bool, touches: &mut BTreeSet<Touch>) {
    let mut look = |name: &str, touch: fn(PathBuf) -> Touch| {
        let Ok(at) = fs::read_link(format!("/proc/{pid}/{name}")) else { return };
        let at = without_note(&at);
        if owns(at) {
            touches.insert(touch(at.to_owned()));
        }
    };
    look("cwd", Touch::WorkingDirectory);
    look("root", Touch::RootDirectory);
}

fn mapped(pid: u32, owns: impl Fn(&Path) -> bool, touches: &mut BTreeSet<Touch>) {
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let paths: BTreeSet<&[u8]> = maps.split(|byte| *byte == b'\n').filter_map(path).collect();
    for path in paths {
        let path = unescaped(path);
        let path = without_note(&path);
        if owns(path) {
            touches.insert(Touch::Mapped(path.to_owned()));
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
