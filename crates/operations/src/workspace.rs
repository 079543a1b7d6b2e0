//! What every verb works with: the plan, the folder it stands in, and the state beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use muster_model::{Finding, Severity};
use muster_plan::{
    Facts, Plan,
    document::{DataItem, DataSource, Service},
};

use crate::{
    calendar,
    error::OperationError,
    facts,
    records::{PlanSeen, Record},
    state::State,
    sweep,
};

/// A plan that was read, with everything that was found in it.
#[derive(Debug)]
pub struct ReadPlan {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// What was understood, with where each thing stands, and what was found while reading.
    pub parsed: muster_plan::Parsed,
}

/// Reads a plan; findings are no failure.
///
/// # Errors
/// Fails when the file cannot be read.
pub fn read_plan(path: &Path) -> Result<ReadPlan, OperationError> {
    let unreadable = |source| OperationError::PlanUnreadable { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let parsed = muster_plan::parse(&text);
    Ok(ReadPlan { path: path.to_owned(), text, parsed })
}

/// All findings of a plan: of its text, and of what was measured, where there is a state.
///
/// # Errors
/// Fails when the state cannot be read.
pub fn findings(
    read: &ReadPlan,
    state: Option<&State>,
    now: Timestamp,
) -> Result<Vec<Finding>, OperationError> {
    let mut all = read.parsed.findings.clone();
    if let Some(plan) = &read.parsed.plan {
        let facts = facts(state)?;
        all.extend(muster_plan::assess(plan, &read.parsed.positions, &facts, now));
    }
    all.sort_by_key(|finding| (finding.line, finding.column));
    Ok(all)
}

/// What was measured; nothing, where there is no state.
///
/// # Errors
/// Fails when the state cannot be read.
pub fn facts(state: Option<&State>) -> Result<Facts, OperationError> {
    state.map_or_else(|| Ok(Facts::default()), facts::gather)
}

/// The plan and the state, ready to work.
pub struct Workspace {
    /// The plan's file.
    pub path: PathBuf,
    /// The folder that its paths are relative to; absolute.
    pub folder: PathBuf,
    /// The plan.
    pub plan: Plan,
    /// The state.
    pub state: State,
    /// What was put in order when it was opened, for the user to know.
    pub swept: Vec<String>,
}

impl Workspace {
    /// Reads the plan, opens the state, settles what killed processes left, and writes down
    /// what the calendar asks for and what expired.
    ///
    /// # Errors
    /// Fails when the plan cannot be used as it stands, or the state cannot be opened.
    pub fn open(plan: &Path, state: &Path) -> Result<Self, OperationError> {
        let read = read_plan(plan)?;
        let is_error = |finding: &Finding| finding.severity == Severity::Error;
        let plan = match &read.parsed.plan {
            Some(plan) if !read.parsed.findings.iter().any(is_error) => plan.clone(),
            _ => {
                let (path, findings) = (read.path, read.parsed.findings);
                return Err(OperationError::PlanInvalid { path, findings });
            }
        };
        Self::begin(read, plan, State::open(state)?)
    }

    /// As [`Workspace::open`], in a state that is open already, for tests that watch it.
    ///
    /// # Errors
    /// As [`Workspace::open`].
    #[cfg(feature = "testing")]
    pub fn open_in(plan: &Path, state: State) -> Result<Self, OperationError> {
        let read = read_plan(plan)?;
        let plan = read.parsed.plan.clone().ok_or_else(|| OperationError::PlanInvalid {
            path: plan.to_owned(),
            findings: read.parsed.findings.clone(),
        })?;
        Self::begin(read, plan, state)
    }

    fn begin(read: ReadPlan, plan: Plan, state: State) -> Result<Self, OperationError> {
        let folder = folder_of(&read.path)?;
        let swept = sweep::sweep(&state)?;
        note_revision(&state, &read, &plan)?;
        calendar::note(&state, &plan, Timestamp::now())?;
        Ok(Self { path: read.path, folder, plan, state, swept })
    }

    /// A service of the plan.
    ///
    /// # Errors
    /// Fails when there is none of this name.
    pub fn service(&self, name: &str) -> Result<&Service, OperationError> {
        self.plan.service(name).ok_or_else(|| {
            let all: Vec<&str> = self.plan.services.iter().map(|s| s.name.as_str()).collect();
            OperationError::NotFound {
                what: format!("a service named '{name}'"),
                help: format!("the plan has: {}", all.join(", ")),
            }
        })
    }

    /// A path of the plan: absolute, without `.` in it, so that it can be found in texts.
    #[must_use]
    pub fn path_of(&self, text: &str) -> PathBuf {
        self.folder.join(text).components().collect()
    }

    /// Folders and files of production that a data item lives in, as far as the plan says.
    #[must_use]
    pub fn production_paths(&self, item: &DataItem) -> Vec<PathBuf> {
        match &item.source {
            DataSource::Files { paths, .. } => paths.iter().map(|p| self.path_of(p)).collect(),
            DataSource::Sqlite { path } => vec![self.path_of(path)],
            DataSource::Postgres { .. } | DataSource::Command { .. } => Vec::new(),
        }
    }
}

/// The folder of the plan's file, absolute.
fn folder_of(path: &Path) -> Result<PathBuf, OperationError> {
    let absolute = std::path::absolute(path).map_err(OperationError::io("find", path))?;
    Ok(absolute.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Writes a new revision down, with what is wrong or weak in it.
fn note_revision(state: &State, read: &ReadPlan, plan: &Plan) -> Result<(), OperationError> {
    let seen = state.history(&["plan-seen"])?.into_iter().next_back();
    let is_new = !matches!(seen.map(|logged| logged.record),
        Some(Record::PlanSeen(seen)) if seen.revision == plan.revision);
    if is_new {
        state.record(&Record::PlanSeen(PlanSeen {
            name: plan.name.clone(),
            revision: plan.revision.clone(),
            findings: findings(read, Some(state), Timestamp::now())?,
        }))?;
    }
    Ok(())
}
