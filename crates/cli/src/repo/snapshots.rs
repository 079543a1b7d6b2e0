//! `muster repo snapshots`

use std::collections::HashMap;

use muster_model::{Class, Fault, units::format_size};
use muster_repository::{
    format::snapshot::Snapshot,
    id::SnapshotId,
    repository::Repository,
    select::{self, GroupBy, GroupKey},
};
use serde::Serialize;

use super::{counted, release, select_several, snapshot_filter};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome},
    exit::Exit,
    output::{local_time, table, visible},
};

/// Arguments of `snapshots`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Ids, beginnings of ids, or 'latest'; none means all
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Show only the last N of each host and set of paths (or of each group)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    latest: Option<u32>,
    /// Group by any of host, paths, tags, separated by commas
    #[arg(short, long, value_name = "BY", value_parser = group_by)]
    group_by: Option<GroupBy>,
    /// Show less: no paths
    #[arg(short, long)]
    compact: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "Examples:
  muster repo snapshots --host web1 --tag daily
  muster repo snapshots --group-by host,paths --latest 1
  muster repo snapshots --json | jq '.[-1].summary.data_added'";

/// Reads a grouping.
pub(super) fn group_by(text: &str) -> Result<GroupBy, String> {
    text.parse().map_err(|_| "write any of host, paths, tags, separated by commas".to_owned())
}

type Found = (SnapshotId, Snapshot);

/// A snapshot as restic lists it in JSON: with its id.
#[derive(Debug, Serialize)]
pub(super) struct WithId<'a> {
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    id: SnapshotId,
    short_id: String,
}

impl<'a> WithId<'a> {
    /// Puts the id beside the snapshot.
    pub(super) fn new(id: SnapshotId, snapshot: &'a Snapshot) -> Self {
        Self { snapshot, id, short_id: id.short() }
    }
}

#[derive(Serialize)]
struct Group<'a> {
    group_key: &'a GroupKey,
    snapshots: Vec<WithId<'a>>,
}

/// Lists snapshots.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = app.lock_to_read(&repository)?;
    let (snapshots, damaged) = match args.snapshots.is_empty() {
        true => list_readable(&repository, &args.filter)?,
        false => (select_several(app, &repository, &args.snapshots, &args.filter)?, Vec::new()),
    };
    release(lock)?;
    let grouped = args.group_by.filter(|by| by.hosts || by.paths || by.tags);
    let nothing = GroupBy { hosts: false, paths: false, tags: false };
    let mut groups = select::group(snapshots, grouped.unwrap_or(nothing));
    if let Some(latest) = args.latest {
        for (_, snapshots) in &mut groups {
            // Within a group the last are the last; without groups, each host and set of paths
            // counts for itself.
            let by = if grouped.is_some() { nothing } else { GroupBy::default() };
            keep_latest(snapshots, latest, by);
        }
    }
    match app.output.is_json() {
        true => print_json(app, &groups, grouped.is_some())?,
        false => print_tables(app, args, &groups, grouped.is_some())?,
    }
    Ok(damaged.iter().map(|failure| app.output.failure(failure)).next_back().unwrap_or(Exit::Done))
}

/// All snapshots that can be read, oldest first, and why others cannot. The list is what people
/// choose a sound snapshot from when another is damaged.
fn list_readable(
    repository: &Repository,
    filter: &FilterArgs,
) -> Result<(Vec<Found>, Vec<Failure>), Failure> {
    let filter = snapshot_filter(filter);
    let (mut snapshots, mut damaged) = (Vec::new(), Vec::new());
    for id in repository.snapshot_ids()? {
        match repository.snapshot(id) {
            Ok(snapshot) if filter.matches(&snapshot) => snapshots.push((id, snapshot)),
            Ok(_) => {}
            // Another process removed it meanwhile.
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => damaged.push(Failure::of(&error)),
        }
    }
    snapshots.sort_by_key(|(id, snapshot)| (snapshot.time, *id));
    Ok((snapshots, damaged))
}

/// Keeps the last `latest` snapshots of each group, in their order (oldest first).
fn keep_latest(snapshots: &mut Vec<Found>, latest: u32, by: GroupBy) {
    snapshots.sort_by_key(|(id, snapshot)| (snapshot.time, *id));
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut kept: Vec<Found> = Vec::new();
    for found in snapshots.drain(..).rev() {
        let key = GroupKey::of(&found.1, by);
        let seen = seen.entry(format!("{key:?}")).or_default();
        *seen += 1;
        if *seen <= latest {
            kept.push(found);
        }
    }
    kept.reverse();
    *snapshots = kept;
}

fn print_json(
    app: &App<'_>,
    groups: &[(GroupKey, Vec<Found>)],
    grouped: bool,
) -> Result<(), Failure> {
    fn with_ids(snapshots: &[Found]) -> Vec<WithId<'_>> {
        snapshots.iter().map(|(id, snapshot)| WithId::new(*id, snapshot)).collect()
    }
    if !grouped {
        let all: Vec<_> = groups.iter().flat_map(|(_, snapshots)| with_ids(snapshots)).collect();
        return app.output.json(&all);
    }
    let groups: Vec<_> = groups
        .iter()
        .map(|(group_key, snapshots)| Group { group_key, snapshots: with_ids(snapshots) })
        .collect();
    app.output.json(&groups)
}

fn print_tables(
    app: &App<'_>,
    args: &Args,
    groups: &[(GroupKey, Vec<Found>)],
    grouped: bool,
) -> Result<(), Failure> {
    let mut total = 0;
    for (key, snapshots) in groups {
        if grouped {
            app.output.line(format_args!("snapshots for ({}):", group_title(key)))?;
        }
        total += snapshots.len();
        app.output.line(snapshot_table(app, snapshots, args.compact))?;
        if grouped {
            app.output.line("")?;
        }
    }
    app.output.line(counted(total, "snapshot"))
}

/// What the snapshots of a group share, for people.
pub(super) fn group_title(key: &GroupKey) -> String {
    let mut parts = Vec::new();
    if !key.hostname.is_empty() {
        parts.push(format!("host [{}]", visible(key.hostname.as_bytes())));
    }
    if !key.tags.is_empty() {
        parts.push(format!("tags [{}]", visible(key.tags.join(", ").as_bytes())));
    }
    if !key.paths.is_empty() {
        parts.push(format!("paths [{}]", visible(key.paths.join(", ").as_bytes())));
    }
    parts.join(", ")
}

fn snapshot_table(app: &App<'_>, snapshots: &[Found], compact: bool) -> String {
    let lines = |list: &[String]| {
        list.iter().map(|item| visible(item.as_bytes())).collect::<Vec<_>>().join("\n")
    };
    let with_size = snapshots.iter().any(|(_, snapshot)| snapshot.summary.is_some());
    let mut header = vec!["ID", "Time", "Host", "Tags"];
    header.extend((!compact).then_some("Paths"));
    header.extend(with_size.then_some("Size"));
    let mut table = table(&header);
    for (id, snapshot) in snapshots {
        let mut row = vec![
            id.short(),
            local_time(&snapshot.time, &app.environment.zone),
            visible(snapshot.hostname.as_bytes()),
            lines(&snapshot.tags),
        ];
        row.extend((!compact).then(|| lines(&snapshot.paths)));
        let bytes = snapshot.summary.as_ref().map(|summary| summary.total_bytes_processed);
        row.extend(with_size.then(|| bytes.map(format_size).unwrap_or_default()));
        table.add_row(row);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use muster_repository::{format::time::Timestamp, id::BlobId};

    use super::*;

    fn found(hour: i64, host: &str, path: &str) -> Found {
        let json = serde_json::json!({
            "time": Timestamp::new(hour * 3600, 0, 0),
            "tree": BlobId::of(b"tree"),
            "paths": [path],
            "hostname": host,
        });
        let id = SnapshotId::of(format!("{hour} {host} {path}").as_bytes());
        (id, serde_json::from_value(json).unwrap())
    }

    #[test]
    fn the_latest_are_counted_for_each_host_and_set_of_paths() {
        let check = |latest, by, expected: &[i64]| {
            let mut snapshots = vec![
                found(1, "a", "/x"),
                found(3, "a", "/x"),
                found(2, "a", "/y"),
                found(4, "b", "/x"),
            ];
            keep_latest(&mut snapshots, latest, by);
            let hours: Vec<_> =
                snapshots.iter().map(|(_, snapshot)| snapshot.time.seconds() / 3600).collect();
            assert_eq!(hours, expected);
        };
        check(1, GroupBy::default(), &[2, 3, 4]);
        check(2, GroupBy::default(), &[1, 2, 3, 4]);
        check(1, GroupBy { hosts: false, paths: false, tags: false }, &[4]);
    }
}
