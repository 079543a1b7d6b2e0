//! The whole loop as a newcomer goes through it: a plan of one's own for a PostgreSQL server
//! under load and a folder, from `plan check` to `gate`, every figure checked by other means.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use muster_model::{DrillResult, Verdict};
use muster_operations::{
    moment::Moment,
    records::Record,
    recover,
    state::{Logged, State},
    workspace::Workspace,
};
use muster_testkit::{
    Scratch, peers,
    postgres::{Options, Server, free_port, require},
    wait_for,
};
use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    demo_service::prober::Prober,
    sandbox::{PATIENCE, Ran, run},
};

const PLAN: &str = r#"muster: 1
name: bank
regions: [west, north]
contacts: {ana: {email: ana@example.org, phone: "+39 1"}}
repositories:
  near: {url: ./near, region: west, password: "file:./secret"}
  far: {url: ./far, region: north, password: "file:./secret"}
services:
  bank:
    tier: important
    region: west
    owner: ana
    contacts: [ana]
    objectives:
      operator-error: none
      data-corruption: none
      process-loss: none
      host-loss: none
      storage-loss: none
      zone-loss: none
    data:
      db: {postgres: "@URL@"}
      letters: {files: ./letters}
    protect: [{data: [db, letters], every: 5s, to: near, copy: [far]}]
    markers: {data: db, every: 250ms}
    recover:
      - restore: [db, letters]
      - start: [python3, -m, http.server, "@PORT@", --bind, 127.0.0.1, --directory, "{{ target.data.letters.path }}"]
    acceptance:
      hold: 2s
      within: 2m
      probes:
        app: {http: "http://127.0.0.1:@PORT@/health", expect: {status: 200}, interval: 50ms}
        balance:
          sql: "select (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers) and (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history) and (select count(*) from pgbench_accounts) > 0"
          on: db
          expect: true
          interval: 50ms
      completeness: {rows: {db: [pgbench_accounts]}, checksums: [letters]}
drills:
  - {service: bank, disruption: region-loss, schedule: "0 3 * * *"}
"#;

/// A bank: its server under load, its letters, its plan.
struct Bank {
    scratch: Scratch,
    server: Server,
    /// Where the recovered service answers.
    port: u16,
}

impl Bank {
    /// `None` when there is no server to be had, or nothing that serves its letters.
    fn open() -> Option<Self> {
        let programs = require(15)?;
        peers::require("python3")?;
        let server = Server::start("newcomer-server", &programs, &Options::default()).unwrap();
        let scratch = Scratch::new("newcomer").unwrap();
        let port = free_port().unwrap();
        let bank = Self { scratch, server, port };
        assert!(bank.pgbench(&["-i", "-q", "-s", "1"]).status().unwrap().success());
        let plan = PLAN.replace("@URL@", &bank.server.url("postgres"));
        let plan = plan.replace("@PORT@", &port.to_string());
        fs::write(bank.scratch.join("muster.yaml"), plan).unwrap();
        fs::write(bank.scratch.join("secret"), "correct horse\n").unwrap();
        fs::create_dir(bank.scratch.join("letters")).unwrap();
        fs::write(bank.scratch.join("letters/one.txt"), "Dear customer\n".repeat(1000)).unwrap();
        // What the service answers when it is asked for its health.
        fs::write(bank.scratch.join("letters/health"), "well\n").unwrap();
        Some(bank)
    }

    fn pgbench(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.server.programs().join("pgbench"));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]);
        command.arg(self.server.port().to_string()).args(arguments).arg("postgres");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn muster(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(arguments).current_dir(self.scratch.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MUSTER_") {
                command.env_remove(&name);
            }
        }
        command.env("TZ", "UTC");
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(&mut self.muster(arguments))
    }

    fn state(&self) -> State {
        State::open_read_only(&self.scratch.join(".muster")).unwrap().unwrap()
    }

    /// Waits until so many points are in both repositories.
    fn wait_for_points(&self, count: usize) {
        let copied = || {
            // Until the first backup has made the repositories, they do not answer.
            let listed = self.run(&["points", "--json"]).json();
            let points = listed["points"].as_array().unwrap();
            let is_copied = |point: &&serde_json::Value| {
                point["data"] == "db" && point["copies"].as_array().unwrap().len() == 2
            };
            (points.iter().filter(is_copied).count() >= count).then_some(())
        };
        wait_for("recovery points", PATIENCE * 4, copied).unwrap();
    }
}

/// A process that runs beside the test, and ends with it.
struct Beside(Child);

impl Beside {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Asks it to end, as Ctrl-C does, and waits.
    fn interrupt(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The numbered rows of a database.
fn markers(client: &mut Client) -> Vec<(String, i64)> {
    let rows = client.query("SELECT writer::text, n FROM muster_marker ORDER BY 1, 2", &[]);
    rows.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The sums that pgbench keeps equal, and how many transactions there were.
fn books(client: &mut Client) -> (i64, i64, i64, i64, i64) {
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), \
                (SELECT sum(tbalance) FROM pgbench_tellers), \
                (SELECT sum(bbalance) FROM pgbench_branches), \
                (SELECT sum(delta) FROM pgbench_history), (SELECT count(*) FROM pgbench_history)";
    let row = client.query_one(sums, &[]).unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
}

#[test]
fn a_plan_for_a_server_under_load_is_proven_and_keeps_its_word() {
    let Some(mut bank) = Bank::open() else { return };
    bank.run(&["plan", "check"]).expect(0);
    bank.run(&["gate"]).expect(6);
    let mut load = Beside::start(&mut bank.pgbench(&["-c", "2", "-n", "-T", "600"]));
    let mut protection = bank.muster(&["backup", "--loop"]);
    let mut protection = Beside::start(protection.stdout(Stdio::null()).stderr(Stdio::null()));
    bank.wait_for_points(2);

    // The rehearsal, beside the load.
    bank.run(&["drill", "run", "bank"]).expect(0).shows("PASS");
    bank.run(&["gate"]).expect(0);

    // The disaster: first who protects, so that nothing is protected after it.
    protection.interrupt();
    let (struck, last) = (Instant::now(), Moment::now());
    bank.server.crash().unwrap();
    load.interrupt();

    let mut prober =
        Prober::start(&format!("http://127.0.0.1:{}", bank.port), Prober::EVERY).unwrap();
    let site = bank.scratch.join("site");
    let recovered = bank.run(&[
        "recover",
        "bank",
        "--disruption",
        "region-loss",
        "--yes",
        "--to",
        site.to_str().unwrap(),
    ]);
    let recovered = recovered.expect(0);
    let _ends = Ends(bank.scratch.path());
    prober.stop();
    let (result, clock) = recovery(&bank.state());
    assert_eq!(result.verdict, Verdict::Pass, "{result:#?}");

    // The time, as somebody outside saw it.
    let actual = result.recovery_time.actual_s.unwrap();
    let green = prober.first_green_after(struck).unwrap().instant.duration_since(struck);
    let seen = last.seconds_until(&clock);
    let seen = green.as_secs_f64() - seen;
    assert!((seen - actual).abs() < 0.05, "{seen} s seen, {actual} s measured");

    // The loss, counted by hand.
    let url = answers_at(&recovered.stderr);
    let mut restored = Client::connect(&url, NoTls).unwrap();
    bank.server.start_again().unwrap();
    let mut production = Client::connect(&bank.server.url("postgres"), NoTls).unwrap();
    let there = markers(&mut restored);
    let mut missing = markers(&mut production);
    missing.retain(|marker| !there.contains(marker));
    let counts = result.markers.clone().unwrap();
    assert_eq!(counts.lost, u64::try_from(missing.len()).unwrap(), "{missing:?}");
    assert_eq!(counts.recovered, u64::try_from(there.len()).unwrap());
    assert_eq!((counts.holes, counts.duplicates), (0, 0));

    // The books balance, and are not newer than production's.
    let (accounts, tellers, branches, history, transactions) = books(&mut restored);
    assert_eq!((accounts, tellers, branches), (history, history, history));
    assert!(transactions > 0 && transactions <= books(&mut production).4);
    let letter = fs::read_to_string(site.join("letters/one.txt")).unwrap();
    assert_eq!(letter, fs::read_to_string(bank.scratch.join("letters/one.txt")).unwrap());

    bank.run(&["status"]).expect(0).shows("region-loss");
    bank.run(&["evidence", "verify"]).expect(0);
    bank.run(&["report", "-o", "report.html"]).expect(0);
    assert!(fs::read_to_string(bank.scratch.join("report.html")).unwrap().contains("region-loss"));
    bank.run(&["gate"]).expect(0);
}

/// The result of the only recovery, and when its clock began.
fn recovery(state: &State) -> (DrillResult, Moment) {
    match &*state.history(&["recovery-started", "recovery-ended"]).unwrap() {
        [
            Logged { record: Record::RecoveryStarted(started), .. },
            Logged { record: Record::RecoveryEnded(ended), .. },
        ] => ((**ended).clone(), started.clock.clone()),
        others => panic!("{others:?}"),
    }
}

/// Where the recovered server answers, from what the recovery told its operator.
fn answers_at(told: &str) -> String {
    let (_, after) = told.split_once("db answers at ").unwrap_or_else(|| panic!("{told}"));
    after.split(';').next().unwrap().to_owned()
}

/// Ends what was recovered when it is dropped: it would go on for ever.
struct Ends<'p>(&'p Path);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let workspace = Workspace::open(&self.0.join("muster.yaml"), &self.0.join(".muster"));
        // In a test that fails there may be nothing to end.
        drop(workspace.map(|workspace| recover::stop(&workspace, "bank")));
    }
}
