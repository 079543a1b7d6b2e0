//! What is known of a server when it is backed up, and what a restore needs of that.
//!
//! It is stored as `cluster.json` beside the data in the snapshot, so that the repository alone is
//! enough to bring the server back, also where its configuration lay outside its data, as Debian
//! has it. Of the configuration only a short list of settings is taken over: those that decide how
//! data is read and written, and the sizes that a recovery must not fall below. Nothing in the
//! list can hold a secret.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{PostgresError, connection::Session, connection::Target};

/// The versions that are supported.
pub(super) const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// Settings that a restored server takes over from the original.
///
/// # Source
/// PostgreSQL documentation, *Hot Standby*, *Administrator's Overview* (the sizes);
/// *Client Connection Defaults* (the others).
const CARRIED: &[&str] = &[
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "track_commit_timestamp",
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "default_text_search_config",
    "default_transaction_isolation",
    "default_toast_compression",
    "bytea_output",
    "extra_float_digits",
    "search_path",
    "standard_conforming_strings",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
    "array_nulls",
    "backslash_quote",
    "quote_all_identifiers",
    "escape_string_warning",
];

/// The settings of `cluster` that a restored server takes over, as lines of its configuration.
pub(super) fn carried(cluster: &Cluster) -> String {
    let known = cluster.settings.iter().filter(|(name, _)| CARRIED.contains(&name.as_str()));
    let lines = known.map(|(name, value)| {
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
    });
    lines.collect()
}

/// A server as a snapshot records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The major version, which the restored server must have too.
    pub major: u32,
    /// The version in the server's words.
    pub version: String,
    /// The number that `initdb` gave the cluster.
    pub system_identifier: u64,
    /// Whether pages have checksums.
    pub data_checksums: bool,
    /// Bytes of a page.
    pub block_bytes: usize,
    /// Bytes of a segment of the write-ahead log.
    pub wal_segment_bytes: u64,
    /// The database that the URL named.
    pub database: String,
    /// The role that the URL named.
    pub role: String,
    /// The system's user that owned the data, when that was seen.
    pub owner: Option<String>,
    /// The role that `initdb` made.
    pub superuser: String,
    /// The roles that may log in.
    pub login_roles: Vec<String>,
    /// The databases, each with its encoding.
    pub databases: BTreeMap<String, String>,
    /// Where tablespaces lay, by their numbers.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Settings that the restored server takes over.
    pub settings: BTreeMap<String, String>,
}

/// What only the backup itself needs to know.
pub(super) struct Server {
    pub(super) cluster: Cluster,
    pub(super) data_directory: Option<PathBuf>,
    pub(super) is_standby: bool,
    /// Whether the role may start and stop a backup itself.
    pub(super) may_start_backup: bool,
}

impl Server {
    pub(super) fn ask(session: &mut Session, target: &Target) -> Result<Self, PostgresError> {
        let failed = || PostgresError::statement("ask the server what it is");
        let client = session.client();
        let row = client
            .query_one(
                "select current_setting('server_version_num')::int, \
                 current_setting('server_version'), pg_is_in_recovery()",
                &[],
            )
            .map_err(failed())?;
        let (number, version): (i32, String) = (row.get(0), row.get(1));
        let is_standby = row.get(2);
        let major = u32::try_from(number / 10_000).unwrap_or(0);
        if !MAJORS.contains(&major) {
            return Err(PostgresError::Version(version));
        }
        let start = match major {
            ..15 => "pg_start_backup(text,boolean,boolean)",
            _ => "pg_backup_start(text,boolean)",
        };
        let row = client
            .query_one(
                "select (select system_identifier from pg_control_system()), \
                 current_setting('data_checksums') = 'on', \
                 current_setting('block_size')::int, \
                 (select setting::bigint from pg_settings where name = 'wal_segment_size'), \
                 has_function_privilege($1::text, 'execute'), \
                 (select setting from pg_settings where name = 'data_directory')",
                &[&start],
            )
            .map_err(failed())?;
        let system_identifier: i64 = row.get(0);
        let (block, segment): (i32, i64) = (row.get(2), row.get(3));
        let data_directory: Option<String> = row.get(5);
        let cluster = Cluster {
            major,
            version,
            system_identifier: system_identifier.cast_unsigned(),
            data_checksums: row.get(1),
            block_bytes: usize::try_from(block).unwrap_or(8192),
            wal_segment_bytes: segment.cast_unsigned(),
            database: target.database().to_owned(),
            role: target.user().to_owned(),
            owner: None,
            superuser: roles(session, "oid = 10")?.pop().unwrap_or_default(),
            login_roles: roles(session, "rolcanlogin")?,
            databases: databases(session)?,
            tablespaces: BTreeMap::new(),
            settings: settings(session)?,
        };
        let data_directory = data_directory.map(PathBuf::from);
        let may_start_backup = row.get(4);
        Ok(Self { cluster, data_directory, is_standby, may_start_backup })
    }
}

fn roles(session: &mut Session, which: &str) -> Result<Vec<String>, PostgresError> {
    let statement = format!("select rolname::text from pg_roles where {which} order by 1");
    let rows = session.client().query(&statement, &[]);
    let rows = rows.map_err(PostgresError::statement("ask the server for its roles"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn databases(session: &mut Session) -> Result<BTreeMap<String, String>, PostgresError> {
    let rows = session
        .client()
        .query(
            "select datname::text, pg_encoding_to_char(encoding)::text from pg_database \
             where not datistemplate and datallowconn",
            &[],
        )
        .map_err(PostgresError::statement("ask the server for its databases"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn settings(session: &mut Session) -> Result<BTreeMap<String, String>, PostgresError> {
    let names: Vec<String> = CARRIED.iter().map(|&name| name.to_owned()).collect();
    // What the file or the command line says: not what this session or role has for itself.
    let rows = session
        .client()
        .query("select name, reset_val from pg_settings where name = any($1)", &[&names])
        .map_err(PostgresError::statement("ask the server for its settings"))?;
    let pairs = rows.iter().map(|row| (row.get(0), row.get::<_, Option<String>>(1)));
    Ok(pairs.filter_map(|(name, value)| Some((name, value?))).collect())
}
