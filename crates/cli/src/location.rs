//! Where a repository is: from flags, files or the environment.

use std::{env, ffi::OsString, fs, path::PathBuf};

use muster_model::Location;
use muster_stores::StoreError;

use crate::error::{Failure, Problem};

/// How a repository was named on the command line, and where to look when it was not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    /// `--repo`, `--from-repo`.
    pub(crate) repo: Option<&'a OsString>,
    /// `--repository-file`, `--from-repository-file`.
    pub(crate) file: Option<&'a PathBuf>,
    /// The flag to name in errors.
    pub(crate) flag: &'static str,
    /// Environment variables, most important first; `…_FILE` beside each names a file.
    pub(crate) variables: [&'static str; 2],
}

impl Named<'_> {
    /// Finds where the repository is.
    pub(crate) fn location(&self) -> Result<Location, Failure> {
        if let Some(repo) = self.repo {
            return parse(repo.clone());
        }
        if let Some(file) = self.file {
            return read_location(file);
        }
        for variable in self.variables {
            if let Some(repo) = variable_set(variable) {
                return parse(repo);
            }
            if let Some(file) = variable_set(&format!("{variable}_FILE")) {
                return read_location(&PathBuf::from(file));
            }
        }
        let [first, ..] = self.variables;
        Err(Failure::usage(format!("tell which repository: no {} was given", self.flag))
            .help(format!("name its folder or URL with {} or the variable {first}", self.flag)))
    }
}

/// An environment variable, unless it is missing or empty.
pub(crate) fn variable_set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn read_location(file: &PathBuf) -> Result<Location, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::new(Problem::RepositoryFile, format!("read {}", file.display()))
            .caused_by(&error)
            .help("write the repository's path or URL into this file, or name it with -r")
    })?;
    parse(text.trim().into())
}

/// What is no text can only be a folder.
fn parse(repo: OsString) -> Result<Location, Failure> {
    match repo.to_str() {
        Some(text) => Ok(Location::parse(text).map_err(StoreError::from)?),
        None => Ok(Location::Folder(repo.into())),
    }
}
