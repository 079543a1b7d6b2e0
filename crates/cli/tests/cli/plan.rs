//! `muster plan`: findings with their lines, figures that add up, and nothing written anywhere.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use muster_operations::{
    records::{BackupEnded, BackupOutcome, CopyEnded, Record},
    state::State,
};
use muster_testkit::Scratch;
use serde_json::json;

use crate::sandbox::{Ran, run};

const SHOP: &str = include_str!("fixtures/shop.yaml");
const MISTAKES: &str = include_str!("fixtures/twenty.yaml");

/// `muster ARGUMENTS` in a folder, without what this machine's environment says.
pub(crate) fn muster(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("TZ", "UTC");
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        let steers = ["MUSTER_", "RESTIC_", "PG"].iter().any(|start| shown.starts_with(start));
        if steers || shown == "DATABASE_URL" || shown == "NO_COLOR" {
            command.env_remove(&name);
        }
    }
    command
}

/// A folder with a plan in it.
fn folder_with(name: &str, plan: &str) -> Scratch {
    let scratch = Scratch::new(name).unwrap();
    fs::write(scratch.join("muster.yaml"), plan).unwrap();
    scratch
}

fn ran(folder: &Scratch, arguments: &[&str]) -> Ran {
    run(&mut muster(folder.path(), arguments))
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    let folder = Scratch::new("plan-help").unwrap();
    for verb in ["", "check", "show", "schema", "diff"] {
        let arguments: Vec<&str> =
            ["plan", verb, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        ran(&folder, &arguments).expect(0).shows("Examples:\n").shows("--plan <FILE>");
    }
    ran(&folder, &["repo", "ls", "--help"]).expect(0).shows("Examples:\n");
    let help = ran(&folder, &["repo", "ls", "--help"]).stdout;
    assert!(!help.contains("--plan"), "a repository has no plan: {help}");
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let folder = folder_with("plan-mistakes", MISTAKES);
    let checked = ran(&folder, &["plan", "check", "--json"]).expect(2).json();
    let found: Vec<(u64, u64, &str)> = checked["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] == "error")
        .map(|finding| {
            let number = |field: &str| finding[field].as_u64().unwrap();
            (number("line"), number("column"), finding["code"].as_str().unwrap())
        })
        .collect();
    let expected = [
        (3, 1, "unknown-field"),
        (8, 15, "bad-duration"),
        (8, 24, "bad-duration"),
        (8, 44, "bad-percentage"),
        (8, 52, "unknown-field"),
        (10, 31, "unknown-reference"),
        (10, 49, "literal-secret"),
        (11, 14, "literal-secret"),
        (14, 11, "unknown-reference"),
        (16, 12, "wrong-type"),
        (17, 16, "unknown-reference"),
        (18, 18, "unknown-reference"),
        (19, 18, "bad-value"),
        (19, 59, "bad-duration"),
        (21, 7, "missing-field"),
        (21, 12, "unknown-field"),
        (24, 42, "bad-duration"),
        (25, 35, "bad-schedule"),
        (26, 21, "unknown-reference"),
        (29, 30, "template-unknown-name"),
        (32, 45, "template-unknown-name"),
        (32, 91, "wrong-type"),
        (34, 35, "bad-value"),
        (34, 52, "bad-schedule"),
        (36, 52, "bad-date"),
    ];
    assert_eq!(found, expected);
    assert_eq!(checked["ok"], false);

    let shown = ran(&folder, &["plan", "check"]).expect(2);
    for (line, column, code) in expected {
        let place = format!("[muster.yaml:{line}:{column}]");
        assert!(shown.stdout.contains(&place), "{place} in {}", shown.stdout);
        assert!(shown.stdout.contains(&format!("error[{code}]")), "{code}");
    }
    let last = shown.stdout.lines().last().unwrap();
    assert!(last.starts_with("25 errors, ") && last.ends_with(" in muster.yaml"), "{last}");
    assert!(!shown.stdout.contains("hunter2"), "neither message nor excerpt repeats a secret");
    let place = |text: &str| shown.stdout.find(text).unwrap();
    assert!(place("error[bad-date]") < place("warning["), "errors come first");
}

#[test]
fn json_is_what_the_contract_says() {
    let plan = "muster: 1\nname: shop\nregion: here\n";
    let folder = folder_with("plan-json", plan);
    let checked = ran(&folder, &["plan", "check", "--json"]).expect(2);
    let expected = json!({"ok": false, "findings": [{
        "code": "unknown-field",
        "severity": "error",
        "path": "region",
        "line": 3,
        "column": 1,
        "message": "there is no field 'region' here",
        "help": "did you mean 'regions'?",
    }]});
    assert_eq!(checked.json(), expected);
    assert_eq!(checked.stderr, "");
    let folder = folder_with("plan-json-ok", "muster: 1\nname: shop\n");
    let checked = ran(&folder, &["plan", "check", "--json"]).expect(0).json();
    assert_eq!(checked, json!({"ok": true, "findings": []}));
    ran(&folder, &["plan", "check"]).expect(0).shows("muster.yaml: no findings\n");
}

#[test]
fn quiet_is_errors_only() {
    let folder = folder_with("plan-quiet", SHOP);
    assert_eq!(ran(&folder, &["plan", "check", "-q"]).expect(0).stdout, "");
    let loud = ran(&folder, &["plan", "check"]).expect(0);
    loud.shows("warning[never-proven]").shows("note[no-wal-archive]");
    fs::write(folder.join("muster.yaml"), MISTAKES).unwrap();
    let quiet = ran(&folder, &["plan", "check", "-q"]).expect(2).shows("error[bad-date]");
    assert!(!quiet.stdout.contains("warning["), "{}", quiet.stdout);
}

#[test]
fn what_is_no_plan_is_told_with_its_place() {
    let folder = folder_with("plan-syntax", "muster: 1\nname: [shop\nregions: []\n");
    ran(&folder, &["plan", "check"]).expect(2).shows("error[yaml-syntax]").shows("1 error in");
    fs::write(folder.join("muster.yaml"), "").unwrap();
    ran(&folder, &["plan", "check"]).expect(2).shows("error[");
    let unreadable = |arguments: &[&str]| {
        let ran = ran(&folder, &[arguments, &["--json"]].concat()).expect(2);
        assert_eq!((&ran.error()["code"], &*ran.stdout), (&"plan-unreadable".into(), ""));
    };
    unreadable(&["plan", "check", "--plan", "missing.yaml"]);
    unreadable(&["plan", "check", "--plan", "."]);
    unreadable(&["plan", "show", "--plan", "missing.yaml"]);
    unreadable(&["plan", "diff", "missing.yaml"]);
    fs::write(folder.join("muster.yaml"), b"name: caf\xe9\n").unwrap();
    unreadable(&["plan", "check"]);
    ran(&folder, &["plan", "check"]).expect(2).tells("cannot read the plan muster.yaml");
}

#[test]
fn a_check_writes_nothing() {
    let folder = folder_with("plan-read-only", SHOP);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    for arguments in [&["plan", "check"][..], &["plan", "show"], &["plan", "diff", "muster.yaml"]] {
        ran(&folder, arguments).expect(0);
    }
    assert_eq!(names(folder.path()), ["muster.yaml"]);
    let elsewhere = folder.join("missing/state");
    ran(&folder, &["plan", "check", "--state", elsewhere.to_str().unwrap()]).expect(0);
    assert_eq!(names(folder.path()), ["muster.yaml"]);
}

#[test]
fn measured_figures_come_from_the_state() {
    let folder = folder_with("plan-measured", SHOP);
    let shown = ran(&folder, &["plan", "show"]).expect(0);
    shown
        .shows("near survives: every 2m + longest run (not measured) = at least 2m (RPO 5m)")
        .shows("may be down  4m 19s in 30d at 99.99 %");
    measure(&folder.join(".muster"), 12.0, 3.0);
    let ledger = || fs::read(folder.join(".muster/ledger.sqlite3")).unwrap();
    let before = (names(&folder.join(".muster")), ledger());
    ran(&folder, &["plan", "show"])
        .expect(0)
        .shows("near survives: every 2m + longest run 12s (measured) = 2m 12s ≤ RPO 5m")
        .shows("only copies survive: every 2m + longest run 12s (measured) + copy lag 3s (measured) = 2m 15s ≤ RPO 5m");
    ran(&folder, &["plan", "check"]).expect(0);
    // SQLite's index of a log that others may be writing is no change of the state.
    let is_of_state = |name: &String| !name.ends_with("-shm") && !name.ends_with("-wal");
    let after: Vec<String> =
        names(&folder.join(".muster")).into_iter().filter(is_of_state).collect();
    assert_eq!((after, ledger()), before);

    measure(&folder.join("slow"), 200.0, 3.0);
    let slow = ["--state", "slow"];
    ran(&folder, &[&["plan", "show"][..], &slow].concat())
        .expect(0)
        .shows("longest run 3m 20s (measured) = 5m 20s > RPO 5m");
    ran(&folder, &[&["plan", "check"][..], &slow].concat())
        .expect(2)
        .shows("error[rpo-unreachable]");
    let mut command = muster(folder.path(), &["plan", "check"]);
    run(command.env("MUSTER_STATE", "slow")).expect(2);
}

/// Writes down a backup of `db` and `uploads` that took so long, and its copy.
fn measure(state: &Path, took_s: f64, lag_s: f64) {
    let state = State::open(state).unwrap();
    for data in ["db", "uploads"] {
        let ended = BackupEnded {
            job: format!("orders/{data}"),
            service: "orders".into(),
            data: data.into(),
            repository: "near".into(),
            point: "p1".into(),
            outcome: BackupOutcome::Completed,
            snapshot: None,
            tree: None,
            data_time: None,
            bytes: Some(1 << 20),
            bytes_added: None,
            files: None,
            began: None,
            took_s: Some(took_s),
            left_out: Vec::new(),
            notices: Vec::new(),
            rows: BTreeMap::new(),
            error: None,
        };
        state.record(&Record::BackupEnded(ended)).unwrap();
        let copied = CopyEnded {
            service: "orders".into(),
            data: data.into(),
            point: "p1".into(),
            from: "near".into(),
            to: "far".into(),
            snapshot: None,
            lag_s,
            error: None,
        };
        state.record(&Record::CopyEnded(copied)).unwrap();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_plan_is_spelled_out() {
    let folder = folder_with("plan-show", SHOP);
    ran(&folder, &["plan", "show", "orders", "--period", "90d"])
        .expect(0)
        .shows("may be down  12m 57s in 90d at 99.99 %")
        .shows("host-loss         10m   5m    service, RPO tier   far\n")
        .shows("ransomware        15m   1h    tier, RPO service   none\n")
        .shows("far   eu-north: survives all but ransomware, intrusion; of db, uploads\n")
        .shows("1. restore db, uploads\n")
        .shows("health      http {{ target.url }}/health answers 200\n")
        .shows("rows of db  counted in orders, customers\n")
        .shows("region-loss  0 3 * * *  UTC\n");
    let shown = ran(&folder, &["plan", "show", "--json"]).expect(0).json();
    assert_eq!(shown["services"][0]["schedules"][0]["interval"]["s"], 120.0);
    assert_eq!(shown["services"][0]["schedules"][0]["longest_run"]["s"], json!(null));
    ran(&folder, &["plan", "show", "order"]).expect(1).tells("the plan has: orders");
    ran(&folder, &["plan", "show", "--period", "90"]).expect(2).tells("a duration such as");
    fs::write(folder.join("muster.yaml"), MISTAKES).unwrap();
    ran(&folder, &["plan", "show"]).expect(2).tells("it has 25 errors").tells("muster plan check");
}

#[test]
fn the_schema_is_json_with_and_without_the_flag() {
    let folder = Scratch::new("plan-schema").unwrap();
    for arguments in [&["plan", "schema"][..], &["plan", "schema", "--json"]] {
        let schema = ran(&folder, arguments).expect(0).json();
        assert_eq!(schema["title"], "A plan of Muster");
        assert!(schema["properties"]["services"].is_object());
    }
}

#[test]
fn what_protects_less_is_marked() {
    let weak = SHOP.replace("every: 2m", "every: 1h").replace("owner: orders-team", "owner: ops");
    let folder = folder_with("plan-diff", &weak);
    fs::write(folder.join("old.yaml"), SHOP).unwrap();
    let compared = ran(&folder, &["plan", "diff", "old.yaml"]).expect(0);
    compared
        .shows("        changed  services.orders.owner: orders-team → ops\n")
        .shows("weaker  changed  services.orders.protect.db.near.cadence: every 2m 00s → every 1h 00m\n")
        .shows("3 changes, 2 weaken protection\n");
    ran(&folder, &["plan", "diff", "old.yaml", "--strict"]).expect(1);
    ran(&folder, &["plan", "diff", "muster.yaml", "old.yaml", "--strict"])
        .expect(0)
        .shows("3 changes, none weakens protection\n");
    ran(&folder, &["plan", "diff", "muster.yaml"]).expect(0).shows("muster.yaml: no changes\n");
    let compared = ran(&folder, &["plan", "diff", "old.yaml", "--json"]).expect(0).json();
    assert_eq!(compared["weaker"], true);
    assert_eq!(compared["changes"].as_array().unwrap().len(), 3);
    fs::write(folder.join("old.yaml"), MISTAKES).unwrap();
    ran(&folder, &["plan", "diff", "old.yaml"]).expect(2).tells("cannot use the plan old.yaml");
}

#[test]
fn what_went_as_a_whole_is_one_change() {
    let lines = SHOP.lines().filter(|line| !line.contains("ledger: {sql"));
    let folder = folder_with("plan-diff-whole", &lines.collect::<Vec<_>>().join("\n"));
    fs::write(folder.join("old.yaml"), SHOP).unwrap();
    let compared = ran(&folder, &["plan", "diff", "old.yaml"]).expect(0);
    assert_eq!(
        compared.stdout,
        "weaker  removed  services.orders.acceptance.probes.ledger: probe\n\n1 change, 1 weakens protection\n"
    );
}

#[test]
fn the_plan_may_stand_elsewhere() {
    let folder = Scratch::new("plan-elsewhere").unwrap();
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::create_dir(folder.join("c")).unwrap();
    fs::write(folder.join("a/b/shop.yaml"), MISTAKES).unwrap();
    let from = folder.join("c");
    let check = |command: &mut Command| {
        run(command).expect(2).shows("[../a/b/shop.yaml:3:1]").shows(" in ../a/b/shop.yaml\n");
    };
    check(&mut muster(&from, &["plan", "check", "--plan", "../a/b/shop.yaml"]));
    check(&mut muster(&from, &["--plan", "../a/b/shop.yaml", "plan", "check"]));
    check(muster(&from, &["plan", "check"]).env("MUSTER_PLAN", "../a/b/shop.yaml"));
    // The state stands beside the plan, wherever one is.
    fs::write(folder.join("a/b/shop.yaml"), SHOP).unwrap();
    measure(&folder.join("a/b/.muster"), 12.0, 3.0);
    run(&mut muster(&from, &["plan", "show", "--plan", "../a/b/shop.yaml"]))
        .expect(0)
        .shows("longest run 12s (measured)");
}

#[test]
fn colours_are_for_terminals_and_for_who_asks() {
    let folder = folder_with("plan-colours", MISTAKES);
    let colored = |ran: &Ran| ran.stdout.contains("\x1b[");
    assert!(!colored(&ran(&folder, &["plan", "check"])));
    assert!(colored(&ran(&folder, &["plan", "check", "--color", "always"])));
    assert!(colored(&in_terminal(&folder, 100, "plan check")));
    assert!(!colored(&in_terminal(&folder, 100, "plan check --color never")));
    let mut command = terminal(&folder, 100, "plan check");
    assert!(!colored(&run(command.env("NO_COLOR", "1"))));
}

#[test]
fn any_width_will_do() {
    let folder = folder_with("plan-width", MISTAKES);
    for width in [1, 10, 24, 80, 400] {
        let shown = in_terminal(&folder, width, "plan check --color never").expect(2);
        assert!(shown.stdout.contains("[muster.yaml:3:1]"), "{width}: {}", shown.stdout);
    }
    fs::write(folder.join("muster.yaml"), SHOP).unwrap();
    for width in [1, 10, 24, 80, 400] {
        in_terminal(&folder, width, "plan show").expect(0).shows("Runbook");
    }
}

/// `muster ARGUMENTS` in a terminal of this width.
fn terminal(folder: &Scratch, width: u16, arguments: &str) -> Command {
    let mut command = muster(folder.path(), &[]);
    let program = env!("CARGO_BIN_EXE_muster");
    let line = format!("stty cols {width}; {program} {arguments}");
    let environment: Vec<_> = command
        .get_envs()
        .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
        .collect();
    command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(folder.path()).stdin(Stdio::null());
    for (name, value) in environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn in_terminal(folder: &Scratch, width: u16, arguments: &str) -> Ran {
    run(&mut terminal(folder, width, arguments))
}

#[test]
fn a_plan_does_not_steer_the_terminal() {
    let plan =
        "muster: 1\nname: \"a\\x1b]0;pwned\\x07\"\n\"b\\u202e\\x1b[31m\": 1\n# \u{202e}raw\n";
    let folder = folder_with("plan-escapes", plan);
    for verb in ["check", "show"] {
        let ran = ran(&folder, &["plan", verb]);
        let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ran.stdout.contains(steers), "{verb}: {:?}", ran.stdout);
        assert!(!ran.stderr.contains(steers), "{verb}: {:?}", ran.stderr);
    }
    let checked = ran(&folder, &["plan", "check"]).expect(2);
    checked.shows("error[unknown-field]").shows("\\u{1b}[31m");
}
