//! Which snapshots and files lose something by the damage.
//!
//! Only done when something is damaged: one more walk over the trees, on one thread, this time
//! in post-order. For each tree the set of damages that it or anything below it suffers from
//! is remembered, so that a tree that many snapshots share is read once. Nearly all trees
//! share a few sets (most of them the empty one), therefore a tree remembers the number of a
//! set. The sets together are bounded; when the bound is reached, the report says that it does
//! not name everything.

use std::{collections::HashSet, hash::BuildHasher};

use foldhash::fast::RandomState;

use super::{
    CheckError,
    files::Roots,
    findings::{DamageNumber, Findings, Map},
    report::{Damage, Hint},
};
use crate::{
    format::{
        pack::BlobKind,
        tree::{Node, NodeKind},
    },
    id::BlobId,
    repository::{BlobReader, Entries, IndexedRepository},
    run::Run,
};

/// How many paths are listed for each damage.
const FILES_LISTED_MAX: usize = 20;

/// How many paths are told apart while counting: 16 bytes each. Beyond that the count of
/// affected files stands still.
const PATHS_MAX: usize = 1 << 20;

/// What all sets of damages together may hold: 16 MiB of numbers.
const SET_ENTRIES_MAX: usize = 4 << 20;

/// Longer paths are shown with their end only.
const PATH_BYTES_MAX: usize = 4096;

/// Fills in the affected snapshots and files of all damages.
pub(super) fn trace(
    repository: &IndexedRepository,
    roots: &Roots,
    run: &Run,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    if !findings.touches_trees() {
        return Ok(());
    }
    let reader = repository.blob_reader()?;
    let mut tracer = Tracer {
        repository,
        findings,
        reader,
        sets: Sets::new(),
        known: Map::default(),
        affected: Map::default(),
        paths: HashSet::default(),
        path_hasher: RandomState::default(),
    };
    let mut affected_roots = Vec::new();
    for root in &roots.newest_first {
        let set = tracer.trace(root.tree, run)?;
        affected_roots.push((root.snapshot, set));
    }
    let Tracer { sets, affected, .. } = tracer;
    for (number, files) in affected {
        let damage: &mut Damage = &mut findings.damages_mut()[number as usize];
        (damage.files, damage.files_total) = (files.listed, files.total);
    }
    for (snapshot, set) in affected_roots {
        for &number in sets.get(set) {
            findings.damages_mut()[number as usize].snapshots.push(snapshot);
        }
    }
    if sets.is_incomplete || findings.has_archived() {
        findings.hints.push(Hint::AffectedIncomplete);
    }
    Ok(())
}

/// Paths that one damage takes something from.
#[derive(Default)]
struct Files {
    listed: Vec<String>,
    total: u64,
}

/// A folder that is being walked.
struct Frame {
    tree: BlobId,
    name: Vec<u8>,
    folders: std::vec::IntoIter<(Vec<u8>, BlobId)>,
    damages: Vec<DamageNumber>,
}

struct Tracer<'t> {
    repository: &'t IndexedRepository,
    findings: &'t Findings,
    reader: BlobReader<'t>,
    sets: Sets,
    /// The set of each tree that was walked.
    known: Map<BlobId, SetNumber>,
    affected: Map<DamageNumber, Files>,
    /// Hashes of the paths that were counted, each with its damage.
    paths: HashSet<(DamageNumber, u64), RandomState>,
    path_hasher: RandomState,
}

impl Tracer<'_> {
    /// Walks one snapshot; returns the set of its damages.
    fn trace(&mut self, root: BlobId, run: &Run) -> Result<SetNumber, CheckError> {
        let mut stack: Vec<Frame> = Vec::new();
        let mut result = self.enter(&mut stack, Vec::new(), root);
        while let Some(frame) = stack.last_mut() {
            run.cancel.check()?;
            if let Some(set) = result.take() {
                frame.damages.extend_from_slice(self.sets.get(set));
            }
            if let Some((name, tree)) = frame.folders.next() {
                result = self.enter(&mut stack, name, tree);
                continue;
            }
            if let Some(mut done) = stack.pop() {
                done.damages.sort_unstable();
                done.damages.dedup();
                let set = self.sets.number(done.damages);
                self.known.insert(done.tree, set);
                result = Some(set);
            }
        }
        Ok(result.unwrap_or(Sets::EMPTY))
    }

    /// Goes into a folder, unless its set is known or it cannot be read.
    fn enter(&mut self, stack: &mut Vec<Frame>, name: Vec<u8>, tree: BlobId) -> Option<SetNumber> {
        if let Some(&set) = self.known.get(&tree) {
            return Some(set);
        }
        // Told before its content: a tree that can be read from an unindexed pack only is
        // itself affected, and so is everything below it.
        let mut damages = self.findings.reasons(self.repository.index(), BlobKind::Tree, tree);
        let faults = self.findings.tree_faults(&tree);
        damages.extend(faults.iter().map(|fault| fault.damage));
        let mut frame = Frame { tree, name, folders: Vec::new().into_iter(), damages };
        let lost = !frame.damages.is_empty() && faults.iter().all(|fault| fault.name.is_none());
        if lost {
            for &damage in &frame.damages {
                self.record(stack, &frame.name, b"/", damage);
            }
        }
        // That something cannot be read was told.
        let entries = self.reader.entries(tree).unwrap_or_default();
        stack.push(frame);
        let folders = self.look_at(stack, tree, entries);
        frame = stack.pop()?;
        frame.folders = folders.into_iter();
        stack.push(frame);
        None
    }

    /// Looks at the files of the folder on top of the stack; returns its folders.
    fn look_at(
        &mut self,
        stack: &mut [Frame],
        tree: BlobId,
        entries: Entries,
    ) -> Vec<(Vec<u8>, BlobId)> {
        let mut folders = Vec::new();
        for node in entries.map_while(Result::ok) {
            match (node.kind, node.subtree) {
                (NodeKind::Dir, Some(subtree)) => folders.push((node.name, subtree)),
                (NodeKind::File, _) => {
                    let damages = self.damages_of(tree, &node);
                    for &damage in &damages {
                        self.record(stack, &node.name, b"", damage);
                    }
                    if let Some(frame) = stack.last_mut() {
                        frame.damages.extend(damages);
                    }
                }
                _ => {}
            }
        }
        folders
    }

    fn damages_of(&self, tree: BlobId, node: &Node) -> Vec<DamageNumber> {
        let content = node.content.as_deref().unwrap_or_default();
        let index = self.repository.index();
        let faults = self.findings.tree_faults(&tree).iter();
        let mut damages: Vec<_> = content
            .iter()
            .flat_map(|&chunk| self.findings.reasons(index, BlobKind::Data, chunk))
            .chain(
                faults
                    .filter(|fault| fault.name.as_deref() == Some(&node.name))
                    .map(|fault| fault.damage),
            )
            .collect();
        damages.sort_unstable();
        damages.dedup();
        damages
    }

    /// Notes that `name`, in the folder on top of the stack, loses something.
    fn record(&mut self, stack: &[Frame], name: &[u8], ending: &[u8], damage: DamageNumber) {
        if self.paths.len() >= PATHS_MAX {
            return;
        }
        let mut path = Vec::new();
        for part in stack.iter().map(|frame| frame.name.as_slice()).chain([name]) {
            if !part.is_empty() {
                path.push(b'/');
                path.extend_from_slice(part);
            }
        }
        path.extend_from_slice(ending);
        if !self.paths.insert((damage, self.path_hasher.hash_one(&path))) {
            return;
        }
        let files = self.affected.entry(damage).or_default();
        files.total += 1;
        if files.listed.len() < FILES_LISTED_MAX {
            let shown = &path[path.len().saturating_sub(PATH_BYTES_MAX)..];
            files.listed.push(String::from_utf8_lossy(shown).into_owned());
        }
    }
}

/// The number of a set.
type SetNumber = u32;

/// Sets of damages, each kept once.
struct Sets {
    sets: Vec<std::rc::Rc<[DamageNumber]>>,
    numbers: Map<std::rc::Rc<[DamageNumber]>, SetNumber>,
    entries: usize,
    is_incomplete: bool,
}

impl Sets {
    const EMPTY: SetNumber = 0;

    fn new() -> Self {
        let mut sets =
            Self { sets: Vec::new(), numbers: Map::default(), entries: 0, is_incomplete: false };
        sets.number(Vec::new());
        sets
    }

    fn get(&self, number: SetNumber) -> &[DamageNumber] {
        &self.sets[number as usize]
    }

    /// The number of a sorted set.
    fn number(&mut self, mut set: Vec<DamageNumber>) -> SetNumber {
        if let Some(&number) = self.numbers.get(set.as_slice()) {
            return number;
        }
        if self.entries + set.len() > SET_ENTRIES_MAX {
            self.is_incomplete = true;
            // One number of each set is still kept while they are few: the empty set would
            // claim that nothing is lost.
            set.truncate(1);
            if let Some(&number) = self.numbers.get(set.as_slice()) {
                return number;
            }
        }
        let number = u32::try_from(self.sets.len()).expect("fewer sets than trees");
        self.entries += set.len();
        let set: std::rc::Rc<[DamageNumber]> = set.into();
        self.sets.push(set.clone());
        self.numbers.insert(set, number);
        number
    }
}
