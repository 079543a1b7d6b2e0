//! Export and verification of what is sound.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use muster_ledger::{
    ExportOptions, Ledger, Mismatch, NewEntry, VerifyOptions, verify_bundle, verify_log,
};
use muster_model::{Class, Fault as _};
use muster_testkit::{Scratch, peers};
use serde_json::json;

use crate::common::{BULK, at, drill, export, pack, three_drills, trusting, unpack};

#[test]
fn a_bundle_tells_all_that_is_not_left_out() {
    let (scratch, ledger) = three_drills();
    let bytes = export(&ledger, &scratch);
    let key = ledger.verifier().to_string();
    let verified = verify_bundle(&bytes, &trusting(&key)).unwrap();
    assert_eq!((verified.size, verified.entries.len()), (25, 7));
    assert_eq!(verified.elided.into_iter().collect::<Vec<_>>(), [("marker".to_owned(), 18)]);
    assert_eq!((verified.origin.as_str(), verified.trusted), (ledger.origin(), true));
    assert_eq!(verified.root, ledger.root().unwrap());
    assert_eq!(verified.consistent_since, None);
    assert_eq!(verified.envelopes.len(), 3);
    let number = |envelope: &muster_ledger::VerifiedEnvelope| {
        envelope.statement["predicate"]["drill"].as_u64()
    };
    let mut numbers: Vec<_> = verified.envelopes.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    assert_eq!(verified.attachments, [("report.html".to_owned(), b"<p>41 s</p>".to_vec())]);
    let mode = scratch.join("bundle.tar").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    verify_log(&ledger).unwrap();
}

#[test]
fn trust_and_kept_checkpoints() {
    let (scratch, ledger) = three_drills();
    let first = ledger.checkpoints().unwrap()[0].note.clone();
    let bytes = export(&ledger, &scratch);
    let untrusting = VerifyOptions::default();
    assert!(!verify_bundle(&bytes, &untrusting).unwrap().trusted);
    let since = VerifyOptions { since: Some(&first), ..untrusting };
    assert_eq!(verify_bundle(&bytes, &since).unwrap().consistent_since, Some(7));

    let other = Ledger::open(&scratch.join("other")).unwrap();
    let both = format!("# keys\n{}\n\n{}\n", other.verifier(), ledger.verifier());
    assert!(verify_bundle(&bytes, &trusting(&both)).unwrap().trusted);
    let refuse = |options: &VerifyOptions<'_>, class: Class, code: &str| {
        let mismatch = verify_bundle(&bytes, options).unwrap_err();
        assert_eq!((mismatch.class(), mismatch.code()), (class, code), "{mismatch}");
    };
    refuse(&trusting(&other.verifier().to_string()), Class::Corrupt, "evidence-not-trusted");
    refuse(&trusting("# none\n"), Class::Input, "trust-unreadable");
    refuse(&trusting("key"), Class::Input, "trust-unreadable");
    let foreign = other.checkpoint().unwrap().note;
    refuse(
        &VerifyOptions { since: Some(&foreign), ..untrusting },
        Class::Corrupt,
        "evidence-rewritten",
    );
    refuse(
        &VerifyOptions { since: Some("?"), ..untrusting },
        Class::Input,
        "checkpoint-unreadable",
    );
    drill(&ledger, 0);
    let later = ledger.checkpoint().unwrap().note;
    refuse(
        &VerifyOptions { since: Some(&later), ..untrusting },
        Class::Corrupt,
        "evidence-rewritten",
    );
}

#[test]
fn every_checkpoint_of_a_bundle_can_be_compared_with_the_next() {
    let (scratch, ledger) = three_drills();
    let mut kept: Option<String> = None;
    for _ in 0..3 {
        let bytes = export(&ledger, &scratch);
        let options = VerifyOptions { since: kept.as_deref(), ..VerifyOptions::default() };
        let verified = verify_bundle(&bytes, &options).unwrap();
        assert_eq!(verified.consistent_since.is_some(), kept.is_some());
        kept = Some(verified.checkpoint);
        let new = NewEntry { kind: "marker", at: at(0), body: &json!({}) };
        ledger.append_all(&vec![new; 77]).unwrap();
    }
}

#[test]
fn a_checkpoint_within_what_is_left_out_cannot_be_compared_later() {
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(&scratch.join("state")).unwrap();
    let new = NewEntry { kind: "marker", at: at(0), body: &json!({}) };
    let mut kept = Vec::new();
    for _ in 0..110 {
        ledger.append_all(&[new; 3]).unwrap();
        kept.push(ledger.checkpoint().unwrap().note);
    }
    let bytes = export(&ledger, &scratch);
    let verify = |note: &str| {
        verify_bundle(&bytes, &VerifyOptions { since: Some(note), ..VerifyOptions::default() })
    };
    // The first and the newest hundred are carried.
    assert_eq!(verify(&kept[0]).unwrap().consistent_since, Some(3));
    assert_eq!(verify(&kept[10]).unwrap().consistent_since, Some(33));
    assert_eq!(verify(&kept[9]).unwrap_err(), Mismatch::NotComparable { size: 30 });
}

#[test]
fn a_hundred_thousand_markers_cost_little() {
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(&scratch.join("state")).unwrap();
    drill(&ledger, 0);
    let new = NewEntry { kind: "marker", at: at(0), body: &json!({"n": 1}) };
    ledger.append_all(&vec![new; 100_000]).unwrap();
    drill(&ledger, 0);
    let bytes = export(&ledger, &scratch);
    let lines = unpack(&bytes).into_iter().find(|(name, _)| name == "log/entries.jsonl").unwrap().1;
    assert!(lines.len() < 6000, "{} bytes", lines.len());
    let key = ledger.verifier().to_string();
    assert_eq!(verify_bundle(&bytes, &trusting(&key)).unwrap().size, 100_005);
}

#[test]
fn the_archive_is_as_its_description_says() {
    let (scratch, ledger) = three_drills();
    let bytes = export(&ledger, &scratch);
    let members = unpack(&bytes);
    assert!(pack(&members) == bytes, "another writer of the same format makes other bytes");
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    let is_fixed = |name: &&&str| !name.starts_with("envelopes/");
    let fixed: Vec<&str> = names.iter().filter(is_fixed).copied().collect();
    assert_eq!(
        fixed,
        [
            "manifest.json",
            "attachments/report.html",
            "keys/ledger.pub",
            "log/checkpoint",
            "log/checkpoints/20",
            "log/checkpoints/24",
            "log/checkpoints/7",
            "log/entries.jsonl"
        ]
    );
    let Some(tar) = peers::require("tar") else { return };
    let listed = tar.folder(scratch.path()).succeed(["-tf", "bundle.tar"]).unwrap();
    assert_eq!(listed.stdout().lines().collect::<Vec<_>>(), names);
}

#[test]
fn options_that_contradict_themselves_are_refused() {
    let (scratch, ledger) = three_drills();
    let file = |name: &str| (name.to_owned(), Vec::new());
    let attachments = [vec![file("../x")], vec![file("")], vec![file("a"), file("a")]];
    let mut tries: Vec<ExportOptions<'_>> = attachments
        .iter()
        .map(|attachments| ExportOptions { attachments, ..ExportOptions::new(at(0)) })
        .collect();
    tries.push(ExportOptions { bulk_kinds: &["exported"], ..ExportOptions::new(at(0)) });
    for options in tries {
        let error = ledger.export(&scratch.join("x.tar"), &options).unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Input, "ledger-export"), "{error}");
    }
    assert_eq!(ledger.count("exported").unwrap(), 0);
}

#[test]
fn what_does_not_verify_is_not_written() {
    let (scratch, ledger) = three_drills();
    let sha256 = ledger.attach("not an envelope", b"text").unwrap();
    ledger.append("drill-sealed", at(0), &json!({"envelope_sha256": sha256})).unwrap();
    let options = ExportOptions { bulk_kinds: BULK, ..ExportOptions::new(at(0)) };
    let error = ledger.export(&scratch.join("x.tar"), &options).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    let left: Vec<_> =
        fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["state"]);
}

#[test]
fn an_export_that_cannot_be_written_leaves_what_was_there() {
    let (scratch, ledger) = three_drills();
    let before = export(&ledger, &scratch);
    let error =
        ledger.export(&scratch.join("no/such/folder.tar"), &ExportOptions::new(at(0))).unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::NotFound, "ledger-file"));
    assert_eq!(fs::read(scratch.join("bundle.tar")).unwrap(), before);
}
