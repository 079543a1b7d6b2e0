//! What S3 can do besides, and `object_store` does not ask for, or not carefully enough: Object
//! Lock, versions, archives, and deleting many objects at once.
//!
//! `Bucket` sends one signed request and gives its answer; `locks.rs` holds files, `past.rs` reads
//! a bucket as it was, `archive.rs` brings files back, `deletion.rs` deletes. Signatures are made
//! by `object_store`, requests go through the one HTTP client.

mod archive;
pub(crate) mod deletion;
mod locks;
mod past;
pub(crate) mod versions;
pub(crate) mod xml;

use std::{fmt, io, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use md5::{Digest as _, Md5};
use muster_repository::storage::{Spooled, StorageError, StorageProblem};
use object_store::{
    aws::{AmazonS3, AwsAuthorizer},
    client::HttpRequestBody,
};

pub(crate) use self::{archive::Archive, locks::Locks, past::Past, xml::element};
use self::{deletion::Told, locks::CHECKSUM};
use crate::{
    answer::Trouble,
    bridge,
    clouds::Address,
    http::{Client, observed},
    outflow::{self, Outflow},
    pace::Pace,
    stop::{self, Watch},
};

/// What a store may take besides the time for the bytes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A bucket, asked directly.
#[derive(Debug)]
pub(crate) struct Bucket {
    address: Address,
    /// Who signs; nobody where credentials are not to be sent.
    credentials: Option<Arc<AmazonS3>>,
    client: Client,
    pace: Arc<Pace>,
}

/// One request.
#[derive(Debug)]
struct Ask {
    method: Method,
    /// The object; empty for the bucket itself.
    key: String,
    /// Names and values.
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// What is sent in the place of `body`, and its SHA-256.
    fed: Option<(Outflow, [u8; 32])>,
    /// How long the answer may be.
    bytes_max: usize,
}

impl Ask {
    fn new(method: Method, key: &str) -> Self {
        let (query, headers, body) = (Vec::new(), Vec::new(), Bytes::new());
        let (key, fed) = (key.to_owned(), None);
        Self { method, key, query, headers, body, fed, bytes_max: 1 << 20 }
    }

    fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A good answer.
#[derive(Debug)]
struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Bucket {
    pub(crate) fn new(
        address: Address,
        credentials: Option<Arc<AmazonS3>>,
        client: Client,
        pace: Arc<Pace>,
    ) -> Arc<Self> {
        Arc::new(Self { address, credentials, client, pace })
    }

    /// Asks, and waits for the answer, in time.
    fn ask(
        self: &Arc<Self>,
        operation: &'static str,
        what: impl Into<String>,
        ask: Ask,
    ) -> Result<Answer, StorageError> {
        let bytes = ask.body.len();
        self.ask_while(operation, what.into(), ask, bytes, |_| ())
    }

    /// Stores a pack from the file that it lies in, with its SHA-256 for the store to verify.
    pub(crate) fn put_spooled(
        self: &Arc<Self>,
        what: String,
        key: &str,
        pack: &Spooled,
        headers: Vec<(&'static str, String)>,
    ) -> Result<(), StorageError> {
        let digest = *pack.id().as_bytes();
        let (feeder, body) = outflow::fed(pack.bytes());
        let mut ask = Ask::new(Method::PUT, key).header(CHECKSUM, BASE64.encode(digest));
        ask.headers.extend(headers);
        ask.fed = Some((body, digest));
        let bytes = usize::try_from(pack.bytes()).unwrap_or(usize::MAX);
        let mut read = Ok(());
        let answer = self.ask_while("write", what, ask, bytes, |watch| {
            read = pack.read(|piece| feeder.push(piece, watch));
            drop(feeder);
        });
        // Why the pack could not be read says more than that its request failed for it.
        read.and(answer.map(drop))
    }

    /// Asks to send `bytes` bytes, does something `meanwhile`, and waits for the answer, in time.
    fn ask_while(
        self: &Arc<Self>,
        operation: &'static str,
        what: impl fmt::Display,
        ask: Ask,
        bytes: usize,
        meanwhile: impl FnOnce(&Watch<'_>),
    ) -> Result<Answer, StorageError> {
        let limit = PATIENCE + self.pace.longest(bytes.max(ask.bytes_max));
        let this = Arc::clone(self);
        let sent = async move { tokio::time::timeout(limit, this.send(ask)).await };
        let watch = self.pace.stop.watch();
        let trouble = match bridge::wait_while(sent, &watch, || meanwhile(&watch)) {
            Err(error) => return Err(StorageError::io(operation, what, error)),
            Ok(None) => return Err(stop::given_up(operation, what)),
            Ok(Some(Ok(Ok(answer)))) => return Ok(answer),
            Ok(Some(Ok(Err(trouble)))) => trouble,
            Ok(Some(Err(_))) => Trouble::new(
                StorageProblem::TimedOut,
                io::Error::from(io::ErrorKind::TimedOut).to_string(),
            ),
        };
        Err(StorageError::because(operation, what, trouble.problem, Box::new(trouble)))
    }

    /// Deletes objects with one request, and gives what the answer says of each.
    pub(crate) fn delete(
        self: &Arc<Self>,
        what: String,
        keys: &[String],
    ) -> Result<Vec<Told>, StorageError> {
        let body = deletion::request(keys);
        // Some stores insist on this digest.
        let mut ask = Ask::new(Method::POST, "")
            .query("delete", "")
            .header("content-md5", BASE64.encode(Md5::digest(&body)))
            .header("content-type", "application/xml");
        ask.body = Bytes::from(body);
        let answer = self.ask("delete", what, ask)?;
        Ok(deletion::told(&String::from_utf8_lossy(&answer.body), keys))
    }

    async fn send(&self, mut ask: Ask) -> Result<Answer, Trouble> {
        let bytes_max = ask.bytes_max;
        let (body, digest) = match ask.fed.take() {
            Some((body, digest)) => (body, Some(digest)),
            None => (Outflow::from(ask.body.clone()), None),
        };
        let mut request = self.request(ask)?;
        if let Some(store) = &self.credentials {
            self.sign(store, &mut request, digest).await?;
        }
        let request = request.map(|_| body);
        let (parts, body) = self.client.send(request).await?.into_parts();
        let body =
            Limited::new(body, bytes_max).collect().await.map_err(|error| match error
                .downcast_ref::<LengthLimitError>(
            ) {
                Some(_) => Trouble::new(StorageProblem::TooLarge, "the answer is too long"),
                None => Trouble::of_transport(error.as_ref()),
            })?;
        Ok(Answer { headers: parts.headers, body: body.to_bytes() })
    }

    fn request(&self, ask: Ask) -> Result<Request<HttpRequestBody>, Trouble> {
        let mut url = format!("{}/{}", self.address.bucket, encoded(&ask.key, true));
        for (number, (name, value)) in ask.query.iter().enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            url.push_str(&format!("{mark}{name}={}", encoded(value, false)));
        }
        let mut request = Request::builder().method(ask.method).uri(url);
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let malformed =
            |error: http::Error| Trouble::new(StorageProblem::Denied, error.to_string());
        request.body(HttpRequestBody::from(ask.body)).map_err(malformed)
    }

    async fn sign(
        &self,
        store: &AmazonS3,
        request: &mut Request<HttpRequestBody>,
        digest: Option<[u8; 32]>,
    ) -> Result<(), Trouble> {
        let refused = |why: String| Trouble::new(StorageProblem::Credentials, why);
        let (credential, last) = observed(store.credentials().get_credential()).await;
        let credential =
            credential.map_err(|error| last.unwrap_or_else(|| refused(error.to_string())))?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.address.region);
        let digest = digest.as_ref().map(<[u8; 32]>::as_slice);
        authorizer.try_authorize(request, digest).map_err(|error| refused(error.to_string()))
    }
}

/// Percent-encodes what AWS wants encoded; in keys slashes stay.
fn encoded(text: &str, is_key: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            b'/' if is_key => encoded.push('/'),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_slashes() {
        assert_eq!(encoded("a b/ü", true), "a%20b/%C3%BC");
        assert_eq!(encoded("a/b+c", false), "a%2Fb%2Bc");
    }
}
