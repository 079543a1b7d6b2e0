//! From the plan's words to the hands that act: sources, marker targets.

use muster_plan::document::{DataItem, DataSource};
use muster_repository::id::SnapshotId;
use muster_sources::{Source, markers::MarkerTarget};
use zeroize::Zeroizing;

use crate::{error::OperationError, run::World, secrets, workspace::Workspace};

/// The source that reads a data item.
///
/// # Errors
/// Fails when its secret cannot be had.
pub(crate) fn source(workspace: &Workspace, item: &DataItem) -> Result<Source, OperationError> {
    Ok(match &item.source {
        DataSource::Files { paths, exclude } => Source::Files {
            paths: paths.iter().map(|path| workspace.path_of(path)).collect(),
            exclude: exclude.clone(),
        },
        DataSource::Sqlite { path } => Source::Sqlite { path: workspace.path_of(path) },
        DataSource::Command { argv, file } => {
            Source::Command { argv: argv.clone(), file: file.clone(), env: Vec::new() }
        }
        DataSource::Postgres { .. } => return Err(unmarked(item)),
    })
}

/// Where the markers of a data item are in production.
///
/// # Errors
/// Fails when its secret cannot be had, or the item cannot hold markers.
pub(crate) fn marker_target(
    workspace: &Workspace,
    item: &DataItem,
) -> Result<MarkerTarget, OperationError> {
    match &item.source {
        DataSource::Files { paths, .. } => match paths.first() {
            Some(path) => Ok(MarkerTarget::Files(workspace.path_of(path))),
            None => Err(unmarked(item)),
        },
        DataSource::Sqlite { path } => Ok(MarkerTarget::Sqlite(workspace.path_of(path))),
        DataSource::Postgres { .. } | DataSource::Command { .. } => Err(unmarked(item)),
    }
}

/// Where the markers of a restored data item are.
///
/// # Errors
/// Fails when the item cannot hold markers.
pub(crate) fn restored_marker_target(
    world: &World<'_>,
    item: &DataItem,
) -> Result<MarkerTarget, OperationError> {
    match &item.source {
        DataSource::Files { .. } => Ok(MarkerTarget::Files(world.data_path(item))),
        DataSource::Sqlite { .. } => Ok(MarkerTarget::Sqlite(world.data_path(item))),
        DataSource::Postgres { .. } | DataSource::Command { .. } => Err(unmarked(item)),
    }
}

/// A snapshot's id as records keep it.
///
/// # Errors
/// Fails when the text is none.
pub(crate) fn snapshot_id(text: &str) -> Result<SnapshotId, OperationError> {
    let bug = || OperationError::Bug { what: format!("'{text}' is no snapshot") };
    SnapshotId::parse(text).ok_or_else(bug)
}

/// Where production answers for a data item.
pub(crate) fn endpoint(_item: &DataItem) -> Option<(String, u16)> {
    None
}

/// The password of a data item.
///
/// # Errors
/// Fails when it cannot be had.
pub(crate) fn password(
    workspace: &Workspace,
    item: &DataItem,
) -> Result<Option<Zeroizing<String>>, OperationError> {
    match &item.source {
        DataSource::Postgres { password: Some(reference), .. } => {
            secrets::fetch(reference, &workspace.folder).map(Some)
        }
        _ => Ok(None),
    }
}

fn unmarked(item: &DataItem) -> OperationError {
    OperationError::Usage {
        message: format!("write markers into {}: it is a {}", item.name, item.source.kind()),
        help: "markers need a database or a folder: name one in `markers: {data: …}`".to_owned(),
    }
}
