//! `kill -9` at random moments.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    os::unix::process::ExitStatusExt,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use muster_repository::{
    check::{CheckOptions, ReadData, check},
    id::SnapshotId,
    run::Run,
    storage::{File, FileKind},
};
use muster_testkit::walker::{Listing, Tolerance, assert_same, walk};

use crate::sandbox::{PASSWORD, Sandbox};

const KILLS: usize = 100;

/// Numbers that look random and are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x1405_7b7e_f767_814f);
        self.0 >> 33
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// New files, changed ones, and ones that go.
fn change(sandbox: &Sandbox, numbers: &mut Numbers) {
    for _ in 0..3 {
        let name = sandbox.path(&format!("source/file-{:02}", numbers.below(40)));
        fs::write(name, numbers.bytes(numbers.0 % 20_000)).unwrap();
    }
    let gone = sandbox.path(&format!("source/file-{:02}", numbers.below(40)));
    fs::remove_file(gone).ok();
}

/// The moment at which a backup is killed.
#[derive(Debug)]
enum Moment {
    After(Duration),
    /// When so many files were added to the repository, halves included.
    AtFile(usize),
}

/// Kills the backup at the moment, unless it has ended before.
fn kill_at(child: &mut Child, moment: &Moment, sandbox: &Sandbox, files_before: usize) {
    let start = Instant::now();
    let is_there = || match moment {
        Moment::After(time) => start.elapsed() >= *time,
        Moment::AtFile(count) => files(sandbox) >= files_before + count,
    };
    while !is_there() && child.try_wait().unwrap().is_none() {
        thread::park_timeout(Duration::from_micros(500));
    }
    // It may have ended already.
    child.kill().ok();
}

fn files(sandbox: &Sandbox) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let Ok(entries) = fs::read_dir(folder) else { return 0 };
        let each = entries.flatten().map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count(&entry.path()),
            _ => 1,
        });
        each.sum()
    }
    count(&sandbox.path("repo"))
}

fn snapshots(sandbox: &Sandbox) -> BTreeSet<SnapshotId> {
    sandbox.open().snapshot_ids().unwrap().into_iter().collect()
}

#[track_caller]
fn assert_clean(sandbox: &Sandbox, what: &str) {
    let options = CheckOptions { read_data: ReadData::All };
    let report = check(&sandbox.open(), &options, &Run::new()).unwrap();
    assert!(report.is_clean(), "{what}: {:#?}", report.damages);
}

#[test]
fn a_hundred_kills_lose_no_snapshot_and_store_nothing_twice() {
    let mut numbers = Numbers(1);
    let sandbox = Sandbox::new("kill");
    for number in 0..5 {
        fs::write(sandbox.path(&format!("source/big-{number}")), numbers.bytes(1 << 20)).unwrap();
    }
    // How long an undisturbed backup takes.
    let trial = Sandbox::new("kill-trial");
    let start = Instant::now();
    let arguments = ["backup", "../source", "--quiet", "--pack-size", "4"];
    let mut command = trial.command(&arguments);
    assert!(command.current_dir(sandbox.path("repo")).status().unwrap().success());
    let mut usual = start.elapsed();

    let (mut killed, mut known) = (0, BTreeMap::<SnapshotId, Listing>::new());
    while killed < KILLS {
        if killed % 4 != 0 {
            change(&sandbox, &mut numbers);
        }
        let source = walk(&sandbox.path("source")).unwrap();
        let before = files(&sandbox);
        let moment = match numbers.below(3) {
            0 => Moment::AtFile(usize::try_from(1 + numbers.below(6)).unwrap()),
            _ => Moment::After(usual.mul_f64(numbers.below(1_000) as f64 / 1_000.)),
        };
        let what = format!("after {killed} kills, killed at {moment:?}");
        let mut command = sandbox.command(&["backup", "source", "--quiet", "--pack-size", "4"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        kill_at(&mut child, &moment, &sandbox, before);
        let output = child.wait_with_output().unwrap();
        match output.status.signal() {
            Some(9) => killed += 1,
            _ => {
                assert!(output.status.success(), "{what}: {output:?}");
                usual = usual.min(start.elapsed());
            }
        }
        assert_clean(&sandbox, &what);
        let found = snapshots(&sandbox);
        assert!(known.keys().all(|id| found.contains(id)), "{what}: a snapshot is gone");
        for id in found {
            known.entry(id).or_insert_with(|| source.clone());
        }
    }

    // Whoever was killed while writing left halves of files behind.
    sandbox.write(&format!("repo/data/00/{}-tmp-0123456789abcdef", "0".repeat(64)), "half");
    // They are removed when they are old enough to be nobody's work.
    let old = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    for name in sandbox.leftovers() {
        fs::File::open(sandbox.path("repo").join(name)).unwrap().set_modified(old).unwrap();
    }
    sandbox.run(&["backup", "source", "--pack-size", "4"]).expect(0);
    let is_half = |name: &&String| !name.starts_with("locks/");
    assert_eq!(sandbox.leftovers().iter().find(is_half), None);
    assert_clean(&sandbox, "after the last backup");
    sandbox.run(&["unlock"]).expect(0);
    assert_eq!(sandbox.locks(), 0);
    known.insert(
        *snapshots(&sandbox).iter().find(|id| !known.contains_key(id)).unwrap(),
        walk(&sandbox.path("source")).unwrap(),
    );
    for (id, listing) in &known {
        let target = format!("back-{}", id.short());
        sandbox.run(&["restore", &id.to_hex(), "--target", &target]).expect(0);
        let restored = walk(&sandbox.path(&target).join("source")).unwrap();
        assert_same(listing, &restored, &Tolerance::default());
    }
    assert_stored_once(&sandbox, KILLS);
    if let Some(restic) = sandbox.restic() {
        restic.succeed(["check", "--read-data"]).unwrap();
    }
}

/// Every pack is in the index, and every blob in one pack.
fn assert_stored_once(sandbox: &Sandbox, more_than: usize) {
    let repository = sandbox.open();
    let packs = repository.storage().list(FileKind::Pack).unwrap();
    let repository = repository.load_index(&Run::new()).unwrap();
    let index = repository.index();
    let mut blobs = HashSet::new();
    for listed in packs {
        let File::Pack(pack) = listed.file else { panic!("{listed:?} is no pack") };
        assert!(index.knows_pack(&pack), "{pack} is in no index");
        for blob in index.pack_blobs(&pack) {
            assert!(blobs.insert((blob.kind.as_str(), blob.id)), "{} is stored twice", blob.id);
        }
    }
    assert!(blobs.len() > more_than, "{} blobs", blobs.len());
}

#[test]
fn a_copy_that_is_killed_goes_on_and_stores_nothing_twice() {
    let mut numbers = Numbers(2);
    let (from, to) = (Sandbox::new("kill-copy-from"), Sandbox::new("kill-copy-to"));
    for number in 0..3 {
        fs::write(from.path(&format!("source/{number}")), numbers.bytes(6 << 20)).unwrap();
        from.run(&["backup", "source", "--pack-size", "4"]).expect(0);
    }
    let source = from.path("repo");
    let names = ["copy", "--from-repo", source.to_str().unwrap(), "--pack-size", "4", "--quiet"];
    let copy = || {
        let mut copy = to.command(&names);
        copy.env("MUSTER_FROM_PASSWORD", PASSWORD).stdout(Stdio::null()).stderr(Stdio::piped());
        copy
    };
    let mut killed = 0;
    // Its lock is the first file; each copy comes a little further.
    for more in 2..6 {
        let before = files(&to);
        let mut child = copy().spawn().unwrap();
        kill_at(&mut child, &Moment::AtFile(more), &to, before);
        let output = child.wait_with_output().unwrap();
        assert_clean(&to, &format!("after {killed} kills"));
        match output.status.signal() {
            Some(9) => killed += 1,
            _ => assert!(output.status.success(), "{output:?}"),
        }
    }
    assert!(killed > 0, "no copy lasted until it was killed");
    assert!(copy().status().unwrap().success());
    assert_eq!(snapshots(&to).len(), 3);
    assert_clean(&to, "after the last copy");
    assert_stored_once(&to, 9);
    if let Some(restic) = to.restic() {
        restic.succeed(["check", "--read-data", "--no-lock"]).unwrap();
    }
}
