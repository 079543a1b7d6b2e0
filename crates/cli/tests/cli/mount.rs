//! `muster repo mount`, through the real kernel.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use muster_repository::{
    format::snapshot::Snapshot,
    format::{pack::BlobKind, tree::ExtendedAttribute},
    id::BlobId,
    storage::File,
    testing::{self, RepositoryBuilder, dir_node, file_node, symlink_node},
};
use muster_testkit::{
    odd_tree::{self, Options},
    peers::require_fuse,
    stores, wait_for,
    walker::{Tolerance, assert_same, walk},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cold,
    sandbox::{PASSWORD, PATIENCE, Ran, Sandbox},
};

/// A mounted repository; unmounted when the test ends, however it ends.
struct Mount {
    child: Option<Child>,
    folder: PathBuf,
}

impl Mount {
    fn new(sandbox: &Sandbox) -> Self {
        Self::by(sandbox, sandbox.command(&["mount", "mounted"]))
    }

    /// Mounts with a command that names the folder `mounted`.
    fn by(sandbox: &Sandbox, mut command: Command) -> Self {
        let folder = sandbox.path("mounted");
        fs::create_dir(&folder).unwrap();
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

#[test]
fn what_is_archived_is_an_error_at_once_and_said_so() {
    if !require_fuse() {
        return;
    }
    let Some(server) = stores::s3(&["muster"]) else { return };
    let sandbox = Sandbox::without_repository("mount-cold");
    let place = cold::cold(&server, "mounted");
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    let mut command = sandbox.bare_command(&place.arguments(&["mount", "mounted"]));
    place.dress(&mut command).env("MUSTER_PASSWORD", PASSWORD);
    let mount = Mount::by(&sandbox, command);
    let source = mount.latest().join("source");
    assert_eq!(names(&source), ["a.txt", "sub"], "folders are not archived");
    for _ in 0..2 {
        let refused = fs::read(source.join("a.txt")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    }
    let ran = mount.end().expect(0);
    assert_eq!(ran.stderr.matches("archived").count(), 1, "once: {}", ran.stderr);
    assert!(ran.stderr.contains("--warm-up"), "{}", ran.stderr);
}

/// A tree of one file with this name, as Go quotes it, in JSON.
fn named(name: &str) -> Vec<u8> {
    let tree = serde_json::json!({"nodes": [{"name": name, "type": "file", "content": []}]});
    serde_json::to_vec(&tree).unwrap()
}

/// Names that are none; each makes its folder one that cannot be read.
const NO_NAMES: [(&str, &str); 6] = [
    ("dot", "."),
    ("dots", ".."),
    ("empty", ""),
    ("nul", "a\\x00b"),
    ("slash", "a/b"),
    ("up", "../../etc/passwd"),
];

/// Puts a repository by somebody who wishes us ill into the sandbox.
fn hostile(sandbox: &Sandbox) {
    let mut builder = RepositoryBuilder::new();
    let good = builder.add_data_blob(b"good");
    let file = |name: &str, size: u64| file_node(name.as_bytes(), vec![good], size);
    let mut top = vec![file("good", 4)];
    for (folder, name) in NO_NAMES {
        top.push(dir_node(folder.as_bytes(), builder.add_tree_bytes(&named(name))));
    }
    let long = [256, 5000].map(|length| file(&"x".repeat(length), 4));
    let long = builder.add_tree([&long[..], &[file("short", 4)]].concat());
    top.push(dir_node(b"long", long));
    // A folder within itself: no hash is its own, so the index has to lie.
    let own = BlobId::of(b"own");
    let again = serde_json::json!({"nodes": [{"name": "again", "type": "dir", "subtree": own}]});
    builder.add(BlobKind::Tree, own, &serde_json::to_vec(&again).unwrap());
    top.push(dir_node(b"cycle", own));
    let mut deep = builder.add_tree(vec![file("leaf", 4)]);
    for _ in 0..64 {
        deep = builder.add_tree(vec![dir_node(b"a", deep), dir_node(b"b", deep)]);
    }
    top.push(dir_node(b"deep", deep));
    let sizes = [2, 5, 1 << 20, 1 << 40, i64::MAX as u64, 1 << 63, u64::MAX];
    let sizes = sizes.map(|size| file(&format!("{size:x}"), size));
    top.push(dir_node(b"sizes", builder.add_tree(sizes.to_vec())));
    let mut links = Vec::new();
    for (name, target) in [("empty", vec![]), ("long", vec![b'x'; 5000]), ("nul", vec![0; 9])] {
        links.push(symlink_node(name.as_bytes(), &target));
    }
    top.push(dir_node(b"links", builder.add_tree(links)));
    let attribute =
        |name: &str, length| ExtendedAttribute { name: name.to_owned(), value: vec![0; length] };
    let mut node = file("attributes", 4);
    node.extended_attributes =
        vec![attribute("", 1), attribute("user.nul\0", 1), attribute("user.long", 1 << 20)];
    top.push(node);
    let mut node = file("moments", 4);
    node.mode = u32::MAX;
    node.links = u64::MAX;
    node.inode = u64::MAX;
    top.push(node);
    top.push(file_node(b"lost", vec![good, BlobId::of(b"nowhere")], 9));
    let tree = builder.add_tree(top);
    let stored = builder.storage();
    let repository = builder.finish();
    let text = format!("{{\"time\":\"2026-01-01T00:00:00Z\",\"tree\":\"{tree}\",\"paths\":[]}}");
    let snapshot: Snapshot = serde_json::from_str(&text).unwrap();
    repository.save_unpacked(File::Snapshot, &snapshot).unwrap();
    sandbox.store(&stored, "hostile");
}

#[test]
fn the_kernel_is_told_nothing_that_cannot_be() {
    if !require_fuse() {
        return;
    }
    let sandbox = Sandbox::without_repository("mount-hostile");
    hostile(&sandbox);
    let mut command = sandbox.bare_command(&["-r", "hostile", "mount", "mounted"]);
    command.env("MUSTER_PASSWORD", String::from_utf8_lossy(testing::PASSWORD).as_ref());
    let mount = Mount::by(&sandbox, command);
    let top = mount.latest();
    let eio = Some(rustix::io::Errno::IO.raw_os_error());
    for (folder, _) in NO_NAMES.into_iter().chain([("cycle", "")]) {
        let listed = fs::read_dir(top.join(folder))
            .and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        assert_eq!(listed.unwrap_err().raw_os_error(), eio, "{folder}");
    }
    assert_eq!(names(&top.join("long")), ["short"]);
    let leaf = top.join(format!("deep/{}leaf", "a/b/".repeat(32)));
    assert_eq!(fs::read(leaf).unwrap(), b"good");
    for name in names(&top.join("sizes")) {
        let content = fs::File::open(top.join("sizes").join(&name)).and_then(|file| {
            let mut content = Vec::new();
            file.take(1 << 20).read_to_end(&mut content).map(|_| content)
        });
        match content {
            Ok(content) => assert!(
                b"good".starts_with(&content[..content.len().min(4)]),
                "{name}: {content:?}"
            ),
            Err(error) => assert_eq!(error.raw_os_error(), eio, "{name}"),
        }
    }
    for name in names(&top.join("links")) {
        drop(fs::read_link(top.join("links").join(name)));
    }
    for name in ["attributes", "moments"] {
        assert_eq!(fs::read(top.join(name)).unwrap(), b"good");
        fs::metadata(top.join(name)).unwrap();
        rustix::fs::listxattr(top.join(name), &mut [0; 4096]).ok();
        rustix::fs::getxattr(top.join(name), "user.long", &mut [0; 16]).ok();
    }
    assert_eq!(fs::read(top.join("lost")).unwrap_err().raw_os_error(), eio);
    // And the rest is as usable as before.
    assert_eq!(fs::read(top.join("good")).unwrap(), b"good");
    let ran = mount.end().expect(0);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

/// A process that was killed leaves its mount behind, at which nothing can be looked at: that is no
/// riddle for who mounts again.
#[test]
fn a_mount_that_a_killed_process_left_is_told_with_its_way_out() {
    if !require_fuse() {
        return;
    }
    let sandbox = Sandbox::new("mount-killed");
    sandbox.run(&["backup", "source"]).expect(0);
    let mut mount = Mount::new(&sandbox);
    let mut killed = mount.child.take().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let ran = sandbox.run(&["mount", "mounted"]).expect(1);
    let ran = ran.tells("a mount whose process is gone is still there").tells("fusermount3 -u");
    assert!(ran.stderr.contains("umount"), "{}", ran.stderr);
    let inside = sandbox.run(&["restore", "latest", "--target", "mounted/in"]).expect(1);
    inside.tells("a mount whose process is gone is still there");
    // Taken away, so that the test's folder can be removed.
    let mut umount = Command::new("umount");
    assert!(umount.arg("-l").arg(&mount.folder).status().unwrap().success());
}
