//! A disk without room: what is there stays whole, and the user is told.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    thread,
};

use muster_testkit::walker::{Tolerance, assert_same, walk};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use crate::sandbox::Sandbox;

const MIB: usize = 1 << 20;

/// Runs `test` in a thread whose mounts only it and its children see, and which end with it.
/// Only root may do this, and not in every container.
pub(crate) fn with_own_mounts(test: impl FnOnce() + Send) {
    let private = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)
    };
    let run = || match private() {
        Ok(()) => test(),
        Err(error) => {
            let test = thread::current();
            let line = format!("SKIPPED: {:?}: no mounts of our own: {error}\n", test.name());
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    };
    thread::scope(|scope| {
        let name = thread::current().name().unwrap_or_default().to_owned();
        let thread = thread::Builder::new().name(name).spawn_scoped(scope, run).unwrap();
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// A small disk in memory. Dropped before the sandbox, so that the sandbox can be removed.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(path: &Path, mebibytes: usize) -> Self {
        let disk = Self(path.to_owned());
        disk.set_size(mebibytes, MsFlags::empty());
        disk
    }

    fn grow(&self, mebibytes: usize) {
        self.set_size(mebibytes, MsFlags::MS_REMOUNT);
    }

    fn set_size(&self, mebibytes: usize, flags: MsFlags) {
        let size = format!("size={mebibytes}m,mode=755");
        mount(Some("muster-test"), &self.0, Some("tmpfs"), flags, Some(size.as_str())).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x1405_7b7e_f767_814f);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(next).collect()
}

#[test]
fn a_backup_onto_a_full_disk_fails_and_harms_nothing() {
    with_own_mounts(|| {
        let sandbox = Sandbox::new("full-backup");
        // The repository moves onto the small disk.
        let (repo, kept) = (sandbox.path("repo"), sandbox.path("kept"));
        fs::rename(&repo, &kept).unwrap();
        fs::create_dir(&repo).unwrap();
        let disk = SmallDisk::mount(&repo, 12);
        let copied =
            std::process::Command::new("cp").arg("-a").arg(kept.join(".")).arg(&repo).status();
        assert!(copied.unwrap().success());

        fs::write(sandbox.path("source/old"), noise(1, MIB)).unwrap();
        sandbox.run(&["backup", "source"]).expect(0);
        let before = walk(&sandbox.path("source")).unwrap();
        for number in 0..20 {
            let name = sandbox.path(&format!("source/new-{number:02}"));
            fs::write(name, noise(100 + number, MIB)).unwrap();
        }
        let backup = ["backup", "source", "--pack-size", "4"];
        let ran = sandbox.run(&backup).expect(1);
        assert_eq!(ran.stdout, "");
        let ran = ran.tells("No space left on device").tells(&repo.display().to_string());
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        assert_eq!(
            sandbox.run(&[&backup[..], &["--json"]].concat()).expect(1).error()["class"],
            "transient"
        );
        assert_eq!((sandbox.locks(), sandbox.leftovers()), (0, Vec::new()));

        // The disk is as good as full, and everything that was there is.
        sandbox.run(&["check", "--read-data"]).expect(0);
        assert_eq!(sandbox.run(&["snapshots", "--json"]).json().as_array().unwrap().len(), 1);
        sandbox.run(&["restore", "latest", "--target", "back"]).expect(0);
        assert_same(&before, &walk(&sandbox.path("back/source")).unwrap(), &Tolerance::default());

        // Not even a lock fits.
        let mut filler = fs::File::create(repo.join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        drop(filler);
        let ran = sandbox.run(&["restore", "latest", "--target", "back-2"]);
        ran.expect(1).tells("No space left on device").tells("--no-lock");
        sandbox.run(&["restore", "latest", "--target", "back-2", "--no-lock"]).expect(0);
        assert_same(&before, &walk(&sandbox.path("back-2/source")).unwrap(), &Tolerance::default());
        assert_eq!((sandbox.locks(), sandbox.leftovers()), (0, Vec::new()));

        // With room again the backup goes on where it ended.
        fs::remove_file(repo.join("filler")).unwrap();
        disk.grow(64);
        let summary = sandbox.run(&[&backup[..], &["--json"]].concat()).expect(0).last_json();
        assert!(summary["data_added"].as_u64().unwrap() < 17 << 20, "{summary}");
        sandbox.run(&["check", "--read-data"]).expect(0);
        sandbox.run(&["restore", "latest", "--target", "back-3"]).expect(0);
        let (source, back) = (sandbox.path("source"), sandbox.path("back-3/source"));
        assert_same(&walk(&source).unwrap(), &walk(&back).unwrap(), &Tolerance::default());
    });
}

#[test]
fn a_restore_onto_a_full_disk_leaves_whole_files_only() {
    with_own_mounts(|| {
        let sandbox = Sandbox::new("full-restore");
        for number in 0..10 {
            let name = sandbox.path(&format!("source/file-{number:02}"));
            fs::write(name, noise(number, MIB)).unwrap();
        }
        sandbox.run(&["backup", "source"]).expect(0);
        let small = sandbox.path("small");
        fs::create_dir(&small).unwrap();
        let disk = SmallDisk::mount(&small, 4);
        let ran = sandbox.run(&["restore", "latest", "--target", "small/back"]).expect(1);
        let ran = ran.tells("the target is full").tells("cannot write source/file-");
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        assert_eq!(sandbox.locks(), 0);
        let original = walk(&sandbox.path("source")).unwrap();
        let restored = walk(&small.join("back/source")).unwrap();
        for (path, entry) in &restored.entries {
            let name = String::from_utf8_lossy(path);
            let whole = original.get(path).unwrap_or_else(|| panic!("{name} is no file of ours"));
            assert_eq!(entry.sha256, whole.sha256, "{name}");
        }
        disk.grow(64);
        let again = ["restore", "latest", "--target", "small/back", "--overwrite", "if-changed"];
        sandbox.run(&again).expect(0);
        let restored = walk(&small.join("back/source")).unwrap();
        assert_same(&original, &restored, &Tolerance::default());
    });
}
