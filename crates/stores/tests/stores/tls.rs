//! Servers that prove who they are, or cannot.

use muster_model::Fault as _;
use muster_repository::storage::FileKind;
use muster_testkit::stores::{self, Identity, Server};

use crate::store;

const LOGIN: &[(&str, &str)] = &[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")];

/// The code of the error that a listing meets; none if there is none.
fn code(url: &str, authorities: Option<&Identity>) -> Option<&'static str> {
    let option =
        authorities.map(|identity| format!("tls.cacert={}", identity.authority().display()));
    let options: Vec<&str> = option.iter().map(String::as_str).collect();
    let error = store(url, &options, LOGIN).list(FileKind::Key).err()?;
    if error.code() == "store-untrusted" {
        assert!(error.help().unwrap().contains("--cacert"), "{error:?}");
    }
    Some(error.code())
}

/// `answer` is what the server says to somebody who trusts it.
fn check(
    start: impl Fn(&Identity) -> Option<Server>,
    url: impl Fn(&Server) -> String,
    answer: Option<&str>,
) {
    let Some((ours, other)) = stores::identity("127.0.0.1").zip(stores::identity("127.0.0.2"))
    else {
        return;
    };
    let Some(server) = start(&ours) else { return };
    assert_eq!(code(&url(&server), None), Some("store-untrusted"));
    assert_eq!(code(&url(&server), Some(&other)), Some("store-untrusted"));
    assert_eq!(code(&url(&server), Some(&ours)), answer);
    let Some(misnamed) = start(&other) else { return };
    assert_eq!(code(&url(&misnamed), Some(&other)), Some("store-untrusted"), "another's name");
}

#[test]
fn s3_is_trusted_by_its_authority_and_name_only() {
    let url = |server: &Server| format!("s3:https://{}/b", server.address());
    check(stores::s3_over_tls, url, Some("store-place-missing"));
}

#[test]
fn rest_is_trusted_by_its_authority_and_name_only() {
    let url = |server: &Server| format!("rest:https://{}/", server.address());
    check(stores::rclone_over_tls, url, None);
}
