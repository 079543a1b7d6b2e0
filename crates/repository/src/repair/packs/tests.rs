//! Damaged packs, taken out, and what is sound in them kept.

use super::*;
use crate::{
    repair::sample::{
        check_all, chunk, damage, flip, pack_of, stopped_at_every_write, two_snapshots,
    },
    repository::Repository,
    storage::FileKind,
    tree_walk::sample::Sample,
};

fn proposed(repository: &Repository, packs: &[PackId]) -> PacksProposal {
    propose(&repository.load_index(&Run::new()).unwrap(), packs, &Run::new()).unwrap()
}

fn repair(repository: &Repository, packs: &[PackId]) -> Result<PacksReport, ChangeError> {
    let run = Run::new();
    let indexed = repository.load_index(&run)?;
    let proposal = propose(&indexed, packs, &run)?;
    apply(&indexed, &proposal, PackOptions::default(), &run)
}

fn is_indexed(sample: &Sample, chunk: &[u8]) -> bool {
    sample.indexed().index().contains(BlobKind::Data, BlobId::of(chunk))
}

#[test]
fn a_sound_pack_stays() {
    let sample = two_snapshots();
    let before = sample.storage.files().clone();
    let report = repair(&sample.repository, &[pack_of(&sample, &chunk(10))]).unwrap();
    assert!(report.deleted.is_empty());
    assert_eq!(*sample.storage.files(), before);
}

#[test]
fn the_sound_blobs_of_a_damaged_pack_are_stored_anew() {
    let sample = two_snapshots();
    let pack = flip(&sample, &chunk(11));
    let proposal = proposed(&sample.repository, &[pack]);
    let finding = &proposal.packs[0];
    assert_eq!((finding.sound.len(), finding.lost_for_good()), (3, 1));
    let report = repair(&sample.repository, &[pack]).unwrap();
    assert_eq!((report.stats.data_blobs, &report.deleted[..]), (3, &[pack][..]));
    for (seed, is_there) in [(10, true), (11, false), (12, true), (100, true), (20, true)] {
        assert_eq!(is_indexed(&sample, &chunk(seed)), is_there, "{seed}");
    }
    // Only what needs the lost chunk is still damaged.
    let report = check_all(&sample.repository);
    assert_eq!(report.damages.len(), 1, "{:#?}", report.damages);
    assert_eq!(report.affected_snapshots().len(), 1);
}

/// Half of the pack is left, and no header: the index knows what lies in it.
#[test]
fn a_truncated_pack_gives_what_lies_before_the_cut() {
    let sample = two_snapshots();
    let pack = pack_of(&sample, &chunk(10));
    damage(&sample, File::Pack(pack), |content| content.truncate(2 * 1050));
    let report = repair(&sample.repository, &[pack]).unwrap();
    assert_eq!(report.stats.data_blobs, 2);
    assert!(is_indexed(&sample, &chunk(20)));
}

#[test]
fn packs_that_were_swapped_lose_nothing() {
    let sample = two_snapshots();
    let packs = [10, 20].map(|seed| pack_of(&sample, &chunk(seed)));
    {
        let mut files = sample.storage.files();
        let [a, b] = packs.map(|pack| files[&File::Pack(pack)].clone());
        files.insert(File::Pack(packs[0]), b);
        files.insert(File::Pack(packs[1]), a);
    }
    assert!(!check_all(&sample.repository).is_clean());
    let proposal = proposed(&sample.repository, &packs);
    assert!(proposal.packs.iter().all(|finding| finding.lost_for_good() == 0));
    repair(&sample.repository, &packs).unwrap();
    assert!(check_all(&sample.repository).is_clean());
}

#[test]
fn a_missing_pack_leaves_the_index() {
    let sample = two_snapshots();
    let pack = pack_of(&sample, &chunk(10));
    sample.storage.delete(File::Pack(pack)).unwrap();
    repair(&sample.repository, &[pack]).unwrap();
    assert!(!is_indexed(&sample, &chunk(10)) && is_indexed(&sample, &chunk(20)));
}

#[test]
fn a_copy_is_kept_once_and_never_written_over() {
    let sample = two_snapshots();
    let pack = flip(&sample, &chunk(11));
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let path = keep_copy(sample.storage.as_ref(), pack, folder.path()).unwrap();
        assert_eq!(fs::read(path).unwrap(), sample.storage.files()[&File::Pack(pack)]);
    }
    fs::write(folder.path().join(format!("pack-{pack}")), "something else").unwrap();
    assert!(keep_copy(sample.storage.as_ref(), pack, folder.path()).is_err());
}

#[test]
fn stopped_at_any_write_it_can_be_run_again() {
    let sample = two_snapshots();
    let packs = [flip(&sample, &chunk(11)), pack_of(&sample, &chunk(20))];
    damage(&sample, File::Pack(packs[1]), |content| content.truncate(2 * 1050));
    let writes = stopped_at_every_write(
        &sample,
        |repository| repair(repository, &packs).map(drop),
        |repaired| {
            let there = repaired.storage.list(FileKind::Pack).unwrap();
            assert!(packs.iter().all(|pack| there.iter().all(|l| l.file != File::Pack(*pack))));
            for seed in [10, 12, 100] {
                assert!(is_indexed(repaired, &chunk(seed)), "{seed}");
            }
            let left = [20, 21, 22, 200].map(|seed| is_indexed(repaired, &chunk(seed)));
            assert_eq!(left.iter().filter(|is_there| **is_there).count(), 2);
        },
    );
    assert!(writes >= 6, "{writes} writes");
}
