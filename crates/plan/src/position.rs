//! Where each part of a plan stands, so that what is found about values can point at text.
//!
//! Values carry no positions: they would be in the way of everyone who only uses a plan.
//! Findings name a path, and the path leads back to the text.

use std::collections::BTreeMap;

use crate::tree::{Content, Node, Position};

/// Positions by path: `services.orders.protect[0].every`.
///
/// A scalar stands where its value begins, a mapping or list where its key does, since the
/// value may begin a line below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    places: BTreeMap<String, Position>,
    /// For lists of which items could not be read: the index in the text of each that could.
    read: BTreeMap<String, Vec<usize>>,
    /// For scalars whose text stands as it is in the plan: how far right of the position.
    insets: BTreeMap<String, usize>,
}

impl Positions {
    pub(crate) fn of_tree(root: &Node) -> Self {
        let mut positions = Self::default();
        positions.places.insert(String::new(), root.at);
        positions.add_below("", root);
        positions
    }

    /// The position of a path; of the nearest part above it, when it is not in the text.
    #[must_use]
    pub fn of(&self, path: &str) -> Position {
        let mut path = path;
        loop {
            if let Some(position) = self.places.get(path) {
                return *position;
            }
            let Some(end) = path.rfind(['.', '[']) else { break };
            path = &path[..end];
        }
        self.places.get("").copied().unwrap_or(Position::START)
    }

    /// Whether the text holds something at this path.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// The path of the item that a list of the [`crate::Plan`] holds at `index`. It may stand
    /// further down in the text, when items above it could not be read.
    #[must_use]
    pub fn item(&self, list: &str, index: usize) -> String {
        let index = self.read.get(list).and_then(|read| read.get(index)).copied().unwrap_or(index);
        format!("{list}[{index}]")
    }

    /// From a scalar's position to that of its text's first character, when what follows is
    /// the text letter by letter.
    pub(crate) fn inset(&self, path: &str) -> Option<usize> {
        self.insets.get(path).copied()
    }

    pub(crate) fn note_read(&mut self, list: &str, indexes: Vec<usize>) {
        self.read.insert(list.to_owned(), indexes);
    }

    fn add_below(&mut self, path: &str, node: &Node) {
        for (key, value) in node.entries() {
            let path = join(path, &key.text);
            let is_new = !self.places.contains_key(&path);
            if is_new {
                let at = if is_written(value) { value.at } else { key.at };
                self.add(&path, at, value);
            }
        }
        for (index, item) in node.items().iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.add(&path, item.at, item);
        }
    }

    fn add(&mut self, path: &str, at: Position, node: &Node) {
        self.places.insert(path.to_owned(), at);
        if let Some(inset) = node.scalar().and_then(|scalar| scalar.inset) {
            self.insets.insert(path.to_owned(), inset);
        }
        self.add_below(path, node);
    }
}

/// A scalar that is there: nothing has no place of its own.
fn is_written(node: &Node) -> bool {
    matches!(&node.content, Content::Scalar(scalar) if !scalar.plain || !scalar.text.is_empty())
}

/// The path of a key below a path.
pub(crate) fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_text_or_to_what_is_above() {
        let text = "name: shop\nservices:\n  orders:\n    protect:\n      - {every: 1h}\n";
        let positions = Positions::of_tree(&crate::tree::parse(text).unwrap());
        let check = |path: &str, line, column| {
            assert_eq!(positions.of(path), Position { line, column }, "{path}");
        };
        check("name", 1, 7);
        check("services.orders", 3, 3);
        check("services.orders.protect[0]", 5, 9);
        check("services.orders.protect[0].every", 5, 17);
        check("services.orders.protect[0].to", 5, 9);
        check("services.orders.tier", 3, 3);
        check("regions[3].zones", 1, 1);
    }

    #[test]
    fn items_that_were_left_out_do_not_shift_the_rest() {
        let mut positions = Positions::default();
        positions.note_read("a", vec![1, 4]);
        assert_eq!(positions.item("a", 1), "a[4]");
        assert_eq!(positions.item("b", 1), "b[1]");
    }
}
