//! Probes: questions to a service whose answer says whether it is well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A probe. Texts may be templates until they are rendered for a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Its name in the plan.
    pub name: String,
    /// What is asked, and what is expected.
    pub check: ProbeCheck,
    /// The data item that it questions.
    pub on: Option<String>,
    /// From one sample's start to the next one's.
    #[serde(rename = "interval_s", with = "crate::units::seconds")]
    pub interval: Duration,
    /// When a sample counts as red.
    #[serde(rename = "timeout_s", with = "crate::units::seconds")]
    pub timeout: Duration,
}

/// What a probe asks, and what answer makes it green.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ProbeCheck {
    /// A GET request.
    Http {
        /// The address.
        url: String,
        /// Accepted status codes; never empty.
        statuses: Vec<u16>,
        /// A text that the body must hold.
        body: Option<String>,
        /// JSON paths (RFC 9535) and the value that each must select.
        json: Vec<(String, serde_json::Value)>,
        /// Whether redirects are followed; otherwise a redirect is red unless its status is
        /// accepted.
        redirects: bool,
    },
    /// A connection that is accepted.
    Tcp {
        /// `host:port`.
        address: String,
    },
    /// A query whose first column of its first and only row is compared.
    Sql {
        /// A PostgreSQL URL, or the path of an SQLite file; filled in from `on`.
        database: Database,
        /// The query.
        query: String,
        /// What it must answer.
        expect: serde_json::Value,
    },
    /// A program that is run.
    Command {
        /// Program and arguments; no shell.
        argv: Vec<String>,
        /// The exit code that is green.
        exit: i32,
        /// A text that standard output must hold.
        output: Option<String>,
    },
}

/// A database that a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Database {
    /// Taken from the data item that the probe is on.
    OfData,
    /// A PostgreSQL URL.
    Postgres(String),
    /// The path of an SQLite file.
    Sqlite(String),
}

/// What one sample of a probe saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Light {
    /// As expected.
    Green,
    /// Not as expected, or no answer in time.
    Red,
    /// The prober itself could not ask (no descriptors, no resolver): says nothing about the
    /// target.
    Unknown,
}
