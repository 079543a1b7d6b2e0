//! Snapshots, written anew.

use std::sync::Arc;

use super::*;
use crate::{
    check::{CheckOptions, ReadData, check},
    format::pack::BlobKind,
    repository::Repository,
    storage::{
        File, FileKind, Storage as _,
        unreliable::{Faults, Unreliable},
    },
    tree_walk::{
        Step, TreeWalk,
        sample::{Sample, dir, file},
    },
};

fn sample() -> Sample {
    let sample = Sample::new();
    let sub = || dir([(&b"a.tmp"[..], file(b"tmp")), (b"b", file(b"bb"))]);
    let tree = dir([(&b"keep"[..], sub()), (b"other", sub()), (b"z.tmp", file(b"zz"))]);
    let tree = sample.write(&tree);
    sample.snapshot(tree, 1);
    let tree = sample.write(&dir([(&b"x"[..], file(b"x"))]));
    sample.snapshot(tree, 2);
    sample
}

fn excluding(patterns: &[&str]) -> RewriteOptions {
    let patterns = Patterns::parse(patterns).unwrap();
    RewriteOptions { excludes: vec![patterns], ..RewriteOptions::default() }
}

fn run_on(repository: &Repository, options: &RewriteOptions) -> Result<RewriteReport, ChangeError> {
    let run = Run::new();
    let indexed = repository.load_index(&run)?;
    rewrite(&indexed, &repository.snapshots()?, options, &run)
}

fn paths(repository: &Repository, id: SnapshotId) -> Vec<String> {
    let indexed = repository.load_index(&Run::new()).unwrap();
    let tree = repository.snapshot(id).unwrap().tree;
    let walk = TreeWalk::new(&indexed, tree, b"").unwrap();
    let path = |step| match step {
        Step::Entry(entry) => Some(String::from_utf8(entry.path).unwrap()),
        _ => None,
    };
    walk.filter_map(path).collect()
}

#[track_caller]
fn assert_clean(repository: &Repository) {
    let options = CheckOptions { read_data: ReadData::All };
    let report = check(repository, &options, &Run::new()).unwrap();
    assert!(report.is_clean(), "{:#?}", report.damages);
}

#[test]
fn excluded_paths_are_left_out_and_the_rest_stays() {
    let sample = sample();
    let report = run_on(&sample.repository, &excluding(&["/keep/a.tmp", "z.tmp"])).unwrap();
    let [first, second] = &report.snapshots[..] else { panic!("{report:#?}") };
    assert!(first.changed && !second.changed && second.new.is_none());
    assert_eq!(first.excluded, [b"/keep/a.tmp".to_vec(), b"/z.tmp".to_vec()]);
    assert_eq!(first.totals, Some(Totals { files: 3, bytes: 7 }));
    let new = first.new.unwrap();
    let left = ["/keep", "/keep/b", "/other", "/other/a.tmp", "/other/b"];
    assert_eq!(paths(&sample.repository, new), left);
    let snapshot = sample.repository.snapshot(new).unwrap();
    assert_eq!(
        (snapshot.original, &snapshot.tags[..]),
        (Some(first.old), &["rewrite".to_owned()][..])
    );
    assert_eq!(paths(&sample.repository, first.old).len(), 7, "the old one is untouched");
    assert_clean(&sample.repository);
}

#[test]
fn with_forget_the_new_one_takes_the_place_of_the_old() {
    let sample = sample();
    let options = RewriteOptions { forget: true, ..excluding(&["keep"]) };
    let report = run_on(&sample.repository, &options).unwrap();
    let snapshots = sample.repository.snapshots().unwrap();
    assert_eq!(snapshots.len(), 2);
    assert!(snapshots.iter().all(|(_, snapshot)| snapshot.tags.is_empty()));
    assert!(sample.repository.snapshot(report.snapshots[0].old).is_err());
    assert_clean(&sample.repository);
}

#[test]
fn host_and_time_change_without_a_look_at_trees() {
    let sample = sample();
    let time = Timestamp::new(77, 0, 0);
    let options = RewriteOptions {
        new_host: Some("moved".to_owned()),
        new_time: Some(time),
        forget: true,
        ..RewriteOptions::default()
    };
    let _report = run_on(&sample.repository, &options).unwrap();
    for (_, snapshot) in sample.repository.snapshots().unwrap() {
        assert_eq!((snapshot.hostname.as_str(), snapshot.time), ("moved", time));
    }
}

/// Snapshots that a plan relies upon: one is a point, one a legal hold.
fn relied_upon() -> Sample {
    let sample = sample();
    let tags = [&["muster:point=p", "muster:proven", "muster:data=d"][..], &["muster:hold"]];
    for ((id, snapshot), tags) in sample.repository.snapshots().unwrap().into_iter().zip(tags) {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        sample.repository.save_unpacked(File::Snapshot, &Snapshot { tags, ..snapshot }).unwrap();
        sample.storage.delete(File::Snapshot(id)).unwrap();
    }
    sample
}

#[test]
fn only_a_form_with_the_same_content_and_time_is_still_the_point() {
    let host = RewriteOptions { new_host: Some("moved".to_owned()), ..RewriteOptions::default() };
    let time = Some(Timestamp::new(77, 0, 0));
    let time = RewriteOptions { new_time: time, ..RewriteOptions::default() };
    for (options, is_point) in [(host, true), (time, false), (excluding(&["keep"]), false)] {
        let sample = relied_upon();
        let report = run_on(&sample.repository, &options).unwrap();
        let new = sample.repository.snapshot(report.snapshots[0].new.unwrap()).unwrap();
        let has = |tag: &str| new.tags.iter().any(|own| own == tag);
        assert_eq!((has("muster:point=p"), has("muster:proven")), (is_point, is_point));
        assert!(has("muster:data=d"), "{:?}", new.tags);
    }
}

#[test]
fn protected_snapshots_are_left_as_they_are() {
    let sample = relied_upon();
    let before = sample.repository.snapshots().unwrap();
    let protected = before.iter().map(|(id, _)| *id).collect();
    let excluded = excluding(&["keep", "x"]);
    let options = RewriteOptions { forget: true, protected, ..excluded.clone() };
    let report = run_on(&sample.repository, &options).unwrap();
    assert_eq!((report.protected.len(), report.snapshots.len()), (2, 0));
    assert_eq!(sample.repository.snapshots().unwrap(), before);
    // Beside them a new form does no harm.
    let report = run_on(&sample.repository, &RewriteOptions { forget: false, ..options }).unwrap();
    assert_eq!((report.protected.len(), report.snapshots.len()), (0, 2));
}

#[test]
fn a_summary_is_recorded_where_there_was_none() {
    let sample = sample();
    let options =
        RewriteOptions { snapshot_summary: true, forget: true, ..RewriteOptions::default() };
    let _report = run_on(&sample.repository, &options).unwrap();
    let (_, first) = &sample.repository.snapshots().unwrap()[0];
    let summary = first.summary.as_ref().unwrap();
    assert_eq!((summary.total_files_processed, summary.total_bytes_processed), (5, 12));
    let again = run_on(&sample.repository, &options).unwrap();
    assert!(again.snapshots.iter().all(|done| !done.changed));
}

#[test]
fn a_dry_run_writes_nothing() {
    let sample = sample();
    let before = sample.storage.files().clone();
    let mut options = RewriteOptions { forget: true, ..excluding(&["*.tmp"]) };
    options.packs.dry_run = true;
    let report = run_on(&sample.repository, &options).unwrap();
    assert_eq!(report.snapshots[0].excluded_total, 3);
    assert_eq!(*sample.storage.files(), before);
}

fn write_text(sample: &Sample, tree: &str) -> BlobId {
    let (plaintext, indexed) = (tree.as_bytes(), sample.indexed());
    let (id, options) = (BlobId::of(plaintext), PackOptions::default());
    let written =
        write_packs(&sample.repository, indexed.index(), options, vec![], &Run::new(), |to| {
            let mut sealer = to.sealer(BlobKind::Tree)?;
            assert!(to.claim(BlobKind::Tree, id));
            to.add(BlobKind::Tree, id, 1, sealer.seal(id, plaintext)?)
        });
    written.unwrap();
    id
}

/// What another tool recorded and is not understood here must not get lost silently.
#[test]
fn a_tree_that_would_lose_something_is_refused() {
    let sample = Sample::new();
    let tree = |extra: &str| {
        format!(
            r#"{{"nodes":[{{"name":"a","type":"file","content":[]{extra}}},{{"name":"b","type":"file","content":[]}}]}}"#
        )
    };
    for (extra, is_refused) in [("", false), (r#","colour":"red""#, true)] {
        let id = write_text(&sample, &tree(extra));
        let snapshot = sample.snapshot(id, 1);
        let report = run_on(&sample.repository, &excluding(&["/b"])).unwrap();
        let failed: Vec<_> = report.failed.iter().map(|(id, _)| *id).collect();
        assert_eq!(failed.contains(&snapshot), is_refused, "{extra}: {:?}", report.failed);
    }
}

/// A tree that is not held as a whole, as its entries come.
#[test]
fn a_large_tree_is_written_anew_or_refused_like_a_small_one() {
    let sample = Sample::new();
    let target = "a/link/".repeat(60);
    let tree = |extra: &str, between: &str| {
        let entry = |n: usize| {
            let extra = if n == 15_000 { extra } else { "" };
            format!(r#"{{"name":"{n:05}","type":"symlink","linktarget":"{target}"{extra}}}"#)
        };
        let entries: Vec<_> = (0..20_000).map(entry).collect();
        format!("{{\"nodes\":[{}]}}\n", entries.join(between))
    };
    let odd = sample.snapshot(write_text(&sample, &tree(r#","colour":"red""#, ",")), 1);
    let plain = sample.snapshot(write_text(&sample, &tree("", ",")), 2);
    let spaced = sample.snapshot(write_text(&sample, &tree("", " ,\n")), 3);
    let report = run_on(&sample.repository, &excluding(&["/00007", "/19999"])).unwrap();
    let failed: Vec<_> = report.failed.iter().map(|(id, _)| *id).collect();
    assert_eq!(failed, [odd]);
    let alike = report.snapshots.iter().filter(|done| [plain, spaced].contains(&done.old));
    let trees: Vec<_> =
        alike.map(|done| sample.repository.snapshot(done.new.unwrap()).unwrap().tree).collect();
    assert!(trees.len() == 2 && trees[0] == trees[1], "{trees:?}");
    let rewritten = report.snapshots.iter().find(|done| done.old == plain).unwrap();
    assert_eq!(rewritten.totals, Some(Totals { files: 19_998, bytes: 0 }));
    let new = sample.repository.snapshot(rewritten.new.unwrap()).unwrap().tree;
    let indexed = sample.indexed();
    let entries = indexed.blob_reader().unwrap().entries(new).unwrap();
    assert!(entries.is_large());
    let names = entries.map(|node| String::from_utf8(node.unwrap().name).unwrap());
    let expected = (0..19_999).filter(|&n| n != 7).map(|n| format!("{n:05}"));
    assert!(names.eq(expected));
    // What leaves out nothing leaves the tree as it is.
    let again = run_on(&sample.repository, &excluding(&["/00007"])).unwrap();
    let unchanged = again.snapshots.iter().filter(|done| !done.changed).count();
    assert_eq!(unchanged, 2, "{:?}", again.snapshots);
    assert_clean(&sample.repository);
}

#[test]
fn stopped_at_any_write_it_can_be_run_again() {
    for forget in [false, true] {
        let mut writes = 0;
        for stop_at_write in 1.. {
            let sample = sample();
            let faults = Faults { stop_at_write, ..Faults::default() };
            let storage = Arc::new(Unreliable::new(sample.storage.clone(), faults));
            let faulty = sample.repository.clone().on(storage);
            let options = RewriteOptions { forget, ..excluding(&["*.tmp", "x"]) };
            let result = run_on(&faulty, &options);
            assert_clean(&sample.repository);
            let _report = run_on(&sample.repository, &options).unwrap();
            assert_clean(&sample.repository);
            let count = sample.storage.list(FileKind::Snapshot).unwrap().len();
            assert_eq!(count, if forget { 2 } else { 4 }, "stopped at write {stop_at_write}");
            if result.is_ok() {
                break;
            }
            writes = stop_at_write;
        }
        assert!(writes >= 4, "{writes} writes");
    }
}
