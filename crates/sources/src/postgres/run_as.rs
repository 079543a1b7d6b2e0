//! The system's user who runs a server: never root, for a server refuses that.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nix::unistd::{Uid, User};

use super::PostgresError;

/// Users who run servers by custom, when nobody says otherwise.
const CUSTOMARY: &[&str] = &["postgres", "nobody"];

/// A user of this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of the main group.
    pub gid: u32,
}

/// Chooses who runs a server: who is named, else who ran the original, else who does by custom.
/// Nobody is chosen when this process is not root: then it is its own user.
pub(super) fn choose(
    named: Option<&str>,
    owner: Option<&str>,
) -> Result<Option<RunAs>, PostgresError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    if let Some(name) = named {
        let user = find(name).ok_or_else(|| unusable(format!("there is no user '{name}'")))?;
        return match user.uid {
            0 => Err(unusable("root must not run it".to_owned())),
            _ => Ok(Some(user)),
        };
    }
    let candidates = owner.into_iter().chain(CUSTOMARY.iter().copied());
    let user = candidates.filter_map(find).find(|user| user.uid != 0);
    user.map(Some).ok_or_else(|| unusable("this system has no 'postgres'".to_owned()))
}

fn find(name: &str) -> Option<RunAs> {
    let user = User::from_name(name).ok().flatten()?;
    Some(RunAs { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

fn unusable(why: String) -> PostgresError {
    PostgresError::NoUser(why)
}

/// Makes sure that the user can enter every folder on the way to `path`.
pub(super) fn may_reach(user: Option<&RunAs>, path: &Path) -> Result<(), PostgresError> {
    let Some(user) = user else { return Ok(()) };
    for folder in path.ancestors().skip(1) {
        let metadata = fs::metadata(folder).map_err(PostgresError::file("look at", folder))?;
        let bit = match (metadata.uid() == user.uid, metadata.gid() == user.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if metadata.permissions().mode() & bit == 0 {
            let (name, folder) = (&user.name, folder.display());
            return Err(unusable(format!("'{name}' may not enter '{folder}'")));
        }
    }
    Ok(())
}
