//! Temporary folders that survive failure.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A temporary folder, removed when dropped, but kept (and named on stderr) when the test panics.
///
/// Removal also copes with folders that their owner may not write to, which odd trees contain.
#[derive(Debug)]
pub struct Scratch {
    /// Absolute and without symlinks, so that it can be compared with what peers report.
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty folder of mode 0755 whose name contains `name`, in `TMPDIR` or `/tmp`.
    ///
    /// # Errors
    ///
    /// The folder for temporary files is missing, full or not writable.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("muster-{name}-"))
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .with_context(|| format!("make a scratch folder for {name}"))?;
        let path = fs::canonicalize(folder.keep()).context("resolve the scratch folder")?;
        // The mode above passed through the umask; tests that drop root must still get in.
        fs::set_permissions(&path, Permissions::from_mode(0o755)).context("open it to others")?;
        Ok(Self { path })
    }

    /// The folder itself: absolute, free of symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in the folder; nothing is created.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = self.path.display();
            writeln!(std::io::stderr(), "kept for inspection: {kept}").ok();
            return;
        }
        if fs::remove_dir_all(&self.path).is_err() {
            make_writable(&self.path);
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// Gives the owner all rights on every folder that can be reached by path.
fn make_writable(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o700)).ok();
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_removed_with_folders_that_cannot_be_written() {
        let scratch = Scratch::new("removed").unwrap();
        let path = scratch.path().to_owned();
        fs::create_dir_all(path.join("shut/inner")).unwrap();
        fs::write(path.join("shut/inner/file"), "x").unwrap();
        fs::set_permissions(path.join("shut/inner"), Permissions::from_mode(0o500)).unwrap();
        fs::set_permissions(path.join("shut"), Permissions::from_mode(0o000)).unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn is_kept_when_the_test_panics() {
        let (send, receive) = std::sync::mpsc::channel();
        let outcome = std::thread::spawn(move || {
            let scratch = Scratch::new("kept").unwrap();
            send.send(scratch.path().to_owned()).unwrap();
            panic!("on purpose");
        })
        .join();
        assert!(outcome.is_err());
        let path = receive.recv().unwrap();
        assert!(path.is_dir());
        fs::remove_dir(path).unwrap();
    }
}
