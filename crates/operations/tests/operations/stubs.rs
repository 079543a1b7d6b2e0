//! With each real part replaced by one that does nothing, its drill is red or inconclusive.
//!
//! Five of five drills once passed on a system whose replication and activation did nothing.
//! Every test here is such a system.

use std::{fs, net::TcpListener, thread, time::Duration};

use muster_control::choice::Blocker;
use muster_drivers::process::can_hide;
use muster_model::{Class, Disruption, Fault as _, Verdict};
use muster_operations::{drill, error::OperationError, records::Record, story::Silence};
use muster_repository::run::Run;
use rusqlite::Connection;

use crate::common::{PLAN, Shop, records, request};

const START: &str = r#"{start: ["@EXE@", --exact, --nocapture, "child::serve"], env: {SHOP_DB: "{{ target.data.db.path }}", SHOP_PORT: "{{ target.port }}"}}"#;
const HEALTH: &str =
    r#"health: {http: "{{ target.url }}/health", expect: {status: 200}, interval: 50ms}"#;
const LEDGER: &str = r#"ledger: {sql: "select count(*) > 0 and sum(amount) = 0 from entry", on: db, expect: true, interval: 50ms}"#;
const RULES: &str = "completeness: {rows: {db: [entry]}, checksums: [uploads]}";
const ENV_END: &str = r#"SHOP_PORT: "{{ target.port }}"}"#;

/// A drill of a shop with a changed plan.
#[track_caller]
fn check(name: &str, changes: &[(&str, &str)], verdict: Verdict, reason: &str) {
    let shop = Shop::with(name, changes);
    let workspace = shop.protected();
    shop.check(&workspace, verdict, reason);
}

#[track_caller]
fn blockers(refused: OperationError) -> Vec<Blocker> {
    assert_eq!(refused.class(), Class::Denied, "{refused}");
    match refused {
        OperationError::Refused { blockers, .. } => blockers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_texts_that_tests_replace_are_in_the_plan() {
    for text in [START, HEALTH, LEDGER, RULES, ENV_END] {
        assert_eq!(PLAN.matches(text).count(), 1, "{text}");
    }
}

#[test]
fn a_backup_of_another_database_fails() {
    let shop = Shop::open("other-database");
    let workspace = shop.workspace();
    fs::rename(shop.path("shop.db"), shop.path("real.db")).unwrap();
    shop.database().execute_batch("CREATE TABLE other(x); INSERT INTO other VALUES (1)").unwrap();
    drop(shop.back_up(&workspace));
    for end in ["", "-wal", "-shm"] {
        drop(fs::remove_file(shop.path(&format!("shop.db{end}"))));
    }
    fs::rename(shop.path("real.db"), shop.path("shop.db")).unwrap();
    let changes = shop.path("muster.yaml");
    let hasty = fs::read_to_string(&changes).unwrap().replace("within: 20s", "within: 1s");
    fs::write(&changes, hasty).unwrap();
    shop.check(&shop.workspace(), Verdict::Fail, "not recovered within 1s");
}

#[test]
fn a_copy_that_never_ran_refuses_the_drill() {
    let shop = Shop::with("no-copy", &[(", copy: [far]", "")]);
    let workspace = shop.protected();
    let refused = shop.drill(&workspace, Disruption::RegionLoss).unwrap_err();
    let codes: Vec<&str> = blockers(refused).iter().map(|blocker| blocker.code).collect();
    assert_eq!(codes, ["no-surviving-copy", "no-surviving-copy"]);
    let recorded = records(&workspace, &["drill-refused", "drill-started"]);
    let [Record::DrillRefused(record)] = &recorded[..] else { panic!("{recorded:?}") };
    assert_eq!(record.blockers[0].0, "no-surviving-copy");
}

#[test]
fn a_runbook_that_restores_nothing_of_what_is_asked_is_refused() {
    let changes = [
        ("- {restore: [db, uploads]}", "- {run: [mkdir, -p, db]}"),
        ("{{ target.data.db.path }}", "{{ target.dir }}/db/shop.db"),
    ];
    let shop = Shop::with("no-restore", &changes);
    let workspace = shop.protected();
    let refused = blockers(shop.drill(&workspace, Disruption::RegionLoss).unwrap_err());
    assert!(refused.iter().all(|blocker| blocker.code == "data-not-restored"), "{refused:#?}");
    for asked in ["the probe ledger", "rows", "checksums", "markers"] {
        assert!(refused.iter().any(|b| b.message.contains(asked)), "{asked}: {refused:#?}");
    }
}

#[test]
fn a_runbook_that_forgets_data_which_nothing_asks_is_inconclusive() {
    let changes =
        [("- {restore: [db, uploads]}", "- {restore: [db]}"), (", checksums: [uploads]", "")];
    check("half-restore", &changes, Verdict::Inconclusive, "uploads is protected");
}

#[test]
fn a_start_that_starts_nothing_fails_when_a_probe_asks_the_service() {
    let changes = [(START, "{start: [\"true\"]}"), ("within: 20s", "within: 1s")];
    check("start-nothing", &changes, Verdict::Fail, "not recovered within 1s");
}

#[test]
fn a_start_that_starts_nothing_is_inconclusive_when_only_data_is_asked() {
    let changes = [(START, "{start: [\"true\"]}"), (HEALTH, "")];
    check("start-unasked", &changes, Verdict::Inconclusive, "no probe asks the service");
}

#[test]
fn a_probe_that_is_always_green_is_inconclusive() {
    let changes = [(HEALTH, "health: {command: [\"true\"], interval: 50ms}")];
    check("always-green", &changes, Verdict::Inconclusive, "probe health was never seen red");
}

#[test]
fn a_probe_that_asks_no_data_is_inconclusive() {
    let shallow = ENV_END.replace("}\"}", "}\", SHOP_SHALLOW: \"1\"}");
    let changes = [(ENV_END, shallow.as_str()), (LEDGER, ""), (RULES, "")];
    check("shallow", &changes, Verdict::Inconclusive, "nothing turned red when db was damaged");
    let changes = [(ENV_END, shallow.as_str()), (LEDGER, "")];
    check("shallow-covered", &changes, Verdict::Pass, "");
}

#[test]
fn ten_empty_files_are_inconclusive() {
    let shop = Shop::open("empty-files");
    fs::remove_file(shop.path("uploads/one.txt")).unwrap();
    for n in 0..10 {
        fs::write(shop.path(&format!("uploads/{n}.txt")), "").unwrap();
    }
    let workspace = shop.protected();
    shop.check(&workspace, Verdict::Inconclusive, "when uploads was damaged");
}

#[test]
fn no_markers_are_inconclusive() {
    let changes = [("markers: {data: db, every: 50ms}", "")];
    let shop = Shop::with("no-markers", &changes);
    let workspace = shop.protected();
    let result = shop.check(&workspace, Verdict::Inconclusive, "no markers");
    assert_eq!(result.recovery_point.actual_s_min, None);
    assert_eq!(result.recovery_point.actual_s_max, None);
}

#[test]
fn no_probes_are_inconclusive() {
    let changes = [(HEALTH, ""), (LEDGER, ""), ("      probes:\n", "")];
    check("no-probes", &changes, Verdict::Inconclusive, "no acceptance probe");
}

#[test]
fn a_service_that_dies_while_it_is_held_fails() {
    let short = ENV_END.replace("}\"}", "}\", SHOP_LIFE_MS: \"700\"}");
    let changes = [(ENV_END, short.as_str()), ("hold: 200ms", "hold: 3s")];
    check("dies-again", &changes, Verdict::Fail, "the shop closes");
}

#[test]
fn a_service_that_turns_red_while_it_is_held_fails() {
    let daemon = r#"{start: [sh, -c, "( touch up; sleep 0.6; rm up ) & exit 0"]}"#;
    let changes = [
        (START, daemon),
        (HEALTH, r#"health: {command: [test, -e, "{{ target.dir }}/up"], interval: 50ms}"#),
        ("hold: 200ms", "hold: 2s"),
        ("within: 20s", "within: 1s"),
    ];
    check("red-again", &changes, Verdict::Fail, "came back and died again");
}

#[test]
fn a_service_that_exits_at_once_fails_with_its_last_words() {
    let changes = [(START, r#"{start: [sh, -c, "echo no licence >&2; exit 3"]}"#)];
    check("exits", &changes, Verdict::Fail, "no licence");
}

#[test]
fn a_step_that_hangs_fails_by_its_timeout() {
    let run = format!("{{run: [sleep, \"60\"], timeout: 300ms}}\n      - {START}");
    let changes = [(START, run.as_str())];
    check("step-hangs", &changes, Verdict::Fail, "not done after 300ms");
}

#[test]
fn a_probe_that_hangs_fails_and_delays_no_other() {
    let changes = [
        (HEALTH, "health: {command: [sleep, \"60\"], interval: 50ms, timeout: 300ms}"),
        ("within: 20s", "within: 2s"),
    ];
    let shop = Shop::with("probe-hangs", &changes);
    let workspace = shop.protected();
    let result = shop.check(&workspace, Verdict::Fail, "not recovered within 2s");
    let [hung, ledger] = &result.probes[..] else { panic!("{:#?}", result.probes) };
    assert!(hung.first_green_s.is_none() && hung.failures > 0);
    assert!(ledger.samples > hung.samples * 2, "{:#?}", result.probes);
    assert!(ledger.first_green_s.unwrap() < 2.0);
}

#[test]
fn a_missed_recovery_time_fails() {
    let slow = format!("{{run: [sleep, \"1.2\"]}}\n      - {START}");
    let changes = [
        (START, slow.as_str()),
        ("    data:\n", "    objectives: {region-loss: {rto: 1s}}\n    data:\n"),
    ];
    check("rto-missed", &changes, Verdict::Fail, "the objective is 1.0 s");
}

#[test]
fn a_backup_that_is_too_old_fails() {
    let change = ("    data:\n", "    objectives: {region-loss: {rpo: 500ms}}\n    data:\n");
    let shop = Shop::with("rpo-missed", &[change]);
    let workspace = shop.protected();
    let mut asked = request(Disruption::RegionLoss);
    asked.marking = Duration::from_millis(1500);
    let result = drill::run(&workspace, &asked, &Silence, &Run::new()).unwrap();
    assert_eq!(result.verdict, Verdict::Fail, "{result:#?}");
    assert!(result.reasons.join("\n").contains("lost at least"), "{:?}", result.reasons);
}

#[test]
fn a_service_that_opens_productions_data_fails() {
    let shop = Shop::open("reaches-production");
    // Another name of the same file, so that only watching finds it.
    let path = shop.path("innocent");
    fs::hard_link(shop.path("shop.db"), &path).unwrap();
    let open = format!("}}\", SHOP_ALSO_OPEN: \"{}\"}}", path.display());
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    let reaching = text.replace(ENV_END, &ENV_END.replace("}\"}", &open));
    fs::write(shop.path("muster.yaml"), reaching).unwrap();
    let workspace = shop.protected();
    let result = shop.check(&workspace, Verdict::Fail, "isolation");
    assert!(result.reasons.join("\n").contains("innocent"), "{:?}", result.reasons);
}

#[test]
fn a_service_that_needs_productions_data_for_a_moment_fails() {
    if !can_hide() {
        eprintln!("skipped: only root, where it may mount, can hide files");
        return;
    }
    let shop = Shop::open("needs-production");
    // Another name, which the runbook may have; the look is too short for any watch.
    let path = shop.path("innocent");
    std::os::unix::fs::symlink(shop.path("shop.db"), &path).unwrap();
    let needs = format!("}}\", SHOP_NEEDS: \"{}\"}}", path.display());
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    fs::write(shop.path("muster.yaml"), text.replace(ENV_END, &ENV_END.replace("}\"}", &needs)))
        .unwrap();
    let workspace = shop.protected();
    let result = shop.check(&workspace, Verdict::Fail, "start ended with");
    assert!(shop.logs(&result).contains("what it needs is empty"));
    assert!(result.isolation.iter().all(|proof| proof.ok), "{:#?}", result.isolation);
}

#[test]
fn a_service_that_calls_productions_server_fails() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    // Whoever calls is hung up on; the caller's end of the line stays until it closes it.
    thread::spawn(move || server.incoming().for_each(drop));
    // The plan says `localhost`, the service `127.0.0.1`: only watching finds it.
    let other = format!(
        "services:\n  ledger:\n    tier: standard\n    region: west\n    data:\n      \
         main: {{postgres: \"postgresql://ana@localhost:{port}/main\"}}\n"
    );
    let call = format!("}}\", SHOP_ALSO_CALL: \"127.0.0.1:{port}\"}}");
    let calling = ENV_END.replace("}\"}", &call);
    let shop = Shop::with("calls", &[("services:\n", &other), (ENV_END, &calling)]);
    let workspace = shop.protected();
    shop.check(&workspace, Verdict::Fail, "is connected to");
}

#[test]
fn a_runbook_that_names_productions_data_is_refused() {
    let shop = Shop::open("names-production");
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    let production = shop.path("shop.db");
    let naming = text.replace("{{ target.data.db.path }}", production.to_str().unwrap());
    fs::write(shop.path("muster.yaml"), naming).unwrap();
    let workspace = shop.protected();
    let refused = shop.drill(&workspace, Disruption::RegionLoss).unwrap_err();
    assert_eq!(blockers(refused)[0].code, "runbook-names-production");
}

#[test]
fn an_empty_dump_is_inconclusive() {
    let changes = [
        ("      uploads: {files: ./uploads}", "      dump: {command: [\"true\"], file: dump.sql}"),
        ("- {data: [db, uploads],", "- {data: [db, dump],"),
        ("{restore: [db, uploads]}", "{restore: [db, dump]}"),
        (", checksums: [uploads]", ""),
    ];
    check("empty-dump", &changes, Verdict::Inconclusive, "when dump was damaged");
}

#[test]
fn a_database_that_is_damaged_in_the_backup_fails() {
    let shop = Shop::with("damaged", &[("within: 20s", "within: 1s")]);
    let workspace = shop.protected();
    // A plan that meanwhile names a database which a file with other content was restored for.
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    fs::write(shop.path("muster.yaml"), text.replace("sqlite: ./shop.db", "sqlite: ./shop2.db"))
        .unwrap();
    let copied = Connection::open(shop.path("shop2.db")).unwrap();
    copied.execute_batch("CREATE TABLE entry(id, amount)").unwrap();
    drop(workspace);
    let result = shop.check(&shop.workspace(), Verdict::Fail, "");
    assert!(result.recovery_time.actual_s.is_none());
}
