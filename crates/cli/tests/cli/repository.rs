//! Making repositories, finding none, and locks.

use muster_repository::{
    environment::Environment,
    lock::{Lock, LockKind},
    run::Run,
};

use crate::sandbox::{PASSWORD, Sandbox, run};

#[test]
fn init_makes_a_repository_once() {
    let sandbox = Sandbox::without_repository("init");
    let ran = sandbox.run(&["init", "--json"]).expect(0);
    let made = ran.json();
    assert_eq!(made["message_type"], "initialized");
    assert_eq!(made["id"], sandbox.open().config().id);
    let again = sandbox.run(&["init"]).expect(4);
    assert_eq!(again.stdout, "");
    again.tells("there is one already");
    sandbox.run(&["snapshots"]).expect(0).shows("0 snapshots");
}

#[test]
fn init_copies_chunker_parameters_and_refuses_an_empty_password() {
    let sandbox = Sandbox::new("init-from");
    let from = ["init", "-r", "second", "--from-repo", "repo"];
    sandbox.run(&from).expect(2).tells("--copy-chunker-params");
    let mut command = sandbox.command(&[&from[..], &["--copy-chunker-params"]].concat());
    run(command.env("MUSTER_FROM_PASSWORD", PASSWORD)).expect(0).shows("created repository");
    let polynomial = |repo: &str| {
        let output = sandbox.run(&["-r", repo, "snapshots"]);
        output.expect(0);
        let storage = muster_repository::storage::LocalStorage::new(sandbox.path(repo));
        let storage = std::sync::Arc::new(storage);
        let opened =
            muster_repository::repository::Repository::open(storage, PASSWORD.as_bytes(), None);
        opened.unwrap().config().chunker_polynomial
    };
    assert_eq!(polynomial("repo"), polynomial("second"));
    sandbox.write("empty", "\n");
    let arguments = ["init", "-r", "third", "--password-file", "empty"];
    sandbox.run(&arguments).expect(2).tells("--insecure-no-password");
    assert!(!sandbox.path("third").exists());
}

#[test]
fn a_place_without_a_repository_is_exit_code_1() {
    let sandbox = Sandbox::without_repository("missing");
    let ran = sandbox.run(&["snapshots"]).expect(1);
    assert_eq!(ran.stdout, "");
    let ran = ran.tells("there is none").tells("muster repo init");
    assert!(!ran.stderr.contains("cause:"), "{}", ran.stderr);
    assert!(!sandbox.path("repo").exists());
}

#[test]
fn a_locked_repository_is_refused_and_says_by_whom() {
    let sandbox = Sandbox::new("locked");
    let (repository, environment) = (sandbox.open(), Environment::detect());
    let retry = std::time::Duration::ZERO;
    let lock = Lock::acquire(&repository, LockKind::Exclusive, retry, &environment, &Run::new());
    let lock = lock.unwrap();
    let ran = sandbox.run(&["backup", "source"]).expect(4);
    let pid = std::process::id().to_string();
    ran.tells("locked exclusively").tells(&pid).tells("muster repo unlock");
    sandbox.run(&["snapshots"]).expect(4);
    sandbox.run(&["snapshots", "--no-lock"]).expect(0);
    let error = sandbox.run(&["snapshots", "--json", "--retry-lock", "50ms"]).expect(4).error();
    assert_eq!(error["code"], "locked");
    sandbox.run(&["unlock"]).expect(0).shows("removed 0 locks").tells("still locked");
    sandbox.run(&["unlock", "--remove-all"]).expect(0).shows("removed 1 lock");
    drop(lock);
    sandbox.run(&["snapshots"]).expect(0);
    assert_eq!(sandbox.locks(), 0);
}
