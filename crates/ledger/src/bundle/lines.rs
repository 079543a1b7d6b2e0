//! The entries in a bundle: in full, or left out behind the hash of a complete subtree.
//!
//! A run of entries that are left out is told by the fewest complete subtrees, so a million of
//! them cost a few lines. A run is cut where a checkpoint ends, so that the tree at each
//! checkpoint can be computed from the lines alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::canonical;
use crate::entry::Entry;
use crate::merkle::{Frontier, Hash, complete_subtrees, leaf_hash};
use crate::mismatch::Mismatch;

/// A line of `log/entries.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    /// An entry, and the hash of its leaf.
    Full(Entry, Hash),
    /// `1 << level` entries from `from` on, left out.
    Elided {
        /// The first index.
        from: u64,
        /// How many, as a power of two.
        level: u32,
        /// The root over them.
        hash: Hash,
    },
}

/// The subtrees that stand for the entries from `start` to before `end`.
pub(super) fn elided(start: u64, end: u64, cuts: &BTreeSet<u64>) -> Vec<(u64, u32)> {
    let mut bounds = vec![start];
    if start < end {
        bounds.extend(cuts.range(start + 1..end));
    }
    bounds.push(end);
    bounds.windows(2).flat_map(|pair| complete_subtrees(pair[0], pair[1])).collect()
}

/// Writes the line for entries that are left out.
pub(super) fn elided_line(from: u64, level: u32, hash: Hash) -> String {
    let count = 1_u64 << level;
    canonical::encode(&json!({"from": from, "count": count, "hash": hash.to_string()})) + "\n"
}

/// Reads all lines; each must begin where the one before ended.
pub(super) fn read(text: &[u8]) -> Result<Vec<Line>, Mismatch> {
    let (mut lines, mut next) = (Vec::new(), 0_u64);
    for bytes in text.split_inclusive(|byte| *byte == b'\n') {
        let problem = |problem: &str| Mismatch::entry(next, problem);
        let bytes = bytes.strip_suffix(b"\n").ok_or_else(|| problem("its line is cut"))?;
        let line = read_line(bytes).ok_or_else(|| problem("its line is not an entry"))?;
        let (from, count) = match &line {
            Line::Full(entry, _) => (entry.index, 1),
            Line::Elided { from, level, .. } => (*from, 1 << level),
        };
        if from != next {
            return Err(problem(&format!("entry {from} stands in its place")));
        }
        next = next.checked_add(count).ok_or_else(|| problem("its line counts too many"))?;
        lines.push(line);
    }
    Ok(lines)
}

fn read_line(bytes: &[u8]) -> Option<Line> {
    if bytes.starts_with(b"{\"at\":") {
        return Some(Line::Full(Entry::from_leaf(bytes)?, leaf_hash(bytes)));
    }
    let value: Value = canonical::decode(bytes)?;
    let hash = Hash::from_hex(value["hash"].as_str()?)?;
    let (from, count) = (value["from"].as_u64()?, value["count"].as_u64()?);
    let is_subtree = count.is_power_of_two() && from.is_multiple_of(count);
    let line = is_subtree.then(|| Line::Elided { from, level: count.trailing_zeros(), hash })?;
    (value.as_object()?.len() == 3).then_some(line)
}

/// Gives the roots of the tree at these sizes, as far as the lines tell them; the size and root
/// of the whole besides.
pub(super) fn roots(lines: &[Line], sizes: &BTreeSet<u64>) -> (Frontier, BTreeMap<u64, Hash>) {
    let (mut frontier, mut roots) = (Frontier::default(), BTreeMap::new());
    let mut note = |frontier: &Frontier| {
        if sizes.contains(&frontier.size()) {
            roots.insert(frontier.size(), frontier.root());
        }
    };
    note(&frontier);
    for line in lines {
        match line {
            Line::Full(_, hash) => frontier.push(*hash),
            Line::Elided { level, hash, .. } => {
                let fits = frontier.push_subtree(*level, *hash);
                debug_assert!(fits, "lines were read in order and are aligned");
            }
        }
        note(&frontier);
    }
    (frontier, roots)
}

/// Finds the first run of entries left out that is not written in the one way there is.
pub(super) fn first_loose_run(lines: &[Line], cuts: &BTreeSet<u64>) -> Option<u64> {
    let is_elided = |line: &&[Line]| matches!(line[0], Line::Elided { .. });
    let same = |left: &Line, right: &Line| {
        matches!((left, right), (Line::Elided { .. }, Line::Elided { .. }))
    };
    lines.chunk_by(same).filter(is_elided).find_map(|run| {
        let blocks: Vec<(u64, u32)> = run.iter().filter_map(block).collect();
        let (start, (last, level)) = (blocks.first()?.0, *blocks.last()?);
        (elided(start, last + (1 << level), cuts) != blocks).then_some(start)
    })
}

fn block(line: &Line) -> Option<(u64, u32)> {
    match line {
        Line::Elided { from, level, .. } => Some((*from, *level)),
        Line::Full(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_at_checkpoints() {
        let cuts = |cuts: &[u64]| cuts.iter().copied().collect();
        assert_eq!(elided(0, 1 << 20, &cuts(&[])), [(0, 20)]);
        assert_eq!(elided(3, 16, &cuts(&[])), [(3, 0), (4, 2), (8, 3)]);
        assert_eq!(elided(3, 16, &cuts(&[3, 6, 16, 20])), [(3, 0), (4, 1), (6, 1), (8, 3)]);
        assert_eq!(elided(5, 5, &cuts(&[])), []);
    }

    #[test]
    fn lines_that_are_no_subtrees_are_refused() {
        let hash = Hash::of(b"");
        let good = elided_line(0, 2, hash);
        assert_eq!(read(good.as_bytes()), Ok(vec![Line::Elided { from: 0, level: 2, hash }]));
        for (from, to) in [
            (":4", ":3"),
            (":4", ":0"),
            ("m\":0", "m\":2"),
            (",\"f", ", \"f"),
            ("}", ",\"x\":1}"),
            ("\n", ""),
        ] {
            assert!(read(good.replace(from, to).as_bytes()).is_err(), "{to}");
        }
        let twice = format!("{good}{good}");
        assert_eq!(read(twice.as_bytes()), Err(Mismatch::entry(4, "entry 0 stands in its place")));
    }
}
