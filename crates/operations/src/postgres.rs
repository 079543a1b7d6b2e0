//! PostgreSQL in a target: the server that restored data needs before it can be questioned.
//!
//! It runs as its data's user, never as root, so that user must be able to reach the target:
//! see [`crate::state::State::runs_folder`]. It listens on the loopback only, and only while
//! the drill lasts.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use muster_drivers::{isolation::free_port, process::Launch};
use muster_model::PointCopy;
use muster_plan::document::{DataItem, DataSource};
use muster_repository::{
    id::SnapshotId, repository::IndexedRepository, restore::Overwrite, run::Run,
};
use muster_sources::{
    capture::Restored,
    postgres::{self, PostgresSource, Programs, server},
};

use crate::{error::OperationError, hands, run::World, stores};

/// How long a server may replay before the drill's own limit: a day.
const REPLAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// A server that is ready to be launched over restored data.
pub(crate) struct Server {
    /// What to start.
    pub(crate) launch: Launch,
    /// Where it will answer.
    pub(crate) url: String,
}

/// Restores a cluster, as the user that the plan names or that owned the original.
///
/// # Errors
/// Fails when the data cannot be read or written, or the user cannot reach the target.
pub(crate) fn restore(
    world: &World<'_>,
    item: &DataItem,
    repository: &IndexedRepository,
    snapshot: SnapshotId,
    run: &Run,
) -> Result<Restored, OperationError> {
    let (target, user) = (world.data_dir(&item.name), user(item));
    let restored =
        postgres::restore_into(repository, snapshot, &target, Overwrite::Refuse, user, run);
    let restored = restored.map_err(OperationError::below)?;
    postgres::verify_restored(&target, run).map_err(OperationError::below)?;
    Ok(restored)
}

/// What a restore leaves beside the data folder.
pub(crate) fn folders_beside(world: &World<'_>, name: &str) -> Vec<PathBuf> {
    ["server", "tablespaces"]
        .into_iter()
        .map(|suffix| world.dir.join(format!("{name}.{suffix}")))
        .collect()
}

fn user(item: &DataItem) -> Option<&str> {
    match &item.source {
        DataSource::Postgres { user, .. } => user.as_deref(),
        _ => None,
    }
}

impl Server {
    /// Prepares the data of `item` for a server of its own.
    ///
    /// # Errors
    /// Fails when no programs of the same major version are installed, or no user can run it.
    pub(crate) fn prepare(world: &World<'_>, item: &DataItem) -> Result<Self, OperationError> {
        let port = free_port().map_err(OperationError::io("find", "a free port"))?;
        let data = world.data_dir(&item.name);
        let prepared = tokio::task::block_in_place(|| server::prepare(&data, port, user(item)));
        Ok(Self::of(world, item, prepared.map_err(OperationError::below)?))
    }

    fn of(world: &World<'_>, item: &DataItem, prepared: server::Launch) -> Self {
        let launch = Launch {
            argv: prepared.argv,
            env: prepared.env.into_iter().collect(),
            user: prepared.user.map(|user| user.name),
            dir: prepared.data_dir,
            log: world.log(&item.name),
            hidden: world.hidden.clone(),
        };
        Self { launch, url: prepared.url }
    }

    /// Waits until the server has replayed its log and answers.
    ///
    /// # Errors
    /// Fails when it does not, with what it said.
    pub(crate) fn wait_until_ready(
        &self,
        world: &World<'_>,
        run: &Run,
    ) -> Result<(), OperationError> {
        let limit = world.service.acceptance.within.min(REPLAY_MAX);
        tokio::task::block_in_place(|| server::ready(&self.url, limit, run))
            .map_err(OperationError::below)
    }
}

/// Where the server over restored data answers, when one runs already.
pub(crate) fn running(world: &World<'_>, item: &DataItem) -> Option<String> {
    world.names.data.get(&item.name)?.url.clone()
}

/// Where the server answers that an earlier process started over restored data.
///
/// # Errors
/// Fails when none was ever prepared there.
pub(crate) fn adopted(world: &World<'_>, item: &DataItem) -> Result<String, OperationError> {
    server::prepared_url(&world.data_dir(&item.name)).map_err(OperationError::below)
}

/// The server over restored data, to be asked. It trusts whoever reaches it.
///
/// # Errors
/// Fails when none runs.
pub(crate) fn restored(
    world: &World<'_>,
    item: &DataItem,
) -> Result<PostgresSource, OperationError> {
    let url = running(world, item).ok_or_else(|| OperationError::Bug {
        what: format!("no server runs over the restored data of {}", item.name),
    })?;
    Ok(PostgresSource::new(url))
}

/// Makes an empty cluster for `item`, like the one that its newest point holds.
///
/// # Errors
/// Fails when no copy can be read, or the cluster cannot be made.
pub(crate) fn make_empty(world: &World<'_>, item: &DataItem) -> Result<Server, OperationError> {
    let run = Run::new();
    tokio::task::block_in_place(|| {
        let copy = world.model_of(&item.name)?;
        let cluster = cluster_of(world, &copy, &run)?;
        let programs = Programs::find(cluster.major).map_err(OperationError::below)?;
        let port = free_port().map_err(OperationError::io("find", "a free port"))?;
        let data = world.data_dir(&item.name);
        let made = postgres::empty_like(&programs, &cluster, &data, port, user(item), &run);
        Ok(Server::of(world, item, made.map_err(OperationError::below)?))
    })
}

fn cluster_of(
    world: &World<'_>,
    copy: &PointCopy,
    run: &Run,
) -> Result<postgres::Cluster, OperationError> {
    let run = stores::allowing(world.workspace, &copy.repository, run);
    let repository = stores::open_allowing(world.workspace, &copy.repository, &run)?;
    let indexed = repository.load_index(&run).map_err(OperationError::below)?;
    let snapshot = hands::snapshot_id(&copy.snapshot)?;
    postgres::read_cluster(&indexed, snapshot).map_err(OperationError::below)
}

/// Asks `pg_amcheck`'s questions of every relation.
///
/// # Errors
/// Fails when the server cannot be asked.
pub(crate) fn integrity(world: &World<'_>, item: &DataItem) -> Result<Vec<String>, OperationError> {
    let source = restored(world, item)?;
    let found = tokio::task::block_in_place(|| postgres::integrity(&source, &Run::new()));
    found.map(|integrity| integrity.findings).map_err(OperationError::below)
}

/// Counts rows; `None` for a table that cannot be counted.
///
/// # Errors
/// Fails when no server runs.
pub(crate) fn count_rows(
    world: &World<'_>,
    item: &DataItem,
    tables: &[String],
) -> Result<BTreeMap<String, Option<u64>>, OperationError> {
    let source = restored(world, item)?;
    let run = Run::new();
    let count = |table: &String| (table.clone(), postgres::count_rows(&source, table, &run).ok());
    Ok(tokio::task::block_in_place(|| tables.iter().map(count).collect()))
}

/// Empties the largest table. Not to be undone.
///
/// # Errors
/// Fails when the server cannot be asked, or no table has a row.
pub(crate) fn damage(world: &World<'_>, item: &DataItem) -> Result<(), OperationError> {
    let source = restored(world, item)?;
    let damaged = tokio::task::block_in_place(|| postgres::damage(&source, &Run::new()));
    damaged.map(drop).map_err(OperationError::below)
}
