//! PostgreSQL in a target: the server that restored data needs before it can be questioned.

use std::collections::BTreeMap;

use muster_drivers::process::Launch;
use muster_plan::document::DataItem;

use crate::{error::OperationError, run::World};

/// A server that is ready to be launched over restored data.
pub(crate) struct Server {
    /// What to start.
    pub(crate) launch: Launch,
    /// Where it will answer.
    pub(crate) url: String,
}

impl Server {
    /// Prepares the restored data of `item` for a server of its own.
    pub(crate) fn prepare(_world: &World<'_>, item: &DataItem) -> Result<Self, OperationError> {
        Err(unsupported(item))
    }

    /// Waits until the server has replayed its log and answers.
    pub(crate) fn wait_until_ready(
        &self,
        _world: &World<'_>,
        _name: &str,
    ) -> Result<(), OperationError> {
        Ok(())
    }
}

/// Where the server over restored data answers, when one runs already.
pub(crate) fn running(_world: &World<'_>, _item: &DataItem) -> Option<String> {
    None
}

/// Makes an empty cluster for `item`.
pub(crate) fn make_empty(_world: &World<'_>, item: &DataItem) -> Result<(), OperationError> {
    Err(unsupported(item))
}

/// Asks `pg_amcheck` and every table.
pub(crate) fn integrity(
    _world: &World<'_>,
    item: &DataItem,
) -> Result<Vec<String>, OperationError> {
    Err(unsupported(item))
}

/// Counts rows; `None` for a table that is not there.
pub(crate) fn count_rows(
    _world: &World<'_>,
    item: &DataItem,
    _tables: &[String],
) -> Result<BTreeMap<String, Option<u64>>, OperationError> {
    Err(unsupported(item))
}

/// Empties the largest table.
pub(crate) fn damage(_world: &World<'_>, item: &DataItem) -> Result<(), OperationError> {
    Err(unsupported(item))
}

fn unsupported(item: &DataItem) -> OperationError {
    OperationError::Bug { what: format!("{} is a PostgreSQL cluster", item.name) }
}
