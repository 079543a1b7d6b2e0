//! `muster repo restore`

use std::fs;

use muster_testkit::walker::{Tolerance, assert_same, walk};

use crate::sandbox::Sandbox;

#[test]
fn a_restored_tree_is_the_one_that_was_backed_up() {
    let sandbox = Sandbox::new("restore");
    sandbox.run(&["backup", "source"]).expect(0);
    let ran = sandbox.run(&["restore", "latest", "--target", "back"]).expect(0);
    ran.shows("restored 2 files, 2 folders");
    let (source, back) = (sandbox.path("source"), sandbox.path("back/source"));
    assert_same(&walk(&source).unwrap(), &walk(&back).unwrap(), &Tolerance::default());
    assert_eq!(sandbox.locks(), 0);
}

#[test]
fn a_target_that_is_not_empty_is_refused() {
    let sandbox = Sandbox::new("restore-refused");
    sandbox.run(&["backup", "source"]).expect(0);
    sandbox.write("back/extra.txt", "mine");
    let ran = sandbox.run(&["restore", "latest", "--target", "back"]).expect(4);
    ran.tells("it is not empty").tells("--overwrite");
    let ran = sandbox.run(&["restore", "latest", "--target", "back", "--delete"]).expect(4);
    ran.tells("it is not empty");
    assert_eq!(fs::read_dir(sandbox.path("back")).unwrap().count(), 1);
    let error = sandbox.run(&["restore", "latest", "--json", "-t", "back"]).expect(4).error();
    assert_eq!(error["code"], "target-not-empty");
}

#[test]
fn extra_files_stay_and_are_listed_unless_deleted() {
    let sandbox = Sandbox::new("restore-extra");
    sandbox.run(&["backup", "source"]).expect(0);
    sandbox.write("back/source/extra.txt", "mine");
    let restore = ["restore", "latest", "-t", "back", "--overwrite"];
    let ran = sandbox.run(&[&restore[..], &["if-changed"]].concat()).expect(0);
    ran.shows("kept 1 item not in the snapshot:\n  source/extra.txt");
    let dry = [&restore[..], &["always", "--delete", "--dry-run"]].concat();
    sandbox.run(&dry).expect(0).shows("would delete 1 item");
    assert!(sandbox.path("back/source/extra.txt").exists());
    let summary = sandbox.run(&[&restore[..], &["never", "--json"]].concat()).expect(0).last_json();
    assert_eq!(summary["message_type"], "summary");
    assert_eq!(summary["extra"], serde_json::json!(["source/extra.txt"]));
    assert_eq!(summary["files_deleted"], 0);
    let ran = sandbox.run(&[&restore[..], &["always", "--delete"]].concat()).expect(0);
    ran.shows("deleted 1 item");
    let (source, back) = (sandbox.path("source"), sandbox.path("back/source"));
    assert_same(&walk(&source).unwrap(), &walk(&back).unwrap(), &Tolerance::default());
}

#[test]
fn patterns_choose_what_comes_back() {
    let sandbox = Sandbox::new("restore-patterns");
    sandbox.run(&["backup", "source"]).expect(0);
    sandbox.run(&["restore", "latest", "-t", "some", "--include", "b.*"]).expect(0);
    assert!(sandbox.path("some/source/sub/b.txt").exists());
    assert!(!sandbox.path("some/source/a.txt").exists());
    sandbox.run(&["restore", "latest", "-t", "others", "--iexclude", "B.*", "--verify"]).expect(0);
    assert!(!sandbox.path("others/source/sub/b.txt").exists());
    assert!(sandbox.path("others/source/a.txt").exists());
    let both = ["restore", "latest", "-t", "x", "--include", "a", "--exclude", "b"];
    sandbox.run(&both).expect(2).tells("together");
}

#[test]
fn patterns_that_match_nothing_are_no_restore() {
    let sandbox = Sandbox::new("restore-no-match");
    sandbox.run(&["backup", "source"]).expect(0);
    let restore = ["restore", "latest", "-t", "back", "--include", "/gone.txt"];
    let ran = sandbox.run(&[&restore[..], &["--json"]].concat()).expect(1);
    assert_eq!(
        (ran.error()["code"].as_str(), ran.last_json()["files_restored"].as_u64()),
        (Some("not-found"), Some(0))
    );
    sandbox.run(&[&restore[..], &["--dry-run"]].concat()).expect(1).tells("--include");
    // What it removes, the pattern has matched.
    sandbox.write("back/gone.txt", "mine");
    let delete = [&restore[..], &["--overwrite", "always", "--delete"]].concat();
    sandbox.run(&delete).expect(0).tells("nothing in the snapshot").shows("deleted 1 item");
}

#[test]
fn that_a_snapshot_is_partial_is_told_when_it_is_restored() {
    let sandbox = Sandbox::new("restore-partial");
    sandbox.run(&["backup", "source"]).expect(0);
    let whole = sandbox.run(&["restore", "latest", "-t", "whole", "--json"]).expect(0);
    assert_eq!(whole.last_json()["partial"], false);
    sandbox.run(&["tag", "--add", "muster:partial", "latest"]).expect(0);
    sandbox.run(&["restore", "latest", "-t", "back"]).expect(0).tells("the snapshot is partial");
    let json = sandbox.run(&["restore", "latest", "-t", "again", "--json"]).expect(0);
    assert_eq!(json.last_json()["partial"], true);
}

#[test]
fn damage_is_exit_code_3_and_names_the_file() {
    let sandbox = Sandbox::new("restore-damage");
    sandbox.run(&["backup", "source/a.txt"]).expect(0);
    let pack = sandbox.data_pack();
    let mut content = fs::read(&pack).unwrap();
    content[20] ^= 1;
    fs::write(&pack, content).unwrap();
    let ran = sandbox.run(&["restore", "latest", "--target", "back"]).expect(3);
    let ran = ran.tells("source/a.txt").tells("1 item could not be restored");
    ran.tells("another copy of the repository").tells("earlier snapshot").tells("--read-data");
    let ran = sandbox.run(&["restore", "latest", "--json", "--target", "json"]).expect(3);
    assert_eq!(ran.last_json()["not_restored"], serde_json::json!(["source/a.txt"]));
    assert!(ran.stderr.contains(r#""help":"restore what is missing from another copy"#));
    assert!(!sandbox.path("back/source/a.txt").exists());
}
