//! A listing of the REST protocol, entry by entry as its bytes come.
//!
//! Versions 1 and 2 are told apart by the entries: names, or objects with name and size. Memory is
//! needed for the repository's files that are listed and for one entry, whose length is bounded.

use muster_repository::storage::{File, FileKind};

/// An entry of rest-server has some 90 bytes.
const ENTRY_BYTES_MAX: usize = 4096;

/// What came is no listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoListing;

/// Takes the bytes of a listing, in pieces.
#[derive(Debug)]
pub(crate) struct Listing {
    kind: FileKind,
    place: Place,
    /// What came of the present entry, or of a word that is no list.
    entry: Vec<u8>,
    /// Brackets that are open in the entry.
    depth: usize,
    is_in_text: bool,
    is_escaped: bool,
    found: Vec<(File, Option<u64>)>,
}

/// Where in the listing the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Word,
    First,
    Next,
    Entry,
    End,
}

impl Listing {
    /// A listing of files of this kind; others that it names are left out.
    pub(crate) fn of(kind: FileKind) -> Self {
        Self {
            kind,
            place: Place::Start,
            entry: Vec::new(),
            depth: 0,
            is_in_text: false,
            is_escaped: false,
            found: Vec::new(),
        }
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), NoListing> {
        bytes.iter().try_for_each(|byte| self.take(*byte))
    }

    /// The files and their sizes, which are unknown in version 1.
    pub(crate) fn finish(self) -> Result<Vec<(File, Option<u64>)>, NoListing> {
        match self.place {
            Place::End => Ok(self.found),
            Place::Word if self.entry == b"null" => Ok(self.found),
            _ => Err(NoListing),
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), NoListing> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match (self.place, byte) {
            (Place::Entry, _) => return self.take_in_entry(byte),
            (Place::Start | Place::First | Place::Next | Place::End, _) if is_space => {}
            (Place::Start, b'[') => self.place = Place::First,
            (Place::First, b']') => self.place = Place::End,
            // An empty listing of rest-server is `null`.
            (Place::Word, _) if is_space && self.entry == b"null" => self.place = Place::End,
            (Place::Start | Place::Word, _) if b"null".get(self.entry.len()) == Some(&byte) => {
                self.place = Place::Word;
                self.entry.push(byte);
            }
            (Place::First | Place::Next, _) => {
                self.place = Place::Entry;
                return self.take_in_entry(byte);
            }
            _ => return Err(NoListing),
        }
        Ok(())
    }

    fn take_in_entry(&mut self, byte: u8) -> Result<(), NoListing> {
        if self.is_in_text {
            self.is_in_text = self.is_escaped || byte != b'"';
            self.is_escaped = byte == b'\\' && !self.is_escaped;
        } else {
            match byte {
                b',' | b']' if self.depth == 0 => {
                    self.place = if byte == b',' { Place::Next } else { Place::End };
                    return self.note();
                }
                b'"' => self.is_in_text = true,
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth = self.depth.checked_sub(1).ok_or(NoListing)?,
                _ => {}
            }
        }
        if self.entry.len() == ENTRY_BYTES_MAX {
            return Err(NoListing);
        }
        self.entry.push(byte);
        Ok(())
    }

    /// Notes the entry that is complete.
    fn note(&mut self) -> Result<(), NoListing> {
        let entry: serde_json::Value =
            serde_json::from_slice(&self.entry).map_err(|_| NoListing)?;
        self.entry.clear();
        let (name, bytes) = match entry.as_str() {
            Some(name) => (name, None),
            None => {
                let name = entry["name"].as_str().ok_or(NoListing)?;
                (name, Some(entry["size"].as_u64().ok_or(NoListing)?))
            }
        };
        self.found.extend(self.kind.file(name).map(|file| (file, bytes)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<(File, Option<u64>)>, NoListing> {
        let mut whole = Listing::of(FileKind::Key);
        let whole = whole.push(text.as_bytes()).and_then(|()| whole.finish());
        let mut pieces = Listing::of(FileKind::Key);
        let mut bytes = text.as_bytes().chunks(1);
        let pieces = bytes.try_for_each(|byte| pieces.push(byte)).and_then(|()| pieces.finish());
        assert_eq!(whole, pieces, "however it is cut");
        whole
    }

    #[test]
    fn listings_of_both_versions() {
        let name = "0123456789abcdef".repeat(4);
        let file = FileKind::Key.file(&name).unwrap();
        assert_eq!(parse(&format!(r#"["{name}", "README"]"#)), Ok(vec![(file, None)]));
        let second = format!(r#" [ {{"name":"{name}","size":7,"x":["]\"",{{}}]}} ] "#);
        assert_eq!(parse(&second), Ok(vec![(file, Some(7))]));
        for empty in ["null", "null\n", "[]", " [ ] "] {
            assert_eq!(parse(empty), Ok(vec![]), "{empty}");
        }
    }

    #[test]
    fn what_is_no_listing() {
        for text in [
            "",
            "<html>",
            "{}",
            r#"[{"name":1}]"#,
            r#"[{"name":"x"}]"#,
            "nul",
            "nulll",
            "null,",
            "[",
            r#"["a""#,
            r#"["a",]"#,
            "[,]",
            "[]]",
            r#"["a"}"#,
            "[[]]",
            r#""a""#,
        ] {
            assert_eq!(parse(text), Err(NoListing), "{text}");
        }
    }

    #[test]
    fn an_entry_is_not_endless() {
        let mut listing = Listing::of(FileKind::Key);
        listing.push(b"[\"").unwrap();
        assert_eq!(listing.push(&[b'x'; 1 << 20]), Err(NoListing));
        assert!(listing.entry.capacity() <= 2 * ENTRY_BYTES_MAX);
        assert_eq!(parse(&format!("[{}", "[".repeat(ENTRY_BYTES_MAX - 10))), Err(NoListing));
        assert_eq!(parse(&format!("[\"{}\"]", "x".repeat(ENTRY_BYTES_MAX - 2))), Ok(vec![]));
    }
}
