//! `muster verify`: all of a repository read back in turn, within a declared period.
//!
//! Which pack was found sound when is a file in the state folder; what a reading came to is in
//! the ledger. The file is an aid and no evidence: when it is lost, everything counts as never
//! read. Damage stays known until the packs in question were read again and found sound, or are
//! gone; the points that need them are no good ones until then.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use muster_model::{
    Finding, Severity,
    units::{agree, counted},
};
use muster_plan::{
    Plan,
    document::{Verify, VerifyFact},
};
use muster_repository::{
    check::{CheckOptions, CheckReport, InTurn, ReadData, Rota, Verified, check_in_turn},
    id::PackId,
    lock::{Lock, LockKind},
    run::Run,
};
use serde::{Deserialize, Serialize};

use crate::{error::OperationError, records::Record, state::State, stores, workspace::Workspace};

/// How long a reading waits for a repository that somebody has locked.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// A reading that failed is tried again at least so often.
const RETRY: SignedDuration = SignedDuration::from_hours(1);

/// Damages that are written down one by one; the rest is a count.
const DAMAGES_TOLD: usize = 20;

/// What a reading came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct VerifyEnded {
    /// The repository's name in the plan.
    pub repository: String,
    /// Packs that were read back.
    pub packs_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Packs that were due and not read, since the time for it was over.
    pub packs_due: u64,
    /// Their bytes.
    pub bytes_due: u64,
    /// Packs that were due and not read, since they are archived. They stay due.
    #[serde(default)]
    pub packs_archived: u64,
    /// Their bytes.
    #[serde(default)]
    pub bytes_archived: u64,
    /// Folders in such packs: nobody knows whether what is below them is there.
    #[serde(default)]
    pub trees_archived: u64,
    /// All packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that were never found sound.
    pub packs_never_read: u64,
    /// When the pack was read whose turn is the longest ago; `None` when none ever was.
    pub oldest: Option<Timestamp>,
    /// Since when there has always been a pack that was never read.
    pub never_since: Option<Timestamp>,
    /// How long it took.
    pub took_s: f64,
    /// What is damaged, the first of them.
    pub damages: Vec<String>,
    /// How many are.
    pub damages_total: u64,
    /// Packs that are damaged or missing, in hex, as far as is known.
    pub broken_packs: Vec<String>,
    /// Snapshots that lose something, in hex, as far as is known.
    pub affected: Vec<String>,
    /// Why it could not be read, if so.
    pub error: Option<String>,
}

impl VerifyEnded {
    /// Whether no damage is known.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damages_total == 0 && self.broken_packs.is_empty() && self.affected.is_empty()
    }

    /// Since when something waits for its reading.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Timestamp> {
        self.oldest.into_iter().chain(self.never_since).min()
    }
}

/// How much is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct How {
    /// Packs that were read less long ago are not due.
    pub older_than: Duration,
    /// No more packs are begun after so long.
    pub budget: Option<Duration>,
}

impl How {
    /// As the plan asks for it. A quarter of the period is left for what comes in between.
    #[must_use]
    pub fn planned(verify: Verify) -> Self {
        Self { older_than: verify.within * 3 / 4, budget: verify.budget }
    }
}

/// Reads a repository back, the longest unseen first. What is found is in the ledger before it is
/// returned. What is archived is read only if the run allows to bring it back; else it is counted,
/// and stays due.
///
/// # Errors
/// Fails when somebody else reads it, when it cannot be opened, or the ledger cannot be written.
pub fn verify(
    workspace: &Workspace,
    repository: &str,
    how: How,
    run: &Run,
) -> Result<VerifyEnded, OperationError> {
    let Some(_lock) = workspace.state.lock(&format!("verify {repository}"))? else {
        let blocker = muster_control::choice::Blocker {
            code: "verify-under-way",
            message: format!("{repository} is being read back by another process"),
            help: "wait for it to end".to_owned(),
        };
        let what = format!("read {repository} back");
        return Err(OperationError::Refused { what, blockers: vec![blocker] });
    };
    let before = last(&workspace.state, repository)?;
    let began = (Timestamp::now(), Instant::now());
    match read(workspace, repository, how, began.0, run) {
        Ok(Read { report, had_record }) => {
            let waited = waited(workspace, repository, before.as_ref(), had_record)?;
            let ended = sum_up(repository, &report, before.as_ref(), (began, waited));
            workspace.state.record(&Record::VerifyEnded(ended.clone()))?;
            Ok(ended)
        }
        Err(error) => {
            // What is known of damage stays known.
            let known = before.map(|(_, before)| before).unwrap_or_default();
            let ended = VerifyEnded {
                repository: repository.to_owned(),
                packs_read: 0,
                bytes_read: 0,
                took_s: began.1.elapsed().as_secs_f64(),
                error: Some(error.one_line()),
                ..known
            };
            workspace.state.record(&Record::VerifyEnded(ended))?;
            Err(error)
        }
    }
}

struct Read {
    report: CheckReport,
    /// Whether it was known what was read before.
    had_record: bool,
}

fn read(
    workspace: &Workspace,
    name: &str,
    how: How,
    now: Timestamp,
    run: &Run,
) -> Result<Read, OperationError> {
    let repository = stores::open_allowing(workspace, name, run)?;
    let environment = &workspace.state.environment;
    let lock = Lock::acquire(&repository, LockKind::Shared, LOCK_PATIENCE, environment, run)
        .map_err(OperationError::below)?;
    let file = workspace.state.private_folder("verified")?.join(name);
    let had_record = file.exists();
    // One that cannot be read tells nothing, so everything is due.
    let verified = Verified::read(&file).unwrap_or_default();
    let rota =
        Rota { verified, older_than: how.older_than, budget: how.budget, now: now.as_second() };
    let options = CheckOptions { read_data: ReadData::All };
    let report = check_in_turn(&repository, &options, Some(&rota), run);
    let report = report.map_err(OperationError::below)?;
    lock.release().map_err(OperationError::below)?;
    let packs = report.in_turn.iter().flat_map(|turn| turn.packs.iter().copied());
    let there: HashSet<PackId> = packs.chain(report.broken_packs()).collect();
    Verified::of(&report, &rota.verified, rota.now)
        .write(&file, |pack| there.contains(pack))
        .map_err(OperationError::io("note what was verified in", &file))?;
    Ok(Read { report, had_record })
}

/// The newest reading of a repository, and when it ended.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub fn last(
    state: &State,
    repository: &str,
) -> Result<Option<(Timestamp, VerifyEnded)>, OperationError> {
    let history = state.history(&["verify-ended"])?;
    Ok(history.into_iter().rev().find_map(|logged| match logged.record {
        Record::VerifyEnded(ended) if ended.repository == repository => Some((logged.at, ended)),
        _ => None,
    }))
}

/// Since when what was never read may have waited: since the reading before, which left nothing
/// unread; since longer when it did, or when the record of it is lost.
fn waited(
    workspace: &Workspace,
    repository: &str,
    before: Option<&(Timestamp, VerifyEnded)>,
    had_record: bool,
) -> Result<Timestamp, OperationError> {
    let known = match before {
        Some((at, before)) if had_record => before.never_since.or(Some(*at)),
        Some((_, before)) => before.waiting_since(),
        None => None,
    };
    match known {
        Some(known) => Ok(known),
        None => Ok(first_write(&workspace.state, repository)?.unwrap_or_else(Timestamp::now)),
    }
}

/// When a repository was first written by this plan.
fn first_write(state: &State, repository: &str) -> Result<Option<Timestamp>, OperationError> {
    let history = state.history(&["backup-ended", "copy-ended"])?;
    let first = history.into_iter().find(|logged| match &logged.record {
        Record::BackupEnded(ended) => ended.repository == repository && ended.snapshot.is_some(),
        Record::CopyEnded(ended) => ended.to == repository && ended.snapshot.is_some(),
        _ => false,
    });
    Ok(first.map(|logged| logged.at))
}

fn sum_up(
    repository: &str,
    report: &CheckReport,
    before: Option<&(Timestamp, VerifyEnded)>,
    ((_, begun), waited): ((Timestamp, Instant), Timestamp),
) -> VerifyEnded {
    let none = InTurn::default();
    let turn = report.in_turn.as_ref().unwrap_or(&none);
    let (broken, affected) = known_damage(report, turn, before.map(|(_, before)| before));
    let counts = &report.counts;
    VerifyEnded {
        repository: repository.to_owned(),
        packs_read: counts.packs_read,
        bytes_read: counts.bytes_read,
        packs_due: counts.packs_due,
        bytes_due: counts.bytes_due,
        packs_archived: counts.packs_archived,
        bytes_archived: counts.bytes_archived,
        trees_archived: counts.trees_archived,
        packs: turn.packs.len() as u64,
        bytes: turn.bytes,
        packs_never_read: turn.never_read,
        oldest: turn.oldest.and_then(|at| Timestamp::from_second(at).ok()),
        never_since: (turn.never_read > 0).then_some(waited),
        took_s: begun.elapsed().as_secs_f64(),
        damages: report.damages.iter().take(DAMAGES_TOLD).map(ToString::to_string).collect(),
        damages_total: report.damages.len() as u64,
        broken_packs: broken.into_iter().collect(),
        affected: affected.into_iter().collect(),
        error: None,
    }
}

/// Broken packs and affected snapshots: what was found now, and what was found before and not
/// looked at since.
fn known_damage(
    report: &CheckReport,
    turn: &InTurn,
    before: Option<&VerifyEnded>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut broken: BTreeSet<String> = report.broken_packs().map(|pack| pack.to_hex()).collect();
    let mut affected: BTreeSet<String> =
        report.affected_snapshots().iter().map(|id| id.to_hex()).collect();
    let Some(before) = before else { return (broken, affected) };
    let there: HashSet<String> = turn.packs.iter().map(PackId::to_hex).collect();
    let sound: HashSet<String> = report.sound_packs.iter().map(PackId::to_hex).collect();
    let unseen = |pack: &&String| there.contains(*pack) && !sound.contains(*pack);
    let unseen: Vec<String> = before.broken_packs.iter().filter(unseen).cloned().collect();
    if !unseen.is_empty() {
        broken.extend(unseen);
        affected.extend(before.affected.iter().cloned());
    }
    (broken, affected)
}

/// The state of reading back of one repository.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerificationState {
    /// The repository.
    pub repository: String,
    /// Everything is to be read at least this often.
    pub within_s: Option<f64>,
    /// When it was read back last.
    pub last: Option<Timestamp>,
    /// Since when something waits for its reading.
    pub waiting_since: Option<Timestamp>,
    /// It waits for longer than it may.
    pub overdue: bool,
    /// Packs that the last reading left out, since they are archived.
    pub packs_archived: u64,
    /// Their bytes.
    pub bytes_archived: u64,
    /// Snapshots that lose something, in hex.
    pub affected: Vec<String>,
    /// Damages that the last reading found.
    pub damages: Vec<String>,
}

/// The state of every repository that the plan asks to be read back, or that was.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub fn states(
    plan: &Plan,
    state: &State,
    now: Timestamp,
) -> Result<Vec<VerificationState>, OperationError> {
    let mut states = Vec::new();
    for repository in &plan.repositories {
        let wanted = plan.verify_of(&repository.name).map(|(verify, _)| verify.within);
        let last = last(state, &repository.name)?;
        if wanted.is_none() && last.is_none() {
            continue;
        }
        let waiting_since = match &last {
            Some((_, ended)) => ended.waiting_since(),
            None => first_write(state, &repository.name)?,
        };
        let waits = waiting_since.map(|since| now.duration_since(since));
        let within = wanted.and_then(|within| SignedDuration::try_from(within).ok());
        let (at, ended) = last.unzip();
        let ended = ended.unwrap_or_default();
        states.push(VerificationState {
            repository: repository.name.clone(),
            within_s: wanted.map(|within| within.as_secs_f64()),
            last: at,
            waiting_since,
            overdue: waits.zip(within).is_some_and(|(waits, within)| waits > within),
            packs_archived: ended.packs_archived,
            bytes_archived: ended.bytes_archived,
            affected: ended.affected,
            damages: ended.damages,
        });
    }
    Ok(states)
}

/// Damage, as findings.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub(crate) fn findings(
    workspace: &Workspace,
    now: Timestamp,
) -> Result<Vec<Finding>, OperationError> {
    let states = states(&workspace.plan, &workspace.state, now)?;
    let damaged = states.into_iter().filter(|state| !state.affected.is_empty());
    let finding = |state: VerificationState| {
        let path = format!("repositories.{}", state.repository);
        let position = workspace.positions.of(&path);
        let first = state.damages.first().map(|first| format!(": {first}")).unwrap_or_default();
        Finding {
            code: "copy-damaged".to_owned(),
            severity: Severity::Error,
            line: position.line,
            column: position.column,
            path,
            message: format!(
                "{} in {} {} something by damage{first}",
                counted(state.affected.len(), "snapshot"),
                state.repository,
                agree(state.affected.len(), "loses", "lose")
            ),
            help: Some("`muster repo check` and `muster repo repair` say what can be saved".into()),
        }
    };
    Ok(damaged.map(finding).collect())
}

/// What is known of all readings, for the judging of plans.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub(crate) fn facts(state: &State) -> Result<Vec<VerifyFact>, OperationError> {
    let mut facts: Vec<VerifyFact> = Vec::new();
    for logged in state.history(&["verify-ended"])? {
        let Record::VerifyEnded(ended) = logged.record else { continue };
        let known = facts.iter().position(|fact| fact.repository == ended.repository);
        let known = known.map(|position| facts.remove(position));
        #[expect(clippy::cast_precision_loss, reason = "a speed needs no more than 15 digits")]
        let speed = (ended.bytes_read > 0 && ended.took_s > 0.0)
            .then(|| ended.bytes_read as f64 / ended.took_s);
        facts.push(VerifyFact {
            waiting_since: ended.waiting_since(),
            bytes: ended.bytes,
            packs_archived: ended.packs_archived,
            bytes_per_s: speed.or(known.and_then(|known| known.bytes_per_s)),
            repository: ended.repository,
        });
    }
    Ok(facts)
}

/// Snapshots of which damage is known: repository and snapshot, in hex.
pub(crate) fn damaged(state: &State) -> Result<BTreeSet<(String, String)>, OperationError> {
    let mut newest = std::collections::BTreeMap::new();
    for logged in state.history(&["verify-ended"])? {
        if let Record::VerifyEnded(ended) = logged.record {
            newest.insert(ended.repository, ended.affected);
        }
    }
    let pairs = newest.into_iter().flat_map(|(repository, affected)| {
        affected.into_iter().map(move |snapshot| (repository.clone(), snapshot))
    });
    Ok(pairs.collect())
}

/// Whether a repository is to be read now: the pause since the last reading is over.
pub(crate) fn is_due(
    workspace: &Workspace,
    repository: &str,
    verify: Verify,
    now: Timestamp,
) -> Result<bool, OperationError> {
    let pause = SignedDuration::try_from(verify.pause()).unwrap_or(SignedDuration::MAX);
    match last(&workspace.state, repository)? {
        Some((at, ended)) if ended.error.is_some() => {
            Ok(now.duration_since(at) >= pause.min(RETRY))
        }
        Some((at, _)) => Ok(now.duration_since(at) >= pause),
        None => Ok(first_write(&workspace.state, repository)?.is_some()),
    }
}
