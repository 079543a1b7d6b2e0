//! The life of a plan's repositories: what is kept, what is read back, and what damage does.

use std::{
    fs,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use muster_ledger::Filter;
use muster_operations::state::State;
use muster_repository::{
    environment::Environment,
    lock::{Lock, LockKind},
    repository::Repository,
    run::Run,
    storage::LocalStorage,
};
use muster_testkit::wait_for;
use serde_json::Value;

use crate::{
    interrupt::noise,
    planned::{Office, flip},
    sandbox::{PASSWORD, PATIENCE},
};

const LINE: &str = "every: 1h, to: near, copy: [far]}";
const KEEP_ONE: &str = "every: 1h, to: near, copy: [far], keep: {last: 1}}";

/// An office whose first service keeps one point, with three of each of its data items.
fn with_three_points(name: &str) -> Office {
    let office = Office::open(name);
    office.change_plan(LINE, KEEP_ONE);
    for n in 0..3 {
        office.write("docs/one.txt", &format!("docs {n}\n").repeat(500));
        office.run(&["backup", "--no-keep"]).expect(0);
    }
    office
}

/// How many points a data item has in a repository.
fn points(office: &Office, data: &str, repository: &str) -> usize {
    let listed = office.run(&["points", "--json"]).json();
    let is_there = |point: &&Value| {
        let copies = point["copies"].as_array().unwrap();
        point["data"] == data && copies.iter().any(|copy| copy["repository"] == repository)
    };
    listed["points"].as_array().unwrap().iter().filter(is_there).count()
}

/// The bodies of the ledger's entries of a kind.
fn entries(office: &Office, kind: &str) -> Vec<Value> {
    let state = State::open_read_only(&office.path(".muster")).unwrap().unwrap();
    let filter = Filter { kinds: Some(&[kind]), ..Filter::default() };
    let entries = state.ledger.entries(&filter).unwrap();
    entries.into_iter().map(|entry| entry.body.clone()).collect()
}

#[test]
fn forget_shows_what_goes_and_removes_exactly_that() {
    let office = with_three_points("life-forget");
    let shown = office.run(&["forget", "--dry-run", "--json"]).expect(0).json();
    let near = &shown["repositories"][0];
    assert_eq!((&near["repository"], &near["applied"]), (&"near".into(), &Value::Null));
    let items = near["proposed"]["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "what has no `keep` is not looked at: {items:#?}");
    let ran = office.run(&["forget", "--dry-run"]).expect(0);
    ran.shows("files/docs in near: 1 stays, 2 go (last 1)").shows("newest good one");
    assert_eq!(points(&office, "docs", "near"), 3);
    assert!(entries(&office, "keep-proposed").is_empty());

    let done = office.run(&["forget", "files/docs", "--prune", "--json"]).expect(0).json();
    let proposed = &done["repositories"][1]["proposed"]["items"];
    let gone: Vec<&Value> =
        proposed[0]["remove"].as_array().unwrap().iter().map(|point| &point["snapshot"]).collect();
    let removed = done["repositories"][1]["applied"]["removed"].as_array().unwrap();
    assert_eq!(removed.iter().collect::<Vec<_>>(), gone);
    assert!(done["repositories"][1]["pruned"]["waiting_bytes"].as_u64().unwrap() > 0);
    for repository in ["near", "far"] {
        assert_eq!(points(&office, "docs", repository), 1);
        assert_eq!(points(&office, "mail", repository), 3, "another item was not named");
    }
    assert_eq!(points(&office, "pages", "far"), 3, "it has no `keep`");
    // Proposal and result, in this order, are evidence.
    let (proposals, results) =
        (entries(&office, "keep-proposed"), entries(&office, "keep-applied"));
    assert_eq!((proposals.len(), results.len()), (2, 2));
    assert_eq!(proposals[0]["items"][0]["keep"][0]["reasons"][0], "last snapshot");
    assert_eq!(entries(&office, "pruned").len(), 2);
    office.run(&["evidence", "verify"]).expect(0);
    office.run(&["restore", "files/docs", "--to", "back"]).expect(0);
    let text = fs::read_to_string(office.path("back/one.txt"))
        .or_else(|_| fs::read_to_string(office.path("back/docs/one.txt")));
    assert_eq!(text.unwrap(), "docs 2\n".repeat(500));
    // Nothing is left to do, and nothing is written down about it.
    office.run(&["forget", "files/docs"]).expect(0).shows("1 stays, 0 go");
    assert_eq!(entries(&office, "keep-proposed").len(), 2);
}

/// Leaves the lock of a backup in a repository whose process is gone.
fn leave_lock(office: &Office, repository: &str) {
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let killed = Environment { pid: gone.id(), ..Environment::detect() };
    let storage = Arc::new(LocalStorage::new(office.path(repository)));
    let opened = Repository::open(storage, PASSWORD.as_bytes(), None).unwrap();
    let (run, shared) = (Run::new(), LockKind::Shared);
    let lock = Lock::acquire(&opened, shared, Duration::ZERO, &killed, &run).unwrap();
    // Never released, as when it is killed.
    std::mem::forget(lock);
}

#[test]
fn a_killed_backup_does_not_end_retention() {
    let office = with_three_points("life-killed");
    ["near", "far"].iter().for_each(|repository| leave_lock(&office, repository));
    let ran = office.run(&["backup", "files"]).expect(0);
    ran.shows("near: removed 1 lock of processes that are gone")
        .shows("near: removed 6 snapshots by `keep`");
    assert_eq!((points(&office, "docs", "near"), points(&office, "docs", "far")), (1, 1));
    let unlocked = entries(&office, "keep-applied");
    assert!(unlocked.iter().all(|applied| applied["unlocked"] == 1), "{unlocked:#?}");
    // A living process is left in peace, and named.
    office.write("docs/one.txt", "another");
    let (lock, _run) = office.held("near", LockKind::Shared);
    let ran = office.run(&["backup", "files"]).expect(0);
    ran.tells("apply `keep` in near later: it is locked by process");
    assert_eq!(points(&office, "docs", "near"), 2);
    lock.release().unwrap();
}

#[test]
fn a_backup_applies_keep_everywhere_and_never_waits_for_it() {
    let office = with_three_points("life-backup");
    let (lock, _run) = office.held("far", LockKind::Shared);
    // Somebody works in the one repository: it is tidied up later, and nothing failed.
    let ran = office.run(&["backup", "files"]).expect(0);
    ran.shows("near: removed 6 snapshots by `keep`").tells("apply `keep` in far later");
    assert_eq!((points(&office, "docs", "near"), points(&office, "docs", "far")), (1, 4));
    lock.release().unwrap();
    let done = office.run(&["backup", "files", "--json"]).expect(0).json();
    assert_eq!(done["kept"][1]["applied"]["removed"].as_array().unwrap().len(), 8);
    assert!(!done["kept"][1]["pruned"].is_null(), "{done:#}");
    assert_eq!(points(&office, "docs", "far"), 1);
    // Space is freed once a day at most.
    let done = office.run(&["backup", "files", "--json"]).expect(0).json();
    assert_eq!(done["kept"][1]["pruned"], Value::Null);
    assert_eq!(entries(&office, "pruned").len(), 2);
}

#[test]
fn nothing_goes_where_it_is_not_known_what_is_good() {
    let office = with_three_points("life-unknown");
    office.mistake_password("near");
    let ran = office.run(&["forget"]).expect(4).tells("apply `keep` in near");
    drop(ran.shows("far: removed"));
    office.write("secret-near", PASSWORD);
    assert_eq!((points(&office, "docs", "near"), points(&office, "docs", "far")), (3, 1));
    office.run(&["forget", "wiki"]).expect(2).tells("no line of `protect` for it has a `keep`");
}

#[test]
fn the_bare_repository_refuses_to_remove_the_points_of_a_plan() {
    let office = with_three_points("life-bare");
    let repo = |arguments: &[&str]| {
        let named = ["repo", "-r", "near", "--password-file", "secret-near"];
        office.run(&[&named[..], arguments].concat())
    };
    let ran = repo(&["forget", "--keep-last", "1", "--group-by", ""]).expect(0);
    ran.shows("point of a plan: `muster forget`");
    assert_eq!(points(&office, "docs", "near"), 3);
    repo(&["forget", "latest"]).expect(4).tells("`muster forget`");
    repo(&["forget", "--keep-last", "1", "--group-by", "", "--ignore-plan"]).expect(0);
    assert_eq!(points(&office, "docs", "near") + points(&office, "mail", "near"), 1);
}

/// What was cut out of a copy must not be proven by a drill that does not find it missing.
#[test]
fn an_altered_copy_is_no_point_of_the_plan() {
    let office = Office::open("life-altered");
    office.write("docs/two.txt", "gone soon\n");
    office.run(&["backup"]).expect(0);
    let repo = |name: &str, arguments: &[&str], code: i32| {
        let secret = format!("secret-{name}");
        let named = ["repo", "-r", name, "--password-file", &secret];
        office.run(&[&named[..], arguments].concat()).expect(code)
    };
    let copies = || {
        let listed = office.run(&["points", "files", "--json"]).expect(0).json();
        let points = listed["points"].as_array().unwrap().clone();
        points.into_iter().map(|point| (point["data"].clone(), point["copies"].clone())).collect()
    };
    let known: Vec<(Value, Value)> = copies();
    repo("near", &["rewrite", "--exclude", "two.txt"], 0).shows("rewrote 1 snapshot");
    let listed = repo("near", &["snapshots", "--json"], 0).json();
    assert_eq!(listed.as_array().unwrap().len(), 3, "the altered form is there");
    assert_eq!(copies(), known);
    repo("near", &["rewrite", "--exclude", "two.txt", "--forget"], 4).tells("point of a plan");
    assert_eq!(copies(), known);
    // Where somebody insists there is no point left, and nothing to prove.
    repo("near", &["rewrite", "--exclude", "two.txt", "--forget", "--ignore-plan"], 0);
    repo("far", &["rewrite", "--exclude", "two.txt", "--forget", "--ignore-plan"], 0);
    assert_eq!((points(&office, "docs", "near"), points(&office, "docs", "far")), (0, 0));
    assert_eq!(points(&office, "mail", "near"), 1);
    office.run(&["drill", "run", "files"]).expect(4).tells("docs");
}

#[test]
fn damage_that_reading_back_finds_makes_a_copy_no_good_one_until_it_is_mended() {
    let office = Office::open("life-verify");
    office.change_plan(
        "near: {url: ./near, region: west, password: file:./secret-near}",
        "near: {url: ./near, region: west, password: file:./secret-near, verify: {within: 30d}}",
    );
    office.run(&["backup"]).expect(0);
    let read = office.run(&["verify", "--json"]).expect(0).json();
    let near = &read["repositories"][0];
    assert!(near["packs_read"].as_u64() > Some(0), "{near:#}");
    assert_eq!((&near["packs"], &near["packs_never_read"]), (&near["packs_read"], &0.into()));
    // Nothing is due again so soon; the record lies beside the plan.
    office.run(&["verify"]).expect(0).shows("read back 0 of").shows("no damage found");
    fs::remove_dir_all(office.path(".muster/verified")).unwrap();
    let again = office.run(&["verify", "--json"]).expect(0).json();
    assert_eq!(again["repositories"][0]["packs_read"], near["packs_read"]);

    let packs = office.stored("near/data");
    packs.iter().for_each(|pack| flip(pack));
    // What was read lately is not looked at, unless everything is.
    office.run(&["verify"]).expect(3);
    let ran = office.run(&["verify", "--all", "--json"]).expect(3);
    let points = ran.json()["repositories"][0]["points"].as_array().unwrap().len();
    assert_eq!(points, 2, "{}", ran.stdout);
    office.run(&["points"]).expect(0).shows("near (DAMAGED), far");
    office.run(&["status"]).expect(3).tells("near is damaged: 2 snapshots lose something");
    let report = office.run(&["report", "--json"]);
    let findings = format!("{}{}", report.stdout, report.stderr);
    assert!(findings.contains("copy-damaged"), "{findings}");
    // The sound copy is taken straight away.
    let ran = office.run(&["restore", "files/docs", "--to", "back"]).expect(0);
    assert!(!ran.stderr.contains("another copy was taken"), "{}", ran.stderr);

    packs.iter().for_each(|pack| flip(pack));
    let ran = office.run(&["verify", "near"]).expect(0);
    ran.shows("no damage found");
    office.run(&["status"]).expect(0);
    assert!(!office.run(&["points"]).expect(0).stdout.contains("DAMAGED"));
    office.run(&["verify", "elsewhere"]).expect(1).tells("the plan has: near, far");
}

#[test]
fn what_was_not_read_back_in_time_is_told_with_the_points() {
    let office = Office::open("life-overdue");
    office.change_plan("file:./secret-near}", "file:./secret-near, verify: {within: 30d}}");
    office.run(&["backup"]).expect(0);
    let overdue = || {
        let listed = office.run(&["points", "--json"]).expect(0).json();
        let verification = listed["verification"].as_array().unwrap().clone();
        assert_eq!((verification.len(), &verification[0]["repository"]), (1, &"near".into()));
        verification[0]["overdue"].as_bool().unwrap()
    };
    assert!(!overdue());
    assert!(!office.run(&["points"]).expect(0).stdout.contains("not read back"));
    office.change_plan("within: 30d", "within: 1s");
    wait_for("the second to pass", PATIENCE, || overdue().then_some(())).unwrap();
    let ran = office.run(&["points"]).expect(0).shows("near (not read back in time), far");
    ran.tells("near was not read back whole within 1 s: `muster verify near`");
}

/// A limit keeps back; how late a busy machine is changes nothing in that.
#[test]
fn limits_of_a_repository_hold_for_what_is_written_and_for_what_is_read() {
    let office = Office::open("life-limits");
    let limits = "file:./secret-near, limits: {upload: 1MiB/s, download: 1MiB/s}}";
    office.change_plan("file:./secret-near}", limits);
    fs::write(office.path("docs/noise"), noise(9, 3 << 20)).unwrap();
    let took = |arguments: &[&str]| {
        let began = Instant::now();
        office.run(arguments).expect(0);
        began.elapsed()
    };
    // All but a burst of 30 ms waits for its turn.
    let least = Duration::from_millis(2900);
    let written = took(&["backup", "files/docs"]);
    assert!(written >= least, "{written:?}");
    let read = took(&["restore", "files/docs", "--to", "back"]);
    assert!(read >= least, "{read:?}");
}

#[test]
fn the_loop_keeps_house_between_backups() {
    let office = with_three_points("life-loop");
    office.change_plan(
        "every: 1h, to: near, copy: [far], keep",
        "every: 2s, to: near, copy: [far], keep",
    );
    office.change_plan("file:./secret-near}", "file:./secret-near, verify: {within: 30d}}");
    let mut command = office.command(&["backup", "files", "--loop"]);
    let mut looping = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let done = wait_for("keep and verify in the loop", Duration::from_secs(60), || {
        let done = entries(&office, "keep-applied").len() >= 2
            && entries(&office, "verify-ended").len() == 1;
        done.then_some(())
    });
    let pid = rustix::process::Pid::from_child(&looping);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(looping.wait().unwrap().code(), Some(130));
    done.unwrap();
    let read = &entries(&office, "verify-ended")[0];
    assert!(read["packs_read"].as_u64() > Some(0) && read["damages_total"] == 0, "{read:#}");
    office.run(&["verify"]).expect(0);
}

/// What goes wrong in the loop is on standard error, with its code, also where results are JSON.
#[test]
fn the_loop_tells_failures_on_standard_error() {
    let office = with_three_points("life-loop-fails");
    office.change_plan(
        "every: 1h, to: near, copy: [far], keep",
        "every: 2s, to: near, copy: [far], keep",
    );
    // Backups go well, and nothing may be removed where something cannot be read.
    fs::write(office.path("near/snapshots").join("0".repeat(64)), "no snapshot").unwrap();
    let told = office.path("told");
    let mut command = office.command(&["backup", "files", "--loop", "--json"]);
    command.stdout(Stdio::null()).stderr(fs::File::create(&told).unwrap());
    let mut looping = command.spawn().unwrap();
    let done = wait_for("the failure", Duration::from_secs(60), || {
        let text = fs::read_to_string(&told).unwrap();
        let mut errors = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        errors.find(|line| line["error"]["code"] == "file-damaged")
    });
    let pid = rustix::process::Pid::from_child(&looping);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(looping.wait().unwrap().code(), Some(130));
    let error = done.unwrap()["error"].clone();
    assert_eq!(error["message"], "cannot apply `keep` in near");
    assert_eq!(error["class"], "corrupt");
    // It stands still until somebody mends it, and is told where one looks.
    let status = office.run(&["status", "--json"]).expect(3).json();
    let stands = &status["standstill"][0];
    assert_eq!((&stands["what"], &stands["repository"]), (&"keep".into(), &"near".into()));
    assert_eq!(
        (&stands["code"], &stands["services"][0]),
        (&"file-damaged".into(), &"files".into())
    );
    let ran = office.run(&["status"]).expect(3).tells("`keep` is not applied in near (files");
    ran.tells("then `muster forget`");
}

#[test]
fn a_recovery_needs_the_plan_the_repository_and_the_password_alone() {
    let office = Office::protected("life-recover");
    // Another machine: nothing of the state, nothing of the first repository.
    fs::remove_dir_all(office.path(".muster")).unwrap();
    fs::rename(office.path("near"), office.path("gone")).unwrap();
    fs::rename(office.path("docs"), office.path("docs-gone")).unwrap();
    let ran =
        office.run(&["recover", "files", "--yes", "--to", "site", "--disruption", "region-loss"]);
    // Nothing in this plan judges it, so it is done in part; the data is there.
    ran.expect(5).tells("from far");
    let site = office.stored("site");
    let docs = site.iter().find(|path| path.ends_with("docs/one.txt"));
    assert_eq!(fs::read_to_string(docs.unwrap()).unwrap(), "docs\n".repeat(500));
    assert_eq!(entries(&office, "recovery-ended").len(), 1);
}
