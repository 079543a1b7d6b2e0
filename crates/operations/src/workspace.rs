//! What every verb works with: the plan, the folder it stands in, and the state beside it.

use std::{
    fmt, fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use muster_model::{Fault as _, Finding, Severity};
use muster_plan::{
    Facts, Plan, Positions,
    document::{DataItem, DataSource, Service},
};

use muster_repository::{environment::Environment, run::Cancel};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::{
    calendar,
    error::OperationError,
    facts,
    points::{self, Points},
    records::{PlanSeen, Record},
    state::State,
    sweep,
    verify::{self, VerificationState},
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

/// The plan and where it stands: with the repositories, all that it takes to bring data back.
pub struct Planned {
    /// The plan's file.
    pub path: PathBuf,
    /// The folder that its paths are relative to; absolute.
    pub folder: PathBuf,
    /// The plan.
    pub plan: Plan,
    /// Where in its text each thing stands.
    pub positions: Positions,
    /// Who runs this, where.
    pub environment: Environment,
    /// Ends waits for stores, beside what the run of an operation ends.
    pub stop: Cancel,
}

/// The plan and the state, ready to work.
pub struct Workspace {
    planned: Planned,
    /// The state.
    pub state: State,
    /// What was put in order when it was opened, for the user to know.
    pub swept: Vec<String>,
}

impl Deref for Workspace {
    type Target = Planned;

    fn deref(&self) -> &Planned {
        &self.planned
    }
}

impl Workspace {
    /// Reads the plan, opens the state, settles what killed processes left, and writes down
    /// what the calendar asks for and what expired.
    ///
    /// # Errors
    /// Fails when the plan cannot be used as it stands, or the state cannot be opened.
    pub fn open(plan: &Path, state: &Path) -> Result<Self, OperationError> {
        let (planned, read) = Planned::read(plan)?;
        let (state, swept) = settle(&planned, &read, State::open(state)?)?;
        Ok(Self { planned, state, swept })
    }

    /// As [`Workspace::open`], in a state that is open already, for tests that watch it.
    ///
    /// # Errors
    /// As [`Workspace::open`].
    #[cfg(feature = "testing")]
    pub fn open_in(plan: &Path, state: State) -> Result<Self, OperationError> {
        let (planned, read) = Planned::read(plan)?;
        let (state, swept) = settle(&planned, &read, state)?;
        Ok(Self { planned, state, swept })
    }
}

/// Settles what killed processes left in a state, and writes down what is new.
fn settle(
    planned: &Planned,
    read: &ReadPlan,
    state: State,
) -> Result<(State, Vec<String>), OperationError> {
    let swept = sweep::sweep(&state)?;
    note_revision(&state, read, &planned.plan)?;
    calendar::note(&state, &planned.plan, Timestamp::now())?;
    Ok((state, swept))
}

/// The plan, and the state as far as it can be had: for verbs that must work on the day on which
/// the state is lost.
pub struct Reader {
    /// The plan.
    pub planned: Planned,
    /// The state; read-only when it cannot be written, `None` when it cannot be read either.
    pub state: Option<State>,
    /// What was put in order when it was opened, for the user to know.
    pub swept: Vec<String>,
    /// What is wrong with the state.
    pub trouble: Option<StateTrouble>,
}

/// A state that cannot be used as it should.
#[derive(Debug)]
pub struct StateTrouble {
    /// The folder.
    pub dir: PathBuf,
    /// Why.
    pub error: OperationError,
    /// It was read all the same; only nothing can be written into it.
    pub is_read: bool,
}

impl fmt::Display for StateTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dir, why) = (self.dir.display(), self.error.one_line());
        match self.is_read {
            true => write!(f, "the state {dir} cannot be written, nothing is recorded: {why}"),
            false => write!(
                f,
                "the state {dir} cannot be used: {why}; this is what the repositories alone say, and \
                 not what proved it"
            ),
        }
    }
}

impl Serialize for StateTrouble {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("StateTrouble", 5)?;
        object.serialize_field("state", &self.dir.display().to_string())?;
        object.serialize_field("code", self.error.code())?;
        object.serialize_field("class", self.error.class().as_str())?;
        object.serialize_field("message", &self.to_string())?;
        object.serialize_field("proofs_known", &self.is_read)?;
        object.end()
    }
}

impl Reader {
    /// Does what [`Workspace::open`] does, and goes on without the state where that fails.
    ///
    /// # Errors
    /// Fails when the plan cannot be used as it stands.
    pub fn open(plan: &Path, state: &Path) -> Result<Self, OperationError> {
        let (planned, read) = Planned::read(plan)?;
        match State::open(state).and_then(|state| settle(&planned, &read, state)) {
            Ok((state, swept)) => Ok(Self { planned, state: Some(state), swept, trouble: None }),
            Err(error) => {
                let dir = state.to_owned();
                let state = State::open_read_only(state).ok().flatten();
                let trouble = StateTrouble { dir, error, is_read: state.is_some() };
                Ok(Self { planned, state, swept: Vec::new(), trouble: Some(trouble) })
            }
        }
    }

    /// Lists the points of all services, or of one, with what the state knows of them. A state
    /// that turns out to be unreadable becomes the reader's trouble, and the list is there.
    pub fn points(&mut self, service: Option<&str>) -> Points {
        let (listed, failed) = points::recall(&self.planned, self.state.as_ref(), service);
        if let Some(error) = failed {
            self.lose_state(error);
        }
        listed
    }

    /// What is known of reading back; `None` without a state. One that turns out to be unreadable
    /// becomes the reader's trouble.
    pub fn verification(&mut self, now: Timestamp) -> Option<Vec<VerificationState>> {
        let state = self.state.as_ref()?;
        verify::states(&self.planned.plan, state, now).map_err(|error| self.lose_state(error)).ok()
    }

    fn lose_state(&mut self, error: OperationError) {
        if let Some(state) = self.state.take() {
            self.trouble = Some(StateTrouble { dir: state.dir, error, is_read: false });
        }
    }
}

impl Planned {
    /// Reads a plan that is to be acted upon.
    fn read(plan: &Path) -> Result<(Self, ReadPlan), OperationError> {
        let read = read_plan(plan)?;
        let is_error = |finding: &Finding| finding.severity == Severity::Error;
        let plan = match &read.parsed.plan {
            Some(plan) if !read.parsed.findings.iter().any(is_error) => plan.clone(),
            _ => {
                let (path, findings) = (read.path, read.parsed.findings);
                return Err(OperationError::PlanInvalid { path, findings });
            }
        };
        let (path, folder) = (read.path.clone(), folder_of(&read.path)?);
        let (positions, environment) = (read.parsed.positions.clone(), Environment::detect());
        let stop = Cancel::default();
        Ok((Self { path, folder, plan, positions, environment, stop }, read))
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
