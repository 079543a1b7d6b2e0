//! `forget` and `prune`: restic's policy to the letter, what Muster adds to it, and both beside
//! others.

use std::collections::BTreeSet;

use muster_repository::{
    format::{snapshot::Snapshot, time::Timestamp},
    id::SnapshotId,
    storage::{File, FileKind},
};
use serde_json::Value;

use crate::sandbox::Sandbox;

/// A repository whose snapshots are at chosen times, all of one tree.
struct History {
    sandbox: Sandbox,
    template: Snapshot,
}

impl History {
    fn new(name: &str) -> Self {
        let sandbox = Sandbox::new(name);
        sandbox.run(&["backup", "source"]).expect(0);
        let repository = sandbox.open();
        let (id, template) = repository.snapshots().unwrap().remove(0);
        repository.storage().delete(File::Snapshot(id)).unwrap();
        Self { sandbox, template }
    }

    fn add(&self, time: Timestamp, host: &str, tags: &[&str]) -> SnapshotId {
        let snapshot = Snapshot {
            time,
            hostname: host.to_owned(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            ..self.template.clone()
        };
        self.sandbox.open().save_unpacked(File::Snapshot, &snapshot).unwrap()
    }

    fn ids(&self) -> BTreeSet<String> {
        let ids = self.sandbox.open().snapshot_ids().unwrap();
        ids.iter().map(SnapshotId::to_hex).collect()
    }
}

fn day(number: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + number * 86_400, 0, 0)
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// The ids and reasons of every group, in an order that both tools share. That the oldest stays
/// while counts are left is younger than some restics, and left out.
fn verdict(groups: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for group in groups.as_array().unwrap() {
        for removed in group["remove"].as_array().into_iter().flatten() {
            lines.push(format!("{} goes", removed["id"]));
        }
        let kept = group["keep"].as_array().into_iter().flatten();
        let reasons = group["reasons"].as_array().into_iter().flatten();
        for (kept, reason) in kept.zip(reasons) {
            let matches = reason["matches"].as_array().unwrap().iter();
            let matches: Vec<_> =
                matches.filter(|text| !text.as_str().unwrap().starts_with("oldest")).collect();
            lines.push(match matches.is_empty() {
                true => format!("{} goes", kept["id"]),
                false => format!("{} stays: {matches:?}", kept["id"]),
            });
        }
    }
    lines.sort();
    lines
}

#[test]
fn policies_mean_exactly_what_they_mean_to_restic() {
    let words = [
        "--keep-last",
        "--keep-hourly",
        "--keep-daily",
        "--keep-weekly",
        "--keep-monthly",
        "--keep-yearly",
    ];
    let spans = [
        "--keep-within",
        "--keep-within-hourly",
        "--keep-within-daily",
        "--keep-within-weekly",
        "--keep-within-monthly",
        "--keep-within-yearly",
    ];
    for seed in 0..6 {
        let history = History::new("like-restic");
        let Some(restic) = history.sandbox.restic() else { return };
        let mut dice = Dice(seed);
        let spread_s = [3_600 * 30, 86_400 * 40, 86_400 * 800][usize::try_from(seed % 3).unwrap()];
        for n in 0..40 {
            let seconds = 1_700_000_000 + i64::try_from(dice.below(spread_s)).unwrap();
            let offset = [0, 60, -300, 330, 120][usize::try_from(dice.below(5)).unwrap()];
            // No two at the same moment: their order is restic's secret.
            let time = Timestamp::new(seconds, n, offset);
            let tags = [dice.pick(&["", "a", "b"])];
            let tags: Vec<&str> = tags.into_iter().filter(|tag| !tag.is_empty()).collect();
            history.add(time, dice.pick(&["one", "two"]), &tags);
        }
        for _ in 0..8 {
            let mut arguments =
                vec!["forget".to_owned(), "--dry-run".to_owned(), "--json".to_owned()];
            for _ in 0..=dice.below(3) {
                arguments.push(dice.pick(&words).to_owned());
                arguments.push((dice.below(9) + 1).to_string());
            }
            for _ in 0..dice.below(3) {
                arguments.push(dice.pick(&spans).to_owned());
                arguments
                    .push(dice.pick(&["3h", "1d", "40d", "1m3d", "1y", "2y1m1d1h"]).to_owned());
            }
            // Of an option that is given twice the last holds, to restic.
            let mut seen = BTreeSet::new();
            let mut unique = arguments[..3].to_vec();
            for pair in arguments[3..].chunks(2) {
                if seen.insert(pair[0].clone()) {
                    unique.extend_from_slice(pair);
                }
            }
            unique.extend(match dice.below(4) {
                0 => vec!["--keep-tag".to_owned(), "a".to_owned()],
                1 => vec!["--group-by".to_owned(), dice.pick(&["", "host", "tags"]).to_owned()],
                2 => vec!["--host".to_owned(), "one".to_owned()],
                _ => vec![],
            });
            let ours = history.sandbox.run(&unique).expect(0).json();
            let unique: Vec<&str> = unique.iter().map(String::as_str).collect();
            let theirs = restic.run(&unique).unwrap().expect_success().unwrap();
            let theirs: Value = serde_json::from_str(theirs.stdout().trim()).unwrap();
            assert_eq!(verdict(&ours), verdict(&theirs), "seed {seed}: {unique:?}");
        }
    }
}

#[test]
fn what_is_shown_is_what_goes() {
    let history = History::new("forget");
    let ids: Vec<String> = (0..5).map(|n| history.add(day(n), "host", &[]).to_hex()).collect();
    let all = history.ids();
    let shown = history.sandbox.run(&["forget", "--keep-last", "2", "--dry-run"]).expect(0);
    shown.shows("keep 2 snapshots:").shows("remove 3 snapshots:").shows("last snapshot");
    let quiet = history.sandbox.run(&["-q", "forget", "--keep-last", "2", "--dry-run"]).expect(0);
    assert_eq!(quiet.stdout, "", "only warnings and errors");
    assert_eq!(history.ids(), all);
    let said = history.sandbox.run(&["forget", "--keep-last", "2", "--json"]).expect(0).json();
    assert_eq!(said[0]["remove"].as_array().unwrap().len(), 3);
    assert_eq!(said[0]["reasons"][0]["matches"][0], "last snapshot");
    assert_eq!(history.ids(), ids[3..].iter().cloned().collect());
    // By id, and back to nothing.
    let named = ["forget", &ids[4][..8]];
    let removed = format!("removed {} of ", &ids[4][..8]);
    let dry = history.sandbox.run(&[&named[..], &["--dry-run"]].concat()).expect(0);
    dry.shows(&format!("would remove {} of ", &ids[4][..8]));
    history.sandbox.run(&named).expect(0).shows(&removed).shows("removed 1 snapshot\n");
    assert_eq!(history.ids(), BTreeSet::from([ids[3].clone()]));
    assert_eq!(history.sandbox.locks(), 0);
}

#[test]
fn nothing_goes_without_a_policy_and_no_group_goes_whole() {
    let history = History::new("forget-nothing");
    history.add(day(0), "host", &["a"]);
    history.add(day(1), "other", &["b"]);
    let all = history.ids();
    let refused = |arguments: &[&str], code| history.sandbox.run(arguments).expect(code);
    refused(&["forget"], 2).tells("there is no policy");
    refused(&["forget", "--unsafe-allow-remove-all"], 2).tells("all of them");
    refused(&["forget", "--keep-tag", "a"], 4).tells("nothing would be left of (host [other]");
    refused(&["forget", "--keep-last", "1", "latest"], 2);
    refused(&["forget", "--keep-last", "1", "--no-lock"], 2);
    assert_eq!(history.ids(), all);
    let remove_all = ["forget", "--unsafe-allow-remove-all", "--host", "other"];
    history.sandbox.run(&remove_all).expect(0).shows("removed 1 snapshot");
    assert_eq!(history.ids().len(), 1);
}

#[test]
fn proven_and_held_snapshots_stay_and_bad_ones_are_not_counted() {
    let history = History::new("forget-protected");
    let id = |n, tags: &[&str]| history.add(day(n), "host", tags).to_hex();
    let held = id(0, &["muster:hold"]);
    let proven_before = id(1, &["muster:proven"]);
    let proven = id(2, &["muster:proven"]);
    let good = id(3, &[]);
    let partial = id(4, &["muster:partial"]);
    let suspect = id(5, &["muster:suspect"]);
    let by_id = |ids: &[&str], code| {
        let arguments: Vec<&str> = ["forget"].iter().chain(ids).copied().collect();
        history.sandbox.run(&arguments).expect(code)
    };
    by_id(&[&held, &good], 4).tells("legal hold");
    let error = history.sandbox.run(&["forget", "--json", &proven]).expect(4).error();
    assert_eq!(error["code"], "snapshot-protected");
    assert_eq!(history.ids().len(), 6);

    history.sandbox.run(&["forget", "--keep-last", "1"]).expect(0).shows("last proven");
    let expected = [&held, &proven, &good, &suspect].map(Clone::clone);
    assert_eq!(history.ids(), BTreeSet::from(expected), "{proven_before} {partial}");
    by_id(&["--release-hold", &held], 0);
    assert!(!history.ids().contains(&held));
}

#[test]
fn forgetting_and_pruning_frees_space_and_restic_agrees() {
    let sandbox = Sandbox::new("forget-prune");
    for n in 0..6 {
        // Text that does not compress, and differs each time.
        let mut dice = Dice(n);
        let noise: String =
            (0..60_000).map(|_| char::from(b'!' + u8::try_from(dice.below(90)).unwrap())).collect();
        sandbox.write("source/noise", &noise);
        sandbox
            .run(&["backup", "source", "--time", &format!("2026-01-0{} 12:00:00", n + 1)])
            .expect(0);
    }
    let bytes = || -> u64 {
        let listed = sandbox.open().storage().list(FileKind::Pack).unwrap();
        listed.iter().map(|listed| listed.bytes).sum()
    };
    let before = bytes();
    let forget = ["forget", "--keep-daily", "2", "--prune", "--max-unused", "0"];
    let dry: Vec<&str> = forget.iter().copied().chain(["--dry-run", "--json"]).collect();
    let would = sandbox.run(&dry).expect(0).last_json();
    assert!(would["marked"]["packs"].as_u64() > Some(0), "{would}");
    assert_eq!(bytes(), before);

    sandbox.run(&forget).expect(0).shows("removed 4 snapshots").shows("marked");
    assert!(bytes() >= before, "the grace period is not over");
    sandbox.run(&["check", "--read-data"]).expect(0);
    sandbox.run(&["prune", "--keep-delete", "0s"]).expect(0).shows("deleted");
    assert!(bytes() < before);
    let said = sandbox.run(&["prune", "--json", "--instant"]).expect(0).json();
    assert_eq!(said["waiting"]["packs"], 0);
    assert_eq!(said["message_type"], "summary");
    sandbox.run(&["check", "--read-data"]).expect(0);
    if let Some(restic) = sandbox.restic() {
        restic.run(["check", "--read-data"]).unwrap().expect_success().unwrap();
    }
    assert_eq!(sandbox.locks(), 0);
}

#[test]
fn a_running_backup_is_not_pruned_away() {
    let sandbox = Sandbox::new("prune-backup");
    sandbox.run(&["backup", "source"]).expect(0);
    sandbox.write("source/new", "new");
    sandbox.run(&["backup", "source"]).expect(0);
    let mut backup = sandbox.waiting_backup();
    sandbox.run(&["forget", "--keep-last", "1"]).expect(4).tells("locked");
    sandbox.run(&["prune", "--instant"]).expect(4).tells("locked");
    sandbox.run(&["prune", "--dry-run"]).expect(0);
    drop(backup.stdin.take());
    assert!(backup.wait().unwrap().success());
    sandbox.run(&["forget", "--keep-last", "1", "--prune"]).expect(0);
    sandbox.run(&["check", "--read-data"]).expect(0);
}
