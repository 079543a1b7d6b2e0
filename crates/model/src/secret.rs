//! Secrets are named, never written: where to find one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reference to a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRef {
    /// The value of an environment variable: `env:NAME`.
    Env(String),
    /// The first line of a file: `file:PATH`, relative to the plan.
    File(String),
    /// What a command prints, without a shell: `command:[ARGV]`.
    Command(Vec<String>),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Command(argv) => write!(f, "command:{argv:?}"),
        }
    }
}
