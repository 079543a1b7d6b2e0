//! The index, made to fit the packs.

use super::*;
use crate::{
    format::pack::LENGTH_FIELD_BYTES,
    repair::sample::{
        check_all, chunk, damage, indexes, pack_of, stopped_at_every_write, two_snapshots,
    },
    storage::Storage as _,
    tree_walk::sample::Sample,
};

fn proposed(sample: &Sample) -> IndexProposal {
    propose(&sample.repository, RepairIndexOptions::default(), &Run::new()).unwrap()
}

fn repair(repository: &Repository) -> Result<(), ChangeError> {
    let run = Run::new();
    let proposal = propose(repository, RepairIndexOptions::default(), &run)?;
    apply(repository, proposal, &run).map(drop)
}

#[track_caller]
fn assert_clean(sample: &Sample) {
    let report = check_all(&sample.repository);
    assert!(report.is_clean(), "{:#?}", report.damages);
}

#[test]
fn a_sound_index_is_left_alone() {
    let sample = two_snapshots();
    let before = sample.storage.files().clone();
    for read_all_packs in [false, true] {
        let options = RepairIndexOptions { read_all_packs };
        let proposal = propose(&sample.repository, options, &Run::new()).unwrap();
        assert!(proposal.is_empty(), "{proposal:?}");
        let replaced = apply(&sample.repository, proposal, &Run::new()).unwrap();
        assert_eq!(replaced, Replaced::default());
    }
    assert_eq!(*sample.storage.files(), before);
}

#[test]
fn a_deleted_index_is_made_again_from_the_packs() {
    for all in [false, true] {
        let sample = two_snapshots();
        for file in indexes(&sample).into_iter().take(if all { 2 } else { 1 }) {
            sample.storage.delete(file).unwrap();
        }
        assert!(!check_all(&sample.repository).is_clean());
        let proposal = proposed(&sample);
        assert_eq!(proposal.added.len(), if all { 4 } else { 2 });
        apply(&sample.repository, proposal, &Run::new()).unwrap();
        assert_clean(&sample);
        assert!(proposed(&sample).is_empty());
    }
}

#[test]
fn a_damaged_index_is_replaced_and_the_other_stays() {
    let sample = two_snapshots();
    let [damaged, sound] = indexes(&sample)[..] else { panic!("two index files") };
    damage(&sample, damaged, |content| content[40] ^= 1);
    let proposal = proposed(&sample);
    assert_eq!((proposal.damaged.len(), proposal.added.len()), (1, 2));
    apply(&sample.repository, proposal, &Run::new()).unwrap();
    assert_clean(&sample);
    let after = indexes(&sample);
    assert!(after.contains(&sound) && !after.contains(&damaged));
}

#[test]
fn packs_that_are_gone_leave_the_index() {
    let sample = two_snapshots();
    let gone = pack_of(&sample, &chunk(10));
    sample.storage.delete(File::Pack(gone)).unwrap();
    let proposal = proposed(&sample);
    assert_eq!((&proposal.gone[..], proposal.replaced()), (&[gone][..], 1));
    apply(&sample.repository, proposal, &Run::new()).unwrap();
    assert!(!sample.indexed().index().knows_pack(&gone));
    assert!(sample.indexed().index().knows_pack(&pack_of(&sample, &chunk(20))));
    assert!(proposed(&sample).is_empty());
}

/// What only the index knows must not be thrown away with the entry.
#[test]
fn a_pack_without_its_end_stays_for_who_salvages_it() {
    let sample = two_snapshots();
    let cut = pack_of(&sample, &chunk(10));
    damage(&sample, File::Pack(cut), |content| content.truncate(content.len() / 2));
    let proposal = proposed(&sample);
    assert_eq!(proposal.to_salvage, [cut]);
    assert!(proposal.is_empty());
    // One of which nothing is left goes.
    damage(&sample, File::Pack(cut), |content| content.truncate(LENGTH_FIELD_BYTES));
    assert_eq!(proposed(&sample).gone, [cut]);
}

/// Two packs under each other's names: the headers tell what is really there.
#[test]
fn a_description_that_does_not_fit_is_corrected() {
    let sample = two_snapshots();
    let data = File::Pack(pack_of(&sample, &chunk(10)));
    let tree = {
        let indexed = sample.indexed();
        let root = sample.repository.snapshots().unwrap()[0].1.tree;
        File::Pack(indexed.index().find(crate::format::pack::BlobKind::Tree, root).unwrap().pack)
    };
    {
        let mut files = sample.storage.files();
        let (a, b) = (files[&data].clone(), files[&tree].clone());
        files.insert(data, b);
        files.insert(tree, a);
    }
    assert_eq!(proposed(&sample).corrected.len(), 2);
    repair(&sample.repository).unwrap();
    assert!(proposed(&sample).is_empty());
    let mut plaintext = Vec::new();
    let indexed = sample.indexed();
    let mut reader = indexed.blob_reader().unwrap();
    for (_, snapshot) in sample.repository.snapshots().unwrap() {
        reader.tree(snapshot.tree).unwrap();
    }
    let kind = crate::format::pack::BlobKind::Data;
    reader.read(kind, crate::id::BlobId::of(&chunk(10)), &mut plaintext).unwrap();
}

#[test]
fn a_pack_that_cannot_be_understood_is_left_alone() {
    let sample = two_snapshots();
    let litter = PackId::of(b"litter");
    sample.storage.put(File::Pack(litter), &[7; 500]).unwrap();
    let proposal = proposed(&sample);
    assert_eq!(proposal.unreadable.len(), 1);
    assert!(proposal.is_empty());
}

#[test]
fn stopped_at_any_write_it_can_be_run_again() {
    let sample = two_snapshots();
    sample.storage.delete(File::Pack(pack_of(&sample, &chunk(20)))).unwrap();
    let [first, _] = indexes(&sample)[..] else { panic!("two index files") };
    damage(&sample, first, |content| content.truncate(7));
    let writes = stopped_at_every_write(&sample, repair, |repaired| {
        assert!(proposed(repaired).is_empty());
    });
    assert!(writes >= 2, "{writes} writes");
}
