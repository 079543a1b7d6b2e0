//! One HTTP client for all stores: TLS, timeouts, limits, and what a failed request means.

use std::{cell::RefCell, fs, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use reqwest::redirect::Policy;
use rustls::{
    ClientConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;

use crate::{
    answer::Trouble,
    connections::{Connections, Leased},
    error::StoreError,
    pace::{Pace, Paced, Way},
};
use muster_repository::storage::StorageProblem;

/// Until a connection stands. A host that is up answers within a second or two.
const CONNECT: Duration = Duration::from_secs(15);

/// How long an answer may pause between two of its pieces.
const SILENCE: Duration = Duration::from_secs(60);

/// Where clouds tell their machines who they are; elsewhere nobody answers there.
const METADATA_HOSTS: [&str; 2] = ["169.254.169.254", "metadata.google.internal"];
const METADATA_WAIT: Duration = Duration::from_secs(2);

/// What is read of an answer that says no.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

tokio::task_local! {
    /// Why the last request of this task failed: `object_store` hides it from its errors.
    static LAST: RefCell<Option<Trouble>>;
}

/// Runs a future and gives, beside its result, why the last request in it failed.
pub(crate) async fn observed<T>(future: impl Future<Output = T>) -> (T, Option<Trouble>) {
    LAST.scope(RefCell::new(None), async {
        let result = future.await;
        (result, LAST.with(|last| last.take()))
    })
    .await
}

/// The body of an answer.
pub(crate) type AnswerBody = Paced<Leased<reqwest::Body>>;

/// Sends requests; clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    connections: Arc<Connections>,
    /// For those who are no store.
    aside: reqwest::Client,
    pace: Arc<Pace>,
}

impl Client {
    /// A client with at most `connections` at once that also trusts the authorities in the file
    /// `authorities`.
    pub(crate) fn new(
        authorities: Option<&Path>,
        connections: u32,
        pace: Arc<Pace>,
    ) -> Result<Self, StoreError> {
        // One for all clients: the system's authorities are read once, and sessions are resumed
        // over any connection.
        let tls = trusting(authorities)?;
        let make = move || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT)
                .read_timeout(SILENCE)
                .redirect(Policy::none())
                // Several connections carry more than one that is shared.
                .http1_only()
                .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
                .tls_backend_preconfigured(tls.clone())
                .build()
        };
        let setup = |error| StoreError::setup("the HTTP client", error);
        let aside = make().map_err(setup)?;
        let most = usize::try_from(connections).unwrap_or(usize::MAX);
        let connections = Connections::new(most, make).map_err(setup)?;
        Ok(Self { connections, aside, pace })
    }

    /// Sends a request, and gives its answer if it is a good one.
    pub(crate) async fn send<B>(
        &self,
        request: http::Request<B>,
    ) -> Result<http::Response<AnswerBody>, Trouble>
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let answer = self.execute(request).await.map_err(|error| Trouble::of_transport(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let body = refusal(body).await;
        Err(Trouble::of_answer(parts.status, &parts.headers, &body))
    }

    async fn execute<B>(
        &self,
        request: http::Request<B>,
    ) -> Result<http::Response<AnswerBody>, reqwest::Error>
    where
        B: http_body::Body<Data = Bytes> + Send + Sync + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let pace = &self.pace;
        let request = request.map(|body| {
            let empty = body.is_end_stream();
            match empty {
                true => reqwest::Body::default(),
                false => reqwest::Body::wrap(Paced::new(body, Arc::clone(pace), Way::Up)),
            }
        });
        let request = reqwest::Request::try_from(request)?;
        let is_metadata = request.url().host_str().is_some_and(|h| METADATA_HOSTS.contains(&h));
        let (answer, lease) = match is_metadata {
            true => {
                let mut request = request;
                *request.timeout_mut() = Some(METADATA_WAIT);
                (self.aside.execute(request).await, None)
            }
            false => {
                let lease = self.connections.take().await?;
                (lease.client().execute(request).await, Some(lease))
            }
        };
        let answer: http::Response<reqwest::Body> =
            answer.map_err(reqwest::Error::without_url)?.into();
        Ok(answer.map(|body| Paced::new(Leased::new(body, lease), Arc::clone(pace), Way::Down)))
    }
}

/// TLS that trusts the system's authorities, and those in a file.
fn trusting(authorities: Option<&Path>) -> Result<ClientConfig, StoreError> {
    // It fails when there is a provider already, which is as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let setup = |error: rustls::Error| StoreError::setup("TLS", error);
    let verifier = match authorities {
        None => Verifier::new(Arc::clone(&provider)).map_err(setup)?,
        Some(file) => {
            let unreadable = |why: String| StoreError::Authorities { file: file.to_owned(), why };
            let pem = fs::read(file).map_err(|error| unreadable(error.to_string()))?;
            let certificates = CertificateDer::pem_slice_iter(&pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| unreadable(error.to_string()))?;
            if certificates.is_empty() {
                return Err(unreadable("it holds no certificate".to_owned()));
            }
            Verifier::new_with_extra_roots(certificates, Arc::clone(&provider))
                .map_err(|error| unreadable(error.to_string()))?
        }
    };
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// What stands in the body of an answer that says no; nothing when it is not to be had.
async fn refusal(body: AnswerBody) -> Bytes {
    match Limited::new(body, REFUSAL_BYTES_MAX).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => Bytes::new(),
    }
}

/// Nothing else was found, so the cloud was asked who this machine is, and does not tell. The path
/// of the question says which cloud was meant.
fn no_credentials(path: &str) -> Trouble {
    let places = match path.trim_start_matches('/').split('/').next() {
        Some("latest") => {
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a web identity and a container's role are \
             not set"
        }
        Some("computeMetadata") => {
            "GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_ACCESS_TOKEN and gs.credentials-file are not set"
        }
        _ => {
            "AZURE_ACCOUNT_KEY, AZURE_ACCOUNT_SAS and a service principal (AZURE_CLIENT_ID, …) are \
             not set"
        }
    };
    let text = format!(
        "there are no credentials: {places}, neither in the environment nor in a plan's \
         `credentials`, and this machine's cloud gives none"
    );
    Trouble::new(StorageProblem::Credentials, text)
}

fn note(trouble: Trouble) {
    // Outside of `observed` nobody wants to know.
    drop(LAST.try_with(|last| last.replace(Some(trouble))));
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asks_cloud = METADATA_HOSTS.contains(&request.uri().host().unwrap_or_default());
        let cloud = asks_cloud.then(|| no_credentials(request.uri().path()));
        let answer = self.execute(request).await.map_err(|error| {
            note(cloud.clone().unwrap_or_else(|| Trouble::of_transport(&error)));
            HttpError::new(HttpErrorKind::Unknown, error)
        })?;
        if answer.status().is_success() {
            let to_error = |error: reqwest::Error| {
                note(Trouble::of_transport(&error));
                HttpError::new(HttpErrorKind::Unknown, error.without_url())
            };
            return Ok(answer.map(|body| HttpResponseBody::new(body.map_err(to_error))));
        }
        let (parts, body) = answer.into_parts();
        let body = refusal(body).await;
        // A refusal of the cloud's is none of the store's, which was not even asked.
        note(match cloud.filter(|_| parts.status.is_client_error()) {
            Some(trouble) => trouble,
            None => Trouble::of_answer(parts.status, &parts.headers, &body),
        });
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(body)))
    }
}

impl HttpConnector for Client {
    fn connect(&self, _: &object_store::ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cloud_that_was_asked_decides_what_is_missing() {
        let check = |path: &str, name: &str| {
            let trouble = no_credentials(path);
            assert_eq!(trouble.problem, StorageProblem::Credentials);
            assert!(trouble.to_string().contains(name), "{trouble}");
        };
        check("/latest/api/token", "AWS_ACCESS_KEY_ID");
        check("/computeMetadata/v1/instance/service-accounts/default/token", "GOOGLE_");
        check("/metadata/identity/oauth2/token", "AZURE_ACCOUNT_KEY");
    }
}
