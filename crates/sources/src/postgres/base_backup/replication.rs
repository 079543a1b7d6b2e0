//! Way B: the server sends its files, as `BASE_BACKUP` of the replication protocol.
//!
//! For servers on other hosts and in containers. The tar streams are taken apart and
//! recorded file by file, so the snapshot is laid out as by way A and deduplicates with it, and
//! needs no room on a disk. The server itself verifies the checksums of pages as it reads, and can
//! read a page again; what it warns of makes the snapshot partial.
//!
//! # Source
//! PostgreSQL documentation, *Streaming Replication Protocol*, `BASE_BACKUP`, in the forms of
//! versions 13, 14 (one copy for each archive) and 15 (one copy for all).

use std::{
    collections::VecDeque,
    io::{self, Read},
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use muster_repository::backup::Facts;

use super::{Asked, Context, Recording, Root, Taken, between, count};
use crate::{
    capture::Notice,
    postgres::{
        PostgresError,
        connection::Session,
        wal::{Lsn, Range},
        wire::{Message, Replication, Row, unexpected},
    },
};

/// How often the server is asked in which phase it is.
const PHASE_TICK: Duration = Duration::from_millis(200);

/// A block of a tar archive, in bytes.
const TAR_BLOCK: usize = 512;

/// SQLSTATE of a base backup that found broken pages: all was sent, and then it failed.
const DATA_CORRUPTED: &str = "XX001";

/// Takes the backup.
pub(in crate::postgres) fn take(
    recording: &Recording<'_, '_>,
    asked: &mut Asked,
    context: &Context<'_>,
) -> Result<(Taken, Facts), PostgresError> {
    let Asked { session, server } = asked;
    let mut notices = Vec::new();
    let mut wire = Replication::connect(context.target, context.run)?;
    let slot = super::slot_name();
    let held = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY PHYSICAL RESERVE_WAL");
    match wire.query(&held) {
        Ok(_) => {}
        Err(error @ (PostgresError::Statement { .. } | PostgresError::Denied { .. })) => {
            notices.push(super::no_slot(&error));
        }
        Err(error) => return Err(error),
    }
    let before = count(session, context, &mut notices)?;
    let process = wire.process;
    let mut moment = Moment { session, process, asked: None, data_time: Timestamp::now() };
    let label = context.label();
    wire.start(&match server.cluster.major {
        ..15 => format!("BASE_BACKUP LABEL '{label}' FAST WAL NOWAIT"),
        _ => format!("BASE_BACKUP (LABEL '{label}', CHECKPOINT 'fast', WAL true, WAIT false)"),
    })?;
    let (start, timeline) = position(&wire.result()?)?;
    let archives = archives(&wire.result()?)?;
    for (number, path) in &archives {
        if let (Root::Tablespace(number), Some(path)) = (number, path) {
            server.cluster.tablespaces.insert(*number, PathBuf::from(path));
        }
    }
    let mut copy = Copy::new(&mut wire, server.cluster.major, archives);
    let mut receiving = Receiving { recording, context, moment: &mut moment, counted: None };
    while let Some(root) = copy.next_archive()? {
        receiving.archive(root, &mut copy)?;
    }
    let Receiving { counted, .. } = receiving;
    let (end, _) = position(&wire.result()?)?;
    finish(&mut wire, recording)?;
    let data_time = moment.data_time;
    let before = counted.unwrap_or(before);
    let rows = between(&before, &count(session, context, &mut notices)?);
    let wal = Range { timeline, start, end };
    let (uid, gid) = (nix::unistd::Uid::current().as_raw(), nix::unistd::Gid::current().as_raw());
    let owner = Facts { permissions: 0o600, uid, gid, modified: (data_time.as_second(), 0) };
    Ok((Taken { wal, data_time, rows, notices }, owner))
}

/// Waits for the command's end. Broken pages are told there, after everything was sent.
fn finish(wire: &mut Replication<'_>, recording: &Recording<'_, '_>) -> Result<(), PostgresError> {
    let mut message = Message::default();
    let ended = loop {
        match wire.receive(&mut message) {
            Ok(()) if message.tag == b'Z' => break Ok(()),
            Ok(()) => {}
            Err(error) => break Err(error),
        }
    };
    let warnings = std::mem::take(&mut wire.warnings);
    let broken: Vec<_> =
        warnings.into_iter().filter(|said| said.message.contains("checksum")).collect();
    for said in &broken {
        recording.problem("data", "read the pages of", said.message.clone());
    }
    match ended {
        Err(PostgresError::Statement { .. }) if wire.failure == DATA_CORRUPTED => {
            if broken.is_empty() {
                recording.problem("data", "read the pages of", "a checksum is wrong".to_owned());
            }
            Ok(())
        }
        ended => ended,
    }
}

/// The latest moment at which the server was still sending files.
struct Moment<'s> {
    session: &'s mut Session,
    process: i32,
    asked: Option<Instant>,
    data_time: Timestamp,
}

impl Moment<'_> {
    /// Asks again when it is time to: whatever the server goes on to send is of its end, which is
    /// later.
    fn look(&mut self) -> Result<bool, PostgresError> {
        if self.asked.is_some_and(|asked| asked.elapsed() < PHASE_TICK) {
            return Ok(false);
        }
        self.asked = Some(Instant::now());
        let now = Timestamp::now();
        let statement = "select phase from pg_stat_progress_basebackup where pid = $1";
        let row = self
            .session
            .client()
            .query_opt(statement, &[&self.process])
            .map_err(PostgresError::statement("ask how far the backup is"))?;
        let phase: Option<String> = row.and_then(|row| row.get(0));
        let is_sending = phase.as_deref() == Some("streaming database files");
        if is_sending {
            self.data_time = now;
        }
        Ok(is_sending)
    }

    fn look_at_once(&mut self) -> Result<bool, PostgresError> {
        self.asked = None;
        self.look()
    }
}

/// Reads the row with a position and a timeline.
fn position(rows: &[Row]) -> Result<(Lsn, u32), PostgresError> {
    let row = rows.first().ok_or_else(|| unexpected(b'C'))?;
    let text = |at: usize| row.get(at).and_then(Option::as_deref);
    let lsn = text(0).and_then(|text| text.parse().ok());
    let timeline = text(1).and_then(|text| text.parse().ok());
    lsn.zip(timeline).ok_or_else(|| unexpected(b'D'))
}

type Archive = (Root, Option<String>);

/// Reads the rows that name the archives: number and place of each tablespace, and NULL for the
/// data directory.
fn archives(rows: &[Row]) -> Result<VecDeque<Archive>, PostgresError> {
    let archive = |row: &Row| match row.as_slice() {
        [Some(number), path, ..] => {
            let number = number.parse().map_err(|_| unexpected(b'D'))?;
            Ok((Root::Tablespace(number), path.clone()))
        }
        _ => Ok((Root::Data, None)),
    };
    rows.iter().map(archive).collect()
}

/// The bytes of the archives, one after the other.
struct Copy<'w, 'r> {
    wire: &'w mut Replication<'r>,
    /// From 15 on all archives come in one copy, and each message says what it is.
    is_marked: bool,
    archives: VecDeque<Archive>,
    message: Message,
    given: usize,
    state: State,
    failure: Option<PostgresError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No copy is under way.
    Before,
    /// Within an archive.
    Within,
    /// An archive ended; in the same copy another begins, of which we know already.
    Next(Root),
    /// The copy ended.
    After,
}

impl<'w, 'r> Copy<'w, 'r> {
    fn new(wire: &'w mut Replication<'r>, major: u32, archives: VecDeque<Archive>) -> Self {
        Self {
            wire,
            is_marked: major >= 15,
            archives,
            message: Message::default(),
            given: 0,
            state: State::Before,
            failure: None,
        }
    }

    /// Begins the next archive.
    fn next_archive(&mut self) -> Result<Option<Root>, PostgresError> {
        if self.is_marked {
            if self.state == State::Before {
                self.expect_copy()?;
                // Its first message names the first archive.
                self.pull()?;
            }
            let State::Next(root) = self.state else { return Ok(None) };
            self.state = State::Within;
            return Ok(Some(root));
        }
        let Some((root, _)) = self.archives.pop_front() else { return Ok(None) };
        self.expect_copy()?;
        self.state = State::Within;
        Ok(Some(root))
    }

    fn expect_copy(&mut self) -> Result<(), PostgresError> {
        self.wire.receive(&mut self.message)?;
        self.given = self.message.body.len();
        match self.message.tag {
            b'H' => Ok(()),
            tag => Err(unexpected(tag)),
        }
    }

    /// Receives until there is data, or the archive ends.
    fn pull(&mut self) -> Result<(), PostgresError> {
        loop {
            self.wire.receive(&mut self.message)?;
            self.given = self.message.body.len();
            match (self.message.tag, self.is_marked, self.message.body.first()) {
                (b'c', ..) => {
                    self.state = State::After;
                    return Ok(());
                }
                (b'd', false, _) => self.given = 0,
                (b'd', true, Some(b'd')) => self.given = 1,
                (b'd', true, Some(b'n')) => {
                    let name = self.message.body[1..].split(|&byte| byte == 0).next();
                    let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                    self.state = State::Next(root_of(&name)?);
                    return Ok(());
                }
                // How far the server is.
                (b'd', true, Some(b'p')) => {}
                (tag, ..) => return Err(unexpected(tag)),
            }
            if self.given < self.message.body.len() {
                return Ok(());
            }
        }
    }

    fn failed(&mut self) -> Result<(), PostgresError> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

/// `base.tar`, or `16384.tar`.
fn root_of(name: &str) -> Result<Root, PostgresError> {
    match name.strip_suffix(".tar") {
        Some("base") => Ok(Root::Data),
        Some(number) => {
            let number = number.parse().map_err(|_| unexpected(b'n'))?;
            Ok(Root::Tablespace(number))
        }
        None => Err(unexpected(b'n')),
    }
}

impl Read for Copy<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.message.body.len()
            && self.state == State::Within
            && let Err(error) = self.pull()
        {
            let text = error.to_string();
            self.failure = Some(error);
            return Err(io::Error::other(text));
        }
        if self.state != State::Within {
            return Ok(0);
        }
        let ready = &self.message.body[self.given..];
        let length = ready.len().min(buffer.len());
        buffer[..length].copy_from_slice(&ready[..length]);
        self.given += length;
        Ok(length)
    }
}

/// Takes archives apart.
struct Receiving<'c, 'r, 'a, 's> {
    recording: &'c Recording<'r, 'a>,
    context: &'c Context<'c>,
    moment: &'c mut Moment<'s>,
    /// Rows that were counted while the server was still sending files.
    counted: Option<std::collections::BTreeMap<String, u64>>,
}

impl Receiving<'_, '_, '_, '_> {
    fn archive(&mut self, root: Root, copy: &mut Copy<'_, '_>) -> Result<(), PostgresError> {
        let mut block = [0; TAR_BLOCK];
        while read_block(copy, &mut block)? {
            // Two blocks of zeros are an archive's end; up to version 14 there are none.
            if block.iter().all(|&byte| byte == 0) {
                continue;
            }
            self.entry(root, tar::Header::from_byte_slice(&block), copy)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        root: Root,
        header: &tar::Header,
        copy: &mut Copy<'_, '_>,
    ) -> Result<(), PostgresError> {
        let path = header.path_bytes();
        let path = std::str::from_utf8(&path).map_err(|_| broken("a name is not UTF-8"))?;
        let path = path.trim_start_matches("./").trim_end_matches('/');
        let kind = header.entry_type();
        let facts = facts(header).map_err(|error| broken(&error.to_string()))?;
        if kind.is_dir() {
            return if path == "." { Ok(()) } else { self.recording.folder(root, path, &facts) };
        }
        if !kind.is_file() {
            // The links of tablespaces; `Cluster` has where they led.
            return Ok(());
        }
        self.look(root, path)?;
        let size = header.entry_size().map_err(|error| broken(&error.to_string()))?;
        let mut content = Read::take(&mut *copy, size);
        self.recording.file(root, path, &facts, &mut content)?;
        let left = content.limit();
        copy.failed()?;
        if left > 0 {
            return Err(broken("an archive ended within a file"));
        }
        let padding = size.next_multiple_of(TAR_BLOCK as u64) - size;
        let skipped = io::copy(&mut Read::take(&mut *copy, padding), &mut io::sink());
        copy.failed()?;
        match skipped {
            Ok(skipped) if skipped == padding => Ok(()),
            _ => Err(broken("an archive ended within its padding")),
        }
    }

    /// Takes the time, and before the last file, after which the backup ends, the counts. What was
    /// counted holds only if the server had not gone on meanwhile.
    fn look(&mut self, root: Root, path: &str) -> Result<(), PostgresError> {
        if (root, path) != (Root::Data, "global/pg_control") {
            return self.moment.look().map(drop);
        }
        let counted = count(self.moment.session, self.context, &mut Vec::<Notice>::new())?;
        self.counted = self.moment.look_at_once()?.then_some(counted);
        Ok(())
    }
}

/// Reads a block; there may be no more.
fn read_block(copy: &mut Copy<'_, '_>, block: &mut [u8; TAR_BLOCK]) -> Result<bool, PostgresError> {
    let mut filled = 0;
    while filled < TAR_BLOCK {
        let read = copy.read(&mut block[filled..]);
        copy.failed()?;
        match read {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(broken("an archive ended within a header")),
            Ok(read) => filled += read,
            Err(error) => return Err(broken(&error.to_string())),
        }
    }
    Ok(true)
}

fn facts(header: &tar::Header) -> io::Result<Facts> {
    let narrow = |number: u64| u32::try_from(number).map_err(io::Error::other);
    Ok(Facts {
        permissions: header.mode()? & 0o7777,
        uid: narrow(header.uid()?)?,
        gid: narrow(header.gid()?)?,
        modified: (header.mtime()?.cast_signed(), 0),
    })
}

fn broken(why: &str) -> PostgresError {
    PostgresError::Lost { operation: "receive the base backup", message: why.to_owned() }
}
