//! What a bundle consists of: the names of its members and the entry that lists them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::archive::Member;
use crate::merkle::Hash;

/// The version of everything in this folder.
pub(super) const FORMAT: &str = "muster-evidence/1";
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const KEY: &str = "keys/ledger.pub";
pub(super) const CHECKPOINT: &str = "log/checkpoint";
pub(super) const ENTRIES: &str = "log/entries.jsonl";
/// So many of the newest checkpoints are carried, and the first.
pub(super) const CHECKPOINTS_MAX: usize = 100;

pub(super) fn checkpoint_name(size: u64) -> String {
    format!("log/checkpoints/{size}")
}

pub(super) fn envelope_name(sha256: &str) -> String {
    format!("envelopes/{sha256}.json")
}

pub(super) fn attachment_name(name: &str) -> String {
    format!("attachments/{name}")
}

/// What the last entry of an exported log says: the contents of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Contents {
    /// Kinds whose entries are told by hashes only.
    pub(super) bulk_kinds: BTreeSet<String>,
    /// How many entries of each kind there are before this one.
    pub(super) counts: BTreeMap<String, u64>,
    /// The sizes of the earlier checkpoints that are carried.
    pub(super) checkpoints: BTreeSet<u64>,
    /// The attachments' names and SHA-256.
    pub(super) attachments: BTreeMap<String, String>,
}

impl Contents {
    pub(super) fn to_body(&self) -> Value {
        json!({
            "format": FORMAT,
            "bulk_kinds": self.bulk_kinds,
            "counts": self.counts,
            "checkpoints": self.checkpoints,
            "attachments": self.attachments,
        })
    }

    /// Reads what [`Self::to_body`] wrote, and nothing else.
    pub(super) fn from_body(body: &Value) -> Option<Self> {
        let text = |value: &Value| Some(value.as_str()?.to_owned());
        let kinds = body["bulk_kinds"].as_array()?.iter();
        let counts = body["counts"].as_object()?.iter();
        let checkpoints = body["checkpoints"].as_array()?.iter();
        let attachments = body["attachments"].as_object()?.iter();
        let contents = Self {
            bulk_kinds: kinds.map(text).collect::<Option<_>>()?,
            counts: counts
                .map(|(kind, n)| Some((kind.clone(), n.as_u64()?)))
                .collect::<Option<_>>()?,
            checkpoints: checkpoints.map(Value::as_u64).collect::<Option<_>>()?,
            attachments: attachments
                .map(|(name, sha256)| Some((name.clone(), text(sha256)?)))
                .collect::<Option<_>>()?,
        };
        (contents.to_body() == *body).then_some(contents)
    }
}

/// The manifest of members: what each is called, its length and its SHA-256.
pub(super) fn manifest(members: &[Member<'_>]) -> String {
    let describe = |(name, content): &Member<'_>| json!({"name": name, "size": content.len(), "sha256": Hash::of(content).to_string()});
    let members: Vec<Value> = members.iter().map(describe).collect();
    crate::canonical::encode(&json!({"format": FORMAT, "members": members}))
}
