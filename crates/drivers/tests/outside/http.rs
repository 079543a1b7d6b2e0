//! `http` probes against real servers, good and bad.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{Json, Router, http::StatusCode, response::Redirect, routing::get};
use muster_drivers::probe::ProbeSecrets;
use muster_model::{Light, ProbeCheck};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::common::{SOON, ask, ask_with, expect};

async fn server() -> SocketAddr {
    let health = || async { Json(json!({"ok": true, "n": 3.0, "list": [1, 2], "deep": {"a": 1}})) };
    let app = Router::new()
        .route("/health", get(health))
        .route("/moved", get(|| async { Redirect::temporary("/health") }))
        .route("/round", get(|| async { Redirect::temporary("/round") }))
        .route("/broken", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "ok") }))
        .route("/huge", get(|| async { format!("first{}last", "x".repeat(3 << 20)) }))
        .route("/echo", get(|| async { "{\"token\": \"hunter2\"}" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn http(url: String) -> ProbeCheck {
    ProbeCheck::Http { url, statuses: vec![200], body: None, json: Vec::new(), redirects: false }
}

fn with_body(url: String, text: &str) -> ProbeCheck {
    let body = Some(text.to_owned());
    ProbeCheck::Http { url, statuses: vec![200], body, json: Vec::new(), redirects: false }
}

fn with_json(url: String, path: &str, value: Value) -> ProbeCheck {
    let json = vec![(path.to_owned(), value)];
    ProbeCheck::Http { url, statuses: vec![200], body: None, json, redirects: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_compared() {
    let at = server().await;
    expect(http(format!("http://{at}/health")), Light::Green, "status 200").await;
    expect(http(format!("http://{at}/none")), Light::Red, "status 404, expected 200").await;
    expect(http(format!("http://{at}/broken")), Light::Red, "status 503").await;
    let accepted = ProbeCheck::Http {
        url: format!("http://{at}/broken"),
        statuses: vec![200, 503],
        body: Some("ok".to_owned()),
        json: Vec::new(),
        redirects: false,
    };
    expect(accepted, Light::Green, "status 503").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_red_unless_allowed() {
    let at = server().await;
    let url = format!("http://{at}/moved");
    expect(http(url.clone()), Light::Red, "status 307, expected 200").await;
    let following = |url| ProbeCheck::Http {
        url,
        statuses: vec![200],
        body: None,
        json: Vec::new(),
        redirects: true,
    };
    expect(following(url), Light::Green, "status 200").await;
    expect(following(format!("http://{at}/round")), Light::Red, "redirect").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_searched() {
    let at = server().await;
    let huge = format!("http://{at}/huge");
    expect(with_body(huge.clone(), "first"), Light::Green, "").await;
    // Beyond the limit nothing is read.
    expect(with_body(huge.clone(), "last"), Light::Red, "first MiB").await;
    expect(with_json(huge, "$.ok", json!(true)), Light::Red, "larger than 1 MiB").await;
    let health = format!("http://{at}/health");
    expect(with_body(health, "gone"), Light::Red, "'gone' is not in the body").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_paths_select_exactly_one_value() {
    let at = server().await;
    let health = |path, value| with_json(format!("http://{at}/health"), path, value);
    expect(health("$.ok", json!(true)), Light::Green, "").await;
    expect(health("$.n", json!(3)), Light::Green, "").await;
    expect(health("$.deep", json!({"a": 1.0})), Light::Green, "").await;
    expect(health("$.list[-1]", json!(2)), Light::Green, "").await;
    expect(health("$.ok", json!("true")), Light::Red, "true, expected \"true\"").await;
    expect(health("$.n", json!(4)), Light::Red, "3.0, expected 4").await;
    expect(health("$.none", json!(null)), Light::Red, "nothing there").await;
    expect(health("$.list[*]", json!(1)), Light::Red, "2 places").await;
    expect(health("$[", json!(1)), Light::Red, "no JSON path").await;
    let text = with_json(format!("http://{at}/moved"), "$", json!(1));
    expect(text, Light::Red, "status 307").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_red() {
    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    expect(http(format!("http://{at}/")), Light::Red, "refused").await;
    expect(http("no address".to_owned()), Light::Red, "").await;
}

/// Answers every connection by `answer`, on threads: a server that is written to misbehave.
fn rude_server(answer: fn(&mut std::net::TcpStream)) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || answer(&mut stream.unwrap()));
        }
    });
    (address, connections)
}

fn read_request(stream: &mut std::net::TcpStream) {
    let mut request = [0; 4096];
    assert!(stream.read(&mut request).unwrap() > 0);
}

/// Until the other side gives up.
fn hang(stream: &mut std::net::TcpStream) {
    stream.read_to_end(&mut Vec::new()).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_hang_are_red_in_time() {
    let limit = Duration::from_millis(300);
    let (silent, _) = rude_server(hang);
    let (half, _) = rude_server(|stream| {
        read_request(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").unwrap();
        hang(stream);
    });
    for at in [silent, half] {
        for scheme in ["http", "https"] {
            let sample = ask(http(format!("{scheme}://{at}/")), limit).await;
            assert_eq!(sample.light, Light::Red, "{}", sample.detail);
            assert!(sample.took < limit * 10, "{:?}", sample.took);
        }
        let sample = ask(http(format!("http://{at}/")), limit).await;
        assert_eq!(sample.detail, "no complete answer within 300ms");
        assert!(sample.took >= limit);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_has_a_connection_of_its_own() {
    let (at, connections) = rude_server(|stream| {
        read_request(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        hang(stream);
    });
    let prober = muster_drivers::probe::Prober::new().unwrap();
    let probe = crate::common::probe(http(format!("http://{at}/")), SOON);
    for expected in 1..=3 {
        let sample = prober.ask(&probe, &ProbeSecrets::default()).await;
        assert_eq!(sample.light, Light::Green, "{}", sample.detail);
        assert_eq!(connections.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn details_hold_no_secret() {
    let at = server().await;
    let secrets =
        ProbeSecrets { hidden: vec![Zeroizing::new("hunter2".to_owned())], ..Default::default() };
    let check = with_json(format!("http://ana:s3cr3t@{at}/echo"), "$.token", json!("s3cr3t"));
    let sample = ask_with(check, SOON, &secrets).await;
    assert_eq!(sample.light, Light::Red);
    assert_eq!(sample.detail, "$.token: \"***\", expected \"***\"");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sample = ask(http(format!("http://ana:s3cr3t@{nobody}/")), SOON).await;
    assert!(!sample.detail.contains("s3cr3t"), "{}", sample.detail);
}
