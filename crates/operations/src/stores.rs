//! Repositories as the plan names them: opened with their passwords, made when they are new.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{Timestamp, Unit};
use muster_control::choice::Chosen;
use muster_model::{Location, PointCopy};
use muster_plan::document::Repository as PlannedRepository;
use muster_repository::{
    chunker::Polynomial,
    format::{config::Version, key_file::Cost},
    repository::{InitOptions, OpenError, Repository},
    run::Run,
    storage::{File, Storage},
    warm_up::{WarmUp, small_files},
};
use muster_stores::{Limits, Options, Settings, StoreError, Variables};

use crate::{
    error::OperationError,
    secrets,
    workspace::{Planned, Workspace},
};

/// Opens a repository of the plan.
///
/// # Errors
/// Fails when it does not exist, the password is wrong or cannot be had.
pub(crate) fn open(plan: &Planned, name: &str) -> Result<Repository, OperationError> {
    open_allowing(plan, name, &Run { cancel: plan.stop.clone(), ..Run::new() })
}

/// The same, for a run that may bring back what is archived of the repository's small files.
///
/// # Errors
/// As [`open`], and when these do not come back.
pub(crate) fn open_allowing(
    plan: &Planned,
    name: &str,
    run: &Run,
) -> Result<Repository, OperationError> {
    let planned = planned(plan, name)?;
    let password = password(plan, planned)?;
    let storage = small_files(storage(plan, planned)?, run);
    Repository::open(storage, password.as_bytes(), None).map_err(|error| match error {
        OpenError::NoRepository { location } => {
            OperationError::RepositoryMissing { name: name.to_owned(), location }
        }
        error => OperationError::below(error),
    })
}

/// A run that may bring archived data of this repository back, if the plan says so. What is waited
/// for is part of the recovery and of its time.
pub(crate) fn allowing(plan: &Planned, name: &str, run: &Run) -> Run {
    match plan.plan.repository(name).and_then(|repository| repository.warm_up) {
        Some(at_most) => Run { warm_up: WarmUp::allowed(at_most), ..run.clone() },
        None => run.clone(),
    }
}

/// What was chosen, with copies in their order, those behind that an archive has to bring back.
pub(crate) fn quickest_first(plan: &Planned, mut chosen: Vec<Chosen>) -> Vec<Chosen> {
    let delay = |copy: &PointCopy| {
        let repository = plan.plan.repository(&copy.repository);
        repository.and_then(PlannedRepository::archive_delay).unwrap_or_default()
    };
    chosen.iter_mut().for_each(|chosen| chosen.copies.sort_by_key(delay));
    chosen
}

/// Opens a repository to write into; one that was never written is made. One that was written
/// before and is gone is an error: a disk that is not mounted must not become a new repository.
///
/// # Errors
/// As [`open`], and when it cannot be made.
pub(crate) fn open_or_make(
    workspace: &Workspace,
    name: &str,
) -> Result<(Repository, bool), OperationError> {
    let planned = planned(workspace, name)?;
    let password = password(workspace, planned)?;
    let storage = storage(workspace, planned)?;
    match Repository::open(storage.clone(), password.as_bytes(), None) {
        Ok(repository) => Ok((repository, false)),
        Err(OpenError::NoRepository { location }) => {
            if let Some(at) = last_written(workspace, name)? {
                return Err(OperationError::RepositoryGone { name: name.to_owned(), location, at });
            }
            let options = InitOptions {
                version: Version::V2,
                polynomial: shared_polynomial(workspace, name),
                cost: Cost::STANDARD,
                author: workspace.environment.author(),
            };
            let made = Repository::init(storage, password.as_bytes(), options);
            made.map(|repository| (repository, true)).map_err(OperationError::below)
        }
        Err(error) => Err(OperationError::below(error)),
    }
}

/// Repositories that copy to one another cut files alike, so that a copy finds its chunks: a
/// new one takes after the first of the plan that can be opened.
fn shared_polynomial(plan: &Planned, new: &str) -> Option<Polynomial> {
    let others = plan.plan.repositories.iter().filter(|other| other.name != new);
    let exists = |other: &&PlannedRepository| {
        storage(plan, other).is_ok_and(|storage| storage.size(File::Config).is_ok())
    };
    let first = others.filter(exists).find_map(|other| open(plan, &other.name).ok());
    first.map(|repository| repository.config().chunker_polynomial)
}

/// When the last snapshot came into a repository; nothing when none ever did.
fn last_written(workspace: &Workspace, name: &str) -> Result<Option<Timestamp>, OperationError> {
    use crate::records::Record;
    let history = workspace.state.history(&["backup-ended", "copy-ended"])?;
    let is_into = |record: &Record| match record {
        Record::BackupEnded(ended) => ended.repository == name && ended.snapshot.is_some(),
        Record::CopyEnded(ended) => ended.to == name && ended.snapshot.is_some(),
        _ => false,
    };
    let written = history.iter().filter(|logged| is_into(&logged.record));
    let last = written.map(|logged| logged.at).next_back();
    Ok(last.map(|at| at.round(Unit::Second).unwrap_or(at)))
}

fn planned<'w>(plan: &'w Planned, name: &str) -> Result<&'w PlannedRepository, OperationError> {
    plan.plan.repository(name).ok_or_else(|| OperationError::NotFound {
        what: format!("a repository named '{name}'"),
        help: "the plan's `repositories` lists what there is".to_owned(),
    })
}

/// The store of a repository. Its credentials are fetched; nothing is asked of it yet.
fn storage(
    plan: &Planned,
    planned: &PlannedRepository,
) -> Result<Arc<dyn Storage>, OperationError> {
    let location = Location::parse(&planned.url)
        .map_err(|error| OperationError::below(StoreError::from(error)))?;
    let location = match location {
        Location::Folder(path) => Location::Folder(plan.path_of(&path.to_string_lossy())),
        store => store,
    };
    let settings = Settings {
        options: options(plan, planned)?,
        variables: variables(plan, planned)?,
        cancel: Some(plan.stop.clone()),
        // No gap between a file's arrival and the hold that follows each backup.
        hold_new: planned.held_for(),
        limits: Limits { up: planned.limits.upload, down: planned.limits.download },
    };
    muster_stores::open(&location, &settings).map_err(OperationError::below)
}

fn options(plan: &Planned, planned: &PlannedRepository) -> Result<Options, OperationError> {
    let mut options = Options::default();
    for (name, value) in &planned.options {
        // Files are relative to the plan.
        let value = match name.as_str() {
            "tls.cacert" | "gs.credentials-file" => {
                plan.path_of(value).to_string_lossy().into_owned()
            }
            _ => value.clone(),
        };
        options.set(name, &value).map_err(OperationError::below)?;
    }
    Ok(options)
}

/// What the plan names; the environment where it names nothing.
fn variables(plan: &Planned, planned: &PlannedRepository) -> Result<Variables, OperationError> {
    if planned.credentials.is_empty() {
        return Ok(Variables::Environment);
    }
    let mut values = BTreeMap::new();
    for (name, reference) in &planned.credentials {
        values.insert(name.clone(), secrets::fetch(reference, &plan.folder)?);
    }
    Ok(Variables::Given(values))
}

fn password(
    plan: &Planned,
    repository: &PlannedRepository,
) -> Result<zeroize::Zeroizing<String>, OperationError> {
    match &repository.password {
        Some(reference) => secrets::fetch(reference, &plan.folder),
        None => Err(OperationError::Usage {
            message: format!("open the repository {}: it has no password", repository.name),
            help: format!("add `password: env:NAME` to repositories.{}", repository.name),
        }),
    }
}

#[cfg(test)]
mod tests {
    /// Every credential and option that a plan may hold is one that a store knows.
    #[test]
    fn the_plan_and_the_stores_know_the_same_names() {
        let (credentials, names) = muster_plan::store_names();
        for name in credentials {
            assert!(muster_stores::VARIABLES.contains(&name), "{name}");
        }
        let known: Vec<&str> = muster_stores::OPTIONS.iter().map(|(name, _)| *name).collect();
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        let mut sorted = known;
        sorted.sort_unstable();
        assert_eq!(names, sorted);
    }
}
