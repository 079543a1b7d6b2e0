//! `muster init`: what it finds, and what it leaves alone.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::{Command, Stdio},
};

use muster_testkit::Scratch;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{plan::muster, sandbox::run};

fn database(folder: &Scratch, name: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    Connection::open(path).unwrap().execute_batch("create table t (a)").unwrap();
}

fn file(folder: &Scratch, name: &str, content: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn checked(folder: &Scratch) -> Value {
    let checked = run(&mut muster(folder.path(), &["plan", "check", "--json"])).expect(0).json();
    assert_eq!(checked["ok"], true, "{checked}");
    checked
}

/// A folder with everything that is looked for.
fn shop() -> Scratch {
    let folder = Scratch::new("init").unwrap();
    database(&folder, "app.db");
    database(&folder, "data/orders.sqlite");
    file(&folder, "uploads/a.jpg", "x");
    file(&folder, "compose.yaml", "services:\n  web:\n    image: x\n  worker: {image: y}\n");
    folder
}

#[test]
fn the_plan_holds_what_was_found_and_has_no_errors() {
    let folder = shop();
    let mut command = muster(folder.path(), &["init"]);
    command.env("DATABASE_URL", "postgres://orders:s3cret@db.example.org/orders?password=s3cret");
    let ran = run(&mut command)
        .expect(0)
        .shows("Wrote muster.yaml.\n")
        .shows("  SQLite      app.db, data/orders.sqlite\n")
        .shows("  PostgreSQL  postgres://orders@db.example.org/orders\n")
        .shows("  folders     uploads\n")
        .shows("  compose     web, worker\n")
        .shows("  1. muster plan check")
        .shows("  2. muster backup")
        .shows("  3. muster drill run muster_init");
    let plan = fs::read_to_string(folder.join("muster.yaml")).unwrap();
    assert!(!plan.contains("s3cret") && !ran.stdout.contains("s3cret"));
    assert!(plan.contains("{sqlite: \"data/orders.sqlite\"}"), "{plan}");
    let checked = checked(&folder);
    let codes: Vec<&str> = checked["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["code"].as_str().unwrap())
        .collect();
    assert!(codes.contains(&"owner-missing"), "the check says what is still to do: {codes:?}");
}

#[test]
fn the_plan_is_all_that_is_written() {
    let folder = Scratch::new("init-alone").unwrap();
    let mut shell = muster(folder.path(), &[]);
    let environment: Vec<_> = shell.get_envs().map(|(name, _)| name.to_owned()).collect();
    shell = Command::new("sh");
    let line = format!("umask 022; exec {} init", env!("CARGO_BIN_EXE_muster"));
    shell.args(["-c", &line]).current_dir(folder.path());
    for name in environment {
        shell.env_remove(name);
    }
    run(&mut shell).expect(0);
    let entries: Vec<_> = fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0].file_name(), "muster.yaml");
    assert_eq!(entries[0].metadata().unwrap().permissions().mode() & 0o7777, 0o644);
    checked(&folder);
}

#[test]
fn json_says_what_was_found() {
    let folder = shop();
    let mut command = muster(folder.path(), &["init", "--json", "--plan", "./dr.yaml"]);
    command.envs([
        ("PGHOST", "db1"),
        ("PGUSER", "ana"),
        ("PGDATABASE", "shop"),
        ("PGPORT", "5433"),
    ]);
    let mut written = run(&mut command).expect(0).json();
    let name = written["detected"]["name"].take();
    assert!(name.as_str().unwrap().starts_with("muster-init-"), "{name}");
    let expected = json!({"plan": "./dr.yaml", "detected": {
        "name": null,
        "sqlite_files": ["app.db", "data/orders.sqlite"],
        "postgres_urls": ["postgresql://ana@db1:5433/shop"],
        "compose_services": ["web", "worker"],
        "folders": ["uploads"],
    }});
    assert_eq!(written, expected);
}

#[test]
fn nothing_is_overwritten() {
    let folder = Scratch::new("init-again").unwrap();
    file(&folder, "muster.yaml", "mine\n");
    let ran = run(&mut muster(folder.path(), &["init", "--json"])).expect(4);
    assert_eq!(ran.error()["code"], "plan-exists");
    assert_eq!(fs::read_to_string(folder.join("muster.yaml")).unwrap(), "mine\n");
    symlink("nowhere", folder.join("link.yaml")).unwrap();
    run(&mut muster(folder.path(), &["init", "--plan", "link.yaml"])).expect(4);
    assert!(!folder.join("nowhere").exists());
    run(&mut muster(folder.path(), &["init", "--plan", "no/such/folder.yaml"]))
        .expect(1)
        .tells("cannot write the plan no/such/folder.yaml");
}

#[test]
fn two_at_once_write_one_plan() {
    let folder = shop();
    let start = |_| muster(folder.path(), &["init", "-q"]).stderr(Stdio::null()).spawn().unwrap();
    let children: Vec<_> = (0..4).map(start).collect();
    let codes = children.into_iter().map(|child| child.wait_with_output().unwrap().status.code());
    let mut codes: Vec<_> = codes.collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(4), Some(4), Some(4)]);
    checked(&folder);
}

#[test]
fn the_walk_is_bounded_and_leaves_out_what_can_be_made_again() {
    let folder = Scratch::new("init-walk").unwrap();
    for kept in ["a/b/c/d/deep.db", "x y/ü.db"] {
        database(&folder, kept);
    }
    for left in
        [".git/a.db", ".cache/b.db", "node_modules/c.db", "target/d.db", "a/b/c/d/e/too-deep.db"]
    {
        database(&folder, left);
    }
    file(&folder, "fake.db", "SQLite format 2\0");
    file(&folder, "repo/config", "");
    for part in ["repo/keys/k", "repo/snapshots/s", "repo/data/00/p"] {
        file(&folder, part, "");
    }
    file(&folder, "shop/media/m", "");
    file(&folder, "src/lib/deep/data/m", "");
    symlink(folder.path(), folder.join("round")).unwrap();
    run(Command::new("mkfifo").arg(folder.join("pipe.db"))).expect(0);
    let written = run(&mut muster(folder.path(), &["init", "--json"])).expect(0).json();
    assert_eq!(written["detected"]["sqlite_files"], json!(["x y/ü.db", "a/b/c/d/deep.db"]));
    assert_eq!(written["detected"]["folders"], json!(["shop/media"]));
    checked(&folder);
}
