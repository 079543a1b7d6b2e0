//! Numbered, timestamped rows in the protected database, by which loss is measured.
//!
//! A marker counts when its commit returned, with `synchronous_commit` on whatever the database's
//! default is. A number is never used twice: when a commit's outcome is unknown, the next marker
//! has the next number, and whether the lost one is there does not matter. The table has no key,
//! so that a copy in which a row came twice shows it.

use std::time::Duration;

use jiff::Timestamp;
use postgres::Statement;
use uuid::Uuid;

use super::{
    PostgresError, PostgresSource,
    connection::{Session, Target},
};
use crate::capture::Marker;

/// How long the server may take for one marker, and wait for a lock: what blocks the markers must
/// not be blocked by them.
const LIMITS: &str = "set statement_timeout = '5s'; set lock_timeout = '2s'; \
                      set synchronous_commit = on";

/// How long a connection may take, and how long sent data may go without an answer.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(5);

/// After so many markers old ones are deleted.
const TRIM_EVERY: u64 = 1000;

/// Writes markers into a database.
pub struct MarkerWriter {
    target: Target,
    writer: Uuid,
    last: u64,
    connected: Option<(Session, Statement)>,
}

impl MarkerWriter {
    /// A writer with a number of its own; it connects when it writes.
    ///
    /// # Errors
    /// Fails when the URL makes no sense.
    pub fn new(source: &PostgresSource) -> Result<Self, PostgresError> {
        let mut target = Target::parse(source)?;
        target.config.connect_timeout(NETWORK_TIMEOUT);
        target.config.tcp_user_timeout(NETWORK_TIMEOUT);
        Ok(Self { target, writer: Uuid::new_v4(), last: 0, connected: None })
    }

    /// The writer's number.
    #[must_use]
    pub fn writer(&self) -> Uuid {
        self.writer
    }

    /// Writes a marker and returns after its commit. After an error the next call connects again.
    ///
    /// # Errors
    /// Fails when the server cannot be reached, does not allow it, or takes too long. The marker
    /// may have been written all the same.
    pub fn write(&mut self) -> Result<Marker, PostgresError> {
        let mut connected = match self.connected.take() {
            Some(connected) => connected,
            None => self.connect()?,
        };
        self.last += 1;
        // As exact as the server keeps it.
        let at = Timestamp::from_microsecond(Timestamp::now().as_microsecond());
        let marker = Marker { writer: self.writer, n: self.last, at: at.unwrap_or_default() };
        let (session, insert) = &mut connected;
        let n = marker.n.cast_signed();
        session
            .client()
            .execute(insert, &[&marker.writer.to_string(), &n, &marker.at.to_string()])
            .map_err(PostgresError::statement("write a marker"))?;
        if self.last.is_multiple_of(TRIM_EVERY) {
            session
                .client()
                .execute("delete from muster_marker where at < now() - interval '7 days'", &[])
                .map_err(PostgresError::statement("delete old markers"))?;
        }
        self.connected = Some(connected);
        Ok(marker)
    }

    fn connect(&self) -> Result<(Session, Statement), PostgresError> {
        let mut session = self.target.connect()?;
        let failed = || PostgresError::statement("prepare the table of markers");
        let client = session.client();
        client.batch_execute(LIMITS).map_err(failed())?;
        let row = client
            .query_one("select to_regclass('muster_marker') is null", &[])
            .map_err(failed())?;
        if row.get(0) {
            let create = "create table if not exists muster_marker \
                          (writer uuid not null, n bigint not null, at timestamptz not null)";
            client.batch_execute(create).map_err(failed())?;
        }
        let insert = "insert into muster_marker (writer, n, at) \
                      values ($1::text::uuid, $2, $3::text::timestamptz)";
        let insert = client.prepare(insert).map_err(failed())?;
        Ok((session, insert))
    }
}

/// Reads the markers that were written at `since` or later, in the order of time. Without a table
/// there are none.
///
/// # Errors
/// Fails when the server cannot be reached or asked.
pub fn read_markers(
    source: &PostgresSource,
    since: Timestamp,
) -> Result<Vec<Marker>, PostgresError> {
    let failed = || PostgresError::statement("read the markers");
    let mut session = Target::parse(source)?.connect()?;
    let client = session.client();
    let row =
        client.query_one("select to_regclass('muster_marker') is null", &[]).map_err(failed())?;
    if row.get(0) {
        return Ok(Vec::new());
    }
    let rows = client
        .query(
            "select writer::text, n, (extract(epoch from at) * 1000000)::bigint \
             from muster_marker where at >= $1::text::timestamptz order by at, writer, n",
            &[&since.to_string()],
        )
        .map_err(failed())?;
    let marker = |row: &postgres::Row| {
        let (writer, n, at): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        Some(Marker {
            writer: writer.parse().ok()?,
            n: n.cast_unsigned(),
            at: Timestamp::from_microsecond(at).ok()?,
        })
    };
    Ok(rows.iter().filter_map(marker).collect())
}
