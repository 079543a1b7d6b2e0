//! Where the data of a world comes from: recovery points, nothing, or what is there already.

use std::{fs, path::PathBuf, time::Duration};

use jiff::Timestamp;
use muster_control::choice::Chosen;
use muster_model::{Fault as _, PointCopy, drill::PointUsed};
use muster_plan::{document::DataSource, template::TargetData};
use muster_repository::{
    lock::{Lock, LockKind},
    run::Run,
};
use muster_sources::{RestoreSettings, capture::Restored, restore_data};

use super::World;
use crate::{
    error::OperationError, hands, pause::interrupted, postgres, records::CopyUnread, stores,
};

/// How long a restore waits for a repository that somebody has locked exclusively.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Where data comes from.
#[derive(Debug, Clone)]
pub(crate) enum Supply {
    /// From recovery points, one for each data item.
    Points(Vec<Chosen>),
    /// Nothing: an empty folder, an empty database. For the control that must turn red. The
    /// points tell what an empty server must look like.
    Empty(Vec<PointUsed>),
    /// It is there already.
    InPlace,
}

/// A data item that is there.
#[derive(Debug, Clone)]
pub(crate) struct Supplied {
    /// The point that it came from.
    pub(crate) used: Option<PointUsed>,
}

/// Brings a data item into the world. Copies that could not be read are in `skipped`, also when
/// none could: that is worth knowing whatever comes of it.
///
/// # Errors
/// Fails when no copy of its point can be restored whole.
pub(crate) fn supply(
    world: &mut World<'_>,
    name: &str,
    run: &Run,
    skipped: &mut Vec<CopyUnread>,
) -> Result<Supplied, OperationError> {
    let used = match &world.supply {
        Supply::Points(chosen) => {
            let chosen = chosen.iter().find(|chosen| chosen.point.data == name);
            let chosen = chosen.cloned().ok_or_else(|| OperationError::Bug {
                what: format!("no point was chosen for {name}"),
            })?;
            Some(tokio::task::block_in_place(|| from_copies(world, &chosen, run, skipped))?)
        }
        Supply::Empty(_) => {
            empty(world, name)?;
            None
        }
        Supply::InPlace => None,
    };
    self::name(world, name)?;
    Ok(Supplied { used })
}

/// Tells templates where a data item is.
pub(crate) fn name(world: &mut World<'_>, name: &str) -> Result<(), OperationError> {
    let item = world.item(name)?;
    let (path, url) = match item.source {
        DataSource::Postgres { .. } => (None, postgres::running(world, item)),
        _ => (Some(world.data_path(item).display().to_string()), None),
    };
    world.names.data.insert(name.to_owned(), TargetData { path, url });
    Ok(())
}

/// Restores from the first copy that can be restored whole.
fn from_copies(
    world: &World<'_>,
    chosen: &Chosen,
    run: &Run,
    skipped: &mut Vec<CopyUnread>,
) -> Result<PointUsed, OperationError> {
    let name = &chosen.point.data;
    let mut failed = Vec::new();
    for copy in &chosen.copies {
        match from_copy(world, name, copy, run) {
            Ok(restored) => return Ok(used(chosen, copy, &restored)),
            Err(error @ OperationError::Interrupted { .. }) => return Err(error),
            Err(error) => {
                world.remove_data(name)?;
                skipped.push(CopyUnread {
                    run: world.run_id.clone(),
                    part: world.part.clone(),
                    data: Some(name.clone()),
                    repository: copy.repository.clone(),
                    snapshot: Some(copy.snapshot.clone()),
                    code: error.code().to_owned(),
                    why: error.one_line(),
                });
                failed.push((copy.repository.clone(), error));
            }
        }
    }
    Err(OperationError::Several { what: format!("restore {name}"), failures: failed })
}

fn from_copy(
    world: &World<'_>,
    name: &str,
    copy: &PointCopy,
    run: &Run,
) -> Result<Restored, OperationError> {
    let snapshot = hands::snapshot_id(&copy.snapshot)?;
    let allowed = stores::allowing(world.workspace, &copy.repository, run);
    let repository = stores::open_allowing(world.workspace, &copy.repository, &allowed)?;
    let environment = &world.workspace.state.environment;
    let lock = Lock::acquire(&repository, LockKind::Shared, LOCK_PATIENCE, environment, run);
    let lock = lock.map_err(OperationError::below)?;
    let indexed = repository.load_index(&allowed).map_err(OperationError::below)?;
    let target = world.data_dir(name);
    let item = world.item(name)?;
    let restored = match &item.source {
        DataSource::Postgres { .. } => postgres::restore(world, item, &indexed, snapshot, &allowed),
        _ => restore_data(&indexed, snapshot, &target, RestoreSettings::default(), &allowed)
            .map_err(OperationError::below),
    };
    drop(lock);
    interrupted(run)?;
    let restored = restored?;
    match restored.left_out.first() {
        None => Ok(restored),
        Some(first) => Err(OperationError::Incomplete {
            what: format!("restore {name} from {} whole", copy.repository),
            first: first.clone(),
            more: restored.left_out.len() - 1,
        }),
    }
}

fn used(chosen: &Chosen, copy: &PointCopy, restored: &Restored) -> PointUsed {
    let data_time: Timestamp = chosen.point.data_time;
    PointUsed {
        data: chosen.point.data.clone(),
        point: chosen.point.id.clone(),
        repository: copy.repository.clone(),
        snapshot: copy.snapshot.clone(),
        data_time,
        bytes: Some(restored.bytes),
    }
}

/// Makes the data item exist and be empty.
fn empty(world: &mut World<'_>, name: &str) -> Result<(), OperationError> {
    let item = world.item(name)?;
    let path: PathBuf = world.data_path(item);
    if world.has_server(name) {
        return world.make_empty_server(name);
    }
    let dir = world.data_dir(name);
    crate::state::make_private(&dir).map_err(OperationError::io("make the folder", &dir))?;
    match &item.source {
        DataSource::Files { .. } => Ok(()),
        DataSource::Sqlite { .. } => {
            muster_sources::sqlite::empty(&path).map_err(OperationError::below)
        }
        DataSource::Command { .. } => {
            fs::write(&path, b"").map_err(OperationError::io("write", &path))
        }
        DataSource::Postgres { .. } => Ok(()),
    }
}
