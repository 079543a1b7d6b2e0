//! `muster restore`

use std::path::PathBuf;

use clap::{ValueEnum, ValueHint};
use muster_model::{Fault as _, units::format_size};
use muster_operations::restore::{self, Restoration, RestoreRequest, RestoredItem};
use muster_sources::RestoreSettings;
use serde::Serialize;

use super::{heeding_signals, moment, moments, open_to_read};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, PARTIAL, visible, visible_path},
    progress::{self, Shape},
    workspace::PlanArgs,
};

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A service (each data item into a folder of its own) or one data item (straight into DIR)
    #[arg(value_name = "SERVICE[/DATA]")]
    name: String,
    /// The folder; made when it does not exist, refused when it is not empty
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    to: PathBuf,
    /// The newest point at or before this time
    #[arg(long, value_name = "TIME", conflicts_with = "point")]
    at: Option<String>,
    /// This point
    #[arg(long, value_name = "ID")]
    point: Option<String>,
    /// What to do about files that are there already
    #[arg(long, value_name = "WHEN", default_value = "refuse")]
    overwrite: Overwrite,
    /// Remove what is in DIR and not in the point
    #[arg(long)]
    delete: bool,
    /// A point that left something out will do
    #[arg(long)]
    accept_partial: bool,
}

const EXAMPLES: &str = "Examples:
  muster restore orders/db --to ./look
  muster restore orders --at '2026-11-20 14:00' --to ./look
  muster restore orders/uploads --to ./look --overwrite if-changed";

/// What to do about files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Overwrite {
    /// Refuse to begin.
    Refuse,
    /// Replace everything.
    Always,
    /// Replace what differs.
    IfChanged,
    /// Replace what is older.
    IfNewer,
    /// Replace nothing.
    Never,
}

impl From<Overwrite> for muster_repository::restore::Overwrite {
    fn from(overwrite: Overwrite) -> Self {
        match overwrite {
            Overwrite::Refuse => Self::Refuse,
            Overwrite::Always => Self::Always,
            Overwrite::IfChanged => Self::IfChanged,
            Overwrite::IfNewer => Self::IfNewer,
            Overwrite::Never => Self::Never,
        }
    }
}

#[derive(Serialize)]
struct Restored<'a> {
    #[serde(flatten)]
    used: &'a muster_model::drill::PointUsed,
    path: String,
    files: u64,
    /// Whether the point itself is without something.
    partial: bool,
    left_out: &'a [String],
    /// Whether something is left out because this copy is damaged.
    damaged: bool,
    skipped: &'a [String],
}

/// Brings data back.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let mut reader = open_to_read(plan, output)?;
    let request = RestoreRequest {
        name: args.name.clone(),
        to: args.to.clone(),
        at: moment(args.at.as_ref())?,
        point: args.point.clone(),
        accept_partial: args.accept_partial,
        settings: RestoreSettings {
            overwrite: args.overwrite.into(),
            delete: args.delete,
            verify: false,
        },
    };
    let run = heeding_signals(&reader.planned)?;
    let shape = Shape::Plain { items: "files" };
    let done = progress::shown(output, &run.progress, shape, || {
        restore::restore_by(&mut reader, &request, &run)
    });
    if let Some(trouble) = &reader.trouble {
        output.warning(trouble);
    }
    let done = done?;
    for unread in &done.unread {
        output.warning(unread);
    }
    tell(&done.items, output)?;
    for (data, error) in &done.failed {
        let failure = Failure::of(error);
        let message = format!("restore {data}: {}", failure.message);
        output.failure(&Failure { message, ..failure });
    }
    Ok(exit(&done))
}

/// The worst of all data items; what was restored beside a failure makes it one in part.
fn exit(done: &Restoration) -> Exit {
    let restored = done.items.iter().map(|item| match &item.restored {
        restored if restored.damaged => Exit::Damaged,
        restored if !restored.left_out.is_empty() => Exit::Partial,
        _ => Exit::Done,
    });
    let failed = done.failed.iter().map(|(_, error)| Exit::beside(error.class()));
    restored.chain(failed).fold(Exit::Done, Exit::and)
}

fn tell(items: &[RestoredItem], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        let item = |item: &'_ RestoredItem| -> serde_json::Value {
            serde_json::json!(Restored {
                used: &item.used,
                path: item.restored.path.display().to_string(),
                files: item.restored.files,
                partial: item.partial,
                left_out: &item.restored.left_out,
                damaged: item.restored.damaged,
                skipped: &item.skipped,
            })
        };
        let items: Vec<serde_json::Value> = items.iter().map(item).collect();
        return output.json(&serde_json::json!({ "restored": items }));
    }
    let moments = moments();
    for item in items {
        output.line(format_args!(
            "{}: {} of {} from {}, in {}",
            visible(item.used.data.as_bytes()),
            format_size(item.restored.bytes),
            moments.moment(item.used.data_time),
            item.used.repository,
            visible_path(&item.restored.path),
        ))?;
        if item.partial {
            output.warning(format_args!(
                "the point of {} is partial: {PARTIAL}",
                visible(item.used.data.as_bytes())
            ));
        }
        for what in &item.skipped {
            output.warning(format_args!("another copy was taken: {}", visible(what.as_bytes())));
        }
        for what in &item.restored.left_out {
            output.warning(format_args!("not restored: {}", visible(what.as_bytes())));
        }
        if item.restored.damaged {
            let repository = &item.used.repository;
            output.warning(format_args!(
                "{repository} is damaged: `muster verify {repository} --all` finds all damage, and \
                 a restore then takes a sound copy where there is one; `--point` chooses an older \
                 point"
            ));
        }
    }
    Ok(())
}
