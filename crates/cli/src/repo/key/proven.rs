//! What `key rotate --finish` proved, for `--status` after it.
//!
//! A note in the cache folder of the user, beside what was read back when. Who has none there is
//! told that nothing is proven, which costs another proof and no data.

use std::{fs, io, path::PathBuf};

use muster_repository::{id::SnapshotId, repository::Repository, rotate::Standing};
use serde::{Deserialize, Serialize};

use crate::{app::App, cache};

/// The snapshots of which it was proven that they are there whole.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Proven {
    /// The old repository's id.
    old: String,
    /// Its snapshots, and what they are in the new one.
    snapshots: Vec<(SnapshotId, SnapshotId)>,
}

fn file(app: &App<'_>, new: &Repository) -> Option<PathBuf> {
    if app.settings.no_cache {
        return None;
    }
    let folder = cache::folder(app.settings.cache_dir.as_ref(), &new.config().id)?;
    Some(folder.join("rotated"))
}

/// Notes a proof that is complete. Without a note only `--status` knows less.
pub(super) fn note(app: &App<'_>, old: &Repository, new: &Repository, standing: &Standing) {
    let Some(file) = file(app, new) else { return };
    let proven = Proven { old: old.config().id.clone(), snapshots: standing.there.clone() };
    let write = || -> io::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&file, serde_json::to_vec(&proven)?)
    };
    if let Err(error) = write() {
        let file = file.display();
        app.output.warning(format_args!("cannot note in {file} that it is finished: {error}"));
    }
}

/// Whether a proof is noted of all that the old repository has now. A note that cannot be read is
/// none.
pub(super) fn covers(
    app: &App<'_>,
    old: &Repository,
    new: &Repository,
    standing: &Standing,
) -> bool {
    let content = file(app, new).and_then(|file| fs::read(file).ok());
    let proven = content.and_then(|content| serde_json::from_slice::<Proven>(&content).ok());
    proven.is_some_and(|proven| {
        let is_proven = |pair: &(SnapshotId, SnapshotId)| proven.snapshots.contains(pair);
        proven.old == old.config().id
            && standing.missing.is_empty()
            && standing.there.iter().all(is_proven)
    })
}
