//! The plan as values: what is left when a `muster.yaml` was read and understood.
//!
//! Named things keep the order of the document. References are names that were checked: in a
//! [`Plan`] that came without errors each leads somewhere, so look-ups may be written plainly.

use std::{collections::BTreeMap, time::Duration};

use jiff::{Timestamp, civil::Date};
use muster_model::{BackupKind, Cadence, Disruption, Place, Probe, SecretRef, Step, Within};
use serde::Serialize;

/// A whole plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text in hex, as `sha256sum muster.yaml` prints it.
    pub revision: String,
    /// The regions.
    pub regions: Vec<Region>,
    /// Who to reach, by name.
    pub contacts: Vec<Contact>,
    /// The built-in tiers and the plan's own; its own come first.
    pub tiers: Vec<Tier>,
    /// Where copies are kept.
    pub repositories: Vec<Repository>,
    /// What some data asks for, wherever it is.
    pub classes: Vec<DataClass>,
    /// What must survive.
    pub services: Vec<Service>,
    /// What is rehearsed, and when.
    pub drills: Vec<ScheduledDrill>,
    /// Rules that are waived for a while.
    pub exceptions: Vec<Exception>,
}

/// A region, and the zones in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Its zones.
    pub zones: Vec<String>,
}

/// Somebody to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The name in the plan.
    pub name: String,
    /// Ways to reach them: `email`, `phone`, …
    pub ways: BTreeMap<String, String>,
}

/// A class of criticality.
#[derive(Debug, Clone, PartialEq)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Whether it ships with Muster.
    pub built_in: bool,
    /// Recovery time objective.
    pub rto: Option<Duration>,
    /// Recovery point objective.
    pub rpo: Option<Duration>,
    /// Mean time to repair.
    pub mttr: Option<Duration>,
    /// Mean time between failures.
    pub mtbf: Option<Duration>,
    /// Availability as a fraction: 0.9999.
    pub availability: Option<f64>,
    /// A drill is due so long after the last one.
    pub drill_every: Option<Duration>,
    /// Proof older than this no longer counts.
    pub evidence_max_age: Option<Duration>,
}

/// A store of copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// Where it is: a folder relative to the plan, or a store.
    pub url: String,
    /// Where it stands.
    pub place: Place,
    /// Its password.
    pub password: Option<SecretRef>,
    /// Where the store's credentials are found, by the names of the variables that hold them
    /// elsewhere.
    pub credentials: Vec<(String, SecretRef)>,
    /// How the store is reached.
    pub options: Vec<(String, String)>,
    /// How long a copy cannot be changed by anybody.
    pub immutable: Option<Duration>,
    /// Archived packs may be brought back for a recovery, and are waited for so long at most.
    pub warm_up: Option<Duration>,
    /// How often all of it is read back.
    pub verify: Option<Verify>,
    /// How fast bytes may flow.
    pub limits: Limits,
}

impl Repository {
    /// How long nobody can change a copy, where the store can keep that promise: an S3 bucket, if
    /// it has Object Lock, which each backup reads back. Of others nobody can be sure.
    #[must_use]
    pub fn held_for(&self) -> Option<Duration> {
        self.immutable.filter(|_| self.url.starts_with("s3:"))
    }

    /// How long data takes at most to come back from the archive that the options name, in the
    /// archive's own words; `None` where data is not archived.
    ///
    /// # Source
    /// AWS, *Amazon S3 User Guide*, *Understanding archive retrieval options*.
    #[must_use]
    pub fn archive_delay(&self) -> Option<Duration> {
        const HOUR: u64 = 60 * 60;
        let option = |name: &str| {
            let found = self.options.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.to_ascii_lowercase())
        };
        let class = option("s3.storage-class").filter(|_| self.url.starts_with("s3:"))?;
        let tier = option("s3.restore-tier").unwrap_or_default();
        let seconds = match (class.as_str(), tier.as_str()) {
            ("glacier", "expedited") => 5 * 60,
            ("glacier", "bulk") => 12 * HOUR,
            ("glacier", _) => 5 * HOUR,
            ("deep_archive", "bulk") => 48 * HOUR,
            ("deep_archive", _) => 12 * HOUR,
            _ => return None,
        };
        Some(Duration::from_secs(seconds))
    }
}

/// Reading all data of a repository back, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// Everything is read at least this often.
    pub within: Duration,
    /// No more packs are begun after so long at a time.
    pub budget: Option<Duration>,
}

impl Verify {
    /// How long after one reading the next one comes: thirty of them within the period, but at
    /// most one a minute and at least one a day.
    #[must_use]
    pub fn pause(&self) -> Duration {
        const DAY: Duration = Duration::from_secs(86_400);
        (self.within / 30).clamp(Duration::from_secs(60), DAY).min(self.within)
    }
}

/// Limits of a store, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// To it.
    pub upload: Option<u64>,
    /// From it.
    pub download: Option<u64>,
}

/// What data of a kind asks for: a floor, which lines of `protect` may only raise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataClass {
    /// Its name.
    pub name: String,
    /// What is kept at least.
    pub keep: Keep,
    /// Repositories that receive copies at least.
    pub copy: Vec<String>,
    /// A copy must be unchangeable for so long.
    pub immutable: Option<Duration>,
    /// How often every repository with such data is read back.
    pub verify: Option<Verify>,
    /// The only regions where such data may be; empty allows all.
    pub residency: Vec<String>,
    /// What runs around the snapshots of such data, and around the hooks of their line.
    pub hooks: Hooks,
}

/// What users depend on: the unit of objectives and of recovery.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its tier's name.
    pub tier: Option<String>,
    /// Where it runs.
    pub place: Place,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Who is called.
    pub contacts: Vec<String>,
    /// What an outage costs, by its length.
    pub impact: Vec<(Duration, String)>,
    /// How it is recovered.
    pub strategy: Strategy,
    /// What it needs.
    pub depends_on: Vec<Dependency>,
    /// Objectives by disruption: the tier's, with the service's own laid over them. Only those
    /// that stand.
    pub objectives: BTreeMap<Disruption, Objective>,
    /// Disruptions whose objectives of the tier were taken out with `none`.
    pub no_objective: Vec<Disruption>,
    /// Its data.
    pub data: Vec<DataItem>,
    /// How copies are made.
    pub protect: Vec<Protection>,
    /// How its loss is measured.
    pub markers: Option<Markers>,
    /// What is taken for granted where nothing was measured.
    pub assume: Assumptions,
    /// The runbook.
    pub recover: Vec<Step>,
    /// When it counts as recovered.
    pub acceptance: Acceptance,
}

/// How a service is recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// From copies, onto an empty target.
    BackupRestore,
    /// Data flows already, machines are small or off.
    PilotLight,
    /// A smaller copy of the service runs already.
    WarmStandby,
    /// All sites serve.
    ActiveActive,
}

/// Another service that this one needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Its name.
    pub service: String,
    /// Without it there is no service at all.
    pub hard: bool,
}

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objective {
    /// Recovery time.
    pub rto: Option<Duration>,
    /// Recovery point.
    pub rpo: Option<Duration>,
}

/// A part of a service's data that is backed up and restored as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataItem {
    /// Its name.
    pub name: String,
    /// The class that it is of.
    pub class: Option<String>,
    /// What it is.
    pub source: DataSource,
}

/// Where data lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// Files and folders, relative to the plan.
    Files {
        /// The paths; never empty.
        paths: Vec<String>,
        /// Patterns of what is left out.
        exclude: Vec<String>,
    },
    /// An SQLite database.
    Sqlite {
        /// The file.
        path: String,
    },
    /// A PostgreSQL cluster.
    Postgres {
        /// Its URL, without a password.
        url: String,
        /// The password.
        password: Option<SecretRef>,
        /// The operating system's user that a restored server runs as.
        user: Option<String>,
    },
    /// What a command prints.
    Command {
        /// Program and arguments; no shell. Stages of a pipe are separated by `"|"`.
        argv: Vec<String>,
        /// The file that the output is kept as.
        file: String,
    },
}

impl DataSource {
    /// The kind, in the plan's word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Files { .. } => "files",
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres { .. } => "postgres",
            Self::Command { .. } => "command",
        }
    }
}

/// One line of `protect`.
#[derive(Debug, Clone, PartialEq)]
pub struct Protection {
    /// The data items, in order.
    pub data: Vec<String>,
    /// When.
    pub cadence: Cadence,
    /// The repository that is written.
    pub to: String,
    /// The repositories that receive copies: the line's own, then those that classes of its data
    /// ask for.
    pub copy: Vec<String>,
    /// The repositories among `copy` that only a class asks for, and which one.
    pub copy_of_class: Vec<(String, String)>,
    /// What is kept; empty keeps everything.
    pub keep: Keep,
    /// How much is read again.
    pub kind: BackupKind,
    /// What runs around it.
    pub hooks: Hooks,
}

/// Programs that run around the snapshots of a line of `protect`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hooks {
    /// Before the first; when it fails there is no backup.
    pub before: Option<Hook>,
    /// After the last and before the copies, whatever became of them.
    pub after: Option<Hook>,
    /// When anything of the line failed.
    pub on_failure: Option<Hook>,
}

/// A program that runs to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Program and arguments; no shell. Never empty.
    pub argv: Vec<String>,
    /// When it is ended and has failed.
    pub timeout: Duration,
}

/// What is kept, in restic's words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keep {
    /// The newest.
    pub last: Option<u32>,
    /// One an hour.
    pub hourly: Option<u32>,
    /// One a day.
    pub daily: Option<u32>,
    /// One a week.
    pub weekly: Option<u32>,
    /// One a month.
    pub monthly: Option<u32>,
    /// One a year.
    pub yearly: Option<u32>,
    /// All that are so much newer than the newest.
    pub within: Within,
    /// One an hour within this.
    pub within_hourly: Within,
    /// One a day within this.
    pub within_daily: Within,
    /// One a week within this.
    pub within_weekly: Within,
    /// One a month within this.
    pub within_monthly: Within,
    /// One a year within this.
    pub within_yearly: Within,
    /// Those with all tags of one of these comma lists.
    pub tags: Vec<String>,
}

impl Keep {
    /// The counts, by the plan's names.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, Option<u32>); 6] {
        [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ]
    }

    /// The durations, by the plan's names.
    #[must_use]
    pub fn durations(&self) -> [(&'static str, Within); 6] {
        [
            ("within", self.within),
            ("within_hourly", self.within_hourly),
            ("within_daily", self.within_daily),
            ("within_weekly", self.within_weekly),
            ("within_monthly", self.within_monthly),
            ("within_yearly", self.within_yearly),
        ]
    }

    /// Whether it has no rule, and keeps everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// As a plan says it; `everything` when there is no rule.
impl std::fmt::Display for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = self.counts().into_iter();
        let counts = counts.filter_map(|(name, count)| Some(format!("{name} {}", count?)));
        let durations = self.durations().into_iter().filter(|(_, within)| !within.is_zero());
        let durations = durations.map(|(name, within)| format!("{name} {within}"));
        let tags = self.tags.iter().map(|tags| format!("tags {tags}"));
        let rules: Vec<String> = counts.chain(durations).chain(tags).collect();
        match rules.is_empty() {
            true => f.write_str("everything"),
            false => f.write_str(&rules.join(", ")),
        }
    }
}

/// Numbered, timestamped rows in the data, by which loss is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// The data item that they are written to.
    pub data: String,
    /// How often.
    pub every: Duration,
}

/// Figures that a person vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Assumptions {
    /// From the impact until somebody knows.
    pub detect: Option<Duration>,
    /// From then until somebody decides to recover.
    pub decide: Option<Duration>,
}

/// When a service counts as recovered.
#[derive(Debug, Clone, PartialEq)]
pub struct Acceptance {
    /// So long every probe must stay green.
    pub hold: Duration,
    /// When to give up.
    pub within: Duration,
    /// The questions.
    pub probes: Vec<Probe>,
    /// Rows to be counted: data item and tables.
    pub rows: Vec<(String, Vec<String>)>,
    /// Data items whose restored content is compared with the snapshot's.
    pub checksums: Vec<String>,
}

/// A rehearsal in the calendar.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduledDrill {
    /// The service.
    pub service: String,
    /// What is rehearsed.
    pub disruption: Disruption,
    /// When; `None` leaves it to whoever runs it.
    pub schedule: Option<muster_model::CronSchedule>,
    /// The name of the time zone, `UTC` by default.
    pub timezone: String,
}

/// A rule that is waived for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// For which service.
    pub service: String,
    /// The code of the finding.
    pub waives: String,
    /// The last day on which it holds.
    pub until: Date,
    /// Why.
    pub reason: String,
    /// Who allowed it.
    pub approved_by: Option<String>,
}

/// What was measured, as the judging of a plan needs it. From the ledger; empty is fine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// By service and data item: runs of backups.
    pub backups: Vec<BackupFact>,
    /// By service and data item: runs of restores in drills and recoveries.
    pub restores: Vec<RestoreFact>,
    /// The last proof by service and disruption.
    pub proofs: Vec<ProofFact>,
    /// The last reading back of each repository.
    pub verifications: Vec<VerifyFact>,
}

/// What is known of the reading back of a repository.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyFact {
    /// The repository.
    pub repository: String,
    /// Since when something in it waits for being read back: the oldest reading, or the time
    /// since which there has always been something that was never read.
    pub waiting_since: Option<Timestamp>,
    /// Packs that the last reading left out, since they are archived.
    pub packs_archived: u64,
    /// The size of all packs.
    pub bytes: u64,
    /// How fast they were read last, in bytes per second; unknown when nothing was.
    pub bytes_per_s: Option<f64>,
}

/// A backup that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupFact {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// How long it took.
    pub took: Duration,
    /// How long the slowest copy took afterwards; zero without copies.
    pub copy_lag: Duration,
    /// Size of the data.
    pub bytes: u64,
    /// When it ended.
    pub ended: Timestamp,
}

/// A restore that was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreFact {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// Bytes restored.
    pub bytes: u64,
    /// How long the restore took.
    pub took: Duration,
    /// From the clock's start to the held window, without this restore: what else a recovery
    /// of the service costs.
    pub rest: Duration,
}

/// A drill that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofFact {
    /// The service.
    pub service: String,
    /// What was rehearsed.
    pub disruption: Disruption,
    /// When it ended.
    pub at: Timestamp,
}

impl Plan {
    /// A service by name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// A repository by name.
    #[must_use]
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.iter().find(|repository| repository.name == name)
    }

    /// A tier by name.
    #[must_use]
    pub fn tier(&self, name: &str) -> Option<&Tier> {
        self.tiers.iter().find(|tier| tier.name == name)
    }

    /// The tier of a service.
    #[must_use]
    pub fn tier_of(&self, service: &Service) -> Option<&Tier> {
        self.tier(service.tier.as_deref()?)
    }
}

impl Service {
    /// A data item by name.
    #[must_use]
    pub fn data(&self, name: &str) -> Option<&DataItem> {
        self.data.iter().find(|item| item.name == name)
    }
}
