//! The few changes that a local store makes to a disk, as separate steps.
//!
//! They are a trait so that a test can stand in for the disk that loses power: it lets every
//! step happen, records it, and afterwards builds what could be left of them (see
//! `tests/crash.rs`). Reading needs no such seam and goes to the file system directly.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::RenameFlags;

/// Files of a repository are never changed once written, so they are written read-only, and
/// for their owner alone.
const FILE_MODE: u32 = 0o400;
const FOLDER_MODE: u32 = 0o700;

/// Changes to a disk. A change may be lost by a power failure until the file (for content) or
/// the folder (for names) was synced.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Creates a folder whose parent exists; fine when it exists already.
    ///
    /// # Errors
    /// As the system call.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that does not exist and writes its content.
    ///
    /// # Errors
    /// As the system calls; the file may exist in part then.
    fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Creates a file that does not exist, to be written in pieces, each of which goes to the file
    /// at once.
    ///
    /// # Errors
    /// As `open(2)`.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Makes a file's content durable.
    ///
    /// # Errors
    /// As `fsync(2)`.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, replacing a file of that name.
    ///
    /// # Errors
    /// As `rename(2)`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file another name, which must not exist.
    ///
    /// # Errors
    /// As `renameat2(2)` with `RENAME_NOREPLACE`.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As `unlink(2)`.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As `fsync(2)`.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// A file that is being written in pieces.
pub trait NewFile: Write + Send {
    /// Makes the content durable, and tells how long the file is. Some network file systems tell what
    /// went wrong with earlier writes here, and only to who wrote.
    ///
    /// # Errors
    /// As `fsync(2)`.
    fn sync(&mut self) -> io::Result<u64>;
}

impl NewFile for File {
    fn sync(&mut self) -> io::Result<u64> {
        self.sync_all()?;
        Ok(self.metadata()?.len())
    }
}

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(FOLDER_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        create(path)?.write_all(content)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(create(path)?))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some network and FUSE file systems know no flags: a hard link is as exclusive.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::hard_link(from, to)?;
                fs::remove_file(from)
            }
            result => Ok(result?),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}
