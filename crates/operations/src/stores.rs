//! Repositories as the plan names them: opened with their passwords, made when they are new.

use std::{path::PathBuf, sync::Arc};

use muster_plan::document::Repository as PlannedRepository;
use muster_repository::{
    chunker::Polynomial,
    format::{config::Version, key_file::Cost},
    repository::{InitOptions, OpenError, Repository},
    storage::LocalStorage,
};

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
    let planned = planned(plan, name)?;
    let password = password(plan, planned)?;
    let storage = Arc::new(LocalStorage::new(folder(plan, planned)));
    Repository::open(storage, password.as_bytes(), None).map_err(OperationError::below)
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
    let storage = Arc::new(LocalStorage::new(folder(workspace, planned)));
    match Repository::open(storage.clone(), password.as_bytes(), None) {
        Ok(repository) => Ok((repository, false)),
        Err(error @ OpenError::NoRepository { .. }) => {
            if was_written(workspace, name)? {
                return Err(OperationError::below(error));
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
    let exists = |other: &&PlannedRepository| folder(plan, other).join("config").exists();
    let first = others.filter(exists).find_map(|other| open(plan, &other.name).ok());
    first.map(|repository| repository.config().chunker_polynomial)
}

fn was_written(workspace: &Workspace, name: &str) -> Result<bool, OperationError> {
    use crate::records::Record;
    let history = workspace.state.history(&["backup-ended", "copy-ended"])?;
    Ok(history.iter().any(|logged| match &logged.record {
        Record::BackupEnded(ended) => ended.repository == name && ended.snapshot.is_some(),
        Record::CopyEnded(ended) => ended.to == name && ended.snapshot.is_some(),
        _ => false,
    }))
}

fn planned<'w>(plan: &'w Planned, name: &str) -> Result<&'w PlannedRepository, OperationError> {
    plan.plan.repository(name).ok_or_else(|| OperationError::NotFound {
        what: format!("a repository named '{name}'"),
        help: "the plan's `repositories` lists what there is".to_owned(),
    })
}

/// The folder of a repository; `plan check` refuses all other kinds of URL.
pub(crate) fn folder(plan: &Planned, repository: &PlannedRepository) -> PathBuf {
    let url = repository.url.strip_prefix("file://").unwrap_or(&repository.url);
    plan.path_of(url.strip_prefix("local:").unwrap_or(url))
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
