//! A ledger with a little of everything in it, and archives taken apart and put together.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use muster_ledger::evidence::{self, DRILL_PREDICATE};
use muster_ledger::{ExportOptions, Hash, Ledger, VerifyOptions, canonical_json};
use muster_testkit::Scratch;
use serde_json::{Value, json};

/// A time, in seconds after the first that tests use.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// The kind of which there are many.
pub(crate) const BULK: &[&str] = &["marker"];
pub(crate) const SEQUENCES: &[(&str, &str)] = &[("drill-started", "number")];

/// Runs a drill in the ledger: markers, a numbered start, an envelope, a checkpoint.
pub(crate) fn drill(ledger: &Ledger, markers: u64) -> String {
    let at = at(i64::try_from(ledger.size().unwrap()).unwrap());
    let (_, number) = ledger
        .append_numbered("drill-started", "number", at, &json!({"service": "orders"}))
        .unwrap();
    for n in 0..markers {
        ledger.append("marker", at, &json!({"n": n})).unwrap();
    }
    let subjects = [("plan", Hash::of(b"plan").to_string())];
    let subjects = subjects.each_ref().map(|(name, sha256)| (*name, sha256.as_str()));
    let predicate = json!({"drill": number, "verdict": "pass", "recovery_time_s": 41.3});
    let statement = evidence::statement(&subjects, DRILL_PREDICATE, &predicate);
    let envelope = ledger.seal(&statement).unwrap();
    let sha256 = ledger.attach("drill", &envelope.to_bytes()).unwrap();
    let body = json!({"drill": number, "evidence": {"envelope_sha256": sha256}});
    ledger.append("drill-sealed", at, &body).unwrap();
    ledger.checkpoint().unwrap();
    sha256
}

/// A ledger of three drills.
pub(crate) fn three_drills() -> (Scratch, Ledger) {
    let scratch = Scratch::new("ledger").unwrap();
    let ledger = Ledger::open(&scratch.join("state")).unwrap();
    for markers in [5, 11, 2] {
        drill(&ledger, markers);
    }
    (scratch, ledger)
}

/// Exports with markers left out and one attachment.
pub(crate) fn export(ledger: &Ledger, scratch: &Scratch) -> Vec<u8> {
    let attachments = [("report.html".to_owned(), b"<p>41 s</p>".to_vec())];
    let options = ExportOptions { at: at(999), bulk_kinds: BULK, attachments: &attachments };
    let exported = ledger.export(&scratch.join("bundle.tar"), &options).unwrap();
    let bytes = fs::read(&exported.path).unwrap();
    assert_eq!(Hash::of(&bytes).to_string(), exported.sha256);
    bytes
}

/// Trusts the ledger's own key.
pub(crate) fn trusting(key: &str) -> VerifyOptions<'_> {
    VerifyOptions { trust: Some(key), sequences: SEQUENCES, ..VerifyOptions::default() }
}

/// A member of an archive.
pub(crate) type Member = (String, Vec<u8>);

/// Takes an archive apart with the `tar` crate, which shares nothing with the ledger's reader.
pub(crate) fn unpack(archive: &[u8]) -> Vec<Member> {
    let mut archive = tar::Archive::new(archive);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Puts members together as the format wants it, byte by byte from its description.
pub(crate) fn pack(members: &[Member]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        let sum = header.cksum().unwrap();
        header.as_old_mut().cksum = format!("{sum:06o}\0 ").into_bytes().try_into().unwrap();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// Puts members together with a manifest that describes them: all that somebody without the
/// signing key can do to hide a change. The first member is the old manifest.
pub(crate) fn repack(members: &[Member]) -> Vec<u8> {
    let mut members = members.to_vec();
    members[1..].sort();
    let describe = |(name, content): &Member| json!({"name": name, "size": content.len(), "sha256": Hash::of(content).to_string()});
    let described: Vec<Value> = members[1..].iter().map(describe).collect();
    let manifest = json!({"format": "muster-evidence/1", "members": described});
    members[0].1 = canonical_json(&manifest).into_bytes();
    pack(&members)
}

/// Gives the content of a member, to be changed.
pub(crate) fn content<'a>(members: &'a mut [Member], name: &str) -> &'a mut Vec<u8> {
    &mut members.iter_mut().find(|(found, _)| found == name).unwrap().1
}

/// Copies a state folder, as it is on the disk.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to.to_owned()
}
