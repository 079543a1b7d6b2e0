//! Files of the state folder: made whole or not at all, and for the owner's eyes.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::error::LedgerError;
use crate::merkle::Hash;

/// The signing key, and what is only the owner's.
pub(crate) const MODE_SECRET: u32 = 0o600;
/// What is meant to be handed out.
pub(crate) const MODE_PUBLIC: u32 = 0o644;

/// Makes the folder, 0700, and those above it, unless they are there.
pub(crate) fn make_folder(folder: &Path) -> Result<(), LedgerError> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        fs::create_dir_all(above).map_err(LedgerError::file("make", above))?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(LedgerError::file("make", folder)(error))
        }
        _ => sync_folder(above.unwrap_or(Path::new("."))),
    }
}

/// Puts a file at a path, durably, whole or not at all. What was there is replaced.
pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), LedgerError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.part", random_name()?));
    let result = write_new(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(LedgerError::file("write", path));
    if result.is_err() {
        // The failure is the news; what is left is a temporary file.
        drop(fs::remove_file(&temporary));
    }
    result.and_then(|()| sync_folder(folder))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> Result<(), LedgerError> {
    let sync = || File::open(folder)?.sync_all();
    sync().map_err(LedgerError::file("sync", folder))
}

/// Opens the file that openers lock while they make what is missing.
pub(crate) fn lock(path: &Path) -> Result<File, LedgerError> {
    let open = || {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(MODE_SECRET).open(path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(LedgerError::file("lock", path))
}

/// Makes an empty file with this mode, unless there is a file.
pub(crate) fn touch(path: &Path, mode: u32) -> Result<(), LedgerError> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).mode(mode).open(path);
    opened.map(drop).map_err(LedgerError::file("make", path))
}

/// Gives 16 random bytes in hexadecimal digits.
pub(crate) fn random_name() -> Result<String, LedgerError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes[..16]).map_err(|source| LedgerError::NoRandomness { source })?;
    Ok(Hash::new(bytes).to_string()[..32].to_owned())
}
