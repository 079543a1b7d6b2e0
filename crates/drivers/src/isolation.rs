//! Isolation: proof that a rehearsal does not touch production.
//!
//! What a process holds is read from `/proc`: open files, working and root directory, mapped
//! files, and the far ends of its sockets. A holder of anything of production's among a
//! drill's processes is a [`Breach`]. This *observes*; it does not prevent. What is opened and
//! closed between two samples is not seen, and neither is what was sent to production through
//! somebody else. So a report says how often was looked, how long the longest gap was, and whose
//! descriptors could not be read; it never says more than that nothing was seen.
//!
//! A path of production's is recognised by its name, by device and inode, and by its place in
//! the file system whatever the mount point: a bind mount of a folder below it does not hide it.

mod connections;
mod directories;
mod held;
mod monitor;
mod mounts;
mod ports;
mod unix_peers;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::lookup_host, time::timeout};

use self::{
    connections::Connection,
    mounts::{Mounts, Place},
};
pub use self::{
    directories::shares_directory,
    monitor::{Monitor, Monitored},
    ports::free_port,
};
use crate::process::kin::Kin;

/// How long each name of production's may take to resolve.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// What SQLite puts beside a database.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What a rehearsal must not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Production {
    /// Files and folders; what is below a folder counts.
    pub paths: Vec<PathBuf>,
    /// Hosts and ports. A host that begins with `/` is a folder with PostgreSQL's socket.
    pub endpoints: Vec<(String, u16)>,
}

impl Production {
    /// The files and folders that exist, without symlinks and with what belongs to them: what is to
    /// be hidden from a rehearsal.
    #[must_use]
    pub fn on_disk(&self) -> Vec<PathBuf> {
        let sockets = self.endpoints.iter().filter_map(|(host, port)| socket(host, *port));
        let beside = |path: &PathBuf| SIDECARS.map(|end| with_ending(path, end));
        let named = self.paths.iter().cloned().chain(sockets);
        let all = named.flat_map(|path| beside(&path).into_iter().chain([path]));
        let mut found: Vec<PathBuf> = all.filter_map(|path| fs::canonicalize(path).ok()).collect();
        found.sort();
        found.dedup();
        found
    }
}

/// Looks at processes for what they hold of production's.
#[derive(Debug)]
pub struct Observer {
    roots: Vec<Root>,
    addresses: Vec<Address>,
    unresolved: Vec<String>,
}

/// A path of production's.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    place: Option<Place>,
    /// Device and inode, when it exists.
    file: Option<(u64, u64)>,
    is_file: bool,
}

/// An address of production's.
#[derive(Debug)]
struct Address {
    at: SocketAddr,
    /// It is one of this machine's: then any other of them may reach the same listener.
    is_here: bool,
}

/// What one look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// How many processes were looked at.
    pub processes: usize,
    /// How many of them did not let all they hold be looked at: they belong to another user.
    pub unseen: usize,
    /// What they hold of production's.
    pub breaches: Vec<Breach>,
}

/// A process of a rehearsal holds something of production's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breach {
    /// The process.
    pub pid: u32,
    /// Its name for itself, with control characters escaped.
    pub argv0: String,
    /// What it holds.
    pub what: Touch,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {}) {}", self.argv0, self.pid, self.what)
    }
}

/// What a process holds of production's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touch {
    /// A file or folder is open.
    Open(PathBuf),
    /// A file is mapped into memory, be it as its program.
    Mapped(PathBuf),
    /// It works in this folder.
    WorkingDirectory(PathBuf),
    /// Its root is this folder.
    RootDirectory(PathBuf),
    /// It is connected to this address, or trying.
    Connected(SocketAddr),
    /// It is connected to this socket in the file system, or listens there.
    Socket(PathBuf),
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path) => write!(f, "has {} open", path.display()),
            Self::Mapped(path) => write!(f, "has {} mapped", path.display()),
            Self::WorkingDirectory(path) => write!(f, "works in {}", path.display()),
            Self::RootDirectory(path) => write!(f, "has its root at {}", path.display()),
            Self::Connected(address) => write!(f, "is connected to {address}"),
            Self::Socket(path) => write!(f, "uses the socket {}", path.display()),
        }
    }
}

impl Observer {
    /// Resolves what production is, as of now. Names that do not resolve in five seconds are
    /// told by [`Observer::unresolved`]; paths that do not exist are compared by name.
    pub async fn new(production: &Production) -> Self {
        let mounts = Mounts::of_self();
        let mut paths: Vec<PathBuf> = production.paths.clone();
        let (mut addresses, mut unresolved) = (Vec::new(), Vec::new());
        for (host, port) in &production.endpoints {
            if let Some(socket) = socket(host, *port) {
                paths.push(socket);
                continue;
            }
            match timeout(RESOLVE_WITHIN, lookup_host((host.as_str(), *port))).await {
                Ok(Ok(found)) => addresses.extend(found.map(Address::of)),
                _ => unresolved.push(format!("{host}:{port}")),
            }
        }
        let roots = paths.iter().flat_map(|path| roots_of(path, &mounts)).collect();
        Self { roots, addresses, unresolved }
    }

    /// The endpoints whose addresses are not known: nothing is proven about them.
    #[must_use]
    pub fn unresolved(&self) -> &[String] {
        &self.unresolved
    }

    /// Looks once at all processes of these groups or sessions, and at their descendants.
    ///
    /// # Errors
    /// Fails when `/proc` cannot be listed.
    pub fn observe(&self, groups: &[u32]) -> io::Result<Sighting> {
        self.look_at(&mut Kin::of_groups(groups))
    }

    fn look_at(&self, kin: &mut Kin) -> io::Result<Sighting> {
        let processes = kin.find()?;
        let mut look = held::Look::new(self);
        let mut breaches = BTreeSet::new();
        let mut unseen = 0;
        for process in &processes {
            let (found, is_complete) = look.at(process.pid);
            breaches.extend(found);
            unseen += usize::from(!is_complete);
        }
        let breaches = breaches.into_iter().collect();
        Ok(Sighting { processes: processes.len(), unseen, breaches })
    }

    /// Whether a path, as a process with these mounts names it, is production's.
    fn owns(&self, path: &Path, mounts: &Mounts) -> bool {
        let place = mounts.place(path);
        self.roots.iter().any(|root| {
            root.holds(path)
                || root.place.as_ref().zip(place.as_ref()).is_some_and(|(root, at)| at.is_in(root))
        })
    }

    /// Whether an open file is one of production's, whatever its name: a hard link.
    fn owns_file(&self, file: (u64, u64)) -> bool {
        self.roots.iter().any(|root| root.file == Some(file))
    }

    fn owns_far_end(&self, connection: &Connection) -> bool {
        self.addresses.iter().any(|address| address.is_far_end_of(connection))
    }
}

impl Root {
    /// At or below it by name; beside it, for the files that belong to a database.
    fn holds(&self, path: &Path) -> bool {
        if path.starts_with(&self.path) {
            return true;
        }
        self.is_file && SIDECARS.iter().any(|end| path == with_ending(&self.path, end))
    }
}

/// The socket of a PostgreSQL server whose "host" is a folder.
fn socket(host: &str, port: u16) -> Option<PathBuf> {
    host.starts_with('/').then(|| Path::new(host).join(format!(".s.PGSQL.{port}")))
}

fn with_ending(path: &Path, end: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(end);
    name.into()
}

/// A path as it was given, and as it is without symlinks.
fn roots_of(path: &Path, mounts: &Mounts) -> Vec<Root> {
    let given = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let status = fs::metadata(&given).ok();
    let file = status.as_ref().map(|status| (status.dev(), status.ino()));
    let is_file = status.as_ref().is_none_or(|status| !status.is_dir());
    let real = fs::canonicalize(&given).unwrap_or_else(|_| given.clone());
    let place = status.and_then(|_| mounts.place(&real));
    let mut roots = vec![Root { path: real, place, file, is_file }];
    if roots[0].path != given {
        roots.push(Root { path: given, place: None, file: None, is_file });
    }
    roots
}

impl Address {
    fn of(at: SocketAddr) -> Self {
        let at = SocketAddr::new(at.ip().to_canonical(), at.port());
        // Only an address of this machine can be bound.
        Self { at, is_here: UdpSocket::bind((at.ip(), 0)).is_ok() }
    }

    fn is_far_end_of(&self, connection: &Connection) -> bool {
        let (far, near) = (connection.far, connection.near);
        let is_to_itself = far.ip().is_loopback() || far.ip() == near.ip();
        far.port() == self.at.port() && (far.ip() == self.at.ip() || self.is_here && is_to_itself)
    }
}
