//! Snapshots, written anew without what they lost.

use super::*;
use crate::{
    format::tree::Tree,
    repair::{
        packs,
        sample::{CHUNK, check_all, chunk, flip, pack_of, stopped_at_every_write, two_snapshots},
    },
    repository::Repository,
    storage::Storage as _,
    tree_walk::{find_subtree, sample::Sample},
};

fn repair_all(repository: &Repository, forget: bool) -> Result<RepairSnapshotsReport, ChangeError> {
    let run = Run::new();
    let snapshots = list(repository)?;
    let options = RepairSnapshotsOptions { forget, ..Default::default() };
    repair(&repository.load_index(&run)?, &snapshots, &options, &run)
}

/// Takes a chunk out of the repository, as `repair packs` does.
fn lose(sample: &Sample, chunk: &[u8]) {
    let pack = flip(sample, chunk);
    let indexed = sample.indexed();
    let proposal = packs::propose(&indexed, &[pack], &Run::new()).unwrap();
    packs::apply(&indexed, &proposal, PackOptions::default(), &Run::new()).unwrap();
}

fn folder(sample: &Sample, id: SnapshotId, path: &str) -> Tree {
    let indexed = sample.indexed();
    let mut reader = indexed.blob_reader().unwrap();
    let root = sample.repository.snapshot(id).unwrap().tree;
    let tree = find_subtree(&mut reader, root, path.as_bytes()).unwrap();
    reader.tree(tree).unwrap()
}

#[test]
fn whole_snapshots_are_left_alone() {
    let sample = two_snapshots();
    let before = sample.storage.files().clone();
    let report = repair_all(&sample.repository, true).unwrap();
    assert_eq!((report.whole, report.snapshots.len()), (2, 0));
    assert_eq!(*sample.storage.files(), before);
}

#[test]
fn a_file_goes_on_without_its_lost_chunk() {
    let sample = two_snapshots();
    lose(&sample, &chunk(11));
    let report = repair_all(&sample.repository, false).unwrap();
    assert_eq!((report.whole, report.snapshots.len()), (1, 1));
    let repaired = &report.snapshots[0];
    assert_eq!(repaired.losses[0].0, b"/sub/large");
    assert_eq!(repaired.losses[0].1.to_string(), "lost 1000 of 3000 bytes: 1000-2000");
    let new = repaired.new.unwrap();
    let snapshot = sample.repository.snapshot(new).unwrap();
    assert_eq!(snapshot.original, Some(repaired.old));
    assert_eq!(snapshot.tags, [REPAIRED_TAG, PARTIAL_TAG]);
    let large = folder(&sample, new, "/sub").nodes.remove(0);
    assert_eq!(large.content.unwrap(), [10, 12].map(|seed| BlobId::of(&chunk(seed))));
    assert_eq!(large.size, 2 * CHUNK as u64);
    // Only the old one is still damaged; without it all is well.
    assert_eq!(check_all(&sample.repository).affected_snapshots(), [repaired.old]);
    let again = repair_all(&sample.repository, true).unwrap();
    assert_eq!(again.snapshots[0].new, Some(new), "it is not written twice");
    assert!(check_all(&sample.repository).is_clean());
}

/// What was cut out is gone from the sizes, too, and from what vouched for it.
#[test]
fn a_repaired_form_is_no_point_and_counts_what_is_left() {
    let sample = two_snapshots();
    let summary = |bytes: u64| -> crate::format::snapshot::Summary {
        serde_json::from_value(serde_json::json!({
            "backup_start": "2026-01-01T00:00:00Z", "backup_end": "2026-01-01T00:00:00Z",
            "files_new": 0, "files_changed": 0, "files_unmodified": 0, "dirs_new": 0,
            "dirs_changed": 0, "dirs_unmodified": 0, "data_blobs": 0, "tree_blobs": 0,
            "data_added": 0, "total_files_processed": 2, "total_bytes_processed": bytes,
        }))
        .unwrap()
    };
    let (id, old) = sample.repository.snapshots().unwrap().remove(0);
    let tags = ["muster:point=p", "muster:proven", "muster:hold"].map(str::to_owned).to_vec();
    let old = Snapshot { tags, summary: Some(summary(4 * CHUNK as u64)), ..old };
    let marked = sample.repository.save_unpacked(File::Snapshot, &old).unwrap();
    sample.storage.delete(File::Snapshot(id)).unwrap();
    lose(&sample, &chunk(11));

    let run = Run::new();
    let snapshots = list(&sample.repository).unwrap();
    let protected = HashSet::from([marked]);
    let options = RepairSnapshotsOptions { forget: true, protected, ..Default::default() };
    let report = repair(&sample.indexed(), &snapshots, &options, &run).unwrap();
    assert_eq!((&report.protected[..], report.removed.len()), (&[marked][..], 0));
    assert_eq!(sample.repository.snapshots().unwrap().len(), 2, "nothing was changed");

    let report = repair_all(&sample.repository, true).unwrap();
    let new = sample.repository.snapshot(report.snapshots[0].new.unwrap()).unwrap();
    assert_eq!(new.tags, ["muster:hold", REPAIRED_TAG, PARTIAL_TAG]);
    let summary = new.summary.unwrap();
    let left = (summary.total_files_processed, summary.total_bytes_processed);
    assert_eq!(left, (2, 3 * CHUNK as u64));
}

/// A pack that is gone and still in the index: its chunks are lost, and their lengths known.
#[test]
fn chunks_of_a_pack_that_is_gone_are_lost() {
    let sample = two_snapshots();
    sample.storage.delete(File::Pack(pack_of(&sample, &chunk(10)))).unwrap();
    let report = repair_all(&sample.repository, true).unwrap();
    let losses: Vec<_> =
        report.snapshots[0].losses.iter().map(|(_, loss)| loss.to_string()).collect();
    assert_eq!(losses, ["lost 1000 of 1000 bytes: 0-1000", "lost 3000 of 3000 bytes: 0-3000"]);
}

#[test]
fn a_folder_without_its_tree_becomes_empty_and_a_lost_root_is_told() {
    let sample = two_snapshots();
    let trees = {
        let indexed = sample.indexed();
        let mut reader = indexed.blob_reader().unwrap();
        let snapshots = sample.repository.snapshots().unwrap();
        let sub = reader.tree(snapshots[0].1.tree).unwrap().get(b"sub").unwrap().subtree.unwrap();
        [sub, snapshots[1].1.tree]
    };
    for tree in trees {
        let found = sample.indexed().index().find(BlobKind::Tree, tree).unwrap();
        let at = found.blob.offset as usize + 20;
        crate::repair::sample::damage(&sample, File::Pack(found.pack), |bytes| bytes[at] ^= 1);
    }
    let report = repair_all(&sample.repository, false).unwrap();
    let [folder_lost, all_lost] = &report.snapshots[..] else { panic!("{report:#?}") };
    assert_eq!(folder_lost.losses[0].0, b"/sub");
    let new = folder_lost.new.unwrap();
    assert!(folder(&sample, new, "/sub").nodes.is_empty());
    assert_eq!(folder(&sample, new, "/").nodes.len(), 2);
    assert!(all_lost.is_lost && all_lost.new.is_none());
    assert!(sample.repository.snapshot(all_lost.old).is_ok(), "kept unless it is told to go");
    let report = repair_all(&sample.repository, true).unwrap();
    assert_eq!(report.removed.len(), 2);
}

#[test]
fn damaged_snapshot_files_go_only_when_told() {
    let sample = two_snapshots();
    let (id, _) = sample.repository.snapshots().unwrap()[0];
    crate::repair::sample::damage(&sample, File::Snapshot(id), |content| content[20] ^= 1);
    let report = repair_all(&sample.repository, false).unwrap();
    assert_eq!((&report.unreadable[..], report.removed.len()), (&[(id, None)][..], 0));
    let report = repair_all(&sample.repository, true).unwrap();
    assert_eq!(report.removed, [id]);
    assert!(check_all(&sample.repository).is_clean());
}

#[test]
fn snapshot_files_under_wrong_names_are_stored_anew() {
    let sample = two_snapshots();
    let snapshots = sample.repository.snapshots().unwrap();
    {
        let mut files = sample.storage.files();
        let [a, b] = [0, 1].map(|n| File::Snapshot(snapshots[n].0));
        let (a_content, b_content) = (files[&a].clone(), files[&b].clone());
        files.insert(a, b_content);
        files.insert(b, a_content);
    }
    let report = repair_all(&sample.repository, true).unwrap();
    assert!(report.unreadable.iter().all(|(_, new)| new.is_some()));
    let after = sample.repository.snapshots().unwrap();
    assert_eq!(after.len(), 2);
    for ((id, before), (_, after)) in snapshots.iter().zip(after) {
        assert_eq!(after, Snapshot { original: Some(*id), ..before.clone() });
    }
    assert!(check_all(&sample.repository).is_clean());
}

#[test]
fn unindexed_packs_are_named_before_anything_is_cut() {
    let sample = two_snapshots();
    assert!(unindexed_packs(&sample.repository, &Run::new()).unwrap().is_empty());
    let index = crate::repair::sample::indexes(&sample)[0];
    sample.storage.delete(index).unwrap();
    assert_eq!(unindexed_packs(&sample.repository, &Run::new()).unwrap().len(), 2);
}

#[test]
fn stopped_at_any_write_it_can_be_run_again() {
    for forget in [false, true] {
        let sample = two_snapshots();
        lose(&sample, &chunk(11));
        lose(&sample, &chunk(200));
        let writes = stopped_at_every_write(
            &sample,
            |repository| repair_all(repository, forget).map(drop),
            |repaired| {
                let snapshots = repaired.repository.snapshots().unwrap();
                let new = snapshots.iter().filter(|(_, s)| s.tags.contains(&"repaired".to_owned()));
                assert_eq!((new.count(), snapshots.len()), (2, if forget { 2 } else { 4 }));
            },
        );
        assert!(writes >= 4, "{writes} writes");
    }
}

/// Sixty trees that unfold into 2^60 files: each is walked once, and the list of losses is bounded.
#[test]
fn trees_that_share_one_another_are_walked_once() {
    use crate::testing::{RepositoryBuilder, dir_node, file_node};
    let mut builder = RepositoryBuilder::new();
    let lost = BlobId::of(b"lost");
    let mut tree = builder.add_tree(vec![file_node(b"f", vec![lost], 4)]);
    for _ in 0..60 {
        tree = builder.add_tree(vec![dir_node(b"a", tree), dir_node(b"b", tree)]);
    }
    let indexed = builder.finish();
    let snapshot = serde_json::json!({"time": "2026-01-01T00:00:00Z", "tree": tree});
    let snapshot: Snapshot = serde_json::from_value(snapshot).unwrap();
    let readable = vec![(SnapshotId::of(b"any"), snapshot)];
    let list = SnapshotList { readable, damaged: Vec::new() };
    let report = repair(&indexed, &list, &RepairSnapshotsOptions::default(), &Run::new()).unwrap();
    let repaired = &report.snapshots[0];
    assert_eq!((repaired.losses_total, repaired.losses.len()), (1 << 60, 1000));
}
