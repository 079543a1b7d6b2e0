//! Merkle trees: how a log of any length is told in 32 bytes, and how that is proven.
//!
//! A leaf's hash is SHA-256 of the byte 0 and the leaf, an inner node's that of the byte 1 and
//! its two children, so that neither can pass for the other. A tree of n leaves is split at the
//! largest power of two below n; every complete subtree then never changes again, and a log
//! that keeps their hashes answers everything in O(log n).
//!
//! # Source
//! RFC 6962, section 2.1; the verifying algorithms are those of RFC 9162, sections 2.1.3.2 and
//! 2.1.4.2.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

/// A SHA-256 hash: of a leaf, of a node, or of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Takes 32 bytes for a hash.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Gives the SHA-256 of some bytes, without a prefix.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Gives the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 lower-case hexadecimal digits; `None` for any other text.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// Reads standard base64 with padding; `None` when that is not 32 bytes.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Gives the hash in standard base64, as checkpoints write it.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// Gives the hash of a leaf.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(leaf).finalize().into())
}

/// Gives the hash of the node above two others.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let hasher = Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0);
    Hash(hasher.finalize().into())
}

/// Gives the root of a tree without leaves.
#[must_use]
pub fn empty_root() -> Hash {
    Hash::of(&[])
}

/// Where the hashes of complete subtrees come from: a table, or a vector of leaves.
pub trait Subtrees {
    /// Why a hash cannot be had.
    type Error;

    /// Gives the hash over the leaves from `position << level`, `1 << level` of them.
    ///
    /// # Errors
    /// Fails when the hash cannot be had.
    fn subtree(&self, level: u32, position: u64) -> Result<Hash, Self::Error>;
}

/// Gives the root of the first `size` leaves.
///
/// # Errors
/// Fails when a subtree's hash cannot be had.
pub fn root<S: Subtrees>(subtrees: &S, size: u64) -> Result<Hash, S::Error> {
    if size == 0 { Ok(empty_root()) } else { range(subtrees, 0, size) }
}

/// Gives the proof that leaf `index` is in the tree of the first `size` leaves. `index` must be
/// below `size`.
///
/// # Errors
/// Fails when a subtree's hash cannot be had.
///
/// # Source
/// RFC 6962, section 2.1.1: PATH.
pub fn inclusion<S: Subtrees>(subtrees: &S, index: u64, size: u64) -> Result<Vec<Hash>, S::Error> {
    let (mut start, mut count, mut proof) = (0, size, Vec::new());
    while count > 1 {
        let left = split(count);
        if index - start < left {
            proof.push(range(subtrees, start + left, count - left)?);
            count = left;
        } else {
            proof.push(range(subtrees, start, left)?);
            start += left;
            count -= left;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Gives the proof that the tree of the first `new` leaves continues that of the first `old`.
/// `old` must not exceed `new`; the proof from 0 is empty.
///
/// # Errors
/// Fails when a subtree's hash cannot be had.
///
/// # Source
/// RFC 6962, section 2.1.2: PROOF.
pub fn consistency<S: Subtrees>(subtrees: &S, old: u64, new: u64) -> Result<Vec<Hash>, S::Error> {
    if old == 0 {
        return Ok(Vec::new());
    }
    let (mut start, mut count, mut proof) = (0, new, Vec::new());
    while old - start < count {
        let left = split(count);
        if old - start <= left {
            proof.push(range(subtrees, start + left, count - left)?);
            count = left;
        } else {
            proof.push(range(subtrees, start, left)?);
            start += left;
            count -= left;
        }
    }
    if start > 0 {
        proof.push(range(subtrees, start, count)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The hash over `count` leaves from `start`; the splits above keep `start` aligned.
fn range<S: Subtrees>(subtrees: &S, start: u64, count: u64) -> Result<Hash, S::Error> {
    if count.is_power_of_two() {
        return subtrees.subtree(count.trailing_zeros(), start / count);
    }
    let left = split(count);
    let right = range(subtrees, start + left, count - left)?;
    Ok(node_hash(&range(subtrees, start, left)?, &right))
}

/// The largest power of two below `count`, which is at least 2.
const fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// Tells whether `proof` shows that a leaf is number `index` of the tree with this size and root.
///
/// # Source
/// RFC 9162, section 2.1.3.2.
#[must_use]
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Tells whether `proof` shows that the tree `new` (size and root) continues the tree `old`.
///
/// # Source
/// RFC 9162, section 2.1.4.2.
#[must_use]
pub fn verify_consistency(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    match old_size {
        0 => return proof.is_empty() && *old_root == empty_root(),
        _ if old_size == new_size => return proof.is_empty() && old_root == new_root,
        _ if old_size > new_size => return false,
        _ => {}
    }
    // The root of a complete tree is the first node of its own proof and is left out.
    let (first, rest) = if old_size.is_power_of_two() {
        (*old_root, proof)
    } else {
        let Some((first, rest)) = proof.split_first() else { return false };
        (*first, rest)
    };
    let shift = (old_size - 1).trailing_ones();
    let (mut node, mut last) = ((old_size - 1) >> shift, (new_size - 1) >> shift);
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// A tree that grows at its right edge, remembered as the roots of its complete subtrees.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    size: u64,
    /// Level and hash, the largest first.
    peaks: Vec<(u32, Hash)>,
}

impl Frontier {
    /// Gives how many leaves there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_subtree(0, leaf);
    }

    /// Adds a complete subtree of `1 << level` leaves. `false`, and nothing changes, when it
    /// cannot lie there: its first index must be a multiple of its number of leaves.
    pub fn push_subtree(&mut self, level: u32, hash: Hash) -> bool {
        let Some(count) = 1_u64.checked_shl(level) else { return false };
        let (true, Some(size)) = (self.size.is_multiple_of(count), self.size.checked_add(count))
        else {
            return false;
        };
        let (mut level, mut hash) = (level, hash);
        while let Some((_, left)) = self.peaks.pop_if(|(peak, _)| *peak == level) {
            hash = node_hash(&left, &hash);
            level += 1;
        }
        self.peaks.push((level, hash));
        self.size = size;
        true
    }

    /// Gives the root of the leaves so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        let hashes = self.peaks.iter().rev().map(|(_, hash)| *hash);
        hashes.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }
}

/// Cuts the leaves from `start` to before `end` into the fewest complete subtrees, in order;
/// each is its first index and its level.
pub(crate) fn complete_subtrees(start: u64, end: u64) -> impl Iterator<Item = (u64, u32)> {
    let mut at = start;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        let level = at.trailing_zeros().min(left.ilog2());
        let subtree = (at, level);
        at += 1 << level;
        Some(subtree)
    })
}

#[cfg(test)]
mod tests;
