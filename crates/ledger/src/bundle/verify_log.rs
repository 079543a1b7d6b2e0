//! Verification of the local ledger: every row against every other.
//!
//! Each leaf is hashed anew and each stored subtree compared with what its halves give; then
//! the checkpoints and attachments. The database's own check comes first, since an index that
//! disagrees with its table would make the rest look at different rows.

use std::collections::VecDeque;

use muster_model::{Class, Fault};
use rusqlite::Connection;
use thiserror::Error;

use super::verify::verify_envelope;
use crate::{
    checkpoint::SignedCheckpoint,
    entry::Entry,
    error::LedgerError,
    ledger::{self, Ledger},
    merkle::{self, Hash, leaf_hash, node_hash},
    mismatch::Mismatch,
    note::VerifierKey,
    tree::{StoredTree, to_sql},
};

/// What was found sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVerified {
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// How many checkpoints.
    pub checkpoints: u64,
    /// How many attachments.
    pub attachments: u64,
}

/// A ledger was not verified.
#[derive(Debug, Error)]
pub enum LogError {
    /// It could not be read.
    #[error("cannot verify the ledger")]
    Read(#[source] LedgerError),
    /// It was read and is not sound.
    #[error("the ledger is not what was written: {0}")]
    Mismatch(Mismatch),
}

impl From<LedgerError> for LogError {
    fn from(error: LedgerError) -> Self {
        Self::Read(error)
    }
}

impl From<Mismatch> for LogError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

impl Fault for LogError {
    fn class(&self) -> Class {
        match self {
            Self::Read(error) => error.class(),
            Self::Mismatch(mismatch) => mismatch.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read(error) => error.code(),
            Self::Mismatch(_) => "ledger-damaged",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.help(),
            Self::Mismatch(_) => LedgerError::damaged("").help(),
        }
    }
}

/// Verifies the ledger in its folder: all of it, which takes a few seconds for a million
/// entries. Other threads of this process wait meanwhile, other processes do not.
///
/// # Errors
/// Fails when it cannot be read, and with the first thing that does not match.
pub fn verify_log(ledger: &Ledger) -> Result<LogVerified, LogError> {
    ledger.read(|connection| Ok(verify(connection, ledger.verifier())))?
}

fn verify(connection: &Connection, key: &VerifierKey) -> Result<LogVerified, LogError> {
    check_database(connection)?;
    let size = check_entries(connection, key)?;
    check_no_other_nodes(connection, size)?;
    let checkpoints = check_checkpoints(connection, size, key)?;
    let attachments = check_attachments(connection)?;
    let root = merkle::root(&StoredTree(connection), size)?;
    Ok(LogVerified { size, root, checkpoints, attachments })
}

fn check_database(connection: &Connection) -> Result<(), LogError> {
    let run = || connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    let found: String = run().map_err(LedgerError::database("read"))?;
    if found == "ok" { Ok(()) } else { Err(Mismatch::member("ledger.sqlite3", found).into()) }
}

/// A row of the table of entries as it is, before anything is believed.
struct StoredRow {
    index: i64,
    kind: String,
    at_s: i64,
    leaf: String,
}

fn check_entries(connection: &Connection, key: &VerifierKey) -> Result<u64, LogError> {
    let failed = || LedgerError::database("read");
    let select = "SELECT idx, kind, at_s, leaf FROM entry ORDER BY idx";
    let mut statement = connection.prepare(select).map_err(failed())?;
    let row = |row: &rusqlite::Row<'_>| -> rusqlite::Result<StoredRow> {
        let (index, kind, at_s, leaf) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(StoredRow { index, kind, at_s, leaf })
    };
    let rows = statement.query_map([], row).map_err(failed())?;
    let (mut next, mut tree) = (0, Rebuilt::new(connection));
    for row in rows {
        check_entry(connection, next, &row.map_err(failed())?, key, &mut tree)?;
        next += 1;
    }
    Ok(next)
}

fn check_entry(
    connection: &Connection,
    index: u64,
    row: &StoredRow,
    key: &VerifierKey,
    tree: &mut Rebuilt<'_>,
) -> Result<(), LogError> {
    let refused = |problem: &str| LogError::from(Mismatch::entry(index, problem));
    if u64::try_from(row.index) != Ok(index) {
        return Err(refused("it is missing"));
    }
    let entry = Entry::from_leaf(row.leaf.as_bytes());
    let entry = entry.ok_or_else(|| refused("it cannot be read"))?;
    let columns = (entry.index, entry.kind.as_str(), ledger::seconds(entry.at));
    if columns != (index, row.kind.as_str(), row.at_s) {
        return Err(refused("it is filed under another index, kind or time than it says"));
    }
    tree.check(index, leaf_hash(row.leaf.as_bytes()))?;
    for sha256 in entry.envelopes() {
        verify_envelope(ledger::attachment(connection, sha256)?.as_deref(), sha256, key)?;
    }
    Ok(())
}

/// How many stored nodes of a level are read at once.
const NODES_READ: i64 = 4096;

/// The tree, built anew from leaves that come in order, beside the stored one: each level is
/// read from left to right, many nodes at a time.
struct Rebuilt<'c> {
    connection: &'c Connection,
    levels: Vec<Level>,
}

/// One level of the tree.
#[derive(Default)]
struct Level {
    /// The last complete left half, whose right half is not complete yet.
    left: Option<Hash>,
    /// Stored nodes that were read and not compared yet.
    stored: VecDeque<(i64, Hash)>,
}

impl<'c> Rebuilt<'c> {
    fn new(connection: &'c Connection) -> Self {
        Self { connection, levels: Vec::new() }
    }

    /// Compares the leaf, and each subtree that it completes, with what is stored.
    fn check(&mut self, index: u64, leaf: Hash) -> Result<(), LogError> {
        let (mut position, mut hash) = (index, leaf);
        for level in 0.. {
            if self.stored(level, position)? != Some(hash) {
                let problem = "it is not what the tree was built from";
                return Err(Mismatch::entry(index, problem).into());
            }
            let half = &mut self.levels[level].left;
            match half.take() {
                Some(left) => hash = node_hash(&left, &hash),
                None => {
                    *half = Some(hash);
                    break;
                }
            }
            position >>= 1;
        }
        Ok(())
    }

    /// The stored node that comes next in a level, if it has this position.
    fn stored(&mut self, level: usize, position: u64) -> Result<Option<Hash>, LogError> {
        if self.levels.len() == level {
            self.levels.push(Level::default());
        }
        if self.levels[level].stored.is_empty() {
            self.levels[level].stored = read_nodes(self.connection, level, position)?;
        }
        let next = self.levels[level].stored.pop_front();
        Ok(next.filter(|(found, _)| u64::try_from(*found) == Ok(position)).map(|(_, hash)| hash))
    }
}

fn read_nodes(
    connection: &Connection,
    level: usize,
    position: u64,
) -> Result<VecDeque<(i64, Hash)>, LedgerError> {
    let select = "SELECT position, hash FROM node WHERE level = ?1 AND position >= ?2
                  ORDER BY position LIMIT ?3";
    let run = || -> rusqlite::Result<VecDeque<(i64, Hash)>> {
        let mut statement = connection.prepare_cached(select)?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, Hash::new(row.get(1)?)));
        let level = i64::try_from(level).unwrap_or(i64::MAX);
        statement.query_map((level, to_sql(position), NODES_READ), read)?.collect()
    };
    run().map_err(LedgerError::database("read"))
}

fn check_no_other_nodes(connection: &Connection, size: u64) -> Result<(), LogError> {
    let expected: u64 = (0..64).map(|level| size >> level).sum();
    let found = count(connection, "SELECT count(*) FROM node")?;
    if found == expected {
        return Ok(());
    }
    Err(Mismatch::entry(size, "the tree knows of more than there is").into())
}

fn check_checkpoints(
    connection: &Connection,
    size: u64,
    key: &VerifierKey,
) -> Result<u64, LogError> {
    let notes = ledger::checkpoint_notes(connection)?;
    for (at, note) in &notes {
        let name = format!("checkpoint at {at} entries");
        let signed = SignedCheckpoint::open_exact(note, key)
            .map_err(|error| Mismatch::member(&name, error.to_string()))?;
        if signed.checkpoint.size != *at || *at > size {
            return Err(Mismatch::member(name, "there are no such entries").into());
        }
        if merkle::root(&StoredTree(connection), *at)? != signed.checkpoint.root {
            return Err(Mismatch::member(name, "the log does not continue it").into());
        }
    }
    Ok(notes.len() as u64)
}

fn check_attachments(connection: &Connection) -> Result<u64, LogError> {
    let failed = || LedgerError::database("read");
    let mut statement =
        connection.prepare("SELECT sha256, bytes FROM attachment").map_err(failed())?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed())?;
    let mut found = 0;
    for row in rows {
        let (sha256, bytes): (String, Vec<u8>) = row.map_err(failed())?;
        if Hash::of(&bytes).to_string() != sha256 {
            let problem = "it is not what its name says";
            return Err(Mismatch::member(format!("attachment {sha256}"), problem).into());
        }
        found += 1;
    }
    Ok(found)
}

fn count(connection: &Connection, select: &str) -> Result<u64, LogError> {
    let run = || connection.query_row(select, [], |row| row.get::<_, i64>(0));
    let count = run().map_err(LedgerError::database("read"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}
