//! What every public error can tell besides its text: class, code, next step.
//!
//! Callers decide by [`Class`] and never by reading a message; people look up the code in
//! `docs/errors/`; `help` is for the person who reads the message at three in the morning.

use std::error::Error;

/// What kind of failure this is, for retry policy and exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The caller's input is wrong: a flag, a pattern, a plan.
    Input,
    /// What was asked for does not exist.
    NotFound,
    /// Somebody else holds what is needed, or it exists already.
    Conflict,
    /// An older epoch tried to write: stop at once, do not retry.
    Fenced,
    /// Not allowed: wrong password, missing permission, a refusal by policy.
    Denied,
    /// May succeed when tried again: network, timeout, disk full.
    Transient,
    /// Stored data is damaged: do not write, preserve what is there.
    Corrupt,
    /// The run was interrupted on request.
    Interrupted,
    /// A fault of the program itself.
    Bug,
}

impl Class {
    /// The class as it appears in JSON (`error.class`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Fenced => "fenced",
            Self::Denied => "denied",
            Self::Transient => "transient",
            Self::Corrupt => "corrupt",
            Self::Interrupted => "interrupted",
            Self::Bug => "bug",
        }
    }

    /// How much it asks of a person, to find the worst of several failures: an interruption was
    /// the person's own wish, damage cannot wait, a refusal needs a decision, a wrong input an
    /// edit; all else may pass.
    #[must_use]
    pub fn gravity(self) -> u8 {
        match self {
            Self::Interrupted => 7,
            Self::Corrupt => 6,
            Self::Fenced => 5,
            Self::Denied => 4,
            Self::Conflict => 3,
            Self::Input => 2,
            Self::Bug => 1,
            Self::NotFound | Self::Transient => 0,
        }
    }
}

/// An error that a person or a program can act upon.
pub trait Fault: Error {
    /// The kind of failure; retry policy and exit codes read this.
    fn class(&self) -> Class;

    /// A stable name in kebab case; `docs/errors/CODE.md` explains it.
    fn code(&self) -> &'static str;

    /// The next step, as one sentence, when there is one to name.
    fn help(&self) -> Option<String>;
}
