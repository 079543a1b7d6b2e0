//! PostgreSQL: a running server becomes a snapshot from which a server can be started.
//!
//! [`back_up`] takes a physical base backup, all databases of the server at one moment, with the
//! write-ahead log that makes it consistent: no archive is needed to restore. [`restore_into`]
//! brings it back and proves it against its manifest, [`server`] says how a server is started on
//! it in isolation, [`integrity`] questions it page by page and index by index, [`damage`] and
//! [`empty_like`] make negative controls, [`MarkerWriter`] makes loss measurable.
//!
//! There are two ways to the files (see [`Way`]), and one layout of the snapshot.
//!
//! **Invariant**: nothing is written into the server but markers and a temporary replication slot,
//! and nothing that is restored leads back to the server's own files.
//!
//! # Source
//! PostgreSQL documentation, *Continuous Archiving and Point-in-Time Recovery*.

mod base_backup;
mod cluster;
mod connection;
mod empty;
mod error;
mod files;
mod integrity;
mod manifest;
mod markers;
pub mod page_checksum;
mod pause;
mod programs;
mod restore;
mod run_as;
pub mod server;
mod tables;
mod tls;
mod wal;
mod wire;

use std::path::Path;

use muster_repository::{
    backup::{BackupOptions, BackupReport, Recorder, backup_recorded},
    environment::Environment,
    repository::Repository,
    run::Run,
};

pub use cluster::Cluster;
pub use connection::PostgresSource;
pub use empty::empty_like;
pub use error::PostgresError;
pub use integrity::{Integrity, integrity};
pub use markers::{MarkerWriter, read_markers};
pub use programs::Programs;
pub use restore::{read_cluster, restore_into, verify_restored};
pub use run_as::RunAs;
pub use tables::{Damaged, count_rows, damage, user_tables};
pub use wal::{Lsn, NotAnLsn};

use self::{
    base_backup::{Asked, Context, Recording, Taken, local, replication},
    cluster::Server,
    connection::Target,
};
use crate::{
    capture::{Captured, Request},
    record,
};

/// How the server's files are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// Read where they are if they can be, else sent by the server.
    #[default]
    Automatic,
    /// Sent by the server over the replication protocol.
    Replication,
}

/// Backs up all databases of a server.
///
/// # Errors
/// Fails when the server cannot be reached, is of an unsupported version or a standby, does not allow a backup,
/// stops meanwhile or recycles log that is needed; when the repository cannot be written; and when
/// the run is cancelled. There is no snapshot then.
pub fn back_up(
    repository: &Repository,
    source: &PostgresSource,
    request: &Request,
    environment: &Environment,
    run: &Run,
) -> Result<Captured, PostgresError> {
    back_up_by(Way::Automatic, repository, source, request, environment, run)
}

/// As [`back_up`], by a way that is chosen.
///
/// # Errors
/// As [`back_up`].
pub fn back_up_by(
    way: Way,
    repository: &Repository,
    source: &PostgresSource,
    request: &Request,
    environment: &Environment,
    run: &Run,
) -> Result<Captured, PostgresError> {
    let target = Target::parse(source)?;
    let mut session = target.connect()?;
    let server = Server::ask(&mut session, &target)?;
    let mut options = BackupOptions::new(Vec::new());
    options.kind = request.kind;
    options.tags = request.tags("postgres");
    options.tags.push(format!("muster:postgres={}", server.cluster.major));
    options.tags.push(format!("muster:database={}", server.cluster.database));
    if server.is_standby {
        return Err(PostgresError::Standby);
    }
    let may_read = way == Way::Automatic && server.may_start_backup;
    let here = if may_read { local::find(&mut session, &server) } else { None };
    let mut asked = Asked { session, server };
    let context = Context { target: &target, request, run };
    let record = |recorder: &Recorder<'_>| {
        let recording = Recording::new(recorder);
        let (taken, facts) = match here {
            Some(here) => local::take(&recording, &mut asked, here, &context)?,
            None => replication::take(&recording, &mut asked, &context)?,
        };
        recording.finish(&taken, &asked.server.cluster, &facts)?;
        Ok::<_, PostgresError>(taken)
    };
    let path = snapshot_path(request);
    let (report, taken) =
        backup_recorded(repository, Path::new(&path), options, environment, run, record)?;
    Ok(captured(report, taken))
}

/// Where the snapshot's tree stands: a path for each data item, so that none is taken for the
/// earlier state of another.
fn snapshot_path(request: &Request) -> String {
    let name = |text: &str| match text.replace(['/', '\0'], "_").as_str() {
        "" | "." | ".." => "_".to_owned(),
        name => name.to_owned(),
    };
    format!("/postgres/{}/{}", name(&request.service), name(&request.data))
}

fn captured(report: BackupReport, taken: Taken) -> Captured {
    let summary = report.snapshot.summary.as_ref();
    Captured {
        left_out: report.problems.iter().map(record::left_out).collect(),
        tree: report.snapshot.tree,
        snapshot: report.id.expect("only a dry run has no snapshot"),
        data_time: taken.data_time,
        bytes: summary.map_or(0, |summary| summary.total_bytes_processed),
        bytes_added: summary.map_or(0, |summary| summary.data_added_packed),
        files: summary.map_or(0, |summary| summary.total_files_processed),
        notices: taken.notices.into_iter().chain(record::losses(&report)).collect(),
        rows: taken.rows,
    }
}
