//! What is told at three in the morning.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
    time::Instant,
};

use muster_model::{Class, Fault as _};
use muster_repository::storage::{FileKind, StorageError, conformance};
use muster_stores::Limits;
use muster_testkit::stores::{
    self,
    rest::{Options, RestServer},
};

use crate::{settings, store};

const KEY: &[(&str, &str)] =
    &[("AWS_ACCESS_KEY_ID", "hush-id"), ("AWS_SECRET_ACCESS_KEY", "hush-key")];

fn error(location: &str) -> StorageError {
    store(location, &[], KEY).list(FileKind::Key).unwrap_err()
}

fn check(location: &str, code: &str, class: Class) {
    let error = error(location);
    assert_eq!((error.code(), error.class()), (code, class), "{location}: {error:?}");
    assert!(error.help().is_some(), "{location}");
    let mut text = format!("{error:?} {error}");
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn nobody_listens() {
    let port = stores::closed_port();
    check(&format!("s3:http://127.0.0.1:{port}/b"), "store-unreachable", Class::Transient);
    check(&format!("rest:http://me:hush@127.0.0.1:{port}/"), "store-unreachable", Class::Transient);
}

#[test]
fn the_host_has_no_address() {
    check("s3:http://no-such-host.invalid/b", "store-host-unknown", Class::Transient);
    check("rest:http://me:hush@no-such-host.invalid/", "store-host-unknown", Class::Transient);
}

#[test]
fn the_bucket_does_not_exist() {
    let Some(server) = stores::s3(&[]) else { return };
    let url = format!("s3:http://{}/no-such-bucket", server.address());
    check(&url, "store-place-missing", Class::NotFound);
}

/// A server that says the same to everybody.
fn saying(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {
                stream.write_all(answer.as_bytes()).ok();
            }
        }
    });
    address
}

#[test]
fn credentials_are_wrong() {
    const BODY: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 125\r\nConnection: close\r\n\r\n\
        <Error><Code>InvalidAccessKeyId</Code><Message>unknown</Message>\
        <AWSAccessKeyId>hush-id</AWSAccessKeyId><X>aaaaaaa</X></Error>";
    let address = saying(BODY);
    check(&format!("s3:http://{address}/b"), "store-credentials", Class::Denied);
}

/// Whether this machine's cloud refuses, or there is none.
#[test]
fn credentials_are_missing() {
    let address = saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let storage = store(&format!("s3:http://{address}/b"), &[], &[]);
    let error = storage.list(FileKind::Key).unwrap_err();
    assert_eq!((error.code(), error.class()), ("store-credentials", Class::Denied), "{error:?}");
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("no credentials") && why.contains("AWS_SECRET_ACCESS_KEY"), "{why}");
}

#[test]
fn the_server_speaks_no_tls_or_cannot_prove_who_it_is() {
    let address = saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    check(&format!("rest:https://me:hush@{address}/"), "store-untrusted", Class::Denied);
}

#[test]
fn an_append_only_store_says_so() {
    let server = RestServer::start(Options { append_only: true, ..Options::default() });
    let storage = store(&format!("rest:{}", server.url()), &[], &[]);
    storage.put(conformance::pack(1), b"x").unwrap();
    let error = storage.delete(conformance::pack(1)).unwrap_err();
    assert_eq!((error.code(), error.class()), ("storage-denied", Class::Denied));
    assert!(error.help().unwrap().contains("refuses to delete on purpose"));
}

/// The limit holds over the wire, both ways, within the tolerance of a busy machine above and
/// five percent below.
#[test]
fn bandwidth_is_limited_both_ways() {
    let server = RestServer::start(Options::default());
    let url = format!("rest:{}", server.url());
    let location = muster_model::Location::parse(&url).unwrap();
    let rate = 400 << 10;
    let content = vec![0; 800 << 10];
    let mut limited = settings(&[], &[]);
    limited.limits = Limits { up: Some(rate), down: None };
    let began = Instant::now();
    muster_stores::open(&location, &limited).unwrap().put(conformance::pack(1), &content).unwrap();
    assert!(began.elapsed().as_secs_f64() > 2.0 * 0.95, "{:?}", began.elapsed());
    limited.limits = Limits { up: None, down: Some(rate) };
    let began = Instant::now();
    let storage = muster_stores::open(&location, &limited).unwrap();
    storage.read(conformance::pack(1), 1 << 20).unwrap();
    assert!(began.elapsed().as_secs_f64() > 2.0 * 0.95, "{:?}", began.elapsed());
}
