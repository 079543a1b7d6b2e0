//! The database: what is in the state folder, and how it is made and opened.
//!
//! SQLite in WAL mode with `synchronous=FULL`: a commit that returned is on the disk. Rows are
//! never changed; triggers refuse it to every program that opens the file, so that nobody does
//! it by accident (who means to can drop a trigger; that is what signatures are for).
//!
//! Openers lock a file while they make what is missing, so two of them at once make one ledger.
//! The order is: database, key, and last the row that names the key. A crash in between leaves a
//! key that the next opener takes over, for nothing was signed with it yet.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, TransactionBehavior};
use zeroize::Zeroizing;

use crate::error::LedgerError;
use crate::files::{self, MODE_PUBLIC, MODE_SECRET};
use crate::note::{SignerKey, VerifierKey};

const DATABASE: &str = "ledger.sqlite3";
const KEY: &str = "ledger.key";
const PUBLIC_KEY: &str = "ledger.pub";
const LOCK: &str = "ledger.lock";
/// How long a writer waits for another.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// `PRAGMA user_version` of what this version writes.
const FORMAT: i64 = 1;
/// `PRAGMA application_id`: the letters `Mstr`.
const APPLICATION_ID: i64 = 0x4d73_7472;

const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE entry (
    idx  INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    at_s INTEGER NOT NULL,
    leaf TEXT NOT NULL
) STRICT;
CREATE INDEX entry_kind ON entry (kind, idx, at_s);
CREATE TABLE node (
    level    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash     BLOB NOT NULL,
    PRIMARY KEY (level, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE attachment (
    sha256 TEXT PRIMARY KEY,
    name   TEXT NOT NULL,
    bytes  BLOB NOT NULL
) STRICT;
CREATE TRIGGER entry_in_order BEFORE INSERT ON entry
    WHEN NEW.idx <> (SELECT coalesce(max(idx) + 1, 0) FROM entry)
    BEGIN SELECT RAISE(ABORT, 'entries are appended without gaps'); END;
CREATE TRIGGER meta_no_replace BEFORE INSERT ON meta
    WHEN EXISTS (SELECT 1 FROM meta WHERE name = NEW.name)
    BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER node_no_replace BEFORE INSERT ON node
    WHEN EXISTS (SELECT 1 FROM node WHERE level = NEW.level AND position = NEW.position)
    BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER checkpoint_no_replace BEFORE INSERT ON checkpoint
    WHEN EXISTS (SELECT 1 FROM checkpoint WHERE size = NEW.size)
    BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER attachment_no_replace BEFORE INSERT ON attachment
    WHEN EXISTS (SELECT 1 FROM attachment WHERE sha256 = NEW.sha256)
    BEGIN SELECT RAISE(ABORT, 'append-only'); END;
";

const TABLES: [&str; 5] = ["meta", "entry", "node", "checkpoint", "attachment"];

/// An open database and whose it is.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) connection: Connection,
    pub(crate) verifier: VerifierKey,
    /// `None` when open for reading only.
    pub(crate) signer: Option<SignerKey>,
}

/// Opens the ledger in a folder and makes what is missing.
pub(crate) fn open(folder: &Path) -> Result<Store, LedgerError> {
    files::make_folder(folder)?;
    // Held until the end of this function.
    let _lock = files::lock(&folder.join(LOCK))?;
    let ignore = folder.join(".gitignore");
    if !ignore.exists() {
        files::put(&ignore, b"*\n", MODE_PUBLIC)?;
    }
    let mut connection = open_database(folder)?;
    let verifier = stored_verifier(&connection)?;
    let signer = match &verifier {
        Some(verifier) => read_key(folder, verifier)?,
        None => begin(folder, &mut connection)?,
    };
    let verifier = signer.verifier();
    let public = folder.join(PUBLIC_KEY);
    if !public.exists() {
        files::put(&public, format!("{verifier}\n").as_bytes(), MODE_PUBLIC)?;
    }
    Ok(Store { connection, verifier, signer: Some(signer) })
}

/// Opens the ledger in a folder for reading; makes and changes nothing.
pub(crate) fn open_read_only(folder: &Path) -> Result<Store, LedgerError> {
    let missing = || LedgerError::Missing { folder: folder.to_owned() };
    let path = folder.join(DATABASE);
    if !path.exists() {
        return Err(missing());
    }
    let connection = connect_read_only(&path).map_err(LedgerError::database("open"))?;
    // Without a name for its key it was never begun: its maker died, or is at it just now.
    let verifier = stored_verifier(&connection)?.ok_or_else(missing)?;
    Ok(Store { connection, verifier, signer: None })
}

fn connect_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // The first look at the file, where a folder that cannot be written shows itself.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    let is_closed_to_us = |error: &rusqlite::Error| {
        let closed = [ErrorCode::CannotOpen, ErrorCode::ReadOnly, ErrorCode::SystemIoFailure];
        error.sqlite_error_code().is_some_and(|code| closed.contains(&code))
    };
    let wal = PathBuf::from(format!("{}-wal", path.display()));
    match open() {
        // A reader of a WAL wants to write its index. On a file system that forbids it or is full,
        // and with no log beside the database, the database is all there is and nobody changes it.
        Err(error)
            if is_closed_to_us(&error)
                && fs::metadata(&wal).map_or(0, |status| status.len()) == 0 =>
        {
            let uri = format!("file:{}?immutable=1", escape(&path.to_string_lossy()));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        result => result,
    }
}

/// Escapes what means something in a URI.
fn escape(path: &str) -> String {
    path.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

fn open_database(folder: &Path) -> Result<Connection, LedgerError> {
    let path = folder.join(DATABASE);
    // SQLite would make it with the umask; its log takes the database's mode.
    files::touch(&path, MODE_SECRET)?;
    let connect = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "trusted_schema", "OFF")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    connect().map_err(LedgerError::database("open"))
}

/// The public key that the ledger began with, if it began.
fn stored_verifier(connection: &Connection) -> Result<Option<VerifierKey>, LedgerError> {
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(LedgerError::database("read"))?;
    match found {
        0 => return Ok(None),
        FORMAT => {}
        _ => return Err(LedgerError::TooNew { found, known: FORMAT }),
    }
    let query = "SELECT value FROM meta WHERE name = 'public_key'";
    let text: Option<String> = connection
        .query_row(query, [], |row| row.get(0))
        .optional()
        .map_err(LedgerError::database("read"))?;
    let key = text.and_then(|text| text.parse().ok());
    key.map(Some).ok_or_else(|| LedgerError::damaged("it does not name its key"))
}

/// Makes the tables and the key, in one transaction.
fn begin(folder: &Path, connection: &mut Connection) -> Result<SignerKey, LedgerError> {
    let failed = LedgerError::database("begin");
    let key = first_key(folder)?;
    let create = || -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(SCHEMA)?;
        for table in TABLES {
            for verb in ["UPDATE", "DELETE"] {
                transaction.execute_batch(&format!(
                    "CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
                     BEGIN SELECT RAISE(ABORT, 'append-only'); END"
                ))?;
            }
        }
        let insert = "INSERT INTO meta (name, value) VALUES ('public_key', ?1)";
        transaction.execute(insert, [key.verifier().to_string()])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()
    };
    let mut create = create;
    create().map_err(failed)?;
    Ok(key)
}

/// The key of a ledger that begins: a new one, or what an opener left who died.
fn first_key(folder: &Path) -> Result<SignerKey, LedgerError> {
    let path = folder.join(KEY);
    if path.exists() {
        return parse_key(&path);
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|source| LedgerError::NoRandomness { source })?;
    let name = format!("muster/{}", uuid()?);
    let key = SignerKey::from_seed(&name, &seed).expect("hexadecimal digits are a name");
    files::put(&path, key.to_text().as_bytes(), MODE_SECRET)?;
    Ok(key)
}

/// A random (version 4) UUID.
fn uuid() -> Result<String, LedgerError> {
    let digits = files::random_name()?;
    let variant = match &digits[16..17] {
        "0" | "4" | "8" | "c" => '8',
        "1" | "5" | "9" | "d" => '9',
        "2" | "6" | "a" | "e" => 'a',
        _ => 'b',
    };
    let (a, b, c) = (&digits[..8], &digits[8..12], &digits[13..16]);
    Ok(format!("{a}-{b}-4{c}-{variant}{}-{}", &digits[17..20], &digits[20..]))
}

fn read_key(folder: &Path, expected: &VerifierKey) -> Result<SignerKey, LedgerError> {
    let path = folder.join(KEY);
    let key = parse_key(&path)?;
    if key.verifier() == *expected {
        return Ok(key);
    }
    Err(LedgerError::Key { path, problem: "is not the one that this ledger began with" })
}

fn parse_key(path: &Path) -> Result<SignerKey, LedgerError> {
    let problem = |problem| LedgerError::Key { path: path.to_owned(), problem };
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(problem("is missing"));
        }
        Err(error) => return Err(LedgerError::file("read", path)(error)),
    };
    SignerKey::from_text(&text).map_err(|_| problem("cannot be understood"))
}

#[cfg(test)]
mod tests {
    use muster_testkit::Scratch;

    use super::*;

    fn pragma(store: &Store, name: &str) -> String {
        let value: rusqlite::types::Value =
            store.connection.pragma_query_value(None, name, |row| row.get(0)).unwrap();
        format!("{value:?}")
    }

    #[test]
    fn commits_are_on_the_disk() {
        let scratch = Scratch::new("store").unwrap();
        for _ in 0..2 {
            let store = open(&scratch.join("state")).unwrap();
            assert_eq!(pragma(&store, "journal_mode"), "Text(\"wal\")");
            assert_eq!(pragma(&store, "synchronous"), "Integer(2)");
            assert_eq!(pragma(&store, "application_id"), format!("Integer({APPLICATION_ID})"));
        }
    }

    #[test]
    fn names_are_uuids() {
        for _ in 0..50 {
            let uuid = uuid().unwrap();
            let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
            assert!(&uuid[14..15] == "4" && "89ab".contains(&uuid[19..20]), "{uuid}");
        }
    }
}
