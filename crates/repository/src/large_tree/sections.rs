//! The text of a large tree, half a megabyte at a time.
//!
//! Who compares a tree with another looks at the text of its entries and parses none of them. So the
//! text is cut between two entries, where what begins an entry stands; nothing else is understood
//! of it. What is cut wrongly is compared all the same: joined by commas, the sections are the tree.

use std::io::Read;

use super::compression_failed;
use crate::format::{
    FormatError,
    tree::{TREE_CLOSING, TREE_OPENING},
};

/// How much of the text a section has, in bytes, about.
const SECTION_BYTES: usize = 512 << 10;

/// What stands between two entries, as all known programs write it, and what follows the name that
/// comes then. Extended attributes have names as well, and no type. In a text a quotation mark stands
/// behind a backslash.
const BETWEEN: &[u8] = br#"},{"name":""#;
const BEHIND_NAME: &[u8] = br#","type":"#;

/// Reads a tree's entries, some at a time.
pub(crate) struct TreeSections {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    BeforeEntries,
    AmongEntries,
    Ended,
    Failed,
}

impl TreeSections {
    pub(super) fn new(input: Box<dyn Read + Send>) -> Self {
        Self { input, buffer: Vec::new(), state: State::BeforeEntries }
    }

    /// The text of the entries that come next, with commas between them; none behind the last. After an
    /// error there are only errors.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, FormatError> {
        let next = match self.state {
            State::Failed => Err(FormatError::invalid("a tree failed to be read before")),
            State::Ended => Ok(None),
            State::BeforeEntries | State::AmongEntries => self.read_on(),
        };
        next.inspect_err(|_| self.state = State::Failed)
    }

    fn read_on(&mut self) -> Result<Option<Vec<u8>>, FormatError> {
        loop {
            let searched = self.buffer.len().saturating_sub(BETWEEN.len());
            if !self.fill()? {
                return self.end();
            }
            if let Some(end) = last_end(&self.buffer, searched) {
                let rest = self.buffer.split_off(end + 1);
                self.buffer.truncate(end);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
        }
    }

    /// Reads on; whether there was anything.
    fn fill(&mut self) -> Result<bool, FormatError> {
        let mut more = self.input.by_ref().take(SECTION_BYTES as u64);
        let read = more.read_to_end(&mut self.buffer).map_err(compression_failed)?;
        if self.state == State::BeforeEntries {
            if !self.buffer.starts_with(TREE_OPENING) {
                return Err(FormatError::invalid("a tree does not begin with its nodes"));
            }
            self.buffer.drain(..TREE_OPENING.len());
            self.state = State::AmongEntries;
        }
        Ok(read > 0)
    }

    fn end(&mut self) -> Result<Option<Vec<u8>>, FormatError> {
        let early = || FormatError::invalid("a tree does not end with its nodes");
        let entries = self.buffer.strip_suffix(TREE_CLOSING).ok_or_else(early)?.len();
        self.state = State::Ended;
        self.buffer.truncate(entries);
        let last = std::mem::take(&mut self.buffer);
        Ok(Some(last).filter(|last| !last.is_empty()))
    }
}

/// Where the last entry ends behind which another one begins, if that is not before `searched`.
fn last_end(text: &[u8], searched: usize) -> Option<usize> {
    let mut end = text.len();
    loop {
        let found = searched + memchr::memmem::rfind(&text[searched..end], BETWEEN)?;
        if is_typed(&text[found + BETWEEN.len()..]) {
            return Some(found + 1);
        }
        end = found + BETWEEN.len() - 1;
    }
}

/// Whether the name that `text` goes on with is followed by a type.
fn is_typed(text: &[u8]) -> bool {
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'"' => return text[at + 1..].starts_with(BEHIND_NAME),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{
        format::tree::{ExtendedAttribute, Node, NodeKind, TreeWriter},
        id::BlobId,
    };

    fn plain(files: usize) -> Vec<u8> {
        let mut writer = TreeWriter::new();
        for number in 0..files {
            let name = format!(r#"{number:06} }},{{"name":"x","type":" \"#);
            let mut node = Node::new(name.into_bytes(), NodeKind::File);
            node.content = Some(vec![BlobId::of(&number.to_le_bytes()); number % 3]);
            let attribute =
                |n| ExtendedAttribute { name: format!("user.\"{n}"), value: b"]}".to_vec() };
            node.extended_attributes = (0..number % 4).map(attribute).collect();
            writer.push(&node).unwrap();
        }
        writer.finish()
    }

    fn sections(text: &[u8]) -> Result<Vec<Vec<u8>>, FormatError> {
        let mut sections = TreeSections::new(Box::new(Cursor::new(text.to_vec())));
        std::iter::from_fn(|| sections.next().transpose()).collect()
    }

    #[test]
    fn the_sections_are_the_tree_cut_between_entries() {
        for files in [0, 1, 2, 7_000] {
            let text = plain(files);
            let sections = sections(&text).unwrap();
            assert_eq!([TREE_OPENING, &sections.join(&b','), TREE_CLOSING].concat(), text);
            assert!(files < 1_000 || sections.len() > 2, "{}", sections.len());
            let mut found = 0;
            for section in &sections {
                let mut rest = &section[..];
                while !rest.is_empty() {
                    let (node, length) = Node::parse_first(rest).unwrap();
                    assert!(node.name.starts_with(format!("{found:06} ").as_bytes()));
                    found += 1;
                    rest = rest[length..].strip_prefix(b",").unwrap_or_default();
                }
            }
            assert_eq!(found, files);
        }
    }

    #[test]
    fn what_is_no_tree_is_an_error() {
        let sound = plain(3_000);
        let cut = &sound[..sound.len() - 1];
        for text in [&b""[..], b"{", br#" {"nodes":[]}"#, br#"{"nodes":null}"#, cut] {
            assert!(sections(text).is_err());
            let mut sections = TreeSections::new(Box::new(Cursor::new(text.to_vec())));
            while sections.next().is_ok() {}
            assert!(sections.next().is_err(), "it goes on");
        }
    }
}
