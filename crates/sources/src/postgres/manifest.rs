//! The `backup_manifest`: every file's length and SHA-256, by which `pg_verifybackup`, or Muster
//! where that is not installed, proves restored data before a server is started on it.
//!
//! # Source
//! PostgreSQL documentation, *Backup Manifest Format*. Version 2 (from PostgreSQL 17) names the
//! cluster's system identifier; before that it is version 1.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use muster_repository::run::Run;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{PostgresError, cluster::Cluster, wal::Range};

/// Its name in the data directory.
pub(super) const FILE: &str = "backup_manifest";

/// What the manifest says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
    /// Seconds since 1970.
    pub(super) modified: i64,
}

/// Writes a manifest.
pub(super) fn write(files: &BTreeMap<String, Entry>, wal: &Range, cluster: &Cluster) -> String {
    let mut text = match cluster.major {
        ..17 => "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n".to_owned(),
        _ => format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {},\n",
            cluster.system_identifier
        ),
    };
    text.push_str("\"Files\": [");
    for (index, (path, entry)) in files.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let path = serde_json::Value::from(path.as_str());
        let modified = jiff::Timestamp::from_second(entry.modified).unwrap_or_default();
        push(
            &mut text,
            format_args!(
                "{comma}\n{{ \"Path\": {path}, \"Size\": {}, \"Last-Modified\": \"{}\", \
             \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{}\" }}",
                entry.size,
                modified.strftime("%Y-%m-%d %H:%M:%S GMT"),
                hex(&entry.sha256),
            ),
        );
    }
    push(
        &mut text,
        format_args!(
            "\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \
         \"End-LSN\": \"{}\" }}\n],\n",
            wal.timeline, wal.start, wal.end
        ),
    );
    let checksum = hex(&Sha256::digest(text.as_bytes()));
    push(&mut text, format_args!("\"Manifest-Checksum\": \"{checksum}\"}}\n"));
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        push(&mut text, format_args!("{byte:02x}"));
        text
    })
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Files")]
    files: Vec<Listed>,
    #[serde(rename = "Manifest-Checksum")]
    checksum: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum")]
    checksum: String,
}

/// Compares the files of a data directory with its manifest; tablespaces are followed through
/// their links. What is there and not in the manifest is not looked at.
///
/// # Errors
/// Fails when the manifest is missing or damaged, a file differs from it, or the run is cancelled.
pub(super) fn verify(data: &Path, run: &Run) -> Result<(), PostgresError> {
    let path = data.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(PostgresError::file("read", &path))?;
    let differs = |files, first: String| PostgresError::ManifestDiffers { files, first };
    let document: Document = serde_json::from_str(&text)
        .map_err(|error| differs(1, format!("'{FILE}' itself, which cannot be read: {error}")))?;
    let (covered, _) = text.rsplit_once("\"Manifest-Checksum\"").unwrap_or_default();
    if hex(&Sha256::digest(covered.as_bytes())) != document.checksum {
        return Err(differs(1, format!("'{FILE}' itself, by its own checksum")));
    }
    let differing = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(listed) = document.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if run.cancel.is_requested() {
                        return;
                    }
                    if let Some(flaw) = flaw(&data.join(&listed.path), listed, run) {
                        let text = format!("'{}': {flaw}", listed.path);
                        differing.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                    }
                }
            });
        }
    });
    run.cancel.check()?;
    let mut differing = differing.into_inner().unwrap_or_else(PoisonError::into_inner);
    differing.sort();
    match differing.first() {
        None => Ok(()),
        Some(first) => Err(differs(differing.len(), first.clone())),
    }
}

fn flaw(path: &Path, listed: &Listed, run: &Run) -> Option<String> {
    let (size, sha256) = match digest(path, run) {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    if size != listed.size {
        return Some(format!("it has {size} bytes instead of {}", listed.size));
    }
    (sha256 != listed.checksum).then(|| "its content is another".to_owned())
}

fn digest(path: &Path, run: &Run) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 18];
    loop {
        if run.cancel.is_requested() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match file.read(&mut buffer)? {
            0 => return Ok((size, hex(&hash.finalize()))),
            read => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::wal::Lsn, *};

    fn manifest(data: &Path, major: u32) {
        std::fs::create_dir_all(data.join("base")).unwrap();
        std::fs::write(data.join("base/1"), "page").unwrap();
        let entry = Entry { size: 4, sha256: Sha256::digest("page").into(), modified: 0 };
        let files = BTreeMap::from([("base/1".to_owned(), entry)]);
        let wal = Range { timeline: 1, start: Lsn(1), end: Lsn(2) };
        let cluster = Cluster {
            major,
            version: String::new(),
            system_identifier: 9,
            data_checksums: true,
            block_bytes: 8192,
            wal_segment_bytes: 1,
            database: String::new(),
            role: String::new(),
            owner: None,
            superuser: String::new(),
            login_roles: Vec::new(),
            databases: BTreeMap::new(),
            tablespaces: BTreeMap::new(),
            settings: BTreeMap::new(),
        };
        std::fs::write(data.join(FILE), write(&files, &wal, &cluster)).unwrap();
    }

    #[test]
    fn what_was_written_verifies_and_a_change_is_found() {
        for major in [13, 18] {
            let folder = tempfile::tempdir().unwrap();
            manifest(folder.path(), major);
            verify(folder.path(), &Run::new()).unwrap();
            std::fs::write(folder.path().join("base/1"), "Page").unwrap();
            let error = verify(folder.path(), &Run::new()).unwrap_err().to_string();
            assert!(error.contains("'base/1': its content is another"), "{error}");
            std::fs::remove_file(folder.path().join("base/1")).unwrap();
            assert!(verify(folder.path(), &Run::new()).is_err());
        }
    }

    #[test]
    fn a_manifest_that_was_changed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        manifest(folder.path(), 17);
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap().replace("base/1", "base/2");
        std::fs::write(&path, text).unwrap();
        let error = verify(folder.path(), &Run::new()).unwrap_err().to_string();
        assert!(error.contains("by its own checksum"), "{error}");
    }
}
