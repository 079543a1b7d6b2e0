//! `kill -9` at every write to the ledger, in a drill, in a recovery, and in the command that puts
//! in order what a killed drill left: the next command does exactly what is left to do, and a
//! recovery goes on where it was. The same in a drill and a recovery of a PostgreSQL server, at
//! every write to their journals.

use std::{
    collections::HashSet,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use muster_model::Verdict;
use muster_operations::{evidence, records::Record, recover, state::State, workspace::Workspace};
use muster_testkit::{
    postgres::{Options, Server, require},
    wait_for, walker,
};
use postgres::{Client, NoTls};
use rusqlite::Connection;

use crate::{
    child::{recover_to, start_victim, start_victim_of, was_killed},
    common::{PATIENCE, PLAN, Shop, carriers, marks, records},
};

/// Shops that are worked on side by side; each takes its share of the places to be killed at.
const LANES: u64 = 4;

const QUICK: &[(&str, &str)] = &[("hold: 200ms", "hold: 100ms")];

/// Kills the victims of a shop at every place of its lane; tells how many there were.
fn kill_everywhere(lane: u64, deed: &str, check: impl Fn(&Shop, u64) + Sync) -> u64 {
    let shop = Shop::with(&format!("crash-{lane}"), QUICK);
    kill_everywhere_in(&shop, lane, |shop, kill_at| {
        let site = shop.path(&format!("site-{kill_at}"));
        let deed = deed.replace("SITE", site.to_str().unwrap());
        let killed = was_killed(start_victim(shop, &deed, kill_at));
        check(shop, kill_at);
        killed
    })
}

/// `kill` kills the victim of a shop at a place and checks what comes of it, until there is no
/// such place any more.
fn kill_everywhere_in(shop: &Shop, lane: u64, kill: impl Fn(&Shop, u64) -> bool) -> u64 {
    drop(shop.protected());
    let mut stranger = stranger(shop);
    let mut kill_at = lane + 1;
    loop {
        let killed = kill(shop, kill_at);
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
    assert_targets_gone(&workspace, kill_at);
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

/// Every target of the ledger is gone, with who worked there, and that is written down.
fn assert_targets_gone(workspace: &Workspace, kill_at: u64) {
    let (mut made, mut removed) = (Vec::new(), Vec::new());
    for record in records(workspace, &["target-made", "target-removed"]) {
        match record {
            Record::TargetMade(target) => made.push(PathBuf::from(target.dir)),
            Record::TargetRemoved(target) => removed.push(PathBuf::from(target.dir)),
            _ => {}
        }
    }
    for dir in made {
        assert!(!dir.exists(), "{} is there after {kill_at}", dir.display());
        assert_eq!(workers(&dir), [0; 0], "work in {} after {kill_at}", dir.display());
        assert!(removed.contains(&dir), "{} is not recorded after {kill_at}", dir.display());
        let folder = dir.parent().unwrap();
        let stays = folder.starts_with(&workspace.state.dir);
        assert!(stays || !folder.exists(), "{} stays after {kill_at}", folder.display());
    }
}

/// Processes whose folder is in this one: servers clear the environment that marks them.
fn workers(folder: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let works_there = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    };
    let there = processes.filter(works_there);
    there.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The place of the journal, in a drill of [`crate::common::PLAN`], at which the service runs.
const SERVES: u64 = 8;

#[test]
fn who_puts_in_order_may_be_killed_too() {
    let places = in_lanes(|lane| {
        let shop = Shop::with(&format!("crash-sweep-{lane}"), QUICK);
        kill_everywhere_in(&shop, lane, |shop, kill_at| {
            // A drill under way and a backup: both are left as they stand.
            assert!(was_killed(start_victim_of(shop, "drill", "journal", SERVES)));
            let left = State::open_read_only(&shop.path(".muster")).unwrap().unwrap();
            let open = left.history(&["child-started"]).unwrap().into_iter();
            let marks = open.filter_map(|logged| match logged.record {
                Record::ChildStarted(child) => Some(child.child.mark),
                _ => None,
            });
            // The service, and for a moment who started it within its walls.
            assert!(!carriers(&marks.collect::<Vec<_>>()).is_empty(), "nothing is left to end");
            let killed = was_killed(start_victim(shop, "sweep", kill_at));
            check_swept(shop, kill_at);
            check_settled(shop, kill_at);
            killed
        })
    });
    assert!(places > 8, "only {places} places to be killed at");
}

/// Whatever began has its end in the ledger, and just one.
fn check_settled(shop: &Shop, kill_at: u64) {
    let (mut began, mut ended) = (Vec::new(), Vec::new());
    let kinds = ["child-started", "child-ended", "drill-started", "drill-ended", "swept"];
    let mut swept = HashSet::new();
    for record in records(&shop.workspace(), &kinds) {
        match record {
            Record::ChildStarted(child) => began.push(child.child.mark),
            Record::ChildEnded(child) => ended.push(child.mark),
            Record::DrillStarted(drill) => began.push(drill.drill),
            Record::Swept(of) => drop(swept.insert(of.run)),
            Record::DrillEnded(drill) => {
                assert!(swept.contains(&drill.drill), "swept in silence after {kill_at}");
                ended.push(drill.drill);
            }
            _ => {}
        }
    }
    began.sort();
    ended.sort();
    assert_eq!(began, ended, "killed at {kill_at}");
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

/// What a shop has in its plan whose data is in a PostgreSQL server, which is its service too.
fn with_server(server: &Server) -> Vec<(&'static str, String)> {
    let cut = |from: &'static str, to: &'static str| {
        let start = PLAN.find(from).unwrap();
        &PLAN[start..start + PLAN[start..].find(to).unwrap()]
    };
    let url = server.url("postgres");
    let question = "select count(*) = 100 from account";
    vec![
        (cut("      db:", "    protect:"), format!("      main: {{postgres: \"{url}\"}}\n")),
        // The machine may be busy: how fast it is back is not what is looked at.
        ("within: 20s", "within: 5m".to_owned()),
        ("{data: [db, uploads], every", "{data: [main], every".to_owned()),
        ("markers: {data: db,", "markers: {data: main,".to_owned()),
        (cut("      - {restore", "    acceptance:"), "      - {restore: [main]}\n".to_owned()),
        (
            cut("        health:", "      completeness:"),
            format!(
                "        main: {{sql: \"{question}\", on: main, expect: true, interval: 50ms}}\n"
            ),
        ),
        ("{rows: {db: [entry]}, checksums: [uploads]}", "{rows: {main: [account]}}".to_owned()),
    ]
}

/// Kills victims at every write to the journal of a shop with a PostgreSQL server.
fn kill_with_server(
    programs: &Path,
    lane: u64,
    deed: &str,
    check: impl Fn(&Shop, u64) + Sync,
) -> u64 {
    let server = Server::start("crash-server", programs, &Options::default()).unwrap();
    Client::connect(&server.url("postgres"), NoTls)
        .unwrap()
        .batch_execute("CREATE TABLE account AS SELECT generate_series(1, 100) AS id")
        .unwrap();
    let changes = with_server(&server);
    let changes: Vec<_> = changes.iter().map(|(from, to)| (*from, to.as_str())).collect();
    let shop = Shop::with(&format!("crash-pg-{lane}"), &changes);
    let places = kill_everywhere_in(&shop, lane, |shop, kill_at| {
        let site = shop.path(&format!("site-{kill_at}"));
        let deed = deed.replace("SITE", site.to_str().unwrap());
        let killed = was_killed(start_victim_of(shop, &deed, "journal", kill_at));
        check(shop, kill_at);
        killed
    });
    assert!(TcpStream::connect(("127.0.0.1", server.port())).is_ok(), "production was ended");
    places
}

#[test]
fn a_drill_of_a_server_that_is_killed_at_any_journal_write_leaves_nothing() {
    let Some(programs) = require(15) else { return };
    let places = in_lanes(|lane| kill_with_server(&programs, lane, "drill", check_swept));
    assert!(places > 8, "only {places} places to be killed at");
}

#[test]
fn a_recovery_of_a_server_that_is_killed_at_any_journal_write_is_resumed() {
    let Some(programs) = require(15) else { return };
    let places = in_lanes(|lane| kill_with_server(&programs, lane, "SITE", check_server_resumed));
    assert!(places > 4, "only {places} places to be killed at");
}

fn check_server_resumed(shop: &Shop, kill_at: u64) {
    let workspace = shop.workspace();
    let site = shop.path(&format!("site-{kill_at}"));
    let ended = || records(&workspace, &["recovery-ended"]);
    if records(&workspace, &["recovery-started"]).len() > ended().len() {
        recover_to(&workspace, &site).unwrap();
    }
    let ended = ended();
    let Some(Record::RecoveryEnded(last)) = ended.last() else { panic!("{ended:?}") };
    assert_eq!(last.verdict, Verdict::Pass, "killed at {kill_at}: {last:#?}");
    let started = records(&workspace, &["child-started"]).into_iter();
    let roles: Vec<String> = started
        .filter_map(|record| match record {
            Record::ChildStarted(child)
                if child.run == last.drill && muster_drivers::process::lives(&child.child) =>
            {
                Some(child.role)
            }
            _ => None,
        })
        .collect();
    assert_eq!(roles, ["main"], "killed at {kill_at}");
    assert_eq!(recover::stop(&workspace, "orders").unwrap().len(), 1);
    let gone = || workers(&site).is_empty().then_some(());
    wait_for("the server to be gone", PATIENCE, gone).unwrap();
    assert!(evidence::verify_state(&workspace.state).is_ok());
}
