//! Hooks: programs that run around the snapshots of a line of `protect`.

use std::fs;

use muster_operations::{
    protect::JobReport,
    records::{BackupOutcome, HookEnded, Record},
};
use muster_testkit::wait_for;

use crate::{
    child::{start_victim, was_killed},
    common::{PATIENCE, Shop, marks, records},
};

/// A shop whose one line of `protect` has these hooks; each appends to the file `order`.
fn shop(name: &str, hooks: &str) -> Shop {
    Shop::with(name, &[("- {data: [db, uploads],", &format!("- {{{hooks}, data: [db, uploads],"))])
}

fn back_up(shop: &Shop) -> (JobReport, Vec<HookEnded>) {
    let workspace = shop.workspace();
    let report = shop.back_up(&workspace).remove(0);
    let ended = records(&workspace, &["hook-ended"]).into_iter().map(|record| match record {
        Record::HookEnded(ended) => ended,
        other => panic!("{other:?}"),
    });
    (report, ended.collect())
}

fn order(shop: &Shop) -> Vec<String> {
    let text = fs::read_to_string(shop.path("order")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

const TOLD: &str = "before: {run: [sh, -c, \"echo before $MUSTER_SERVICE $MUSTER_DATA >> order\"]}, \
     after: {run: [sh, -c, \"ls near/snapshots | wc -l >> order; ls far/snapshots | wc -l >> order\"]}, \
     on_failure: {run: [sh, -c, \"echo failed >> order\"]}";

#[test]
fn hooks_run_before_and_after_the_snapshots() {
    let shop = shop("hooks", TOLD);
    let (report, ended) = back_up(&shop);
    assert!(report.is_complete(), "{report:#?}");
    // After the snapshots, before the copies: there is no repository yet that holds copies.
    assert_eq!(order(&shop), ["before orders db,uploads", "2", "0"]);
    let names: Vec<&str> = ended.iter().map(|ended| ended.started.hook.as_str()).collect();
    assert_eq!(names, ["before", "after"]);
    assert!(ended.iter().all(|ended| ended.error.is_none() && ended.started.point == report.point));
}

#[test]
fn a_failed_before_stops_the_backup() {
    let hooks = "before: {run: [sh, -c, \"echo cannot freeze; exit 3\"]}, \
                 after: {run: [sh, -c, \"echo after >> order\"]}, \
                 on_failure: {run: [sh, -c, \"echo $MUSTER_ERROR >> order\"]}";
    let shop = shop("hook-before", hooks);
    let (report, ended) = back_up(&shop);
    assert!(report.failed() && !report.is_complete());
    assert!(report.backups.is_empty() && report.copies.is_empty());
    assert!(report.hooks_failed[0].contains("cannot freeze"), "{:?}", report.hooks_failed);
    assert_eq!(order(&shop), [report.hooks_failed[0].as_str()]);
    assert_eq!(ended[0].error.as_deref(), Some(report.hooks_failed[0].as_str()));
    let snapshots = fs::read_dir(shop.path("near/snapshots")).unwrap();
    assert_eq!(snapshots.count(), 0, "nothing was backed up");
}

/// A shop whose database is of a class with these hooks, beside those of the line.
fn shop_with_class(name: &str, of_class: &str, of_line: &str) -> Shop {
    let classes = format!("classes:\n  money: {{{of_class}}}\nservices:\n");
    let line = format!("- {{{of_line}, data: [db, uploads],");
    let of_money = ("db: {sqlite: ./shop.db}", "db: {sqlite: ./shop.db, class: money}");
    let line = ("- {data: [db, uploads],", line.as_str());
    Shop::with(name, &[("services:\n", classes.as_str()), of_money, line])
}

/// Hooks that tell when they run.
fn telling(who: &str, before: &str) -> String {
    let tell = |what: &str| format!("{{run: [sh, -c, \"echo {who} {what} >> order{before}\"]}}");
    let after = format!("{{run: [sh, -c, \"echo {who} after >> order\"]}}");
    format!(
        "before: {}, after: {after}, on_failure: {}",
        tell("before"),
        after.replace("after", "failed")
    )
}

#[test]
fn hooks_of_a_class_run_around_those_of_the_line() {
    let shop = shop_with_class("hooks-class", &telling("money", ""), &telling("line", ""));
    let (report, ended) = back_up(&shop);
    assert!(report.is_complete(), "{report:#?}");
    assert_eq!(order(&shop), ["money before", "line before", "line after", "money after"]);
    assert_eq!(ended[0].started.hook, "before of class money");
}

#[test]
fn what_a_class_brought_to_rest_goes_on_although_the_line_s_before_failed() {
    let shop =
        shop_with_class("hooks-class-before", &telling("money", ""), &telling("line", "; exit 3"));
    let (report, _) = back_up(&shop);
    assert!(report.failed() && report.backups.is_empty(), "{report:#?}");
    let expected = ["money before", "line before", "money after", "money failed", "line failed"];
    assert_eq!(order(&shop), expected);
}

#[test]
fn after_runs_although_the_backup_failed() {
    let shop = shop(
        "hook-after",
        &TOLD.replace("ls near/snapshots | wc -l >> order; ", "echo after >> order; "),
    );
    fs::remove_file(shop.path("shop.db")).unwrap();
    let (report, _) = back_up(&shop);
    let failed = report.backups.iter().filter(|ended| ended.outcome == BackupOutcome::Failed);
    assert_eq!(failed.count(), 1, "{report:#?}");
    let lines = order(&shop);
    assert_eq!((lines[1].as_str(), lines.last().unwrap().as_str()), ("after", "failed"));
}

#[test]
fn a_hook_that_hangs_is_ended_with_all_that_it_started() {
    let hooks = "before: {run: [sh, -c, \"sleep 1000 & sleep 1000\"], timeout: 200ms}";
    let shop = shop("hook-hangs", hooks);
    let (report, _) = back_up(&shop);
    assert!(report.hooks_failed[0].contains("not done after 200ms"), "{:?}", report.hooks_failed);
    let workspace = shop.workspace();
    assert_eq!(crate::common::carriers(&marks(&workspace)), Vec::<u32>::new());
}

#[test]
fn a_program_that_does_not_exist_is_told() {
    let shop = shop("hook-missing", "after: {run: [no-such-program]}");
    let (report, _) = back_up(&shop);
    assert!(!report.failed() && !report.is_complete());
    assert!(report.hooks_failed[0].contains("no-such-program"), "{:?}", report.hooks_failed);
}

#[test]
fn what_a_hook_of_a_killed_backup_left_is_ended() {
    let hooks = "before: {run: [sh, -c, \"touch begun; sleep 1000\"]}";
    let shop = shop("hook-killed", hooks);
    let mut victim = start_victim(&shop, "backup", u64::MAX);
    let begun = || shop.path("begun").exists().then_some(());
    wait_for("the hook to be at work", PATIENCE, begun).unwrap();
    victim.kill().unwrap();
    assert!(was_killed(victim));
    let workspace = shop.workspace();
    assert!(
        workspace.swept.iter().any(|what| what.contains("hook before")),
        "{:?}",
        workspace.swept
    );
    assert_eq!(crate::common::carriers(&marks(&workspace)), Vec::<u32>::new());
    assert!(shop.workspace().swept.is_empty(), "only once");
}
