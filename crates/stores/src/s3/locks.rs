//! Object Lock: files that nobody can remove until a moment, the holder of these credentials
//! included.
//!
//! A hold belongs to one version of an object. It is extended and never shortened: S3 refuses
//! that under compliance, and here nobody asks for it.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::Method;
use muster_repository::{
    format::time::Timestamp,
    storage::{File, Holding, Mode, Retention, StorageError, StorageProblem},
};
use sha2::{Digest as _, Sha256};

use super::{Answer, Ask, Bucket, xml::element};
use crate::options::Hold;

const MODE: &str = "x-amz-object-lock-mode";
const UNTIL: &str = "x-amz-object-lock-retain-until-date";
pub(super) const CHECKSUM: &str = "x-amz-checksum-sha256";

/// Holds files in a bucket.
#[derive(Debug)]
pub(crate) struct Locks {
    bucket: Arc<Bucket>,
    hold: Hold,
    holding: OnceLock<Holding>,
}

impl Locks {
    pub(crate) fn new(bucket: Arc<Bucket>, hold: Hold) -> Self {
        Self { bucket, hold, holding: OnceLock::new() }
    }

    /// Whether a file is held from its first moment on. Marks of processes at work come and go;
    /// and a snapshot is held last of all, when everything that it needs was seen to be: that it is
    /// held says that the rest is.
    pub(crate) fn concern(&self, file: File, location: &str) -> bool {
        self.hold.time.is_some()
            && !matches!(file, File::Lock(_) | File::Snapshot(_))
            && (!self.hold.is_wish || self.holds_on_request(location))
    }

    fn holds_on_request(&self, location: &str) -> bool {
        self.holding(location).is_ok_and(|holding| holding == Holding::OnRequest)
    }

    /// Stores an object that is held from its first moment on, in a storage class if one is given.
    pub(crate) fn put(
        &self,
        what: String,
        key: &str,
        content: &[u8],
        is_new: bool,
        class: Option<&str>,
    ) -> Result<(), StorageError> {
        let checksum = BASE64.encode(Sha256::digest(content));
        let mut ask = Ask::new(Method::PUT, key).header(CHECKSUM, checksum);
        ask.headers.extend(self.headers());
        if let Some(class) = class {
            ask = ask.header("x-amz-storage-class", class);
        }
        if is_new {
            ask = ask.header("if-none-match", "*");
        }
        ask.body = Bytes::copy_from_slice(content);
        self.bucket.ask("write", what, ask).map(drop)
    }

    /// What holds an object from its first moment on.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let until = since_the_epoch() + self.hold.time.unwrap_or_default();
        let until = Timestamp::new(i64::try_from(until.as_secs()).unwrap_or(i64::MAX), 0, 0);
        vec![
            (MODE, self.hold.mode.as_str().to_owned()),
            (UNTIL, until.to_string()),
            ("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()),
        ]
    }

    /// Whether the bucket was made with Object Lock.
    pub(crate) fn holding(&self, location: &str) -> Result<Holding, StorageError> {
        if let Some(known) = self.holding.get() {
            return Ok(*known);
        }
        let ask = Ask::new(Method::GET, "").query("object-lock", "");
        let found = match self.bucket.ask("look at", location, ask) {
            Ok(answer) => holding_of(&answer),
            Err(error) if has_no_locks(&error) => Holding::Never,
            // Not allowed to ask: nothing may be taken for granted then, and each file is asked.
            Err(error) if error.problem() == StorageProblem::Denied => Holding::ByDefault,
            Err(error) => return Err(error),
        };
        Ok(*self.holding.get_or_init(|| found))
    }

    pub(crate) fn retention(&self, what: String, key: &str) -> Result<Retention, StorageError> {
        look(&self.bucket, what, key, None).map(|(retention, _)| retention)
    }

    pub(crate) fn retain(
        &self,
        what: String,
        key: &str,
        until: Timestamp,
    ) -> Result<(), StorageError> {
        let (now, version) = look(&self.bucket, what.clone(), key, None)?;
        if now.covers(until) {
            return Ok(());
        }
        // Nobody can weaken a hold, and an extension must not try to.
        let mode = now.mode.map_or(self.hold.mode, |mode| mode.max(self.hold.mode));
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode>\
             <RetainUntilDate>{until}</RetainUntilDate></Retention>",
            mode.as_str()
        );
        let mut ask = Ask::new(Method::PUT, key)
            .query("retention", "")
            .header(CHECKSUM, BASE64.encode(Sha256::digest(&body)));
        if let Some(version) = version {
            ask = ask.query("versionId", version);
        }
        ask.body = Bytes::from(body);
        self.bucket.ask("hold", what, ask).map(drop)
    }
}

fn since_the_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Looks at an object, or one version of it; gives how it is held and which version that is.
pub(super) fn look(
    bucket: &Arc<Bucket>,
    what: String,
    key: &str,
    version: Option<&str>,
) -> Result<(Retention, Option<String>), StorageError> {
    let mut ask = Ask::new(Method::HEAD, key).header("x-amz-checksum-mode", "ENABLED");
    if let Some(version) = version {
        ask = ask.query("versionId", version);
    }
    let answer = bucket.ask("read how long is held", what, ask)?;
    Ok((retention_of(&answer), answer.header("x-amz-version-id").map(str::to_owned)))
}

fn retention_of(answer: &Answer) -> Retention {
    let sha256 = answer.header(CHECKSUM).and_then(|text| BASE64.decode(text).ok());
    Retention {
        until: answer.header(UNTIL).and_then(|text| Timestamp::parse(text).ok()),
        mode: match answer.header(MODE) {
            Some("COMPLIANCE") => Some(Mode::Compliance),
            Some("GOVERNANCE") => Some(Mode::Governance),
            _ => None,
        },
        legal_hold: answer.header("x-amz-object-lock-legal-hold") == Some("ON"),
        bytes: answer.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0),
        // A checksum of several parts is longer, and is not the object's.
        sha256: sha256.and_then(|bytes| bytes.try_into().ok()),
    }
}

fn holding_of(answer: &Answer) -> Holding {
    let body = String::from_utf8_lossy(&answer.body);
    match (element(&body, "ObjectLockEnabled"), element(&body, "DefaultRetention")) {
        (Some("Enabled"), None) => Holding::OnRequest,
        (Some("Enabled"), Some(_)) => Holding::ByDefault,
        _ => Holding::Never,
    }
}

fn has_no_locks(error: &StorageError) -> bool {
    let says = |text: &str| {
        std::error::Error::source(error).is_some_and(|why| why.to_string().contains(text))
    };
    matches!(error.problem(), StorageProblem::CannotHold | StorageProblem::NotFound)
        || says("NotImplemented")
        || says("501")
        || says("MethodNotAllowed")
}
