//! A bucket with versions as it was at a moment, to read from.
//!
//! Who has a client's credentials can put newer versions and delete markers over every object, and
//! cannot remove the versions below while they are held. Here the newest version at or before the
//! moment is each object's content, and what was deleted by then is not there.
//!
//! Nothing can be written, locks apart: they are kept in memory, since nobody changes the past.
//! The bucket is listed once, when something is first asked of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use http::Method;
use muster_repository::{
    format::time::Timestamp,
    storage::{
        Archiving, File, FileKind, Holding, Listed, Reach, Retention, Storage, StorageError,
        StorageProblem,
    },
};

use super::{
    Archive, Ask, Bucket,
    locks::look,
    versions::{Version, Versions, take_page},
    xml::{element, unescaped},
};

/// A page holds a thousand versions.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// A hundred million versions; what has more is none of ours.
const PAGES_MAX: usize = 100_000;

/// A bucket as it was.
#[derive(Debug)]
pub(crate) struct Past {
    bucket: Arc<Bucket>,
    archive: Archive,
    prefix: String,
    location: String,
    moment: Timestamp,
    versions: Mutex<Option<Arc<Versions>>>,
    locks: Mutex<BTreeMap<File, Vec<u8>>>,
}

impl Past {
    pub(crate) fn new(
        bucket: Arc<Bucket>,
        archive: Archive,
        prefix: &str,
        location: String,
        moment: Timestamp,
    ) -> Self {
        Self {
            bucket,
            archive,
            prefix: prefix.to_owned(),
            location: format!("{location} as of {moment}"),
            moment,
            versions: Mutex::default(),
            locks: Mutex::default(),
        }
    }

    fn key(&self, name: impl std::fmt::Display) -> String {
        match self.prefix.as_str() {
            "" => name.to_string(),
            prefix => format!("{prefix}/{name}"),
        }
    }

    fn versions(&self) -> Result<Arc<Versions>, StorageError> {
        let mut known = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(versions) = known.as_ref() {
            return Ok(Arc::clone(versions));
        }
        let mut found = Versions::new();
        let mut next: Option<(String, String)> = None;
        for pages in 1.. {
            let mut ask = Ask::new(Method::GET, "").query("versions", "");
            if !self.prefix.is_empty() {
                ask = ask.query("prefix", format!("{}/", self.prefix));
            }
            if let Some((key, version)) = &next {
                ask = ask.query("key-marker", key).query("version-id-marker", version);
            }
            ask.bytes_max = PAGE_BYTES_MAX;
            let answer = self.bucket.ask("list the versions in", &self.location, ask)?;
            let page = String::from_utf8_lossy(&answer.body);
            take_page(&page, &self.prefix, self.moment, &mut found);
            if element(&page, "IsTruncated") != Some("true") {
                break;
            }
            let marker = |name| element(&page, name).map(unescaped);
            let after = Some((
                marker("NextKeyMarker").unwrap_or_default(),
                marker("NextVersionIdMarker").unwrap_or_default(),
            ));
            if after == next || pages == PAGES_MAX {
                let (what, problem) = (&self.location, StorageProblem::TooLarge);
                return Err(StorageError::new("list the versions in", what, problem));
            }
            next = after;
        }
        found.retain(|_, version| !version.is_deletion);
        Ok(Arc::clone(known.insert(Arc::new(found))))
    }

    fn version(&self, operation: &'static str, file: File) -> Result<Version, StorageError> {
        let missing = || StorageError::new(operation, self.what(file), StorageProblem::NotFound);
        self.versions()?.get(&file).cloned().ok_or_else(missing)
    }

    fn what(&self, file: File) -> String {
        format!("{file} in {}", self.location)
    }

    fn kept(&self, file: File) -> Option<Vec<u8>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).get(&file).cloned()
    }

    fn refuse(&self, operation: &'static str, file: File) -> StorageError {
        StorageError::new(operation, self.what(file), StorageProblem::InThePast)
    }
}

impl Storage for Past {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        Err(self.refuse("prepare", File::Config))
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        if kind == FileKind::Lock {
            let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            let listed = |(file, content): (&File, &Vec<u8>)| Listed {
                file: *file,
                bytes: content.len() as u64,
            };
            return Ok(locks.iter().map(listed).collect());
        }
        let versions = self.versions()?;
        let listed = versions.iter().filter(|(file, _)| file.kind() == kind);
        let listed = listed.map(|(file, version)| Listed { file: *file, bytes: version.bytes });
        Ok(listed.collect())
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        match self.kept(file) {
            Some(lock) => Ok(lock.len() as u64),
            None => self.version("look at", file).map(|version| version.bytes),
        }
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        if let Some(lock) = self.kept(file) {
            return Ok(lock);
        }
        let version = self.version("read", file)?;
        if version.bytes > bytes_max {
            return Err(StorageError::new("read", self.what(file), StorageProblem::TooLarge));
        }
        let mut ask = Ask::new(Method::GET, &self.key(file)).query("versionId", version.id);
        ask.bytes_max = usize::try_from(version.bytes).unwrap_or(usize::MAX);
        Ok(self.bucket.ask("read", self.what(file), ask)?.body.to_vec())
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let version = self.version("read", file)?;
        let end = offset.saturating_add(buffer.len() as u64);
        let short = || StorageError::new("read", self.what(file), StorageProblem::TooShort);
        if end > version.bytes {
            return Err(short());
        }
        if buffer.is_empty() {
            return Ok(());
        }
        let mut ask = Ask::new(Method::GET, &self.key(file))
            .query("versionId", version.id)
            .header("range", format!("bytes={offset}-{}", end - 1));
        ask.bytes_max = buffer.len();
        let answer = self.bucket.ask("read", self.what(file), ask)?;
        match answer.body.len() == buffer.len() {
            true => buffer.copy_from_slice(&answer.body),
            false => return Err(short()),
        }
        Ok(())
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        match file {
            File::Lock(_) => {
                let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
                locks.insert(file, content.to_vec());
                Ok(())
            }
            _ => Err(self.refuse("write", file)),
        }
    }

    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.put(file, content)
    }

    fn delete(&self, file: File) -> Result<(), StorageError> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || StorageError::new("delete", self.what(file), StorageProblem::NotFound);
        match file {
            File::Lock(_) => locks.remove(&file).map(drop).ok_or_else(missing),
            _ => Err(self.refuse("delete", file)),
        }
    }

    fn holding(&self) -> Result<Holding, StorageError> {
        Ok(Holding::ByDefault)
    }

    fn retention(&self, file: File) -> Result<Retention, StorageError> {
        let version = self.version("read how long is held", file)?;
        let found = look(&self.bucket, self.what(file), &self.key(file), Some(&version.id))?;
        Ok(found.0)
    }

    fn archiving(&self) -> Archiving {
        self.archive.archiving()
    }

    fn reach(&self, file: File) -> Result<Reach, StorageError> {
        let version = self.version("look at", file)?;
        self.archive.reach(self.what(file), &self.key(file), Some(&version.id))
    }

    fn warm_up(&self, file: File) -> Result<(), StorageError> {
        let version = self.version("bring back", file)?;
        self.archive.warm_up(self.what(file), &self.key(file), Some(&version.id))
    }

    fn retain(&self, file: File, _: Timestamp) -> Result<(), StorageError> {
        Err(self.refuse("hold", file))
    }
}
