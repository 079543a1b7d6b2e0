//! Opening the folder to restore into.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt},
    },
};

use rustix::fs::OFlags;

use super::{Overwrite, RestoreError, RestoreOptions, dirs::Dirs, metadata::Rights};

/// A folder that many file systems have from birth: a target that holds nothing else is empty.
pub(super) const LOST_AND_FOUND: &[u8] = b"lost+found";

/// Opens the target, and makes it when it does not exist. The way to it is the user's own and
/// may lead through symbolic links.
pub(super) fn open(options: &RestoreOptions, rights: Rights) -> Result<Dirs, RestoreError> {
    let target = &options.target;
    let failed = |operation: &'static str| {
        move |source: io::Error| RestoreError::Target { operation, target: target.clone(), source }
    };
    let names = match fs::read_dir(target) {
        Ok(entries) => Some(
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .take(2)
                .collect::<io::Result<Vec<_>>>()
                .map_err(failed("list the target"))?,
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("list the target")(error)),
    };
    let found = names.as_deref().unwrap_or_default();
    let holds_data = found.iter().any(|name| name.as_bytes() != LOST_AND_FOUND);
    if holds_data && options.overwrite == Overwrite::Refuse {
        return Err(RestoreError::TargetNotEmpty { target: target.clone() });
    }
    if names.is_none() {
        if options.dry_run {
            return Dirs::new(None, true, rights).map_err(failed("open the target"));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(target);
        made.map_err(failed("create the target"))?;
    }
    let flags = i32::try_from((OFlags::DIRECTORY | OFlags::CLOEXEC).bits()).unwrap_or(0);
    let folder = OpenOptions::new().read(true).custom_flags(flags).open(target);
    let folder = folder.map_err(failed("open the target"))?;
    Dirs::new(Some(folder.into()), found.is_empty(), rights).map_err(failed("open the target"))
}
