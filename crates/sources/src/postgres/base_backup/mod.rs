//! A base backup becomes a snapshot, always laid out the same:
//!
//! ```text
//! /postgres/SERVICE/DATA/
//!   cluster.json              what a restore must know (see `cluster`)
//!   data/                     the data directory, with the log that makes it consistent
//!   tablespaces/OID/          each tablespace
//! ```
//!
//! [`local`] reads the server's files where they are, [`replication`] has the server send them.
//! Both feed the repository as they read: nothing is staged on a disk, and the manifest is of the
//! very bytes that are stored. Links of tablespaces are not recorded, so that a restore cannot
//! lead back into the original's folders.

pub(super) mod local;
pub(super) mod pages;
pub(super) mod replication;

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use muster_repository::{
    backup::{Facts, Recorder},
    run::Run,
};
use sha2::{Digest, Sha256};

use super::{
    PostgresError,
    cluster::{Cluster, Server},
    connection::{Session, Target},
    manifest, tables,
    wal::Range,
};
use crate::capture::{Notice, Request};

/// Name of the cluster's description, beside the data.
pub(super) const CLUSTER_FILE: &str = "cluster.json";
/// Name of the data directory in the snapshot.
pub(super) const DATA: &str = "data";
/// Name of the folder with the tablespaces in the snapshot.
pub(super) const TABLESPACES: &str = "tablespaces";

/// What both ways work with.
pub(super) struct Context<'a> {
    pub(super) target: &'a Target,
    pub(super) request: &'a Request,
    pub(super) run: &'a Run,
}

impl Context<'_> {
    /// The words by which the server's log and `backup_label` name this backup.
    fn label(&self) -> String {
        let Request { service, data, point, .. } = self.request;
        let label = format!("muster {service}/{data} {point}");
        label.chars().filter(|c| !c.is_control() && *c != '\'' && *c != '\\').take(200).collect()
    }
}

/// What a base backup came to, besides its files.
pub(super) struct Taken {
    /// The log that must be replayed.
    pub(super) wal: Range,
    /// The content is not older.
    pub(super) data_time: Timestamp,
    /// Least and most rows of the counted tables.
    pub(super) rows: BTreeMap<String, (u64, u64)>,
    pub(super) notices: Vec<Notice>,
}

/// The folder that a path is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Data,
    Tablespace(u32),
}

impl Root {
    fn in_snapshot(self, path: &str) -> String {
        let root = match self {
            Self::Data => DATA.to_owned(),
            Self::Tablespace(number) => format!("{TABLESPACES}/{number}"),
        };
        if path.is_empty() { root } else { format!("{root}/{path}") }
    }

    /// The path as the server sees it.
    pub(super) fn in_server(self, path: &str) -> String {
        match self {
            Self::Data => path.to_owned(),
            Self::Tablespace(number) => format!("pg_tblspc/{number}/{path}"),
        }
    }
}

/// Records files for the snapshot and for the manifest.
pub(super) struct Recording<'r, 'a> {
    recorder: &'r Recorder<'a>,
    entries: Mutex<BTreeMap<String, manifest::Entry>>,
}

impl<'r, 'a> Recording<'r, 'a> {
    pub(super) fn new(recorder: &'r Recorder<'a>) -> Self {
        Self { recorder, entries: Mutex::default() }
    }

    fn folder(&self, root: Root, path: &str, facts: &Facts) -> Result<(), PostgresError> {
        Ok(self.recorder.folder(&root.in_snapshot(path), facts)?)
    }

    fn file(
        &self,
        root: Root,
        path: &str,
        facts: &Facts,
        content: &mut (dyn Read + Send),
    ) -> Result<(), PostgresError> {
        let mut content = Measured { content, hash: Sha256::new(), size: 0, failed: false };
        self.recorder.file(&root.in_snapshot(path), facts, &mut content)?;
        let listed = path.split('/').next() != Some("pg_wal");
        // What could not be read is left out, and the snapshot is partial.
        if listed && !content.failed {
            let sha256 = content.hash.finalize().into();
            let entry = manifest::Entry { size: content.size, sha256, modified: facts.modified.0 };
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.insert(root.in_server(path), entry);
        }
        Ok(())
    }

    fn problem(&self, path: &str, operation: &'static str, why: String) {
        self.recorder.problem(path, operation, io::Error::other(why));
    }

    /// Adds the manifest and the cluster's description.
    pub(super) fn finish(
        self,
        taken: &Taken,
        cluster: &Cluster,
        facts: &Facts,
    ) -> Result<(), PostgresError> {
        let entries = self.entries.into_inner().unwrap_or_else(PoisonError::into_inner);
        let text = manifest::write(&entries, &taken.wal, cluster);
        let path = Root::Data.in_snapshot(manifest::FILE);
        self.recorder.file(&path, facts, &mut text.as_bytes())?;
        let text = serde_json::to_vec_pretty(cluster).unwrap_or_default();
        self.recorder.file(CLUSTER_FILE, facts, &mut text.as_slice())?;
        Ok(())
    }
}

/// Content whose length and hash are taken as it is read.
struct Measured<'c> {
    content: &'c mut (dyn Read + Send),
    hash: Sha256,
    size: u64,
    failed: bool,
}

impl Read for Measured<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.content.read(buffer) {
            Ok(read) => {
                self.hash.update(&buffer[..read]);
                self.size += read as u64;
                Ok(read)
            }
            Err(error) => {
                self.failed |= error.kind() != io::ErrorKind::Interrupted;
                Err(error)
            }
        }
    }
}

/// What is recorded of a file that lies here.
fn facts(metadata: &std::fs::Metadata) -> Facts {
    Facts {
        permissions: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0)),
    }
}

/// What is recorded of a file that Muster adds: private to the owner of the data.
pub(super) fn added(owner: &Facts) -> Facts {
    Facts { permissions: 0o600, ..*owner }
}

/// Rows of the tables that shall be counted; a table that cannot be is told in a notice.
fn count(
    session: &mut Session,
    context: &Context<'_>,
    notices: &mut Vec<Notice>,
) -> Result<BTreeMap<String, u64>, PostgresError> {
    let mut rows = BTreeMap::new();
    for table in &context.request.count_rows {
        match tables::count(session, context.run, table) {
            Ok(count) => drop(rows.insert(table.clone(), count)),
            Err(error @ (PostgresError::Statement { .. } | PostgresError::Denied { .. })) => {
                let message = format!("the rows of '{table}' cannot be counted: {error}");
                let notice = Notice { code: "rows-not-counted", message };
                if !notices.contains(&notice) {
                    notices.push(notice);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(rows)
}

/// The range that holds both counts of each table.
fn between(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, (u64, u64)> {
    before
        .iter()
        .filter_map(|(table, &before)| {
            let after = *after.get(table)?;
            Some((table.clone(), (before.min(after), before.max(after))))
        })
        .collect()
}

/// A name for a replication slot that nobody else has.
fn slot_name() -> String {
    format!("muster_{}", uuid::Uuid::new_v4().simple())
}

fn no_slot(why: &PostgresError) -> Notice {
    Notice {
        code: "postgres-no-slot",
        message: format!("the log was not held by a replication slot during the backup: {why}"),
    }
}

/// A server and the session that asked it.
pub(super) struct Asked {
    pub(super) session: Session,
    pub(super) server: Server,
}
