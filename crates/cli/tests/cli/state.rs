//! On the day on which the state is lost: points are listed and data comes back from plan and
//! repositories alone, and one warning says what is not known for it.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    full_disk::{SmallDisk, with_own_mounts},
    planned::Office,
    sandbox::Ran,
};

/// The ids of the points that a command listed.
fn ids(ran: &Ran) -> Vec<String> {
    let json = ran.json();
    let points = json["points"].as_array().unwrap().iter();
    points.map(|point| format!("{} {}", point["id"], point["data"])).collect()
}

/// Points are listed and data comes back, with one warning that names the state.
#[track_caller]
fn works_without(office: &Office, before: &[String], code: &str, known: bool) {
    let listed = if known { 0 } else { 5 };
    let ran = office.run(&["points", "--json"]).expect(listed);
    assert_eq!(ids(&ran), before, "{code}");
    let trouble = &ran.json()["state_trouble"];
    assert_eq!((&trouble["code"], &trouble["proofs_known"]), (&code.into(), &known.into()));
    let ran = office.run(&["points"]).expect(listed).tells(".muster cannot be ");
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert_eq!(ran.stdout.contains("not known"), !known, "{}", ran.stdout);
    let to = office.path("back");
    let ran = office.run(&["restore", "files", "--to", "back"]).expect(0);
    assert_eq!(ran.stderr.matches("warning: the state ").count(), 1, "{}", ran.stderr);
    assert_eq!(fs::read_to_string(to.join("mail/one.txt")).unwrap(), "mail\n".repeat(500));
    fs::remove_dir_all(to).unwrap();
}

#[test]
fn a_damaged_state_keeps_nobody_from_the_data() {
    let office = Office::protected("state-damaged");
    let before = ids(&office.run(&["points", "--json"]).expect(0));
    assert_eq!(before.len(), 3);
    let state = office.path(".muster");
    let whole = office.path("whole");
    copy(&state, &whole);
    let reset = || {
        remove(&state);
        copy(&whole, &state);
    };

    // Garbage, a beginning that was cut, zeros in the middle.
    let ledger = state.join("ledger.sqlite3");
    let bytes = fs::read(&ledger).unwrap();
    fs::write(&ledger, "garbage".repeat(5000)).unwrap();
    works_without(&office, &before, "ledger-damaged", false);
    reset();
    fs::write(&ledger, &bytes[..bytes.len() / 3]).unwrap();
    works_without(&office, &before, "ledger-damaged", false);
    reset();
    let middle = [&bytes[..4096], &vec![0; bytes.len() - 4096]].concat();
    fs::write(&ledger, middle).unwrap();
    works_without(&office, &before, "ledger-damaged", false);

    // An entry that nobody wrote: the database is sound, and what it says is not.
    reset();
    let database = rusqlite::Connection::open(&ledger).unwrap();
    database
        .execute_batch(
            "DROP TRIGGER entry_no_UPDATE;
             UPDATE entry SET leaf = 'x' WHERE kind = 'backup-ended';",
        )
        .unwrap();
    drop(database);
    works_without(&office, &before, "ledger-damaged", false);

    // Without its key it can be read, and not continued.
    reset();
    fs::remove_file(state.join("ledger.key")).unwrap();
    works_without(&office, &before, "ledger-key", true);

    // No folder at all.
    remove(&state);
    fs::write(&state, "a file").unwrap();
    works_without(&office, &before, "ledger-file", false);
    fs::remove_file(&state).unwrap();

    // And what records something still refuses, with the way.
    fs::create_dir(&state).unwrap();
    fs::write(&ledger, "garbage".repeat(5000)).unwrap();
    let ran = office.run(&["backup"]).expect(3);
    ran.tells("`muster points` and `muster restore` work without the state");
}

#[test]
fn a_state_that_may_not_be_read_keeps_nobody_from_the_data() {
    if rustix::process::geteuid().is_root() {
        // Root may read everything; a folder that is a file stands for it above.
        return;
    }
    let office = Office::protected("state-forbidden");
    let before = ids(&office.run(&["points", "--json"]).expect(0));
    let allow = |mode| {
        fs::set_permissions(office.path(".muster"), fs::Permissions::from_mode(mode)).unwrap();
    };
    allow(0);
    works_without(&office, &before, "ledger-file", false);
    allow(0o700);
}

#[test]
fn a_full_disk_of_the_state_keeps_nobody_from_the_data() {
    with_own_mounts(|| {
        let office = Office::open("state-full");
        let state = office.path(".muster");
        fs::create_dir(&state).unwrap();
        let _disk = SmallDisk::mount(&state, 2);
        office.run(&["backup"]).expect(0);
        let before = ids(&office.run(&["points", "--json"]).expect(0));
        fill(&state.join("filler"));
        works_without(&office, &before, "no-space", true);

        // A backup that cannot be written down is not begun.
        let ran = office.run(&["backup"]).expect(1).tells("no space left").tells("make space");
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        let ran = office.run(&["backup", "--json"]).expect(1);
        assert_eq!(
            (&ran.error()["code"], &ran.error()["class"]),
            (&"no-space".into(), &"transient".into())
        );
        assert_eq!(office.stored("near/snapshots").len(), 2);

        // With space, everything goes on.
        fs::remove_file(state.join("filler")).unwrap();
        office.run(&["backup"]).expect(0);
        assert_eq!(ids(&office.run(&["points", "--json"]).expect(0)).len(), 2 * before.len());
        office.run(&["evidence", "verify"]).expect(0);
    });
}

#[test]
fn a_disk_of_the_state_that_fills_up_in_a_backup_costs_no_point() {
    with_own_mounts(|| {
        let office = Office::open("state-fills");
        let state = office.path(".muster");
        let fill = format!("cat /dev/zero > {}/filler 2>/dev/null; echo a dump", state.display());
        let plan = fs::read_to_string(office.path("muster.yaml")).unwrap();
        let dump = format!("pages: {{command: [sh, -c, \"{fill}\"], file: dump}}");
        office.write("muster.yaml", &plan.replace("pages: {files: ./pages}", &dump));
        fs::create_dir(&state).unwrap();
        let _disk = SmallDisk::mount(&state, 2);
        let ran = office.run(&["backup", "wiki", "--json"]).expect(1);
        assert_eq!(ran.error()["code"], "no-space", "{}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        assert_eq!(ran.json()["jobs"], serde_json::json!([]));
        // The snapshot was taken, and is found where it lies.
        let ran = office.run(&["points", "wiki", "--json"]);
        assert!(matches!(ran.code, Some(0 | 5)), "{}", ran.stderr);
        assert_eq!(
            (ids(&ran).len(), &ran.json()["state_trouble"]["code"]),
            (1, &"no-space".into())
        );
        office.run(&["restore", "wiki/pages", "--to", "back"]).expect(0);
        assert_eq!(fs::read_to_string(office.path("back/dump")).unwrap(), "a dump\n");
        // With space, the next command settles what was cut off, and the ledger is whole.
        fs::remove_file(state.join("filler")).unwrap();
        office.run(&["evidence", "verify"]).expect(0);
        office.run(&["points"]).expect(0).tells("wiki/pages that was cut off is settled");
    });
}

/// Fills the disk that a file is on.
fn fill(path: &Path) {
    let mut filler = fs::File::create(path).unwrap();
    let mut bytes = vec![0; 1 << 16];
    while !bytes.is_empty() {
        if filler.write_all(&bytes).is_err() {
            let half = bytes.len() / 2;
            bytes.truncate(half);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn remove(path: &Path) {
    fs::remove_dir_all(path).unwrap();
}
