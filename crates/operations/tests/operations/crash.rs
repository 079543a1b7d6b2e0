//! `kill -9` at every write to the ledger, in a drill and in a recovery: the next command puts
//! in order exactly what the dead one left, and a recovery goes on where it was.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use muster_model::Verdict;
use muster_operations::{evidence, records::Record, recover, workspace::Workspace};
use muster_testkit::{wait_for, walker};
use rusqlite::Connection;

use crate::{
    child::{recover_to, start_victim, was_killed},
    common::{PATIENCE, Shop, carriers, marks, records},
};

/// Shops that are worked on side by side; each takes its share of the places to be killed at.
const LANES: u64 = 4;

const QUICK: &[(&str, &str)] = &[("hold: 200ms", "hold: 100ms")];

/// Kills the victims of a shop at every place of its lane; tells how many there were.
fn kill_everywhere(lane: u64, deed: &str, check: impl Fn(&Shop, u64) + Sync) -> u64 {
    let shop = Shop::with(&format!("crash-{lane}"), QUICK);
    drop(shop.protected());
    let mut stranger = stranger(&shop);
    let mut kill_at = lane + 1;
    loop {
        let deed = deed.replace("SITE", shop.path(&format!("site-{kill_at}")).to_str().unwrap());
        let killed = was_killed(start_victim(&shop, &deed, kill_at));
        check(&shop, kill_at);
        assert!(stranger.0.try_wait().unwrap().is_none(), "the stranger was ended at {kill_at}");
        if !killed {
            break;
        }
        kill_at += LANES;
    }
    kill_at
}

/// A process that looks like the drill's own and is nobody's business; it ends with its test.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn stranger(shop: &Shop) -> Stranger {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "child::serve"])
        .env("SHOP_DB", shop.path("shop.db"))
        .env("SHOP_PORT", "0")
        .current_dir(shop.scratch.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Stranger(child)
}

fn in_lanes(one: impl Fn(u64) -> u64 + Sync) -> u64 {
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                scope.spawn({
                    let one = &one;
                    move || one(lane)
                })
            })
            .collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).max().unwrap()
    })
}

#[test]
fn a_drill_that_is_killed_anywhere_leaves_nothing_and_is_in_the_log() {
    let places = in_lanes(|lane| kill_everywhere(lane, "drill", check_swept));
    assert!(places > 50, "only {places} places to be killed at");
}

fn check_swept(shop: &Shop, kill_at: u64) {
    let workspace = shop.workspace();
    let left = carriers(&marks(&workspace));
    assert!(left.is_empty(), "{left:?} are left after {kill_at}");
    assert_no_targets(&shop.path(".muster/runs"));
    let (mut started, mut ended) = (Vec::new(), Vec::new());
    for record in records(&workspace, &["drill-started", "drill-ended"]) {
        match record {
            Record::DrillStarted(drill) => started.push((drill.number, drill.drill)),
            Record::DrillEnded(drill) => {
                let is_fine = matches!(drill.verdict, Verdict::Aborted | Verdict::Pass);
                assert!(is_fine, "{drill:#?}");
                assert!(drill.started <= drill.ended);
                assert!(drill.recovery_time.objective_s.is_some(), "{drill:#?}");
                ended.push((drill.number, drill.drill.clone()));
            }
            _ => {}
        }
    }
    assert_eq!(started, ended, "killed at {kill_at}");
    let numbers: Vec<u64> = started.iter().map(|(number, _)| *number).collect();
    let count = u64::try_from(numbers.len()).unwrap();
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
    assert!(evidence::verify_state(&workspace.state).is_ok());
    drop(workspace);
    assert_eq!(shop.workspace().swept, Vec::<String>::new(), "swept twice");
}

fn assert_no_targets(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    for run in entries.flatten() {
        for target in ["target", "empty-target"] {
            assert!(!run.path().join(target).exists(), "{} has a {target}", run.path().display());
        }
    }
}

#[test]
fn a_recovery_that_is_killed_anywhere_is_resumed() {
    let places = in_lanes(|lane| kill_everywhere(lane, "SITE", check_resumed));
    assert!(places > 20, "only {places} places to be killed at");
}

fn check_resumed(shop: &Shop, kill_at: u64) {
    let workspace = shop.workspace();
    let site = shop.path(&format!("site-{kill_at}"));
    let ended = |workspace: &Workspace| {
        let ended = records(workspace, &["recovery-ended"]).into_iter();
        ended.count()
    };
    let started = records(&workspace, &["recovery-started"]).len();
    let is_over = started > 0 && started == ended(&workspace) && !crate::common::is_empty(&site);
    if !is_over {
        let result = recover_to(&workspace, &site).unwrap();
        assert_eq!(result.verdict, Verdict::Pass, "killed at {kill_at}: {result:#?}");
    }
    let records = records(&workspace, &["recovery-ended"]);
    let Some(Record::RecoveryEnded(last)) = records.last() else { panic!("{records:?}") };
    assert_eq!(last.verdict, Verdict::Pass, "killed at {kill_at}: {last:#?}");
    assert_eq!(usize::try_from(last.number).unwrap(), records.len(), "one end for each start");
    assert_equal_data(shop, &site);
    let serving = carriers(&marks(&workspace));
    assert_eq!(serving.len(), 1, "killed at {kill_at}: {serving:?} serve");
    assert_eq!(recover::stop(&workspace, "orders").unwrap(), serving);
    let gone = || carriers(&marks(&workspace)).is_empty().then_some(());
    wait_for("the service to be gone", PATIENCE, gone).unwrap();
    assert!(evidence::verify_state(&workspace.state).is_ok());
}

fn assert_equal_data(shop: &Shop, site: &Path) {
    let entries = |database: &Connection| -> HashSet<(i64, i64)> {
        let mut select = database.prepare("SELECT id, amount FROM entry").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let recovered = Connection::open(site.join("db/shop.db")).unwrap();
    assert_eq!(entries(&recovered), entries(&shop.database()));
    let of_production = walker::walk(&shop.path("uploads")).unwrap();
    let of_site = walker::walk(&site.join("uploads")).unwrap();
    walker::assert_same(&of_production, &of_site, &walker::Tolerance::default());
}
