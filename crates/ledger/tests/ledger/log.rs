//! Opening, appending, reading, proving.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use muster_ledger::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use muster_ledger::{Checkpoint, Filter, Ledger, LedgerError, NewEntry, verify_log};
use muster_model::{Class, Fault as _};
use muster_testkit::Scratch;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::{at, drill, three_drills};

fn kinds_and_indexes(ledger: &Ledger, filter: &Filter<'_>) -> Vec<(String, u64)> {
    let entries = ledger.entries(filter).unwrap();
    entries.into_iter().map(|entry| (entry.kind, entry.index)).collect()
}

#[test]
fn entries_are_read_as_they_were_written() {
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(&scratch.join("above/state")).unwrap();
    assert_eq!(ledger.size().unwrap(), 0);
    let body = json!({"text": "é\n\"", "float": 0.1 + 0.2, "n": u64::MAX, "none": null});
    let appended = ledger.append("marker", at(0), &body).unwrap();
    assert_eq!(appended.index, 0);
    assert_eq!(ledger.root().unwrap(), appended.leaf_hash);
    let new = |kind, second| NewEntry { kind, at: at(second), body: &Value::Null };
    ledger.append_all(&[new("drill", 1), new("marker", 2)]).unwrap();
    drop(ledger);

    let ledger = Ledger::open(&scratch.join("above/state")).unwrap();
    let all = ledger.entries(&Filter::default()).unwrap();
    assert_eq!(all[0].body, body);
    assert_eq!((all[0].at, all[0].kind.as_str()), (at(0), "marker"));
    assert_eq!(leaf_hash(all[0].to_leaf().as_bytes()), appended.leaf_hash);
    let filter = Filter { kinds: Some(&["marker"]), ..Filter::default() };
    let markers = [("marker".to_owned(), 0), ("marker".to_owned(), 2)];
    assert_eq!(kinds_and_indexes(&ledger, &filter), markers);
    let since = Filter { since: Some(at(1)), before_index: Some(2), ..Filter::default() };
    assert_eq!(kinds_and_indexes(&ledger, &since), [("drill".to_owned(), 1)]);
    let from = Filter { from_index: 1, kinds: Some(&["marker", "x"]), ..Filter::default() };
    assert_eq!(kinds_and_indexes(&ledger, &from), markers[1..]);
    assert_eq!(ledger.count("marker").unwrap(), 2);
    assert_eq!(ledger.last("marker").unwrap().unwrap().index, 2);
    assert_eq!(ledger.last("backup").unwrap(), None);
}

#[test]
fn parts_of_a_second_count() {
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(scratch.path()).unwrap();
    let times =
        ["1969-12-31T23:59:58.5Z", "1969-12-31T23:59:58.7Z", "2026-01-01T00:00:00.000000001Z"];
    for time in times {
        ledger.append("tick", time.parse().unwrap(), &Value::Null).unwrap();
    }
    for (n, time) in times.iter().enumerate() {
        let filter = Filter { since: Some(time.parse().unwrap()), ..Filter::default() };
        assert_eq!(ledger.entries(&filter).unwrap().len(), 3 - n, "{time}");
    }
    verify_log(&ledger).unwrap();
}

#[test]
fn many_entries_are_visited_in_pages_and_the_visitor_may_use_the_ledger() {
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(scratch.path()).unwrap();
    let new = NewEntry { kind: "marker", at: at(0), body: &json!({}) };
    ledger.append_all(&vec![new; 2500]).unwrap();
    let mut seen = 0;
    let visit = |entry: muster_ledger::Entry| {
        assert_eq!(entry.index, seen);
        seen += 1;
        assert_eq!(ledger.size().unwrap(), 2500);
        if seen == 2100 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    ledger.for_each(&Filter::default(), visit).unwrap();
    assert_eq!(seen, 2100);
}

#[test]
fn kinds_are_merged_in_order_over_many_pages() {
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(scratch.path()).unwrap();
    // Runs of different lengths, so that pages of the kinds end at different places.
    let kinds = (0..5000_usize).map(|n| ["a", "b", "c"][(n / 7 + n / 900) % 3]);
    let new = |kind| NewEntry { kind, at: at(0), body: &Value::Null };
    ledger.append_all(&kinds.map(new).collect::<Vec<_>>()).unwrap();
    let all = ledger.entries(&Filter::default()).unwrap();
    let expected: Vec<_> = all.into_iter().filter(|entry| entry.kind != "b").collect();
    let filter = Filter { kinds: Some(&["c", "a", "c", "none"]), ..Filter::default() };
    assert_eq!(ledger.entries(&filter).unwrap(), expected);
    let none = Filter { kinds: Some(&[]), ..Filter::default() };
    assert_eq!(ledger.entries(&none).unwrap(), []);
}

#[test]
fn what_cannot_be_recorded_is_refused_and_leaves_nothing() {
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(scratch.path()).unwrap();
    let refuse = |kind: &str, body: &Value| {
        let error = ledger.append(kind, at(0), body).unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Input, "ledger-entry"), "{error}");
    };
    for kind in ["", "Drill", "a b", "é", "exported", &"k".repeat(65)] {
        refuse(kind, &Value::Null);
    }
    let deep = (0..200).fold(Value::Null, |value, _| json!([value]));
    refuse("drill", &deep);
    refuse("drill", &json!({"evidence": [{"envelope_sha256": "0".repeat(64)}]}));
    refuse("drill", &json!({"envelope_sha256": "no digest"}));
    let good = NewEntry { kind: "drill", at: at(0), body: &Value::Null };
    assert!(ledger.append_all(&[good, NewEntry { kind: "", ..good }]).is_err());
    assert!(ledger.append_numbered("drill", "n", at(0), &json!([])).is_err());
    assert_eq!(verify_log(&ledger).unwrap().size, 0);
}

#[test]
fn the_state_is_the_owners_and_ignored_by_git() {
    let (scratch, ledger) = three_drills();
    let mode = |name: &str| {
        scratch.join("state").join(name).metadata().unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode(""), 0o700);
    for secret in ["ledger.key", "ledger.sqlite3", "ledger.sqlite3-wal", "ledger.lock"] {
        assert_eq!(mode(secret), 0o600, "{secret}");
    }
    let read = |name: &str| fs::read_to_string(scratch.join("state").join(name)).unwrap();
    assert_eq!(read(".gitignore"), "*\n");
    assert_eq!(read("ledger.pub"), format!("{}\n", ledger.verifier()));
    assert!(read("ledger.key").starts_with("PRIVATE+KEY+muster/"));
    // PRIVATE+KEY+name+hash+key, and a '+' may stand in the key, too.
    let key = read("ledger.key");
    let secret = key.trim().splitn(5, '+').nth(4).unwrap();
    assert!(secret.len() > 40, "all of it");
    assert!(!format!("{ledger:?}").contains(secret));
}

#[test]
fn reading_only_makes_nothing_and_writes_nothing() {
    let (scratch, ledger) = three_drills();
    let missing = Ledger::open_read_only(&scratch.join("elsewhere")).unwrap_err();
    assert_eq!((missing.class(), missing.code()), (Class::NotFound, "ledger-missing"));
    assert!(!scratch.join("elsewhere").exists());

    let reader = Ledger::open_read_only(&scratch.join("state")).unwrap();
    assert_eq!(reader.root().unwrap(), ledger.root().unwrap());
    drill(&ledger, 1);
    assert_eq!(reader.root().unwrap(), ledger.root().unwrap());
    for error in [
        reader.append("drill", at(0), &Value::Null).unwrap_err(),
        reader.checkpoint().unwrap_err(),
        reader.attach("x", b"x").unwrap_err(),
        reader.seal(&Value::Null).unwrap_err(),
    ] {
        assert!(matches!(error, LedgerError::ReadOnly), "{error}");
    }
    verify_log(&reader).unwrap();
}

#[test]
fn a_lost_or_foreign_key_is_refused() {
    let (scratch, ledger) = three_drills();
    drop(ledger);
    let key = scratch.join("state/ledger.key");
    let other = Ledger::open(&scratch.join("other")).unwrap();
    fs::copy(scratch.join("other/ledger.key"), &key).unwrap();
    for _ in 0..2 {
        let error = Ledger::open(&scratch.join("state")).unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Corrupt, "ledger-key"), "{error}");
        fs::remove_file(&key).ok();
    }
    assert!(Ledger::open_read_only(&scratch.join("state")).is_ok());
    assert_ne!(other.origin(), "");
}

#[test]
fn threads_share_a_ledger() {
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(scratch.path()).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let ledger = &ledger;
            scope.spawn(move || {
                for _ in 0..25 {
                    let body = json!({"writer": writer});
                    ledger.append_numbered("marker", "n", at(0), &body).unwrap();
                }
            });
        }
    });
    let numbers = ledger
        .entries(&Filter::default())
        .unwrap()
        .into_iter()
        .map(|entry| entry.body["n"].clone());
    assert_eq!(numbers.collect::<Vec<_>>(), (1..=100).map(Value::from).collect::<Vec<_>>());
    verify_log(&ledger).unwrap();
}

#[test]
fn many_openers_make_one_ledger() {
    let scratch = Scratch::new("ledger").unwrap();
    for round in 0..5 {
        let state = scratch.join(format!("state-{round}"));
        let open = || {
            let ledger = Ledger::open(&state).unwrap();
            ledger.append("opened", at(0), &Value::Null).unwrap();
            ledger.origin().to_owned()
        };
        let origins = thread::scope(|scope| {
            let openers: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(origins.iter().all(|origin| *origin == origins[0]), "{origins:?}");
        assert_eq!(verify_log(&Ledger::open(&state).unwrap()).unwrap().size, 8);
    }
}

#[test]
fn checkpoints_are_signed_kept_and_signed_once() {
    let (scratch, ledger) = three_drills();
    let signed = ledger.checkpoint().unwrap();
    assert_eq!(ledger.checkpoint().unwrap(), signed);
    let kept = ledger.checkpoints().unwrap();
    assert_eq!(kept.len(), 3);
    assert_eq!(kept[2], signed);
    let opened = Checkpoint::open(&signed.note, ledger.verifier()).unwrap();
    assert_eq!((opened.size, opened.root), (ledger.size().unwrap(), ledger.root().unwrap()));
    let empty = Ledger::open(&scratch.join("empty")).unwrap();
    assert_eq!(empty.checkpoint().unwrap().checkpoint.size, 0);
    assert!(Checkpoint::open(&signed.note, empty.verifier()).is_err());
}

#[test]
fn attachments_are_kept_once_and_given_back() {
    let (_scratch, ledger) = three_drills();
    let sha256 = ledger.attach("log", b"text").unwrap();
    assert_eq!(ledger.attach("again", b"text").unwrap(), sha256);
    assert_eq!(ledger.attachment(&sha256).unwrap().unwrap(), b"text");
    assert_eq!(ledger.attachment(&"0".repeat(64)).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_appends_can_be_proven(batches in prop::collection::vec(1_usize..9, 1..8), seed: u64) {
        let scratch = Scratch::new("ledger").unwrap();
        let ledger = Ledger::open(scratch.path()).unwrap();
        let (mut leaves, mut roots) = (Vec::new(), vec![ledger.root().unwrap()]);
        for batch in batches {
            let body = json!({"seed": seed, "f": f64::from_bits(seed)});
            let new = NewEntry { kind: "step", at: at(0), body: &body };
            for appended in ledger.append_all(&vec![new; batch]).unwrap() {
                leaves.push(appended.leaf_hash);
            }
            roots.resize(leaves.len(), roots[roots.len() - 1]);
            roots.push(ledger.root().unwrap());
            let (size, root) = (ledger.size().unwrap(), ledger.root().unwrap());
            for (leaf, index) in leaves.iter().zip(0..) {
                let proof = ledger.inclusion_proof(index).unwrap();
                prop_assert!(verify_inclusion(leaf, index, size, &proof, &root));
            }
            ledger.checkpoint().unwrap();
            for earlier in ledger.checkpoints().unwrap() {
                let old = (earlier.checkpoint.size, &earlier.checkpoint.root);
                let proof = ledger.consistency_proof(old.0).unwrap();
                prop_assert!(verify_consistency(old, (size, &root), &proof));
            }
            let is_beyond = matches!(ledger.inclusion_proof(size), Err(LedgerError::Beyond { .. }));
            prop_assert!(is_beyond && ledger.consistency_proof(size + 1).is_err());
        }
        verify_log(&ledger).unwrap();
    }
}
