//! Way A: the server's files are read where they are, by several threads.
//!
//! A backup is begun and ended by statements in one session; while it lasts, files are copied as
//! they are, torn and out of step with each other, and the log between the two moments makes them
//! whole. That log is copied too, after the end, and its files are examined one by one: a snapshot
//! that cannot become consistent by itself is none. A temporary replication slot keeps the server
//! from recycling them; it goes with the session, whatever becomes of us.
//!
//! **Every file is read again**, whatever the kind of backup. Size and times do not vouch for a
//! database's file: a page may be written by the kernel's clock tick of the last backup, a system
//! clock may step, and nobody looks at pages that are not read. What the repository has already is
//! not stored again, so what it costs is reading, and what it buys is that each backup verifies
//! every page.
//!
//! # Source
//! PostgreSQL documentation, *Continuous Archiving*, *Making a Base Backup Using the Low Level
//! API*.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use jiff::Timestamp;
use muster_repository::backup::Facts;

use super::{
    Asked, Context, Recording, Root, Taken, added, between, count, facts,
    pages::{PageReader, Suspects},
};
use crate::capture::Notice;
use crate::postgres::{
    PostgresError,
    cluster::{Cluster, Server},
    connection::Session,
    files::{self, RelationFile},
    wal::{self, Lsn, Range, Segment},
};

/// Threads that read files, at least and at most.
const READERS: (usize, usize) = (2, 8);

/// The file that is read after all others.
const CONTROL: &str = "global/pg_control";

/// A server whose files can be read here.
pub(in crate::postgres) struct Here {
    data: PathBuf,
    /// What kept the log from being held by a slot.
    notice: Option<Notice>,
}

/// Finds out whether the data directory that the server names is, here, the server's own.
pub(in crate::postgres) fn find(session: &mut Session, server: &Server) -> Option<Here> {
    let data = server.data_directory.clone()?;
    let mut identifier = [0; 8];
    File::open(data.join(CONTROL)).and_then(|file| file.read_exact_at(&mut identifier, 0)).ok()?;
    if u64::from_ne_bytes(identifier) != server.cluster.system_identifier {
        return None;
    }
    // A standby has the same identifier as its primary, perhaps at the same path of another host.
    // A slot with a name that nobody guesses shows up as a folder, in the right place only.
    let name = super::slot_name();
    let made = session
        .client()
        .query_one("select pg_create_physical_replication_slot($1, true, true)::text", &[&name])
        .map_err(PostgresError::statement("hold the log by a replication slot"));
    match made {
        Ok(_) if data.join("pg_replslot").join(&name).is_dir() => Some(Here { data, notice: None }),
        Ok(_) => {
            // Should this fail, the slot goes with the session.
            drop(session.client().execute("select pg_drop_replication_slot($1)", &[&name]));
            None
        }
        Err(error) => {
            let notice = Some(super::no_slot(&error));
            is_running_here(session, &data).then_some(Here { data, notice })
        }
    }
}

/// Whether the server that answers is the one that runs on these files, by when it was started.
fn is_running_here(session: &mut Session, data: &Path) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let asked = session.client().query_one(
        "select extract(epoch from pg_postmaster_start_time())::bigint, current_setting('port')",
        &[],
    );
    let (Ok(row), [_, _, started, port, ..]) = (asked, lines.as_slice()) else { return false };
    let (answered, answered_port): (i64, String) = (row.get(0), row.get(1));
    let near = started.parse::<i64>().is_ok_and(|started| (answered - started).abs() <= 10);
    near && *port == answered_port
}

/// Takes the backup.
pub(in crate::postgres) fn take(
    recording: &Recording<'_, '_>,
    asked: &mut Asked,
    here: Here,
    context: &Context<'_>,
) -> Result<(Taken, Facts), PostgresError> {
    let Asked { session, server } = asked;
    let Here { data, notice } = here;
    let mut notices: Vec<_> = notice.into_iter().collect();
    let owner = fs::metadata(&data).map_err(PostgresError::file("look at", &data))?;
    let owner = facts(&owner);
    server.cluster.owner = user_name(owner.uid);
    let start = begin(session, &server.cluster, context)?;
    let mut listing = Listing::default();
    listing.walk(Root::Data, &data, "", &server.cluster)?;
    listing.tell(&mut notices);
    server.cluster.tablespaces.clone_from(&listing.tablespaces);
    let suspects = Suspects::default();
    read_all(recording, &listing, &suspects, start, &server.cluster, context)?;
    read_control(recording, &data, context)?;

    let before = count(session, context, &mut notices)?;
    let data_time = Timestamp::now();
    let (end, label) = end(session, &server.cluster, context)?;
    let after = count(session, context, &mut notices)?;

    let wal = Range { timeline: timeline(&label)?, start, end };
    recording.file(Root::Data, "backup_label", &added(&owner), &mut label.as_bytes())?;
    copy_log(recording, &data.join("pg_wal"), &wal, &server.cluster, &owner)?;
    for (path, sentence) in suspects.convict(&wal) {
        recording.problem(&path, "read the pages of", sentence);
    }
    let rows = between(&before, &after);
    Ok((Taken { wal, data_time, rows, notices }, added(&owner)))
}

fn user_name(uid: u32) -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    user.ok().flatten().map(|user| user.name)
}

/// Begins the backup; returns where in the log.
fn begin(
    session: &mut Session,
    cluster: &Cluster,
    context: &Context<'_>,
) -> Result<Lsn, PostgresError> {
    // The session is idle while files are read, and nothing may end it for that.
    let keep = match cluster.major {
        ..14 => "set statement_timeout = 0; set lock_timeout = 0",
        _ => "set statement_timeout = 0; set lock_timeout = 0; set idle_session_timeout = 0",
    };
    let statement = match cluster.major {
        ..15 => "select pg_start_backup($1, true, false)::text",
        _ => "select pg_backup_start($1, true)::text",
    };
    let label = context.label();
    let row = session.watched(context.run, "begin the backup", |client| {
        client.batch_execute(keep)?;
        client.query_one(statement, &[&label])
    })?;
    lsn(row.get(0))
}

/// Ends the backup; returns where in the log, and the content of `backup_label`.
fn end(
    session: &mut Session,
    cluster: &Cluster,
    context: &Context<'_>,
) -> Result<(Lsn, String), PostgresError> {
    // Nobody waits for the archive: the log that is needed is copied.
    let statement = match cluster.major {
        ..15 => "select lsn::text, labelfile from pg_stop_backup(false, false)",
        _ => "select lsn::text, labelfile from pg_backup_stop(false)",
    };
    let row = session
        .watched(context.run, "end the backup", |client| client.query_one(statement, &[]))?;
    Ok((lsn(row.get(0))?, row.get(1)))
}

fn lsn(text: &str) -> Result<Lsn, PostgresError> {
    text.parse().map_err(|error: wal::NotAnLsn| PostgresError::Statement {
        operation: "back up the server",
        message: error.to_string(),
    })
}

/// The timeline that `backup_label` names.
fn timeline(label: &str) -> Result<u32, PostgresError> {
    let line = label.lines().find_map(|line| line.strip_prefix("START TIMELINE: "));
    line.and_then(|number| number.trim().parse().ok()).ok_or_else(|| PostgresError::Statement {
        operation: "end the backup",
        message: "the server's backup_label names no timeline".to_owned(),
    })
}

/// What there is to read.
#[derive(Default)]
struct Listing {
    folders: Vec<(Root, String, Facts)>,
    files: Vec<Listed>,
    tablespaces: BTreeMap<u32, PathBuf>,
    /// Links and the like, which no base backup takes.
    odd: BTreeSet<String>,
}

struct Listed {
    root: Root,
    path: String,
    place: PathBuf,
    /// For files of relations: the number of the first page.
    first_page: Option<u32>,
}

impl Listing {
    fn walk(
        &mut self,
        root: Root,
        place: &Path,
        path: &str,
        cluster: &Cluster,
    ) -> Result<(), PostgresError> {
        let Some(metadata) = present(fs::metadata(place), "look at", place)? else {
            return Ok(());
        };
        self.folders.push((root, path.to_owned(), facts(&metadata)));
        if root == Root::Data && files::is_emptied(path) {
            return Ok(());
        }
        let Some(names) = present(names(place), "list", place)? else { return Ok(()) };
        let is_relations = files::holds_relations(path, root != Root::Data);
        let unlogged = match is_relations {
            true => files::unlogged(names.iter().map(String::as_str)),
            false => Default::default(),
        };
        let version = format!("PG_{}_", cluster.major);
        for name in &names {
            // A tablespace may be shared with servers of other versions.
            let foreign = root != Root::Data && path.is_empty() && !name.starts_with(&version);
            let relation = RelationFile::parse(name).filter(|_| is_relations);
            let is_emptied = relation
                .is_some_and(|file| unlogged.contains(file.number) && file.fork != Some("init"));
            if foreign || is_emptied || files::is_left_out(name) {
                continue;
            }
            let inner = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            self.entry(root, place.join(name), inner, relation, cluster)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        root: Root,
        place: PathBuf,
        path: String,
        relation: Option<RelationFile<'_>>,
        cluster: &Cluster,
    ) -> Result<(), PostgresError> {
        let Some(metadata) = present(fs::symlink_metadata(&place), "look at", &place)? else {
            return Ok(());
        };
        let kind = metadata.file_type();
        let tablespace = path.strip_prefix("pg_tblspc/").and_then(|name| name.parse().ok());
        match tablespace {
            Some(number) if kind.is_symlink() && root == Root::Data => {
                let Some(target) = present(fs::canonicalize(&place), "follow", &place)? else {
                    return Ok(());
                };
                self.tablespaces.insert(number, target.clone());
                return self.walk(Root::Tablespace(number), &target, "", cluster);
            }
            _ => {}
        }
        let is_log = root == Root::Data && path == "pg_wal";
        if kind.is_dir() || is_log {
            self.walk(root, &place, &path, cluster)?;
        } else if kind.is_file() && path != CONTROL {
            let first_page = relation.map(|file| file.first_page());
            self.files.push(Listed { root, path, place, first_page });
        } else if !kind.is_file() {
            self.odd.insert(root.in_server(&path));
        }
        Ok(())
    }

    fn tell(&self, notices: &mut Vec<Notice>) {
        if !self.odd.is_empty() {
            let names = self.odd.iter().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("no regular files, as in any base backup not taken: {names}");
            notices.push(Notice { code: "postgres-not-taken", message });
        }
    }
}

/// Nothing when it is gone: a table that was dropped meanwhile is dropped by the replay too.
fn present<T>(
    result: io::Result<T>,
    operation: &'static str,
    place: &Path,
) -> Result<Option<T>, PostgresError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PostgresError::file(operation, place)(error)),
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string();
        names.push(name.map_err(|name| {
            io::Error::other(format!("the name '{}' is not UTF-8", name.to_string_lossy()))
        })?);
    }
    names.sort_unstable();
    Ok(names)
}

fn read_all(
    recording: &Recording<'_, '_>,
    listing: &Listing,
    suspects: &Suspects,
    start: Lsn,
    cluster: &Cluster,
    context: &Context<'_>,
) -> Result<(), PostgresError> {
    for (root, path, facts) in &listing.folders {
        recording.folder(*root, path, facts)?;
    }
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(listed) = listing.files.get(next.fetch_add(1, Ordering::Relaxed)) {
            context.run.cancel.check()?;
            if let Err(error) = read(recording, listed, suspects, start, cluster) {
                // The others shall not go on for nothing.
                next.store(listing.files.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    let readers = thread::available_parallelism()
        .map_or(READERS.0, |number| number.get().clamp(READERS.0, READERS.1));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..readers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .try_for_each(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn read(
    recording: &Recording<'_, '_>,
    listed: &Listed,
    suspects: &Suspects,
    start: Lsn,
    cluster: &Cluster,
) -> Result<(), PostgresError> {
    let Listed { root, path, place, first_page } = listed;
    let shown = root.in_server(path);
    let opened = File::open(place).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, mut file) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            recording.problem(&shown, "open", error.to_string());
            return Ok(());
        }
    };
    let facts = facts(&metadata);
    match first_page.filter(|_| cluster.data_checksums) {
        Some(first_page) => {
            let shape = (first_page, cluster.block_bytes);
            let mut pages = PageReader::new(&file, &shown, suspects, start, shape);
            recording.file(*root, path, &facts, &mut pages)
        }
        None => recording.file(*root, path, &facts, &mut file),
    }
}

/// Reads the control file, which must be of a moment after all others were read. It is written in
/// one go, and read until it is the same twice.
fn read_control(
    recording: &Recording<'_, '_>,
    data: &Path,
    context: &Context<'_>,
) -> Result<(), PostgresError> {
    let place = data.join(CONTROL);
    let read = || fs::read(&place).map_err(PostgresError::file("read", &place));
    let metadata = fs::metadata(&place).map_err(PostgresError::file("look at", &place))?;
    let mut content = read()?;
    loop {
        context.run.cancel.check()?;
        let again = read()?;
        if again == content {
            break;
        }
        content = again;
    }
    recording.file(Root::Data, CONTROL, &facts(&metadata), &mut content.as_slice())
}

/// Copies the segments of the log that the snapshot needs, and the histories of timelines.
fn copy_log(
    recording: &Recording<'_, '_>,
    folder: &Path,
    wal: &Range,
    cluster: &Cluster,
    owner: &Facts,
) -> Result<(), PostgresError> {
    let status = Facts { permissions: 0o700, ..*owner };
    recording.folder(Root::Data, "pg_wal/archive_status", &status)?;
    for segment in wal.segments(cluster.wal_segment_bytes) {
        copy_segment(recording, folder, &segment, cluster)?;
        recording.done(&segment.name, owner)?;
    }
    let histories = names(folder).map_err(PostgresError::file("list", folder))?;
    for name in histories.iter().filter(|name| name.ends_with(".history")) {
        let place = folder.join(name);
        let mut file = File::open(&place).map_err(PostgresError::file("open", &place))?;
        recording.file(Root::Data, &format!("pg_wal/{name}"), &added(owner), &mut file)?;
        recording.done(name, owner)?;
    }
    Ok(())
}

impl Recording<'_, '_> {
    /// Says that a file of the log need not be archived by the restored server.
    fn done(&self, name: &str, owner: &Facts) -> Result<(), PostgresError> {
        let path = format!("pg_wal/archive_status/{name}.done");
        self.file(Root::Data, &path, &added(owner), &mut io::empty())
    }
}

fn copy_segment(
    recording: &Recording<'_, '_>,
    folder: &Path,
    segment: &Segment,
    cluster: &Cluster,
) -> Result<(), PostgresError> {
    let missing =
        |problem: String| PostgresError::WalMissing { segment: segment.name.clone(), problem };
    let place = folder.join(&segment.name);
    let file = File::open(&place).map_err(|error| missing(format!("cannot be read: {error}")))?;
    let metadata = file.metadata().map_err(PostgresError::file("look at", &place))?;
    let examine = || {
        let mut header = [0; 40];
        file.read_exact_at(&mut header, 0).map_err(|error| missing(error.to_string()))?;
        let (bytes, identifier) = (cluster.wal_segment_bytes, cluster.system_identifier);
        let flaw = wal::flaw(segment, &header, metadata.len(), bytes, identifier);
        flaw.map_or(Ok(()), |flaw| Err(missing(flaw)))
    };
    examine()?;
    let path = format!("pg_wal/{}", segment.name);
    let mut content = (&file).take(metadata.len());
    recording.file(Root::Data, &path, &facts(&metadata), &mut content)?;
    // Recycled while it was read, it would have a new header by now.
    examine()
}
