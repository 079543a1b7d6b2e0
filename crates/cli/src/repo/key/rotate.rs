//! `muster repo key rotate`: a new data key.
//!
//! A round brings what the new repository lacks. `--status` only tells. `--finish` reads the new
//! one back while backups still run, then keeps them out for as long as the last snapshots and
//! the proof take. "Finished" is said of nothing else than that proof.

use std::ffi::OsString;

use clap::ValueHint;
use muster_model::units::format_size;
use muster_repository::{
    check::{CheckOptions, CheckReport, ReadData, check},
    copy::{CopyReport, Target, copy},
    format::key_file::Cost,
    keys::{self, KeyInfo},
    lock::{Lock, LockKind},
    repository::Repository,
    rotate::{Proof, Standing, begin, compare, open, verify},
    run::Run,
};
use serde_json::{Value, json};

use super::{NewArgs, proven};
use crate::{
    app::App,
    error::{Failure, Outcome},
    exit::Exit,
    location,
    output::visible,
    password::Password,
    progress::{COPY, Shape},
    repo::{counted, release},
    warm_up::WarmUpArgs,
};

/// Arguments of `key rotate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder or URL of the new repository; it is made when there is none
    #[arg(long, value_name = "PLACE", value_hint = ValueHint::DirPath)]
    into: OsString,
    /// Bring the last snapshots while nobody backs up, and prove that nothing is missing
    #[arg(long)]
    finish: bool,
    /// Tell what is missing, and change nothing
    #[arg(short = 'n', long, visible_alias = "dry-run", conflicts_with = "finish")]
    status: bool,
    /// With --finish, read back only this much: n/t (part n of t), a percentage, or a size
    /// [default: everything]
    #[arg(long, value_name = "PART", requires = "finish", value_parser = subset)]
    read_data_subset: Option<ReadData>,
    #[command(flatten)]
    new: NewArgs,
    #[command(flatten)]
    pub(in crate::repo) warm_up: WarmUpArgs,
}

const EXAMPLES: &str = "The old repository stays in use and is not changed; run this as often as \
you like. The new one
opens with the password in use, or with a new one; other passwords have to be added again.

Examples:
  muster repo -r /backup/repo key rotate --into /backup/repo-2
  muster repo -r /backup/repo key rotate --into /backup/repo-2 --status
  muster repo -r /backup/repo key rotate --into /backup/repo-2 --finish";

fn subset(text: &str) -> Result<ReadData, muster_repository::check::UnknownSubset> {
    text.parse()
}

/// The two repositories, the old one's lock, and the lock on the new one.
struct Pair {
    old: Repository,
    new: Repository,
    keys: Vec<KeyInfo>,
    new_lock: Option<Lock>,
}

/// Rotates, or tells how far that is.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let settings = &app.settings;
    let hint = settings.key_hint.as_deref();
    let (old, in_use) = app.open_found(settings.named(), settings.password(), hint)?;
    let password = args.new.password().without_asking()?.unwrap_or(in_use);
    let (pair, old_lock) = pair(args, app, old, &password)?;
    if args.status {
        let standing = compare(&pair.old, &pair.new)?;
        release(old_lock)?;
        release(pair.new_lock)?;
        return tell_status(app, &pair.old, &pair.new, &standing, &pair.keys);
    }
    let run = args.warm_up.run(app);
    let mut report = round(app, &pair, &run)?;
    if !args.finish {
        let standing = compare(&pair.old, &pair.new)?;
        release(old_lock)?;
        release(pair.new_lock)?;
        return tell_round(app, &pair.old, &pair.new, &report, &standing);
    }
    let sound = match args.read_data_subset {
        None => Some(read_back(app, &pair.new, &run)?),
        Some(_) => None,
    };
    release(old_lock)?;
    let alone = app.lock(&pair.old, LockKind::Exclusive)?;
    let last = round(app, &pair, &run)?;
    report.copied.extend(last.copied);
    report.failed = last.failed;
    let proof = app.with_progress(Shape::Plain { items: "packs" }, || {
        let read_data = args.read_data_subset.unwrap_or(ReadData::All);
        verify(&pair.old, &pair.new, read_data, sound.as_ref(), &run)
    })?;
    release(Some(alone))?;
    release(pair.new_lock)?;
    let read = sound.map_or(0, |sound| sound.counts.bytes_read) + proof.check.counts.bytes_read;
    tell_proof(app, &pair.old, &pair.new, &report, &proof, read, &pair.keys)
}

fn pair(
    args: &Args,
    app: &App<'_>,
    old: Repository,
    password: &Password,
) -> Result<(Pair, Option<Lock>), Failure> {
    let storage = app.storage(location::Named {
        repo: Some(&args.into),
        file: None,
        flag: "--into",
        variables: ["MUSTER_REPOSITORY", "RESTIC_REPOSITORY"],
    })?;
    let (old_lock, new, new_lock) = if args.status {
        let old_lock = app.lock_to_read(&old)?;
        let new = open(&old, storage, password)?;
        let new_lock = app.lock_to_read(&new)?;
        (old_lock, new, new_lock)
    } else {
        let old_lock = app.lock(&old, LockKind::Shared)?;
        let new = begin(&old, storage, password, Cost::STANDARD, args.new.author(app))?;
        let new_lock = app.lock(&new, LockKind::Shared)?;
        (Some(old_lock), new, Some(new_lock))
    };
    let keys = keys::list_keys(&old)?.keys.into_iter().filter(|key| !key.current).collect();
    Ok((Pair { old, new, keys, new_lock }, old_lock))
}

/// Brings what the new repository lacks.
fn round(app: &App<'_>, pair: &Pair, run: &Run) -> Result<CopyReport, Failure> {
    let snapshots = pair.old.snapshots()?;
    let source = app.load_index_for(&pair.old, run)?;
    let target = match &pair.new_lock {
        Some(lock) => Target::open(&pair.new, lock, run)?,
        None => app.load_index(&pair.new)?.into(),
    };
    let options = app.pack_options(false);
    Ok(app.with_progress(COPY, || copy(&source, target, &snapshots, options, run, &mut |_| {}))?)
}

/// Reads the new repository back, while backups may still run into the old one.
fn read_back(app: &App<'_>, new: &Repository, run: &Run) -> Result<CheckReport, Failure> {
    let options = CheckOptions { read_data: ReadData::All };
    let shape = Shape::Plain { items: "packs" };
    Ok(app.with_progress(shape, || check(new, &options, run))?)
}

fn tell_status(
    app: &App<'_>,
    old: &Repository,
    new: &Repository,
    standing: &Standing,
    keys: &[KeyInfo],
) -> Outcome {
    let finished = proven::covers(app, old, new, standing);
    if app.output.is_json() {
        app.output.json(&as_json(old, new, standing, keys, json!({"finished": finished})))?;
    } else {
        tell_standing(app, standing)?;
        app.output.line(match (finished, standing.missing.is_empty()) {
            (true, _) => {
                "finished: --finish proved that all of it is there, and nothing has come since"
            }
            (false, true) => {
                "nothing is missing, and no proof of it is noted here: --finish makes one"
            }
            (false, false) => "not finished: run it again, then with --finish",
        })?;
    }
    Ok(if standing.missing.is_empty() { Exit::Done } else { Exit::Partial })
}

fn tell_standing(app: &App<'_>, standing: &Standing) -> Result<(), Failure> {
    let all = standing.there.len() + standing.missing.len();
    app.output.line(format_args!(
        "{} of {} of the old repository in the new one",
        standing.there.len(),
        counted(all, "snapshot"),
    ))?;
    for id in &standing.missing {
        app.output.line(format_args!("missing: {}", id.short()))?;
    }
    for id in &standing.only_new {
        app.output.line(format_args!(
            "only in the new one: {} (forgotten or changed in the old one since, or made here)",
            id.short(),
        ))?;
    }
    Ok(())
}

fn tell_round(
    app: &App<'_>,
    old: &Repository,
    new: &Repository,
    report: &CopyReport,
    standing: &Standing,
) -> Outcome {
    if app.output.is_json() {
        let more = json!({
            "finished": false,
            "copied": report.copied.len(),
            "data_added": report.stats.plaintext_bytes,
            "data_added_packed": report.stats.sealed_bytes,
        });
        app.output.json(&as_json(old, new, standing, &[], more))?;
    } else {
        app.output.summary(format_args!(
            "sealed {} anew ({} stored), {} there already",
            counted(report.copied.len(), "snapshot"),
            format_size(report.stats.sealed_bytes),
            report.skipped.len(),
        ))?;
        app.output.message(
            "not finished: backups go on into the old repository. Run it again to bring what \
             comes,\nand with --finish before you change over.",
        );
    }
    tell_failed(app, report)
}

fn tell_failed(app: &App<'_>, report: &CopyReport) -> Outcome {
    let mut exit = Exit::Done;
    for (id, error) in &report.failed {
        let mut failure = Failure::of(error);
        failure.message = format!("seal snapshot {id} anew: {}", failure.message);
        exit = app.output.failure(&failure);
    }
    Ok(exit)
}

fn tell_proof(
    app: &App<'_>,
    old: &Repository,
    new: &Repository,
    report: &CopyReport,
    proof: &Proof,
    bytes_read: u64,
    keys: &[KeyInfo],
) -> Outcome {
    let standing = &proof.standing;
    let finished = proof.is_complete();
    if finished {
        proven::note(app, old, new, standing);
    }
    if app.output.is_json() {
        let more = json!({
            "finished": finished,
            "copied": report.copied.len(),
            "damages": proof.check.damages.len(),
            "bytes_read": bytes_read,
        });
        app.output.json(&as_json(old, new, standing, keys, more))?;
    } else {
        tell_standing(app, standing)?;
        match finished {
            true => tell_next(app, old, new, bytes_read, keys)?,
            false => app.output.line("not finished: see what is missing or damaged")?,
        }
    }
    let exit = tell_failed(app, report)?;
    Ok(match (finished, proof.check.is_clean()) {
        (true, _) => exit,
        (false, true) => exit.and(Exit::Partial),
        (false, false) => {
            let damages = counted(proof.check.damages.len(), "damage");
            let failure =
                Failure::damaged(format!("finish the rotation: the new one has {damages}"))
                    .help("see 'muster repo check --read-data' of the new repository");
            exit.and(app.output.failure(&failure))
        }
    })
}

fn tell_next(
    app: &App<'_>,
    old: &Repository,
    new: &Repository,
    bytes_read: u64,
    keys: &[KeyInfo],
) -> Result<(), Failure> {
    let (old, new) = (old.storage().location(), new.storage().location());
    app.output.line(format_args!(
        "finished: everything of {old} is in {new} under a new key; {} read back",
        format_size(bytes_read),
    ))?;
    for key in keys {
        let (user, host) = (visible(key.username.as_bytes()), visible(key.hostname.as_bytes()));
        app.output.line(format_args!(
            "add again with 'key add', if it is still wanted: the password of {user} on {host} \
             ({})",
            key.id.short(),
        ))?;
    }
    app.output.message(format_args!(
        "\nNext:\n  - put {new} where the plan and scripts name the old one, and back up once\n  \
         - run this with --status: nothing may have come into the old one since\n  \
         - delete the old one when you need it no more: whoever has its key reads every copy \
         of\n    its files, wherever they are"
    ));
    Ok(())
}

fn as_json(
    old: &Repository,
    new: &Repository,
    standing: &Standing,
    keys: &[KeyInfo],
    more: Value,
) -> Value {
    let keys: Vec<Value> = keys
        .iter()
        .map(|key| json!({"id": key.id, "userName": key.username, "hostName": key.hostname}))
        .collect();
    let mut value = json!({
        "message_type": "rotation",
        "old": old.storage().location(),
        "new": new.storage().location(),
        "there": standing.there.len(),
        "missing": standing.missing,
        "only_new": standing.only_new,
        "keys_to_add": keys,
    });
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}
