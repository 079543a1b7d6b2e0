//! Tags, rewrites, repairs and the upgrade, from the command line.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use muster_repository::storage::FileKind;
use serde_json::json;

use crate::sandbox::Sandbox;

fn flip_a_bit_in(path: &std::path::Path) {
    let mut content = fs::read(path).unwrap();
    content[60] ^= 1;
    fs::write(path, content).unwrap();
}

#[test]
fn tags_are_changed_and_shown() {
    let sandbox = Sandbox::new("tag");
    sandbox.run(&["backup", "source", "--tag", "nightly"]).expect(0);
    let before = sandbox.run(&["snapshots", "--json"]).expect(0).json();
    sandbox.run(&["tag"]).expect(2).tells("--set, --add or --remove");
    sandbox
        .run(&["tag", "--add", "kept", "--dry-run"])
        .expect(0)
        .shows("would change the tags of 1");
    assert_eq!(sandbox.run(&["snapshots", "--json"]).json(), before);
    let ran = sandbox.run(&["tag", "--json", "--add", "kept", "--remove", "nightly"]).expect(0);
    assert_eq!(ran.last_json()["changed_snapshots"], 1);
    let after = &sandbox.run(&["snapshots", "--json"]).json()[0];
    assert_eq!(after["original"], before[0]["id"]);
    assert_eq!(after["tags"], json!(["muster:kind=incremental", "kept"]));
    sandbox.run(&["tag", "--set", "", "latest"]).expect(0);
    let tags = &sandbox.run(&["snapshots", "--json"]).json()[0]["tags"];
    assert_eq!(*tags, json!(["muster:kind=incremental"]));
    let ran = sandbox.run(&["tag", "--set", "x", "latest"]).expect(0);
    ran.shows("changed the tags of 1 snapshot");
    assert_eq!(sandbox.locks(), 0);
}

#[test]
fn a_rewritten_snapshot_lacks_what_was_excluded() {
    let sandbox = Sandbox::new("rewrite");
    sandbox.run(&["backup", "source"]).expect(0);
    sandbox.run(&["rewrite"]).expect(2);
    let ran = sandbox.run(&["rewrite", "--exclude", "b.txt", "--dry-run"]).expect(0);
    ran.shows("would rewrite 1 snapshot, 0 unchanged");
    let ran = sandbox.run(&["rewrite", "--iexclude", "B.TXT", "--json"]).expect(0);
    assert_eq!(ran.last_json()["rewritten"][0]["excluded"], json!(["/source/sub/b.txt"]));
    sandbox.run(&["ls", "latest", "--tag", "rewrite"]).expect(0);
    let listed = sandbox.run(&["ls", "latest", "--tag", "rewrite"]).expect(0).stdout;
    assert!(listed.contains("/source/sub") && !listed.contains("b.txt"), "{listed}");
    let nameless = sandbox.run(&["rewrite", "--new-host", ""]).expect(2);
    nameless.tells("a host without a name is none");
    sandbox.run(&["rewrite", "--new-host", "moved", "--forget"]).expect(0);
    let snapshots = sandbox.run(&["snapshots", "--json"]).json();
    assert_eq!(snapshots.as_array().unwrap().len(), 2);
    assert!(snapshots.as_array().unwrap().iter().all(|snapshot| snapshot["hostname"] == "moved"));
    sandbox.run(&["check", "--read-data"]).expect(0);
}

/// What was proven is the content that was there: the altered form must not take its place.
#[test]
fn a_rewritten_snapshot_is_not_the_proven_one() {
    let sandbox = Sandbox::new("rewrite-proven");
    sandbox.run(&["backup", "source", "--tag", "muster:proven"]).expect(0);
    let proven = sandbox.run(&["snapshots", "--json"]).json()[0]["id"].clone();
    sandbox.run(&["rewrite", "--exclude", "b.txt"]).expect(0);
    sandbox.run(&["forget", "--keep-last", "1"]).expect(0).shows("last proven");
    let left = sandbox.run(&["snapshots", "--json"]).json();
    let ids: Vec<_> = left.as_array().unwrap().iter().map(|snapshot| &snapshot["id"]).collect();
    assert!(ids.contains(&&proven), "{left:#}");
    sandbox.run(&["rewrite", "--exclude", "b.txt", "--forget"]).expect(4).tells("last proven");
}

#[test]
fn a_legal_hold_is_neither_rewritten_nor_repaired_away() {
    let sandbox = Sandbox::new("rewrite-held");
    sandbox.write("source/held.txt", &"held\n".repeat(100));
    sandbox.run(&["backup", "source", "--tag", "muster:hold"]).expect(0);
    sandbox.run(&["backup", "source/sub"]).expect(0);
    let listed = || sandbox.run(&["snapshots", "--json"]).expect(0).json();
    let held = listed()[0]["id"].as_str().unwrap().to_owned();
    let is_there = || listed().as_array().unwrap().iter().any(|snapshot| snapshot["id"] == held);

    sandbox.run(&["rewrite", "--exclude", "b.txt", "--release-hold"]).expect(2);
    let rewrite = ["rewrite", "--exclude", "b.txt", "--forget"];
    let ran = sandbox.run(&[&rewrite[..], &["--dry-run"]].concat()).expect(4);
    ran.tells("legal hold").tells("--release-hold").shows("would rewrite 1 snapshot");
    let ran = sandbox.run(&[&rewrite[..], &["--json"]].concat()).expect(4);
    assert_eq!(ran.error()["code"], "snapshot-protected");
    let done = ran.json();
    assert_eq!(done["protected"], json!([{"snapshot_id": held, "reasons": ["legal hold"]}]));
    assert_eq!(done["rewritten"].as_array().unwrap().len(), 1, "the other one is rewritten");
    assert!(is_there() && listed().as_array().unwrap().len() == 2);

    // All that it holds is lost: it stays as it is, too.
    let storage = sandbox.open().storage().clone();
    for pack in storage.list(FileKind::Pack).unwrap() {
        storage.delete(pack.file).unwrap();
    }
    sandbox.run(&["repair", "index"]).expect(0);
    let ran = sandbox.run(&["repair", "snapshots", "--forget"]).expect(4);
    ran.tells("legal hold").shows("removed 1");
    assert!(is_there());
    sandbox.run(&["repair", "snapshots", "--forget", "--release-hold"]).expect(0);
    assert!(!is_there());
}

#[test]
fn a_damaged_repository_is_mended_step_by_step() {
    let sandbox = Sandbox::new("repair");
    let noise: String =
        (0..9000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    sandbox.write("source/large", &noise);
    sandbox.run(&["backup", "source"]).expect(0);
    let pack = sandbox.data_pack();
    flip_a_bit_in(&pack);
    let report = sandbox.run(&["check", "--read-data", "--json"]).expect(3).json();
    let id = report["broken_packs"][0].as_str().unwrap().to_owned();

    let ran = sandbox.run(&["repair", "packs", &id, "--dry-run"]).expect(0);
    ran.shows("nothing was changed");
    fs::create_dir(sandbox.path("kept")).unwrap();
    sandbox.run(&["repair", "packs", &id, "--keep-in", "kept"]).expect(0).shows("took 1 pack out");
    assert!(!pack.exists() && sandbox.path("kept").join(format!("pack-{id}")).exists());
    sandbox.run(&["repair", "index"]).expect(0).shows("nothing to do");
    let ran = sandbox.run(&["repair", "snapshots", "--dry-run"]).expect(0);
    ran.shows("would repair 1 snapshot");
    let ran = sandbox.run(&["repair", "snapshots", "--json"]).expect(0).json();
    let losses = ran["repaired"][0]["losses"].as_array().unwrap().clone();
    assert_eq!(losses.len(), 1, "{losses:?}");
    assert_eq!(losses[0]["loss"]["what"], "file-parts");
    sandbox.run(&["snapshots", "--tag", "repaired,muster:partial"]).expect(0);
    sandbox.run(&["check", "--read-data"]).expect(3);
    sandbox.run(&["repair", "snapshots", "--forget"]).expect(0).shows("removed 1");
    sandbox.run(&["check", "--read-data"]).expect(0);
    sandbox.run(&["restore", "latest", "--target", "back"]).expect(0);
    assert_eq!(sandbox.locks(), 0);
}

#[test]
fn nothing_is_cut_out_while_packs_are_in_no_index() {
    let sandbox = Sandbox::new("repair-early");
    sandbox.run(&["backup", "source"]).expect(0);
    for entry in fs::read_dir(sandbox.path("repo/index")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let ran = sandbox.run(&["repair", "snapshots", "--forget", "--json"]).expect(4);
    assert_eq!(ran.error()["code"], "index-incomplete");
    sandbox.run(&["repair", "index"]).expect(0).shows("there and in no index");
    sandbox.run(&["repair", "snapshots", "--forget"]).expect(0).shows("1 complete by the index");
    sandbox.run(&["check", "--read-data"]).expect(0);
}

#[test]
fn a_damaged_index_is_told_with_its_repair() {
    let sandbox = Sandbox::new("mend-index");
    sandbox.run(&["backup", "source"]).expect(0);
    flip_a_bit_in(&only_file(&sandbox, "index"));
    let ran = sandbox.run(&["restore", "latest", "--target", "back"]).expect(3);
    let ran = ran.tells("'muster repo repair index'");
    assert!(!ran.stderr.contains("check"), "{}", ran.stderr);
    sandbox.run(&["repair", "index"]).expect(0);
    sandbox.run(&["restore", "latest", "--target", "back"]).expect(0);
}

#[test]
fn a_damaged_snapshot_is_told_with_the_ways_out() {
    let sandbox = Sandbox::new("mend-snapshot");
    sandbox.run(&["backup", "source"]).expect(0);
    let old = only_file(&sandbox, "snapshots");
    sandbox.write("source/new.txt", "new");
    sandbox.run(&["backup", "source"]).expect(0);
    let sound = sandbox.run(&["snapshots", "--json"]).json()[1]["id"].clone();
    flip_a_bit_in(&old);
    let restore = |what: &str, to: &str| sandbox.run(&["restore", what, "--target", to, "--quiet"]);
    let name = format!("snapshots/{}", old.file_name().unwrap().to_str().unwrap());
    let ran = restore("latest", "back").expect(3).tells(&format!("cannot read {name}"));
    ran.tells("name another snapshot by its id").tells("repair snapshots --forget");
    restore(sound.as_str().unwrap(), "back").expect(0);
    sandbox.run(&["repair", "snapshots", "--forget"]).expect(0);
    assert!(!old.exists());
    restore("latest", "back-2").expect(0);
}

/// The one file in a folder of the repository, made writable.
fn only_file(sandbox: &Sandbox, folder: &str) -> PathBuf {
    let mut entries = fs::read_dir(sandbox.path("repo").join(folder)).unwrap();
    let path = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none(), "more than one in {folder}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_repository_of_version_2_has_nothing_to_migrate() {
    let sandbox = Sandbox::new("migrate");
    sandbox.run(&["migrate"]).expect(0).shows("nothing to migrate");
    sandbox.run(&["migrate", "upgrade_repo_v2"]).expect(0).shows("nothing to migrate");
    sandbox.run(&["migrate", "upgrade_repo_v9"]).expect(2);
}

#[test]
fn a_repository_of_version_1_is_upgraded_with_a_copy_of_its_config() {
    let sandbox = Sandbox::without_repository("migrate-v1");
    sandbox.init_version_1();
    sandbox.run(&["backup", "source"]).expect(0);
    sandbox.run(&["migrate"]).expect(0).shows("can be applied: upgrade_repo_v2");
    let old = fs::read(sandbox.path("repo/config")).unwrap();
    sandbox.run(&["migrate", "upgrade_repo_v2", "--dry-run"]).expect(0);
    assert_eq!(fs::read(sandbox.path("repo/config")).unwrap(), old);
    sandbox.run(&["migrate", "upgrade_repo_v2"]).expect(0).shows("has version 2 now");
    let names = fs::read_dir(sandbox.path("")).unwrap().map(|entry| entry.unwrap().path());
    let copy = names
        .into_iter()
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("config-v1-"));
    assert_eq!(fs::read(copy.unwrap()).unwrap(), old);
    sandbox.run(&["check", "--read-data"]).expect(0);
    if let Some(restic) = sandbox.restic() {
        restic.succeed(["check", "--read-data"]).unwrap();
    }
}
