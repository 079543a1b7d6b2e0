//! What a failed request means: from status, code and cause to a problem of the store.
//!
//! Nothing of a request comes back in a text, so nothing secret does; of an answer only its code
//! and its message do, made fit for a line.

use std::{error::Error, fmt, io};

use http::{HeaderMap, StatusCode};
use muster_repository::storage::StorageProblem;

use crate::s3::element;

/// How much of a server's message is shown.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) problem: StorageProblem,
    text: String,
}

impl Trouble {
    pub(crate) fn new(problem: StorageProblem, text: impl Into<String>) -> Self {
        Self { problem, text: text.into() }
    }

    /// No answer came, or it broke off.
    pub(crate) fn of_transport(error: &(dyn Error + 'static)) -> Self {
        let mut deepest = error.to_string();
        let mut problem = StorageProblem::Unreachable;
        let mut next = Some(error);
        while let Some(cause) = next {
            deepest = cause.to_string();
            // An io::Error stands for its inner error, and `source` leaves that one out.
            let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if let Some(tls) = tls.or_else(|| cause.downcast_ref()) {
                return Self::new(StorageProblem::Untrusted, tls.to_string());
            }
            let timed_out = cause.downcast_ref().is_some_and(reqwest::Error::is_timeout);
            if timed_out {
                problem = StorageProblem::TimedOut;
            } else if deepest.starts_with("dns error") {
                problem = StorageProblem::HostUnknown;
            }
            next = match inner {
                Some(inner) => Some(inner),
                None => cause.source(),
            };
        }
        Self::new(problem, deepest)
    }

    /// The store answered, and said no.
    pub(crate) fn of_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let code = element(&body, "Code").or_else(|| header("x-ms-error-code")).unwrap_or_default();
        let problem = problem_of(status, code, &body);
        let mut text = status.to_string();
        for part in [Some(code), element(&body, "Message")].into_iter().flatten() {
            if !part.is_empty() {
                text.push_str(": ");
                text.extend(part.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX));
            }
        }
        if let Some(region) = header("x-amz-bucket-region").filter(|_| status.is_redirection()) {
            text = format!("the bucket lies in another region; say -o s3.region={region}");
        }
        Self::new(problem, text)
    }

    /// The store did what was asked, but for one thing.
    pub(crate) fn of_refusal(code: &str, message: &str) -> Self {
        let problem = match code {
            "AccessDenied" | "ObjectLocked" | "InvalidObjectState" => StorageProblem::Denied,
            code => problem_of(StatusCode::INTERNAL_SERVER_ERROR, code, message),
        };
        Self::new(problem, format!("{code}: {message}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Trouble {}

fn problem_of(status: StatusCode, code: &str, body: &str) -> StorageProblem {
    match code {
        "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName" | "PermanentRedirect" => {
            return StorageProblem::NoPlace;
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "AuthenticationFailed"
        | "InvalidAuthenticationInfo"
        | "AuthorizationHeaderMalformed" => return StorageProblem::Credentials,
        "RequestTimeout" => return StorageProblem::TimedOut,
        // Two conditional requests at once: neither was done, or the other one was.
        "ConditionalRequestConflict" | "OperationAborted" => return StorageProblem::Other,
        "QuotaExceeded" => return StorageProblem::Full,
        "InvalidObjectState" => return StorageProblem::Archived,
        "ObjectLockConfigurationNotFoundError" => return StorageProblem::CannotHold,
        "InvalidRequest" if speaks_of_locks(body) => return StorageProblem::CannotHold,
        _ => {}
    }
    match status {
        StatusCode::NOT_FOUND if body.contains("bucket does not exist") => StorageProblem::NoPlace,
        StatusCode::NOT_FOUND => StorageProblem::NotFound,
        StatusCode::UNAUTHORIZED => StorageProblem::Credentials,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => StorageProblem::AlreadyExists,
        StatusCode::RANGE_NOT_SATISFIABLE => StorageProblem::TooShort,
        StatusCode::INSUFFICIENT_STORAGE => StorageProblem::Full,
        StatusCode::REQUEST_TIMEOUT => StorageProblem::TimedOut,
        status if status.is_redirection() => StorageProblem::NoPlace,
        StatusCode::TOO_MANY_REQUESTS => StorageProblem::Other,
        status if status.is_client_error() => StorageProblem::Denied,
        _ => StorageProblem::Other,
    }
}

/// S3 has no code of its own for a bucket without Object Lock.
fn speaks_of_locks(body: &str) -> bool {
    ["ObjectLockConfiguration", "Object Lock Configuration"].iter().any(|it| body.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, problem: StorageProblem, text: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        let trouble = Trouble::of_answer(status, &HeaderMap::new(), body.as_bytes());
        assert_eq!((trouble.problem, trouble.to_string().as_str()), (problem, text));
    }

    #[test]
    fn answers_are_told_apart() {
        check(404, "", StorageProblem::NotFound, "404 Not Found");
        check(
            404,
            "<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>",
            StorageProblem::NoPlace,
            "404 Not Found: NoSuchBucket: gone",
        );
        check(
            403,
            "<Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIA</AWSAccessKeyId>",
            StorageProblem::Credentials,
            "403 Forbidden: InvalidAccessKeyId",
        );
        check(403, "", StorageProblem::Denied, "403 Forbidden");
        check(412, "", StorageProblem::AlreadyExists, "412 Precondition Failed");
        let bare = "<Code>InvalidRequest</Code>\
                    <Message>Bucket is missing Object Lock Configuration</Message>";
        check(
            400,
            bare,
            StorageProblem::CannotHold,
            "400 Bad Request: InvalidRequest: Bucket is missing Object Lock Configuration",
        );
        check(
            403,
            "<Code>InvalidObjectState</Code><StorageClass>GLACIER</StorageClass>",
            StorageProblem::Archived,
            "403 Forbidden: InvalidObjectState",
        );
        check(503, "", StorageProblem::Other, "503 Service Unavailable");
        check(429, "", StorageProblem::Other, "429 Too Many Requests");
        check(401, "", StorageProblem::Credentials, "401 Unauthorized");
    }

    #[test]
    fn a_message_is_one_line_and_short() {
        let body = format!("<Code>X</Code><Message>a\nb{}</Message>", "c".repeat(9999));
        let trouble = Trouble::of_answer(StatusCode::FORBIDDEN, &HeaderMap::new(), body.as_bytes());
        let text = trouble.to_string();
        assert!(text.starts_with("403 Forbidden: X: abccc") && text.len() < 400, "{text}");
    }
}
