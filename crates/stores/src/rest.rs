//! restic's REST protocol, versions 1 and 2.
//!
//! Written from "REST Backend" in restic's references. Packs lie at `/data/ID`, without the
//! folder that other stores have. A server may refuse to replace or to delete (append-only).
//! The protocol knows no conditional create, so it is looked before `config` is written; servers
//! that refuse to replace a file make this exact.

pub(crate) mod listing;

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use muster_model::location::Rest;
use muster_repository::{
    format::pack::BlobKind,
    id::PackId,
    storage::{File, FileKind, Listed, Spooled, Storage, StorageError, StorageProblem, Storing},
};
use zeroize::Zeroizing;

use self::listing::{Listing, NoListing};
use crate::{
    answer::Trouble,
    bridge,
    http::{AnswerBody, Client},
    outflow::{self, Outflow},
    pace::Pace,
    stop::{self, Watch},
    variables::Variables,
};

/// What a server may take besides the time for the bytes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks for listings with sizes.
const VERSION_2: &str = "application/vnd.x.restic.rest.v2";

/// A listing of 10 million files is some 900 MB; what is longer is none.
const LISTING_BYTES_MAX: usize = 1 << 30;

/// A repository on a REST server.
#[derive(Debug)]
pub(crate) struct RestStorage {
    client: Client,
    url: String,
    location: String,
    login: Option<HeaderValue>,
    pace: Arc<Pace>,
}

type Answer = Response<AnswerBody>;

impl RestStorage {
    /// A server that does not replace files refuses what is there already. That is as good when
    /// the name is the content's hash.
    fn put_shared(&self, file: File, content: &Arc<Vec<u8>>) -> Result<(), StorageError> {
        self.unless_there(file, content.len() as u64, self.post(file, content))
    }

    fn unless_there(
        &self,
        file: File,
        bytes: u64,
        posted: Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        match posted {
            Err(error) if error.problem() == StorageProblem::Denied && file.digest().is_some() => {
                match self.size(file) {
                    Ok(stored) if stored == bytes => Ok(()),
                    _ => Err(error),
                }
            }
            result => result,
        }
    }

    pub(crate) fn new(rest: &Rest, variables: &Variables, client: Client, pace: Arc<Pace>) -> Self {
        let location = rest.to_string();
        Self { client, url: rest.url.clone(), location, login: login(rest, variables), pace }
    }

    /// The URL of a file; packs have no folder of two digits here.
    fn url(&self, file: File) -> String {
        match file {
            File::Pack(id) => format!("{}data/{id}", self.url),
            other => format!("{}{other}", self.url),
        }
    }

    fn request(&self, method: Method, url: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(url);
        match &self.login {
            Some(login) => request.header(header::AUTHORIZATION, login.clone()),
            None => request,
        }
    }

    /// Sends a request, and takes what `take` makes of its answer, in time.
    fn run<T: Send + 'static, F>(
        &self,
        operation: &'static str,
        what: impl fmt::Display,
        (request, body): (http::request::Builder, Bytes),
        bytes: usize,
        take: impl FnOnce(Answer) -> F + Send + 'static,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, Trouble>> + Send,
    {
        self.run_while(operation, what, (request, body.into()), bytes, take, |_| ())
    }

    /// The same, while this thread does something first, such as to feed the request.
    fn run_while<T: Send + 'static, F>(
        &self,
        operation: &'static str,
        what: impl fmt::Display,
        (request, body): (http::request::Builder, Outflow),
        bytes: usize,
        take: impl FnOnce(Answer) -> F + Send + 'static,
        meanwhile: impl FnOnce(&Watch<'_>),
    ) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, Trouble>> + Send,
    {
        let what = format!("{what} in {}", self.location);
        let failed = |trouble: Trouble| {
            StorageError::because(operation, &what, trouble.problem, Box::new(trouble))
        };
        let invalid = |error: http::Error| {
            failed(Trouble::new(StorageProblem::NoPlace, format!("the URL is none: {error}")))
        };
        let request = request.body(body).map_err(invalid)?;
        let limit = PATIENCE + self.pace.longest(bytes);
        let client = self.client.clone();
        let timed = async move {
            let work = async { take(client.send(request).await?).await };
            tokio::time::timeout(limit, work).await
        };
        let watch = self.pace.stop.watch();
        match bridge::wait_while(timed, &watch, || meanwhile(&watch)) {
            Err(error) => Err(StorageError::io(operation, &what, error)),
            Ok(None) => Err(stop::given_up(operation, what)),
            Ok(Some(Err(_))) => Err(failed(Trouble::new(
                StorageProblem::TimedOut,
                "the server did not answer in time",
            ))),
            Ok(Some(Ok(result))) => result.map_err(failed),
        }
    }

    fn post(&self, file: File, content: &Arc<Vec<u8>>) -> Result<(), StorageError> {
        let request = self.request_to_post(file, content.len() as u64);
        let body = bridge::Shared::bytes(content);
        self.run("write", file, (request, body), content.len(), |_| async { Ok(()) })
    }

    fn request_to_post(&self, file: File, bytes: u64) -> http::request::Builder {
        self.request(Method::POST, &self.url(file))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, bytes)
    }

    fn post_spooled(&self, pack: &Spooled) -> Result<(), StorageError> {
        let file = File::Pack(pack.id());
        let request = self.request_to_post(file, pack.bytes());
        let (feeder, body) = outflow::fed(pack.bytes());
        let bytes = usize::try_from(pack.bytes()).unwrap_or(usize::MAX);
        let mut read = Ok(());
        let feed = |watch: &Watch<'_>| {
            read = pack.read(|piece| feeder.push(piece, watch));
            drop(feeder);
        };
        let done = |_| async { Ok(()) };
        let posted = self.run_while("write", file, (request, body), bytes, done, feed);
        // Why the pack could not be read says more than that its request failed for it.
        read.and(posted)
    }
}

/// The header that says who asks: from the URL, else from the variables.
fn login(rest: &Rest, variables: &Variables) -> Option<HeaderValue> {
    let user = match &rest.user {
        Some(user) => Zeroizing::new(user.clone()),
        None => variables.get("RESTIC_REST_USERNAME")?,
    };
    let password = match &rest.password {
        Some(password) => Zeroizing::new(password.reveal().to_owned()),
        None => variables.get("RESTIC_REST_PASSWORD").unwrap_or_default(),
    };
    let pair = Zeroizing::new(format!("{}:{}", user.as_str(), password.as_str()));
    let mut value =
        HeaderValue::from_str(&format!("Basic {}", BASE64.encode(pair.as_bytes()))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The body of an answer, which must not be longer than `bytes_max`.
async fn content(answer: Answer, bytes_max: usize) -> Result<Bytes, Trouble> {
    let collected = Limited::new(answer.into_body(), bytes_max).collect().await;
    collected.map(|collected| collected.to_bytes()).map_err(|error| cut_off(error.as_ref()))
}

/// The files in an answer that is a listing. It is never in memory as a whole.
async fn listing(answer: Answer, kind: FileKind) -> Result<Vec<(File, Option<u64>)>, Trouble> {
    let no_listing = |NoListing| Trouble::new(StorageProblem::Other, "the answer is no listing");
    let mut body = pin!(Limited::new(answer.into_body(), LISTING_BYTES_MAX));
    let mut listing = Listing::of(kind);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| cut_off(error.as_ref()))?;
        if let Ok(bytes) = frame.into_data() {
            listing.push(&bytes).map_err(no_listing)?;
        }
    }
    listing.finish().map_err(no_listing)
}

fn cut_off(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Trouble {
    match error.is::<http_body_util::LengthLimitError>() {
        true => Trouble::new(StorageProblem::TooLarge, "the answer is longer than it may be"),
        false => Trouble::of_transport(error),
    }
}

fn length(answer: &Answer) -> Option<u64> {
    answer.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Storage for RestStorage {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        let request = self
            .request(Method::POST, &format!("{}?create=true", self.url))
            .header(header::CONTENT_LENGTH, 0);
        self.run("make", "folders", (request, Bytes::new()), 0, |_| async { Ok(()) })
    }

    fn list(&self, kind: FileKind) -> Result<Vec<Listed>, StorageError> {
        let gone = |error: &StorageError| error.problem() == StorageProblem::NotFound;
        if kind == FileKind::Config {
            return match self.size(File::Config) {
                Ok(bytes) => Ok(vec![Listed { file: File::Config, bytes }]),
                Err(error) if gone(&error) => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        let url = format!("{}{}/", self.url, kind.folder());
        let request = self.request(Method::GET, &url).header(header::ACCEPT, VERSION_2);
        let listed = self.run(
            "list",
            kind.folder(),
            (request, Bytes::new()),
            LISTING_BYTES_MAX,
            move |answer| listing(answer, kind),
        );
        let mut sized = Vec::new();
        for (file, bytes) in match listed {
            Err(error) if gone(&error) => return Ok(sized),
            listed => listed?,
        } {
            let bytes = match bytes.map_or_else(|| self.size(file), Ok) {
                // Another process removed it between the listing and the question.
                Err(error) if gone(&error) => continue,
                bytes => bytes?,
            };
            sized.push(Listed { file, bytes });
        }
        Ok(sized)
    }

    fn size(&self, file: File) -> Result<u64, StorageError> {
        let request = self.request(Method::HEAD, &self.url(file));
        self.run("look at", file, (request, Bytes::new()), 0, |answer| async move {
            length(&answer)
                .ok_or_else(|| Trouble::new(StorageProblem::Other, "the answer names no length"))
        })
    }

    fn read(&self, file: File, bytes_max: u64) -> Result<Vec<u8>, StorageError> {
        let request = self.request(Method::GET, &self.url(file));
        let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let take = move |answer| async move {
            if length(&answer).is_some_and(|bytes| bytes > bytes_max) {
                return Err(Trouble::new(StorageProblem::TooLarge, "such a file is not so large"));
            }
            content(answer, limit).await.map(|bytes| bytes.to_vec())
        };
        self.run("read", file, (request, Bytes::new()), limit.min(1 << 30), take)
    }

    fn read_range(&self, file: File, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let short = || StorageError::new("read", file, StorageProblem::TooShort);
        if buffer.is_empty() {
            return self.size(file).and_then(|bytes| match offset > bytes {
                true => Err(short()),
                false => Ok(()),
            });
        }
        let wanted = buffer.len();
        let last = offset.checked_add(wanted as u64 - 1).ok_or_else(short)?;
        let request = self
            .request(Method::GET, &self.url(file))
            .header(header::RANGE, format!("bytes={offset}-{last}"));
        let take = move |answer: Answer| async move {
            if answer.status() != http::StatusCode::PARTIAL_CONTENT {
                return Err(Trouble::new(StorageProblem::Denied, "the server knows no ranges"));
            }
            content(answer, wanted).await
        };
        let read = self.run("read", file, (request, Bytes::new()), wanted, take)?;
        if read.len() != wanted {
            return Err(short());
        }
        buffer.copy_from_slice(&read);
        Ok(())
    }

    fn put(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        self.put_shared(file, &Arc::new(content.to_vec()))
    }

    fn put_pack(
        &self,
        id: PackId,
        _: BlobKind,
        content: &Arc<Vec<u8>>,
    ) -> Result<Storing<'_>, StorageError> {
        self.put_shared(File::Pack(id), content)?;
        Ok(Storing::done())
    }

    fn put_spooled(&self, _: BlobKind, pack: &Spooled) -> Result<(), StorageError> {
        let posted = self.post_spooled(pack);
        self.unless_there(File::Pack(pack.id()), pack.bytes(), posted)
    }

    fn sends_from_files(&self) -> bool {
        true
    }

    fn put_new(&self, file: File, content: &[u8]) -> Result<(), StorageError> {
        let exists = || StorageError::new("write", file, StorageProblem::AlreadyExists);
        match self.size(file) {
            Ok(_) => return Err(exists()),
            Err(error) if error.problem() == StorageProblem::NotFound => {}
            Err(error) => return Err(error),
        }
        match self.post(file, &Arc::new(content.to_vec())) {
            Err(error) if error.problem() == StorageProblem::Denied => match self.size(file) {
                Ok(_) => Err(exists()),
                Err(_) => Err(error),
            },
            result => result,
        }
    }

    fn delete_all(&self, files: &[File]) -> Vec<Result<(), StorageError>> {
        let delete = |file: &File| {
            let request = self.request(Method::DELETE, &self.url(*file));
            match self.run("delete", file, (request, Bytes::new()), 0, |_| async { Ok(()) }) {
                Err(error) if error.problem() != StorageProblem::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        files.iter().map(delete).collect()
    }

    /// rest-server answers 404 for a file that is not there; others say that all is well, so it
    /// is asked before.
    fn delete(&self, file: File) -> Result<(), StorageError> {
        self.size(file)?;
        let request = self.request(Method::DELETE, &self.url(file));
        self.run("delete", file, (request, Bytes::new()), 0, |_| async { Ok(()) })
    }
}
