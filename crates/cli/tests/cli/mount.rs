//! `muster repo mount`, through the real kernel.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use muster_testkit::{
    odd_tree::{self, Options},
    peers::require_fuse,
    wait_for,
    walker::{Tolerance, assert_same, walk},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{PATIENCE, Ran, Sandbox};

/// A mounted repository; unmounted when the test ends, however it ends.
struct Mount {
    child: Option<Child>,
    folder: PathBuf,
}

impl Mount {
    fn new(sandbox: &Sandbox) -> Self {
        let folder = sandbox.path("mounted");
        fs::create_dir(&folder).unwrap();
        let mut command = sandbox.command(&["mount", "mounted"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let mount = Self { child: Some(child), folder };
        let is_there = || mount.folder.join("snapshots").is_dir().then_some(());
        wait_for("the mounted repository", PATIENCE, is_there).unwrap();
        mount
    }

    fn latest(&self) -> PathBuf {
        self.folder.join("snapshots/latest")
    }

    fn interrupt(&self) {
        let child = self.child.as_ref().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }

    /// Ctrl-C, and what the command said.
    fn end(mut self) -> Ran {
        self.interrupt();
        Ran::of(self.child.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, Signal::INT).ok();
            child.wait().ok();
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_odd_tree_is_seen_as_it_was_backed_up() {
    if !require_fuse() {
        return;
    }
    let sandbox = Sandbox::new("mount-odd");
    let odd = sandbox.path("odd");
    odd_tree::build(&odd, &Options::everything()).unwrap();
    sandbox.run(&["backup", "odd"]);
    let before = walk(&odd).unwrap();
    let mount = Mount::new(&sandbox);
    let seen = walk(&mount.latest().join("odd")).unwrap();
    assert_same(&before, &seen, &Tolerance::default());
    assert_eq!(sandbox.locks(), 1, "a prune must not run meanwhile");
    mount.end().expect(0);
    assert_eq!(names(&sandbox.path("mounted")), Vec::<String>::new());
    assert_eq!(sandbox.locks(), 0);
}

#[test]
fn snapshots_lie_by_time_id_host_and_tag() {
    if !require_fuse() {
        return;
    }
    let sandbox = Sandbox::new("mount-layout");
    for round in ["1", "2"] {
        sandbox.write("source/a.txt", round);
        sandbox
            .run(&[
                "backup",
                "source",
                "--host",
                "web",
                "--tag",
                "a/b",
                "--time",
                &format!("2026-01-0{round} 12:00:00"),
            ])
            .expect(0);
    }
    let mount = Mount::new(&sandbox);
    assert_eq!(names(&mount.folder), ["hosts", "ids", "snapshots", "tags"]);
    let times = ["2026-01-01T12:00:00Z", "2026-01-02T12:00:00Z", "latest"];
    for folder in ["snapshots", "hosts/web", "tags/a_b"] {
        assert_eq!(names(&mount.folder.join(folder)), times, "{folder}");
        for (time, content) in times.into_iter().zip(["1", "2", "2"]) {
            let file = mount.folder.join(folder).join(time).join("source/a.txt");
            assert_eq!(fs::read_to_string(file).unwrap(), content);
        }
    }
    assert_eq!(names(&mount.folder.join("ids")).len(), 2);
    let refused = fs::write(mount.latest().join("new"), "x").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    mount.end().expect(0);
}

#[test]
fn a_damaged_file_gives_an_error_and_the_rest_is_read() {
    if !require_fuse() {
        return;
    }
    let sandbox = Sandbox::new("mount-damaged");
    let noise: String =
        (0..200_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    sandbox.write("source/large", &noise);
    sandbox.run(&["backup", "source/large"]).expect(0);
    sandbox.write("source/other", "whole");
    let pack = sandbox.data_pack();
    let mut content = fs::read(&pack).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&pack, content).unwrap();
    sandbox.run(&["backup", "--force", "source/other"]).expect(0);
    let mount = Mount::new(&sandbox);
    let [first, second] = &names(&mount.folder.join("snapshots"))[..2] else { unreachable!() };
    let snapshot = |time: &str| mount.folder.join("snapshots").join(time);
    let damaged = fs::read(snapshot(first).join("source/large")).unwrap_err();
    assert_eq!(damaged.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert_eq!(fs::read(snapshot(second).join("source/other")).unwrap(), b"whole");
    mount.end().expect(0);
}

#[test]
fn somebody_who_is_still_inside_does_not_keep_it_from_ending() {
    if !require_fuse() {
        return;
    }
    let sandbox = Sandbox::new("mount-busy");
    sandbox.run(&["backup", "source"]).expect(0);
    let mount = Mount::new(&sandbox);
    let open = fs::File::open(mount.latest().join("source/a.txt")).unwrap();
    mount.end().expect(0);
    drop(open);
    assert_eq!(names(&sandbox.path("mounted")), Vec::<String>::new());
}

#[test]
fn a_folder_that_is_not_empty_is_refused() {
    let sandbox = Sandbox::new("mount-refused");
    let ran = sandbox.run(&["mount", "source", "--json"]).expect(1);
    assert_eq!(ran.error()["code"], "mount-failed");
}
