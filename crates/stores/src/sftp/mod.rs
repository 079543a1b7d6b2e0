//! A repository in a folder behind SSH, laid out as a local one.
//!
//! A file is written under a temporary name beside its final one, synced where the server can
//! (`fsync@openssh.com`), and renamed; the temporary name is the one that local stores use. The
//! protocol cannot sync a folder, so a name may be lost when the server loses power right after.
//! Reads and writes send many requests before the first answer: a far server costs its distance
//! once and not once for each 32 KiB.

mod launch;
mod session;
mod upload;
pub(crate) mod wire;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use muster_model::location::Sftp;
use muster_repository::{
    format::pack::BlobKind,
    storage::{File, FileKind, Listed, Spooled, Storage, StorageError, StorageProblem},
};

use crate::{
    answer::Trouble,
    error::StoreError,
    options::Options,
    pace::{Pace, Way},
    stop::{GIVEN_UP, Watch},
};
use session::Session;
use upload::Upload;
use wire::{Attributes, Reply, Request};

/// What every server takes in one request, by the protocol's own words.
const PIECE_BYTES: usize = 32 << 10;

/// Requests of one transfer that are on their way at once: 2 MiB.
const WINDOW: usize = 64;

/// Folders that are listed at once.
const FOLDERS: usize = 64;

const FOLDER_MODE: u32 = 0o700;
/// Files of a repository are never changed.
const FILE_MODE: u32 = 0o400;

/// Marks the name of a file that is still being written, as in local stores.
const TEMPORARY_MARK: &str = "-tmp-";

/// How old a temporary file is before it is removed; clocks of two machines may differ.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The server may be one of several on a shared disk whose listings lag, as restic assumes.
const LISTING_LAG: Duration = Duration::from_millis(200);

/// Status codes of the protocol.
const OK: u32 = 0;
const END: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const DENIED: u32 = 3;
const FAILURE: u32 = 4;

/// A repository behind SSH.
#[derive(Debug)]
pub(crate) struct SftpStorage {
    argv: Vec<String>,
    root: String,
    location: String,
    session: Mutex<Option<Arc<Session>>>,
    pace: Arc<Pace>,
}

type Done<T> = Result<T, Trouble>;

impl SftpStorage {
    pub(crate) fn new(sftp: &Sftp, options: &Options, pace: Arc<Pace>) -> Result<Self, StoreError> {
        let root = match sftp.path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        Ok(Self {
            argv: launch::command(sftp, options)?,
            root: root.to_owned(),
            location: sftp.to_string(),
            session: Mutex::new(None),
            pace,
        })
    }

    /// The conversation, begun when there is none or the last one broke.
    fn session(&self, watch: &Watch<'_>) -> Done<Arc<Session>> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.is_void() {
            return Err(Trouble::new(StorageProblem::Interrupted, GIVEN_UP));
        }
        if let Some(alive) = session.as_ref().filter(|session| session.is_alive()) {
            return Ok(Arc::clone(alive));
        }
        let new = Arc::new(Session::begin(&self.argv, &self.pace)?);
        *session = Some(Arc::clone(&new));
        Ok(new)
    }

    /// How much is asked for at once: less when a limit would let that through as a burst.
    fn piece_bytes(&self, way: Way) -> usize {
        self.pace.piece_bytes(way).min(PIECE_BYTES)
    }

    fn pass(&self, way: Way, bytes: usize) -> Done<()> {
        match self.pace.pass(way, bytes) {
            true => Ok(()),
            false => Err(Trouble::new(StorageProblem::Interrupted, GIVEN_UP)),
        }
    }

    fn path(&self, name: impl fmt::Display) -> String {
        format!("{}/{name}", self.root.trim_end_matches('/'))
    }

    fn run<T>(
        &self,
        operation: &'static str,
        path: &str,
        work: impl FnOnce(&Session) -> Done<T>,
    ) -> Result<T, StorageError> {
        let done = self.session(&self.pace.stop.watch()).and_then(|session| work(&session));
        done.map_err(|trouble| {
            let what = format!("{path} at {}", self.location);
            StorageError::because(operation, what, trouble.problem, Box::new(trouble))
        })
    }

    fn store(&self, file: File, content: &[u8], replace: bool) -> Result<(), StorageError> {
        self.store_by(file, content.len() as u64, replace, |upload| upload.push(content))
    }

    /// Stores a file of `bytes` bytes that `give` gives.
    fn store_by(
        &self,
        file: File,
        bytes: u64,
        replace: bool,
        give: impl FnOnce(&mut Upload<'_>) -> Done<()>,
    ) -> Result<(), StorageError> {
        let path = self.path(file);
        self.run("write", &path, |session| {
            let temporary = format!("{path}{TEMPORARY_MARK}{:016x}", random()?);
            let written = self.write(session, &temporary, bytes, give);
            let written = written.and_then(|()| match replace {
                true => replace_by(session, &temporary, &path),
                false => rename_new(session, &temporary, &path),
            });
            written.inspect_err(|_| {
                // Best effort: what cannot be removed now is a leftover for later.
                drop(session.ask(Request::Remove { path: &temporary }));
            })
        })
    }

    fn write(
        &self,
        session: &Session,
        path: &str,
        bytes: u64,
        give: impl FnOnce(&mut Upload<'_>) -> Done<()>,
    ) -> Done<()> {
        let open = || handle(session.ask(Request::OpenNew { path, mode: FILE_MODE })?);
        let handle = match open() {
            Err(trouble) if trouble.problem == StorageProblem::NotFound => {
                // Folders of packs are made when they are first needed, as by restic.
                make_folders(session, folder_of(path))?;
                open()?
            }
            handle => handle?,
        };
        let mut upload = Upload::new(self, session, handle);
        let given = give(&mut upload);
        let written = given.and(upload.finish()?);
        written.map_err(|trouble| explain(session, path, bytes, trouble))
    }

    fn fill(&self, session: &Session, path: &str, offset: u64, buffer: &mut [u8]) -> Done<()> {
        let handle = handle(session.ask(Request::OpenToRead { path })?)?;
        let mut result = Ok(());
        let window_bytes = self.piece_bytes(Way::Down) * WINDOW;
        for (batch, window) in buffer.chunks_mut(window_bytes).enumerate() {
            let at = offset + (batch * window_bytes) as u64;
            result = self.fill_window(session, &handle, at, window);
            if result.is_err() {
                break;
            }
        }
        let closed = done(session.ask(Request::Close { handle: &handle })?);
        result.and(closed)
    }

    /// Asks for all pieces, then puts them in; a short piece is asked for again from where it
    /// ended.
    fn fill_window(
        &self,
        session: &Session,
        handle: &[u8],
        at: u64,
        window: &mut [u8],
    ) -> Done<()> {
        let ask = |offset: u64, bytes: usize| {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            session.send(Request::Read { handle, offset, bytes })
        };
        let mut replies = Vec::with_capacity(WINDOW);
        let piece_bytes = self.piece_bytes(Way::Down);
        for (index, piece) in window.chunks(piece_bytes).enumerate() {
            self.pass(Way::Down, piece.len())?;
            replies.push(ask(at + (index * piece_bytes) as u64, piece.len())?);
        }
        let mut failed = Ok(());
        for (index, (reply, piece)) in
            replies.into_iter().zip(window.chunks_mut(piece_bytes)).enumerate()
        {
            let mut reply = session.receive(&reply)?;
            let mut filled = 0;
            while failed.is_ok() {
                match data(reply) {
                    Ok(data) if data.is_empty() || data.len() > piece.len() - filled => {
                        failed = Err(Trouble::new(StorageProblem::Other, "an odd answer"));
                    }
                    Ok(data) => {
                        piece[filled..filled + data.len()].copy_from_slice(&data);
                        filled += data.len();
                    }
                    Err(trouble) => failed = Err(trouble),
                }
                if failed.is_err() || filled == piece.len() {
                    break;
                }
                let offset = at + (index * piece_bytes + filled) as u64;
                reply = session.receive(&ask(offset, piece.len() - filled)?)?;
            }
        }
        failed
    }

    /// The folders that hold files of a kind.
    fn folders(&self, session: &Session, kind: FileKind) -> Done<Vec<String>> {
        let folder = self.path(kind.folder());
        if kind != FileKind::Pack {
            return Ok(vec![folder]);
        }
        let entries = read_folders(session, std::slice::from_ref(&folder))?;
        let names = entries.into_iter().filter(|(_, name, data)| {
            data.is_folder() && name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit())
        });
        Ok(names.map(|(_, name, _)| format!("{folder}/{name}")).collect())
    }

    fn entries(&self, session: &Session, kind: FileKind) -> Done<Vec<Entry>> {
        let folders = self.folders(session, kind)?;
        let mut entries = Vec::new();
        for some in folders.chunks(FOLDERS) {
            entries.extend(read_folders(session, some)?);
        }
        Ok(entries)
    }
}

fn random() -> Done<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Trouble::new(StorageProblem::Other, error.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn make_folders(session: &Session, folder: &str) -> Done<()> {
    if folder.is_empty() || stat(session, folder).is_ok_and(Attributes::is_folder) {
        return Ok(());
    }
    make_folders(session, folder_of(folder))?;
    let made = done(session.ask(Request::MakeFolder { path: folder, mode: FOLDER_MODE })?);
    // Another writer may have been quicker; the protocol has no code for that.
    made.or_else(|trouble| match stat(session, folder) {
        Ok(found) if found.is_folder() => Ok(()),
        _ => Err(trouble),
    })
}

fn replace_by(session: &Session, from: &str, to: &str) -> Done<()> {
    if session.offers("posix-rename@openssh.com") {
        return done(session.ask(Request::PosixRename { from, to })?);
    }
    // Without it nothing can be replaced in one step; what is there is the same when its name is
    // a hash, so it may go.
    match rename_new(session, from, to) {
        Err(trouble) if trouble.problem == StorageProblem::AlreadyExists => {
            done(session.ask(Request::Remove { path: to })?)?;
            rename_new(session, from, to)
        }
        result => result,
    }
}

/// The plain rename of the protocol fails when the name is taken, without saying why.
fn rename_new(session: &Session, from: &str, to: &str) -> Done<()> {
    match done(session.ask(Request::Rename { from, to })?) {
        Err(trouble) if stat(session, to).is_ok() => {
            Err(Trouble::new(StorageProblem::AlreadyExists, trouble.to_string()))
        }
        result => result,
    }
}

fn stat(session: &Session, path: &str) -> Done<Attributes> {
    match session.ask(Request::Stat { path })? {
        Reply::Attributes(attributes) => Ok(attributes),
        other => Err(refusal(&other)),
    }
}

fn size(session: &Session, path: &str) -> Done<u64> {
    let bytes = stat(session, path)?.bytes;
    bytes.ok_or_else(|| Trouble::new(StorageProblem::Other, "the server tells no sizes"))
}

/// A disk that is full is a mere failure to the protocol; the extension tells.
fn explain(session: &Session, path: &str, bytes: u64, trouble: Trouble) -> Trouble {
    if !session.offers("statvfs@openssh.com") {
        return trouble;
    }
    let space = session.ask(Request::Space { path: folder_of(path) });
    let Ok(Reply::Extended(reply)) = space else { return trouble };
    match wire::free_bytes(&reply) {
        Some(free) if free < bytes => {
            Trouble::new(StorageProblem::Full, "no space is left on the server")
        }
        _ => trouble,
    }
}

type Entry = (usize, String, Attributes);

/// The entries of folders, each with its folder's place in the list. A folder that is not there
/// has none. Names that are not UTF-8 are strangers.
fn read_folders(session: &Session, folders: &[String]) -> Done<Vec<Entry>> {
    let opened: Vec<_> = folders
        .iter()
        .map(|path| session.send(Request::OpenFolder { path }))
        .collect::<Done<_>>()?;
    let mut open = Vec::new();
    for (place, reply) in opened.into_iter().enumerate() {
        match handle(session.receive(&reply)?) {
            Ok(handle) => open.push((place, handle)),
            Err(trouble) if trouble.problem == StorageProblem::NotFound => {}
            Err(trouble) => return Err(trouble),
        }
    }
    let all: Vec<_> = open.iter().map(|(_, handle)| handle.clone()).collect();
    let mut entries = Vec::new();
    while !open.is_empty() {
        let asked: Vec<_> = open
            .iter()
            .map(|(_, handle)| session.send(Request::ReadFolder { handle }))
            .collect::<Done<_>>()?;
        let mut going_on = Vec::new();
        for ((place, handle), reply) in open.into_iter().zip(asked) {
            match session.receive(&reply)? {
                Reply::Names(names) => {
                    let texts = names.into_iter().filter_map(|(name, data)| {
                        Some((place, String::from_utf8(name).ok()?, data))
                    });
                    entries.extend(texts);
                    going_on.push((place, handle));
                }
                Reply::Status { code: END, .. } => {}
                other => return Err(refusal(&other)),
            }
        }
        open = going_on;
    }
    for handle in &all {
        done(session.ask(Request::Close { handle })?)?;
    }
    Ok(entries)
}

fn done(reply: Reply) -> Done<()> {
    match reply {
        Reply::Status { code: OK, .. } => Ok(()),
        other => Err(refusal(&other)),
    }
}

fn handle(reply: Reply) -> Done<Vec<u8>> {
    match reply {
        Reply::Handle(handle) => Ok(handle),
        other => Err(refusal(&other)),
    }
}

fn data(reply: Reply) -> Done<Vec<u8>> {
    match reply {
        Reply::Data(data) => Ok(data),
        other => Err(refusal(&other)),
    }
}

/// What a reply means that is not the one hoped for.
fn refusal(reply: &Reply) -> Trouble {
    let Reply::Status { code, message } = reply else {
        return Trouble::new(StorageProblem::Other, "an answer to another question");
    };
    let (problem, meaning) = match *code {
        END => (StorageProblem::TooShort, "the file ends before"),
        NO_SUCH_FILE => (StorageProblem::NotFound, "no such file"),
        DENIED => (StorageProblem::Denied, "permission denied"),
        FAILURE => (StorageProblem::Other, "the server failed and does not say why"),
        // OK where something else was expected, and the rest of the protocol's codes.
        _ => (StorageProblem::Other, "the server refuses"),
    };
    let said: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
    Trouble::new(problem, format!("{meaning} ({said})"))
}

impl Storage for SftpStorage {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.run("create folder", &self.root, |session| {
            make_folders(session, &self.root)?;
            for kind in FileKind::ALL {
                if kind != FileKind::Config {
                    make_folders(session, &self.path(kind.folder()))?;
                }
            }
            Ok(())
        })
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        if kind == FileKind::Config {
            return match self.size(File::Config) {
                Ok(bytes) => Ok(vec![Listed { file: File::Config, bytes }]),
                Err(error) if error.problem() == StorageProblem::NotFound => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        let folder = self.path(kind.folder());
        let entries = self.run("list", &folder, |session| self.entries(session, kind))?;
        let listed = entries.into_iter().filter_map(|(_, name, data)| {
            let file = kind.file(&name).filter(|_| !data.is_folder())?;
            Some(Listed { file, bytes: data.bytes? })
        });
        Ok(listed.collect())
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        let path = self.path(file);
        self.run("look at", &path, |session| size(session, &path))
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        let path = self.path(file);
        self.run("read", &path, |session| {
            let bytes = size(session, &path)?;
            let length = usize::try_from(bytes).ok().filter(|_| bytes <= bytes_max);
            let length = length.ok_or_else(|| {
                Trouble::new(StorageProblem::TooLarge, "such a file is not so large")
            })?;
            let mut content = vec![0; length];
            self.fill(session, &path, 0, &mut content)?;
            Ok(content)
        })
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let path = self.path(file);
        self.run("read", &path, |session| self.fill(session, &path, offset, buffer))
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.store(file, content, true)
    }

    fn put_spooled(&self, _: BlobKind, pack: &Spooled) -> Result<(), StorageError> {
        let mut read = Ok(());
        let stored = self.store_by(File::Pack(pack.id()), pack.bytes(), true, |upload| {
            let mut pushed = Ok(());
            read = pack.read(|piece| {
                pushed = upload.push(&piece);
                pushed.is_ok()
            });
            match read {
                Ok(()) => pushed,
                // It does not get the pack's name.
                Err(_) => {
                    Err(Trouble::new(StorageProblem::Other, "what was to be sent ended early"))
                }
            }
        });
        read.and(stored)
    }

    fn sends_from_files(&self) -> bool {
        true
    }

    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.store(file, content, false)
    }

    fn delete(&self, file: File) -> Result<(), StorageError> {
        let path = self.path(file);
        self.run("delete", &path, |session| done(session.ask(Request::Remove { path: &path })?))
    }

    fn listing_lag(&self) -> Duration {
        LISTING_LAG
    }

    fn remove_leftovers(&self) -> Result<usize, StorageError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut removed = 0;
        // Locks are left out, as in local stores.
        for kind in [FileKind::Pack, FileKind::Index, FileKind::Snapshot, FileKind::Key] {
            let folder = self.path(kind.folder());
            removed += self.run("clean", &folder, |session| {
                let folders = self.folders(session, kind)?;
                let mut removed = 0;
                for folder in folders {
                    for (_, name, data) in read_folders(session, std::slice::from_ref(&folder))? {
                        let stem = name.split_once(TEMPORARY_MARK).map(|(stem, _)| stem);
                        let age = data.changed_s.map(|at| now.as_secs().saturating_sub(at.into()));
                        let is_old = age.is_some_and(|age| age >= LEFTOVER_AGE.as_secs());
                        if is_old && stem.is_some_and(|stem| kind.file(stem).is_some()) {
                            let path = format!("{folder}/{name}");
                            done(session.ask(Request::Remove { path: &path })?)?;
                            removed += 1;
                        }
                    }
                }
                Ok(removed)
            })?;
        }
        Ok(removed)
    }
}
