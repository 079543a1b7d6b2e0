//! The runbook: ordered steps that bring a service back, for a drill and for real.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One step. Texts may be templates until they are rendered for a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Step {
    /// Bring data back.
    Restore {
        /// The data items, in order.
        data: Vec<String>,
    },
    /// Start a program that keeps running.
    Start {
        /// Program and arguments; no shell.
        argv: Vec<String>,
        /// Environment variables, beside the few that every child gets.
        env: Vec<(String, String)>,
        /// The user to run as; the caller's when there is none.
        user: Option<String>,
        /// The working directory; the target's when there is none.
        dir: Option<String>,
    },
    /// Run a program to its end; anything but exit code 0 fails the step.
    Run {
        /// Program and arguments; no shell.
        argv: Vec<String>,
        /// Environment variables, beside the few that every child gets.
        env: Vec<(String, String)>,
        /// The user to run as; the caller's when there is none.
        user: Option<String>,
        /// The working directory; the target's when there is none.
        dir: Option<String>,
        /// When it is ended and the step fails.
        #[serde(rename = "timeout_s", with = "crate::units::seconds")]
        timeout: Duration,
    },
}

impl Step {
    /// What the step does, in the plan's word.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Restore { .. } => "restore",
            Self::Start { .. } => "start",
            Self::Run { .. } => "run",
        }
    }

    /// One line for people: `restore db, uploads`, `start orders-server …`.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Restore { data } => format!("restore {}", data.join(", ")),
            Self::Start { argv, .. } => format!("start {}", argv.join(" ")),
            Self::Run { argv, .. } => format!("run {}", argv.join(" ")),
        }
    }
}
