//! Which bytes of a file are lost, as far as it can be known.
//!
//! A file is a list of chunks. The lengths of those that are there are known, and of those that
//! are lost as long as an index still lists them. What is known of the others: together with
//! the rest they add up to the file's size. So one gap can always be placed, and of several the
//! beginning of the first and the end of the last.

use std::fmt;

use serde::Serialize;

use crate::{format::tree::Node, id::BlobId};

/// A stretch of a file that is lost. In bytes from the beginning of the file; `None` where it
/// cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LostRange {
    /// The first byte that is lost.
    pub start: Option<u64>,
    /// The first byte after it that is there.
    pub end: Option<u64>,
    /// How many chunks lay there.
    pub chunks: u64,
}

impl fmt::Display for LostRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |at: Option<u64>| at.map_or_else(|| "?".to_owned(), |at| at.to_string());
        write!(f, "{}-{}", shown(self.start), shown(self.end))
    }
}

/// Something that a snapshot lost, or that was put right in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Loss {
    /// Parts of a file.
    FileParts {
        /// How long the file was, in bytes.
        size: u64,
        /// How long it is without what is lost.
        size_left: u64,
        /// What is lost.
        ranges: Vec<LostRange>,
    },
    /// The list of a folder's entries, and so all below it.
    Folder {
        /// Its tree.
        tree: BlobId,
        /// Why it cannot be read.
        reason: String,
    },
    /// Nothing: the size that was recorded was not that of the content, and is now.
    SizeCorrected {
        /// What was recorded.
        size: u64,
        /// What the content has.
        size_left: u64,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileParts { size, size_left, ranges } => {
                let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
                let lost = size.saturating_sub(*size_left);
                write!(f, "lost {lost} of {size} bytes: {}", ranges.join(", "))
            }
            Self::Folder { reason, .. } => write!(f, "lost the list of its entries: {reason}"),
            Self::SizeCorrected { size, size_left } => {
                write!(f, "size corrected from {size} to {size_left} bytes; nothing is lost")
            }
        }
    }
}

/// What is known of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// It can be read and is so long.
    There(u64),
    /// It is lost; its length, if it is known.
    Lost(Option<u64>),
}

/// The file without its lost chunks and what that loses; `None` when there is nothing to change.
pub(super) fn cut(node: &Node, look_up: impl FnMut(BlobId) -> Chunk) -> Option<(Node, Loss)> {
    let content = node.content.as_deref().unwrap_or_default();
    let chunks: Vec<Chunk> = content.iter().copied().map(look_up).collect();
    let there = |(id, chunk): (&BlobId, &Chunk)| matches!(chunk, Chunk::There(_)).then_some(*id);
    let left: Vec<BlobId> = content.iter().zip(&chunks).filter_map(there).collect();
    let size_left = chunks.iter().fold(0_u64, |sum, chunk| match chunk {
        Chunk::There(length) => sum.saturating_add(*length),
        Chunk::Lost(_) => sum,
    });
    let size = node.size;
    let loss = match left.len() == content.len() {
        true if size == size_left => return None,
        true => Loss::SizeCorrected { size, size_left },
        false => Loss::FileParts { size, size_left, ranges: lost_ranges(&chunks, size) },
    };
    Some((Node { content: Some(left), size: size_left, ..node.clone() }, loss))
}

/// Runs of lost chunks, and where they lie in a file of `size` bytes.
fn lost_ranges(chunks: &[Chunk], size: u64) -> Vec<LostRange> {
    let mut ranges = Vec::new();
    let mut position = Some(0_u64);
    let mut run: Option<LostRange> = None;
    for chunk in chunks {
        let start = position;
        let length = match chunk {
            Chunk::There(length) | Chunk::Lost(Some(length)) => Some(*length),
            Chunk::Lost(None) => None,
        };
        position = start.zip(length).map(|(start, length)| start.saturating_add(length));
        match chunk {
            Chunk::There(_) => ranges.extend(run.take()),
            Chunk::Lost(_) => {
                let open = run.get_or_insert(LostRange { start, end: None, chunks: 0 });
                (open.end, open.chunks) = (position, open.chunks + 1);
            }
        }
    }
    ranges.extend(run);
    place_from_the_end(chunks, size, &mut ranges);
    ranges
}

/// Fills in what is known from the end of the file, so far as nothing unknown lies in between.
fn place_from_the_end(chunks: &[Chunk], size: u64, ranges: &mut [LostRange]) {
    let mut position = Some(size);
    let mut ranges = ranges.iter_mut().rev();
    let mut open: Option<&mut LostRange> = None;
    for chunk in chunks.iter().rev() {
        match chunk {
            Chunk::There(_) => open = None,
            Chunk::Lost(_) => {
                if open.is_none() {
                    open = ranges.next();
                    if let Some(range) = open.as_mut() {
                        range.end = range.end.or(position);
                    }
                }
            }
        }
        let length = match chunk {
            Chunk::There(length) | Chunk::Lost(Some(length)) => Some(*length),
            Chunk::Lost(None) => None,
        };
        position = position.zip(length).and_then(|(end, length)| end.checked_sub(length));
        if let Some(range) = open.as_mut() {
            range.start = range.start.or(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::NodeKind;

    #[test]
    fn lost_ranges_are_placed_as_far_as_they_can_be() {
        use Chunk::{Lost, There};
        let check = |chunks: &[Chunk], size: u64, expected: &str| {
            let shown: Vec<_> = lost_ranges(chunks, size).iter().map(ToString::to_string).collect();
            assert_eq!(shown.join(" "), expected, "{chunks:?}");
        };
        check(&[There(10), Lost(None), There(5)], 22, "10-17");
        check(&[Lost(None), Lost(None), There(5)], 22, "0-17");
        check(&[There(10), Lost(None)], 22, "10-22");
        check(&[Lost(None)], 22, "0-22");
        check(&[Lost(Some(7)), There(3), Lost(None), There(2)], 22, "0-7 10-20");
        check(&[Lost(None), There(3), Lost(None), There(2)], 22, "0-? ?-20");
        check(&[Lost(None), There(1), Lost(None), There(1), Lost(None)], 22, "0-? ?-? ?-22");
        check(&[Lost(None), There(1), Lost(Some(4)), There(1), Lost(None)], 22, "0-? ?-? ?-22");
        // A size that lies places nothing before the beginning.
        check(&[There(30), Lost(None), There(5)], 22, "30-17");
        check(&[Lost(None), There(30)], 22, "0-?");
    }

    #[test]
    fn a_file_keeps_what_is_there() {
        let ids = [b"a", b"b", b"c"].map(|text| BlobId::of(text));
        let mut node = Node::new(b"f".to_vec(), NodeKind::File);
        (node.content, node.size) = (Some(ids.to_vec()), 30);
        let there = |_| Chunk::There(10);
        assert_eq!(cut(&node, there), None);
        let lost = |id| if id == ids[1] { Chunk::Lost(None) } else { Chunk::There(10) };
        let (left, loss) = cut(&node, lost).unwrap();
        assert_eq!((left.content.unwrap(), left.size), (vec![ids[0], ids[2]], 20));
        assert_eq!(loss.to_string(), "lost 10 of 30 bytes: 10-20");
        node.size = 31;
        let (left, loss) = cut(&node, there).unwrap();
        assert_eq!((left.size, loss), (30, Loss::SizeCorrected { size: 31, size_left: 30 }));
    }
}
