//! Markers: numbered, timestamped rows in protected data, by which loss is measured.
//!
//! A writer numbers its markers from 1 and says that one is written only when it is durable.
//! After a recovery the numbers tell what is missing (the end), what is missing in between
//! (holes) and what is there twice (duplicates). No constraint in the store makes duplicates
//! impossible, for it would only keep them from being seen.
//!
//! A number is used again only when the attempt surely wrote nothing; after an error whose
//! outcome is unknown it is skipped, since a gap in what was *said* to be written is none.
//!
//! Markers are the one thing that Muster writes into production. Each is a transaction of its own,
//! or one line appended; who waits for a lock gives up after a bounded time and returns an error.
//! Markers older than [`KEPT`] are removed now and then, those of other writers too.

mod error;
mod file;
mod sqlite;

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::postgres::{self, PostgresSource};

pub use error::MarkerError;

pub use crate::capture::Marker;

/// The table of markers in a database.
pub const MARKERS_TABLE: &str = "muster_marker";

/// The file of markers in a folder.
pub const MARKERS_FILE: &str = ".muster-markers";

/// How long markers are kept: longer than any recovery point that a loss is measured from.
pub const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Where markers are written.
#[derive(Debug, Clone)]
pub enum MarkerTarget {
    /// The table [`MARKERS_TABLE`] of the SQLite database in this file.
    Sqlite(PathBuf),
    /// The file [`MARKERS_FILE`] in this folder, which must be backed up.
    Files(PathBuf),
    /// The table [`MARKERS_TABLE`] of the database that this URL names.
    Postgres(PostgresSource),
}

/// A store that markers are written into.
pub(crate) trait MarkerStore: Send {
    /// Writes a marker; returns when it is durable.
    fn write(&mut self, marker: &Marker) -> Result<(), MarkerError>;
}

/// Writes markers into one store, numbered from 1.
pub struct MarkerWriter(Writing);

/// A server numbers by itself, since it connects again after an error.
enum Writing {
    Store { writer: Uuid, next: u64, store: Box<dyn MarkerStore> },
    Server(Box<postgres::MarkerWriter>),
}

impl std::fmt::Debug for MarkerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MarkerWriter").field("writer", &self.writer()).finish_non_exhaustive()
    }
}

impl MarkerWriter {
    /// Opens the store, makes the table or file when it is missing, and takes a new identity. A
    /// server is connected to by the first marker.
    ///
    /// # Errors
    /// Fails when the store is missing, held by others for long, or may not be written.
    pub fn open(target: &MarkerTarget) -> Result<Self, MarkerError> {
        let store: Box<dyn MarkerStore> = match target {
            MarkerTarget::Sqlite(path) => Box::new(sqlite::SqliteMarkers::open(path)?),
            MarkerTarget::Files(folder) => Box::new(file::FileMarkers::open(folder)?),
            MarkerTarget::Postgres(source) => {
                let server = postgres::MarkerWriter::new(source)?;
                return Ok(Self(Writing::Server(Box::new(server))));
            }
        };
        Ok(Self(Writing::Store { writer: Uuid::new_v4(), next: 1, store }))
    }

    /// This writer's identity.
    #[must_use]
    pub fn writer(&self) -> Uuid {
        match &self.0 {
            Writing::Store { writer, .. } => *writer,
            Writing::Server(server) => server.writer(),
        }
    }

    /// Writes the next marker with the time `at` (a server's is its own); returns when it is
    /// durable.
    ///
    /// # Errors
    /// Fails when the store is held by others for long, is gone, or cannot be written. The marker
    /// does not count then, and the writer can be used again.
    pub fn write(&mut self, at: Timestamp) -> Result<Marker, MarkerError> {
        let (writer, next, store) = match &mut self.0 {
            Writing::Server(server) => return Ok(server.write()?),
            Writing::Store { writer, next, store } => (*writer, next, store),
        };
        let marker = Marker { writer, n: *next, at };
        let written = store.write(&marker);
        if written.as_ref().err().is_none_or(|error| !error.surely_wrote_nothing()) {
            *next += 1;
        }
        written.map(|()| marker)
    }
}

/// Reads the markers in a store, those from `since` on, in the order of their writing.
/// Duplicates are given as often as they are there; a store without any gives none. What cannot
/// be understood as a marker, such as a torn last line, is none.
///
/// # Errors
/// Fails when the store is missing or cannot be read.
pub fn read(target: &MarkerTarget, since: Option<Timestamp>) -> Result<Vec<Marker>, MarkerError> {
    match target {
        MarkerTarget::Sqlite(path) => sqlite::read(path, since),
        MarkerTarget::Files(folder) => file::read(folder, since),
        MarkerTarget::Postgres(source) => {
            let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
            Ok(postgres::read_markers(source, since)?)
        }
    }
}

/// A time as markers hold it: in UTC with nine digits after the point, so that the order of the
/// text is that of time.
pub(crate) fn written(at: Timestamp) -> String {
    format!("{at:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_text_is_that_of_time() {
        let times = ["2027-01-31T10:00:00Z", "2027-01-31T10:00:00.5Z", "2027-01-31T10:00:01Z"];
        let times: Vec<Timestamp> = times.iter().map(|time| time.parse().unwrap()).collect();
        let texts: Vec<_> = times.iter().map(|&time| written(time)).collect();
        assert_eq!(texts[1], "2027-01-31T10:00:00.500000000Z");
        assert!(texts.is_sorted());
        let parsed: Vec<Timestamp> = texts.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(parsed, times);
    }
}
