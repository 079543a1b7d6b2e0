//! Backups: what was not taken is never told as taken, and what was taken comes back.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use jiff::{SignedDuration, Timestamp};
use muster_model::{BackupKind, Class, Disruption, Fault as _, RecoveryPoint, Verdict};
use muster_operations::{
    error::OperationError,
    looping, points,
    protect::Selection,
    records::{BackupOutcome, BackupStarted, ProcessRecord, Record, RunsMissed},
    restore::{RestoreRequest, RestoredItem, restore},
    workspace::Workspace,
};
use muster_repository::run::Run;
use muster_sources::RestoreSettings;
use muster_testkit::{wait_for, walker};

use crate::{
    child::{start_victim, was_killed},
    common::{PATIENCE, Shop, records},
};

/// A shop whose second item is what a command prints, once `go` is there.
fn slow_shop(name: &str) -> Shop {
    let shop = Shop::with(
        name,
        &[
            ("uploads: {files: ./uploads}", "slow: {command: [sh, -c, \"SCRIPT\"], file: out}"),
            ("- {data: [db, uploads],", "- {data: [slow],"),
            ("{restore: [db, uploads]}", "{restore: [db]}"),
            (", checksums: [uploads]", ""),
        ],
    );
    let here = shop.scratch.path().display();
    let script = format!(
        "touch {here}/begun; until [ -e {here}/go ] || [ ! -d {here} ]; do sleep 0.05; done; seq 100"
    );
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    fs::write(shop.path("muster.yaml"), text.replace("SCRIPT", &script)).unwrap();
    shop
}

fn wait_until_begun(shop: &Shop) {
    let begun = || shop.path("begun").exists().then_some(());
    wait_for("the backup to be at work", PATIENCE, begun).unwrap();
}

#[test]
fn a_job_that_runs_elsewhere_is_skipped_and_recorded() {
    let shop = slow_shop("twice");
    let other = start_victim(&shop, "backup", u64::MAX);
    wait_until_begun(&shop);
    let workspace = shop.workspace();
    assert!(workspace.swept.is_empty(), "{:?}", workspace.swept);
    let reports = shop.back_up(&workspace);
    assert!(reports.iter().all(|report| report.skipped && !report.is_complete()));
    fs::write(shop.path("go"), "").unwrap();
    assert!(!was_killed(other));
    let recorded = records(&workspace, &["run-skipped", "backup-ended"]);
    let [Record::RunSkipped(skipped), Record::BackupEnded(ended)] = &recorded[..] else {
        panic!("{recorded:#?}")
    };
    assert_eq!((skipped.job.as_str(), skipped.service.as_str()), ("orders/0", "orders"));
    assert_eq!(ended.outcome, BackupOutcome::Completed);
    assert_eq!(listed(&workspace).len(), 1);
}

#[test]
fn a_backup_that_is_killed_is_settled_by_the_next_command() {
    let shop = slow_shop("killed");
    let mut victim = start_victim(&shop, "backup", u64::MAX);
    wait_until_begun(&shop);
    victim.kill().unwrap();
    assert!(was_killed(victim));
    // What it had started ends.
    fs::write(shop.path("go"), "").unwrap();
    let workspace = shop.workspace();
    assert!(workspace.swept[0].contains("orders/slow"), "{:?}", workspace.swept);
    let ended = records(&workspace, &["backup-ended"]);
    let [Record::BackupEnded(lost)] = &ended[..] else { panic!("{ended:#?}") };
    assert_eq!((lost.outcome, lost.snapshot.as_ref()), (BackupOutcome::Lost, None));
    assert!(listed(&workspace).is_empty());
    let again = shop.workspace();
    assert!(again.swept.is_empty());
    let reports = shop.back_up(&again);
    assert!(reports.iter().all(|report| report.is_complete()), "{reports:#?}");
}

#[test]
fn a_backup_that_is_killed_at_any_write_is_never_listed_by_halves() {
    let shop = Shop::open("killed-anywhere");
    let mut kill_at = 1;
    while was_killed(start_victim(&shop, "backup", kill_at)) {
        let workspace = shop.workspace();
        let started = records(&workspace, &["backup-started"]).len();
        assert_eq!(records(&workspace, &["backup-ended"]).len(), started, "at {kill_at}");
        for point in listed(&workspace) {
            let to = shop.path(&format!("back-{}-{}-{kill_at}", point.id, point.data));
            let name = format!("orders/{}", point.data);
            let back = bring_back(&workspace, &name, &to, None, Some(point.id)).unwrap();
            assert!(back[0].restored.left_out.is_empty(), "at {kill_at}");
        }
        kill_at += 1;
    }
    assert!(kill_at > 15, "only {kill_at} places to be killed at");
    assert!(shop.workspace().swept.is_empty());
}

/// The points of the shop.
fn listed(workspace: &Workspace) -> Vec<RecoveryPoint> {
    let listed = points::list(workspace, None).unwrap();
    assert!(listed.unread.is_empty(), "{:?}", listed.unread);
    listed.points
}

fn bring_back(
    workspace: &Workspace,
    name: &str,
    to: &Path,
    at: Option<Timestamp>,
    point: Option<String>,
) -> Result<Vec<RestoredItem>, OperationError> {
    let request = RestoreRequest {
        name: name.to_owned(),
        to: to.to_owned(),
        at,
        point,
        accept_partial: false,
        settings: RestoreSettings::default(),
    };
    restore(workspace, &request, &Run::new()).map(|done| done.items)
}

#[test]
fn runs_that_nobody_made_are_caught_up_once_and_told() {
    let shop = Shop::open("missed");
    let workspace = shop.workspace();
    let began = Timestamp::now() - SignedDuration::from_secs(10 * 60 + 10);
    let old = Record::BackupStarted(BackupStarted {
        job: "orders/0".to_owned(),
        service: "orders".to_owned(),
        data: "db".to_owned(),
        repository: "near".to_owned(),
        point: "old".to_owned(),
        kind: BackupKind::Incremental,
        process: ProcessRecord { pid: 1, start_time: 0, boot: String::new() },
    });
    let written = serde_json::to_value(&old).unwrap();
    let kind = written["kind"].as_str().unwrap();
    workspace.state.ledger.append(kind, began, &written["body"]).unwrap();
    loop_until(&workspace, 2);
    loop_until(&workspace, 2);
    let missed = records(&workspace, &["runs-missed"]);
    let [Record::RunsMissed(RunsMissed { runs: 4, due, .. })] = &missed[..] else {
        panic!("{missed:#?}")
    };
    assert_eq!(due.duration_since(began).as_secs(), 120);
    assert_eq!(records(&workspace, &["backup-started"]).len(), 3, "one run caught up for all");
}

/// Loops until so many backups have ended, and for a marker more.
fn loop_until(workspace: &Workspace, backups: usize) {
    let run = Run::new();
    let markers = records(workspace, &["marker"]).len() + 6;
    thread::scope(|scope| {
        let looped = scope.spawn(|| {
            looping::run(
                workspace,
                &Selection::default(),
                looping::LoopOptions::default(),
                &run,
                &|_| {},
            )
        });
        let done = || {
            let copied = records(workspace, &["copy-ended"]).len() >= backups;
            (copied && records(workspace, &["marker"]).len() >= markers).then_some(())
        };
        wait_for("the loop to have caught up", PATIENCE, done).unwrap();
        run.cancel.request("enough");
        looped.join().unwrap().unwrap();
    });
}

#[test]
fn a_partial_backup_is_told_and_never_proves() {
    // A regular file that not even root can read from its beginning.
    let memory = format!("/proc/{}/mem", std::process::id());
    let shop = Shop::open("partial");
    let workspace = shop.protected();
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    let both = text.replace("{files: ./uploads}", &format!("{{files: [./uploads, {memory}]}}"));
    fs::write(shop.path("muster.yaml"), both).unwrap();
    let workspace = {
        drop(workspace);
        shop.workspace()
    };
    let reports = shop.back_up(&workspace);
    assert!(!reports[0].is_complete() && !reports[0].failed());
    let uploads = reports[0].backups.iter().find(|ended| ended.data == "uploads").unwrap();
    assert_eq!(uploads.outcome, BackupOutcome::Partial);
    assert!(uploads.left_out[0].starts_with(&memory), "{:?}", uploads.left_out);
    let partial = listed(&workspace).into_iter().find(|point| point.partial).unwrap();
    assert_eq!((partial.data.as_str(), &partial.id), ("uploads", &uploads.point));
    let result = shop.drill(&workspace, Disruption::RegionLoss).unwrap();
    let used = result.points.iter().find(|point| point.data == "uploads").unwrap();
    assert_ne!(used.point, partial.id);
    assert!(listed(&workspace).iter().all(|point| !point.partial || point.proof.is_none()));
    let refused = bring_back(&workspace, "orders/uploads", &shop.path("to"), None, None);
    assert_ne!(refused.unwrap()[0].used.point, partial.id);
}

#[test]
fn a_point_that_looks_wrong_is_told_and_not_used() {
    let shop = Shop::open("suspect");
    let workspace = shop.protected();
    for entry in fs::read_dir(shop.path("uploads")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let reports = shop.back_up(&workspace);
    let uploads = reports[0].backups.iter().find(|ended| ended.data == "uploads").unwrap();
    assert_eq!(uploads.outcome, BackupOutcome::Completed, "it is kept");
    assert!(uploads.notices[0].starts_with("source-emptied"), "{:?}", uploads.notices);
    let suspect = listed(&workspace).into_iter().find(|point| point.suspect).unwrap();
    assert_eq!((suspect.data.as_str(), &suspect.id), ("uploads", &uploads.point));
    assert_eq!(suspect.copies.len(), 2, "it is copied all the same");
    let result = shop.drill(&workspace, Disruption::RegionLoss).unwrap();
    let used = result.points.iter().find(|point| point.data == "uploads").unwrap();
    assert_ne!(used.point, suspect.id);
    assert!(listed(&workspace).iter().all(|point| !point.suspect || point.proof.is_none()));
    let by_name =
        bring_back(&workspace, "orders/uploads", &shop.path("to"), None, Some(suspect.id.clone()));
    assert_eq!(by_name.unwrap()[0].used.point, suspect.id, "who names it gets it");
}

#[test]
fn only_partial_points_refuse_a_drill() {
    let memory = format!("/proc/{}/mem", std::process::id());
    let files = format!("{{files: [./uploads, {memory}]}}");
    let shop = Shop::with("only-partial", &[("{files: ./uploads}", &files)]);
    let workspace = shop.workspace();
    drop(shop.back_up(&workspace));
    let refused = shop.drill(&workspace, Disruption::RegionLoss).unwrap_err();
    let OperationError::Refused { blockers, .. } = refused else { panic!("{refused}") };
    assert_eq!(blockers[0].code, "only-partial-points");
}

#[test]
fn a_source_that_fails_fails_the_backup() {
    let shop = Shop::with(
        "failing-source",
        &[
            (
                "uploads: {files: ./uploads}",
                "dump: {command: [sh, -c, \"echo half; echo no such database >&2; exit 3\"], file: out}",
            ),
            ("- {data: [db, uploads],", "- {data: [dump],"),
            ("{restore: [db, uploads]}", "{restore: [db]}"),
            (", checksums: [uploads]", ""),
        ],
    );
    let workspace = shop.workspace();
    let reports = shop.back_up(&workspace);
    assert!(reports[0].failed() && !reports[0].is_complete());
    let ended = records(&workspace, &["backup-ended"]);
    let [Record::BackupEnded(ended)] = &ended[..] else { panic!("{ended:#?}") };
    assert_eq!((ended.outcome, &ended.snapshot), (BackupOutcome::Failed, &None));
    assert!(ended.error.as_ref().unwrap().contains('3'), "{:?}", ended.error);
    assert!(listed(&workspace).is_empty());
    assert!(reports[0].copies.is_empty());
}

#[test]
fn a_repository_that_is_gone_does_not_become_a_new_one() {
    let shop = Shop::open("gone");
    let workspace = shop.protected();
    fs::rename(shop.path("far"), shop.path("elsewhere")).unwrap();
    let reports = shop.back_up(&workspace);
    assert!(!reports[0].is_complete() && !reports[0].failed());
    assert!(reports[0].copies.iter().all(|copy| copy.error.is_some()), "{reports:#?}");
    assert!(!shop.path("far").join("config").exists(), "a new repository was made");
    let told = reports[0].copies[0].error.clone().unwrap();
    assert!(told.contains("it is gone from") && told.contains("last written 2"), "{told}");
    let error = &reports[0].failures[0].error;
    assert_eq!(error.code(), "repository-missing");
    assert!(error.help().unwrap().contains("mount the disk"), "{:?}", error.help());
    fs::rename(shop.path("near"), shop.path("elsewhere-too")).unwrap();
    let reports = shop.back_up(&workspace);
    assert!(reports[0].failed(), "{reports:#?}");
    assert!(!shop.path("near").join("config").exists(), "a new repository was made");
    let listed = points::list(&workspace, None).unwrap();
    let unreachable: Vec<&str> =
        listed.unread.iter().map(|unread| unread.repository.as_str()).collect();
    assert_eq!(unreachable, ["near", "far"]);
    for unread in &listed.unread {
        assert_eq!(unread.error.code(), "repository-missing");
        let help = unread.error.help().unwrap();
        assert!(help.contains("mount the disk") && !help.contains("repo init"), "{help}");
    }
    let refused = bring_back(&workspace, "orders/db", &shop.path("to"), None, None).unwrap_err();
    let told = format!("{refused} {:?}", refused.help());
    assert!(told.contains("mount the disk") && !told.contains("repo init"), "{told}");
}

#[test]
fn a_repository_that_never_was_is_made_and_told() {
    let shop = Shop::open("new");
    fs::remove_dir_all(shop.path("near")).unwrap();
    let workspace = shop.workspace();
    let reports = shop.back_up(&workspace);
    assert!(reports[0].is_complete(), "{reports:#?}");
    assert_eq!(reports[0].made, ["near"]);
}

#[test]
fn a_wrong_password_is_denied() {
    let shop = Shop::open("password");
    let workspace = shop.protected();
    fs::write(shop.path("secret"), "wrong horse\n").unwrap();
    let refused = bring_back(&workspace, "orders/db", &shop.path("to"), None, None).unwrap_err();
    assert_eq!(refused.class(), Class::Denied, "{refused:?}");
    let reports = shop.back_up(&workspace);
    assert!(reports[0].failed());
    let told = format!("{refused} {:?} {reports:?}", refused.help());
    assert!(!told.contains("wrong horse"), "{told}");
}

#[test]
fn a_full_disk_fails_clearly_and_older_points_still_come_back() {
    let shop = Shop::open("full-disk");
    let full = shop.path("disk");
    fs::create_dir(&full).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m,mode=700", "muster-test"])
        .arg(&full)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return; // Only root may mount, and not in every container.
    }
    let _mount = Mounted(full.clone());
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    fs::write(shop.path("muster.yaml"), text.replace("./near", "./disk/near")).unwrap();
    let workspace = shop.workspace();
    let first = shop.back_up(&workspace);
    assert!(first[0].is_complete(), "{first:#?}");
    fs::write(shop.path("uploads/large"), noise(8 << 20)).unwrap();
    let second = shop.back_up(&workspace);
    let uploads = second[0].backups.iter().find(|ended| ended.data == "uploads").unwrap();
    assert_eq!(uploads.outcome, BackupOutcome::Failed, "{uploads:#?}");
    let error = uploads.error.as_ref().unwrap();
    assert!(error.contains("space"), "{error}");
    let to = shop.path("back");
    let point = Some(first[0].point.clone());
    drop(bring_back(&workspace, "orders/uploads", &to, None, point).unwrap());
    assert!(to.join("one.txt").exists() && !to.join("large").exists());
}

/// Bytes that nobody can compress (xorshift64).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

/// A file system that is unmounted whatever becomes of the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).output());
    }
}

#[test]
fn points_are_the_same_without_the_state() {
    let shop = Shop::open("rebuilt");
    let workspace = shop.protected();
    drop(shop.back_up(&workspace));
    shop.check(&workspace, Verdict::Pass, "");
    let before = listed(&workspace);
    assert_eq!(before.len(), 4);
    assert!(before.iter().all(|point| point.copies.len() == 2), "{before:#?}");
    drop(workspace);
    fs::remove_dir_all(shop.path(".muster")).unwrap();
    let after = listed(&shop.workspace());
    let unproven = |points: Vec<RecoveryPoint>| -> Vec<RecoveryPoint> {
        points.into_iter().map(|point| RecoveryPoint { proof: None, ..point }).collect()
    };
    assert!(before.iter().all(|point| point.proof.is_some()), "{before:#?}");
    assert!(after.iter().all(|point| point.proof.is_none()));
    // The ledger knows the bytes that a restore writes; a snapshot tells those that were read.
    assert_eq!(unproven(after), unproven(before));
}

#[test]
fn any_point_comes_back_by_its_time_and_by_its_name() {
    let shop = Shop::open("travel");
    let workspace = shop.workspace();
    let mut states = Vec::new();
    for n in 0..3 {
        fs::write(shop.path("uploads/state.txt"), format!("state {n}")).unwrap();
        let report = &shop.back_up(&workspace)[0];
        states.push((report.point.clone(), Timestamp::now()));
    }
    fs::write(shop.path("uploads/state.txt"), "lost").unwrap();
    let read = |to: &Path| fs::read_to_string(to.join("state.txt")).unwrap();
    for (n, (point, at)) in states.iter().enumerate() {
        let to = shop.path(&format!("by-time-{n}"));
        drop(bring_back(&workspace, "orders/uploads", &to, Some(*at), None).unwrap());
        assert_eq!(read(&to), format!("state {n}"));
        let to = shop.path(&format!("by-name-{n}"));
        let back = bring_back(&workspace, "orders", &to, None, Some(point.clone())).unwrap();
        assert!(back.iter().all(|item| item.used.point == *point), "{back:#?}");
        assert_eq!(read(&to.join("uploads")), format!("state {n}"));
        assert!(to.join("db/shop.db").exists());
    }
    let early = states[0].1 - SignedDuration::from_secs(3600);
    let refused = bring_back(&workspace, "orders", &shop.path("no"), Some(early), None);
    let Err(OperationError::Refused { blockers, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(blockers[0].code, "no-point-that-old");
    let unknown = Some("nonsense".to_owned());
    let refused = bring_back(&workspace, "orders", &shop.path("no"), None, unknown);
    let Err(OperationError::Refused { blockers, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(blockers[0].code, "unknown-point");
    assert!(!shop.path("no").exists());
}

#[test]
fn a_folder_with_something_in_it_is_refused() {
    let shop = Shop::open("not-empty");
    let workspace = shop.protected();
    let to = shop.path("to");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("mine"), "mine").unwrap();
    let refused = bring_back(&workspace, "orders/uploads", &to, None, None).unwrap_err();
    assert_eq!((refused.class(), refused.code()), (Class::Denied, "target-not-empty"));
    let there = walker::walk(&to).unwrap();
    assert_eq!(there.content_bytes(), 4);
}

#[test]
fn what_a_repository_has_lost_is_told_and_taken_again() {
    let shop = Shop::open("lost-packs");
    let workspace = shop.protected();
    fs::remove_dir_all(shop.path("near/data")).unwrap();
    let reports = shop.back_up(&workspace);
    for ended in &reports[0].backups {
        assert_eq!(ended.outcome, BackupOutcome::Completed, "{ended:#?}");
        assert!(ended.notices.iter().any(|told| told.starts_with("packs-gone: ")), "{ended:#?}");
    }
    // Only what was taken now can come from there.
    fs::rename(shop.path("far"), shop.path("elsewhere")).unwrap();
    let request = RestoreRequest {
        name: "orders/uploads".to_owned(),
        to: shop.path("look"),
        at: None,
        point: None,
        accept_partial: false,
        settings: RestoreSettings::default(),
    };
    assert_eq!(restore(&workspace, &request, &Run::new()).unwrap().items.len(), 1);
    let [of_production, of_copy] = ["uploads", "look"].map(|name| walker::walk(&shop.path(name)));
    let tolerance = walker::Tolerance::default();
    walker::assert_same(&of_production.unwrap(), &of_copy.unwrap(), &tolerance);
}
