//! A repository in a bucket with Object Lock: held, attacked with its own credentials, brought back.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use muster_testkit::{
    stores::{self, Server},
    wait_for,
};

use crate::{sandbox::Sandbox, stores::Place};

fn place(server: &Server, name: &str) -> Place {
    Place::new(format!("s3:http://{}/muster/{name}", server.address()))
        .login(&[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")])
}

/// Asks as the repository's own client would: the store only looks whether a signature is there.
pub(crate) fn ask(server: &Server, line: &str, body: &[u8]) -> String {
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request, \
                  SignedHeaders=host, Signature=0";
    let headers = [signed.to_owned(), "Content-Type: application/octet-stream".to_owned()];
    stores::request(server.address(), &format!("{line} HTTP/1.1"), &headers, body).unwrap()
}

/// The texts of all elements of a name.
fn elements(text: &str, name: &str) -> Vec<String> {
    let start = format!("<{name}>");
    let parts = text.split(start.as_str()).skip(1);
    parts.filter_map(|part| Some(part.split_once("</")?.0.to_owned())).collect()
}

pub(crate) fn keys(server: &Server) -> Vec<String> {
    elements(&ask(server, "GET /muster?list-type=2", b""), "Key")
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A moment after which nothing has happened yet, as the store counts: in seconds.
pub(crate) fn moment() -> String {
    let began = seconds();
    let passed = || (seconds() > began + 1).then_some(());
    wait_for("the next second", Duration::from_secs(30), passed).unwrap();
    jiff::Timestamp::from_second(i64::try_from(began + 1).unwrap()).unwrap().to_string()
}

#[test]
fn what_is_held_outlives_an_attacker_with_the_same_credentials() {
    let Some(server) = stores::s3_with_locks(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("immutable");
    let place = place(&server, "one");
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    place.muster(&sandbox, &["immutable"]).expect(5).shows("not immutable");
    place.muster(&sandbox, &["check", "--immutable"]).expect(5).shows("are not held");
    let check = || place.muster(&sandbox, &["check"]).expect(0);
    assert!(!check().stdout.contains("immutable"), "nobody asked");
    let dry = place.muster(&sandbox, &["--json", "immutable", "--for", "30d", "-n"]).expect(0);
    assert!(dry.json()["would_extend"].as_u64().unwrap() >= 6, "{}", dry.json());
    place.muster(&sandbox, &["immutable"]).expect(5);
    let set = place.muster(&sandbox, &["--json", "immutable", "--for", "30d"]).expect(0).json();
    let held = &set["snapshots"][0];
    assert_eq!((&held["immutable_until"], &held["mode"]), (&set["until"], &"compliance".into()));
    assert_eq!(held["lacking"], serde_json::json!([]));
    let checked = place.muster(&sandbox, &["--json", "check", "--immutable"]).expect(0).json();
    assert_eq!(checked["immutable"][0]["immutable_until"], set["until"]);
    check().shows("1 of 1 snapshot looked at are immutable");
    let sample = place.muster(&sandbox, &["--json", "check"]).expect(0).json();
    let expected = serde_json::json!({"looked_at": 1, "held": 1});
    assert_eq!(sample["immutable_sample"], expected);
    // Neither a policy nor a prune of ours hides what is held.
    place.muster(&sandbox, &["forget", "latest"]).expect(0).shows("removed 0 snapshots");
    place.muster(&sandbox, &["prune", "--instant"]).expect(0);
    place.muster(&sandbox, &["check", "--immutable"]).expect(0);

    let before = moment();
    for key in keys(&server) {
        let versions = ask(&server, &format!("GET /muster?versions&prefix={key}"), b"");
        for version in elements(&versions, "VersionId") {
            let line = format!("DELETE /muster/{key}?versionId={version}");
            let refused = ask(&server, &line, b"");
            assert!(refused.contains("AccessDenied"), "{key} is held: {refused}");
        }
        if key.contains("/data/") || key.ends_with("/config") {
            let put = ask(&server, &format!("PUT /muster/{key}"), b"rubbish");
            assert!(put.starts_with("HTTP/1.1 200"), "{put}");
        }
        if !key.ends_with("/config") {
            ask(&server, &format!("DELETE /muster/{key}"), b"");
        }
    }
    place.muster(&sandbox, &["snapshots"]).expect(3);

    let mut past = place;
    past.options.push(format!("s3.as-of={before}"));
    past.muster(&sandbox, &["snapshots"]).expect(0).shows("source");
    past.muster(&sandbox, &["check", "--read-data", "--immutable"]).expect(0);
    past.muster(&sandbox, &["restore", "latest", "--target", "back"]).expect(0);
    let name = "source/a.txt";
    let back = sandbox.path("back").join(name);
    assert_eq!(fs::read(back).unwrap(), fs::read(sandbox.path(name)).unwrap());
    let refused = past.muster(&sandbox, &["--json", "backup", "source"]).expect(4).error();
    assert_eq!(refused["code"], "store-in-the-past");
    past.muster(&sandbox, &["immutable", "--for", "60d"]).expect(5).shows("not immutable");
    // A new repository takes over what the old one was.
    let mut command = sandbox.bare_command(&["-r", "new", "init"]);
    crate::sandbox::run(command.env("MUSTER_PASSWORD", crate::sandbox::PASSWORD)).expect(0);
    let as_of = past.options.last().unwrap();
    let arguments = ["-r", "new", "copy", "--from-repo", &past.url, "-o", as_of];
    let mut command = sandbox.bare_command(&arguments);
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "hush");
    command.env("MUSTER_FROM_PASSWORD", crate::sandbox::PASSWORD);
    let command = command.env("MUSTER_PASSWORD", crate::sandbox::PASSWORD);
    crate::sandbox::run(command).expect(0).shows("copied");
}

#[test]
fn new_files_are_held_at_once_where_the_store_is_told_so() {
    let Some(server) = stores::s3_with_locks(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("immutable-at-once");
    let mut place = place(&server, "two");
    place.options.push("s3.object-lock=30d".to_owned());
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    let found = place.muster(&sandbox, &["--json", "immutable"]).expect(5).json();
    let lacking = found["snapshots"][0]["lacking"].as_array().unwrap();
    assert_eq!(lacking.len(), 1, "the seal is missing: {lacking:?}");
    assert!(lacking[0]["file"].as_str().unwrap().starts_with("snapshots/"));
}

#[test]
fn a_place_that_cannot_hold_is_refused() {
    let sandbox = Sandbox::new("immutable-folder");
    let ran = sandbox.run(&["--json", "immutable", "--for", "30d"]).expect(4);
    assert_eq!(ran.error()["code"], "store-cannot-hold");
}

/// The largest pack: the one with data.
fn largest_pack(server: &Server) -> String {
    let bytes = |key: &String| {
        let head = ask(server, &format!("HEAD /muster/{key}"), b"").to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        length.unwrap().trim().parse::<u64>().unwrap()
    };
    let packs = keys(server).into_iter().filter(|key| key.contains("/data/"));
    packs.max_by_key(bytes).unwrap()
}

#[test]
fn a_held_snapshot_stays_when_it_is_mended_or_goes_by_a_policy() {
    let Some(server) = stores::s3_with_locks(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("immutable-mended");
    let place = place(&server, "three");
    let noise: String =
        (0..9999_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9))).collect();
    sandbox.write("source/noise", &noise);
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    let lost = largest_pack(&server);
    place.muster(&sandbox, &["immutable", "--for", "30d"]).expect(0);
    let listed = |arguments: &[&str]| {
        let listed = place.muster(&sandbox, &[&["--json", "snapshots"], arguments].concat());
        let listed = listed.expect(0).json();
        let ids = listed.as_array().unwrap().iter();
        ids.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let held = listed(&[]);

    place.muster(&sandbox, &["backup", "source"]).expect(0);
    let forget = ["--json", "forget", "--keep-last", "1"];
    let groups = place.muster(&sandbox, &forget).expect(0).json();
    let told = &groups[0]["held"];
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{groups:#}");
    assert!(told.to_string().contains(&held[0]), "{groups:#}");
    assert_eq!(groups[0]["remove"].as_array().map_or(0, Vec::len), 0, "{groups:#}");
    assert_eq!(listed(&[]).len(), 2);

    // Its data is hidden; the form without it comes beside the held one and not into its place.
    ask(&server, &format!("DELETE /muster/{lost}"), b"");
    place.muster(&sandbox, &["repair", "index"]).expect(0);
    let mended = place.muster(&sandbox, &["repair", "snapshots", "--forget"]).expect(5);
    let stays = format!("{} stays: it is immutable", &held[0][..8]);
    let mended = mended.tells(&stays);
    let left = listed(&[]);
    assert!(left.contains(&held[0]) && left.len() == 3, "{left:?}\n{}", mended.stdout);
}
