//! From the plan's words to the hands that act: sources, marker targets.

use std::path::PathBuf;

use muster_plan::document::{DataItem, DataSource};
use muster_repository::id::SnapshotId;
use muster_sources::{Source, markers::MarkerTarget, postgres::PostgresSource};
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
        DataSource::Postgres { .. } => Source::Postgres(server(workspace, item)?),
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
        DataSource::Postgres { .. } => Ok(MarkerTarget::Postgres(server(workspace, item)?)),
        DataSource::Command { .. } => Err(unmarked(item)),
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
        DataSource::Postgres { .. } => {
            Ok(MarkerTarget::Postgres(crate::postgres::restored(world, item)?))
        }
        DataSource::Command { .. } => Err(unmarked(item)),
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

/// Production's server, with the password to ask it.
///
/// # Errors
/// Fails when the item is no server, or its password cannot be had.
pub(crate) fn server(
    workspace: &Workspace,
    item: &DataItem,
) -> Result<PostgresSource, OperationError> {
    match &item.source {
        DataSource::Postgres { url, .. } => {
            let password = password(workspace, item)?;
            Ok(PostgresSource { url: url.clone(), password })
        }
        _ => Err(unmarked(item)),
    }
}

/// Where production answers for a data item, as far as the plan says.
pub(crate) fn endpoints(item: &DataItem) -> Vec<(String, u16)> {
    match &item.source {
        DataSource::Postgres { url, .. } => {
            PostgresSource::new(url).endpoints().unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The folder of production's server, when it runs on this machine and tells.
pub(crate) fn server_folder(workspace: &Workspace, item: &DataItem) -> Option<PathBuf> {
    let source = server(workspace, item).ok()?;
    tokio::task::block_in_place(|| source.data_directory())
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
