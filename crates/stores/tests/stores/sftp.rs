//! SFTP against OpenSSH.

use std::{fs, time::Duration};

use muster_repository::storage::{FileKind, StorageProblem, conformance};
use muster_testkit::stores;

use crate::{Shared, fresh, store, unreliable};

#[test]
fn sftp_conforms() {
    let Some(ssh) = stores::ssh() else { return };
    let arguments = format!("sftp.args={}", ssh.arguments());
    let open = || {
        let url = format!("sftp:muster-test:{}/{}", ssh.folder().display(), fresh());
        store(&url, &[&arguments], &[])
    };
    conformance::run(|| (Shared(open()), ()));
    let promises = conformance::Promises { tells_missing: false, ..conformance::Promises::ALL };
    conformance::run_promising(promises, || (unreliable(open()), ()));
}

#[test]
fn files_look_like_those_of_a_local_store() {
    use std::os::unix::fs::MetadataExt as _;
    let Some(ssh) = stores::ssh() else { return };
    let arguments = format!("sftp.args={}", ssh.arguments());
    let url = format!("sftp:muster-test:{}/deep/er", ssh.folder().display());
    let storage = store(&url, &[&arguments], &[]);
    storage.prepare().unwrap();
    assert_eq!(storage.listing_lag(), Duration::from_millis(200));
    let pack = conformance::pack(1);
    storage.put(pack, &vec![7; 5 << 20]).unwrap();
    let path = ssh.folder().join("deep/er").join(pack.to_string());
    let data = fs::metadata(&path).unwrap();
    assert_eq!((data.mode() & 0o777, data.size()), (0o400, 5 << 20));
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary file is left");
    // What an interrupted writer left long ago is removed, what is young is not.
    let old = path.with_file_name(format!("{}-tmp-1", path.file_name().unwrap().to_str().unwrap()));
    let young =
        path.with_file_name(format!("{}-tmp-2", path.file_name().unwrap().to_str().unwrap()));
    fs::write(&old, "half").unwrap();
    fs::write(&young, "half").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(48 * 60 * 60);
    fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(storage.list(FileKind::Pack).unwrap().len(), 1);
    assert_eq!(storage.remove_leftovers().unwrap(), 1);
    assert!(!old.exists() && young.exists());
}

#[test]
fn a_stranger_is_not_let_in_and_another_server_is_not_trusted() {
    let Some(ssh) = stores::ssh() else { return };
    let check = |arguments: String, problem: StorageProblem| {
        let url = format!("sftp:muster-test:{}/x", ssh.folder().display());
        let storage = store(&url, &[&format!("sftp.args={arguments}")], &[]);
        let error = storage.list(FileKind::Key).unwrap_err();
        assert_eq!(error.problem(), problem, "{error:?}");
    };
    check(ssh.arguments_of_a_stranger(), StorageProblem::Credentials);
    check(ssh.arguments_for_another(), StorageProblem::Untrusted);
}

#[test]
fn what_speaks_no_sftp_is_told() {
    let storage = store("sftp:host:/x", &["sftp.command=echo 'Welcome to the jungle'"], &[]);
    let error = storage.list(FileKind::Key).unwrap_err();
    assert_eq!(error.problem(), StorageProblem::Unreachable, "{error:?}");
    let missing = store("sftp:host:/x", &["sftp.command=/no/such/program"], &[]);
    let error = missing.list(FileKind::Key).unwrap_err();
    assert_eq!(error.problem(), StorageProblem::Denied, "{error:?}");
}
