//! Stores that speak S3 and leave some of it out, and how many requests deletions take.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use muster_repository::{
    format::pack::BlobKind,
    id::PackId,
    storage::{
        File, FileKind, StorageProblem,
        conformance::{pack, spooled},
    },
};
use muster_testkit::stores::{
    self,
    front::{Front, Seen},
};

use crate::store;

const LOGIN: &[(&str, &str)] = &[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")];

const UNKNOWN: (&str, &str) =
    ("501 Not Implemented", "<Error><Code>NotImplemented</Code><Message>no</Message></Error>");

fn url(front: &Front) -> String {
    format!("s3:http://{}/muster/a", front.address())
}

fn is_bulk(seen: &Seen) -> bool {
    seen.method == "POST" && seen.target.contains("?delete")
}

#[test]
fn a_store_without_conditions_creates_once_all_the_same() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let is_conditional = |seen: &Seen| seen.headers.contains_key("if-none-match");
    let front = Front::start(server.address(), move |seen| is_conditional(seen).then_some(UNKNOWN));
    let storage = store(&url(&front), &[], LOGIN);
    storage.put_new(File::Config, b"one").unwrap();
    let error = storage.put_new(File::Config, b"two").unwrap_err();
    assert_eq!(error.problem(), StorageProblem::AlreadyExists);
    assert_eq!(storage.read(File::Config, 10).unwrap(), b"one");
    assert!(front.seen().iter().any(is_conditional), "it was asked for first");
}

/// One hash names a pack, and is what the store compares the content with.
#[test]
fn a_pack_is_one_request_with_its_name_as_checksum() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let front = Front::start(server.address(), |_| None);
    let storage = store(&url(&front), &[], LOGIN);
    // More than others send in one part.
    let content = Arc::new(vec![7; 12 << 20]);
    let id = PackId::of(&content);
    storage.put_pack(id, BlobKind::Data, &content).unwrap().finish().unwrap();
    storage.put_spooled(BlobKind::Data, &spooled(&content, &content)).unwrap();
    let seen = front.seen();
    let [from_memory, from_a_file] = &seen[..] else { panic!("{seen:?}") };
    for put in [from_memory, from_a_file] {
        assert_eq!(put.method, "PUT");
        assert_eq!(put.headers["x-amz-checksum-sha256"], BASE64.encode(id.as_bytes()));
        assert_eq!(put.headers["x-amz-content-sha256"], id.to_hex());
        assert_eq!(put.headers["content-length"], (12 << 20).to_string());
    }
    assert_eq!(storage.size(File::Pack(id)).unwrap(), 12 << 20);
}

/// Puts a few files, deletes these and others, and gives the requests that the deletion took.
fn deletion(front: &Front, files: u64) -> Vec<Seen> {
    let storage = store(&url(front), &["s3.connections=8"], LOGIN);
    let files: Vec<File> = (0..files).map(pack).collect();
    for file in files.iter().step_by(20) {
        storage.put(*file, b"x").unwrap();
    }
    let before = front.seen().len();
    storage.delete_all(&files).into_iter().collect::<Result<(), _>>().unwrap();
    let requests = front.seen().split_off(before);
    assert_eq!(storage.list(FileKind::Pack).unwrap(), []);
    requests
}

#[test]
fn many_are_deleted_with_few_requests() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let requests = deletion(&Front::start(server.address(), |_| None), 300);
    assert!(requests.len() == 2 && requests.iter().all(is_bulk), "{requests:?}");
}

/// Such a store is asked once for all, and then for each; never for all again.
fn deletes_singly(refusal: (&'static str, &'static str)) {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let front = Front::start(server.address(), move |seen: &Seen| is_bulk(seen).then_some(refusal));
    let requests = deletion(&front, 21);
    assert_eq!(requests.iter().filter(|seen| seen.method == "DELETE").count(), 21);
    assert_eq!(requests.len(), 22, "{requests:?}");
    // A lock's owner deletes one file, and that needs no request for many.
    let storage = store(&url(&front), &[], LOGIN);
    storage.put(pack(1), b"x").unwrap();
    let before = front.seen().len();
    storage.delete(pack(1)).unwrap();
    let requests = front.seen().split_off(before);
    assert!(!requests.iter().any(is_bulk), "{requests:?}");
    assert_eq!(storage.list(FileKind::Pack).unwrap(), []);
}

#[test]
fn a_store_that_deletes_one_by_one_is_asked_so() {
    deletes_singly(UNKNOWN);
}

#[test]
fn a_store_that_says_no_in_a_status_alone_is_understood() {
    deletes_singly(("501 Not Implemented", ""));
    deletes_singly(("405 Method Not Allowed", "<Error><Code>MethodNotAllowed</Code></Error>"));
}

/// Whatever the answer says: what was not asked for is passed over, what is told to be there still
/// is an error, and what the answer does not speak of is deleted by itself.
fn lies_about(server: &stores::Server, answer: &'static str, singly: usize) {
    let lie = ("200 OK", answer);
    let front = Front::start(server.address(), move |seen: &Seen| is_bulk(seen).then_some(lie));
    let storage = store(&url(&front), &[], LOGIN);
    let files: Vec<File> = (1..4).map(pack).collect();
    for file in &files {
        storage.put(*file, b"x").unwrap();
    }
    let before = front.seen().len();
    let results = storage.delete_all(&files);
    let requests = front.seen().split_off(before);
    assert_eq!(requests.iter().filter(|seen| seen.method == "DELETE").count(), singly, "{answer}");
    let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 3 - singly, "{answer}");
    assert!(errors.iter().all(|error| error.problem() == StorageProblem::Denied), "{errors:?}");
    assert_eq!(storage.list(FileKind::Pack).unwrap().len(), 3 - singly, "{answer}");
}

#[test]
fn a_store_that_lies_about_what_it_deleted_breaks_nothing() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    for answer in [
        "<DeleteResult><Error><Key>other</Key><Code>No</Code></Error></DeleteResult>",
        "<DeleteResult></DeleteResult>",
        "<html>welcome</html>",
        "<DeleteResult><Error><Key>",
    ] {
        lies_about(&server, answer, 3);
    }
    let told = format!("<Error><Key>a/{}</Key><Code>AccessDenied</Code></Error>", pack(2));
    lies_about(&server, told.leak(), 2);
}
