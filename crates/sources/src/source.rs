//! A source, whichever it is.

use std::path::PathBuf;

use muster_repository::{environment::Environment, repository::Repository, run::Run};

use crate::{
    capture::{Captured, Request},
    command,
    error::SourceError,
    files,
    postgres::{self, PostgresSource},
    sqlite,
};

/// Living data, and how it is read.
#[derive(Debug, Clone)]
pub enum Source {
    /// Files and folders.
    Files {
        /// Absolute paths.
        paths: Vec<PathBuf>,
        /// Patterns, in restic's language, of what is left out.
        exclude: Vec<String>,
    },
    /// An SQLite database.
    Sqlite {
        /// The absolute path of its file.
        path: PathBuf,
    },
    /// A PostgreSQL server.
    Postgres(PostgresSource),
    /// What a command prints.
    Command {
        /// Program and arguments; `|` stands between the stages of a pipeline.
        argv: Vec<String>,
        /// The name of the file in the snapshot.
        file: String,
        /// Names of environment variables that are handed on, besides the usual ones.
        env: Vec<String>,
    },
}

impl Source {
    /// Which kind this is.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Files { .. } => SourceKind::Files,
            Self::Sqlite { .. } => SourceKind::Sqlite,
            Self::Postgres(_) => SourceKind::Postgres,
            Self::Command { .. } => SourceKind::Command,
        }
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// Fails when the data cannot be read consistently, the repository cannot be written, or the
    /// run is cancelled. There is no snapshot then.
    pub fn back_up(
        &self,
        repository: &Repository,
        request: &Request,
        environment: &Environment,
        run: &Run,
    ) -> Result<Captured, SourceError> {
        match self {
            Self::Files { paths, exclude } => {
                files::back_up(repository, paths, exclude, request, environment, run)
            }
            Self::Sqlite { path } => sqlite::back_up(repository, path, request, environment, run),
            Self::Postgres(source) => {
                Ok(postgres::back_up(repository, source, request, environment, run)?)
            }
            Self::Command { argv, file, env } => {
                command::back_up(repository, argv, file, request, env, environment, run)
            }
        }
    }
}

/// The kinds of sources, as the tag `muster:source=…` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// Files and folders.
    Files,
    /// An SQLite database.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
    /// What a command prints.
    Command,
}

impl SourceKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Files, Self::Sqlite, Self::Postgres, Self::Command];

    /// The name in plans and tags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Command => "command",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
