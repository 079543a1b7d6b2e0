//! Markers in a file of a folder: one line each, `WRITER N TIME`.
//!
//! The file is opened anew for each marker and locked (`flock`) while it is written. So it does
//! not matter that another writer put a shorter file in its place meanwhile, or somebody removed
//! it: who holds the lock looks whether the name still leads to what was opened. A crash can
//! leave half a line; the next writer ends it, and readers pass over it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use uuid::Uuid;

use super::{KEPT, MARKERS_FILE, Marker, MarkerError, MarkerStore, written};

/// How long a marker waits for another writer; then it is missed.
const BUSY: Duration = Duration::from_secs(1);

/// A folder that markers are written into.
pub(super) struct FileMarkers {
    folder: PathBuf,
}

impl FileMarkers {
    pub(super) fn open(folder: &Path) -> Result<Self, MarkerError> {
        let markers = Self { folder: folder.to_owned() };
        markers.trim().map_err(failed("remove old markers from", folder))?;
        Ok(markers)
    }

    /// Takes lines that are too old out of the file, by putting another in its place.
    fn trim(&self) -> io::Result<()> {
        let oldest = Timestamp::now().checked_sub(KEPT).map_err(io::Error::other)?;
        let mut file = lock(&self.folder)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let is_kept = |line: &&[u8]| parse(line).is_some_and(|marker| marker.at >= oldest);
        let lines: Vec<_> = text.split_inclusive(|&byte| byte == b'\n').collect();
        let kept: Vec<_> = lines.iter().copied().filter(is_kept).collect();
        match kept.len() < lines.len() {
            true => replace(&self.folder, &file, &kept.concat()),
            false => Ok(()),
        }
    }
}

impl MarkerStore for FileMarkers {
    fn write(&mut self, marker: &Marker) -> Result<(), MarkerError> {
        let line = format!("{} {} {}\n", marker.writer, marker.n, written(marker.at));
        append(&self.folder, &line).map_err(failed("write a marker into", &self.folder))
    }
}

pub(super) fn read(folder: &Path, since: Option<Timestamp>) -> Result<Vec<Marker>, MarkerError> {
    let path = folder.join(MARKERS_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        // A folder from before the first marker has none; without the folder nothing can be said.
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_dir() => Vec::new(),
        Err(error) => return Err(failed("read the markers of", folder)(error)),
    };
    let markers = text.split_inclusive(|&byte| byte == b'\n').filter_map(parse);
    Ok(markers.filter(|marker| since.is_none_or(|since| marker.at >= since)).collect())
}

/// A marker from its line; `None` when it is none, or has no end.
fn parse(line: &[u8]) -> Option<Marker> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let mut words = line.split(' ');
    let (writer, n, at) = (words.next()?, words.next()?, words.next()?);
    let marker =
        Marker { writer: Uuid::parse_str(writer).ok()?, n: n.parse().ok()?, at: at.parse().ok()? };
    words.next().is_none().then_some(marker)
}

fn append(folder: &Path, line: &str) -> io::Result<()> {
    let mut file = lock(folder)?;
    let line = match ends_in_a_line(&mut file)? {
        true => line.to_owned(),
        false => format!("\n{line}"),
    };
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

fn ends_in_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Opens the file, makes it when it is missing, and locks it.
fn lock(folder: &Path) -> io::Result<File> {
    let path = folder.join(MARKERS_FILE);
    let begun = Instant::now();
    loop {
        let file = open(folder, &path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_still(&file, &path) => return Ok(file),
            Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < BUSY => {
                thread::park_timeout(Duration::from_millis(5));
            }
            Ok(()) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn open(folder: &Path, path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o644).custom_flags(flags);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = options.create(true).open(path)?;
            // The name must be durable, or the lines are not.
            File::open(folder)?.sync_all()?;
            Ok(file)
        }
        result => result,
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    let id = |found: io::Result<fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    id(file.metadata()).is_some_and(|open| Some(open) == id(path.symlink_metadata()))
}

/// Puts a file with this content in the place of `file`, whose lock is held.
fn replace(folder: &Path, file: &File, content: &[u8]) -> io::Result<()> {
    let new = folder.join(format!("{MARKERS_FILE}.{}", Uuid::new_v4().simple()));
    let replaced = write_new(&new, file, content)
        .and_then(|()| fs::rename(&new, folder.join(MARKERS_FILE)))
        .and_then(|()| File::open(folder)?.sync_all());
    if replaced.is_err() {
        drop(fs::remove_file(&new));
    }
    replaced
}

fn write_new(new: &Path, old: &File, content: &[u8]) -> io::Result<()> {
    let found = old.metadata()?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(content)?;
    // Only root may give it to whom it was; anybody else owns it already.
    drop(std::os::unix::fs::fchown(&file, Some(found.uid()), Some(found.gid())));
    file.set_permissions(found.permissions())?;
    file.sync_all()
}

fn failed<'p>(
    operation: &'static str,
    path: &'p Path,
) -> impl FnOnce(io::Error) -> MarkerError + use<'p> {
    move |source| MarkerError::File { operation, path: path.to_owned(), source }
}
