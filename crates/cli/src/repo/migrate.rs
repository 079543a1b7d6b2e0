//! `muster repo migrate`

use std::{fs, io::Write as _, path::PathBuf};

use clap::ValueHint;
use muster_repository::{
    lock::LockKind,
    migrate::{UPGRADE_TO_V2, apply, check_first, propose},
};
use serde_json::json;

use super::{counted, release};
use crate::{
    app::App,
    error::{Failure, Outcome, Problem},
    exit::Exit,
    progress::Shape,
};

/// Arguments of `migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to apply: upgrade_repo_v2; without it, what can be applied is listed
    #[arg(value_parser = [UPGRADE_TO_V2])]
    migration: Option<String>,
    /// Do not check the repository first
    #[arg(short, long)]
    force: bool,
    /// Keep the copy of the old config in this folder [default: the current one]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    keep_in: Option<PathBuf>,
    /// Check, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

const EXAMPLES: &str =
    "upgrade_repo_v2 lets a repository of version 1 compress what is stored from \
then on.
restic before 0.14 cannot read it any more.

Examples:
  muster repo migrate
  muster repo migrate upgrade_repo_v2";

/// Lists or applies migrations.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = match args.migration.is_some() && !args.dry_run {
        false => app.lock_to_read(&repository)?,
        true => Some(app.lock(&repository, LockKind::Exclusive)?),
    };
    let Some(migration) = propose(&repository)? else {
        release(lock)?;
        return told(app, args, false, "nothing to migrate: the repository has version 2");
    };
    if args.migration.is_none() {
        release(lock)?;
        return told(app, args, false, &format!("can be applied: {UPGRADE_TO_V2}"));
    }
    if !args.force {
        let report = app.with_progress(Shape::Plain { items: "trees" }, || {
            check_first(&repository, &app.run)
        })?;
        if !report.is_clean() {
            let damages = counted(report.damages.len(), "damage");
            return Err(Failure::new(
                Problem::FileDamaged,
                format!("migrate the repository: the check found {damages}"),
            )
            .help("see 'muster repo check', repair it first, or give --force"));
        }
    }
    if args.dry_run {
        release(lock)?;
        return told(app, args, false, "can be applied; nothing was changed");
    }
    let copy = keep(args, app, &repository.config().id, &migration.old_config)?;
    apply(&repository, &migration, &app.run)?;
    release(lock)?;
    told(
        app,
        args,
        true,
        &format!("the repository has version 2 now; its old config is in {}", copy.display()),
    )
}

fn told(app: &App<'_>, args: &Args, applied: bool, text: &str) -> Outcome {
    match app.output.is_json() {
        true => app.output.json(&json!({
            "message_type": "summary",
            "migration": args.migration,
            "applied": applied,
            "message": text,
        }))?,
        false => app.output.summary(text)?,
    }
    Ok(Exit::Done)
}

/// Writes a durable copy of the sealed config: should a store lose the old one and not take the
/// new one, this under the name `config` brings the repository back.
fn keep(args: &Args, app: &App<'_>, id: &str, content: &[u8]) -> Result<PathBuf, Failure> {
    let folder = args.keep_in.clone().unwrap_or_else(|| PathBuf::from("."));
    let path = folder.join(format!("config-v1-{}", &id[..8.min(id.len())]));
    let write = || {
        if fs::read(&path).is_ok_and(|there| there == content) {
            return Ok(());
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::File::open(&folder)?.sync_all()
    };
    app.output.verbose(format_args!("keeping the old config in {}", path.display()));
    write().map(|()| path.clone()).map_err(|error: std::io::Error| {
        Failure::new(Problem::CopyNotKept, format!("keep a copy of config in {}", path.display()))
            .caused_by(&error)
            .help("choose another folder with --keep-in")
    })
}
