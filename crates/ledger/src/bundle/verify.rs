//! Verification of a bundle: pure over its bytes, and the first thing that does not match.
//!
//! The order is from the outside in: archive, manifest, key, checkpoint, entries against the
//! root, what the last entry says against what is there, earlier checkpoints, envelopes. What
//! is checked later may rely on what was checked before.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    contents::{
        CHECKPOINT, Contents, ENTRIES, KEY, MANIFEST, attachment_name, checkpoint_name,
        envelope_name, manifest,
    },
    lines::{self, Line},
};
use crate::{
    archive::{self, Member},
    checkpoint::{Checkpoint, SignedCheckpoint},
    entry::Entry,
    evidence::{Envelope, EnvelopeError},
    ledger::EXPORTED,
    merkle::Hash,
    mismatch::Mismatch,
    note::{NoteError, VerifierKey},
};

/// What to verify against. The default trusts nobody: it shows integrity and not origin.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyOptions<'a> {
    /// The keys that are trusted, one in a line (`ledger.pub`); empty lines and those that begin
    /// with `#` do not count.
    pub trust: Option<&'a str>,
    /// A checkpoint that was kept: the log in the bundle must continue it.
    pub since: Option<&'a str>,
    /// Kinds whose entries are numbered 1, 2, 3 … in a field of their body, without gaps.
    pub sequences: &'a [(&'a str, &'a str)],
}

/// What a bundle proves.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The name of the log.
    pub origin: String,
    /// How many entries it has, those left out included.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The checkpoint: what to keep for the next time.
    pub checkpoint: String,
    /// The entries that are given in full, in order.
    pub entries: Vec<Entry>,
    /// How many entries are left out, by kind.
    pub elided: BTreeMap<String, u64>,
    /// The envelopes, in the order of their names.
    pub envelopes: Vec<VerifiedEnvelope>,
    /// The files that were exported with the log: names and contents.
    pub attachments: Vec<(String, Vec<u8>)>,
    /// The key that signed everything.
    pub key: VerifierKey,
    /// Whether that is a trusted key. `false` when nobody said whom to trust.
    pub trusted: bool,
    /// The size of the kept checkpoint that the log continues, when one was given.
    pub consistent_since: Option<u64>,
}

/// An envelope whose signature was verified.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedEnvelope {
    /// Its name: the SHA-256 of its bytes.
    pub sha256: String,
    /// The statement in it.
    pub statement: Value,
}

/// Verifies a bundle, offline.
///
/// # Errors
/// Fails with the first thing that does not match.
pub fn verify_bundle(bytes: &[u8], options: &VerifyOptions<'_>) -> Result<Verified, Mismatch> {
    let members = archive::read(bytes)?;
    let members = check_manifest(&members)?;
    let key = read_key(&members)?;
    let trusted = options.trust.map(|trust| is_trusted(&key, trust)).transpose()?;
    let (name, text) = (CHECKPOINT, text_of(&members, CHECKPOINT)?);
    let signed = open_checkpoint(name, text, &key)?;
    let lines = lines::read(content_of(&members, ENTRIES)?)?;
    check_root(&lines, &signed.checkpoint)?;
    let contents = read_contents(&lines)?;
    check_counts(&lines, &contents)?;
    check_earlier(&members, &lines, &contents, &key)?;
    let consistent_since = check_since(&lines, options.since, &signed.checkpoint, &key)?;
    let entries: Vec<Entry> = lines.into_iter().filter_map(full).collect();
    let envelopes = check_envelopes(&members, &entries, &key)?;
    let attachments = check_attachments(&members, &contents)?;
    refuse_unexpected(&members, &contents, &envelopes)?;
    check_sequences(&entries, &contents, options.sequences)?;
    let Checkpoint { origin, size, root } = signed.checkpoint;
    let is_bulk = |(kind, _): &(String, u64)| contents.bulk_kinds.contains(kind);
    Ok(Verified {
        origin,
        size,
        root,
        checkpoint: signed.note,
        entries,
        elided: contents.counts.clone().into_iter().filter(is_bulk).collect(),
        envelopes,
        attachments,
        key,
        trusted: trusted.is_some(),
        consistent_since,
    })
}

type Members<'a> = BTreeMap<&'a str, &'a [u8]>;

fn check_manifest<'a>(members: &'a [Member<'_>]) -> Result<Members<'a>, Mismatch> {
    let refused = |problem: &str| Mismatch::member(MANIFEST, problem);
    let Some(((name, content), rest)) = members.split_first() else {
        return Err(refused("it is missing"));
    };
    if name != MANIFEST {
        return Err(refused("it does not come first"));
    }
    if rest.iter().any(|(name, _)| name == MANIFEST) {
        return Err(refused("there are two of them"));
    }
    if !rest.is_sorted_by(|(left, _), (right, _)| left < right) {
        return Err(refused("the other members are not in order"));
    }
    if **content != *manifest(rest).as_bytes() {
        return Err(first_undescribed(content, rest));
    }
    Ok(members.iter().map(|(name, content)| (&**name, &**content)).collect())
}

/// The first member that the manifest does not describe as it is, for the message.
fn first_undescribed(content: &[u8], members: &[Member<'_>]) -> Mismatch {
    let described: Value = serde_json::from_slice(content).unwrap_or_default();
    let described = described["members"].as_array().cloned().unwrap_or_default();
    let is_described = |(name, content): &&Member<'_>| {
        let sha256 = Hash::of(content).to_string();
        described.iter().any(|member| member["name"] == **name && member["sha256"] == *sha256)
    };
    match members.iter().find(|member| !is_described(member)) {
        Some((name, _)) => Mismatch::member(&**name, "it is not what the manifest describes"),
        None => Mismatch::member(MANIFEST, "it describes other members than there are"),
    }
}

fn content_of<'a>(members: &Members<'a>, name: &str) -> Result<&'a [u8], Mismatch> {
    members.get(name).copied().ok_or_else(|| Mismatch::member(name, "it is missing"))
}

fn text_of<'a>(members: &Members<'a>, name: &str) -> Result<&'a str, Mismatch> {
    std::str::from_utf8(content_of(members, name)?)
        .map_err(|_| Mismatch::member(name, "it is not text"))
}

fn read_key(members: &Members<'_>) -> Result<VerifierKey, Mismatch> {
    let line = text_of(members, KEY)?.strip_suffix('\n');
    let key = line.and_then(|line| line.parse().ok());
    key.ok_or_else(|| Mismatch::member(KEY, NoteError::Key.to_string()))
}

fn is_trusted(key: &VerifierKey, trust: &str) -> Result<(), Mismatch> {
    let lines =
        trust.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parse = |line: &str| line.parse().map_err(|_| Mismatch::TrustUnreadable);
    let trusted: Vec<VerifierKey> = lines.map(parse).collect::<Result<_, _>>()?;
    if trusted.is_empty() {
        return Err(Mismatch::TrustUnreadable);
    }
    let refused = || Mismatch::KeyNotTrusted { key: key.to_string() };
    trusted.contains(key).then_some(()).ok_or_else(refused)
}

fn open_checkpoint(
    name: &str,
    text: &str,
    key: &VerifierKey,
) -> Result<SignedCheckpoint, Mismatch> {
    SignedCheckpoint::open_exact(text, key)
        .map_err(|error| Mismatch::member(name, error.to_string()))
}

fn check_root(lines: &[Line], signed: &Checkpoint) -> Result<(), Mismatch> {
    let (frontier, _) = lines::roots(lines, &BTreeSet::new());
    if frontier.size() != signed.size {
        let problem = match frontier.size() < signed.size {
            true => "it is missing",
            false => "it comes after the signed end of the log",
        };
        return Err(Mismatch::entry(frontier.size().min(signed.size), problem));
    }
    same_root(signed, frontier.root())
}

fn same_root(signed: &Checkpoint, found: Hash) -> Result<(), Mismatch> {
    if found == signed.root {
        return Ok(());
    }
    let (signed_root, found) = (signed.root.to_string(), found.to_string());
    Err(Mismatch::Root { size: signed.size, signed: signed_root, found })
}

fn read_contents(lines: &[Line]) -> Result<Contents, Mismatch> {
    match lines.last() {
        Some(Line::Full(entry, _)) if entry.kind == EXPORTED => Contents::from_body(&entry.body)
            .ok_or_else(|| Mismatch::entry(entry.index, "it does not say what was exported")),
        _ => Err(Mismatch::entry(
            lines.len().saturating_sub(1) as u64,
            "the last entry does not say what was exported",
        )),
    }
}

/// Compares what the last entry counted with what is there: only the kinds that it names are
/// left out, and all of theirs.
fn check_counts(lines: &[Line], contents: &Contents) -> Result<(), Mismatch> {
    let (mut given, mut elided) = (BTreeMap::new(), 0_u64);
    for line in lines.iter().rev().skip(1) {
        match line {
            Line::Full(entry, _) => *given.entry(entry.kind.as_str()).or_insert(0) += 1,
            Line::Elided { level, .. } => elided += 1 << level,
        }
    }
    let kinds: BTreeSet<&str> =
        given.keys().copied().chain(contents.counts.keys().map(String::as_str)).collect();
    let mut bulk = 0_u64;
    for kind in kinds {
        let found = given.get(kind).copied().unwrap_or(0);
        let counted = contents.counts.get(kind).copied().unwrap_or(0);
        let is_bulk = contents.bulk_kinds.contains(kind);
        let expected = if is_bulk { 0 } else { counted };
        if found != expected {
            return Err(Mismatch::Count { kind: kind.to_owned(), counted: expected, found });
        }
        bulk = bulk.saturating_add(if is_bulk { counted } else { 0 });
    }
    if elided != bulk {
        let kind = contents.bulk_kinds.iter().cloned().collect::<Vec<_>>().join(", ");
        return Err(Mismatch::Count { kind, counted: bulk, found: elided });
    }
    match lines::first_loose_run(lines, &contents.checkpoints) {
        None => Ok(()),
        Some(index) => {
            Err(Mismatch::entry(index, "what is left out is not written in the one way"))
        }
    }
}

fn check_earlier(
    members: &Members<'_>,
    lines: &[Line],
    contents: &Contents,
    key: &VerifierKey,
) -> Result<(), Mismatch> {
    let (_, roots) = lines::roots(lines, &contents.checkpoints);
    for size in &contents.checkpoints {
        let name = checkpoint_name(*size);
        let earlier = open_checkpoint(&name, text_of(members, &name)?, key)?.checkpoint;
        if earlier.size != *size {
            return Err(Mismatch::member(name, "it is of another size than its name says"));
        }
        let root =
            roots.get(size).ok_or_else(|| Mismatch::member(&name, "it is beyond the log"))?;
        same_root(&earlier, *root)?;
    }
    Ok(())
}

fn check_since(
    lines: &[Line],
    since: Option<&str>,
    signed: &Checkpoint,
    key: &VerifierKey,
) -> Result<Option<u64>, Mismatch> {
    let Some(note) = since else { return Ok(None) };
    let kept = Checkpoint::open(note, key).map_err(|error| match error {
        NoteError::Form | NoteError::Key => Mismatch::SinceUnreadable,
        NoteError::Unsigned | NoteError::Signature => Mismatch::SinceOfAnother,
    })?;
    let size = kept.size;
    let rewritten = |problem: String| Mismatch::Rewritten { size, problem };
    if size > signed.size {
        return Err(rewritten(format!("the bundle has {} entries", signed.size)));
    }
    let (_, roots) = lines::roots(lines, &BTreeSet::from([size]));
    let root = roots.get(&size).ok_or(Mismatch::NotComparable { size })?;
    if *root == kept.root {
        return Ok(Some(size));
    }
    Err(rewritten(format!("the root was {} and is {root}", kept.root)))
}

fn full(line: Line) -> Option<Entry> {
    match line {
        Line::Full(entry, _) => Some(entry),
        Line::Elided { .. } => None,
    }
}

fn check_envelopes(
    members: &Members<'_>,
    entries: &[Entry],
    key: &VerifierKey,
) -> Result<Vec<VerifiedEnvelope>, Mismatch> {
    let named: BTreeSet<&str> = entries.iter().flat_map(Entry::envelopes).collect();
    named.into_iter().map(|sha256| check_envelope(members, sha256, key)).collect()
}

fn check_envelope(
    members: &Members<'_>,
    sha256: &str,
    key: &VerifierKey,
) -> Result<VerifiedEnvelope, Mismatch> {
    let bytes = members.get(envelope_name(sha256).as_str());
    let statement = verify_envelope(bytes.copied(), sha256, key)?;
    Ok(VerifiedEnvelope { sha256: sha256.to_owned(), statement })
}

/// Compares an envelope with its name, and verifies it.
pub(super) fn verify_envelope(
    bytes: Option<&[u8]>,
    sha256: &str,
    key: &VerifierKey,
) -> Result<Value, Mismatch> {
    let refused = |problem| Mismatch::Envelope { sha256: sha256.to_owned(), problem };
    let bytes = bytes.ok_or_else(|| refused("an entry names it and it is missing"))?;
    if Hash::of(bytes).to_string() != sha256 {
        return Err(refused("it is not what its name says"));
    }
    let envelope = Envelope::from_bytes(bytes).map_err(|_| refused("it is not a DSSE envelope"))?;
    envelope.verify_statement(key).map_err(|error| match error {
        EnvelopeError::Form => refused("it does not hold an in-toto statement"),
        EnvelopeError::Signature => refused("the ledger's key did not sign it"),
    })
}

fn check_attachments(
    members: &Members<'_>,
    contents: &Contents,
) -> Result<Vec<(String, Vec<u8>)>, Mismatch> {
    let check = |(name, sha256): (&String, &String)| {
        let member = attachment_name(name);
        let content = content_of(members, &member)?;
        if Hash::of(content).to_string() != *sha256 {
            return Err(Mismatch::member(member, "it is not what the log recorded"));
        }
        Ok((name.clone(), content.to_vec()))
    };
    contents.attachments.iter().map(check).collect()
}

fn refuse_unexpected(
    members: &Members<'_>,
    contents: &Contents,
    envelopes: &[VerifiedEnvelope],
) -> Result<(), Mismatch> {
    let mut expected: BTreeSet<String> =
        [MANIFEST, KEY, CHECKPOINT, ENTRIES].map(str::to_owned).into();
    expected.extend(contents.checkpoints.iter().map(|size| checkpoint_name(*size)));
    expected.extend(contents.attachments.keys().map(|name| attachment_name(name)));
    expected.extend(envelopes.iter().map(|envelope| envelope_name(&envelope.sha256)));
    match members.keys().find(|name| !expected.contains(**name)) {
        None => Ok(()),
        Some(name) => Err(Mismatch::member(*name, "no entry speaks of it")),
    }
}

fn check_sequences(
    entries: &[Entry],
    contents: &Contents,
    sequences: &[(&str, &str)],
) -> Result<(), Mismatch> {
    for (kind, field) in sequences {
        if contents.bulk_kinds.contains(*kind) {
            let (kind, counted) = ((*kind).to_owned(), contents.counts.get(*kind).copied());
            return Err(Mismatch::Count { kind, counted: counted.unwrap_or(0), found: 0 });
        }
        let of_kind = entries.iter().filter(|entry| entry.kind == *kind);
        for (expected, entry) in (1..).zip(of_kind) {
            if entry.body[*field].as_u64() != Some(expected) {
                let (index, field) = (entry.index, (*field).to_owned());
                return Err(Mismatch::Sequence { index, field, expected });
            }
        }
    }
    Ok(())
}
