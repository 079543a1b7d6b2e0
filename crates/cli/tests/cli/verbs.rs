//! Exit codes of the verbs that work with a plan: the worst that somebody must act on, and each
//! thing that failed is named.

use std::fs;

use muster_operations::state::State;
use serde_json::Value;

use crate::planned::{Office, flip};
use crate::sandbox::Ran;

/// The failures on standard error: code and message.
fn told(ran: &Ran) -> Vec<(String, String)> {
    let lines = ran.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let failures = lines.filter_map(|line| line.get("error").cloned());
    failures.map(|failure| (text(&failure["code"]), failure.to_string())).collect()
}

#[test]
fn a_backup_with_a_wrong_password_is_refused() {
    let office = Office::open("code-password");
    office.mistake_password("near");
    office.mistake_password("far");
    let ran = office.run(&["backup"]).expect(4);
    let ran = ran.shows("files/docs: FAILED").shows("wiki/pages: FAILED");
    ran.tells("error: cannot back up files/docs into near").tells("check the password");
    let ran = office.run(&["backup", "--json"]).expect(4);
    let failures = told(&ran);
    let names = ["files/docs into near", "files/mail into near", "wiki/pages into far"];
    assert_eq!(failures.len(), names.len(), "{failures:#?}");
    for ((code, text), name) in failures.iter().zip(names) {
        assert!(code == "wrong-password" && text.contains(name), "{text}");
    }
    let jobs = &ran.json()["jobs"];
    assert_eq!(jobs[0]["failures"][1]["class"], "denied");
    assert_eq!(jobs[0]["backups"][1]["outcome"], "failed");
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("wrong horse"));
}

#[test]
fn a_refusal_beside_what_was_done_is_the_code_and_what_may_pass_is_a_part() {
    let office = Office::open("code-part");
    office.mistake_password("far");
    // The copy and the other service are refused; the snapshots are there.
    let ran = office.run(&["backup"]).expect(4).shows("files/docs: snapshot");
    let ran = ran.shows("files/mail: NOT copied to far").shows("wiki/pages: FAILED");
    ran.tells("cannot copy files/docs, mail to far").tells("cannot back up wiki/pages into far");
    // A folder that is not there may come back by itself.
    office.write("secret-far", crate::sandbox::PASSWORD);
    fs::rename(office.path("pages"), office.path("away")).unwrap();
    office
        .run(&["backup"])
        .expect(5)
        .shows("files/docs: copied to far")
        .shows("wiki/pages: FAILED");
    office.run(&["backup", "wiki"]).expect(1);
}

#[test]
fn a_locked_repository_is_refused() {
    let office = Office::protected("code-locked");
    let (near, _run) = office.locked("near");
    office.run(&["backup", "files"]).expect(4).tells("locked exclusively by process");
    let (far, _other) = office.locked("far");
    let ran = office.run(&["restore", "files/docs", "--to", "back"]).expect(4);
    ran.tells("near: cannot ").tells("far: cannot ").tells("locked exclusively by process");
    far.release().unwrap();
    office
        .run(&["restore", "files/docs", "--to", "back"])
        .expect(0)
        .tells("another copy was taken");
    near.release().unwrap();
}

#[test]
fn damage_comes_before_a_refusal() {
    let office = Office::protected("code-damage");
    office.damage("near/index");
    office.mistake_password("far");
    let ran = office.run(&["backup", "--json"]).expect(3);
    let codes: Vec<String> = told(&ran).into_iter().map(|(code, _)| code).collect();
    assert!(codes.contains(&"wrong-password".to_owned()), "{codes:?}");
    assert!(codes.contains(&"file-damaged".to_owned()), "{codes:?}");
    // Neither copy can be read: both are named, the damage is the code.
    let ran = office.run(&["restore", "files/docs", "--to", "back", "--json"]).expect(3);
    let failures = told(&ran);
    assert!(failures[0].1.contains("near: cannot"), "{failures:?}");
    assert!(failures[0].1.contains("far: cannot"), "{failures:?}");
}

#[test]
fn what_cannot_be_listed_is_the_code_of_every_verb_that_lists() {
    let office = Office::protected("code-lists");
    let check = |code: i32, text: &str| {
        for arguments in [&["points"][..], &["status"]] {
            office.run(arguments).expect(code).tells(text);
        }
        let drill = ["drill", "run", "files", "--dry-run"];
        let recover = ["recover", "files", "--dry-run"];
        let restore = ["restore", "files", "--to", "back"];
        [&drill[..], &recover, &restore].map(|arguments| office.run(arguments))
    };
    fs::rename(office.path("near"), office.path("near-away")).unwrap();
    fs::rename(office.path("far"), office.path("far-away")).unwrap();
    check(5, "repository near did not answer").into_iter().for_each(|ran| drop(ran.expect(4)));
    fs::rename(office.path("near-away"), office.path("near")).unwrap();
    fs::rename(office.path("far-away"), office.path("far")).unwrap();

    office.mistake_password("near");
    let beside = check(4, "repository near did not answer");
    beside.into_iter().for_each(|ran| drop(ran.expect(0)));
    office.mistake_password("far");
    check(4, "repository far did not answer").into_iter().for_each(|ran| drop(ran.expect(4)));

    office.write("secret-near", crate::sandbox::PASSWORD);
    fs::remove_file(office.path("near/config")).unwrap();
    check(3, "repository near did not answer").into_iter().for_each(|ran| drop(ran.expect(3)));
}

#[test]
fn what_can_be_restored_is_although_another_item_cannot() {
    let office = Office::open("code-items");
    office.run(&["backup", "files/docs"]).expect(0);
    let packs = || [office.stored("near/data"), office.stored("far/data")].concat();
    let of_docs = packs();
    office.run(&["backup", "files/mail"]).expect(0);
    // The content of one item is lost in both copies.
    packs().iter().filter(|path| !of_docs.contains(path)).for_each(|path| flip(path));
    let ran = office.run(&["restore", "files", "--to", "back"]).expect(3);
    ran.shows("docs: ").tells("mail");
    let docs = fs::read_to_string(office.path("back/docs/one.txt")).unwrap();
    assert_eq!(docs, "docs\n".repeat(500));
}

#[test]
fn damage_that_a_restore_meets_is_told_with_what_to_do() {
    let office = Office::open("verbs-damage");
    // The largest pack is then one of content, and the folder itself can be read.
    let digits = (0..20_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    office.write("docs/large.txt", &digits.collect::<String>());
    office.run(&["backup", "files/docs"]).expect(0);
    flip(&office.stored("near/data")[0]);
    let ran = office.run(&["restore", "files/docs", "--to", "back"]).expect(3);
    ran.tells("large.txt").tells("`muster verify near --all`").tells("`--point`");
    let ran = office.run(&["restore", "files/docs", "--to", "back-2", "--json"]).expect(3).json();
    assert_eq!(ran["restored"][0]["damaged"], true);
    // It is as the warning said.
    office.run(&["verify", "near", "--all"]).expect(3);
    office.run(&["restore", "files/docs", "--to", "back-3"]).expect(0);
}

#[test]
fn a_partial_point_that_is_accepted_is_told_as_one() {
    let office = Office::protected("verbs-partial");
    let far = ["repo", "-r", "far", "--password-file", "secret-far"];
    let tag = ["tag", "--add", "muster:partial", "--tag", "muster:service=wiki"];
    office.run(&[&far[..], &tag].concat()).expect(0);
    let restore = |to: &str, more: &[&str]| {
        let arguments = ["restore", "wiki/pages", "--to", to];
        office.run(&[&arguments[..], more].concat())
    };
    restore("back", &[]).expect(4).tells("left something out");
    restore("back", &["--accept-partial"]).expect(0).tells("the point of pages is partial");
    let restored = restore("again", &["--accept-partial", "--json"]).expect(0).json();
    assert_eq!(restored["restored"][0]["partial"], true);
    let whole = office.run(&["restore", "files/docs", "--to", "docs-2", "--json"]).expect(0).json();
    assert_eq!(whole["restored"][0]["partial"], false);
}

#[test]
fn several_drills_end_with_the_worst() {
    let office = Office::protected("code-drills");
    // The first is held and has nothing that judges it; of the second no copy would survive.
    let plan = fs::read_to_string(office.path("muster.yaml")).unwrap();
    let more = "  - {service: files, disruption: ransomware, schedule: \"0 4 1 1 *\"}\n";
    office.write("muster.yaml", &(plan + more));
    let ran = office.run(&["drill", "run", "files"]).expect(4);
    ran.shows("INCONCLUSIVE").tells("ransomware");
    office.run(&["drill", "run", "files", "--disruption", "region-loss"]).expect(1);
}

#[test]
fn a_damaged_snapshot_is_told_and_hides_no_other() {
    let office = Office::protected("code-snapshot");
    let before = office.run(&["points", "--json"]).expect(0).json();
    assert_eq!(before["unread"], serde_json::json!([]));
    // Of every snapshot in the one repository; those in the other are whole.
    office.damage("near/snapshots");
    let names: Vec<String> = office
        .stored("near/snapshots")
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let ran = office.run(&["points"]).expect(3);
    for name in &names {
        let ran = office.run(&["points"]).expect(3);
        ran.tells(&format!("warning: snapshot {} in near cannot be read", &name[..8]));
    }
    assert_eq!(ran.stderr.matches("warning:").count(), names.len(), "{}", ran.stderr);
    let ran = office.run(&["points", "--json"]).expect(3);
    let json = ran.json();
    assert_eq!(json["points"].as_array().unwrap().len(), 3);
    let unread = json["unread"].as_array().unwrap();
    assert_eq!(unread.len(), names.len());
    for one in unread {
        let snapshot = one["snapshot"].as_str().unwrap().to_owned();
        assert!(names.contains(&snapshot), "{snapshot}");
        assert_eq!((&one["repository"], &one["class"]), (&"near".into(), &"corrupt".into()));
    }
    // The other copy does; without one, a damaged snapshot is not "no point".
    office
        .run(&["restore", "files/docs", "--to", "back"])
        .expect(0)
        .tells("in near cannot be read");
    fs::rename(office.path("far"), office.path("away")).unwrap();
    let ran = office.run(&["restore", "files/docs", "--to", "back-2", "--json"]).expect(3);
    assert_eq!(ran.error()["code"], "repository-damaged");
    let message = ran.error()["message"].to_string();
    assert!(message.contains("snapshot") && message.contains("far did not answer"), "{message}");
}

#[test]
fn a_failed_hook_is_told_as_an_error_with_its_log() {
    let office = Office::open("verbs-hook");
    office.change_plan(
        "- {data: [docs, mail],",
        "- {before: {run: [\"false\"]}, data: [docs, mail],",
    );
    let ran = office.run(&["backup", "files"]).expect(1);
    let log = office.path(".muster/hooks/files-0.before.log");
    assert!(log.is_file());
    let ran = ran
        .tells("error: cannot finish `before` of files/docs, files/mail")
        .tells("cause: run `false`: exit status: 1\n")
        .tells("help: what it printed is in .muster/hooks/files-0.before.log")
        .shows("files/docs, files/mail: FAILED before `false`: exit status: 1\n");
    assert!(!ran.stdout.contains("files/0"), "{}", ran.stdout);
    let error = office.run(&["backup", "files", "--json"]).expect(1).error();
    assert_eq!((&error["code"], &error["class"]), (&"hook-failed".into(), &"transient".into()));
}

#[test]
fn a_run_that_is_left_out_is_told_as_an_error() {
    let office = Office::protected("verbs-twice");
    let state = State::open(&office.path(".muster")).unwrap();
    let _job = state.lock("backup files/0").unwrap().unwrap();
    let ran = office.run(&["backup", "files"]).expect(4);
    ran.tells("error: cannot back up files/docs, files/mail").tells("still under way");
    let error = office.run(&["backup", "files", "--json"]).expect(4).error();
    assert_eq!(error["code"], "already-running");
}

#[test]
fn what_does_not_exist_is_not_found_whatever_the_verb() {
    let office = Office::protected("verbs-unknown");
    for arguments in [
        &["backup", "nope"][..],
        &["forget", "files/nope"],
        &["verify", "nope"],
        &["points", "nope"],
        &["restore", "nope", "--to", "there"],
        &["restore", "files", "--to", "there", "--point", "nope"],
        &["drill", "run", "nope"],
    ] {
        let arguments = [arguments, &["--json"]].concat();
        let error = office.run(&arguments).expect(1).error();
        assert_eq!(error["class"], "not-found", "{arguments:?}: {error:#}");
    }
}

#[test]
fn no_listing_ends_its_lines_in_blanks() {
    let office = Office::protected("blanks");
    office.run(&["drill", "run", "files"]).expect(1);
    let listings = [
        &["points"][..],
        &["status"],
        &["drill", "list"],
        &["drill", "show", "1"],
        &["drill", "run", "files", "--dry-run"],
        &["evidence", "list"],
        &["plan", "check"],
        &["plan", "show"],
        &["gate"],
        &["report"],
    ];
    for arguments in listings {
        let text = office.run(arguments).stdout;
        assert!(!text.is_empty(), "{arguments:?}");
        let blank = text.lines().find(|line| *line != line.trim_end());
        assert_eq!(blank, None, "{arguments:?}");
    }
}

#[test]
fn a_copy_that_was_skipped_is_told_wherever_the_drill_is() {
    let office = Office::protected("skipped-copy");
    office.damage("near/data");
    let drill = ["drill", "run", "files", "--disruption", "process-loss", "--json"];
    let ran = office.run(&drill).expect(1);
    let shown = office.run(&["drill", "show", "1", "--json"]).expect(0).json();
    for result in [ran.last_json(), shown] {
        let findings = result["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 2, "{result}");
        assert_eq!(findings[0]["code"], "copy-unread");
        assert_eq!(
            (&findings[0]["line"], &findings[0]["path"]),
            (&5.into(), &"repositories.near".into())
        );
    }
    office
        .run(&["drill", "show", "1"])
        .expect(0)
        .shows("found          copy-unread: docs: near: cannot");
    office.run(&["report"]).expect(0).shows("Found on the way").shows("docs: near: cannot");
    office.run(&["report", "--format", "html"]).expect(0).shows("docs: near: cannot");
}
