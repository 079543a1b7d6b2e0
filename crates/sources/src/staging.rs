//! Temporary copies: private, removed on every path, and after a killed run by the next one.
//!
//! A copy lies in a folder of its own, of mode 0700, on whose descriptor the process that works
//! there holds an advisory lock. When a process is killed the lock goes and the folder stays, so
//! whoever comes next removes the folders of its prefix that nobody holds. Making, locking and
//! removing happen under a lock on the staging folder, so that no folder is taken for left over
//! in the moment before it is locked.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::error::SourceError;

/// A folder for one temporary copy; removed when dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    /// Holds the lock.
    _folder: File,
}

impl Staged {
    /// Removes what killed runs left under `prefix` in `staging`, and makes a folder there.
    ///
    /// # Errors
    /// Fails when the staging folder is missing or may not be written.
    pub(crate) fn make(staging: &Path, prefix: &str) -> Result<Self, SourceError> {
        make(staging, prefix)
            .map_err(|source| SourceError::Staging { path: staging.to_owned(), source })
    }

    /// An empty file of mode 0600 in the folder.
    ///
    /// # Errors
    /// Fails when it cannot be made.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf, SourceError> {
        let path = self.path.join(name);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match made {
            Ok(_) => Ok(path),
            Err(source) => Err(SourceError::Staging { path, source }),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is left over, and the next run tries again.
        drop(fs::remove_dir_all(&self.path));
    }
}

fn make(staging: &Path, prefix: &str) -> io::Result<Staged> {
    let all = File::open(staging)?;
    flock(&all, FlockOperation::LockExclusive)?;
    remove_left_over(staging, prefix)?;
    let path = staging.join(format!("{prefix}{}", Uuid::new_v4().simple()));
    DirBuilder::new().mode(0o700).create(&path)?;
    let folder = File::open(&path)?;
    flock(&folder, FlockOperation::LockExclusive)?;
    Ok(Staged { path, _folder: folder })
}

fn remove_left_over(staging: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(staging)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if ours && entry.file_type()?.is_dir() && is_free(&entry.path()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn is_free(folder: &Path) -> bool {
    let opened = File::open(folder);
    opened.is_ok_and(|folder| flock(folder, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use muster_testkit::Scratch;

    use super::*;

    #[test]
    fn what_nobody_holds_is_removed_and_what_somebody_holds_stays() {
        let scratch = Scratch::new("staging").unwrap();
        fs::create_dir(scratch.join("a-dead")).unwrap();
        fs::write(scratch.join("a-dead/copy"), "x").unwrap();
        fs::create_dir(scratch.join("b-other")).unwrap();
        let first = Staged::make(scratch.path(), "a-").unwrap();
        let second = Staged::make(scratch.path(), "a-").unwrap();
        assert!(!scratch.join("a-dead").exists());
        assert!(scratch.join("b-other").exists());
        assert!(first.path.exists() && second.path.exists());
        let path = first.file("copy").unwrap();
        drop(first);
        assert!(!path.exists() && second.path.exists());
    }

    #[test]
    fn copies_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new("staging-mode").unwrap();
        let staged = Staged::make(scratch.path(), "a-").unwrap();
        let copy = staged.file("copy").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&staged.path), mode(&copy)), (0o700, 0o600));
    }
}
