//! Against a store in memory that holds files, or only says so.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    forget::forget,
    format::snapshot::Snapshot,
    lock::{Lock, LockKind},
    prune::{PruneOptions, prune},
    storage::{FileKind, forward, memory::MemoryStorage},
    testing::{RepositoryBuilder, file_node},
};

/// Holds files, apart from those that it only claims to hold.
#[derive(Debug)]
struct Vault {
    inner: Arc<MemoryStorage>,
    holds: Mutex<HashMap<File, Timestamp>>,
    lies: Mutex<Vec<File>>,
}

impl Storage for Vault {
    forward!(inner: prepare, list, size, read, read_range, put, put_new, delete);

    fn location(&self) -> String {
        "vault".to_owned()
    }
    fn holding(&self) -> Result<Holding, StorageError> {
        Ok(Holding::OnRequest)
    }
    fn retention(&self, file: File) -> Result<Retention, StorageError> {
        let bytes = self.inner.size(file)?;
        let until = self.holds.lock().unwrap().get(&file).copied();
        let mode = until.map(|_| Mode::Compliance);
        Ok(Retention { until, mode, legal_hold: false, bytes, sha256: None })
    }
    fn retain(&self, file: File, until: Timestamp) -> Result<(), StorageError> {
        if !self.lies.lock().unwrap().contains(&file) {
            let mut holds = self.holds.lock().unwrap();
            let held = holds.entry(file).or_insert(until);
            *held = until.max(*held);
        }
        Ok(())
    }
}

fn in_days(days: i64) -> Timestamp {
    Timestamp::new(now().seconds() + days * 86_400, 0, 0)
}

/// A repository with a pack that only the first snapshot needs, one that both need, one that only
/// the second one does; and the snapshots.
fn built() -> (Repository, Arc<Vault>, [SnapshotId; 2]) {
    let mut builder = RepositoryBuilder::new();
    let blobs = [b"one", b"two", b"six"].map(|text| {
        let id = builder.add_data_blob(text);
        builder.close_packs();
        id
    });
    let trees = [[0, 1], [1, 2]].map(|which| {
        let content = which.map(|number| blobs[number]).to_vec();
        let tree = builder.add_tree(vec![file_node(b"file", content, 6)]);
        builder.close_packs();
        tree
    });
    let inner = builder.storage();
    let (holds, lies) = (Mutex::default(), Mutex::default());
    let vault = Arc::new(Vault { inner, holds, lies });
    let storage: Arc<dyn Storage> = vault.clone();
    let repository = Repository::clone(&builder.finish()).on(storage);
    let ids = trees.map(|tree| {
        let json = format!("{{\"time\":\"{}\",\"tree\":\"{tree}\",\"paths\":[]}}", now());
        let snapshot: Snapshot = serde_json::from_str(&json).unwrap();
        repository.save_unpacked(File::Snapshot, &snapshot).unwrap()
    });
    (repository, vault, ids)
}

fn held_packs(vault: &Vault) -> usize {
    vault.holds.lock().unwrap().keys().filter(|file| file.kind() == FileKind::Pack).count()
}

#[test]
fn a_snapshot_extends_what_it_shares_with_older_ones_and_nothing_else() {
    let (repository, vault, [old, new]) = built();
    let run = Run::new();
    let report = hold_snapshots(&repository, &[old], in_days(3), &run).unwrap();
    assert_eq!((report.lacking().count(), report.extended), (0, 3 + 1 + 1 + 1 + 1));
    assert_eq!((report.snapshots[0].packs, held_packs(&vault)), (3, 3));
    let report = hold_snapshots(&repository, &[new], in_days(30), &run).unwrap();
    assert_eq!((report.lacking().count(), held_packs(&vault)), (0, 5));
    let far = |until: &&Timestamp| **until >= in_days(29);
    let extended = vault.holds.lock().unwrap().values().filter(far).count();
    assert_eq!(extended, 3 + 4, "the shared pack, too; not what only the old one needs");
    let seals = seals(&repository, &[old, new], &run).unwrap();
    assert!(seals[&old].is_some_and(|until| until < in_days(4)));
    assert!(seals[&new].is_some_and(|until| until > in_days(29)));
    let again = hold_snapshots(&repository, &[old, new], in_days(2), &run).unwrap();
    assert_eq!(again.extended, 0, "nothing is shortened");
}

#[test]
fn a_store_that_only_says_so_is_found_out_and_the_snapshot_stays_unsealed() {
    let (repository, vault, [id, _]) = built();
    let run = Run::new();
    let survey = survey(&repository, &[id], &run).unwrap();
    for liar in survey.files.keys().filter(|file| **file != File::Snapshot(id)) {
        vault.holds.lock().unwrap().clear();
        *vault.lies.lock().unwrap() = vec![*liar];
        let report = hold_snapshots(&repository, &[id], in_days(3), &run).unwrap();
        let lacking: Vec<&Held> = report.lacking().collect();
        assert!(lacking[0].lacking.contains(&(*liar, Lack::Free)), "{liar}: {lacking:?}");
        assert_eq!(seals(&repository, &[id], &run).unwrap()[&id], None, "{liar}");
    }
}

#[test]
fn what_was_altered_or_lost_does_not_count_as_held() {
    let (repository, vault, [id, _]) = built();
    let run = Run::new();
    let _held = hold_snapshots(&repository, &[id], in_days(3), &run).unwrap();
    let survey = survey(&repository, &[id], &run).unwrap();
    let is_pack = |file: &&File| file.kind() == FileKind::Pack;
    let pack = *survey.files.keys().find(is_pack).unwrap();
    let check = |lack: Lack| {
        let states = look(&repository, &survey, &run).unwrap();
        let held = &judge(&survey, &states, now())[0];
        assert_eq!((held.until, &held.lacking), (None, &vec![(pack, lack)]));
        let proposal = propose(&survey, &states, in_days(9), now());
        assert!(!proposal.extend.contains(&pack), "rubbish is not held");
    };
    vault.inner.put(pack, b"rubbish").unwrap();
    check(Lack::Altered);
    vault.inner.delete(pack).unwrap();
    check(Lack::Missing);
}

#[test]
fn a_hold_that_is_over_is_none() {
    let (repository, _, [id, _]) = built();
    let run = Run::new();
    let _held = hold_snapshots(&repository, &[id], in_days(3), &run).unwrap();
    let survey = survey(&repository, &[id], &run).unwrap();
    let states = look(&repository, &survey, &run).unwrap();
    assert!(judge(&survey, &states, in_days(2))[0].until.is_some());
    assert_eq!(judge(&survey, &states, in_days(4))[0].until, None);
}

#[test]
fn forget_and_prune_leave_alone_what_is_held() {
    let (repository, _, [old, new]) = built();
    let (run, environment) = (Run::new(), Environment::detect());
    let _held = hold_snapshots(&repository, &[old], in_days(3), &run).unwrap();
    let lock = |kind| {
        Lock::acquire(&repository, kind, std::time::Duration::ZERO, &environment, &run).unwrap()
    };
    let exclusive = lock(LockKind::Exclusive);
    let report = forget(&repository, &exclusive, &[old, new], &[], &run).unwrap();
    exclusive.release().unwrap();
    assert_eq!((report.removed, report.held.len(), report.failed.len()), (vec![new], 1, 0));
    // Held packs of a snapshot that is gone all the same: somebody deleted it by hand.
    repository.storage().delete(File::Snapshot(old)).unwrap();
    let options = PruneOptions { instant: true, ..PruneOptions::default() };
    let report = prune(&repository, &options, &environment, &run).unwrap();
    assert_eq!((report.deleted.packs, report.held.packs, report.waiting.packs), (2, 3, 3));
    assert_eq!(repository.storage().list(FileKind::Pack).unwrap().len(), 3);
    let report = prune(&repository, &options, &environment, &run).unwrap();
    assert_eq!((report.deleted.packs, report.held.packs), (0, 3), "it looks again");
    // When the hold is over they go.
    let later = PruneOptions { now: Some(in_days(4)), ..options };
    let report = prune(&repository, &later, &environment, &run).unwrap();
    assert_eq!((report.deleted.packs, report.held.packs), (3, 0));
}

#[test]
fn what_is_held_is_neither_retagged_nor_replaced() {
    use crate::{
        rewrite::{RewriteOptions, rewrite},
        tag::{self, TagChange},
    };
    let (repository, _, [old, new]) = built();
    let run = Run::new();
    let _held = hold_snapshots(&repository, &[old], in_days(3), &run).unwrap();
    let change = TagChange { add: vec!["x".to_owned()], ..TagChange::default() };
    let retaggings = tag::propose(&repository.snapshots().unwrap(), &change);
    let mut changed = Vec::new();
    let held = tag::apply(&repository, &retaggings, &run, &mut |old, _| changed.push(old)).unwrap();
    assert_eq!((held[0].0, held.len(), changed), (old, 1, vec![new]));
    assert_eq!(repository.snapshot_ids().unwrap().len(), 2, "there is no second form");
    let indexed = repository.clone().load_index(&run).unwrap();
    let options = RewriteOptions {
        new_host: Some("other".to_owned()),
        forget: true,
        ..RewriteOptions::default()
    };
    let snapshots = repository.snapshots().unwrap();
    let report = rewrite(&indexed, &snapshots, &options, &run).unwrap();
    assert_eq!((report.held.len(), report.held[0].0), (1, old));
    assert_eq!(repository.snapshot_ids().unwrap().len(), 3, "the old form stays beside the new");
}

#[test]
fn a_store_that_cannot_hold_is_an_error_with_a_code() {
    use muster_model::Fault as _;
    let builder = RepositoryBuilder::new();
    let repository = builder.repository();
    let error = hold_snapshots(&repository, &[], in_days(1), &Run::new()).unwrap_err();
    assert_eq!(error.code(), "store-cannot-hold");
}
