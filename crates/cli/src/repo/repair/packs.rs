//! `muster repo repair packs`

use std::path::PathBuf;

use clap::ValueHint;
use muster_repository::{
    id::PackId,
    lock::LockKind,
    repair::packs::{PackFinding, PacksProposal, PacksReport, apply, keep_copy, propose},
};
use serde_json::{Value, json};

use super::super::{counted, release};
use crate::{
    app::App,
    error::{Failure, Outcome},
    exit::Exit,
    progress::Shape,
};

/// Arguments of `repair packs`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Packs, by their whole ids, as 'muster repo check --read-data' names them
    #[arg(value_name = "ID", required = true, value_parser = pack)]
    packs: Vec<PackId>,
    /// Where to keep copies of the damaged packs [default: the current folder]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    keep_in: Option<PathBuf>,
    /// Keep no copies: what is damaged is gone for good
    #[arg(long, conflicts_with = "keep_in")]
    discard: bool,
    /// Only show what would change
    #[arg(short = 'n', long)]
    dry_run: bool,
}

const EXAMPLES: &str = "Examples:
  muster repo repair packs 88bd4569e3b9e5a8d31f6c0f4a6ffcf3c1f3b07d9bd3ac0cb3e8a4d5f11c2b7a
  muster repo repair packs --keep-in /mnt/elsewhere $(muster repo check --read-data --json |
    jq -r '.broken_packs[]')";

fn pack(text: &str) -> Result<PackId, &'static str> {
    let name = text.rsplit_once('/').map_or(text, |(_, name)| name);
    PackId::parse(name).ok_or("the whole id of a pack has 64 hexadecimal digits")
}

/// Repairs packs.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = match args.dry_run {
        true => app.lock_to_read(&repository)?,
        false => Some(app.lock(&repository, LockKind::Exclusive)?),
    };
    let repository = app.load_index(&repository)?;
    let shape = Shape::Plain { items: "packs" };
    let proposal = app.with_progress(shape, || propose(&repository, &args.packs, &app.run))?;
    if !app.output.is_json() {
        show(app, &proposal)?;
    }
    let mut report = PacksReport::default();
    let mut copies = Vec::new();
    if !args.dry_run {
        if !args.discard {
            let folder = args.keep_in.clone().unwrap_or_else(|| PathBuf::from("."));
            let there = proposal.damaged().filter(|finding| finding.bytes.is_some());
            for finding in there {
                copies.push(keep_copy(repository.storage().as_ref(), finding.pack, &folder)?);
            }
        }
        let options = app.pack_options(false);
        report = app.with_progress(shape, || apply(&repository, &proposal, options, &app.run))?;
    }
    release(lock)?;
    match app.output.is_json() {
        true => app.output.json(&json!({
            "message_type": "summary",
            "dry_run": args.dry_run,
            "packs": proposal.packs.iter().map(to_json).collect::<Vec<_>>(),
            "copies": copies,
            "packs_deleted": report.deleted,
            "blobs_salvaged": report.stats.data_blobs + report.stats.tree_blobs,
        }))?,
        false => {
            for path in &copies {
                app.output.summary(format_args!("a copy is in {}", path.display()))?;
            }
            summarise(app, args, &proposal, &report)?;
        }
    }
    Ok(Exit::Done)
}

fn summarise(
    app: &App<'_>,
    args: &Args,
    proposal: &PacksProposal,
    report: &PacksReport,
) -> Result<(), Failure> {
    let damaged = proposal.damaged().count();
    match (damaged, args.dry_run) {
        (0, _) => app.output.summary("nothing is wrong with them: nothing to do"),
        (_, true) => app.output.summary("nothing was changed"),
        _ => {
            let blobs = report.stats.data_blobs + report.stats.tree_blobs;
            app.output.summary(format_args!(
                "took {} out and stored {} from there anew",
                counted(damaged, "pack"),
                counted(blobs, "blob")
            ))?;
            let lost: usize = proposal.packs.iter().map(PackFinding::lost_for_good).sum();
            match lost {
                0 => app.output.summary("nothing is lost"),
                _ => app.output.summary(format_args!(
                    "{} lost: a full backup stores again what is still at its source; then \
                     'muster repo repair snapshots' cuts the rest out",
                    counted(lost, "blob")
                )),
            }
        }
    }
}

fn show(app: &App<'_>, proposal: &PacksProposal) -> Result<(), Failure> {
    for finding in &proposal.packs {
        let pack = finding.pack.short();
        if finding.is_sound() {
            app.output.line(format_args!("pack {pack} is sound and stays"))?;
            continue;
        }
        let problem = finding.problem.as_deref().unwrap_or("some of its blobs are damaged");
        app.output.line(format_args!(
            "pack {pack}: {problem}; {} sound, {} damaged, {} of these nowhere else",
            counted(finding.sound.len(), "blob"),
            finding.lost.len(),
            finding.lost_for_good(),
        ))?;
    }
    Ok(())
}

fn to_json(finding: &PackFinding) -> Value {
    let blob = |(kind, id, elsewhere): &(muster_repository::format::pack::BlobKind, _, bool)| json!({"type": kind, "id": id, "elsewhere": elsewhere});
    json!({
        "id": finding.pack,
        "size_bytes": finding.bytes,
        "problem": finding.problem,
        "sound_blobs": finding.sound.len(),
        "damaged_blobs": finding.lost.iter().map(|lost: &(_, muster_repository::id::BlobId, bool)| blob(lost)).collect::<Vec<_>>(),
    })
}
