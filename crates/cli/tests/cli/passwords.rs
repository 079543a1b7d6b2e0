//! Where passwords come from, and the keys they open.

use crate::sandbox::{PASSWORD, Sandbox, run};

#[test]
fn a_wrong_password_is_one_sentence_and_exit_code_4() {
    let sandbox = Sandbox::new("wrong-password");
    let ran = run(sandbox.command(&["snapshots"]).env("MUSTER_PASSWORD", "wrong")).expect(4);
    assert_eq!(ran.stdout, "");
    let repository = sandbox.path("repo");
    let expected = format!(
        "error: cannot open the repository at {}: wrong password\n  help: check the password and \
         which repository it belongs to\n",
        repository.display()
    );
    assert_eq!(ran.stderr, expected);
    let ran = run(sandbox.command(&["snapshots", "--json"]).env("MUSTER_PASSWORD", "wrong"));
    let error = ran.expect(4).error();
    assert_eq!(error["code"], "wrong-password");
    assert_eq!(error["class"], "denied");
    assert!(error["causes"].as_array().unwrap().is_empty());
}

#[test]
fn without_a_password_and_a_terminal_the_ways_are_named() {
    let sandbox = Sandbox::new("no-password");
    let ran = run(sandbox.command(&["snapshots"]).env_remove("MUSTER_PASSWORD")).expect(2);
    ran.tells("none was given").tells("--password-file").tells("MUSTER_PASSWORD");
}

#[test]
fn passwords_come_from_files_commands_and_variables() {
    let sandbox = Sandbox::new("password-sources");
    sandbox.write("password", &format!("{PASSWORD}\n"));
    let command = format!("printf '%s\\n' '{PASSWORD}'");
    let works = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = sandbox.bare_command(&[&["-r", "repo", "snapshots"], arguments].concat());
        run(command.envs(variables.iter().copied())).expect(0);
    };
    works(&["--password-file", "password"], &[]);
    works(&["-p", "password"], &[("MUSTER_PASSWORD", "wrong")]);
    works(&["--password-command", &command], &[]);
    works(&[], &[("MUSTER_PASSWORD", PASSWORD), ("RESTIC_PASSWORD", "wrong")]);
    works(&[], &[("MUSTER_PASSWORD_FILE", "password")]);
    works(&[], &[("MUSTER_PASSWORD_COMMAND", &command)]);
    works(&[], &[("RESTIC_PASSWORD", PASSWORD)]);
    works(&[], &[("RESTIC_PASSWORD_FILE", "password")]);
    works(&[], &[("RESTIC_PASSWORD_COMMAND", &command)]);
}

#[test]
fn the_repository_is_found_in_the_environment() {
    let sandbox = Sandbox::new("repository-sources");
    sandbox.write("where", "repo\n");
    let works = |arguments: &[&str], variable: &str, value: &str| {
        let mut command = sandbox.bare_command(&[&["snapshots"], arguments].concat());
        run(command.env("MUSTER_PASSWORD", PASSWORD).env(variable, value)).expect(0);
    };
    works(&[], "MUSTER_REPOSITORY", "repo");
    works(&[], "RESTIC_REPOSITORY", "repo");
    works(&["-r", "repo"], "MUSTER_REPOSITORY", "elsewhere");
    works(&["--repository-file", "where"], "MUSTER_REPOSITORY", "elsewhere");
    works(&[], "RESTIC_REPOSITORY_FILE", "where");
}

#[test]
fn a_source_that_fails_is_an_error() {
    let sandbox = Sandbox::new("password-failures");
    let check = |arguments: &[&str], text: &str| {
        sandbox.run(&[&["snapshots"], arguments].concat()).expect(2).tells(text);
    };
    check(&["--password-file", "missing"], "cannot read the password file missing");
    check(&["--password-command", "false"], "it failed (exit status: 1)");
    check(&["--password-command", "sh -c 'echo half; exit 3'"], "it failed (exit status: 3)");
    check(&["--password-command", "'open"], "a single quote is not closed");
    check(&["--password-command", "true"], "cannot use an empty password");
}

#[test]
fn keys_are_added_listed_changed_and_removed() {
    let sandbox = Sandbox::new("keys");
    sandbox.write("second", "second\n");
    let list = |password: &str| {
        let mut command = sandbox.command(&["key", "list", "--json"]);
        run(command.env("MUSTER_PASSWORD", password)).expect(0).json()
    };
    sandbox.run(&["key", "add", "--new-password-file", "second", "--user", "ana"]).expect(0);
    let keys = list("second");
    assert_eq!(keys.as_array().unwrap().len(), 2);
    let current = keys.as_array().unwrap().iter().find(|key| key["current"] == true).unwrap();
    assert_eq!(current["userName"], "ana");
    let id = current["id"].as_str().unwrap().to_owned();
    let in_use = run(sandbox.command(&["key", "remove", &id]).env("MUSTER_PASSWORD", "second"));
    in_use.expect(4).tells("the one in use");
    let mut change = sandbox.command(&["key", "passwd"]);
    change.env("MUSTER_PASSWORD", "second").env("MUSTER_NEW_PASSWORD", "third");
    run(&mut change).expect(0).shows("changed the password");
    run(sandbox.command(&["key", "list"]).env("MUSTER_PASSWORD", "second")).expect(4);
    let keys = list("third");
    let third = keys.as_array().unwrap().iter().find(|key| key["current"] == true).unwrap();
    let short = &third["id"].as_str().unwrap()[..8];
    sandbox.run(&["key", "remove", short]).expect(0).shows(short);
    assert_eq!(list(PASSWORD).as_array().unwrap().len(), 1);
    sandbox.run(&["key", "list"]).expect(0).shows("*");
}
