//! `muster repo check`

use std::{fs, os::unix::fs::PermissionsExt};

use muster_repository::storage::FileKind;

use crate::sandbox::Sandbox;

#[test]
fn a_sound_repository_is_exit_code_0() {
    let sandbox = Sandbox::new("check");
    sandbox.run(&["backup", "source"]).expect(0);
    sandbox.run(&["check"]).expect(0).shows("read no data back").shows("no damage found");
    sandbox.run(&["check", "--read-data"]).expect(0).shows("read back 2 packs");
    let report = sandbox.run(&["check", "--read-data-subset", "50%", "--json"]).expect(0).json();
    assert_eq!(report["message_type"], "summary");
    assert_eq!(report["num_errors"], 0);
    assert_eq!(sandbox.locks(), 0);
}

#[test]
fn damage_is_exit_code_3_with_the_file_and_what_it_affects() {
    let sandbox = Sandbox::new("check-damage");
    sandbox.run(&["backup", "source"]).expect(0);
    let pack = sandbox.data_pack();
    let content = fs::read(&pack).unwrap();
    fs::write(&pack, &content[..30]).unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap();
    let ran = sandbox.run(&["check"]).expect(3).shows(name).shows("truncated");
    ran.shows("snapshots: ").shows("/source/a.txt").shows("1 snapshot affected");
    let report = sandbox.run(&["check", "--json"]).expect(3).json();
    assert_eq!(report["broken_packs"], serde_json::json!([name]));
    assert_eq!(report["affected_snapshots"].as_array().unwrap().len(), 1);
}

#[test]
fn data_is_read_back_in_turn() {
    let sandbox = Sandbox::new("check-turn");
    for n in 0..3 {
        sandbox.write(&format!("source/{n}"), &format!("number {n}"));
        sandbox.run(&["backup", "source"]).expect(0);
    }
    let check = |arguments: &[&str]| {
        let all = [&["check", "--read-data", "--json"], arguments].concat();
        let counts = sandbox.run(&all).expect(0).json()["counts"].clone();
        let number = |name: &str| counts[name].as_u64().unwrap();
        (number("packs_read"), number("packs_due"))
    };
    // No time at all: still one pack each time, and never the same twice.
    for due in (0..6).rev() {
        assert_eq!(check(&["--older-than", "30d", "--budget", "0s"]), (1, due));
    }
    assert_eq!(check(&["--older-than", "30d"]), (0, 0), "all were read back just now");
    sandbox.write("source/new", "new");
    sandbox.run(&["backup", "source"]).expect(0);
    assert_eq!(check(&["--older-than", "30d"]), (2, 0), "only what is new");
    assert_eq!(check(&["--older-than", "0s"]), (8, 0));
    sandbox.run(&["check", "--older-than", "30d", "--no-cache"]).expect(2).tells("--cache-dir");

    // What was found damaged is due again, whatever was noted before.
    let pack = sandbox.open().storage().list(FileKind::Pack).unwrap().remove(0).file;
    let path = sandbox.path("repo").join(pack.to_string());
    let sound = fs::read(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, vec![7; sound.len()]).unwrap();
    sandbox.run(&["check", "--read-data"]).expect(3);
    fs::write(&path, &sound).unwrap();
    assert_eq!(check(&["--older-than", "30d"]), (1, 0));
}

#[test]
fn a_damaged_lock_does_not_keep_the_check_from_telling() {
    let sandbox = Sandbox::new("check-lock");
    let name = "ab".repeat(32);
    sandbox.write(&format!("repo/locks/{name}"), "garbage");
    sandbox.run(&["snapshots"]).expect(3).tells(&name);
    let ran = sandbox.run(&["check"]).expect(3).shows(&name);
    ran.tells("checking without a lock");
}

#[test]
fn a_missing_pack_is_damage_and_the_rest_comes_back() {
    let sandbox = Sandbox::new("missing-pack");
    sandbox.run(&["backup", "source"]).expect(0);
    let pack = sandbox.data_pack();
    fs::remove_file(&pack).unwrap();
    let name = pack.file_name().unwrap().to_str().unwrap().to_owned();
    sandbox.run(&["check"]).expect(3).shows(&name).shows("missing");
    sandbox.run(&["restore", "latest", "--target", "out"]).expect(3).tells(&name);
    sandbox.run(&["dump", "latest", "/source/a.txt"]).expect(3);
}

#[test]
fn the_sound_snapshots_are_listed_beside_a_damaged_one() {
    let sandbox = Sandbox::new("damaged-snapshot");
    sandbox.run(&["backup", "source"]).expect(0);
    let first = fs::read_dir(sandbox.path("repo/snapshots")).unwrap().next().unwrap().unwrap();
    let first_id = first.file_name().into_string().unwrap();
    sandbox.run(&["backup", "source"]).expect(0);
    let content = fs::read(first.path()).unwrap();
    fs::write(first.path(), &content[1..]).unwrap();
    let ran = sandbox.run(&["snapshots", "--json"]).expect(3).tells(&first_id);
    let listed = ran.json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let sound = listed[0]["id"].as_str().unwrap();
    sandbox.run(&["restore", sound, "--target", "out"]).expect(0);
}
