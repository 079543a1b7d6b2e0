//! One function per target: bytes in, nothing out, a panic is a finding.
//!
//! Three things are asserted everywhere: nothing panics; what is accepted is written and read
//! back as the same value; and what is written once is from then on always written alike. What
//! is sealed in a repository is sealed here with a key of our own, for no fuzzer guesses an
//! authenticator; the same bytes also go in as they are, as a forgery.

use std::fmt::Debug;

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_repository::{
    crypto::{Key, KeyMaterial},
    exclude::{Patterns, patterns_in_file},
    format::{
        FormatError,
        config::Config,
        go_json, go_quote,
        index_file::{IndexFile, IndexPack},
        key_file::{KeyFile, WrapError},
        lock_file::LockFile,
        pack::{
            LENGTH_FIELD_BYTES, PackedBlob, append_header, header_span, pack_bytes, read_header,
        },
        snapshot::Snapshot,
        tree::{Node, Tree, TreeWriter},
        unpacked::{Wrapping, open_json, seal_json},
    },
    id::PackId,
    index::Index,
};
use serde::{Serialize, de::DeserializeOwned};

/// A target: its name, which is that of its folder of seeds, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("config", config),
    ("go_quote", go_quote),
    ("index_file", index_file),
    ("key_file", key_file),
    ("lock_file", lock_file),
    ("pack_header", pack_header),
    ("patterns", patterns),
    ("snapshot", snapshot),
    ("tree", tree),
];

fn key() -> Key {
    Key::new(KeyMaterial::from_bytes(&[7; 64]))
}

fn seal(plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    key().seal(plaintext, &mut sealed).expect("the system has randomness");
    sealed
}

/// A file of JSON: `data` is taken as its plaintext, and as the sealed file.
fn unpacked<T>(data: &[u8], validated: impl Fn(T) -> Result<T, FormatError>) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let key = key();
    assert!(open_json::<T>(&key, data.to_vec()).is_err(), "a forgery was accepted");
    let value = validated(open_json(&key, seal(data)).ok()?).ok()?;
    for wrapping in [Wrapping::Plain, Wrapping::Compressed] {
        let sealed = seal_json(&key, wrapping, &value).expect("what was read can be written");
        let again = open_json(&key, sealed).expect("what was written can be read");
        assert_eq!(validated(again).expect("it is as valid as before"), value);
    }
    let written = go_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(go_json::to_vec(&again).expect("it was written before"), written);
    Some(value)
}

/// `config`: the plaintext.
pub fn config(data: &[u8]) {
    unpacked::<Config>(data, Config::validated);
}

/// A lock file: the plaintext.
pub fn lock_file(data: &[u8]) {
    unpacked::<LockFile>(data, Ok);
}

/// A snapshot: the plaintext.
pub fn snapshot(data: &[u8]) {
    unpacked::<Snapshot>(data, Ok);
}

/// An index file: the plaintext. What is accepted goes into an index, twice.
pub fn index_file(data: &[u8]) {
    let Some(file) = unpacked(data, IndexFile::validated) else { return };
    let mut index = Index::new();
    index.add_file(&file);
    let count = index.len();
    index.add_file(&file);
    for pack in &file.packs {
        assert!(pack.blobs.is_empty() || index.knows_pack(&pack.id));
        for blob in &pack.blobs {
            let blob = PackedBlob::from(*blob);
            assert!(index.find_all(blob.kind, blob.id).any(|found| found.blob == blob));
        }
    }
    assert!(index.len() >= count && index.iter().count() == index.len());
}

/// A pack: `data` is the plaintext of its header, and also the whole pack.
pub fn pack_header(data: &[u8]) {
    if let Some(field) = data.last_chunk()
        && let Ok(span) = header_span(*field, data.len() as u64)
    {
        let tail = &data[data.len() - span..];
        assert!(read_header(&key(), tail, data.len() as u64).is_err(), "a forgery was accepted");
    }
    let mut tail = seal(data);
    let length = u32::try_from(tail.len()).expect("inputs are small");
    tail.extend_from_slice(&length.to_le_bytes());
    let bytes = claimed_bytes(data).saturating_add(tail.len() as u64);
    let fits = header_span(length.to_le_bytes(), bytes).is_ok_and(|span| span == tail.len());
    for wrong in [0, tail.len() as u64 - 1, bytes.saturating_add(1), u64::MAX] {
        assert!(read_header(&key(), &tail, wrong).is_err(), "{wrong} bytes were accepted");
    }
    let Ok(blobs) = read_header(&key(), &tail, bytes) else { return };
    assert!(fits || blobs.is_empty());
    assert_eq!(pack_bytes(&blobs), bytes);
    assert!(blobs.windows(2).all(|pair| pair[0].offset + pair[0].length == pair[1].offset));
    let mut written = Vec::new();
    append_header(&key(), &blobs, &mut written).expect("what was read can be written");
    let (sealed, _) = written.split_at(written.len() - LENGTH_FIELD_BYTES);
    let mut header = Vec::new();
    key().open(sealed, &mut header).expect("we sealed it");
    assert_eq!(header, data, "a header has one form only");
    let pack =
        IndexPack { id: PackId::of(data), blobs: blobs.iter().map(|b| (*b).into()).collect() };
    let file = IndexFile { packs: vec![pack], packs_to_delete: Vec::new() };
    assert!(file.validated().is_ok(), "what a header may say an index may say");
}

/// How many bytes of blobs a header speaks of, as far as it can be followed.
fn claimed_bytes(mut header: &[u8]) -> u64 {
    let mut bytes = 0;
    while let [kind, a, b, c, d, ..] = *header {
        bytes += u64::from(u32::from_le_bytes([a, b, c, d]));
        let entry_bytes = if kind < 2 { 37 } else { 41 };
        header = header.get(entry_bytes..).unwrap_or_default();
    }
    bytes
}

/// A folder's tree: the plaintext of its blob.
pub fn tree(data: &[u8]) {
    let Ok(tree) = Tree::parse(data) else { return };
    for node in &tree.nodes {
        assert!(!node.name.is_empty() && node.name != b"." && node.name != b"..");
        assert!(!node.name.contains(&b'/') && !node.name.contains(&0));
        assert_eq!(tree.get(&node.name), Some(node), "names are in order and unique");
    }
    let written = write_tree(&tree);
    let again = Tree::parse(&written).expect("what was written can be read");
    // The last digit of a floating point number may differ. Attributes of other systems may
    // hold some; no tool writes any.
    if !tree.nodes.iter().any(has_fraction) {
        assert_eq!(again, tree);
        assert_eq!(write_tree(&again), written);
    }
}

fn write_tree(tree: &Tree) -> Vec<u8> {
    let mut writer = TreeWriter::new();
    for node in &tree.nodes {
        writer.push(node).expect("what was read can be written");
    }
    writer.finish()
}

fn has_fraction(node: &Node) -> bool {
    let attributes = node.generic_attributes.values().cloned().collect::<Vec<_>>();
    let mut values = attributes;
    while let Some(value) = values.pop() {
        match value {
            serde_json::Value::Number(number) if number.is_f64() => return true,
            serde_json::Value::Array(inner) => values.extend(inner),
            serde_json::Value::Object(inner) => values.extend(inner.into_iter().map(|pair| pair.1)),
            _ => {}
        }
    }
    false
}

/// A key file: `data` is the file, and also the secret sealed inside a sound one.
pub fn key_file(data: &[u8]) {
    if let Ok(file) = KeyFile::parse(data) {
        let written = file.to_bytes().expect("what was read can be written");
        let again = KeyFile::parse(&written).expect("what was written can be read");
        assert_eq!(again.to_bytes().expect("it was written before"), written);
        if is_cheap(&written) {
            assert!(file.unwrap_master(b"wrong").is_err());
        }
    }
    let salt = [0; 64];
    let mut derived = [0; 64];
    let params = scrypt::Params::new(1, 1, 1).expect("the cheapest there are");
    scrypt::scrypt(b"right", &salt, &params, &mut derived).expect("64 bytes can be derived");
    let mut sealed = Vec::new();
    let wrapping = Key::new(KeyMaterial::from_bytes(&derived));
    wrapping.seal(data, &mut sealed).expect("the system has randomness");
    let (salt, sealed) = (STANDARD.encode(salt), STANDARD.encode(sealed));
    let json = format!(r#"{{"kdf":"scrypt","N":2,"r":1,"p":1,"salt":"{salt}","data":"{sealed}"}}"#);
    let Ok(file) = KeyFile::parse(json.as_bytes()) else {
        return assert!(data.is_empty(), "only a secret of no bytes is too short");
    };
    assert!(matches!(file.unwrap_master(b"wrong"), Err(WrapError::WrongPassword)));
    match file.unwrap_master(b"right") {
        Ok(material) => assert!(material.is_plausible()),
        Err(error) => assert!(matches!(error, WrapError::Format(_)), "{error}"),
    }
}

/// Whether scrypt would be done in no time.
fn is_cheap(file: &[u8]) -> bool {
    let json: serde_json::Value = serde_json::from_slice(file).expect("it is JSON");
    let field = |name: &str| json[name].as_u64().expect("it is a number");
    field("N").saturating_mul(field("r")).saturating_mul(field("p")) <= 64
}

/// A file name: `data` as the raw name, and as the text in a tree.
pub fn go_quote(data: &[u8]) {
    let quoted = go_quote::quote(data);
    let back = go_quote::unquote(&quoted).expect("what was quoted can be unquoted");
    assert_eq!(back, data);
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(name) = go_quote::unquote(text) else { return };
    let quoted = go_quote::quote(&name);
    assert_eq!(go_quote::unquote(&quoted).expect("it was quoted here"), name);
}

/// Patterns: the first line of `data` is a path, the others are patterns.
pub fn patterns(data: &[u8]) {
    // Longer ones only take longer: matching is exponential in the number of `**`, as in restic.
    let data = &data[..data.len().min(200)];
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let path = lines.next().unwrap_or_default();
    let text = lines.next().unwrap_or_default();
    let in_file = patterns_in_file(text, |name| Some(name.to_vec()));
    let negates = in_file.iter().any(|pattern| pattern.starts_with(b"!"));
    for ignores_case in [false, true] {
        let parsed = match ignores_case {
            false => Patterns::parse(&in_file),
            true => Patterns::parse_ignoring_case(&in_file),
        };
        let Ok(parsed) = parsed else { continue };
        assert_eq!(parsed.is_empty(), in_file.iter().all(Vec::is_empty));
        let (matched, _) = parsed.matches_with_child(path);
        assert_eq!(parsed.matches(path), matched);
        if matched && !negates && is_clean(path) {
            // Otherwise a restore would not come by what it was asked for.
            for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                let above = &path[..end.max(1)];
                assert!(parsed.matches_with_child(above).1, "{}", above.escape_ascii());
            }
            let below = [path, b"/below"].concat();
            assert!(parsed.matches(&below), "what is in a folder goes with it");
        }
    }
}

/// Whether a walk could come by the path.
fn is_clean(path: &[u8]) -> bool {
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    path.split_first()
        .is_some_and(|(first, names)| *first == b'/' && names.split(|b| *b == b'/').all(is_name))
}
