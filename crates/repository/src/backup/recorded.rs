//! What the parent recorded of a folder's entries, as text.
//!
//! Most files of most backups are what they were. The record of such a file is the same text again:
//! so its beginning is made of what `stat` tells and compared with what stands there, and nothing
//! is parsed or written. Only what differs is taken apart.
//!
//! Deliberately not here: large trees (`crate::large_tree`), which are never held as a whole.

use std::{cmp::Ordering, ops::Range, sync::Arc};

use serde::de::IgnoredAny;

use crate::{
    format::{
        FormatError,
        tree::{Node, TREE_CLOSING, TREE_OPENING},
    },
    id::BlobId,
};

/// Hexadecimal digits of a blob's id.
const ID_DIGITS: usize = 64;

/// A folder's entries, gone through in their order.
pub(super) struct Recorded {
    text: Arc<Vec<u8>>,
    /// Where the next entry begins.
    at: usize,
    /// The next entry and where it ends, once it was looked at.
    next: Option<(Node, usize)>,
}

/// An entry whose record stays as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SameEntry {
    /// Where its record stands.
    pub(super) place: Range<usize>,
    /// How many blobs its content is.
    pub(super) pieces: u64,
}

impl Recorded {
    /// The entries in the plaintext of a tree; `None` for one that no program of today wrote.
    pub(super) fn new(text: Vec<u8>) -> Option<Self> {
        let begins_well = text.starts_with(TREE_OPENING);
        begins_well.then(|| Self { text: Arc::new(text), at: TREE_OPENING.len(), next: None })
    }

    /// The plaintext of the tree.
    pub(super) fn text(&self) -> &Arc<Vec<u8>> {
        &self.text
    }

    /// Takes the next entry if its record begins with `opening`, which says all but attributes and
    /// content, and if all its blobs are ones for which `is_stored` holds.
    pub(super) fn take_same(
        &mut self,
        opening: &[u8],
        mut is_stored: impl FnMut(BlobId) -> bool,
    ) -> Option<SameEntry> {
        let rest = self.text.get(self.at..)?.strip_prefix(opening)?;
        let rest = match rest.strip_prefix(br#""extended_attributes":"#) {
            Some(list) => list.get(value_length(list)?..)?.strip_prefix(b",")?,
            None => rest,
        };
        let mut rest = rest.strip_prefix(br#""content":["#)?;
        let mut pieces = 0;
        while let Some(digits) = rest.strip_prefix(b"\"") {
            let (digits, after) = digits.split_at_checked(ID_DIGITS)?;
            let id = BlobId::parse(std::str::from_utf8(digits).ok()?)?;
            if !is_stored(id) {
                return None;
            }
            pieces += 1;
            let after = after.strip_prefix(b"\"")?;
            rest = after.strip_prefix(b",").filter(|more| more.starts_with(b"\"")).unwrap_or(after);
        }
        let rest = rest.strip_prefix(b"]}")?;
        let place = self.at..self.text.len() - rest.len();
        self.go_past(place.end);
        Some(SameEntry { place, pieces })
    }

    /// The entry with this name. Names must be asked for in their order.
    pub(super) fn find(&mut self, name: &[u8]) -> Result<Option<&Node>, FormatError> {
        loop {
            self.look()?;
            let Some((node, end)) = &self.next else { return Ok(None) };
            match node.name.as_slice().cmp(name) {
                Ordering::Less => {
                    let end = *end;
                    self.go_past(end);
                }
                Ordering::Equal => return Ok(self.found(name)),
                Ordering::Greater => return Ok(None),
            }
        }
    }

    /// The entry that was found last, if it has this name.
    pub(super) fn found(&self, name: &[u8]) -> Option<&Node> {
        self.next.as_ref().map(|(node, _)| node).filter(|node| node.name == name)
    }

    fn look(&mut self) -> Result<(), FormatError> {
        let rest = &self.text[self.at..];
        if self.next.is_none() && rest != TREE_CLOSING {
            let (node, length) = Node::parse_first(rest)?;
            self.next = Some((node, self.at + length));
        }
        Ok(())
    }

    fn go_past(&mut self, end: usize) {
        self.at = end + usize::from(self.text.get(end) == Some(&b','));
        self.next = None;
    }
}

/// How long the value is that `text` begins with.
fn value_length(text: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// A tree so far: nothing but how the parent's begins.
#[derive(Clone)]
pub(super) struct Beginning {
    text: Arc<Vec<u8>>,
    /// Where the last entry ends.
    end: usize,
}

impl Beginning {
    /// No entry yet of the tree with this plaintext, which [`Recorded`] accepted.
    pub(super) fn new(text: Arc<Vec<u8>>) -> Self {
        Self { text, end: TREE_OPENING.len() }
    }

    /// The text up to here.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.end]
    }

    /// The text of entries.
    pub(super) fn entries(&self, place: Range<usize>) -> &[u8] {
        &self.text[place]
    }

    /// Takes the entries at `place` if they are the next ones.
    pub(super) fn take(&mut self, place: &Range<usize>) -> bool {
        let is_next = place.start == self.next();
        if is_next {
            self.end = place.end;
        }
        is_next
    }

    /// Takes the next entry if its record is `json`.
    pub(super) fn take_record(&mut self, json: &[u8]) -> bool {
        let start = self.next();
        let is_next = self.text.get(start..).is_some_and(|rest| rest.starts_with(json));
        is_next && self.take(&(start..start + json.len()))
    }

    /// Whether this is the whole tree.
    pub(super) fn is_whole(&self) -> bool {
        &self.text[self.end..] == TREE_CLOSING
    }

    fn next(&self) -> usize {
        self.end + usize::from(self.text.get(self.end) == Some(&b','))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{
        file_opening,
        tree::{ExtendedAttribute, NodeKind, TreeWriter},
    };

    fn file(name: &str, pieces: usize, attributes: usize) -> Node {
        let mut node = Node::new(name.as_bytes().to_vec(), NodeKind::File);
        let ids = (0..pieces).map(|piece| BlobId::of(format!("{name}{piece}").as_bytes()));
        node.content = Some(ids.collect());
        let attribute =
            |n| ExtendedAttribute { name: format!("user.],\"{n}"), value: b"]}\"".to_vec() };
        node.extended_attributes = (0..attributes).map(attribute).collect();
        node.size = 7;
        node
    }

    fn tree(nodes: &[Node]) -> Vec<u8> {
        let mut writer = TreeWriter::new();
        nodes.iter().for_each(|node| writer.push(node).unwrap());
        writer.finish()
    }

    /// What `stat` would tell of a file.
    fn opening(node: &Node) -> Vec<u8> {
        let node = Node { content: None, extended_attributes: Vec::new(), ..node.clone() };
        let mut json = Vec::new();
        file_opening::write(&node, &mut json).unwrap();
        json
    }

    #[test]
    fn what_is_the_same_is_taken_without_being_parsed() {
        let nodes = [file("a", 0, 0), file("b", 1, 2), file("c<\"\\", 3, 0)];
        let text = tree(&nodes);
        let mut recorded = Recorded::new(text.clone()).unwrap();
        let mut beginning = Beginning::new(Arc::clone(recorded.text()));
        for (node, pieces) in nodes.iter().zip([0, 1, 3]) {
            assert!(!beginning.is_whole());
            let same = recorded.take_same(&opening(node), |_| true).unwrap();
            assert_eq!(same.pieces, pieces);
            assert!(beginning.take(&same.place));
        }
        assert!(beginning.is_whole());
        assert_eq!([beginning.as_bytes(), TREE_CLOSING].concat(), text);
        assert!(recorded.find(b"d").unwrap().is_none());
    }

    #[test]
    fn what_differs_is_not_taken_and_can_be_looked_at() {
        let nodes = [file("a", 1, 0), file("b", 2, 1), file("d", 1, 0)];
        let mut recorded = Recorded::new(tree(&nodes)).unwrap();
        let mut other = nodes[0].clone();
        other.size += 1;
        assert!(recorded.take_same(&opening(&other), |_| true).is_none());
        assert!(recorded.take_same(&opening(&nodes[0]), |_| false).is_none(), "not stored");
        assert_eq!(recorded.find(b"a").unwrap(), Some(&nodes[0]));
        assert_eq!(recorded.found(b"a"), Some(&nodes[0]));
        assert!(recorded.find(b"aa").unwrap().is_none());
        assert!(recorded.take_same(&opening(&nodes[1]), |_| true).is_some());
        assert!(recorded.find(b"c").unwrap().is_none());
        assert!(recorded.take_same(&opening(&nodes[2]), |_| true).is_some());
    }

    #[test]
    fn a_beginning_goes_on_with_the_next_entry_only() {
        let nodes = [file("a", 1, 0), file("b", 1, 0)];
        let text = Arc::new(tree(&nodes));
        let json = |node: &Node| {
            let mut json = Vec::new();
            node.write(&mut json).unwrap();
            json
        };
        let mut beginning = Beginning::new(Arc::clone(&text));
        assert!(!beginning.take_record(&json(&nodes[1])));
        assert!(beginning.take_record(&json(&nodes[0])));
        assert!(!beginning.take(&(TREE_OPENING.len()..20)));
        assert!(beginning.take_record(&json(&nodes[1])));
        assert!(beginning.is_whole());
        assert!(!beginning.take_record(&json(&nodes[1])));
    }

    #[test]
    fn what_is_cut_short_is_never_the_same() {
        let node = file("a", 2, 1);
        let whole = tree(std::slice::from_ref(&node));
        for length in TREE_OPENING.len()..whole.len() - TREE_CLOSING.len() {
            let mut recorded = Recorded::new(whole[..length].to_vec()).unwrap();
            assert!(recorded.take_same(&opening(&node), |_| true).is_none(), "{length}");
            assert!(recorded.find(b"a").is_err(), "{length}");
        }
        for text in [&b""[..], b"{", br#"{"nodes":null}"#, br#" {"nodes":[]}"#] {
            assert!(Recorded::new(text.to_vec()).is_none());
        }
    }
}
