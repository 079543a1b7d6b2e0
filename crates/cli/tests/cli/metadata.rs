//! Everything that Linux can store, there and back through the binary, with and without root.

use std::process::Command;

use muster_testkit::{
    odd_tree::{self, Options},
    walker::{Entry, Kind, Tolerance, assert_same, walk},
};

use crate::{backup::run_without_root, sandbox::Sandbox};

fn tolerance() -> Tolerance {
    // Nothing makes a socket but its process.
    let may_miss = vec![Kind::Socket];
    Tolerance { may_miss, allocated_slack: Some(64 << 10), ..Tolerance::default() }
}

#[test]
fn an_odd_tree_comes_back_exactly() {
    let sandbox = Sandbox::new("metadata");
    let odd = sandbox.path("odd");
    odd_tree::build(&odd, &Options::everything()).unwrap();
    let before = walk(&odd).unwrap();
    let unreadable = before.entries.values().any(|entry| !entry.readable);
    sandbox.run(&["backup", "odd"]).expect(if unreadable { 5 } else { 0 });
    sandbox.run(&["restore", "latest", "--target", "back"]).expect(0);
    if !unreadable {
        assert_same(&before, &walk(&sandbox.path("back/odd")).unwrap(), &tolerance());
    }
    sandbox.run(&["check", "--read-data"]).expect(0);
}

/// Of what is theirs, somebody without root backs up what they may read, is told what they may
/// not, and gets all of it back but what only root can set.
#[test]
fn without_root_what_may_be_read_comes_back_exactly() {
    let sandbox = Sandbox::new("metadata-nobody");
    let folder = sandbox.path("mine");
    let options = Options {
        devices: false,
        trusted_xattrs: false,
        symlink_xattrs: false,
        ..Options::everything()
    };
    odd_tree::build(&folder.join("odd"), &options).unwrap();
    if rustix::process::getuid().is_root() {
        let owned = Command::new("chown").args(["-Rh", "65534:65534"]).arg(&folder).status();
        assert!(owned.unwrap().success());
    }
    let mut before = walk(&folder.join("odd")).unwrap();
    let is_shut = |entry: &Entry| match entry.kind {
        Kind::File => entry.permissions & 0o400 == 0,
        Kind::Folder => entry.permissions & 0o500 != 0o500,
        _ => false,
    };
    let shut = before.entries.iter().filter(|(_, entry)| is_shut(entry));
    let shut: Vec<Vec<u8>> = shut.map(|(path, _)| path.clone()).collect();
    assert!(shut.contains(&b"unreadable/secret".to_vec()));
    let ran = run_without_root(&sandbox, &["backup", "mine/odd"]).expect(5);
    for path in &shut {
        let name = String::from_utf8(path.clone()).unwrap();
        assert!(ran.stderr.contains(&name), "{name} is missing in: {}", ran.stderr);
        before.entries.remove(path);
    }
    assert!(ran.stderr.contains(&format!("{} item", shut.len())), "{}", ran.stderr);

    run_without_root(&sandbox, &["restore", "latest", "--target", "mine/back"]).expect(0);
    let back = walk(&folder.join("back/mine/odd")).unwrap();
    assert_same(&before, &back, &tolerance());
    sandbox.run(&["check", "--read-data"]).expect(0);
}
