//! Why a verb could not be done.

use std::{fmt, io, path::PathBuf};

use jiff::Timestamp;
use muster_control::choice::Blocker;
use muster_model::{Class, Fault, Finding, Severity, units::counted};
use thiserror::Error;

/// The code of a blocker: what is needed is damaged where it lies.
pub(crate) const DAMAGED: &str = "repository-damaged";

/// The code of a snapshot that is no copy of the point whose tags it bears.
pub(crate) const ALTERED: &str = "copy-altered";

/// What to do about one.
pub(crate) const ALTERED_HELP: &str = "nothing uses it; `muster repo diff` compares it with another copy, and `muster repo forget \
     --ignore-plan` with its id removes it";

/// A fault of a hand, kept whole.
#[derive(Debug)]
pub struct Below(Box<dyn Fault + Send + Sync>);

impl fmt::Display for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Below {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Why a verb could not be done. Messages stand after "cannot".
#[derive(Debug, Error)]
pub enum OperationError {
    /// The plan cannot be read.
    #[error("read the plan {}", path.display())]
    PlanUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The plan is wrong where this verb needs it.
    #[error("use the plan {}: {}", path.display(), summary(findings))]
    PlanInvalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        findings: Vec<Finding>,
    },
    /// The plan, the state or a repository holds no such thing.
    #[error("find {what}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The next step.
        help: String,
    },
    /// Refused, with everything that stands in the way.
    #[error("{what}: {}", blocked(blockers))]
    Refused {
        /// What was refused.
        what: String,
        /// Why.
        blockers: Vec<Blocker>,
    },
    /// A repository is not where the plan says. Whether it ever was, is not known.
    #[error("open the repository {name}: there is none at {location}")]
    RepositoryMissing {
        /// Its name in the plan.
        name: String,
        /// Where it should be.
        location: String,
    },
    /// A repository that was written before is not where it was.
    #[error(
        "open the repository {name}: it is gone from {location}, where it was last written {at}"
    )]
    RepositoryGone {
        /// Its name in the plan.
        name: String,
        /// Where it was.
        location: String,
        /// When it was last written, as far as the ledger knows.
        at: Timestamp,
    },
    /// The arguments make no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// The next step.
        help: String,
    },
    /// A secret cannot be had.
    #[error("get the secret {reference}")]
    Secret {
        /// How the plan names it.
        reference: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system refused something.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A hand failed.
    #[error(transparent)]
    Below(#[from] Below),
    /// Everything that was tried failed. Each is named; the worst decides the class.
    #[error("{what}: {}", each(failures))]
    Several {
        /// What was tried.
        what: String,
        /// What failed, and why.
        failures: Vec<(String, OperationError)>,
    },
    /// A hook did not end well.
    #[error("run `{command}`: {why}")]
    HookFailed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        why: String,
        /// Where its output is.
        log: PathBuf,
    },
    /// What was asked for runs already.
    #[error("{what}: {why}")]
    Running {
        /// What was asked for.
        what: String,
        /// What runs.
        why: String,
    },
    /// A step of a recovery was not done.
    #[error("recover: the step `{summary}` was not done: {why}")]
    StepFailed {
        /// What the step does.
        summary: String,
        /// Why it was not done.
        why: String,
        /// The next step.
        help: String,
    },
    /// Something was done only in part, where a part is worth nothing.
    #[error("{what}: {first}{}", and_more(*more))]
    Incomplete {
        /// What was tried.
        what: String,
        /// The first thing that is missing.
        first: String,
        /// How many more are.
        more: usize,
    },
    /// The ledger does not say what was signed.
    #[error("trust the ledger: {what}")]
    Tampered {
        /// What differs.
        what: String,
    },
    /// A snapshot bears a point's tags and does not hold what was backed up for it.
    #[error("take it for point {point} of {item}: its content is not what was backed up")]
    Altered {
        /// The recovery point.
        point: String,
        /// The data item, as `SERVICE/DATA`.
        item: String,
    },
    /// The run was stopped on request.
    #[error("go on: {why}")]
    Interrupted {
        /// Who asked.
        why: String,
    },
    /// A fault of the program itself.
    #[error("go on: {what}")]
    Bug {
        /// What should not have happened.
        what: String,
    },
}

fn summary(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    format!("it has {}", counted(errors, "error"))
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(", and {more} more") }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn each(failures: &[(String, OperationError)]) -> String {
    let one =
        |(name, error): &(String, OperationError)| format!("{name}: cannot {}", error.one_line());
    failures.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The worst of several failures, and of equals the first.
fn worst(failures: &[(String, OperationError)]) -> Option<&OperationError> {
    let errors = failures.iter().rev().map(|(_, error)| error);
    errors.max_by_key(|error| error.class().gravity())
}

/// The class of a refusal: damaged data is not a matter of permission, nor is a point that does
/// not exist.
#[must_use]
pub fn refusal_class(blockers: &[Blocker]) -> Class {
    match () {
        () if is_damage(blockers) => Class::Corrupt,
        () if is_unknown(blockers) => Class::NotFound,
        () => Class::Denied,
    }
}

/// Whether nothing else is wrong than that what was named does not exist.
fn is_unknown(blockers: &[Blocker]) -> bool {
    !blockers.is_empty() && blockers.iter().all(|blocker| blocker.code == "unknown-point")
}

fn is_damage(blockers: &[Blocker]) -> bool {
    let codes = [DAMAGED, ALTERED, "snapshot-damaged"];
    blockers.iter().any(|blocker| codes.contains(&blocker.code))
}

fn blocked(blockers: &[Blocker]) -> String {
    blockers.iter().map(|blocker| blocker.message.as_str()).collect::<Vec<_>>().join("; ")
}

impl OperationError {
    /// The one failure, or all of several; what is wrong with each has its name.
    pub(crate) fn all(what: impl Into<String>, mut failures: Vec<(String, Self)>) -> Self {
        match failures.len() {
            1 => failures.remove(0).1,
            _ => Self::Several { what: what.into(), failures },
        }
    }

    /// Keeps the fault of a hand.
    pub(crate) fn below(fault: impl Fault + Send + Sync + 'static) -> Self {
        Self::Below(Below(Box::new(fault)))
    }

    /// For `map_err`: what was tried on which path.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// The message with all causes on one line, for records.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            next = cause.source();
        }
        text
    }
}

impl Fault for OperationError {
    fn class(&self) -> Class {
        match self {
            Self::PlanUnreadable { .. } | Self::PlanInvalid { .. } | Self::Usage { .. } => {
                Class::Input
            }
            Self::NotFound { .. }
            | Self::RepositoryMissing { .. }
            | Self::RepositoryGone { .. } => Class::NotFound,
            Self::Refused { blockers, .. } => refusal_class(blockers),
            // The plan names what is not there, but for what this user may not read.
            Self::Secret { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Class::Denied,
                _ => Class::Input,
            },
            Self::Several { failures, .. } => worst(failures).map_or(Class::Bug, Fault::class),
            Self::Io { .. } | Self::StepFailed { .. } | Self::HookFailed { .. } => Class::Transient,
            Self::Running { .. } => Class::Conflict,
            Self::Incomplete { .. } | Self::Tampered { .. } | Self::Altered { .. } => {
                Class::Corrupt
            }
            Self::Below(below) => below.0.class(),
            Self::Interrupted { .. } => Class::Interrupted,
            Self::Bug { .. } => Class::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::PlanUnreadable { .. } => "plan-unreadable",
            Self::PlanInvalid { .. } => "plan-invalid",
            Self::NotFound { .. } => "not-found",
            Self::RepositoryMissing { .. } | Self::RepositoryGone { .. } => "repository-missing",
            Self::Refused { blockers, .. } if is_damage(blockers) => "repository-damaged",
            Self::Refused { blockers, .. } if is_unknown(blockers) => "not-found",
            Self::Refused { .. } => "refused",
            Self::Several { failures, .. } => worst(failures).map_or("bug", Fault::code),
            Self::Usage { .. } => "usage",
            Self::Secret { .. } => "secret-missing",
            Self::Io { source, .. } if is_full(source) => "no-space",
            Self::Io { .. } => "io",
            Self::StepFailed { .. } => "step-failed",
            Self::HookFailed { .. } => "hook-failed",
            Self::Running { .. } => "already-running",
            Self::Incomplete { .. } => "incomplete",
            Self::Tampered { .. } => "evidence-mismatch",
            Self::Altered { .. } => "copy-altered",
            Self::Below(below) => below.0.code(),
            Self::Interrupted { .. } => "interrupted",
            Self::Bug { .. } => "bug",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::PlanUnreadable { .. } => {
                Some("`muster init` writes a starter plan; --plan names another file".to_owned())
            }
            Self::PlanInvalid { .. } => Some("`muster plan check` shows each with its line".into()),
            Self::NotFound { help, .. }
            | Self::Usage { help, .. }
            | Self::StepFailed { help, .. } => Some(help.clone()),
            Self::RepositoryMissing { .. } => Some(
                "mount the disk or share that it lies on, or bring it back; 'muster backup' makes \
                 one that was never there"
                    .to_owned(),
            ),
            Self::RepositoryGone { location, .. } => Some(format!(
                "mount the disk or share that it lies on, or bring it back; when it is lost for \
                 good, 'muster repo -r {location} init' makes an empty one, which loses nothing \
                 but what was there"
            )),
            Self::Refused { blockers, .. } => {
                let help: Vec<&str> =
                    blockers.iter().map(|blocker| blocker.help.as_str()).collect();
                (!help.is_empty()).then(|| help.join("; "))
            }
            Self::HookFailed { log, .. } => {
                let log = log.display();
                Some(format!("what it printed is in {log}; mend it and run the command again"))
            }
            Self::Running { .. } => {
                Some("wait until that has ended; `muster status` shows how it went".to_owned())
            }
            Self::Secret { .. } => Some(
                "set what the plan's reference names (files are relative to the plan)".to_owned(),
            ),
            Self::Below(below) => below.0.help(),
            Self::Several { failures, .. } => worst(failures).and_then(Fault::help),
            Self::Tampered { .. } => {
                Some("`muster evidence verify` names the first entry that does not match".into())
            }
            Self::Altered { .. } => Some(ALTERED_HELP.to_owned()),
            Self::Incomplete { .. } => {
                Some("`muster repo check --read-data` tells what is damaged".into())
            }
            Self::Io { source, .. } if is_full(source) => {
                Some("make space there, and try again".to_owned())
            }
            Self::Io { .. } | Self::Interrupted { .. } | Self::Bug { .. } => None,
        }
    }
}
