//! A service of its own for each test: a database with orders, a plan, two repositories.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_model::{Disruption, DrillResult};
use muster_operations::{
    drill::{self, DrillRequest},
    error::OperationError,
    protect::{self, JobReport, Selection, Tools},
    story::Silence,
    workspace::Workspace,
};
use muster_repository::run::Run;
use muster_testkit::Scratch;
use rusqlite::Connection;

/// A plan with its data in a scratch folder.
pub(crate) struct Shop {
    pub(crate) scratch: Scratch,
}

/// The plan of a shop; `{}` stands for more fields of the service.
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
    markers: {data: db, every: 100ms}
    recover:
      - {restore: [db, uploads]}
      - {start: [sh, -c, "while sleep 1; do :; done"]}
    acceptance:
      hold: 300ms
      within: 10s
      probes:
        ledger: {sql: "select count(*) > 0 and sum(amount) = 0 from entry", on: db, expect: true, interval: 50ms}
      completeness: {rows: {db: [entry]}, checksums: [uploads]}
"#;

impl Shop {
    /// A shop with ten orders and the plan [`PLAN`].
    pub(crate) fn open(name: &str) -> Self {
        Self::with_plan(name, PLAN)
    }

    pub(crate) fn with_plan(name: &str, plan: &str) -> Self {
        let scratch = Scratch::new(name).unwrap();
        fs::write(scratch.join("muster.yaml"), plan).unwrap();
        fs::write(scratch.join("secret"), "correct horse\n").unwrap();
        fs::create_dir(scratch.join("uploads")).unwrap();
        fs::write(scratch.join("uploads/one.txt"), "one invoice\n".repeat(2000)).unwrap();
        let database = Connection::open(scratch.join("shop.db")).unwrap();
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
        Self { scratch }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    pub(crate) fn workspace(&self) -> Workspace {
        Workspace::open(&self.path("muster.yaml"), &self.path(".muster")).unwrap()
    }

    pub(crate) fn back_up(&self, workspace: &Workspace) -> Vec<JobReport> {
        let tools = Tools::new();
        let jobs = protect::jobs(workspace, &Selection::default()).unwrap();
        jobs.iter()
            .map(|job| protect::run_job(workspace, &tools, job, &Run::new()).unwrap())
            .collect()
    }

    pub(crate) fn drill(
        &self,
        workspace: &Workspace,
        disruption: Disruption,
    ) -> Result<DrillResult, OperationError> {
        drill::run(workspace, &request(disruption), &Silence, &Run::new())
    }
}

pub(crate) fn request(disruption: Disruption) -> DrillRequest {
    DrillRequest {
        service: "orders".to_owned(),
        disruption,
        at: None,
        point: None,
        marking: Duration::from_millis(500),
    }
}

/// Whether anything is left in a folder.
pub(crate) fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}
