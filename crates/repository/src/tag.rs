//! Changing the tags of snapshots.
//!
//! A snapshot cannot be changed, as it is named by its hash: a new one is stored that says of
//! which it is a form (`original`, which stays the same over all changes), then the old is
//! removed.
//!
//! Tags that begin with `muster:` are facts that Muster recorded: the kind, the service, the
//! point, that something is missing. `--set` leaves them alone, unless it names one itself, which
//! then takes the place of its namesake. Only naming one in `--remove` takes it away.
//!
//! Some of them vouch for what is in the snapshot ([`disown`]). A form with another content or
//! time loses these, so that nothing takes it for the point that was made, or for proven.
//!
//! # Source
//! restic, `cmd/restic/cmd_tag.go`.

use std::collections::HashSet;

use crate::{
    forget::PROVEN_TAG,
    format::snapshot::Snapshot,
    id::SnapshotId,
    immutable::{self, HeldSnapshots},
    repository::Repository,
    run::Run,
    supersede::{ChangeError, Snapshots},
};

/// How the tags that Muster records begin.
pub const OWN_TAGS: &str = "muster:";

/// Tag of a recovery point of a plan; its value is the point.
pub const POINT_TAG: &str = "muster:point";

/// Takes away the tags that vouch for a snapshot's content: which recovery point it is, and that
/// it was proven. What else a plan recorded stays: whose data it is, and how to bring it back.
pub fn disown(tags: &mut Vec<String>) {
    let vouches = |tag: &String| [POINT_TAG, PROVEN_TAG].contains(&name(tag));
    tags.retain(|tag| !vouches(tag));
}

/// A tag without its value.
fn name(tag: &str) -> &str {
    tag.split_once('=').map_or(tag, |(name, _)| name)
}

/// What is to become of a snapshot's tags. Applied in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagChange {
    /// The tags to have instead of those that are there; an empty one stands for none.
    pub set: Option<Vec<String>>,
    /// Tags to add.
    pub add: Vec<String>,
    /// Tags to take away.
    pub remove: Vec<String>,
}

impl TagChange {
    /// The tags after the change.
    #[must_use]
    pub fn apply(&self, tags: &[String]) -> Vec<String> {
        let mut changed = match &self.set {
            Some(set) => replaced(tags, set),
            None => tags.to_vec(),
        };
        for tag in self.add.iter().filter(|tag| !tag.is_empty()) {
            if !changed.contains(tag) {
                changed.push(tag.clone());
            }
        }
        changed.retain(|tag| !self.remove.contains(tag));
        changed
    }
}

/// Muster's own tags, as far as `set` has none of the same name, and then `set`.
fn replaced(tags: &[String], set: &[String]) -> Vec<String> {
    let is_named = |own: &String| set.iter().any(|tag| name(tag) == name(own));
    let own = tags.iter().filter(|tag| tag.starts_with(OWN_TAGS) && !is_named(tag));
    let given = set.iter().filter(|tag| !tag.is_empty());
    let mut changed: Vec<String> = Vec::new();
    for tag in own.chain(given) {
        if !changed.contains(tag) {
            changed.push(tag.clone());
        }
    }
    changed
}

/// A snapshot and what it is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retagging {
    /// The snapshot.
    pub old: SnapshotId,
    /// Its changed form.
    pub new: Snapshot,
}

/// The snapshots whose tags the change touches, and their new forms.
#[must_use]
pub fn propose(snapshots: &[(SnapshotId, Snapshot)], change: &TagChange) -> Vec<Retagging> {
    let touched = snapshots.iter().filter_map(|(id, snapshot)| {
        let tags = change.apply(&snapshot.tags);
        let original = snapshot.original.or(Some(*id));
        let new = Snapshot { tags, original, ..snapshot.clone() };
        (new.tags != snapshot.tags).then_some(Retagging { old: *id, new })
    });
    touched.collect()
}

/// Stores the new forms and removes the old ones. `tell` hears of each pair. Snapshots that the
/// store holds are left as they are, and returned: their old form could only be hidden. The caller
/// holds an exclusive lock.
///
/// # Errors
/// Fails when the store does or the run is cancelled; the snapshots before are changed then, and
/// of one there may be both forms ([`ChangeError::NotRemoved`] says so). Running it again removes
/// the old one.
pub fn apply(
    repository: &Repository,
    retaggings: &[Retagging],
    run: &Run,
    tell: &mut dyn FnMut(SnapshotId, SnapshotId),
) -> Result<HeldSnapshots, ChangeError> {
    let old: Vec<SnapshotId> = retaggings.iter().map(|retagging| retagging.old).collect();
    let mut held = immutable::held_snapshots(repository, &old, run)?;
    let are_held: HashSet<SnapshotId> = held.iter().map(|(id, _)| *id).collect();
    let mut snapshots = Snapshots::load(repository, run)?;
    for retagging in retaggings.iter().filter(|it| !are_held.contains(&it.old)) {
        let new = snapshots.save(&retagging.new)?;
        // Held by somebody since the look above: both forms are there then.
        let stays = snapshots.remove(retagging.old, Some(new))?;
        held.extend(stays.map(|retention| (retagging.old, retention)));
        tell(retagging.old, new);
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        storage::{
            FileKind, Storage as _,
            unreliable::{Faults, Unreliable},
        },
        tree_walk::sample::{Sample, dir, file},
    };

    fn words(text: &str) -> Vec<String> {
        text.split_terminator(' ').map(str::to_owned).collect()
    }

    fn change(set: Option<&str>, add: &str, remove: &str) -> TagChange {
        TagChange { set: set.map(words), add: words(add), remove: words(remove) }
    }

    #[test]
    fn tags_are_set_added_and_removed() {
        let check = |before: &str, change: TagChange, after: &str| {
            assert_eq!(change.apply(&words(before)), words(after), "{before:?} {change:?}");
        };
        check("a b", change(None, "c a", ""), "a b c");
        check("a b", change(None, "c", "a c"), "b");
        check("a b", change(Some("c"), "", ""), "c");
        let none = TagChange { set: Some(vec![String::new()]), ..TagChange::default() };
        check("a b", none.clone(), "");
        check("a muster:kind=full muster:partial", none, "muster:kind=full muster:partial");
        let renamed = change(Some("x muster:kind=incremental"), "", "");
        check(
            "a muster:kind=full muster:partial",
            renamed,
            "muster:partial x muster:kind=incremental",
        );
        check("a muster:partial", change(None, "", "muster:partial"), "a");
    }

    #[test]
    fn an_altered_form_is_no_point_and_not_proven() {
        let mut tags = words("a muster:point=p1 muster:proven muster:data=db muster:hold");
        disown(&mut tags);
        assert_eq!(tags, words("a muster:data=db muster:hold"));
    }

    /// The change is stopped at every write and run again: one snapshot is left each time, with
    /// the new tags and the first id as its original.
    #[test]
    fn a_change_that_is_cut_off_is_completed_by_the_next() {
        for stop_at_write in 1..=5 {
            let sample = Sample::new();
            let tree = sample.write(&dir([(&b"a"[..], file(b"a"))]));
            let ids = [1, 2].map(|second| sample.snapshot(tree, second));
            let faults = Faults { stop_at_write, ..Faults::default() };
            let storage = Arc::new(Unreliable::new(sample.storage.clone(), faults));
            let faulty = sample.repository.clone().on(storage);
            let change = change(None, "kept", "");
            let run = Run::new();
            let proposed = propose(&sample.repository.snapshots().unwrap(), &change);
            assert_eq!(proposed.len(), 2);
            let result = apply(&faulty, &proposed, &run, &mut |_, _| {});
            assert_eq!(result.is_ok(), stop_at_write == 5);

            let again = propose(&sample.repository.snapshots().unwrap(), &change);
            apply(&sample.repository, &again, &run, &mut |_, _| {}).unwrap();
            let after = sample.repository.snapshots().unwrap();
            assert_eq!(sample.storage.list(FileKind::Snapshot).unwrap().len(), 2);
            for ((_, snapshot), id) in after.iter().zip(ids) {
                assert_eq!((&snapshot.tags, snapshot.original), (&words("kept"), Some(id)));
            }
            assert!(propose(&after, &change).is_empty());
        }
    }
}
