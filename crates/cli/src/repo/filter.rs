//! Patterns of what to leave out or to bring back, as `backup` and `restore` take them.

use std::{ffi::OsString, path::PathBuf};

use crate::lists::PatternLists;

/// What to leave out.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to leave out")]
pub(crate) struct ExcludeArgs {
    /// Leave out what matches this pattern (repeatable)
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<OsString>,
    /// As --exclude, but capital and small letters are the same
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<OsString>,
    /// Leave out what matches the patterns in this file, one a line
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// As --exclude-file, but capital and small letters are the same
    #[arg(long, value_name = "FILE")]
    iexclude_file: Vec<PathBuf>,
}

impl ExcludeArgs {
    /// The patterns and the files that hold more.
    pub(super) fn lists(&self) -> PatternLists<'_> {
        PatternLists {
            flag: "--exclude",
            exact: &self.exclude,
            exact_files: &self.exclude_file,
            ignoring_case: &self.iexclude,
            ignoring_case_files: &self.iexclude_file,
        }
    }

    /// The patterns given by flag, for the snapshot's record.
    pub(super) fn as_written(&self) -> Vec<String> {
        let given = self.exclude.iter().chain(&self.iexclude);
        given.map(|pattern| pattern.to_string_lossy().into_owned()).collect()
    }
}

/// What to bring back.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to restore")]
pub(crate) struct IncludeArgs {
    /// Restore only what matches this pattern (repeatable)
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<OsString>,
    /// As --include, but capital and small letters are the same
    #[arg(long, value_name = "PATTERN")]
    iinclude: Vec<OsString>,
    /// Restore only what matches the patterns in this file, one a line
    #[arg(long, value_name = "FILE")]
    include_file: Vec<PathBuf>,
    /// As --include-file, but capital and small letters are the same
    #[arg(long, value_name = "FILE")]
    iinclude_file: Vec<PathBuf>,
}

impl IncludeArgs {
    /// The patterns and the files that hold more.
    pub(super) fn lists(&self) -> PatternLists<'_> {
        PatternLists {
            flag: "--include",
            exact: &self.include,
            exact_files: &self.include_file,
            ignoring_case: &self.iinclude,
            ignoring_case_files: &self.iinclude_file,
        }
    }
}
