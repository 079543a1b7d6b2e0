//! A snapshot becomes a data directory again, apart from the original in everything.
//!
//! The data directory is the target itself; beside it lie `TARGET.tablespaces`, one folder for each
//! tablespace, and `TARGET.server` with what belongs to the server that will run on it. The links
//! of tablespaces are made anew and lead there: the original's folders, which may be on this very
//! host, are never touched. At the end every file is compared with the manifest.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
};

use muster_repository::{
    dump::{DumpTarget, warm},
    format::{pack::BlobKind, tree::NodeKind},
    id::{BlobId, SnapshotId},
    repository::IndexedRepository,
    restore::{Overwrite, RestoreError, RestoreOptions, RestoreReport, restore},
    run::Run,
    tree_walk::{Place, find_place, find_subtree},
};

use super::{
    PostgresError,
    base_backup::{CLUSTER_FILE, DATA, TABLESPACES},
    cluster::{Cluster, MAJORS},
    manifest,
    run_as::{self, RunAs},
};
use crate::capture::Restored;

/// The largest description of a cluster that is read, in bytes.
const CLUSTER_BYTES_MAX: u64 = 16 << 20;

/// Restores a snapshot of a server into `target`, which becomes the data directory. `user` is the
/// system's user who will run the server; by default the one who ran the original. Only root can
/// choose. With any other `overwrite` than [`Overwrite::Refuse`] what is in the target and not in
/// the snapshot is removed: a data directory cannot be a mixture.
///
/// # Errors
/// Fails when the snapshot is not of a server, the target holds something and overwriting was not
/// chosen, the target cannot be written, a restored file differs from the manifest, or the run is
/// cancelled. What the repository cannot give is in [`Restored::left_out`], and then nothing was
/// compared.
pub fn restore_into(
    repository: &IndexedRepository,
    snapshot: SnapshotId,
    target: &Path,
    overwrite: Overwrite,
    user: Option<&str>,
    run: &Run,
) -> Result<Restored, PostgresError> {
    let target = std::path::absolute(target).map_err(PostgresError::file("find", target))?;
    // What describes the server is data, too: one wait for all.
    let tree = repository.snapshot(snapshot)?.tree;
    warm(repository, &DumpTarget::Folder { path: Vec::new(), tree }, run)?;
    let source = Source::find(repository, snapshot)?;
    let user = run_as::choose(user, source.cluster.owner.as_deref())?;
    let server = beside(&target, "server");
    refuse_unless_empty(&server, overwrite)?;
    let mut restored =
        Restored { path: target.clone(), bytes: 0, files: 0, left_out: Vec::new(), damaged: false };
    restore_tree(repository, source.data, &target, overwrite, &mut restored, run)?;
    let tablespaces = beside(&target, "tablespaces");
    if let Some(tree) = source.tablespaces {
        restore_tree(repository, tree, &tablespaces, overwrite, &mut restored, run)?;
        link_tablespaces(&target, &tablespaces)?;
    }
    describe(&server, &source.cluster)?;
    for folder in [&target, &server, &tablespaces] {
        own(folder, user.as_ref())?;
    }
    if restored.left_out.is_empty() {
        manifest::verify(&target, run)?;
    }
    Ok(restored)
}

/// Reads what a snapshot records of its server.
///
/// # Errors
/// Fails when the snapshot is not of a server, or cannot be read.
pub fn read_cluster(
    repository: &IndexedRepository,
    snapshot: SnapshotId,
) -> Result<Cluster, PostgresError> {
    Ok(Source::find(repository, snapshot)?.cluster)
}

/// Compares a data directory with its manifest, as `pg_verifybackup` does. To be asked before a
/// server is started on it; after that, files differ.
///
/// # Errors
/// Fails when a file differs or is missing, the manifest itself is damaged, or the run is
/// cancelled.
pub fn verify_restored(data: &Path, run: &Run) -> Result<(), PostgresError> {
    manifest::verify(data, run)
}

/// `TARGET.suffix`.
pub(super) fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".");
    name.push(suffix);
    target.with_file_name(name)
}

/// The parts of a snapshot.
struct Source {
    cluster: Cluster,
    data: BlobId,
    tablespaces: Option<BlobId>,
}

impl Source {
    fn find(repository: &IndexedRepository, id: SnapshotId) -> Result<Self, PostgresError> {
        let snapshot = repository.snapshot(id)?;
        let path = snapshot.paths.first().map(String::as_str).unwrap_or_default();
        let mut reader = repository.blob_reader()?;
        let top = find_subtree(&mut reader, snapshot.tree, path.as_bytes())?;
        let Place::Entry(node) = find_place(&mut reader, top, CLUSTER_FILE.as_bytes())? else {
            return Err(PostgresError::NotACluster(format!("no {CLUSTER_FILE}")));
        };
        if node.kind != NodeKind::File || node.size > CLUSTER_BYTES_MAX {
            return Err(PostgresError::NotACluster(format!("{CLUSTER_FILE} is no such file")));
        }
        let (mut text, mut chunk) = (Vec::new(), Vec::new());
        for id in node.content.unwrap_or_default() {
            reader.read(BlobKind::Data, id, &mut chunk)?;
            text.extend_from_slice(&chunk);
        }
        let cluster: Cluster = serde_json::from_slice(&text)
            .map_err(|error| PostgresError::NotACluster(error.to_string()))?;
        if !MAJORS.contains(&cluster.major) {
            return Err(PostgresError::Version(cluster.version));
        }
        let data = find_subtree(&mut reader, top, DATA.as_bytes())?;
        let tablespaces = find_subtree(&mut reader, top, TABLESPACES.as_bytes());
        // Most servers have none.
        let tablespaces = match cluster.tablespaces.is_empty() {
            true => None,
            false => Some(tablespaces?),
        };
        Ok(Self { cluster, data, tablespaces })
    }
}

fn refuse_unless_empty(folder: &Path, overwrite: Overwrite) -> Result<(), PostgresError> {
    let holds_something = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    match holds_something && overwrite == Overwrite::Refuse {
        true => Err(RestoreError::TargetNotEmpty { target: folder.to_owned() }.into()),
        false => Ok(()),
    }
}

fn restore_tree(
    repository: &IndexedRepository,
    tree: BlobId,
    target: &Path,
    overwrite: Overwrite,
    restored: &mut Restored,
    run: &Run,
) -> Result<(), PostgresError> {
    let mut options = RestoreOptions::new(target);
    options.overwrite = overwrite;
    options.delete = overwrite != Overwrite::Refuse;
    let report = restore(repository, tree, &options, run)?;
    restored.bytes += report.counts.bytes_restored;
    restored.files += report.counts.files_restored;
    restored.damaged |= report.found_damage();
    restored.left_out.extend(left_out(&report));
    private(target)
}

fn left_out(report: &RestoreReport) -> Vec<String> {
    let problems = report.problems.iter().map(|problem| {
        format!("{}: cannot {} it: {}", problem.path.display(), problem.operation, problem.cause)
    });
    problems.collect()
}

/// Links each restored tablespace to where the data directory expects it.
fn link_tablespaces(target: &Path, tablespaces: &Path) -> Result<(), PostgresError> {
    let links = target.join("pg_tblspc");
    let entries = fs::read_dir(tablespaces).map_err(PostgresError::file("list", tablespaces))?;
    for entry in entries {
        let entry = entry.map_err(PostgresError::file("list", tablespaces))?;
        let link = links.join(entry.file_name());
        private(&entry.path())?;
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PostgresError::file("replace", link)(error));
            }
            _ => symlink(entry.path(), &link).map_err(PostgresError::file("link", link))?,
        }
    }
    Ok(())
}

/// Keeps what the server to be started needs to know beside the data.
fn describe(server: &Path, cluster: &Cluster) -> Result<(), PostgresError> {
    fs::create_dir_all(server).map_err(PostgresError::file("make", server))?;
    private(server)?;
    // What an earlier server on this target left here is not of this data.
    let aside = server.join(super::server::ASIDE);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(PostgresError::file("remove", aside)(error));
        }
        _ => {}
    }
    let path = server.join(CLUSTER_FILE);
    let text = serde_json::to_vec_pretty(cluster).unwrap_or_default();
    fs::write(&path, text).map_err(PostgresError::file("write", path))
}

/// Reads what [`restore_into`] kept beside `data`.
pub(super) fn described(data: &Path) -> Result<Cluster, PostgresError> {
    let path = beside(data, "server").join(CLUSTER_FILE);
    let text = fs::read(&path).map_err(PostgresError::file("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| PostgresError::NotACluster(error.to_string()))
}

/// A server refuses a data directory that others may enter.
pub(super) fn private(folder: &Path) -> Result<(), PostgresError> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))
        .map_err(PostgresError::file("close to others", folder))
}

/// Gives a folder with all that is in it to `user`; links are given, and not followed.
pub(super) fn own(folder: &Path, user: Option<&RunAs>) -> Result<(), PostgresError> {
    let Some(user) = user.filter(|_| folder.exists()) else { return Ok(()) };
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = || PostgresError::file("change the owner of", &folder);
        lchown(&folder, Some(user.uid), Some(user.gid)).map_err(failed())?;
        for entry in fs::read_dir(&folder).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            match entry.file_type().map_err(failed())?.is_dir() {
                true => folders.push(entry.path()),
                false => lchown(entry.path(), Some(user.uid), Some(user.gid))
                    .map_err(PostgresError::file("change the owner of", entry.path()))?,
            }
        }
    }
    Ok(())
}
