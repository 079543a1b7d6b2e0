//! Where a repository is: from flags or the environment, and only what this version can open.

use std::{env, ffi::OsString, fs, path::PathBuf};

use crate::error::{Failure, Problem};

/// Schemes of restic and rustic that name a store which is no folder.
const REMOTE_SCHEMES: [&str; 9] =
    ["sftp", "rest", "s3", "b2", "azure", "gs", "swift", "rclone", "opendal"];

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
    /// Finds the folder that holds the repository.
    pub(crate) fn folder(&self) -> Result<PathBuf, Failure> {
        if let Some(repo) = self.repo {
            return local_folder(repo.clone());
        }
        if let Some(file) = self.file {
            return read_location(file);
        }
        for variable in self.variables {
            if let Some(repo) = variable_set(variable) {
                return local_folder(repo);
            }
            if let Some(file) = variable_set(&format!("{variable}_FILE")) {
                return read_location(&PathBuf::from(file));
            }
        }
        let [first, ..] = self.variables;
        Err(Failure::usage(format!("tell which repository: no {} was given", self.flag))
            .help(format!("name its folder with {} or the variable {first}", self.flag)))
    }
}

/// An environment variable, unless it is missing or empty.
pub(crate) fn variable_set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn read_location(file: &PathBuf) -> Result<PathBuf, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::new(Problem::RepositoryFile, format!("read {}", file.display()))
            .caused_by(&error)
            .help("write the repository's path into this file, or name it with -r")
    })?;
    local_folder(text.trim().into())
}

/// The folder that `repo` names; a scheme of a remote store is refused.
fn local_folder(repo: OsString) -> Result<PathBuf, Failure> {
    let Some(text) = repo.to_str() else { return Ok(repo.into()) };
    if let Some(path) = text.strip_prefix("local:") {
        return Ok(path.into());
    }
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let is_remote = scheme.is_some_and(|scheme| REMOTE_SCHEMES.contains(&scheme));
    if !is_remote && !text.contains("://") {
        return Ok(repo.into());
    }
    let scheme = scheme.unwrap_or(text);
    Err(Failure::new(
        Problem::StoreUnsupported,
        format!("open a store of kind '{scheme}': remote stores are not in this version"),
    )
    .help("name a local folder, or one that is mounted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_told_from_remote_stores() {
        let check = |repo: &str, expected: Option<&str>| {
            let found = local_folder(repo.into()).ok();
            assert_eq!(found, expected.map(PathBuf::from), "{repo}");
        };
        check("/backup", Some("/backup"));
        check("../b:c", Some("../b:c"));
        check("local:/backup", Some("/backup"));
        check("s3:https://s3.example.org/bucket", None);
        check("sftp:user@host:/srv", None);
        check("rest:https://host/", None);
        check("https://host/repo", None);
    }
}
