//! The walk through a folder for databases and folders with data: bounded, and it follows no
//! links, so that it ends soon wherever somebody begins.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

/// How far down it goes: the folder itself is 0.
const DEPTH_MAX: usize = 4;
/// How many entries it looks at.
const ENTRIES_MAX: usize = 10_000;
/// More would be no plan of a person.
const DATABASES_MAX: usize = 20;
/// How every SQLite database begins.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Folders with what can be made again.
const SKIPPED: [&str; 5] = ["node_modules", "target", "vendor", "venv", "__pycache__"];
/// Folders that hold what users bring.
const DATA_FOLDERS: [&str; 8] =
    ["attachments", "data", "documents", "files", "media", "storage", "upload", "uploads"];
/// Folders with data stand near the top; further down such a name is a part of a program.
const DATA_DEPTH_MAX: usize = 2;

/// What a walk found, as paths below its beginning.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// SQLite databases.
    pub(super) databases: Vec<String>,
    /// Folders with data, without those that hold nothing but a database.
    pub(super) folders: Vec<String>,
}

/// Walks through a folder, by levels, in the order of names.
pub(super) fn find(root: &Path) -> Found {
    let mut walk = Walk::default();
    let mut folders = VecDeque::from([Folder { path: PathBuf::new(), depth: 0, data: None }]);
    while let Some(folder) = folders.pop_front() {
        walk.look_into(root, &folder, &mut folders);
    }
    let Walk { mut databases, candidates, .. } = walk;
    databases.truncate(DATABASES_MAX);
    let folders = candidates.into_iter().filter(|candidate| candidate.is_data());
    Found { databases, folders: folders.map(|candidate| candidate.path).collect() }
}

/// A folder to look into.
struct Folder {
    path: PathBuf,
    depth: usize,
    /// The candidate that it lies in.
    data: Option<usize>,
}

/// A folder whose name says that it holds data.
struct Candidate {
    path: String,
    databases: usize,
    others: usize,
}

impl Candidate {
    /// A folder that is only a home of databases is protected with these.
    fn is_data(&self) -> bool {
        self.databases == 0 || self.others > 0
    }
}

#[derive(Default)]
struct Walk {
    seen: usize,
    databases: Vec<String>,
    candidates: Vec<Candidate>,
}

impl Walk {
    fn look_into(&mut self, root: &Path, folder: &Folder, next: &mut VecDeque<Folder>) {
        let full = root.join(&folder.path);
        if is_repository(&full) {
            return;
        }
        let Ok(entries) = fs::read_dir(full) else { return };
        let left = ENTRIES_MAX.saturating_sub(self.seen);
        let mut entries: Vec<fs::DirEntry> = entries.flatten().take(left).collect();
        self.seen += entries.len();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else {
                continue;
            };
            let path = folder.path.join(&name);
            if kind.is_file() {
                self.file(root, &path, folder.data);
            } else if kind.is_dir() && folder.depth < DEPTH_MAX && !is_skipped(&name) {
                let data = folder.data.or_else(|| self.candidate(&path, &name, folder.depth));
                next.push_back(Folder { path, depth: folder.depth + 1, data });
            }
        }
    }

    fn candidate(&mut self, path: &Path, name: &str, depth: usize) -> Option<usize> {
        let is_candidate =
            depth < DATA_DEPTH_MAX && DATA_FOLDERS.contains(&name.to_ascii_lowercase().as_str());
        let path = is_candidate.then(|| path.to_str()).flatten()?.to_owned();
        self.candidates.push(Candidate { path, databases: 0, others: 0 });
        Some(self.candidates.len() - 1)
    }

    fn file(&mut self, root: &Path, path: &Path, data: Option<usize>) {
        let is_database = is_sqlite(&root.join(path));
        let candidate = data.and_then(|index| self.candidates.get_mut(index));
        if let Some(candidate) = candidate {
            candidate.databases += usize::from(is_database);
            candidate.others += usize::from(!is_database && !is_companion(path));
        }
        if is_database {
            self.databases.extend(path.to_str().map(str::to_owned));
        }
    }
}

fn is_skipped(name: &str) -> bool {
    name.starts_with('.') || SKIPPED.contains(&name)
}

/// A backup repository: its folder `data` is no data of anybody.
fn is_repository(folder: &Path) -> bool {
    folder.join("config").is_file()
        && folder.join("keys").is_dir()
        && folder.join("snapshots").is_dir()
}

fn is_sqlite(path: &Path) -> bool {
    let mut magic = [0; SQLITE_MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *SQLITE_MAGIC
}

/// What SQLite keeps beside a database.
fn is_companion(path: &Path) -> bool {
    let name = path.to_string_lossy();
    ["-wal", "-shm", "-journal"].iter().any(|ending| name.ends_with(ending))
}
