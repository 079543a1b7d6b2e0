//! Object stores: S3 and compatibles, Azure Blob Storage, Google Cloud Storage.
//!
//! All three go through `object_store`; it signs and knows the dialects. It does not retry here,
//! since one place does for all stores (`patient.rs`). A pack is one `PUT`, with its SHA-256 for
//! the store to verify on S3. Objects appear whole or not at all, durable when acknowledged.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt as _;
use muster_repository::{
    format::{pack::BlobKind, time::Timestamp},
    id::PackId,
    storage::{
        Archiving, File, FileKind, Holding, Listed, Reach, Retention, Spooled, Storage,
        StorageError, StorageProblem, Storing,
    },
};
use object_store::{
    Attribute, Error, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload, path::Path,
};

use crate::{
    answer::Trouble,
    bridge,
    error::StoreError,
    http::observed,
    pace::Pace,
    s3::{Archive, Bucket, Locks, deletion::Told},
    stop,
};

/// What a store may take besides the time for the bytes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Objects of one request that deletes; S3 takes 1000.
const DELETED_AT_ONCE: usize = 256;

/// A repository in a bucket or container.
#[derive(Debug)]
pub(crate) struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    location: String,
    pace: Arc<Pace>,
    /// One request deletes many objects, as far as is known.
    deletes_many: AtomicBool,
    /// What deletes many objects, and sends packs from files.
    bucket: Option<Arc<Bucket>>,
    /// What S3 can do besides.
    locks: Option<Locks>,
    archive: Option<Archive>,
}

impl ObjectStorage {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        location: String,
        pace: Arc<Pace>,
    ) -> Result<Self, StoreError> {
        Path::parse(prefix)
            .map_err(|error| StoreError::setup("the folder in the bucket", error))?;
        let deletes_many = AtomicBool::new(false);
        let prefix = prefix.to_owned();
        let (bucket, locks, archive) = (None, None, None);
        Ok(Self { store, prefix, location, pace, deletes_many, bucket, locks, archive })
    }

    /// A store that deletes many objects with one request: S3, through `bucket`.
    pub(crate) fn deleting_many(self, bucket: Arc<Bucket>) -> Self {
        Self { deletes_many: AtomicBool::new(true), bucket: Some(bucket), ..self }
    }

    fn delete_one(&self, file: File) -> Result<(), StorageError> {
        let path = self.path(file);
        self.run("delete", file, 0, |store| async move { store.delete(&path).await })
    }

    /// One request for all; the error is that of the request as a whole. What the answer does not
    /// speak of is deleted by itself.
    fn delete_together(
        &self,
        bucket: &Arc<Bucket>,
        files: &[File],
    ) -> Result<Vec<Result<(), StorageError>>, StorageError> {
        let keys: Vec<String> =
            files.iter().map(|file| self.path(file).as_ref().to_owned()).collect();
        let what = format!("{} and {} more in {}", files[0], files.len() - 1, self.location);
        let told = bucket.delete(what, &keys)?;
        let outcome = |(file, told): (&File, Told)| match told {
            Told::Gone => Ok(()),
            Told::Nothing => self.remove(*file),
            Told::Refused { code, message } => {
                let trouble = Trouble::of_refusal(&code, &message);
                let what = format!("{file} in {}", self.location);
                Err(StorageError::because("delete", what, trouble.problem, Box::new(trouble)))
            }
        };
        Ok(files.iter().zip(told).map(outcome).collect())
    }

    pub(crate) fn with(self, locks: Locks, archive: Archive) -> Self {
        Self { locks: Some(locks), archive: Some(archive), ..self }
    }

    /// What holds files here.
    fn locks(&self, operation: &'static str, file: File) -> Result<&Locks, StorageError> {
        let cannot = || StorageError::new(operation, file, StorageProblem::CannotHold);
        self.locks.as_ref().ok_or_else(cannot)
    }

    /// The storage class of a pack, if not the bucket's.
    fn class(&self, holds: BlobKind) -> Option<&str> {
        match holds {
            BlobKind::Data => self.archive.as_ref().and_then(Archive::class),
            BlobKind::Tree => None,
        }
    }

    fn path(&self, name: impl fmt::Display) -> Path {
        let name = match self.prefix.as_str() {
            "" => name.to_string(),
            prefix => format!("{prefix}/{name}"),
        };
        // The prefix was parsed before, and a repository's names have nothing to encode.
        Path::parse(&name).unwrap_or_else(|_| Path::from(name))
    }

    /// Does one thing in the store, in time.
    fn run<T: Send + 'static, F>(
        &self,
        operation: &'static str,
        what: impl fmt::Display,
        bytes: usize,
        work: impl FnOnce(Arc<dyn ObjectStore>) -> F,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let limit = PATIENCE + self.pace.longest(bytes);
        let work = work(Arc::clone(&self.store));
        let what = format!("{what} in {}", self.location);
        let timed = async move { tokio::time::timeout(limit, observed(work)).await };
        match bridge::wait_for(timed, &self.pace.stop.watch()) {
            Err(error) => Err(StorageError::io(operation, what, error)),
            Ok(None) => Err(stop::given_up(operation, what)),
            Ok(Some(Err(_))) => {
                let late = io::Error::new(io::ErrorKind::TimedOut, "the store did not answer");
                let problem = StorageProblem::TimedOut;
                Err(StorageError::because(operation, what, problem, Box::new(late)))
            }
            Ok(Some(Ok((Ok(value), _)))) => Ok(value),
            Ok(Some(Ok((Err(error), last)))) => Err(failed(operation, what, &error, last)),
        }
    }

    fn write(&self, file: File, content: &[u8], mode: PutMode) -> Result<(), StorageError> {
        self.write_shared(file, &Arc::new(content.to_vec()), mode, None)
    }

    fn write_shared(
        &self,
        file: File,
        content: &Arc<Vec<u8>>,
        mode: PutMode,
        class: Option<&str>,
    ) -> Result<(), StorageError> {
        let path = self.path(file);
        if let Some(locks) = self.locks.as_ref().filter(|locks| locks.concern(file, &self.location))
        {
            let what = format!("{file} in {}", self.location);
            let is_new = matches!(mode, PutMode::Create);
            return locks.put(what, path.as_ref(), content, is_new, class);
        }
        let mut options = PutOptions::from(mode);
        if let Some(class) = class {
            options.attributes.insert(Attribute::StorageClass, class.to_owned().into());
        }
        let payload = PutPayload::from(bridge::Shared::bytes(content));
        self.run("write", file, content.len(), |store| async move {
            store.put_opts(&path, payload, options).await.map(drop)
        })
    }

    /// For stores that know no condition: looks before it writes and after it wrote. Between the
    /// two another writer may have been at work; then one of both sees the other's content.
    fn put_new_unconditionally(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        let exists = || StorageError::new("write", file, StorageProblem::AlreadyExists);
        match self.size(file) {
            Ok(_) => return Err(exists()),
            Err(error) if error.problem() == StorageProblem::NotFound => {}
            Err(error) => return Err(error),
        }
        self.write(file, content, PutMode::Overwrite)?;
        match self.read(file, content.len() as u64) {
            Ok(stored) if stored == content => Ok(()),
            Ok(_) => Err(exists()),
            Err(error) if error.problem() == StorageProblem::TooLarge => Err(exists()),
            Err(error) => Err(error),
        }
    }
}

/// The error of an operation, from what the store answered last if it answered.
fn failed(
    operation: &'static str,
    what: String,
    error: &Error,
    last: Option<Trouble>,
) -> StorageError {
    let fallback = || match error {
        Error::NotFound { .. } => StorageProblem::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => StorageProblem::AlreadyExists,
        Error::PermissionDenied { .. } => StorageProblem::Denied,
        Error::Unauthenticated { .. } => StorageProblem::Credentials,
        _ => StorageProblem::Other,
    };
    let trouble = last.unwrap_or_else(|| Trouble::new(fallback(), one_line(error)));
    StorageError::because(operation, what, trouble.problem, Box::new(trouble))
}

fn one_line(error: &Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a store says that does not know a kind of request; some say it with the status alone.
fn knows_not(error: &StorageError) -> bool {
    let Some(why) = std::error::Error::source(error).map(ToString::to_string) else { return false };
    why.starts_with("501 ")
        || why.starts_with("405 ")
        || why.contains("NotImplemented")
        || why.contains("MethodNotAllowed")
}

impl Storage for ObjectStorage {
    fn location(&self) -> String {
        self.location.clone()
    }

    /// There are no folders to make; the bucket must be there.
    fn prepare(&self) -> Result<(), StorageError> {
        self.list(FileKind::Key).map(drop)
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        if kind == FileKind::Config {
            return match self.size(File::Config) {
                Ok(bytes) => Ok(vec![Listed { file: File::Config, bytes }]),
                Err(error) if error.problem() == StorageProblem::NotFound => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        let folder = self.path(kind.folder());
        // A listing comes in pages, each of them waited for by the client's own limit.
        const PAGES_BYTES: usize = 64 << 20;
        let found: Vec<(Path, u64)> =
            self.run("list", kind.folder(), PAGES_BYTES, |store| async move {
                store
                    .list(Some(&folder))
                    .map_ok(|meta| (meta.location, meta.size))
                    .try_collect()
                    .await
            })?;
        let listed = found.into_iter().filter_map(|(path, bytes)| {
            let file = kind.file(path.filename()?)?;
            (self.path(file) == path).then_some(Listed { file, bytes })
        });
        Ok(listed.collect())
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        let path = self.path(file);
        self.run("look at", file, 0, |store| async move {
            store.head(&path).await.map(|meta| meta.size)
        })
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        let path = self.path(file);
        let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let content = self.run("read", file, limit.min(1 << 30), |store| async move {
            let answer = store.get_opts(&path, GetOptions::default()).await?;
            match answer.meta.size > bytes_max {
                true => Ok(None),
                false => answer.bytes().await.map(Some),
            }
        })?;
        match content {
            Some(content) => Ok(content.to_vec()),
            None => Err(StorageError::new("read", self.path(file), StorageProblem::TooLarge)),
        }
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let path = self.path(file);
        let short = || StorageError::new("read", self.path(file), StorageProblem::TooShort);
        if buffer.is_empty() {
            return self.size(file).and_then(|bytes| match offset > bytes {
                true => Err(short()),
                false => Ok(()),
            });
        }
        let end = offset.checked_add(buffer.len() as u64).ok_or_else(short)?;
        let range = offset..end;
        let content = self.run("read", file, buffer.len(), |store| async move {
            store.get_range(&path, range).await
        });
        match content {
            Ok(content) if content.len() == buffer.len() => {
                buffer.copy_from_slice(&content);
                Ok(())
            }
            Ok(_) => Err(short()),
            // Stores and client differ in how they tell of a range that is not there.
            Err(error) if error.problem() == StorageProblem::Other => match self.size(file) {
                Ok(bytes) if bytes < end => Err(short()),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.write(file, content, PutMode::Overwrite)
    }

    fn put_pack(
        &self,
        id: PackId,
        holds: BlobKind,
        content: &Arc<Vec<u8>>,
    ) -> Result<Storing<'_>, StorageError> {
        self.write_shared(File::Pack(id), content, PutMode::Overwrite, self.class(holds))?;
        Ok(Storing::done())
    }

    /// S3 is asked without `object_store`, which wants the content whole.
    fn put_spooled(&self, holds: BlobKind, pack: &Spooled) -> Result<(), StorageError> {
        let Some(bucket) = &self.bucket else {
            return self.put_pack(pack.id(), holds, &Arc::new(pack.whole()?))?.finish();
        };
        let file = File::Pack(pack.id());
        let locks = self.locks.as_ref().filter(|locks| locks.concern(file, &self.location));
        let mut headers = locks.map(Locks::headers).unwrap_or_default();
        if let Some(class) = self.class(holds) {
            headers.push(("x-amz-storage-class", class.to_owned()));
        }
        let what = format!("{file} in {}", self.location);
        bucket.put_spooled(what, self.path(file).as_ref(), pack, headers)
    }

    fn sends_from_files(&self) -> bool {
        self.bucket.is_some()
    }

    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        match self.write(file, content, PutMode::Create) {
            Err(error) if knows_not(&error) => self.put_new_unconditionally(file, content),
            result => result,
        }
    }

    fn delete_all(&self, files: &[File]) -> Vec<Result<(), StorageError>> {
        if let Some(bucket) = &self.bucket
            && files.len() > 1
            && self.deletes_many.load(Ordering::Relaxed)
        {
            match self.delete_together(bucket, files) {
                Ok(results) => return results,
                // Not every store that speaks S3 knows this request.
                Err(error) if knows_not(&error) => {
                    self.deletes_many.store(false, Ordering::Relaxed);
                }
                Err(error) => {
                    let problem = error.problem();
                    let failed = |file| Err(StorageError::new("delete", file, problem));
                    let others = files[1..].iter().map(failed);
                    return std::iter::once(Err(error)).chain(others).collect();
                }
            }
        }
        files.iter().map(|file| self.remove(*file)).collect()
    }

    fn deletes_at_once(&self) -> usize {
        match self.deletes_many.load(Ordering::Relaxed) {
            true => DELETED_AT_ONCE,
            false => 1,
        }
    }

    fn holding(&self) -> Result<Holding, StorageError> {
        self.locks.as_ref().map_or(Ok(Holding::Never), |locks| locks.holding(&self.location))
    }

    fn retention(&self, file: File) -> Result<Retention, StorageError> {
        let what = format!("{file} in {}", self.location);
        self.locks("read how long is held", file)?.retention(what, self.path(file).as_ref())
    }

    fn retain(&self, file: File, until: Timestamp) -> Result<(), StorageError> {
        let what = format!("{file} in {}", self.location);
        self.locks("hold", file)?.retain(what, self.path(file).as_ref(), until)
    }

    fn archiving(&self) -> Archiving {
        self.archive.as_ref().map_or(Archiving::Never, Archive::archiving)
    }

    fn reach(&self, file: File) -> Result<Reach, StorageError> {
        let what = format!("{file} in {}", self.location);
        let reach = |archive: &Archive| archive.reach(what, self.path(file).as_ref(), None);
        self.archive.as_ref().map_or(Ok(Reach::Ready), reach)
    }

    fn warm_up(&self, file: File) -> Result<(), StorageError> {
        let what = format!("{file} in {}", self.location);
        let warm_up = |archive: &Archive| archive.warm_up(what, self.path(file).as_ref(), None);
        self.archive.as_ref().map_or(Ok(()), warm_up)
    }

    fn remove(&self, file: File) -> Result<(), StorageError> {
        match self.delete_one(file) {
            Err(error) if error.problem() != StorageProblem::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// S3 does not tell whether there was anything to delete, so it is asked before.
    fn delete(&self, file: File) -> Result<(), StorageError> {
        self.size(file)?;
        self.delete_one(file)
    }
}
