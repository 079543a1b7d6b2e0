//! Tampering: everything that can be done to a bundle, with and without the signing key.

use std::fs;

use muster_ledger::evidence::{self, DRILL_PREDICATE};
use muster_ledger::{Filter, Ledger, Mismatch, SignerKey, VerifyOptions, verify_bundle};
use muster_model::{Class, Fault as _};
use muster_testkit::Scratch;
use serde_json::json;

use crate::common::{
    Member, SEQUENCES, at, content, drill, export, pack, repack, three_drills, trusting, unpack,
};

/// A bundle, and what is wrong with a changed one. Nobody is trusted: what is refused is refused
/// for want of integrity.
struct Case {
    _scratch: Scratch,
    bytes: Vec<u8>,
    members: Vec<Member>,
}

fn case() -> Case {
    let (scratch, ledger) = three_drills();
    let bytes = export(&ledger, &scratch);
    let members = unpack(&bytes);
    assert!(repack(&members) == bytes);
    Case { _scratch: scratch, bytes, members }
}

fn mismatch(bytes: &[u8]) -> Option<Mismatch> {
    let options = VerifyOptions { sequences: SEQUENCES, ..VerifyOptions::default() };
    let mismatch = verify_bundle(bytes, &options).err()?;
    assert_eq!(mismatch.class(), Class::Corrupt, "{mismatch}");
    Some(mismatch)
}

/// The lines of the entries.
fn lines(members: &[Member]) -> Vec<String> {
    let (_, bytes) = members.iter().find(|(name, _)| name == "log/entries.jsonl").unwrap();
    String::from_utf8(bytes.clone()).unwrap().lines().map(|line| format!("{line}\n")).collect()
}

/// The bundle with other lines and a manifest that knows it.
fn with_lines(members: &[Member], lines: &[String]) -> Vec<u8> {
    let mut members = members.to_vec();
    *content(&mut members, "log/entries.jsonl") = lines.concat().into_bytes();
    repack(&members)
}

#[test]
fn every_changed_byte_is_refused() {
    let case = case();
    let mut bytes = case.bytes.clone();
    for at in 0..bytes.len() {
        let old = case.bytes[at];
        for new in [old ^ 1, old ^ 0x80, old.wrapping_add(1), 0, b' '] {
            bytes[at] = new;
            assert!(bytes == case.bytes || mismatch(&bytes).is_some(), "byte {at}");
        }
        bytes[at] = old;
    }
}

#[test]
fn every_changed_byte_is_refused_when_the_manifest_knows_it() {
    let case = case();
    for i in 1..case.members.len() {
        for at in 0..case.members[i].1.len() {
            let mut members = case.members.clone();
            members[i].1[at] ^= 1;
            let name = &case.members[i].0;
            assert!(mismatch(&repack(&members)).is_some(), "byte {at} of {name}");
        }
    }
}

#[test]
fn every_cut_is_refused() {
    let case = case();
    for length in (0..case.bytes.len()).filter(|length| length % 512 < 2) {
        assert!(mismatch(&case.bytes[..length]).is_some(), "{length}");
    }
    for more in [&[0_u8; 512][..], &[0; 9216], b"x", b"\0"] {
        assert!(mismatch(&[&case.bytes, more].concat()).is_some());
    }
    assert!(mismatch(&[case.bytes.clone(), case.bytes.clone()].concat()).is_some());
    assert!(mismatch(b"").is_some());
}

#[test]
fn members_moved_left_out_repeated_or_added_are_refused() {
    let case = case();
    for i in 0..case.members.len() {
        let mut left_out = case.members.clone();
        let member = left_out.remove(i);
        assert!(mismatch(&pack(&left_out)).is_some());
        if i > 0 {
            assert!(mismatch(&repack(&left_out)).is_some(), "without {}", member.0);
        }
        let mut repeated = case.members.clone();
        repeated.insert(i, member.clone());
        assert!(mismatch(&pack(&repeated)).is_some());
        assert!(mismatch(&repack(&repeated)).is_some());
        for j in 0..i {
            let mut moved = case.members.clone();
            moved.swap(i, j);
            assert!(mismatch(&pack(&moved)).is_some());
        }
    }
    let envelope = "envelopes/".to_owned() + &"0".repeat(64) + ".json";
    for name in ["attachments/more", "log/checkpoints/9", "more", &envelope] {
        let mut added = case.members.clone();
        added.push((name.to_owned(), b"{}".to_vec()));
        let expected =
            Mismatch::Member { member: name.into(), problem: "no entry speaks of it".into() };
        assert_eq!(mismatch(&repack(&added)), Some(expected));
    }
}

#[test]
fn entries_left_out_moved_or_repeated_are_refused() {
    let case = case();
    let lines = lines(&case.members);
    for i in 0..lines.len() {
        let mut left_out = lines.clone();
        let line = left_out.remove(i);
        assert!(mismatch(&with_lines(&case.members, &left_out)).is_some());
        let mut repeated = lines.clone();
        repeated.insert(i, line);
        assert!(mismatch(&with_lines(&case.members, &repeated)).is_some());
        for j in 0..i {
            let mut moved = lines.clone();
            moved.swap(i, j);
            assert!(mismatch(&with_lines(&case.members, &moved)).is_some());
        }
    }
    for end in 0..lines.len() {
        assert!(mismatch(&with_lines(&case.members, &lines[..end])).is_some());
    }
}

/// The lines with entry `index` told by its hash only, as if it were of a kind left out.
fn hide(lines: &[String], index: u64) -> Vec<String> {
    let start = format!("\"index\":{index},");
    let hide = |line: &String| {
        if !line.contains(&start) {
            return line.clone();
        }
        let hash = muster_ledger::merkle::leaf_hash(line.trim_end().as_bytes());
        format!("{{\"count\":1,\"from\":{index},\"hash\":\"{hash}\"}}\n")
    };
    lines.iter().map(hide).collect()
}

#[test]
fn an_entry_hidden_among_those_left_out_is_missed() {
    let case = case();
    let lines = lines(&case.members);
    // The tree is the same: only the count gives it away.
    let expected = Mismatch::Count { kind: "drill-started".into(), counted: 3, found: 2 };
    assert_eq!(mismatch(&with_lines(&case.members, &hide(&lines, 0))), Some(expected));
    let expected = Mismatch::Count { kind: "drill-sealed".into(), counted: 3, found: 2 };
    assert_eq!(mismatch(&with_lines(&case.members, &hide(&lines, 23))), Some(expected));
    assert!(mismatch(&with_lines(&case.members, &hide(&lines, 24))).is_some());
}

#[test]
fn the_last_drill_cannot_be_cut_off() {
    let (scratch, ledger) = three_drills();
    let before = unpack(&export(&ledger, &scratch));
    drill(&ledger, 3);
    let after = unpack(&export(&ledger, &scratch));
    // The older entries under the newer checkpoint.
    let mut mixed = before.clone();
    let checkpoint = after.iter().find(|(name, _)| name == "log/checkpoint").unwrap().1.clone();
    *content(&mut mixed, "log/checkpoint") = checkpoint;
    let problem = "it is missing".to_owned();
    assert_eq!(mismatch(&repack(&mixed)), Some(Mismatch::Entry { index: 25, problem }));
    // The newer entries under the older checkpoint.
    let mut mixed = after.clone();
    let checkpoint = before.iter().find(|(name, _)| name == "log/checkpoint").unwrap().1.clone();
    *content(&mut mixed, "log/checkpoint") = checkpoint;
    assert!(mismatch(&repack(&mixed)).is_some());
    // The older bundle is sound in itself; who kept a later checkpoint is not fooled.
    let later = after.iter().find(|(name, _)| name == "log/checkpoint").unwrap().1.clone();
    let later = String::from_utf8(later).unwrap();
    let since = VerifyOptions { since: Some(&later), ..VerifyOptions::default() };
    let rewritten = verify_bundle(&pack(&before), &since).unwrap_err();
    assert!(matches!(rewritten, Mismatch::Rewritten { size: 31, .. }), "{rewritten}");
}

#[test]
fn another_key_is_refused_by_who_trusts_this_one() {
    let (scratch, ledger) = three_drills();
    let trust = ledger.verifier().to_string();
    let forged = Ledger::open(&scratch.join("forged")).unwrap();
    drill(&forged, 0);
    let bytes = export(&forged, &scratch);
    assert!(verify_bundle(&bytes, &VerifyOptions::default()).is_ok());
    let refused = verify_bundle(&bytes, &trusting(&trust)).unwrap_err();
    assert_eq!(refused, Mismatch::KeyNotTrusted { key: forged.verifier().to_string() });
    // The trusted key over the other's signatures.
    let mut members = unpack(&bytes);
    *content(&mut members, "keys/ledger.pub") = format!("{trust}\n").into_bytes();
    assert!(verify_bundle(&repack(&members), &trusting(&trust)).is_err());
}

/// Begins a ledger with another's key, as its owner can.
fn rewritten(scratch: &Scratch) -> Ledger {
    let state = scratch.join("rewritten");
    fs::create_dir(&state).unwrap();
    fs::copy(scratch.join("state/ledger.key"), state.join("ledger.key")).unwrap();
    Ledger::open(&state).unwrap()
}

#[test]
fn against_the_owner_of_the_key_only_a_kept_checkpoint_helps() {
    let (scratch, ledger) = three_drills();
    let kept = ledger.checkpoints().unwrap()[0].note.clone();
    let trust = ledger.verifier().to_string();
    let rewritten = rewritten(&scratch);
    for entry in ledger.entries(&Filter::default()).unwrap() {
        if entry.body["drill"] != 1 {
            let bytes =
                entry.envelopes().first().map(|sha256| ledger.attachment(sha256).unwrap().unwrap());
            bytes.iter().for_each(|bytes| drop(rewritten.attach("drill", bytes).unwrap()));
            rewritten.append(&entry.kind, entry.at, &entry.body).unwrap();
        }
    }
    let bytes = export(&rewritten, &scratch);
    assert!(verify_bundle(&bytes, &trusting(&trust)).unwrap().trusted);
    let since = VerifyOptions { since: Some(&kept), ..trusting(&trust) };
    let refused = verify_bundle(&bytes, &since).unwrap_err();
    assert_eq!(refused.code(), "evidence-rewritten");
}

#[test]
fn a_gap_in_the_numbers_is_found() {
    let (scratch, ledger) = three_drills();
    let rewritten = rewritten(&scratch);
    for entry in
        ledger.entries(&Filter { kinds: Some(&["drill-started"]), ..Filter::default() }).unwrap()
    {
        if entry.body["number"] != 2 {
            rewritten.append(&entry.kind, entry.at, &entry.body).unwrap();
        }
    }
    let bytes = export(&rewritten, &scratch);
    let expected = Mismatch::Sequence { index: 1, field: "number".to_owned(), expected: 2 };
    assert_eq!(mismatch(&bytes), Some(expected));
    assert!(verify_bundle(&bytes, &VerifyOptions::default()).is_ok());
    let bulk = VerifyOptions { sequences: &[("marker", "n")], ..VerifyOptions::default() };
    assert!(verify_bundle(&bytes, &bulk).is_err());
}

#[test]
fn envelopes_by_others_and_of_other_types_are_refused() {
    let statement = evidence::statement(&[("plan", "00")], DRILL_PREDICATE, &json!({}));
    let other = SignerKey::from_seed("somebody", &[9; 32]).unwrap();
    let check = |make: &dyn Fn(&Ledger) -> Vec<u8>, expected: &str| {
        let scratch = Scratch::new("ledger").unwrap();
        let ledger = Ledger::open(&scratch.join("state")).unwrap();
        let sha256 = ledger.attach("envelope", &make(&ledger)).unwrap();
        ledger.append("drill-sealed", at(0), &json!({"envelope_sha256": sha256})).unwrap();
        let options = muster_ledger::ExportOptions::new(at(1));
        let error = ledger.export(&scratch.join("x.tar"), &options).unwrap_err();
        let muster_ledger::LedgerError::ExportNotVerified { source } = error else {
            panic!("{error}")
        };
        assert_eq!(source.to_string(), format!("envelope {sha256}: {expected}"));
    };
    check(&|_| b"{}".to_vec(), "it is not a DSSE envelope");
    check(&|_| evidence::seal(&other, &statement).to_bytes(), "the ledger's key did not sign it");
    check(
        &|ledger| ledger.seal(&json!({})).unwrap().to_bytes(),
        "it does not hold an in-toto statement",
    );
}
