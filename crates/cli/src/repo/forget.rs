//! `muster repo forget`

use std::path::PathBuf;

use muster_control::retention::{Count, Policy, Proposal, Within};
use muster_operations::retention::{Found, Protected, propose};
use muster_repository::{
    forget::forget,
    format::time::Timestamp,
    id::SnapshotId,
    immutable::{HeldSnapshots, held_snapshots},
    lock::LockKind,
    repository::Repository,
    select::{self, GroupBy, GroupKey, parse_tag_list},
    storage::Retention,
};
use serde::Serialize;

use super::{
    counted, immutable, protection, prune, release, select_several,
    snapshots::{WithId, group_by, group_title},
};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome, Problem},
    exit::Exit,
    output::{local_time, table, visible},
    progress::Shape,
};

/// Arguments of `forget`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Remove these snapshots: ids, beginnings of ids, or 'latest'
    #[arg(value_name = "SNAPSHOT", conflicts_with = "Keep")]
    snapshots: Vec<String>,
    #[command(flatten)]
    keep: Keep,
    #[command(flatten)]
    which: Which,
    /// Only tell what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Show less: no paths
    #[arg(short, long)]
    compact: bool,
    /// Let a policy remove all snapshots of a group; without a policy, all that --host, --tag and
    /// --path choose
    #[arg(long)]
    unsafe_allow_remove_all: bool,
    /// Let snapshots go that the tag muster:hold protects
    #[arg(long)]
    release_hold: bool,
    /// Let recovery points of a plan go, although nobody looks here which of them were proven
    #[arg(long)]
    ignore_plan: bool,
    /// Prune afterwards, if any was removed
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    pub(super) how: prune::How,
}

/// The policy, in restic's words.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "What to keep of each group")]
#[group(multiple = true)]
struct Keep {
    /// The last N ('unlimited' for all)
    #[arg(short = 'l', long, value_name = "N", value_parser = count)]
    keep_last: Option<Count>,
    /// The last N that are the newest of their hour
    #[arg(short = 'H', long, value_name = "N", value_parser = count)]
    keep_hourly: Option<Count>,
    /// The last N that are the newest of their day
    #[arg(short = 'd', long, value_name = "N", value_parser = count)]
    keep_daily: Option<Count>,
    /// The last N that are the newest of their week
    #[arg(short = 'w', long, value_name = "N", value_parser = count)]
    keep_weekly: Option<Count>,
    /// The last N that are the newest of their month
    #[arg(short = 'm', long, value_name = "N", value_parser = count)]
    keep_monthly: Option<Count>,
    /// The last N that are the newest of their year
    #[arg(short = 'y', long, value_name = "N", value_parser = count)]
    keep_yearly: Option<Count>,
    /// All that are not older than this before the newest, as 1y5m7d2h (m is months)
    #[arg(long, value_name = "DURATION", value_parser = within)]
    keep_within: Option<Within>,
    /// The newest of each hour within this
    #[arg(long, value_name = "DURATION", value_parser = within)]
    keep_within_hourly: Option<Within>,
    /// The newest of each day within this
    #[arg(long, value_name = "DURATION", value_parser = within)]
    keep_within_daily: Option<Within>,
    /// The newest of each week within this
    #[arg(long, value_name = "DURATION", value_parser = within)]
    keep_within_weekly: Option<Within>,
    /// The newest of each month within this
    #[arg(long, value_name = "DURATION", value_parser = within)]
    keep_within_monthly: Option<Within>,
    /// The newest of each year within this
    #[arg(long, value_name = "DURATION", value_parser = within)]
    keep_within_yearly: Option<Within>,
    /// All with all of these tags (repeatable: any of the lists)
    #[arg(long, value_name = "TAG[,TAG…]")]
    keep_tag: Vec<String>,
}

/// Which snapshots the policy looks at. `-H` is restic's --keep-hourly here.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Which snapshots")]
struct Which {
    /// Only snapshots of this host (repeatable)
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Only snapshots with all of these tags (repeatable: any of the lists)
    #[arg(long, value_name = "TAG[,TAG…]")]
    tag: Vec<String>,
    /// Only snapshots of this absolute path (repeatable: of all of them)
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,
    /// Apply the policy to each group of the same host, paths, tags; empty for one group
    #[arg(short, long, value_name = "BY", default_value = "host,paths", value_parser = group_by)]
    group_by: GroupBy,
}

const EXAMPLES: &str = "The policy's words mean what they mean to restic. Partial and suspect \
snapshots are not counted, and
the last proven one of each group stays; so do recovery points of a plan, since which of them were
proven stands beside the plan: 'muster forget' removes those. Data goes with 'muster repo prune'.

Examples:
  muster repo forget --keep-daily 7 --keep-weekly 5 --dry-run
  muster repo forget --keep-within 30d --keep-monthly unlimited --prune
  muster repo forget 5f3a2c1b";

fn count(text: &str) -> Result<Count, String> {
    text.parse()
}

fn within(text: &str) -> Result<Within, String> {
    text.parse()
}

impl Keep {
    fn policy(&self) -> Policy {
        Policy {
            last: self.keep_last.unwrap_or_default(),
            hourly: self.keep_hourly.unwrap_or_default(),
            daily: self.keep_daily.unwrap_or_default(),
            weekly: self.keep_weekly.unwrap_or_default(),
            monthly: self.keep_monthly.unwrap_or_default(),
            yearly: self.keep_yearly.unwrap_or_default(),
            within: self.keep_within.unwrap_or_default(),
            within_hourly: self.keep_within_hourly.unwrap_or_default(),
            within_daily: self.keep_within_daily.unwrap_or_default(),
            within_weekly: self.keep_within_weekly.unwrap_or_default(),
            within_monthly: self.keep_within_monthly.unwrap_or_default(),
            within_yearly: self.keep_within_yearly.unwrap_or_default(),
            tags: self.keep_tag.iter().map(|list| parse_tag_list(list)).collect(),
        }
    }
}

impl Which {
    fn filter(&self) -> FilterArgs {
        let Self { host, tag, path, .. } = self.clone();
        FilterArgs { host, tag, path }
    }
}

/// The snapshots of a group, and what shall become of them.
struct Group {
    key: GroupKey,
    snapshots: Vec<Found>,
    proposal: Proposal<SnapshotId>,
}

impl Group {
    fn find(&self, id: SnapshotId) -> &Found {
        let found = self.snapshots.iter().find(|(own, _)| *own == id);
        found.expect("a proposal names only snapshots of its group")
    }
}

/// Removes snapshots.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let policy = args.keep.policy();
    refuse_nonsense(args, &policy, app)?;
    let repository = app.open()?;
    let lock = match args.dry_run {
        true => app.lock_to_read(&repository)?,
        false => Some(app.lock(&repository, LockKind::Exclusive)?),
    };
    let all = repository.snapshots()?;
    let protected = protection::protected(&all, args.release_hold, args.ignore_plan);
    let wanted = select_several(app, &repository, &args.snapshots, &args.which.filter())?;
    let (groups, named, remove, relied_upon) = match args.snapshots.is_empty() {
        true => {
            let groups = groups(args, &policy, wanted, &protected, app)?;
            let (remove, relied_upon) = totals(&groups);
            (groups, Vec::new(), remove, relied_upon)
        }
        false => {
            let ids: Vec<SnapshotId> = wanted.iter().map(|(id, _)| *id).collect();
            match protection::refusal("remove", "nothing was removed", &ids, &protected) {
                Some(refusal) => return Err(refusal),
                None => (Vec::new(), wanted, ids, Vec::new()),
            }
        }
    };
    if !app.output.is_json() && !app.output.is_quiet() {
        groups.iter().try_for_each(|group| print_group(app, group, args.compact))?;
    }
    let (exit, stays) = match &lock {
        Some(lock) if !args.dry_run => {
            let report = app.with_progress(Shape::Plain { items: "snapshots" }, || {
                forget(&repository, lock, &remove, &relied_upon, &app.run)
            })?;
            for id in &report.removed {
                app.output.verbose(format_args!("removed {}", id.short()));
            }
            let failures = report.failed.iter().map(|(_, error)| Failure::of(error));
            let exit = failures.fold(None, |_, failure| Some(app.output.failure(&failure)));
            let failed = report.failed.iter().map(|(id, _)| *id).collect();
            (exit, Stays { held: report.held, failed })
        }
        _ => {
            let held = held_snapshots(&repository, &remove, &app.run)?;
            (None, Stays { held, failed: Vec::new() })
        }
    };
    release(lock)?;
    immutable::warn_of_held(app, &stays.held);
    let is_gone = |id: &SnapshotId| stays.retention(id).is_none() && !stays.failed.contains(id);
    let gone: Vec<SnapshotId> = remove.into_iter().filter(is_gone).collect();
    tell_named(app, args, &named, &gone)?;
    tell(app, args, &groups, gone.len(), &stays)?;
    prune_after(app, args, &repository, gone, exit)
}

/// What was to be removed and stays.
struct Stays {
    /// The store holds it.
    held: HeldSnapshots,
    /// The store did not let it go, and that was told.
    failed: Vec<SnapshotId>,
}

impl Stays {
    fn retention(&self, id: &SnapshotId) -> Option<&Retention> {
        self.held.iter().find(|(held, _)| held == id).map(|(_, retention)| retention)
    }
}

fn refuse_nonsense(args: &Args, policy: &Policy, app: &App<'_>) -> Result<(), Failure> {
    let what = "choose snapshots to remove: ";
    if app.settings.no_lock && !args.dry_run {
        return Err(Failure::usage("remove snapshots without a lock")
            .help("--no-lock goes with --dry-run only"));
    }
    if !args.snapshots.is_empty() || !policy.is_empty() {
        return Ok(());
    }
    let Which { host, tag, path, .. } = &args.which;
    match (args.unsafe_allow_remove_all, host.is_empty() && tag.is_empty() && path.is_empty()) {
        (true, false) => Ok(()),
        (true, true) => Err(Failure::usage(format!("{what}that would be all of them"))
            .help("name some with --host, --tag or --path")),
        (false, _) => Err(Failure::usage(format!("{what}there is no policy"))
            .help("say what to keep, as in --keep-daily 7 --keep-weekly 5")),
    }
}

fn groups(
    args: &Args,
    policy: &Policy,
    wanted: Vec<Found>,
    protected: &Protected,
    app: &App<'_>,
) -> Result<Vec<Group>, Failure> {
    let now = jiff::Timestamp::from_second(app.environment.now().seconds()).unwrap_or_default();
    let mut groups = Vec::new();
    for (key, snapshots) in select::group(wanted, args.which.group_by) {
        let proposal = propose(&snapshots, policy, protected, now);
        if proposal.keep.is_empty() && !args.unsafe_allow_remove_all {
            let message =
                format!("apply the policy: nothing would be left of ({})", group_title(&key));
            return Err(Failure::new(Problem::NothingKept, message)
                .help("nothing was removed; keep some, or say --unsafe-allow-remove-all"));
        }
        groups.push(Group { key, snapshots, proposal });
    }
    Ok(groups)
}

/// What goes, and what must be there for that.
fn totals(groups: &[Group]) -> (Vec<SnapshotId>, Vec<SnapshotId>) {
    let remove = groups.iter().flat_map(|group| group.proposal.remove.iter().copied());
    let keep = groups.iter().flat_map(|group| group.proposal.keep.iter().map(|kept| kept.id));
    (remove.collect(), keep.collect())
}

fn print_group(app: &App<'_>, group: &Group, compact: bool) -> Result<(), Failure> {
    let Group { key, proposal, .. } = group;
    let title = group_title(key);
    if !title.is_empty() {
        app.output.line(format_args!("snapshots for ({title}):"))?;
    }
    let lines = |list: &[String]| {
        list.iter().map(|item| visible(item.as_bytes())).collect::<Vec<_>>().join("\n")
    };
    let row = |id: SnapshotId, reasons: Option<&[String]>| {
        let (_, snapshot) = group.find(id);
        let mut row = vec![
            id.short(),
            local_time(&snapshot.time, &app.environment.zone),
            visible(snapshot.hostname.as_bytes()),
            lines(&snapshot.tags),
        ];
        row.extend(reasons.map(lines));
        row.extend((!compact).then(|| lines(&snapshot.paths)));
        row
    };
    let mut header = vec!["ID", "Time", "Host", "Tags"];
    header.extend((!compact).then_some("Paths"));
    if !proposal.keep.is_empty() {
        let mut header = header.clone();
        header.insert(4, "Reasons");
        let mut table = table(&header);
        for kept in proposal.keep.iter().rev() {
            table.add_row(row(kept.id, Some(kept.reasons.as_slice())));
        }
        app.output.line(format_args!("keep {}:", counted(proposal.keep.len(), "snapshot")))?;
        app.output.line(table)?;
    }
    if !proposal.remove.is_empty() {
        let mut table = table(&header);
        for id in proposal.remove.iter().rev() {
            table.add_row(row(*id, None));
        }
        app.output.line(format_args!("remove {}:", counted(proposal.remove.len(), "snapshot")))?;
        app.output.line(table)?;
    }
    app.output.line("")
}

/// One group, as restic prints it.
#[derive(Serialize)]
struct GroupJson<'a> {
    tags: Option<&'a [String]>,
    host: &'a str,
    paths: Option<&'a [String]>,
    keep: Option<Vec<WithId<'a>>>,
    remove: Option<Vec<WithId<'a>>>,
    /// What was to be removed and stays, since the store holds it; only where there is some.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Vec<HeldJson<'a>>>,
    /// What was to be removed and stays, since the store did not let it go; only where there is
    /// some.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<Vec<WithId<'a>>>,
    reasons: Option<Vec<ReasonJson<'a>>>,
}

#[derive(Serialize)]
struct HeldJson<'a> {
    snapshot: WithId<'a>,
    immutable_until: Option<Timestamp>,
}

#[derive(Serialize)]
struct ReasonJson<'a> {
    snapshot: WithId<'a>,
    matches: &'a [String],
}

impl<'a> GroupJson<'a> {
    fn new(group: &'a Group, stays: &Stays) -> Self {
        fn filled<T>(list: Vec<T>) -> Option<Vec<T>> {
            (!list.is_empty()).then_some(list)
        }
        let with_id = |id: SnapshotId| WithId::new(id, &group.find(id).1);
        let keep = group.proposal.keep.iter();
        let reason = |kept: &'a muster_control::retention::Kept<SnapshotId>| ReasonJson {
            snapshot: with_id(kept.id),
            matches: &kept.reasons,
        };
        let remove = group.proposal.remove.iter().copied();
        let (held, rest): (Vec<SnapshotId>, Vec<SnapshotId>) =
            remove.partition(|id| stays.retention(id).is_some());
        let (failed, go): (Vec<SnapshotId>, Vec<SnapshotId>) =
            rest.into_iter().partition(|id| stays.failed.contains(id));
        let held_json = |id: &SnapshotId| HeldJson {
            snapshot: with_id(*id),
            immutable_until: stays.retention(id).and_then(|retention| retention.until),
        };
        Self {
            tags: Some(&group.key.tags[..]).filter(|tags| !tags.is_empty()),
            host: &group.key.hostname,
            paths: Some(&group.key.paths[..]).filter(|paths| !paths.is_empty()),
            keep: filled(keep.clone().map(|kept| with_id(kept.id)).collect()),
            remove: filled(go.iter().map(|id| with_id(*id)).collect()),
            held: filled(held.iter().map(held_json).collect()),
            failed: filled(failed.iter().map(|id| with_id(*id)).collect()),
            reasons: filled(keep.map(reason).collect()),
        }
    }
}

/// What went of the snapshots that were named. Those of a policy stand in its tables.
fn tell_named(
    app: &App<'_>,
    args: &Args,
    named: &[Found],
    gone: &[SnapshotId],
) -> Result<(), Failure> {
    if app.output.is_json() {
        return Ok(());
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for (id, snapshot) in named.iter().filter(|(id, _)| gone.contains(id)) {
        app.output.summary(format_args!(
            "{verb} {} of {} by {}: {}",
            id.short(),
            local_time(&snapshot.time, &app.environment.zone),
            visible(snapshot.hostname.as_bytes()),
            visible(snapshot.paths.join(", ").as_bytes()),
        ))?;
    }
    Ok(())
}

fn tell(
    app: &App<'_>,
    args: &Args,
    groups: &[Group],
    removed: usize,
    stays: &Stays,
) -> Result<(), Failure> {
    if app.output.is_json() {
        // Of snapshots that are named restic prints nothing.
        return match args.snapshots.is_empty() {
            true => {
                let groups = groups.iter().map(|group| GroupJson::new(group, stays));
                app.output.json(&groups.collect::<Vec<_>>())
            }
            false => Ok(()),
        };
    }
    let would = if args.dry_run { "would have " } else { "" };
    app.output.summary(format_args!("{would}removed {}", counted(removed, "snapshot")))
}

fn prune_after(
    app: &App<'_>,
    args: &Args,
    repository: &Repository,
    removed: Vec<SnapshotId>,
    exit: Option<Exit>,
) -> Outcome {
    match exit {
        Some(failed) => Ok(failed),
        None if args.prune && !removed.is_empty() => {
            prune::perform(app, repository, &args.how, args.dry_run, removed)
        }
        None => Ok(Exit::Done),
    }
}
