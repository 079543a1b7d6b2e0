//! What servers that hold a repository answer: bytes in, nothing out, a panic is a finding.
//!
//! The parsers are private to `muster-stores`, so this file names them as that crate does, whose
//! tests use it too; here, `lib.rs` takes in the parsers' files.

use muster_repository::{
    format::time::Timestamp,
    storage::{File, FileKind},
};
use serde_json::Value;

use crate::{
    rest::listing::{Listing, NoListing},
    s3::{
        deletion::{Told, request, told},
        versions::{Versions, take_page},
        xml::{element, escaped, unescaped},
    },
    sftp::wire::{self, Attributes, Reply, Request},
};

/// A target: its name, which is that of its folder of seeds, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("rest_listing", rest_listing),
    ("s3_deletion", s3_deletion),
    ("s3_versions", s3_versions),
    ("sftp_reply", sftp_reply),
];

/// A packet of SFTP without its length. What is accepted is written and read again.
pub fn sftp_reply(data: &[u8]) {
    assert_eq!(wire::free_bytes(data).is_some(), data.len() >= 40, "five numbers");
    if let Ok((id, reply)) = wire::parse(data) {
        if let Reply::Names(names) = &reply {
            // Three lengths and flags are the least that a name takes.
            assert!(names.len() <= data.len() / 12, "{} names", names.len());
        }
        let written = written(id, &reply);
        let again = wire::parse(&written).expect("what was read can be written");
        assert_eq!(again, (id, reply));
    }
    if let Ok(path) = str::from_utf8(data) {
        requests(path, data);
    }
}

/// A reply as a server would send it.
fn written(id: u32, reply: &Reply) -> Vec<u8> {
    let (kind, body) = match reply {
        // Its number is the protocol's version.
        Reply::Version { extensions } => {
            let pair = |name: &String| [string(name.as_bytes()), string(b"")].concat();
            (2, extensions.iter().flat_map(pair).collect())
        }
        Reply::Status { code, message } => {
            (101, [&code.to_be_bytes()[..], &string(message.as_bytes())].concat())
        }
        Reply::Handle(handle) => (102, string(handle)),
        Reply::Data(data) => (103, string(data)),
        Reply::Names(names) => {
            let count = u32::try_from(names.len()).expect("inputs are small");
            let one = |(name, about): &(Vec<u8>, Attributes)| {
                [string(name), string(b""), attributes(*about)].concat()
            };
            let names = names.iter().flat_map(one);
            (104, count.to_be_bytes().into_iter().chain(names).collect())
        }
        Reply::Attributes(about) => (105, attributes(*about)),
        Reply::Extended(body) => (201, body.clone()),
    };
    [&[kind][..], &id.to_be_bytes(), &body].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("inputs are small");
    [&length.to_be_bytes()[..], bytes].concat()
}

fn attributes(about: Attributes) -> Vec<u8> {
    let flags = u32::from(about.bytes.is_some())
        | u32::from(about.mode.is_some()) << 2
        | u32::from(about.changed_s.is_some()) << 3;
    let mut written = flags.to_be_bytes().to_vec();
    written.extend(about.bytes.into_iter().flat_map(u64::to_be_bytes));
    written.extend(about.mode.into_iter().flat_map(u32::to_be_bytes));
    written.extend(about.changed_s.into_iter().flat_map(|s| [s, s]).flat_map(u32::to_be_bytes));
    written
}

/// Whatever a name or a handle is, a request is as long as it says.
fn requests(path: &str, handle: &[u8]) {
    for request in [
        Request::OpenToRead { path },
        Request::OpenNew { path, mode: 0o600 },
        Request::Close { handle },
        Request::Read { handle, offset: 1, bytes: 2 },
        Request::Write { handle, offset: 1, data: handle },
        Request::Stat { path },
        Request::OpenFolder { path },
        Request::ReadFolder { handle },
        Request::Remove { path },
        Request::MakeFolder { path, mode: 0o700 },
        Request::Rename { from: path, to: path },
        Request::PosixRename { from: path, to: path },
        Request::Sync { handle },
        Request::Space { path },
    ] {
        let packet = request.packet(7);
        let (length, rest) = packet.split_first_chunk().expect("it has a length");
        assert_eq!(u32::from_be_bytes(*length) as usize, rest.len(), "{request:?}");
        assert_eq!(rest[1..5], 7_u32.to_be_bytes());
    }
    assert_eq!(wire::init()[..4], [0, 0, 0, 5]);
}

/// A listing of the REST protocol: the first byte is the kind of file, and where it is cut. It is
/// read as `serde_json` reads it whole.
pub fn rest_listing(data: &[u8]) {
    let Some((first, text)) = data.split_first() else { return };
    let kinds = FileKind::ALL.into_iter().filter(|kind| *kind != FileKind::Config);
    let kind = kinds.cycle().nth(usize::from(*first)).expect("it cycles");
    let read = |pieces: usize| -> Result<Vec<(File, Option<u64>)>, NoListing> {
        let mut listing = Listing::of(kind);
        text.chunks(pieces).try_for_each(|piece| listing.push(piece))?;
        listing.finish()
    };
    let found = read(text.len().max(1));
    assert_eq!(found, read(1), "however it is cut");
    assert_eq!(found, read(usize::from(*first) + 1), "however it is cut");
    // Deeper ones are refused at different depths, as entries and as a whole.
    let depth = text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if text.len() <= 4096 && depth < 100 {
        assert_eq!(found.ok(), expected(kind, text));
    }
}

fn expected(kind: FileKind, text: &[u8]) -> Option<Vec<(File, Option<u64>)>> {
    let entries = serde_json::from_slice::<Option<Vec<Value>>>(text).ok()?.unwrap_or_default();
    let mut found = Vec::new();
    for entry in entries {
        let (name, bytes) = match entry.as_str() {
            Some(name) => (name, None),
            None => (entry.get("name")?.as_str()?, Some(entry.get("size")?.as_u64()?)),
        };
        found.extend(kind.file(name).map(|file| (file, bytes)));
    }
    Some(found)
}

/// A page of versions: the first line is the prefix.
pub fn s3_versions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (prefix, page) = text.split_once('\n').unwrap_or(("", &text));
    let moment = Timestamp::parse("2030-01-01T00:00:00Z").expect("a time");
    let mut found = Versions::new();
    take_page(page, prefix, moment, &mut found);
    for (file, version) in &found {
        assert!(version.since <= moment && version.id.len() <= 1024);
        assert!(page.contains("<Version>") || version.is_deletion, "{file}");
    }
    let once = found.clone();
    take_page(page, prefix, moment, &mut found);
    assert_eq!(found, once, "nothing is newer than itself");
    xml(page);
}

fn xml(text: &str) {
    assert_eq!(unescaped(&escaped(text)), text);
    let within = format!("<x><Key>{}</Key></x>", escaped(text));
    assert_eq!(element(&within, "Key").map(unescaped).as_deref(), Some(text));
    for name in ["Key", "IsTruncated", "NextKeyMarker", "DefaultRetention"] {
        if let Some(found) = element(text, name) {
            assert!(text.contains(&format!("<{name}>{found}</{name}>")));
        }
    }
}

/// The answer to a deletion: the keys that were asked for, an empty line, the answer.
pub fn s3_deletion(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (asked, answer) = text.split_once("\n\n").unwrap_or(("", &text));
    let mut keys: Vec<String> = asked.lines().map(str::to_owned).collect();
    keys.sort_unstable();
    keys.dedup();
    let outcomes = told(answer, &keys);
    assert_eq!(outcomes.len(), keys.len());
    for (key, outcome) in keys.iter().zip(&outcomes) {
        let is_named = answer.contains(&format!("<Key>{}</Key>", escaped(key)))
            || unescaped(answer).contains(key.as_str());
        assert!(is_named || *outcome == Told::Nothing, "{key}: {outcome:?}");
        if let Told::Refused { code, message } = outcome {
            assert!(code.chars().count() <= 100 && message.chars().count() <= 300);
        }
    }
    let body = request(&keys);
    assert_eq!(body.matches("<Key>").count(), keys.len());
    assert!(keys.iter().all(|key| body.contains(&escaped(key))));
}
