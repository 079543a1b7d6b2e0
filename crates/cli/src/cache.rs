//! Where what can be made again is kept: the user's cache folder.
//!
//! Nothing in it is needed to restore anything, and nothing in it is trusted to be true of a
//! repository. It holds the record of which packs were read back when, and of which snapshots a
//! rotation of the key was proven.

use std::{env, path::PathBuf};

use crate::location::variable_set;

/// The folder of a repository: in `given` (`--cache-dir`), else in `MUSTER_CACHE_DIR`, else below
/// the user's cache folder (XDG Base Directory Specification).
pub(crate) fn folder(given: Option<&PathBuf>, repository_id: &str) -> Option<PathBuf> {
    let named = given.cloned().or_else(|| variable_set("MUSTER_CACHE_DIR").map(PathBuf::from));
    let users = || {
        let xdg =
            variable_set("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || Some(env::home_dir()?.join(".cache"));
        Some(xdg.or_else(home)?.join("muster"))
    };
    Some(named.or_else(users)?.join(repository_id))
}
