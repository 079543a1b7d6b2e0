//! Storage classes: where packs of data lie, and bringing them back from an archive.
//!
//! Only packs of data get the class that was asked for. All else is read again and again, is
//! small, and partly short-lived, which classes for rare reading charge for; it stays in the
//! bucket's own class. (restic does the same for archives, and gives other classes to all files.)
//!
//! Who waits for what is asked for here is the engine (`warm_up`).
//!
//! # Source
//! AWS, API references of `PutObject`, `HeadObject` and `RestoreObject`.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::Method;
use muster_repository::storage::{Archiving, Reach, StorageError};
use sha2::{Digest as _, Sha256};

use super::{Answer, Ask, Bucket, locks::CHECKSUM};
use crate::options::Cold;

/// Brings back archived objects.
#[derive(Debug)]
pub(crate) struct Archive {
    bucket: Arc<Bucket>,
    cold: Cold,
}

impl Archive {
    pub(crate) fn new(bucket: Arc<Bucket>, cold: Cold) -> Self {
        Self { bucket, cold }
    }

    /// The storage class of packs of data; `None` for the bucket's own.
    pub(crate) fn class(&self) -> Option<&str> {
        self.cold.class.as_deref()
    }

    pub(crate) fn archiving(&self) -> Archiving {
        match self.class().is_some_and(is_archive) {
            true => Archiving::Expected,
            false => Archiving::Possible,
        }
    }

    /// How an object, or one version of it, can be read.
    pub(crate) fn reach(
        &self,
        what: String,
        key: &str,
        version: Option<&str>,
    ) -> Result<Reach, StorageError> {
        let ask = with_version(Ask::new(Method::HEAD, key), version);
        self.bucket.ask("look at", what, ask).map(|answer| reach_of(&answer))
    }

    /// Asks for a readable copy, for as many days as the options say. What the intelligent class
    /// archived by itself is not copied but moved back, and no days may be said of it.
    pub(crate) fn warm_up(
        &self,
        what: String,
        key: &str,
        version: Option<&str>,
    ) -> Result<(), StorageError> {
        let look = with_version(Ask::new(Method::HEAD, key), version);
        let is_moved = is_in_archive_tier(&self.bucket.ask("look at", what.clone(), look)?);
        let Cold { days, tier, .. } = &self.cold;
        let days = if is_moved { String::new() } else { format!("<Days>{days}</Days>") };
        let body = format!(
            "<RestoreRequest xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{days}\
             <GlacierJobParameters><Tier>{tier}</Tier></GlacierJobParameters></RestoreRequest>"
        );
        let ask = Ask::new(Method::POST, key).query("restore", "");
        let mut ask =
            with_version(ask, version).header(CHECKSUM, BASE64.encode(Sha256::digest(&body)));
        ask.body = Bytes::from(body);
        match self.bucket.ask("bring back", what, ask) {
            Err(error) if !is_under_way(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether objects of this class must be brought back before they can be read.
fn is_archive(class: &str) -> bool {
    matches!(class, "GLACIER" | "DEEP_ARCHIVE")
}

fn with_version(ask: Ask, version: Option<&str>) -> Ask {
    match version {
        Some(version) => ask.query("versionId", version),
        None => ask,
    }
}

/// Whether the class `INTELLIGENT_TIERING` archived an object by itself.
fn is_in_archive_tier(answer: &Answer) -> bool {
    answer.header("x-amz-archive-status").is_some()
}

fn reach_of(answer: &Answer) -> Reach {
    let is_archived =
        answer.header("x-amz-storage-class").is_some_and(is_archive) || is_in_archive_tier(answer);
    // A copy of an archived object is told of by `ongoing-request="false"` and its end.
    match answer.header("x-amz-restore") {
        _ if !is_archived => Reach::Ready,
        Some(restore) if restore.contains("ongoing-request=\"true\"") => Reach::Warming,
        Some(restore) if restore.contains("ongoing-request=\"false\"") => Reach::Ready,
        _ => Reach::Archived,
    }
}

/// Somebody asked for it before.
fn is_under_way(error: &StorageError) -> bool {
    std::error::Error::source(error)
        .is_some_and(|why| why.to_string().contains("RestoreAlreadyInProgress"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn check(class: &'static str, restore: Option<&'static str>, expected: Reach) {
        check_tier(class, None, restore, expected);
    }

    fn check_tier(
        class: &'static str,
        status: Option<&'static str>,
        restore: Option<&'static str>,
        expected: Reach,
    ) {
        let mut headers = HeaderMap::new();
        if let Some(status) = status {
            headers.insert("x-amz-archive-status", HeaderValue::from_static(status));
        }
        headers.insert("x-amz-storage-class", HeaderValue::from_static(class));
        if let Some(restore) = restore {
            headers.insert("x-amz-restore", HeaderValue::from_static(restore));
        }
        assert_eq!(reach_of(&Answer { headers, body: Bytes::new() }), expected, "{class}");
    }

    #[test]
    fn archived_is_what_has_no_readable_copy() {
        let copy = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"";
        check("STANDARD_IA", None, Reach::Ready);
        check("GLACIER_IR", None, Reach::Ready);
        check("GLACIER", None, Reach::Archived);
        check("DEEP_ARCHIVE", Some("ongoing-request=\"true\""), Reach::Warming);
        check("DEEP_ARCHIVE", Some(copy), Reach::Ready);
        let (class, tier) = ("INTELLIGENT_TIERING", Some("DEEP_ARCHIVE_ACCESS"));
        check(class, None, Reach::Ready);
        check_tier(class, Some("ARCHIVE_ACCESS"), None, Reach::Archived);
        check_tier(class, tier, Some("ongoing-request=\"true\""), Reach::Warming);
    }
}
