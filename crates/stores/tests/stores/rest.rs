//! restic's REST protocol.

use muster_repository::storage::{
    File, FileKind, StorageProblem, conformance, conformance::Promises,
};
use muster_testkit::stores::{
    self,
    rest::{Options, RestServer},
};

use crate::{Shared, fresh, store, unreliable};

/// The server of `testkit` does as rest-server: it never replaces a file.
const NEVER_REPLACES: Promises = Promises { replaces: false, ..Promises::ALL };

fn check(options: Options) {
    let server = RestServer::start(options);
    let open = || store(&format!("rest:{}{}/", server.url(), fresh()), &[], &[]);
    conformance::run_promising(NEVER_REPLACES, || (Shared(open()), ()));
    assert!(!server.files().iter().any(|path| path.contains("/data/00/")), "packs lie flat");
}

#[test]
fn version_2_conforms() {
    check(Options::default());
}

#[test]
fn version_1_conforms() {
    check(Options { version_1: true, ..Options::default() });
}

#[test]
fn faults_around_it_are_met_with_patience() {
    let server = RestServer::start(Options::default());
    let open = || store(&format!("rest:{}{}/", server.url(), fresh()), &[], &[]);
    let promises = Promises { tells_missing: false, ..NEVER_REPLACES };
    conformance::run_promising(promises, || (unreliable(open()), ()));
}

#[test]
fn a_server_that_is_busy_or_hangs_up_is_asked_again() {
    let options = Options { busy_every: 5, mute_every: 7, ..Options::default() };
    let server = RestServer::start(options);
    let storage = store(&format!("rest:{}", server.url()), &[], &[]);
    for seed in 0..12 {
        storage.put(conformance::pack(seed), &seed.to_le_bytes()).unwrap();
        assert_eq!(storage.read(conformance::pack(seed), 8).unwrap(), seed.to_le_bytes());
    }
    assert_eq!(storage.list(FileKind::Pack).unwrap().len(), 12);
}

#[test]
fn an_append_only_server_refuses_deletes_clearly() {
    let server = RestServer::start(Options { append_only: true, ..Options::default() });
    let storage = store(&format!("rest:{}", server.url()), &[], &[]);
    storage.put(conformance::pack(1), b"x").unwrap();
    let error = storage.delete(conformance::pack(1)).unwrap_err();
    assert_eq!(error.problem(), StorageProblem::Denied);
    let lock = FileKind::Lock.file(&"0123456789abcdef".repeat(4)).unwrap();
    storage.put(lock, b"x").unwrap();
    storage.delete(lock).unwrap();
}

#[test]
fn users_log_in_by_url_or_by_variables() {
    let login = Some(("me".to_owned(), "s@cret".to_owned()));
    let server = RestServer::start(Options { login, ..Options::default() });
    let by_url = format!("rest:http://me:s%40cret@{}/", server.address());
    store(&by_url, &[], &[]).put(File::Config, b"x").unwrap();
    let variables = [("RESTIC_REST_USERNAME", "me"), ("RESTIC_REST_PASSWORD", "s@cret")];
    let storage = store(&format!("rest:{}", server.url()), &[], &variables);
    assert_eq!(storage.read(File::Config, 10).unwrap(), b"x");
    let wrong = store(&format!("rest:http://me:guess@{}/", server.address()), &[], &[]);
    let error = wrong.read(File::Config, 10).unwrap_err();
    assert_eq!(error.problem(), StorageProblem::Credentials);
    assert!(!wrong.location().contains("guess") && !format!("{error:?}").contains("guess"));
}

/// rclone has no condition, and replaces.
#[test]
fn rclone_conforms() {
    let Some(server) = stores::rclone(&[]) else { return };
    let open = || store(&format!("rest:http://{}/{}/", server.address(), fresh()), &[], &[]);
    let promises = Promises { creates_once: false, ..Promises::ALL };
    conformance::run_promising(promises, || (Shared(open()), ()));
    let promises = Promises { tells_missing: false, ..promises };
    conformance::run_promising(promises, || (unreliable(open()), ()));
}

#[test]
fn append_only_rclone_refuses_deletes() {
    let Some(server) = stores::rclone(&["--append-only"]) else { return };
    let storage = store(&format!("rest:http://{}/", server.address()), &[], &[]);
    storage.prepare().unwrap();
    storage.put(conformance::pack(1), b"x").unwrap();
    let error = storage.delete(conformance::pack(1)).unwrap_err();
    assert_eq!(error.problem(), StorageProblem::Denied, "{error:?}");
}
