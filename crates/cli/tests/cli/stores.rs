//! The whole life of a repository on real servers, and restic beside Muster on the same store.

use std::{fs, process::Command};

use muster_testkit::{
    peers,
    stores::{
        self,
        rest::{Options, RestServer},
    },
};

use crate::sandbox::{PASSWORD, Ran, Sandbox, run};

/// A place for a repository, and what it takes to get there.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) options: Vec<String>,
    variables: Vec<(&'static str, String)>,
    /// What restic needs in place of `options`.
    restic: Option<Vec<String>>,
}

impl Place {
    pub(crate) fn new(url: String) -> Self {
        Self { url, options: Vec::new(), variables: Vec::new(), restic: Some(Vec::new()) }
    }

    pub(crate) fn login(mut self, variables: &[(&'static str, &str)]) -> Self {
        self.variables =
            variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self
    }

    pub(crate) fn muster(&self, sandbox: &Sandbox, arguments: &[&str]) -> Ran {
        let mut command = sandbox.bare_command(&self.arguments(arguments));
        run(self.dress(&mut command).env("MUSTER_PASSWORD", PASSWORD))
    }

    /// `arguments` behind those that lead here.
    pub(crate) fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["-r", &*self.url];
        all.extend(self.options.iter().flat_map(|option| ["-o", option]));
        all.extend(arguments);
        all
    }

    pub(crate) fn restic(&self, sandbox: &Sandbox, arguments: &[&str]) -> Option<String> {
        let restic =
            peers::require("restic")?.env("RESTIC_PASSWORD", PASSWORD).folder(sandbox.path(""));
        let mut command = restic.command();
        command.args(["-r", &self.url]);
        for option in self.restic.as_ref()? {
            command.args(["-o", option]);
        }
        let output = peers::run(self.dress(command.args(arguments))).unwrap();
        Some(output.expect_success().unwrap().stdout())
    }

    pub(crate) fn dress<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }
}

/// From the first file to the last check; `other` is a place of the same kind, still empty.
fn live(name: &str, place: &Place, other: &Place) {
    let sandbox = Sandbox::without_repository(name);
    place.muster(&sandbox, &["snapshots"]).expect(1).tells("there is none");
    place.muster(&sandbox, &["init"]).expect(0).shows("created repository");
    place.muster(&sandbox, &["init"]).expect(4);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    sandbox.write("source/sub/big.bin", &"some text and more\n".repeat(60_000));
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    let listed = place.muster(&sandbox, &["--json", "snapshots"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    place.muster(&sandbox, &["check", "--read-data"]).expect(0);
    place.muster(&sandbox, &["restore", "latest", "--target", "back"]).expect(0);
    let restored = sandbox.path("back/source/sub/big.bin");
    assert_eq!(fs::read(restored).unwrap(), fs::read(sandbox.path("source/sub/big.bin")).unwrap());
    let key = place.muster(&sandbox, &["--json", "key", "list"]).expect(0).json();
    assert_eq!(key.as_array().unwrap().len(), 1);

    // restic reads it, writes into it, and Muster reads that.
    if place.restic(&sandbox, &["check", "--read-data"]).is_some() {
        place.restic(&sandbox, &["backup", "source/a.txt"]).unwrap();
        place.muster(&sandbox, &["dump", "latest", "/source/a.txt"]).expect(0).shows("alpha");
        place.muster(&sandbox, &["check", "--read-data"]).expect(0);
        // And what restic made alone.
        other.restic(&sandbox, &["init"]).unwrap();
        other.restic(&sandbox, &["backup", "source"]).unwrap();
        other.muster(&sandbox, &["check", "--read-data"]).expect(0);
        other.muster(&sandbox, &["restore", "latest", "--target", "theirs"]).expect(0);
    }

    tend(place, &sandbox);

    // A copy to a folder, straight from the store.
    let mut arguments = vec!["-r", "near", "init"];
    run(sandbox.bare_command(&arguments).env("MUSTER_PASSWORD", PASSWORD)).expect(0);
    arguments = vec!["-r", "near", "copy", "--from-repo", &place.url];
    for option in &place.options {
        arguments.extend(["-o", option]);
    }
    let mut copy = sandbox.bare_command(&arguments);
    copy.env("MUSTER_PASSWORD", PASSWORD).env("MUSTER_FROM_PASSWORD", PASSWORD);
    run(place.dress(&mut copy)).expect(0).shows("copied");
}

/// What becomes of a repository over the years: a third backup, tags, forgetting, pruning without a
/// grace period, mending; and what is left is whole.
fn tend(place: &Place, sandbox: &Sandbox) {
    let packs = || {
        let stats = ["--json", "stats", "--mode", "raw-data"];
        place.muster(sandbox, &stats).expect(0).json()["total_size"].as_u64().unwrap()
    };
    fs::remove_file(sandbox.path("source/sub/big.bin")).unwrap();
    let noise: String = (0..60_000_u64).map(|n| (n * n * 40_503 % 65_537).to_string()).collect();
    sandbox.write("source/noise", &noise);
    place.muster(sandbox, &["backup", "source"]).expect(0);
    fs::remove_file(sandbox.path("source/noise")).unwrap();
    place.muster(sandbox, &["backup", "source"]).expect(0);
    place.muster(sandbox, &["tag", "--add", "kept", "latest"]).expect(0);
    let before = packs();
    place.muster(sandbox, &["forget", "--keep-last", "1"]).expect(0).shows("removed");
    place.muster(sandbox, &["prune", "--keep-delete", "0s", "--max-unused", "0"]).expect(0);
    assert!(packs() < before, "the noise is gone");
    place.muster(sandbox, &["repair", "index"]).expect(0);
    place.muster(sandbox, &["check", "--read-data"]).expect(0);
    place.muster(sandbox, &["restore", "latest", "--target", "tended"]).expect(0);
    assert!(sandbox.path("tended/source/a.txt").exists());
    assert!(!sandbox.path("tended/source/noise").exists());
    place.restic(sandbox, &["check", "--read-data"]);
}

/// Every few requests this server is busy, or does what it is asked and hangs up.
#[test]
fn a_repository_lives_on_a_server_that_fails_and_loses_answers() {
    let options = Options { busy_every: 11, mute_every: 13, ..Options::default() };
    let server = RestServer::start(options);
    let place = |name: &str| {
        let mut place = Place::new(format!("rest:{}{name}/", server.url()));
        // restic 0.14 gives up on some of this.
        place.restic = None;
        place
    };
    live("live-trouble", &place("one"), &place("two"));
}

#[test]
fn a_repository_lives_on_a_rest_server() {
    let server = RestServer::start(Options::default());
    let place = |name: &str| Place::new(format!("rest:{}{name}/", server.url()));
    live("live-rest", &place("one"), &place("two"));
}

#[test]
fn a_repository_lives_on_rclone() {
    let Some(server) = stores::rclone(&[]) else { return };
    let place = |name: &str| Place::new(format!("rest:http://{}/{name}/", server.address()));
    live("live-rclone", &place("one"), &place("two"));
}

#[test]
fn a_repository_lives_in_s3() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let place = |name: &str| {
        Place::new(format!("s3:http://{}/muster/{name}", server.address()))
            .login(&[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")])
    };
    live("live-s3", &place("one"), &place("two"));
}

#[test]
fn a_repository_lives_in_azure() {
    let Some(server) = stores::azure() else { return };
    let place = |name: &str| {
        let mut place = Place::new(format!("azure:muster:/{name}")).login(&[
            ("AZURE_ACCOUNT_NAME", stores::AZURE_ACCOUNT),
            ("AZURE_ACCOUNT_KEY", stores::AZURE_KEY),
        ]);
        let endpoint = format!("http://{}/{}", server.address(), stores::AZURE_ACCOUNT);
        place.options.push(format!("azure.endpoint={endpoint}"));
        // restic cannot be told of another endpoint.
        place.restic = None;
        place
    };
    live("live-azure", &place("one"), &place("two"));
}

#[test]
fn a_repository_lives_behind_ssh() {
    let Some(ssh) = stores::ssh() else { return };
    let place = |name: &str| {
        let mut place = Place::new(format!("sftp:muster-test:{}/{name}", ssh.folder().display()));
        place.options.push(format!("sftp.args={}", ssh.arguments()));
        let command = format!("sftp.command=ssh {} muster-test -s sftp", ssh.arguments());
        place.restic = Some(vec![command]);
        place
    };
    live("live-sftp", &place("one"), &place("two"));
}

#[test]
fn an_append_only_server_takes_backups_and_refuses_what_deletes() {
    let server = RestServer::start(Options { append_only: true, ..Options::default() });
    let place = Place::new(format!("rest:{}", server.url()));
    let sandbox = Sandbox::without_repository("append-only");
    place.muster(&sandbox, &["init"]).expect(0);
    place.muster(&sandbox, &["backup", "source"]).expect(0);
    place.muster(&sandbox, &["check", "--read-data"]).expect(0);
    let listed = place.muster(&sandbox, &["--json", "key", "list"]).expect(0).json();
    sandbox.write("new-password", "another\n");
    place.muster(&sandbox, &["key", "add", "--new-password-file", "new-password"]).expect(0);
    let added = place.muster(&sandbox, &["--json", "key", "list"]).expect(0).json();
    let is_new = |key: &&serde_json::Value| !listed.as_array().unwrap().contains(key);
    let id = added.as_array().unwrap().iter().find(is_new).unwrap()["id"].as_str().unwrap();
    let ran = place.muster(&sandbox, &["--json", "key", "remove", id]).expect(4);
    assert_eq!(ran.error()["code"], "storage-denied");

    // What was not removed is not counted as removed, and of two forms both are named.
    let ran = place.muster(&sandbox, &["forget", "latest"]).expect(4).shows("removed 0 snapshots");
    ran.tells("cannot delete");
    let ran = place
        .muster(
            &sandbox,
            &[
                "forget",
                "--json",
                "--unsafe-allow-remove-all",
                "--path",
                sandbox.path("source").to_str().unwrap(),
            ],
        )
        .expect(4);
    assert!(ran.json()[0]["remove"].is_null() && ran.json()[0]["failed"][0]["id"].is_string());
    let ran = place.muster(&sandbox, &["tag", "--add", "x"]).expect(4);
    ran.tells("stays beside its new form");
    let ran = place.muster(&sandbox, &["rewrite", "--exclude", "b.txt", "--forget"]).expect(4);
    ran.tells("stays beside its new form").shows("is rewritten as");
    let listed = place.muster(&sandbox, &["--json", "snapshots"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 4, "{listed:#}");
}

#[test]
fn trouble_is_one_clear_line_without_secrets() {
    let sandbox = Sandbox::without_repository("trouble");
    let login = [("AWS_ACCESS_KEY_ID", "hush-id"), ("AWS_SECRET_ACCESS_KEY", "hush-key")];
    let check = |url: &str, exit: i32, code: &str| {
        let place = Place::new(url.to_owned()).login(&login);
        let ran = place.muster(&sandbox, &["--json", "snapshots"]).expect(exit);
        let error = ran.error();
        assert_eq!(error["code"], code, "{url}: {error}");
        assert!(error["help"].is_string(), "{error}");
        assert!(!ran.stderr.contains("hush"), "{}", ran.stderr);
    };
    let port = stores::closed_port();
    check(&format!("rest:http://me:hush@127.0.0.1:{port}/"), 1, "store-unreachable");
    check(&format!("s3:http://127.0.0.1:{port}/b"), 1, "store-unreachable");
    check("rest:http://me:hush@no-such-host.invalid/", 1, "store-host-unknown");
    check("sftp:no-such-host.invalid:/x", 1, "store-host-unknown");
    let login = Some(("me".to_owned(), "other".to_owned()));
    let server = RestServer::start(Options { login, ..Options::default() });
    check(&format!("rest:http://me:hush@{}/", server.address()), 4, "store-credentials");
}
