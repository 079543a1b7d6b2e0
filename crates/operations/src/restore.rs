//! `muster restore`: data brought back into a folder, without starting anything.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use muster_control::choice::{Blocker, Chosen, Wish, choose};
use muster_drivers::isolation::shares_directory;
use muster_model::drill::PointUsed;
use muster_repository::{
    lock::{Lock, LockKind},
    restore::Overwrite,
    run::Run,
};
use muster_sources::{RestoreSettings, capture::Restored, restore_data};

use crate::{
    error::OperationError,
    hands,
    pause::interrupted,
    points::{self, Points, Unread},
    protect::Name,
    stores,
    workspace::{Planned, Reader, Workspace},
};

/// What to bring back, and where to.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// `SERVICE` or `SERVICE/DATA`.
    pub name: String,
    /// The folder. One data item goes straight into it, a service into a folder for each.
    pub to: PathBuf,
    /// Only points not newer than this.
    pub at: Option<Timestamp>,
    /// Only this point.
    pub point: Option<String>,
    /// A point that left something out will do.
    pub accept_partial: bool,
    /// What to do about things that are in the folder already.
    pub settings: RestoreSettings,
}

/// A data item that was brought back.
#[derive(Debug)]
#[must_use = "something may not have been restored"]
pub struct RestoredItem {
    /// The point that it came from.
    pub used: PointUsed,
    /// What was written.
    pub restored: Restored,
    /// Whether the point itself is without something that could not be read when it was made.
    pub partial: bool,
    /// Copies that could not be read, and why: another one was taken.
    pub skipped: Vec<String>,
}

/// What became of the data items that were asked for.
#[derive(Debug, Default)]
#[must_use = "something may not have been restored"]
pub struct Restoration {
    /// What was brought back.
    pub items: Vec<RestoredItem>,
    /// Data items that were not, and why.
    pub failed: Vec<(String, OperationError)>,
    /// Repositories and snapshots that could not be read as points were looked for.
    pub unread: Vec<Unread>,
}

/// Brings data back: as much of it as can be, for one data item that is lost is no reason to
/// withhold another.
///
/// # Errors
/// Refuses when there is no such point, or the folder is not empty or has to do with live data;
/// fails when nothing can be read or written. What was not restored beside others is in the answer.
pub fn restore(
    workspace: &Workspace,
    request: &RestoreRequest,
    run: &Run,
) -> Result<Restoration, OperationError> {
    bring_back(workspace, request, run, |service| points::list(workspace, Some(service)))
}

/// As [`restore`], and needs no state: plan and repositories suffice.
///
/// # Errors
/// As [`restore`], but for the state: what is wrong with that is the reader's trouble.
pub fn restore_by(
    reader: &mut Reader,
    request: &RestoreRequest,
    run: &Run,
) -> Result<Restoration, OperationError> {
    let service = Name::find(&reader.planned, &request.name)?.service;
    let listed = reader.points(Some(&service));
    bring_back(&reader.planned, request, run, |_| Ok(listed))
}

fn bring_back(
    plan: &Planned,
    request: &RestoreRequest,
    run: &Run,
    list: impl FnOnce(&str) -> Result<Points, OperationError>,
) -> Result<Restoration, OperationError> {
    let name = Name::find(plan, &request.name)?;
    let service = plan.service(&name.service)?;
    let data: Vec<String> = match &name.data {
        Some(data) => vec![data.clone()],
        None => service.data.iter().map(|item| item.name.clone()).collect(),
    };
    refuse_live_data(plan, &service.name, &data, request)?;
    let listed = list(&service.name)?;
    let wish = Wish {
        at: request.at,
        point: request.point.as_deref(),
        disruption: None,
        accept_partial: request.accept_partial,
    };
    let chosen = choose(&listed.points, &service.name, &service.place, &data, &wish);
    let chosen = chosen.map_err(|blockers| OperationError::Refused {
        what: format!("restore {}", request.name),
        blockers: listed.explain(blockers),
    })?;
    let chosen = stores::quickest_first(plan, chosen);
    let target = |data: &str| match &name.data {
        Some(_) => request.to.clone(),
        None => request.to.join(data),
    };
    let one = |chosen: &Chosen| {
        from_copies(plan, chosen, &target(&chosen.point.data), request.settings, run)
    };
    let mut done = Restoration { unread: listed.unread, ..Restoration::default() };
    for chosen in &chosen {
        match one(chosen) {
            Ok(item) => done.items.push(item),
            Err(error @ OperationError::Interrupted { .. }) => return Err(error),
            Err(error) => done.failed.push((chosen.point.data.clone(), error)),
        }
    }
    if done.failed.is_empty() || !done.items.is_empty() {
        return Ok(done);
    }
    // What did not answer may be why there was no other copy to take.
    let mut failed = done.failed;
    failed.extend(done.unread.into_iter().map(|unread| (unread.name(), unread.error)));
    Err(OperationError::all(format!("restore {}", request.name), failed))
}

/// Refuses to restore into live data, beside it in the same folder, or around it: with
/// `--overwrite` and `--delete` that would destroy what production has, and what is put into a
/// source is in the next backup. The place of an item that is restored is free where the item is
/// lost, and with an `--overwrite` that names just that place: then it is what was asked for.
fn refuse_live_data(
    plan: &Planned,
    service: &str,
    data: &[String],
    request: &RestoreRequest,
) -> Result<(), OperationError> {
    let target = &request.to;
    let overwrites = request.settings.overwrite != Overwrite::Refuse;
    let is_asked_for = |path: &Path| overwrites && is_same(path, target);
    for other in &plan.plan.services {
        for item in &other.data {
            let is_restored = other.name == service && data.contains(&item.name);
            let mut paths = plan.production_paths(item);
            paths.retain(|path| !is_restored || (is_live(path) && !is_asked_for(path)));
            if let Some(shared) = shares_directory(target, &paths) {
                return Err(OperationError::Refused {
                    what: format!("restore into {}", target.display()),
                    blockers: vec![Blocker {
                        code: "target-in-production",
                        message: format!(
                            "{} is live data of {}/{}",
                            shared.display(),
                            other.name,
                            item.name
                        ),
                        help: "name a folder apart from it with --to, and take from there what \
                               shall go back"
                            .to_owned(),
                    }],
                });
            }
        }
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Whether something lies there that a restore could destroy; what cannot be looked at may.
fn is_live(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Restores from the first copy that can be read.
fn from_copies(
    plan: &Planned,
    chosen: &Chosen,
    target: &Path,
    settings: RestoreSettings,
    run: &Run,
) -> Result<RestoredItem, OperationError> {
    let mut failed: Vec<(String, OperationError)> = Vec::new();
    for copy in &chosen.copies {
        let allowed = stores::allowing(plan, &copy.repository, run);
        let opened = stores::open_allowing(plan, &copy.repository, &allowed);
        let restored = opened.and_then(|repository| {
            let environment = &plan.environment;
            let patience = std::time::Duration::ZERO;
            let lock = Lock::acquire(&repository, LockKind::Shared, patience, environment, run);
            let lock = lock.map_err(OperationError::below)?;
            let indexed = repository.load_index(&allowed).map_err(OperationError::below)?;
            let id = hands::snapshot_id(&copy.snapshot)?;
            let restored = restore_data(&indexed, id, target, settings, &allowed);
            drop(lock);
            restored.map_err(OperationError::below)
        });
        interrupted(run)?;
        match restored {
            Ok(restored) => {
                let used = PointUsed {
                    data: chosen.point.data.clone(),
                    point: chosen.point.id.clone(),
                    repository: copy.repository.clone(),
                    snapshot: copy.snapshot.clone(),
                    data_time: chosen.point.data_time,
                    bytes: Some(restored.bytes),
                };
                let told = |(repository, error): &(String, OperationError)| {
                    format!("{repository}: cannot {}", error.one_line())
                };
                let skipped = failed.iter().map(told).collect();
                let partial = chosen.point.partial;
                return Ok(RestoredItem { used, restored, partial, skipped });
            }
            Err(error) => failed.push((copy.repository.clone(), error)),
        }
    }
    Err(OperationError::Several {
        what: format!("restore {}", chosen.point.data),
        failures: failed,
    })
}
