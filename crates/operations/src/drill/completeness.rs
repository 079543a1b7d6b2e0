//! Is all of it there? Rules that are asked of recovered data, after the clock has stopped.

use std::collections::BTreeMap;

use muster_model::{
    drill::{Completeness, PointUsed},
    units::agree,
};
use muster_plan::document::{DataItem, DataSource};
use muster_repository::run::Run;
use muster_sources::files::{Difference, Mismatch};

use crate::{error::OperationError, postgres, records::Record, run::World, state::State, stores};

/// Asks every rule of the service about the data in `world`.
///
/// # Errors
/// Fails when the ledger cannot be read; what data cannot answer is in the rules' results.
pub(crate) fn ask(
    world: &World<'_>,
    used: &[PointUsed],
    run: &Run,
) -> Result<Vec<Completeness>, OperationError> {
    let mut results = Vec::new();
    for point in used {
        let item = world.item(&point.data)?;
        results.extend(integrity(world, item));
    }
    for (data, tables) in &world.service.acceptance.rows {
        results.extend(rows(world, data, tables, used)?);
    }
    for data in &world.service.acceptance.checksums {
        results.extend(checksums(world, data, used, run));
    }
    Ok(results)
}

/// The database's own check of its structure.
fn integrity(world: &World<'_>, item: &DataItem) -> Option<Completeness> {
    let problems = match &item.source {
        DataSource::Sqlite { .. } => {
            muster_sources::sqlite::integrity(&world.data_path(item)).map_err(|e| e.to_string())
        }
        DataSource::Postgres { .. } => {
            postgres::integrity(world, item).map_err(|error| error.one_line())
        }
        DataSource::Files { .. } | DataSource::Command { .. } => return None,
    };
    let problems = problems.unwrap_or_else(|error| vec![error]);
    let actual = match problems.first() {
        None => "sound".to_owned(),
        Some(first) => format!("{} problems, the first: {first}", problems.len()),
    };
    Some(Completeness {
        name: "integrity".to_owned(),
        data: item.name.clone(),
        expected: Some("sound".to_owned()),
        ok: Some(problems.is_empty()),
        actual: Some(actual),
    })
}

fn rows(
    world: &World<'_>,
    data: &str,
    tables: &[String],
    used: &[PointUsed],
) -> Result<Vec<Completeness>, OperationError> {
    let Some(point) = used.iter().find(|point| point.data == data) else { return Ok(Vec::new()) };
    let expected = rows_of(&world.workspace.state, point)?;
    let item = world.item(data)?;
    let actual = match &item.source {
        DataSource::Sqlite { .. } => {
            let path = world.data_path(item);
            muster_sources::sqlite::count_rows(&path, tables).map_err(OperationError::below)
        }
        DataSource::Postgres { .. } => postgres::count_rows(world, item, tables),
        DataSource::Files { .. } | DataSource::Command { .. } => return Ok(Vec::new()),
    };
    let actual = actual.unwrap_or_default();
    let rule = |table: &String| {
        let bounds = expected.get(table).copied();
        let counted = actual.get(table).copied().flatten();
        Completeness {
            name: format!("rows {table}"),
            data: data.to_owned(),
            expected: bounds.map(range),
            actual: counted.map(|n| n.to_string()),
            ok: bounds.map(|(least, most)| counted.is_some_and(|n| least <= n && n <= most)),
        }
    };
    Ok(tables.iter().map(rule).collect())
}

fn range((least, most): (u64, u64)) -> String {
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

/// The rows that were counted as the snapshot was taken.
fn rows_of(
    state: &State,
    point: &PointUsed,
) -> Result<BTreeMap<String, (u64, u64)>, OperationError> {
    let history = state.history(&["backup-ended"])?;
    let found = history.into_iter().rev().find_map(|logged| match logged.record {
        Record::BackupEnded(ended) if ended.point == point.point && ended.data == point.data => {
            Some(ended.rows)
        }
        _ => None,
    });
    Ok(found.unwrap_or_default())
}

/// Compares restored files with the snapshot, byte for byte.
fn checksums(world: &World<'_>, data: &str, used: &[PointUsed], run: &Run) -> Option<Completeness> {
    let point = used.iter().find(|point| point.data == data)?;
    let compared = tokio::task::block_in_place(|| compare(world, point, run));
    let (actual, ok) = match compared {
        Ok(differences) => match differences.first() {
            None => ("equal".to_owned(), Some(true)),
            Some(first) => {
                let (number, differ) =
                    (differences.len(), agree(differences.len(), "differs", "differ"));
                (format!("{number} {differ}, the first: {first}"), Some(false))
            }
        },
        Err(error) => (error.one_line(), None),
    };
    Some(Completeness {
        name: "checksums".to_owned(),
        data: data.to_owned(),
        expected: Some("equal".to_owned()),
        actual: Some(actual),
        ok,
    })
}

fn compare(world: &World<'_>, point: &PointUsed, run: &Run) -> Result<Vec<String>, OperationError> {
    let snapshot = crate::hands::snapshot_id(&point.snapshot)?;
    let run = &stores::allowing(world.workspace, &point.repository, run);
    let repository = stores::open_allowing(world.workspace, &point.repository, run)?;
    let indexed = repository.load_index(run).map_err(OperationError::below)?;
    let target = world.data_dir(&point.data);
    let mismatches = muster_sources::files::checksums(&indexed, snapshot, &target, run);
    let mismatches = mismatches.map_err(OperationError::below)?;
    Ok(mismatches.iter().map(described).collect())
}

/// A file that is not what the snapshot holds, in words.
fn described(mismatch: &Mismatch) -> String {
    let path = mismatch.path.display();
    match &mismatch.difference {
        Difference::Unreadable(why) => format!("{path} cannot be read: {why}"),
        Difference::Kind => format!("{path} is of another kind"),
        Difference::Length { expected, actual } => {
            format!("{path} has {actual} bytes and not {expected}")
        }
        Difference::Content { offset } => format!("{path} differs near byte {offset}"),
    }
}
