//! What the parent recorded of a folder's entries, as text.
//!
//! Most files of most backups are what they were. The record of such a file is the same text again:
//! so its beginning is made of what `stat` tells and compared with what stands there, and nothing
//! is parsed or written. Only what differs is taken apart.
//!
//! A large tree (`crate::large_tree`) is gone through section by section, by the walk and by the
//! assembler each on its own. They share its compressed text, and what both are done with is gone: a
//! new tree grows as the old one shrinks.
//!
//! The hash of a tree was compared before it comes here, and no more: it may be no tree.

use std::{cmp::Ordering, ops::Range, sync::Arc};

use crate::{
    format::{
        FormatError,
        tree::{ExtendedAttribute, Node, TREE_CLOSING, TREE_OPENING},
    },
    id::BlobId,
    large_tree::{GrowingTree, SharedTree, TreeSections},
};

/// Hexadecimal digits of a blob's id.
const ID_DIGITS: usize = 64;

/// The tree that the parent has of a folder.
#[derive(Clone)]
pub(super) enum ParentTree {
    /// Its plaintext.
    Whole(Arc<Vec<u8>>),
    /// A large one.
    Large(SharedTree),
}

impl ParentTree {
    /// The tree with this plaintext; `None` for one that no program of today wrote.
    pub(super) fn whole(text: Vec<u8>) -> Option<Self> {
        let entries = text.strip_prefix(TREE_OPENING)?;
        entries.ends_with(TREE_CLOSING).then(|| Self::Whole(Arc::new(text)))
    }

    fn cursor(self) -> Result<Cursor, FormatError> {
        match self {
            Self::Whole(text) => {
                let entries = TREE_OPENING.len()..text.len() - TREE_CLOSING.len();
                Ok(Cursor { section: 0, text, end: entries.start, entries, more: None })
            }
            Self::Large(tree) => {
                let mut more = tree.sections()?;
                let text = Arc::new(more.next()?.unwrap_or_default());
                let entries = 0..text.len();
                Ok(Cursor { section: 0, text, end: 0, entries, more: Some(more) })
            }
        }
    }
}

/// How far somebody has gone through the text of a tree's entries.
struct Cursor {
    /// The section, of as many as came before it.
    section: usize,
    text: Arc<Vec<u8>>,
    /// Where in the section's text entries stand.
    entries: Range<usize>,
    /// Where the last entry ends that was gone past.
    end: usize,
    more: Option<TreeSections>,
}

impl Cursor {
    /// Goes on to the next section; whether there is one.
    fn advance(&mut self) -> Result<bool, FormatError> {
        let Some(more) = &mut self.more else { return Ok(false) };
        let Some(text) = more.next()? else {
            self.more = None;
            return Ok(false);
        };
        self.section += 1;
        self.entries = 0..text.len();
        self.end = 0;
        self.text = Arc::new(text);
        Ok(true)
    }

    /// Where the next entry begins, be it in the next section.
    fn start(&mut self) -> Result<usize, FormatError> {
        if self.is_at_end() {
            self.advance()?;
        }
        if self.end == self.entries.start || self.is_at_end() {
            return Ok(self.end);
        }
        match self.from(self.end).starts_with(b",") {
            true => Ok(self.end + 1),
            false => Err(FormatError::invalid("a tree's entries have no comma between them")),
        }
    }

    /// Whether nothing of the section is left.
    fn is_at_end(&self) -> bool {
        self.end == self.entries.end
    }

    /// The section's entries from here on.
    fn from(&self, start: usize) -> &[u8] {
        &self.text[start..self.entries.end]
    }

    /// The section's entries that were gone past.
    fn past(&self) -> &[u8] {
        &self.text[self.entries.start..self.end]
    }
}

/// Where entries stand in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    section: usize,
    text: Range<usize>,
}

impl Place {
    /// Takes in the place that follows, if nothing but a comma is between.
    pub(super) fn join(&mut self, next: &Self) -> bool {
        let follows = self.section == next.section && self.text.end + 1 == next.text.start;
        if follows {
            self.text.end = next.text.end;
        }
        follows
    }
}

/// A folder's entries, gone through in their order.
pub(super) struct Recorded {
    cursor: Cursor,
    /// The next entry and where it ends, once it was looked at.
    next: Option<(Node, usize)>,
    /// Whether that one was asked for and found: the next question is for one behind it.
    is_found: bool,
    /// The section that was told of last.
    told: usize,
}

/// An entry whose record stays as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SameEntry {
    /// Where its record stands.
    pub(super) place: Place,
    /// How many blobs its content is.
    pub(super) pieces: u64,
}

impl Recorded {
    /// The entries of a tree.
    pub(super) fn new(tree: ParentTree) -> Result<Self, FormatError> {
        Ok(Self { cursor: tree.cursor()?, next: None, is_found: false, told: 0 })
    }

    /// Takes the next entry if its record begins with `opening`, which says all but attributes and
    /// content, and if all its blobs are ones for which `is_stored` holds.
    pub(super) fn take_same(
        &mut self,
        opening: &[u8],
        mut is_stored: impl FnMut(BlobId) -> bool,
    ) -> Option<SameEntry> {
        if let Some((_, end)) = self.next.as_ref().filter(|_| self.is_found) {
            self.go_past(*end);
        }
        let start = self.cursor.start().ok()?;
        let rest = self.cursor.from(start).strip_prefix(opening)?;
        let rest = match rest.strip_prefix(br#""extended_attributes":"#) {
            Some(list) => list.get(attributes_length(list)?..)?.strip_prefix(b",")?,
            None => rest,
        };
        let mut rest = rest.strip_prefix(br#""content":["#)?;
        let mut pieces = 0;
        let mut is_more = rest.starts_with(b"\"");
        while is_more {
            let (digits, after) = rest.strip_prefix(b"\"")?.split_at_checked(ID_DIGITS)?;
            let id = BlobId::parse(std::str::from_utf8(digits).ok()?)?;
            if !is_stored(id) {
                return None;
            }
            pieces += 1;
            let after = after.strip_prefix(b"\"")?;
            (rest, is_more) = match after.strip_prefix(b",") {
                Some(next) => (next, true),
                None => (after, false),
            };
        }
        let rest = rest.strip_prefix(b"]}")?;
        let text = start..self.cursor.entries.end - rest.len();
        self.go_past(text.end);
        Some(SameEntry { place: Place { section: self.cursor.section, text }, pieces })
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
                Ordering::Equal => {
                    self.is_found = true;
                    return Ok(self.found(name));
                }
                Ordering::Greater => return Ok(None),
            }
        }
    }

    /// The entry that was found last, if it has this name.
    pub(super) fn found(&self, name: &[u8]) -> Option<&Node> {
        self.next.as_ref().map(|(node, _)| node).filter(|node| node.name == name)
    }

    /// The section that is gone through, if it was not told of yet: nobody asks for earlier ones.
    pub(super) fn new_section(&mut self) -> Option<usize> {
        let section = self.cursor.section;
        (std::mem::replace(&mut self.told, section) < section).then_some(section)
    }

    fn look(&mut self) -> Result<(), FormatError> {
        if self.next.is_some() {
            return Ok(());
        }
        let start = self.cursor.start()?;
        let rest = self.cursor.from(start);
        if !rest.is_empty() {
            let (node, length) = Node::parse_first(rest)?;
            self.next = Some((node, start + length));
        }
        Ok(())
    }

    fn go_past(&mut self, end: usize) {
        self.cursor.end = end;
        self.next = None;
        self.is_found = false;
    }
}

/// How long the list of extended attributes is that `text` begins with, if it is sound: it will be the new
/// tree's.
fn attributes_length(text: &[u8]) -> Option<usize> {
    let mut lists =
        serde_json::Deserializer::from_slice(text).into_iter::<Option<Vec<ExtendedAttribute>>>();
    lists.next()?.ok()?;
    Some(lists.byte_offset())
}

/// A tree so far: nothing but how the parent's begins.
pub(super) struct Beginning {
    /// What may have to be copied.
    tree: Option<ParentTree>,
    cursor: Cursor,
}

impl Beginning {
    /// No entry yet of the tree.
    pub(super) fn new(tree: ParentTree) -> Result<Self, FormatError> {
        Ok(Self { tree: Some(tree.clone()), cursor: tree.cursor()? })
    }

    /// Adds the entries so far to an empty tree, once.
    pub(super) fn copy_to(&mut self, tree: &mut GrowingTree) -> Result<(), FormatError> {
        let mut cursor = self.tree.take().ok_or_else(not_there)?.cursor()?;
        while cursor.section < self.cursor.section {
            tree.push_text(cursor.from(cursor.entries.start))?;
            cursor.advance()?.then_some(()).ok_or_else(not_there)?;
        }
        let past = self.cursor.past();
        if past.is_empty() { Ok(()) } else { tree.push_text(past) }
    }

    /// Lets go of the sections before this one.
    pub(super) fn go_to(&mut self, section: usize) -> Result<(), FormatError> {
        while self.cursor.section < section && self.cursor.advance()? {}
        Ok(())
    }

    /// The text of entries; places must be asked for in their order.
    pub(super) fn entries(&mut self, place: &Place) -> Result<&[u8], FormatError> {
        self.go_to(place.section)?;
        match self.cursor.section == place.section {
            true => Ok(&self.cursor.text[place.text.clone()]),
            false => Err(not_there()),
        }
    }

    /// Takes the entries at `place` if they are the next ones. What cannot be read is not the next.
    pub(super) fn take(&mut self, place: &Place) -> bool {
        let Ok(start) = self.cursor.start() else { return false };
        let is_next = self.cursor.section == place.section && place.text.start == start;
        if is_next {
            self.cursor.end = place.text.end;
        }
        is_next
    }

    /// Takes the next entry if its record is `json`.
    pub(super) fn take_record(&mut self, json: &[u8]) -> bool {
        let Ok(start) = self.cursor.start() else { return false };
        let is_next = self.cursor.from(start).starts_with(json);
        if is_next {
            self.cursor.end = start + json.len();
        }
        is_next
    }

    /// Whether this is the whole tree.
    pub(super) fn is_whole(&mut self) -> bool {
        self.cursor.is_at_end() && matches!(self.cursor.advance(), Ok(false))
    }
}

fn not_there() -> FormatError {
    FormatError::invalid("entries of the parent's tree are not there any more")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        format::{
            file_opening,
            tree::{NodeKind, TreeWriter},
        },
        large_tree::{StoredTree, WrittenTree},
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

    fn plain(nodes: &[Node]) -> Vec<u8> {
        let mut writer = TreeWriter::new();
        nodes.iter().for_each(|node| writer.push(node).unwrap());
        writer.finish()
    }

    fn whole(nodes: &[Node]) -> ParentTree {
        ParentTree::whole(plain(nodes)).unwrap()
    }

    /// The tree as one that is not held.
    fn large(nodes: &[Node]) -> ParentTree {
        ParentTree::Large(StoredTree::from_plaintext(&plain(nodes)).share())
    }

    /// What `stat` would tell of a file.
    fn opening(node: &Node) -> Vec<u8> {
        let node = Node { content: None, extended_attributes: Vec::new(), ..node.clone() };
        let mut json = Vec::new();
        file_opening::write(&node, &mut json).unwrap();
        json
    }

    fn record(node: &Node) -> Vec<u8> {
        let mut json = Vec::new();
        node.write(&mut json).unwrap();
        json
    }

    fn copied(beginning: &mut Beginning) -> Vec<u8> {
        let mut tree = GrowingTree::new(None);
        beginning.copy_to(&mut tree).unwrap();
        match tree.finish().unwrap() {
            WrittenTree::Plain(text) => text,
            WrittenTree::Compressed(_) => panic!("nothing is compressed"),
        }
    }

    /// More than a section of them.
    fn many() -> Vec<Node> {
        (0..6_000).map(|n| file(&format!("{n:05} \"]}},{{"), n % 4, n % 3)).collect()
    }

    #[test]
    fn what_is_the_same_is_taken_without_being_parsed() {
        let few = vec![file("a", 0, 0), file("b", 1, 2), file("c<\"\\", 3, 0)];
        for (tree, nodes) in [
            (whole(&few), &few),
            (large(&few), &few),
            (whole(&many()), &many()),
            (large(&many()), &many()),
        ] {
            let mut recorded = Recorded::new(tree.clone()).unwrap();
            let mut beginning = Beginning::new(tree.clone()).unwrap();
            let mut places: Vec<Place> = Vec::new();
            let mut sections = 0;
            for node in nodes {
                assert!(!beginning.is_whole());
                let same = recorded.take_same(&opening(node), |_| true).unwrap();
                assert_eq!(same.pieces, node.content.as_ref().unwrap().len() as u64);
                assert!(beginning.take(&same.place));
                sections += usize::from(recorded.new_section().is_some());
                if places.last_mut().is_none_or(|last| !last.join(&same.place)) {
                    places.push(same.place);
                }
            }
            assert!(beginning.is_whole());
            assert_eq!(copied(&mut beginning), plain(nodes));
            assert!(recorded.find(b"~").unwrap().is_none());
            assert_eq!(sections + 1, places.len());
            // What was joined is taken as well, and is there for who has begun another tree.
            let mut joined = Beginning::new(tree.clone()).unwrap();
            assert!(places.iter().all(|place| joined.take(place)));
            assert!(joined.is_whole());
            let mut other = Beginning::new(tree).unwrap();
            let texts: Vec<_> =
                places.iter().map(|place| other.entries(place).unwrap().to_vec()).collect();
            let text = [TREE_OPENING, &texts.join(&b','), TREE_CLOSING].concat();
            assert_eq!(text, plain(nodes));
            let last = places.last().unwrap();
            other.go_to(last.section).unwrap();
            assert!(other.entries(last).is_ok());
            assert_eq!(other.entries(&places[0]).is_ok(), last.section == 0, "it is let go");
            let beyond = Place { section: places.len() + 1, text: 0..1 };
            assert!(other.entries(&beyond).is_err());
        }
    }

    #[test]
    fn a_part_of_a_tree_is_copied_up_to_any_entry() {
        let nodes = many();
        for tree in [whole(&nodes), large(&nodes)] {
            for count in (0..nodes.len()).step_by(997) {
                let mut beginning = Beginning::new(tree.clone()).unwrap();
                for node in &nodes[..count] {
                    assert!(beginning.take_record(&record(node)));
                }
                assert_eq!(copied(&mut beginning), plain(&nodes[..count]));
                assert!(beginning.take_record(&record(&nodes[count])), "it goes on");
            }
        }
    }

    #[test]
    fn what_differs_is_not_taken_and_can_be_looked_at() {
        let nodes = [file("a", 1, 0), file("b", 2, 1), file("d", 1, 0)];
        for tree in [whole(&nodes), large(&nodes)] {
            let mut recorded = Recorded::new(tree).unwrap();
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
    }

    #[test]
    fn behind_what_was_looked_at_all_is_taken_again() {
        let nodes = [file("a", 1, 0), file("b", 2, 1), file("d", 1, 0)];
        for tree in [whole(&nodes), large(&nodes)] {
            let mut recorded = Recorded::new(tree).unwrap();
            assert!(recorded.find(b"a").unwrap().is_some());
            assert!(recorded.take_same(&opening(&nodes[1]), |_| true).is_some());
            assert!(recorded.find(b"d").unwrap().is_some());
            assert!(recorded.take_same(&opening(&nodes[2]), |_| true).is_none(), "it is behind");
        }
    }

    #[test]
    fn every_entry_is_found_by_its_name() {
        let nodes = many();
        for tree in [whole(&nodes), large(&nodes)] {
            let mut recorded = Recorded::new(tree).unwrap();
            for node in nodes.iter().step_by(7) {
                assert_eq!(recorded.find(&node.name).unwrap(), Some(node));
                let behind = [&node.name[..], b"x"].concat();
                assert!(recorded.find(&behind).unwrap().is_none());
            }
            assert!(recorded.find(b"~").unwrap().is_none());
        }
    }

    #[test]
    fn a_beginning_goes_on_with_the_next_entry_only() {
        let nodes = [file("a", 1, 0), file("b", 1, 0)];
        for tree in [whole(&nodes), large(&nodes)] {
            let mut beginning = Beginning::new(tree).unwrap();
            assert!(!beginning.take_record(&record(&nodes[1])));
            assert!(beginning.take_record(&record(&nodes[0])));
            let start = beginning.cursor.entries.start;
            let again = Place { section: 0, text: start..beginning.cursor.end };
            assert!(!beginning.take(&again));
            assert!(beginning.take_record(&record(&nodes[1])));
            assert!(beginning.is_whole());
            assert!(!beginning.take_record(&record(&nodes[1])));
        }
    }

    /// What is done to a tree's text: bytes changed, cut out or put in, at a place in a thousand.
    fn alter(text: &mut Vec<u8>, changes: &[(usize, u8, u8)]) {
        for &(place, what, byte) in changes {
            let at = text.len() * place / 1_000;
            match what % 4 {
                0 => text.insert(at, byte),
                1 if at < text.len() => drop(text.remove(at)),
                2 if at < text.len() => text[at] = byte,
                3 => text.truncate(at),
                _ => {}
            }
        }
    }

    proptest! {
        /// A hostile parent can make more be read again, and nothing else.
        #[test]
        fn whatever_a_tree_says_nothing_else_is_the_same(
            changes in proptest::collection::vec((0_usize..1_000, any::<u8>(), any::<u8>()), 0..4),
            asked in proptest::collection::vec(0_u8..3, 12),
        ) {
            let nodes: Vec<Node> =
                (0..12).map(|n| file(&format!("{n:02} \"]}},{{"), n % 4, n % 3)).collect();
            let mut text = plain(&nodes);
            alter(&mut text, &changes);
            let large = ParentTree::Large(StoredTree::from_plaintext(&text).share());
            for tree in ParentTree::whole(text).into_iter().chain([large]) {
                let (Ok(mut recorded), Ok(mut beginning)) =
                    (Recorded::new(tree.clone()), Beginning::new(tree.clone()))
                else {
                    continue;
                };
                let mut copies = Beginning::new(tree).unwrap();
                for (node, asked) in nodes.iter().zip(&asked) {
                    if *asked == 0 {
                        drop(recorded.find(&node.name));
                    }
                    if let Some(same) = recorded.take_same(&opening(node), |_| true) {
                        let entry = copies.entries(&same.place).unwrap();
                        let (found, length) = Node::parse_first(entry).unwrap();
                        prop_assert_eq!(length, entry.len());
                        // Attributes and content are the parent's, of a file that `stat` says is the same.
                        let content = found.content.as_ref().unwrap();
                        prop_assert_eq!(same.pieces, content.len() as u64);
                        prop_assert_eq!(opening(&found), opening(node));
                        beginning.take(&same.place);
                    }
                    if *asked == 1 {
                        beginning.take_record(&record(node));
                    }
                }
                beginning.is_whole();
            }
        }
    }

    /// A large tree of which the end is not as it should be, or an entry in the middle.
    #[test]
    fn what_goes_wrong_late_is_new_from_there() {
        let nodes = many();
        let sound = plain(&nodes);
        let comma = sound.windows(13).rposition(|text| text == br#"},{"name":"05"#).unwrap() + 1;
        let spaced = [&sound[..comma], b" ,", &sound[comma + 1..]].concat();
        for text in [&sound[..sound.len() - 1], &spaced] {
            let large = StoredTree::from_plaintext(text).share();
            let mut recorded = Recorded::new(ParentTree::Large(large.clone())).unwrap();
            let mut beginning = Beginning::new(ParentTree::Large(large)).unwrap();
            let mut same = |node| recorded.take_same(&opening(node), |_| true).is_some();
            let taken = nodes.iter().take_while(|node| same(node)).count();
            assert!(0 < taken && taken < nodes.len(), "{taken}");
            assert!(recorded.find(b"~").is_err());
            let begun =
                nodes.iter().take_while(|node| beginning.take_record(&record(node))).count();
            assert_eq!(begun, taken);
            assert!(!beginning.is_whole());
            assert_eq!(copied(&mut beginning), plain(&nodes[..taken]));
        }
    }

    #[test]
    fn commas_stand_between_entries_only() {
        let [one, two] = [file("a", 0, 0), file("b", 0, 0)].map(|node| record(&node));
        for entries in [[b",", &one[..], b",", &two].concat(), [&one[..], &two].concat()] {
            let text = [TREE_OPENING, &entries, TREE_CLOSING].concat();
            let mut recorded = Recorded::new(ParentTree::whole(text).unwrap()).unwrap();
            assert!(recorded.find(b"b").is_err());
        }
    }

    #[test]
    fn attributes_that_nobody_can_read_are_not_taken_over() {
        let node = file("a", 1, 1);
        let text = String::from_utf8(plain(std::slice::from_ref(&node))).unwrap();
        let text = text.replacen(r#""value":""#, r#""value":"|"#, 1).into_bytes();
        let large = ParentTree::Large(StoredTree::from_plaintext(&text).share());
        for tree in [ParentTree::whole(text).unwrap(), large] {
            let mut recorded = Recorded::new(tree).unwrap();
            assert!(recorded.take_same(&opening(&node), |_| true).is_none());
        }
    }

    #[test]
    fn a_list_of_pieces_that_nobody_can_read_is_not_taken_over() {
        let node = file("a", 2, 0);
        let sound = String::from_utf8(plain(std::slice::from_ref(&node))).unwrap();
        let (head, list) = sound.split_once("\"content\"").unwrap();
        for (from, to) in [("\",\"", "\"\""), ("\",\"", "\",,\""), ("\"]", "\",]"), ("[\"", "[,\"")]
        {
            let text = [head, "\"content\"", &list.replacen(from, to, 1)].concat().into_bytes();
            let large = ParentTree::Large(StoredTree::from_plaintext(&text).share());
            for tree in [ParentTree::whole(text).unwrap(), large] {
                let mut recorded = Recorded::new(tree).unwrap();
                assert!(recorded.take_same(&opening(&node), |_| true).is_none(), "{to}");
            }
        }
    }

    #[test]
    fn what_is_cut_short_is_never_the_same() {
        let node = file("a", 2, 1);
        let sound = plain(std::slice::from_ref(&node));
        for length in TREE_OPENING.len() + 1..sound.len() - TREE_CLOSING.len() {
            assert!(ParentTree::whole(sound[..length].to_vec()).is_none());
            let text = [&sound[..length], TREE_CLOSING].concat();
            let large = ParentTree::Large(StoredTree::from_plaintext(&text).share());
            for tree in [ParentTree::whole(text).unwrap(), large] {
                let mut recorded = Recorded::new(tree).unwrap();
                assert!(recorded.take_same(&opening(&node), |_| true).is_none(), "{length}");
                assert!(recorded.find(b"a").is_err(), "{length}");
            }
        }
        for text in [&b""[..], b"{", br#"{"nodes":null}"#, br#" {"nodes":[]}"#] {
            assert!(ParentTree::whole(text.to_vec()).is_none());
            let large = ParentTree::Large(StoredTree::from_plaintext(text).share());
            assert!(Recorded::new(large).is_err());
        }
    }
}
