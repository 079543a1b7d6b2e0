//! A service of its own for each test: a database with orders, a plan, two repositories.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use muster_model::{Disruption, DrillResult, Verdict};
use muster_operations::{
    drill::{self, DrillRequest},
    error::OperationError,
    protect::{self, JobReport, Selection, Tools},
    records::Record,
    story::Silence,
    workspace::Workspace,
};
use muster_repository::{
    environment::Environment,
    format::{config::Version, key_file::Cost},
    repository::{InitOptions, Repository},
    run::Run,
    storage::LocalStorage,
};
use muster_testkit::Scratch;
use rusqlite::Connection;

/// What opens the repositories.
pub(crate) const PASSWORD: &str = "correct horse";

/// Long enough for anything that is waited for on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A plan with its data in a scratch folder.
pub(crate) struct Shop {
    pub(crate) scratch: Scratch,
}

/// The plan of a shop; `@EXE@` is this test binary, which is also the service.
pub(crate) const PLAN: &str = r#"muster: 1
name: shop
regions: [west, north]
contacts: {ana: {email: ana@example.org, phone: "+39 1"}}
repositories:
  near: {url: ./near, region: west, password: file:./secret}
  far: {url: ./far, region: north, password: file:./secret}
services:
  orders:
    tier: critical
    region: west
    owner: ana
    contacts: [ana]
    data:
      db: {sqlite: ./shop.db}
      uploads: {files: ./uploads}
    protect:
      - {data: [db, uploads], every: 2m, to: near, copy: [far]}
    markers: {data: db, every: 50ms}
    recover:
      - {restore: [db, uploads]}
      - {start: ["@EXE@", --exact, --nocapture, "child::serve"], env: {SHOP_DB: "{{ target.data.db.path }}", SHOP_PORT: "{{ target.port }}"}}
    acceptance:
      hold: 200ms
      within: 20s
      probes:
        health: {http: "{{ target.url }}/health", expect: {status: 200}, interval: 50ms}
        ledger: {sql: "select count(*) > 0 and sum(amount) = 0 from entry", on: db, expect: true, interval: 50ms}
      completeness: {rows: {db: [entry]}, checksums: [uploads]}
"#;

/// [`PLAN`] with changes, each of which must have a place in it.
pub(crate) fn plan(changes: &[(&str, &str)]) -> String {
    let mut text = PLAN.to_owned();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "'{from}' in the plan");
        text = text.replace(from, to);
    }
    let exe = std::env::current_exe().unwrap();
    text.replace("@EXE@", exe.to_str().unwrap())
}

impl Shop {
    /// A shop with ten orders and the plan [`PLAN`].
    pub(crate) fn open(name: &str) -> Self {
        Self::with(name, &[])
    }

    /// A shop whose plan differs from [`PLAN`].
    pub(crate) fn with(name: &str, changes: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new(name).unwrap();
        fs::write(scratch.join("muster.yaml"), plan(changes)).unwrap();
        fs::write(scratch.join("secret"), format!("{PASSWORD}\n")).unwrap();
        fs::create_dir(scratch.join("uploads")).unwrap();
        fs::write(scratch.join("uploads/one.txt"), "one invoice\n".repeat(2000)).unwrap();
        let shop = Self { scratch };
        for repository in ["near", "far"] {
            shop.make_repository(repository);
        }
        let database = shop.database();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE entry(id INTEGER PRIMARY KEY, amount INTEGER NOT NULL);",
            )
            .unwrap();
        for amount in 1..=10 {
            let insert = "INSERT INTO entry(amount) VALUES (?1), (-?1)";
            database.execute(insert, [amount]).unwrap();
        }
        shop
    }

    /// A repository whose key costs next to nothing to derive: tests open it many times.
    fn make_repository(&self, name: &str) {
        let options = InitOptions {
            version: Version::V2,
            polynomial: None,
            cost: Cost::FOR_TESTS,
            author: Environment::detect().author(),
        };
        let storage = Arc::new(LocalStorage::new(self.path(name)));
        Repository::init(storage, PASSWORD.as_bytes(), options).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Production's database.
    pub(crate) fn database(&self) -> Connection {
        Connection::open(self.path("shop.db")).unwrap()
    }

    pub(crate) fn try_workspace(&self) -> Result<Workspace, OperationError> {
        Workspace::open(&self.path("muster.yaml"), &self.path(".muster"))
    }

    pub(crate) fn workspace(&self) -> Workspace {
        self.try_workspace().unwrap()
    }

    pub(crate) fn back_up(&self, workspace: &Workspace) -> Vec<JobReport> {
        let tools = Tools::new();
        let jobs = protect::jobs(workspace, &Selection::default()).unwrap();
        jobs.iter()
            .map(|job| protect::run_job(workspace, &tools, job, &Run::new()).unwrap())
            .collect()
    }

    /// Opens the workspace and takes backups, all of which must be whole.
    pub(crate) fn protected(&self) -> Workspace {
        let workspace = self.workspace();
        for report in self.back_up(&workspace) {
            assert!(report.is_complete(), "{report:#?}");
        }
        workspace
    }

    pub(crate) fn drill(
        &self,
        workspace: &Workspace,
        disruption: Disruption,
    ) -> Result<DrillResult, OperationError> {
        drill::run(workspace, &request(disruption), &Silence, &Run::new())
    }

    /// Rehearses a region loss and checks the verdict and that the reasons hold `reason`.
    #[track_caller]
    pub(crate) fn check(
        &self,
        workspace: &Workspace,
        verdict: Verdict,
        reason: &str,
    ) -> DrillResult {
        let result = self.drill(workspace, Disruption::RegionLoss).unwrap();
        assert_eq!(result.verdict, verdict, "{result:#?}\n{}", self.logs(&result));
        assert!(result.reasons.join("\n").contains(reason), "{:#?}", result.reasons);
        assert!(result.cleanup.iter().all(|proof| proof.ok), "{:#?}", result.cleanup);
        assert!(!self.path(".muster/runs").join(&result.drill).join("target").exists());
        result
    }

    /// What the processes of a drill said.
    pub(crate) fn logs(&self, result: &DrillResult) -> String {
        let folder = self.path(".muster/runs").join(&result.drill).join("logs");
        let Ok(entries) = fs::read_dir(folder) else { return String::new() };
        entries.flatten().map(|e| fs::read_to_string(e.path()).unwrap_or_default()).collect()
    }
}

pub(crate) fn request(disruption: Disruption) -> DrillRequest {
    DrillRequest {
        service: "orders".to_owned(),
        disruption,
        at: None,
        point: None,
        marking: Duration::from_millis(200),
    }
}

/// Records of some kinds, oldest first.
pub(crate) fn records(workspace: &Workspace, kinds: &[&str]) -> Vec<Record> {
    let history = workspace.state.history(kinds).unwrap();
    history.into_iter().map(|logged| logged.record).collect()
}

/// Processes that carry one of these marks, which only children of Muster and what these
/// started do; the dead that nobody waited for do not count.
pub(crate) fn carriers(marks: &[String]) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let carries = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        marks.iter().any(|mark| environment.contains(mark.as_str()))
    };
    pids.filter(carries).collect()
}

/// The marks of all children that the ledger knows.
pub(crate) fn marks(workspace: &Workspace) -> Vec<String> {
    let children = records(workspace, &["child-started"]).into_iter();
    children
        .filter_map(|record| match record {
            Record::ChildStarted(started) => Some(started.child.mark),
            _ => None,
        })
        .collect()
}

/// Whether nothing is in a folder.
pub(crate) fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}
