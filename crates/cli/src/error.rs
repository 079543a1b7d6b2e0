//! A failure as people and programs read it.
//!
//! Libraries return errors that implement [`Fault`]; here they become one value with all that
//! is shown: the message (what could not be done), the causes, the next step, and a stable
//! code. Messages are phrased to stand after "cannot".

use std::error::Error;

use muster_model::{Class, Fault};
use serde::Serialize;

/// What a verb returns: how it ended, or why it could not be done.
pub(crate) type Outcome = Result<crate::exit::Exit, Failure>;

/// What can go wrong in the command line itself; all else is told by the libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The arguments make no sense together.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// The file that should hold the repository's path cannot be read.
    RepositoryFile,
    /// No password was given, and there is nobody to ask.
    PasswordMissing,
    /// The password is empty, and nobody said that it may be.
    PasswordEmpty,
    /// The password file cannot be read.
    PasswordFile,
    /// The command that should print the password failed.
    PasswordCommand,
    /// A file with a list of paths or patterns cannot be read.
    ListFile,
    /// The command whose output is to be backed up failed.
    SourceCommand,
    /// There is a plan where one should be written.
    PlanExists,
    /// The plan cannot be written.
    PlanUnwritable,
    /// Snapshots that are to be removed are protected.
    SnapshotProtected,
    /// A policy would leave nothing of a group of snapshots.
    NothingKept,
    /// A file of the repository is not what it should be.
    FileDamaged,
    /// Packs that no index lists may hold what seems lost.
    IndexIncomplete,
    /// The repository cannot be mounted.
    MountFailed,
    /// A copy that should be kept of what is replaced cannot be written.
    CopyNotKept,
    /// The result cannot be written.
    OutputFailed,
    /// The reader of standard output went away (`muster … | head`). Nobody is left to tell.
    OutputClosed,
    /// The system does not let us listen for signals.
    SignalsUnavailable,
    /// Somebody pressed Ctrl-C at a prompt.
    Interrupted,
}

impl Problem {
    /// The stable name of the problem.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::RepositoryFile => "repository-file",
            Self::PasswordMissing => "password-missing",
            Self::PasswordEmpty => "password-empty",
            Self::PasswordFile => "password-file",
            Self::PasswordCommand => "password-command",
            Self::ListFile => "list-file",
            Self::SourceCommand => "source-command",
            Self::PlanExists => "plan-exists",
            Self::PlanUnwritable => "plan-unwritable",
            Self::SnapshotProtected => "snapshot-protected",
            Self::NothingKept => "nothing-kept",
            Self::FileDamaged => "file-damaged",
            Self::IndexIncomplete => "index-incomplete",
            Self::MountFailed => "mount-failed",
            Self::CopyNotKept => "copy-not-kept",
            Self::OutputFailed => "output-failed",
            Self::OutputClosed => "output-closed",
            Self::SignalsUnavailable => "signals-unavailable",
            Self::Interrupted => "interrupted",
        }
    }

    fn class(self) -> Class {
        match self {
            Self::NotFound => Class::NotFound,
            Self::Usage
            | Self::RepositoryFile
            | Self::PasswordMissing
            | Self::PasswordEmpty
            | Self::PasswordFile
            | Self::PasswordCommand
            | Self::ListFile => Class::Input,
            Self::PlanExists | Self::IndexIncomplete => Class::Conflict,
            Self::SnapshotProtected | Self::NothingKept => Class::Denied,
            Self::SourceCommand
            | Self::PlanUnwritable
            | Self::CopyNotKept
            | Self::MountFailed
            | Self::OutputFailed
            | Self::OutputClosed
            | Self::SignalsUnavailable => Class::Transient,
            Self::FileDamaged => Class::Corrupt,
            Self::Interrupted => Class::Interrupted,
        }
    }
}

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// A stable name in kebab case, with a page in `docs/errors/`.
    pub(crate) code: &'static str,
    /// The kind of failure; it decides the exit code.
    #[serde(serialize_with = "class_as_text")]
    pub(crate) class: Class,
    /// What could not be done, to be read after "cannot".
    pub(crate) message: String,
    /// The next step.
    pub(crate) help: Option<String>,
    /// Why, from the nearest cause to the deepest.
    pub(crate) causes: Vec<String>,
}

impl Failure {
    /// A failure of the command line itself.
    pub(crate) fn new(problem: Problem, message: impl Into<String>) -> Self {
        Self {
            code: problem.code(),
            class: problem.class(),
            message: message.into(),
            help: None,
            causes: Vec::new(),
        }
    }

    /// The command line does not make sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Problem::Usage, message)
    }

    /// Something in the repository is damaged.
    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::new(Problem::FileDamaged, message)
    }

    /// Names the next step.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds an error and its sources to the causes. A source that only repeats what stands
    /// above it is left out.
    #[must_use]
    pub(crate) fn caused_by(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            let text = cause.to_string();
            let above = self.causes.last().unwrap_or(&self.message);
            if !above.ends_with(&text) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }
}

impl Failure {
    /// What a library error tells.
    pub(crate) fn of(error: &dyn Fault) -> Self {
        let failure = Self {
            code: error.code(),
            class: error.class(),
            message: error.to_string(),
            help: error.help(),
            causes: Vec::new(),
        };
        match error.source() {
            Some(source) if is_stale_mount(source) => failure.caused_by(source).help(STALE_MOUNT),
            Some(source) => failure.caused_by(source),
            None => failure,
        }
    }

    /// The message and its causes on one line.
    pub(crate) fn one_line(&self) -> String {
        let parts = std::iter::once(&self.message).chain(&self.causes);
        parts.map(String::as_str).collect::<Vec<_>>().join(": ")
    }
}

/// What to do about a folder at which the process that mounted it is gone.
pub(crate) const STALE_MOUNT: &str = "a mount whose process is gone is still there; take it away with umount (or fusermount3 -u) \
     and try again";

/// Whether the kernel asked a process that is not there any more for a file.
pub(crate) fn is_stale_mount(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        if io == Some(nix::errno::Errno::ENOTCONN as i32) {
            return true;
        }
        next = error.source();
    }
    false
}

impl<E: Fault> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn class_as_text<S: serde::Serializer>(class: &Class, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(class.as_str())
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Broken(io::Error);

    impl fmt::Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("read the thing")
        }
    }

    impl Error for Broken {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    impl Fault for Broken {
        fn class(&self) -> Class {
            Class::Transient
        }

        fn code(&self) -> &'static str {
            "thing-broken"
        }

        fn help(&self) -> Option<String> {
            Some("try again".to_owned())
        }
    }

    #[test]
    fn a_fault_keeps_all_it_can_tell() {
        let failure = Failure::from(Broken(io::Error::other("the disk is on fire")));
        assert_eq!(failure.causes, ["the disk is on fire"]);
        let json = serde_json::to_value(&failure).unwrap();
        let expected = serde_json::json!({
            "code": "thing-broken",
            "class": "transient",
            "message": "read the thing",
            "help": "try again",
            "causes": ["the disk is on fire"],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn causes_do_not_repeat_the_message() {
        let failure =
            Failure::usage("read x: no such file").caused_by(&io::Error::other("no such file"));
        assert!(failure.causes.is_empty());
    }
}
