//! What a plan loses and what it still has: a credential, a repository's files.

use std::fs;

use muster_testkit::{
    Scratch,
    stores::rest::{Options, RestServer},
};

use crate::{
    plan::muster,
    planned::Office,
    sandbox::{PASSWORD, Ran, run},
};

fn server(user: &str, password: &str) -> RestServer {
    let login = Some((user.to_owned(), password.to_owned()));
    RestServer::start(Options { login, ..Options::default() })
}

/// A plan with two repositories on two servers, each with a login of its own in files of its own.
fn two_logins(near: &RestServer, far: &RestServer) -> Scratch {
    let scratch = Scratch::new("losses-logins").unwrap();
    let repository = |name: &str, server: &RestServer, region: &str| {
        format!(
            "  {name}: {{url: \"rest:{}\", region: {region}, password: file:./secret, credentials: \
             {{RESTIC_REST_USERNAME: file:./user-{name}, RESTIC_REST_PASSWORD: \
             file:./login-{name}}}}}\n",
            server.url()
        )
    };
    let plan = format!(
        "muster: 1\nname: two\nregions: [west, north]\nrepositories:\n{}{}services:\n  files:\n    \
         region: west\n    data:\n      docs: {{files: ./docs}}\n    protect:\n      - {{data: \
         [docs], every: 1h, to: near, copy: [far]}}\n",
        repository("near", near, "west"),
        repository("far", far, "north"),
    );
    fs::create_dir(scratch.join("docs")).unwrap();
    let files = [
        ("muster.yaml", plan.as_str()),
        ("secret", PASSWORD),
        ("user-near", "nina"),
        ("login-near", "hush near"),
        ("user-far", "fred"),
        ("login-far", "hush far"),
        ("docs/one.txt", "one\n"),
    ];
    files.iter().for_each(|(name, text)| fs::write(scratch.join(name), text).unwrap());
    scratch
}

#[test]
fn each_repository_has_its_own_login_and_one_lost_leaves_the_other() {
    let (near, far) = (server("nina", "hush near"), server("fred", "hush far"));
    let scratch = two_logins(&near, &far);
    let plan = |arguments: &[&str]| run(&mut muster(scratch.path(), arguments));
    plan(&["backup"]).expect(0).shows("copied to far");
    plan(&["points"]).expect(0).shows("near, far");
    let restored = |to: &str| fs::read_to_string(scratch.join(to).join("one.txt")).unwrap();

    // Withdrawn at the server's side, and gone on this side.
    fs::write(scratch.join("login-near"), "no longer").unwrap();
    let silent = |ran: Ran| {
        let ran = ran.tells("near");
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("hush"), "{}", ran.stderr);
    };
    silent(plan(&["points"]).expect(4).shows("far"));
    silent(plan(&["status"]).expect(4));
    silent(plan(&["restore", "files/docs", "--to", "one"]).expect(0));
    assert_eq!(restored("one"), "one\n");
    let ran = plan(&["backup"]).expect(4).tells("cannot back up files/docs into near");
    assert!(!ran.stderr.contains("far"), "only one is at fault: {}", ran.stderr);
    fs::write(scratch.join("login-near"), "hush near").unwrap();
    fs::remove_file(scratch.join("login-far")).unwrap();
    let ran = plan(&["backup"]).expect(2);
    let ran = ran.shows("files/docs: snapshot").tells("cannot copy files/docs to far");
    assert!(ran.stderr.contains("login-far"), "the reference is named: {}", ran.stderr);
    let ran = plan(&["restore", "files/docs", "--to", "two"]).expect(0);
    assert!(ran.stderr.contains("far"), "{}", ran.stderr);
    assert_eq!(restored("two"), "one\n");
}

#[test]
fn a_backup_that_fails_by_damage_runs_its_hook() {
    let office = Office::protected("losses-hook");
    office.change_plan(
        "every: 1h, to: near, copy: [far]}",
        "every: 1h, to: near, copy: [far], on_failure: {run: [sh, -c, \"echo $MUSTER_ERROR > told\"]}}",
    );
    office.damage("near/index");
    office.run(&["backup", "files"]).expect(3);
    let told = fs::read_to_string(office.path("told")).unwrap();
    for text in ["files/docs: ", "files/mail: ", "index/", "match the content against its name"] {
        assert!(told.contains(text), "{text} in {told}");
    }
}
