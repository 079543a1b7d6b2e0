//! `muster repo repair index`

use muster_repository::{
    id::PackId,
    lock::LockKind,
    repair::index::{IndexProposal, RepairIndexOptions, apply, propose},
};
use serde_json::json;

use super::super::{counted, release};
use crate::{
    app::App,
    error::{Failure, Outcome},
    exit::Exit,
    progress::Shape,
};

/// Arguments of `repair index`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Read the headers of all packs, also where the index seems right
    #[arg(long)]
    read_all_packs: bool,
    /// Only show what would change
    #[arg(short = 'n', long)]
    dry_run: bool,
}

const EXAMPLES: &str = "Packs that are cut short stay in the index until 'repair packs' has salvaged them; the exit code
is 5 then.

Examples:
  muster repo repair index --dry-run
  muster repo repair index";

/// How many packs of a sort are named without -v.
const SHOWN: usize = 5;

/// Repairs the index.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = match args.dry_run {
        true => app.lock_to_read(&repository)?,
        false => Some(app.lock(&repository, LockKind::Exclusive)?),
    };
    let options = RepairIndexOptions { read_all_packs: args.read_all_packs };
    let proposal = app.with_progress(Shape::Plain { items: "packs" }, || {
        propose(&repository, options, &app.run)
    })?;
    if !app.output.is_json() {
        show(app, &proposal)?;
    }
    let is_sound = proposal.is_empty();
    let to_salvage = proposal.to_salvage.clone();
    let mut result = json!({
        "message_type": "summary",
        "dry_run": args.dry_run,
        "packs": proposal.packs,
        "damaged_indexes": proposal.damaged.iter().map(|(file, _)| file.to_string()).collect::<Vec<_>>(),
        "packs_gone": proposal.gone,
        "packs_corrected": proposal.corrected,
        "packs_added": proposal.added,
        "packs_unreadable": proposal.unreadable.iter().map(|(pack, _)| pack).collect::<Vec<_>>(),
        "packs_to_salvage": proposal.to_salvage,
        "indexes_written": 0,
        "indexes_deleted": 0,
    });
    if !args.dry_run {
        let replaced = apply(&repository, proposal, &app.run)?;
        result["indexes_written"] = replaced.written.into();
        result["indexes_deleted"] = replaced.deleted.into();
    }
    release(lock)?;
    match (app.output.is_json(), is_sound, args.dry_run) {
        (true, ..) => app.output.json(&result)?,
        (_, true, _) => app.output.summary("the index says what packs there are: nothing to do")?,
        (_, _, true) => app.output.summary("nothing was changed")?,
        _ => app.output.summary(format_args!(
            "wrote {} and deleted {}",
            indexes(&result["indexes_written"]),
            indexes(&result["indexes_deleted"])
        ))?,
    }
    match to_salvage.is_empty() {
        true => Ok(Exit::Done),
        false => {
            let ids: Vec<_> = to_salvage.iter().map(PackId::to_hex).collect();
            app.output.warning(format_args!(
                "damaged packs stay in the index, which alone knows what is in them; run \
                 'muster repo repair packs {}'",
                ids.join(" ")
            ));
            Ok(Exit::Partial)
        }
    }
}

fn indexes(number: &serde_json::Value) -> String {
    match number.as_u64() {
        Some(1) => "1 index file".to_owned(),
        other => format!("{} index files", other.unwrap_or(0)),
    }
}

fn show(app: &App<'_>, proposal: &IndexProposal) -> Result<(), Failure> {
    for (file, reason) in &proposal.damaged {
        app.output.line(format_args!("{file}: damaged: {reason}"))?;
    }
    let sorts: [(&[PackId], &str); 3] = [
        (&proposal.gone, "in the index and not there"),
        (&proposal.corrected, "described wrongly in the index"),
        (&proposal.added, "there and in no index"),
    ];
    for (packs, what) in sorts {
        if packs.is_empty() {
            continue;
        }
        let mut ids: Vec<_> = packs.iter().take(SHOWN).map(PackId::short).collect();
        ids.extend((packs.len() > SHOWN).then(|| "…".to_owned()));
        app.output.line(format_args!(
            "{} {what}: {}",
            counted(packs.len(), "pack"),
            ids.join(", ")
        ))?;
        for pack in packs {
            app.output.verbose(format_args!("  {pack}"));
        }
    }
    for (pack, reason) in &proposal.unreadable {
        app.output.warning(format_args!("pack {pack} is in no index and was left alone: {reason}"));
    }
    Ok(())
}
