//! The ledger: open, append, read.
//!
//! One connection behind a mutex for each process; SQLite's write lock between processes. An
//! append is an immediate transaction, so the index that an entry gets is the index that it has
//! in the tree, whoever else appends at that moment.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use serde_json::Value;

use crate::{
    checkpoint::{Checkpoint, SignedCheckpoint},
    entry::{Entry, Filter, is_kind},
    error::LedgerError,
    evidence::{self, Envelope},
    merkle::{self, Hash, leaf_hash},
    note::{SignerKey, VerifierKey},
    store::{self, Store},
    tree::{StoredTree, to_sql},
};

/// How many rows a reader takes at a time; others may use the connection in between.
const ROWS_PER_PAGE: usize = 1000;
/// What [`Ledger::export`] records, and nobody else may.
pub(crate) const EXPORTED: &str = "exported";

/// An append-only log of what happened, in a folder. Threads may share it.
#[derive(Debug)]
pub struct Ledger {
    connection: Mutex<Connection>,
    verifier: VerifierKey,
    signer: Option<SignerKey>,
}

/// What is to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// What kind of thing happened: lower-case letters, digits, `-`, `_` and `.`.
    pub kind: &'a str,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub body: &'a Value,
}

/// Where an entry went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its index.
    pub index: u64,
    /// The hash of its leaf.
    pub leaf_hash: Hash,
}

impl Ledger {
    /// Opens the ledger in a folder, which is made (0700, ignored by git) with a new signing key
    /// when there is none. Any number of processes may have it open.
    ///
    /// # Errors
    /// Fails when the folder or its files cannot be made, read or locked, when the key is
    /// missing or not this ledger's, and when a newer version wrote the ledger.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        store::open(folder).map(Self::from_store)
    }

    /// Opens the ledger in a folder for reading; makes and changes nothing.
    ///
    /// # Errors
    /// Fails with [`LedgerError::Missing`] when there is no ledger, and when it cannot be read.
    pub fn open_read_only(folder: &Path) -> Result<Self, LedgerError> {
        store::open_read_only(folder).map(Self::from_store)
    }

    fn from_store(store: Store) -> Self {
        let Store { connection, verifier, signer } = store;
        Self { connection: Mutex::new(connection), verifier, signer }
    }

    /// Gives the name of this log, which no other has.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.verifier.name()
    }

    /// Gives the public key: what others need to trust this ledger's word.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Gives the private key.
    pub(crate) fn signer(&self) -> Result<&SignerKey, LedgerError> {
        self.signer.as_ref().ok_or(LedgerError::ReadOnly)
    }

    /// Records an entry. When this returns, it is on the disk.
    ///
    /// # Errors
    /// Fails when the kind is no name, the body cannot be read back (too deep), it names an
    /// envelope that is not attached, or the database cannot be written; then nothing is
    /// recorded.
    pub fn append(&self, kind: &str, at: Timestamp, body: &Value) -> Result<Appended, LedgerError> {
        self.write(|transaction| append(transaction, NewEntry { kind, at, body }))
    }

    /// Records entries one after the other: all of them or none.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_all(&self, entries: &[NewEntry<'_>]) -> Result<Vec<Appended>, LedgerError> {
        self.write(|transaction| entries.iter().map(|entry| append(transaction, *entry)).collect())
    }

    /// Records an entry whose body, an object, gets under `field` the number that follows on
    /// those of its kind: 1, 2, 3 … without gaps, whoever else appends. Gives the number too. It is
    /// for kinds of which there are few, since all of them are counted.
    ///
    /// # Errors
    /// As [`Self::append`]; also when the body is no object.
    pub fn append_numbered(
        &self,
        kind: &str,
        field: &str,
        at: Timestamp,
        body: &Value,
    ) -> Result<(Appended, u64), LedgerError> {
        let mut body = body.clone();
        let refused =
            || LedgerError::Entry { kind: kind.to_owned(), problem: "its body is no object" };
        body.as_object().ok_or_else(refused)?;
        self.write(|transaction| {
            let number = count(transaction, kind)? + 1;
            body[field] = number.into();
            Ok((append(transaction, NewEntry { kind, at, body: &body })?, number))
        })
    }

    /// Reads entries in order.
    ///
    /// # Errors
    /// Fails when the database cannot be read, or a row is not what was written.
    pub fn entries(&self, filter: &Filter<'_>) -> Result<Vec<Entry>, LedgerError> {
        let mut entries = Vec::new();
        self.for_each(filter, |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    /// Reads entries in order and gives each to `visit`, until that breaks. They are not held in
    /// memory together, and `visit` may use the ledger; what is appended meanwhile may be seen.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub fn for_each(
        &self,
        filter: &Filter<'_>,
        mut visit: impl FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        let mut from = filter.from_index;
        loop {
            let rows = page(&self.lock(), filter, from)?;
            let Some(next) = rows.last().map(|(index, _)| index + 1) else { return Ok(()) };
            from = next;
            for (index, leaf) in rows {
                let entry = parse(index, &leaf)?;
                let is_wanted = filter.since.is_none_or(|since| entry.at >= since);
                if is_wanted && visit(entry).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// Gives the newest entry of a kind.
    ///
    /// # Errors
    /// As [`Self::entries`].
    pub fn last(&self, kind: &str) -> Result<Option<Entry>, LedgerError> {
        let select = "SELECT idx, leaf FROM entry WHERE kind = ?1 ORDER BY idx DESC LIMIT 1";
        let connection = self.lock();
        let run =
            || connection.prepare_cached(select)?.query_row([kind], index_and_text).optional();
        let row = run().map_err(LedgerError::database("read"))?;
        row.map(|(index, leaf)| parse(index, &leaf)).transpose()
    }

    /// Counts the entries of a kind.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub fn count(&self, kind: &str) -> Result<u64, LedgerError> {
        count(&self.lock(), kind)
    }

    /// Gives the number of entries.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub fn size(&self) -> Result<u64, LedgerError> {
        size(&self.lock())
    }

    /// Gives the root of the tree over all entries.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub fn root(&self) -> Result<Hash, LedgerError> {
        self.read(|connection| merkle::root(&StoredTree(connection), size(connection)?))
    }

    /// Signs what the log is now, and keeps that.
    ///
    /// # Errors
    /// Fails when the database cannot be written, and when the log does not continue the newest
    /// checkpoint: then nothing is signed.
    pub fn checkpoint(&self) -> Result<SignedCheckpoint, LedgerError> {
        let signer = self.signer()?;
        self.write(|transaction| checkpoint(transaction, signer))
    }

    /// Gives the checkpoints that were signed, oldest first.
    ///
    /// # Errors
    /// Fails when the database cannot be read, or one is not what was written.
    pub fn checkpoints(&self) -> Result<Vec<SignedCheckpoint>, LedgerError> {
        let notes = checkpoint_notes(&self.lock())?;
        let open = |(size, note): (u64, String)| open_stored(size, &note, &self.verifier);
        notes.into_iter().map(open).collect()
    }

    /// Gives the proof that an entry is in the log as it is now.
    ///
    /// # Errors
    /// Fails when there is no such entry, and when the database cannot be read.
    pub fn inclusion_proof(&self, index: u64) -> Result<Vec<Hash>, LedgerError> {
        self.read(|connection| {
            let size = size(connection)?;
            within(index, size, index < size)?;
            merkle::inclusion(&StoredTree(connection), index, size)
        })
    }

    /// Gives the proof that the log as it is now continues what it was at `old_size`.
    ///
    /// # Errors
    /// Fails when it never had as many entries, and when the database cannot be read.
    pub fn consistency_proof(&self, old_size: u64) -> Result<Vec<Hash>, LedgerError> {
        self.read(|connection| {
            let size = size(connection)?;
            within(old_size, size, old_size <= size)?;
            merkle::consistency(&StoredTree(connection), old_size, size)
        })
    }

    /// Keeps bytes that entries will name by their SHA-256, such as an envelope, and gives that.
    /// The name is for people. Bytes that are there already stay as they are.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub fn attach(&self, name: &str, bytes: &[u8]) -> Result<String, LedgerError> {
        let sha256 = Hash::of(bytes).to_string();
        self.write(|transaction| {
            if attachment(transaction, &sha256)?.is_none() {
                let insert = "INSERT INTO attachment (sha256, name, bytes) VALUES (?1, ?2, ?3)";
                let run = || transaction.execute(insert, params![sha256, name, bytes]);
                run().map_err(LedgerError::database("append to"))?;
            }
            Ok(())
        })?;
        Ok(sha256)
    }

    /// Gives the bytes with this SHA-256, if they were attached.
    ///
    /// # Errors
    /// Fails when the database cannot be read, or holds other bytes under this name.
    pub fn attachment(&self, sha256: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let bytes = attachment(&self.lock(), sha256)?;
        match &bytes {
            Some(bytes) if Hash::of(bytes).to_string() != sha256 => {
                Err(LedgerError::damaged(format!("attachment {sha256} is not what its name says")))
            }
            _ => Ok(bytes),
        }
    }

    /// Signs a statement with this ledger's key. Attach the envelope, then append an entry that
    /// names it.
    ///
    /// # Errors
    /// Fails when the ledger is open for reading only.
    pub fn seal(&self, statement: &Value) -> Result<Envelope, LedgerError> {
        Ok(evidence::seal(self.signer()?, statement))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A thread that panicked left no half transaction: those roll back when dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads with one view of the database.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let connection = self.lock();
        let transaction =
            connection.unchecked_transaction().map_err(LedgerError::database("read"))?;
        read(&transaction)
    }

    /// Runs a transaction that writes; it is on the disk when this returns.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.signer()?;
        let mut connection = self.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(LedgerError::database("lock"))?;
        let value = write(&transaction)?;
        transaction.commit().map_err(LedgerError::database("append to"))?;
        Ok(value)
    }
}

/// Appends an entry that anybody may record.
fn append(transaction: &Transaction<'_>, new: NewEntry<'_>) -> Result<Appended, LedgerError> {
    if new.kind == EXPORTED {
        return Err(LedgerError::Entry {
            kind: new.kind.to_owned(),
            problem: "only an export records this kind",
        });
    }
    append_any(transaction, new)
}

/// Appends an entry of any kind.
pub(crate) fn append_any(
    transaction: &Transaction<'_>,
    new: NewEntry<'_>,
) -> Result<Appended, LedgerError> {
    let NewEntry { kind, at, body } = new;
    let refused = |problem| LedgerError::Entry { kind: kind.to_owned(), problem };
    if !is_kind(kind) {
        return Err(refused("a kind is lower-case letters, digits, '-', '_' and '.', 64 at most"));
    }
    let index = size(transaction)?;
    let entry = Entry { index, at, kind: kind.to_owned(), body: body.clone() };
    let leaf = entry.to_leaf();
    if Entry::from_leaf(leaf.as_bytes()).as_ref() != Some(&entry) {
        return Err(refused("its body cannot be read back; is it nested too deeply?"));
    }
    for sha256 in entry.envelopes() {
        if attachment(transaction, sha256)?.is_none() {
            return Err(LedgerError::EnvelopeMissing { sha256: sha256.to_owned() });
        }
    }
    let insert = "INSERT INTO entry (idx, kind, at_s, leaf) VALUES (?1, ?2, ?3, ?4)";
    let run = || {
        let mut statement = transaction.prepare_cached(insert)?;
        statement.execute(params![to_sql(index), kind, seconds(at), leaf])
    };
    run().map_err(LedgerError::database("append to"))?;
    let leaf_hash = leaf_hash(leaf.as_bytes());
    StoredTree(transaction).push(index, leaf_hash)?;
    Ok(Appended { index, leaf_hash })
}

/// Signs the log as this transaction sees it.
pub(crate) fn checkpoint(
    transaction: &Transaction<'_>,
    signer: &SignerKey,
) -> Result<SignedCheckpoint, LedgerError> {
    let tree = StoredTree(transaction);
    let size = size(transaction)?;
    refuse_fork(transaction, size, &signer.verifier())?;
    let (origin, root) = (signer.verifier().name().to_owned(), merkle::root(&tree, size)?);
    let signed = Checkpoint { origin, size, root }.sign(signer);
    let select = "SELECT EXISTS (SELECT 1 FROM checkpoint WHERE size = ?1)";
    let insert = "INSERT INTO checkpoint (size, note) VALUES (?1, ?2)";
    let run = || -> rusqlite::Result<()> {
        let size = to_sql(size);
        if !transaction.query_row(select, [size], |row| row.get::<_, bool>(0))? {
            transaction.execute(insert, params![size, signed.note])?;
        }
        Ok(())
    };
    run().map_err(LedgerError::database("append to"))?;
    Ok(signed)
}

/// Fails when the log does not continue its newest checkpoint: signing would say two things.
fn refuse_fork(
    transaction: &Transaction<'_>,
    size: u64,
    key: &VerifierKey,
) -> Result<(), LedgerError> {
    let select = "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1";
    let row = transaction.query_row(select, [], index_and_text).optional();
    let Some((at, note)) = row.map_err(LedgerError::database("read"))? else { return Ok(()) };
    let newest = open_stored(at, &note, key)?.checkpoint;
    let continues =
        newest.size <= size && merkle::root(&StoredTree(transaction), newest.size)? == newest.root;
    if continues {
        return Ok(());
    }
    Err(LedgerError::damaged(format!("it does not continue its checkpoint at {at} entries")))
}

fn open_stored(size: u64, note: &str, key: &VerifierKey) -> Result<SignedCheckpoint, LedgerError> {
    SignedCheckpoint::open_exact(note, key)
        .ok()
        .filter(|signed| signed.checkpoint.size == size)
        .ok_or_else(|| LedgerError::damaged(format!("its checkpoint at {size} entries")))
}

/// All checkpoints, by size.
pub(crate) fn checkpoint_notes(connection: &Connection) -> Result<Vec<(u64, String)>, LedgerError> {
    let run = || -> rusqlite::Result<Vec<(u64, String)>> {
        let mut statement =
            connection.prepare("SELECT size, note FROM checkpoint ORDER BY size")?;
        statement.query_map([], index_and_text)?.collect()
    };
    run().map_err(LedgerError::database("read"))
}

pub(crate) fn size(connection: &Connection) -> Result<u64, LedgerError> {
    let select = "SELECT coalesce(max(idx) + 1, 0) FROM entry";
    let run = || connection.prepare_cached(select)?.query_row([], |row| index_at(row, 0));
    run().map_err(LedgerError::database("read"))
}

fn count(connection: &Connection, kind: &str) -> Result<u64, LedgerError> {
    let select = "SELECT count(*) FROM entry WHERE kind = ?1";
    let run = || connection.prepare_cached(select)?.query_row([kind], |row| index_at(row, 0));
    run().map_err(LedgerError::database("read"))
}

pub(crate) fn attachment(
    connection: &Connection,
    sha256: &str,
) -> Result<Option<Vec<u8>>, LedgerError> {
    let select = "SELECT bytes FROM attachment WHERE sha256 = ?1";
    let run =
        || connection.prepare_cached(select)?.query_row([sha256], |row| row.get(0)).optional();
    run().map_err(LedgerError::database("read"))
}

/// The next rows that a filter lets through, but for parts of a second in `since`.
fn page(
    connection: &Connection,
    filter: &Filter<'_>,
    from: u64,
) -> Result<Vec<(u64, String)>, LedgerError> {
    let before = filter.before_index.map_or(i64::MAX, to_sql);
    let since = filter.since.map_or(i64::MIN, seconds);
    let run = |kind: Option<&str>| -> rusqlite::Result<Vec<(u64, String)>> {
        let of_kind = if kind.is_some() { "kind = ?1" } else { "?1 IS NULL" };
        let mut statement = connection.prepare_cached(&format!(
            "SELECT idx, leaf FROM entry WHERE {of_kind} AND idx >= ?2 AND idx < ?3 AND at_s >= ?4
             ORDER BY idx LIMIT {ROWS_PER_PAGE}"
        ))?;
        statement.query_map(params![kind, to_sql(from), before, since], index_and_text)?.collect()
    };
    let Some(kinds) = filter.kinds else {
        return run(None).map_err(LedgerError::database("read"));
    };
    // One question for each kind, for then the index answers in order; the first rows of all
    // are among the first rows of each.
    let kinds: BTreeSet<&str> = kinds.iter().copied().collect();
    let pages: rusqlite::Result<Vec<_>> = kinds.into_iter().map(|kind| run(Some(kind))).collect();
    let mut rows = pages.map_err(LedgerError::database("read"))?.concat();
    rows.sort_unstable_by_key(|(index, _)| *index);
    rows.truncate(ROWS_PER_PAGE);
    Ok(rows)
}

pub(crate) fn index_and_text(row: &Row<'_>) -> rusqlite::Result<(u64, String)> {
    Ok((index_at(row, 0)?, row.get(1)?))
}

fn index_at(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn parse(index: u64, leaf: &str) -> Result<Entry, LedgerError> {
    let entry = Entry::from_leaf(leaf.as_bytes()).filter(|entry| entry.index == index);
    entry.ok_or_else(|| LedgerError::damaged(format!("entry {index} is not what was written")))
}

/// The second in which a time lies.
pub(crate) fn seconds(at: Timestamp) -> i64 {
    at.as_second() - i64::from(at.subsec_nanosecond() < 0)
}

fn within(wanted: u64, size: u64, is_within: bool) -> Result<(), LedgerError> {
    if is_within { Ok(()) } else { Err(LedgerError::Beyond { wanted, size }) }
}
