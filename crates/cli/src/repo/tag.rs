//! `muster repo tag`

use muster_repository::{
    id::SnapshotId,
    immutable::held_snapshots,
    lock::LockKind,
    select::parse_tag_list,
    tag::{self, Retagging, TagChange},
};
use serde_json::json;

use super::{counted, immutable, release, select_several};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome},
    exit::Exit,
    output::visible,
};

/// Arguments of `tag`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Snapshots: ids, beginnings of ids, or 'latest'; none means all that the filter lets through
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    /// Tags to have instead of those that are there; '' for none. Muster's own (muster:…) stay
    /// unless they are named
    #[arg(long, value_name = "TAG[,TAG…]", conflicts_with_all = ["add", "remove"])]
    set: Vec<String>,
    /// Tags to add
    #[arg(long, value_name = "TAG[,TAG…]")]
    add: Vec<String>,
    /// Tags to take away
    #[arg(long, value_name = "TAG[,TAG…]")]
    remove: Vec<String>,
    /// Only show what would change
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

const EXAMPLES: &str = "A snapshot with other tags has another id; its field 'original' keeps the \
first one.

Examples:
  muster repo tag --add kept latest
  muster repo tag --tag nightly --host web1 --set weekly,kept";

fn tags(lists: &[String]) -> Vec<String> {
    lists.iter().flat_map(|list| parse_tag_list(list)).collect()
}

/// Changes tags.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    if args.set.is_empty() && args.add.is_empty() && args.remove.is_empty() {
        return Err(
            Failure::usage("change tags: none are named").help("give --set, --add or --remove")
        );
    }
    let set = (!args.set.is_empty()).then(|| tags(&args.set));
    let change = TagChange { set, add: tags(&args.add), remove: tags(&args.remove) };
    let repository = app.open()?;
    let lock = match args.dry_run {
        true => app.lock_to_read(&repository)?,
        false => Some(app.lock(&repository, LockKind::Exclusive)?),
    };
    let snapshots = select_several(app, &repository, &args.snapshots, &args.filter)?;
    let retaggings = tag::propose(&snapshots, &change);
    let mut pairs = Vec::new();
    let outcome = if args.dry_run {
        let old: Vec<_> = retaggings.iter().map(|retagging| retagging.old).collect();
        let held = held_snapshots(&repository, &old, &app.run)?;
        let is_held = |id: &SnapshotId| held.iter().any(|(held, _)| held == id);
        pairs.extend(old.iter().filter(|id| !is_held(id)).map(|id| (*id, None)));
        Ok(held)
    } else {
        let mut tell = |old, new| pairs.push((old, Some(new)));
        tag::apply(&repository, &retaggings, &app.run, &mut tell)
    };
    release(lock)?;
    for (old, new) in &pairs {
        let Some(Retagging { new: snapshot, .. }) = retaggings.iter().find(|it| it.old == *old)
        else {
            continue;
        };
        match app.output.is_json() {
            true => app.output.json(&json!({
                "message_type": "changed",
                "old_snapshot_id": old,
                "new_snapshot_id": new,
                "tags": snapshot.tags,
            }))?,
            false => {
                let new = new.map_or_else(String::new, |new| format!(" is now {}", new.short()));
                let tags = visible(snapshot.tags.join(",").as_bytes());
                app.output.summary(format_args!("{}{new}: {tags}", old.short()))?;
            }
        }
    }
    // What was changed until then is told first.
    let held = outcome?;
    match app.output.is_json() {
        true => app.output.json(&json!({
            "message_type": "summary",
            "changed_snapshots": pairs.len(),
            "held": immutable::held_json(&held),
            "dry_run": args.dry_run,
        }))?,
        false => {
            let would = if args.dry_run { "would change" } else { "changed" };
            let number = counted(pairs.len(), "snapshot");
            app.output.summary(format_args!("{would} the tags of {number}"))?;
        }
    }
    immutable::warn_of_held(app, &held);
    Ok(if held.is_empty() { Exit::Done } else { Exit::Partial })
}
