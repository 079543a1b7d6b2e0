//! Entries: what the log holds, and the bytes that are hashed.
//!
//! A leaf is the canonical JSON of `{"at","body","index","kind"}`. The index is inside the leaf,
//! so an entry cannot be shown at another place; the kind is a name and nothing here knows what
//! it means. One member name of bodies is known: a text under `envelope_sha256`, at any depth,
//! names an attached envelope.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::canonical;

/// The longest name of a kind, in bytes.
const KIND_BYTES_MAX: usize = 64;
/// The member that names an envelope.
const ENVELOPE: &str = "envelope_sha256";

/// One entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number, from 0, without gaps.
    pub index: u64,
    /// When it happened, as whoever recorded it says.
    pub at: Timestamp,
    /// What kind of thing happened.
    pub kind: String,
    /// What happened.
    pub body: Value,
}

/// Which entries to read. The default is all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Only these kinds.
    pub kinds: Option<&'a [&'a str]>,
    /// Only what happened at this time or later.
    pub since: Option<Timestamp>,
    /// Only from this index on.
    pub from_index: u64,
    /// Only below this index.
    pub before_index: Option<u64>,
}

impl Entry {
    /// Gives the bytes whose hash is the leaf.
    #[must_use]
    pub fn to_leaf(&self) -> String {
        canonical::encode(&json!({
            "index": self.index,
            "at": self.at.to_string(),
            "kind": self.kind,
            "body": self.body,
        }))
    }

    /// Reads a leaf; `None` when these bytes are not what [`Self::to_leaf`] writes.
    #[must_use]
    pub fn from_leaf(leaf: &[u8]) -> Option<Self> {
        let mut value: Value = serde_json::from_slice(leaf).ok()?;
        let members = value.as_object_mut()?;
        let entry = Self {
            index: members.get("index")?.as_u64()?,
            at: members.get("at")?.as_str()?.parse().ok()?,
            kind: members.get("kind")?.as_str().filter(|kind| is_kind(kind))?.to_owned(),
            body: members.remove("body")?,
        };
        (entry.to_leaf().as_bytes() == leaf).then_some(entry)
    }

    /// Gives every envelope that the body names, in order, without checking what the names are.
    #[must_use]
    pub fn envelopes(&self) -> Vec<&str> {
        let mut found = Vec::new();
        gather_envelopes(&self.body, &mut found);
        found
    }
}

fn gather_envelopes<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather_envelopes(item, found)),
        Value::Object(members) => {
            for (name, member) in members {
                if name == ENVELOPE {
                    found.extend(member.as_str());
                }
                gather_envelopes(member, found);
            }
        }
        _ => {}
    }
}

/// Tells whether a text can be the name of a kind: lower-case letters, digits, `-`, `_`, `.`.
pub(crate) fn is_kind(kind: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    (1..=KIND_BYTES_MAX).contains(&kind.len()) && kind.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        Entry {
            index: 7,
            at: "2026-11-20T16:00:00.5Z".parse().unwrap(),
            kind: "drill-started".to_owned(),
            body: json!({"drill": 3, "rest": [{"envelope_sha256": "a"}, {"envelope_sha256": null}]}),
        }
    }

    #[test]
    fn leaves_have_one_encoding() {
        let leaf = r#"{"at":"2026-11-20T16:00:00.5Z","body":{"drill":3,"rest":[{"envelope_sha256":"a"},{"envelope_sha256":null}]},"index":7,"kind":"drill-started"}"#;
        assert_eq!(entry().to_leaf(), leaf);
        assert_eq!(Entry::from_leaf(leaf.as_bytes()), Some(entry()));
        for (from, to) in [
            ("0.5Z", "0.50Z"),
            ("7,", "7.0,"),
            ("7,", "07,"),
            ("\"kind\"", "\"more\":1,\"kind\""),
            ("drill-started", "Drill"),
            ("drill-started", ""),
        ] {
            assert_eq!(Entry::from_leaf(leaf.replace(from, to).as_bytes()), None, "{to}");
        }
    }

    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<u64>().prop_map(|bits| Value::from(f64::from_bits(bits))),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(".*", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_body_is_read_as_it_was_written(
            body in json_values(),
            index: u64,
            second in -62_000_000_000_i64..250_000_000_000,
            nanosecond in 0..1_000_000_000,
        ) {
            let at = Timestamp::new(second, nanosecond).unwrap();
            let entry = Entry { index, at, kind: "any".to_owned(), body };
            prop_assert_eq!(Entry::from_leaf(entry.to_leaf().as_bytes()), Some(entry));
        }
    }

    #[test]
    fn envelopes_are_found_at_any_depth() {
        assert_eq!(entry().envelopes(), ["a"]);
    }
}
