//! The entries of a folder, one after another, however many there are.

use std::vec;

use super::{ReadError, reader::damaged_tree};
use crate::{
    format::tree::{Node, Tree},
    index::Location,
    large_tree::LargeTree,
};

/// The entries of a folder, in order; those of a large tree are read as they are taken.
///
/// The tree was examined to its end before. Still, a large one is decompressed again, and may fail
/// for want of memory: after an error there are no more entries.
pub struct Entries(Source);

enum Source {
    Held(vec::IntoIter<Node>),
    Large(Box<(LargeTree, Location)>),
}

impl Entries {
    pub(super) fn large(nodes: LargeTree, location: &Location) -> Self {
        Self(Source::Large(Box::new((nodes, *location))))
    }

    /// Whether not all of them are in memory.
    pub(crate) fn is_large(&self) -> bool {
        matches!(self.0, Source::Large(_))
    }
}

impl Default for Entries {
    fn default() -> Self {
        Tree::default().into()
    }
}

impl From<Tree> for Entries {
    fn from(tree: Tree) -> Self {
        Self(Source::Held(tree.nodes.into_iter()))
    }
}

impl Iterator for Entries {
    type Item = Result<Node, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Held(nodes) => nodes.next().map(Ok),
            Source::Large(large) => {
                let (nodes, location) = large.as_mut();
                nodes.next().map_err(|error| damaged_tree(location, error)).transpose()
            }
        }
    }
}
