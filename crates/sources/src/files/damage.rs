//! Damaging restored files on purpose, and undoing it: the negative control of a comparison.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::FilesError;
use crate::markers::MARKERS_FILE;

/// A byte that was flipped.
#[derive(Debug)]
#[must_use = "the damage stays until it is undone"]
pub struct Damaged {
    /// The file.
    pub file: PathBuf,
    /// Where in it, counted from 0.
    pub offset: u64,
    original: u8,
}

impl Damaged {
    /// Puts the byte back.
    ///
    /// # Errors
    /// Fails when the file cannot be written; then the damage is still there.
    pub fn undo(self) -> Result<(), FilesError> {
        let write = || {
            let file = OpenOptions::new().write(true).open(&self.file)?;
            file.write_all_at(&[self.original], self.offset)
        };
        write().map_err(FilesError::file("undo the damage to", &self.file))
    }
}

/// Flips one byte in the middle of the largest regular file in `folder` (or of `folder` itself,
/// when it is a file). The markers' file is left alone.
///
/// # Errors
/// Fails when there is no file with any content, or none can be written.
pub fn damage(folder: &Path) -> Result<Damaged, FilesError> {
    let mut files = Vec::new();
    collect(folder, &mut files).map_err(FilesError::file("look for files in", folder))?;
    // The path decides among equals, so that the choice is the same each time.
    files.sort_by(|(a_size, a), (b_size, b)| b_size.cmp(a_size).then_with(|| a.cmp(b)));
    let nothing = || FilesError::NothingToDamage { folder: folder.to_owned() };
    let (size, file) = files.into_iter().next().ok_or_else(nothing)?;
    let offset = size / 2;
    let original = flip(&file, offset).map_err(FilesError::file("damage", &file))?;
    Ok(Damaged { file, offset, original })
}

fn collect(path: &Path, files: &mut Vec<(u64, PathBuf)>) -> io::Result<()> {
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = path.symlink_metadata()?;
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        } else if found.is_file() && found.len() > 0 && !path.ends_with(MARKERS_FILE) {
            files.push((found.len(), path));
        }
    }
    Ok(())
}

fn flip(path: &Path, offset: u64) -> io::Result<u8> {
    let file: File = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0xff], offset)?;
    Ok(byte[0])
}
