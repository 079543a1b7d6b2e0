//! What can go wrong in the demo itself; all else is told by what it calls.

use std::{io, path::PathBuf};

use muster_model::{Class, Fault};

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// The demo's folder, or something in it, cannot be made.
    #[error("make {}", .path.display())]
    Folder {
        /// What should be made.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something of the demo cannot be removed.
    #[error("remove {}", .path.display())]
    Remove {
        /// What should be gone.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The example, its customers or those who watch it do not work.
    #[error("{what}")]
    Example {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something that happens at once on a healthy machine did not happen.
    #[error("go on with the demo: waited {waited_s} s for {what}")]
    Late {
        /// What did not happen.
        what: &'static str,
        /// How long it was waited for.
        waited_s: u64,
        /// What was told meanwhile.
        #[source]
        source: io::Error,
    },
}

impl DemoError {
    /// For `map_err`: what was tried with the example.
    pub(super) fn example(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Example { what, source }
    }

    /// For `map_err`: what should have been made.
    pub(super) fn folder(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Folder { path, source }
    }
}

impl Fault for DemoError {
    fn class(&self) -> Class {
        Class::Transient
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "demo-folder",
            Self::Remove { .. } => "demo-not-removed",
            Self::Example { .. } | Self::Late { .. } => "demo-failed",
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Folder { .. } => {
                "go to a folder that you may write to, or name one with --dir DIR"
            }
            Self::Remove { .. } => "see the cause, and remove it yourself",
            Self::Example { .. } | Self::Late { .. } => {
                "try again; with --keep everything stays to be looked at"
            }
        };
        Some(help.to_owned())
    }
}
