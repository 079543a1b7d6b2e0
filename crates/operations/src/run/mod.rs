//! The runbook, run: the same code for a drill, for its negative controls, and for real.
//!
//! What differs is the [`World`]: which folder, whether data comes from a recovery point or is
//! empty on purpose, whether processes outlive this one. Each step is journalled before it acts
//! and after ([`muster_control::journal`]), so that a run which is cut off goes on where it was.

mod acceptance;
mod supply;
mod world;

use std::{
    cell::RefCell,
    io,
    time::{Duration, Instant},
};

use muster_control::journal::{self, Event, Next, Outcome};
use muster_drivers::{
    isolation::Monitor,
    probe::Prober,
    process::{
        Child, ChildIdentity, Launch, RunEnd, end_recorded, foreign_variables, launch, lives,
        seen_by, tail,
    },
};
use muster_model::Step;
use muster_plan::template::render_step;
use muster_repository::run::Run;

pub(crate) use acceptance::{Acceptance, Accepted};
pub(crate) use supply::{Supplied, Supply};
pub(crate) use world::{Place, World, is_empty, needs_passage};

use crate::{
    error::OperationError,
    moment::Moment,
    pause::interrupted,
    postgres,
    records::{ChildEnded, ChildStarted, JournalLine, Record},
    recover::CutOff,
    story::{Chapter, Listener, Silence},
    sweep::GRACE,
};

/// Lines of a child's output that a message quotes.
const LINES_QUOTED: usize = 5;

/// Between two looks whether somebody wants the run to stop.
const LOOK: Duration = Duration::from_millis(50);

/// How the steps went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    /// Every step is done.
    Finished,
    /// A step was not done.
    Failed {
        /// What the step does.
        summary: String,
        /// Why it was not done.
        why: String,
    },
}

/// A stretch of time that a step took.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stretch {
    /// The step's verb, or `replay` for a server that recovers.
    pub(crate) what: &'static str,
    /// When it began, since the run's clock.
    pub(crate) began: Duration,
    /// When it ended, since the run's clock.
    pub(crate) ended: Duration,
}

/// A process of the run.
pub(crate) struct Member {
    /// What it is: `start`, or the data item whose server it is.
    pub(crate) role: String,
    /// The step that started it.
    pub(crate) step: usize,
    kind: MemberKind,
}

enum MemberKind {
    /// Our child.
    Ours(Box<Child>),
    /// A child of a process that was killed; it goes on.
    Adopted(ChildIdentity),
}

/// Returns when somebody wants the run to stop.
pub(crate) async fn until_cancelled(run: &Run) {
    while !run.cancel.is_requested() {
        tokio::time::sleep(LOOK).await;
    }
}

fn stopped(run: &Run) -> OperationError {
    let why = interrupted(run).err();
    why.unwrap_or_else(|| OperationError::Interrupted { why: "it was asked to stop".to_owned() })
}

impl Member {
    fn identity(&self) -> &ChildIdentity {
        match &self.kind {
            MemberKind::Ours(child) => child.identity(),
            MemberKind::Adopted(identity) => identity,
        }
    }
}

/// Runs a runbook in a world.
pub(crate) struct Runner<'w> {
    /// Where it runs.
    pub(crate) world: World<'w>,
    /// The steps of the service's runbook, with templates.
    steps: &'w [Step],
    events: Vec<Event>,
    /// The processes that run.
    pub(crate) members: Vec<Member>,
    /// What took how long.
    pub(crate) stretches: Vec<Stretch>,
    /// What was restored.
    pub(crate) supplied: Vec<Supplied>,
    /// The probes, from the moment at which all data is back.
    pub(crate) acceptance: Option<Acceptance>,
    /// Until when the service may come back, since the run's clock.
    pub(crate) deadline: Duration,
    /// What the processes were started with.
    pub(crate) surroundings: RefCell<Surroundings>,
    companions: Companions<'w>,
    run: Run,
}

/// The environment of the run's processes, as the system shows it.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Processes that were looked at.
    pub(crate) processes: u64,
    /// Variables that leaked, and looks that failed: `start: MUSTER_PASSWORD`.
    pub(crate) leaks: Vec<String>,
}

impl Surroundings {
    fn note(&mut self, role: &str, foreign: io::Result<Vec<String>>) {
        self.processes += 1;
        match foreign {
            Ok(names) => self.leaks.extend(names.into_iter().map(|name| format!("{role}: {name}"))),
            Err(error) => self.leaks.push(format!("{role}: not known: {error}")),
        }
    }
}

/// Who follows a run: a prober, the monitor of isolation, a listener.
#[derive(Clone, Copy)]
pub(crate) struct Companions<'w> {
    /// Asks the probes; the run's acceptance is left to the caller when there is none.
    pub(crate) prober: Option<&'w Prober>,
    /// Looks at what the run's processes have open.
    pub(crate) monitor: Option<&'w Monitor>,
    /// Hears the story.
    pub(crate) listener: &'w dyn Listener,
}

impl Companions<'_> {
    /// Nobody.
    pub(crate) const NONE: Companions<'static> =
        Companions { prober: None, monitor: None, listener: &Silence };
}

impl<'w> Runner<'w> {
    /// A run that begins anew.
    pub(crate) fn new(world: World<'w>, run: Run, companions: Companions<'w>) -> Self {
        let steps = &world.service.recover;
        let deadline = world.service.acceptance.within;
        Self {
            world,
            steps,
            deadline,
            events: Vec::new(),
            members: Vec::new(),
            stretches: Vec::new(),
            supplied: Vec::new(),
            acceptance: None,
            surroundings: RefCell::default(),
            companions,
            run,
        }
    }

    /// A run that goes on from its journal. Looks at every step whose outcome is not known,
    /// and at the processes of those that were done.
    pub(crate) async fn resume(
        world: World<'w>,
        run: Run,
        companions: Companions<'w>,
        journal: Vec<(Event, Duration)>,
        children: &[ChildStarted],
        cut_off: CutOff,
    ) -> Result<Self, OperationError> {
        let mut runner = Self::new(world, run, companions);
        runner.stretches = stretches_of(runner.steps, &journal);
        runner.events = journal.into_iter().map(|(event, _)| event).collect();
        for child in children {
            if lives(&child.child) {
                runner.members.push(Member {
                    role: child.role.clone(),
                    step: child.step,
                    kind: MemberKind::Adopted(child.child.clone()),
                });
            } else {
                runner.end_remains(&child.child).await?;
            }
        }
        runner.settle(cut_off).await?;
        runner.log(Event::Resumed)?;
        runner.name_what_is_there()?;
        Ok(runner)
    }

    /// A child that is gone may have left others behind. Its step will be done again, and what
    /// is left of the first time must not be in the way of the second.
    async fn end_remains(&self, child: &ChildIdentity) -> Result<(), OperationError> {
        let ended = end_recorded(child, GRACE).await;
        let ended = ended.map_err(OperationError::io("end the process", child.pid.to_string()))?;
        self.note_end(child, &format!("{ended:?}"))
    }

    /// Tells templates of the data that earlier steps brought back.
    fn name_what_is_there(&mut self) -> Result<(), OperationError> {
        for (index, step) in self.steps.iter().enumerate() {
            if let Step::Restore { data } = step
                && self.is_done(index)
            {
                for name in data {
                    supply::name(&mut self.world, name)?;
                    if self.world.has_server(name) {
                        let url = postgres::adopted(&self.world, self.world.item(name)?)?;
                        self.world.names.data.entry(name.clone()).or_default().url = Some(url);
                    }
                }
            }
        }
        Ok(())
    }

    fn is_done(&self, step: usize) -> bool {
        match journal::next(step + 1, &self.events) {
            Next::Begin(open) | Next::Observe(open) | Next::Failed { step: open, .. } => {
                open > step
            }
            Next::Finished => true,
        }
    }

    /// Performs the steps that are left.
    ///
    /// # Errors
    /// Fails when the ledger cannot be written, or the run is cancelled; what becomes of the
    /// steps is in the answer.
    pub(crate) async fn perform(&mut self) -> Result<Ended, OperationError> {
        loop {
            match journal::next(self.steps.len(), &self.events) {
                Next::Begin(step) => self.step(step).await?,
                Next::Observe(step) => {
                    let outcome = self.observe(step).await?;
                    if let Outcome::Unknown { why } = &outcome {
                        let (summary, why) = (self.steps[step].summary(), why.clone());
                        return Ok(Ended::Failed { summary, why });
                    }
                    self.log(Event::Ended { step, outcome })?;
                }
                Next::Failed { step, why } => {
                    return Ok(Ended::Failed { summary: self.steps[step].summary(), why });
                }
                Next::Finished => return Ok(Ended::Finished),
            }
        }
    }

    async fn step(&mut self, step: usize) -> Result<(), OperationError> {
        self.begin_to_ask(step)?;
        self.log(Event::Started { step })?;
        let began = self.world.clock.elapsed();
        let (what, summary) = (self.steps[step].verb(), self.steps[step].summary());
        self.tell(&Chapter::StepStarted { summary: &summary, at: began });
        let done = self.act(step).await;
        let ended = self.world.clock.elapsed();
        self.stretches.push(Stretch { what, began, ended });
        let outcome = match done {
            Ok(outcome) => outcome,
            Err(error @ OperationError::Interrupted { .. }) => return Err(error),
            Err(error) => {
                // Whatever failed in a run that was stopped, failed because of that.
                interrupted(&self.run)?;
                Outcome::NotDone { why: error.one_line() }
            }
        };
        let failure = match &outcome {
            Outcome::Done => None,
            Outcome::NotDone { why } | Outcome::Unknown { why } => Some(why.as_str()),
        };
        self.tell(&Chapter::StepEnded { summary: &summary, took: ended - began, failure });
        self.log(Event::Ended { step, outcome })
    }

    fn tell(&self, chapter: &Chapter<'_>) {
        self.companions.listener.hear(chapter);
    }

    /// The probes ask from the first step on that follows the last restore: before, there is
    /// nothing that they could be green about.
    fn begin_to_ask(&mut self, step: usize) -> Result<(), OperationError> {
        let rest = self.steps.get(step..).unwrap_or_default();
        let is_restored = !rest.iter().any(|step| matches!(step, Step::Restore { .. }));
        if let Some(prober) = self.companions.prober
            && is_restored
            && self.acceptance.is_none()
        {
            self.acceptance = Some(Acceptance::start(&self.world, prober)?);
        }
        Ok(())
    }

    /// The probes, which ask by now; `None` without a prober.
    ///
    /// # Errors
    /// Fails when a probe's template cannot be rendered.
    pub(crate) fn take_acceptance(&mut self) -> Result<Option<Acceptance>, OperationError> {
        self.begin_to_ask(self.steps.len())?;
        Ok(self.acceptance.take())
    }

    async fn act(&mut self, step: usize) -> Result<Outcome, OperationError> {
        match &self.steps[step] {
            Step::Restore { data } => self.restore(step, data).await,
            Step::Start { .. } => self.start(step).await,
            Step::Run { .. } => self.run_to_end(step).await,
        }
    }

    async fn restore(&mut self, step: usize, data: &[String]) -> Result<Outcome, OperationError> {
        for name in data {
            let mut skipped = Vec::new();
            let supplied = supply::supply(&mut self.world, name, &self.run, &mut skipped);
            for unread in skipped {
                self.tell(&Chapter::CopySkipped { what: &unread.to_string() });
                self.world.workspace.state.record(&Record::CopyUnread(unread))?;
            }
            let supplied = supplied?;
            if let Some(used) = &supplied.used {
                let (data_time, repository) = (used.data_time, &*used.repository);
                self.tell(&Chapter::Chosen { data: name, data_time, repository });
            }
            if let Some(server) = self.world.server_of(name)? {
                let began = self.world.clock.elapsed();
                let launched = self.launch(step, name, &server.launch).await?;
                self.members.push(launched);
                server.wait_until_ready(&self.world, &self.run)?;
                self.world.names.data.entry(name.clone()).or_default().url = Some(server.url);
                self.damage(name)?;
                let ended = self.world.clock.elapsed();
                self.stretches.push(Stretch { what: "replay", began, ended });
            }
            self.supplied.push(supplied);
        }
        Ok(Outcome::Done)
    }

    /// Damages what a control wants to see damaged, before anything asks for it.
    fn damage(&self, name: &str) -> Result<(), OperationError> {
        match &self.world.damage {
            Some(wanted) if wanted == name => postgres::damage(&self.world, self.world.item(name)?),
            _ => Ok(()),
        }
    }

    async fn start(&mut self, step: usize) -> Result<Outcome, OperationError> {
        let launch = self.rendered(step)?;
        let member = self.launch(step, "start", &launch).await?;
        self.members.push(member);
        Ok(Outcome::Done)
    }

    async fn run_to_end(&mut self, step: usize) -> Result<Outcome, OperationError> {
        let rendered = self.rendered(step)?;
        let Step::Run { timeout, .. } = &self.steps[step] else { return Ok(Outcome::Done) };
        let mut member = self.launch(step, "run", &rendered).await?;
        let MemberKind::Ours(child) = &mut member.kind else { return Ok(Outcome::Done) };
        let ended = tokio::select! {
            ended = child.run_to_end(*timeout) => Some(ended),
            () = until_cancelled(&self.run) => None,
        };
        let identity = child.identity().clone();
        let rest = child.end(GRACE).await.map_err(OperationError::io("end", &rendered.argv[0]))?;
        self.note_end(&identity, &format!("{:?}", rest.how))?;
        // Whoever is stopped here leaves no end in the journal: what the step did is not known.
        let Some(ended) = ended else { return Err(stopped(&self.run)) };
        let ended = ended.map_err(OperationError::io("wait for", &rendered.argv[0]))?;
        let why = match ended {
            RunEnd::Exited(status) if status.success() => return Ok(Outcome::Done),
            RunEnd::Exited(status) => status.to_string(),
            RunEnd::TimedOut(_) => {
                format!("not done after {}", muster_model::units::format_duration(*timeout))
            }
        };
        let said = tail(&rendered.log, LINES_QUOTED).join(" | ");
        Ok(Outcome::NotDone { why: format!("{why}: {said}") })
    }

    /// The program of a step, with its templates filled in.
    fn rendered(&self, step: usize) -> Result<Launch, OperationError> {
        let rendered = render_step(&self.steps[step], &self.world.names);
        match rendered.map_err(OperationError::below)? {
            Step::Start { argv, env, user, dir } | Step::Run { argv, env, user, dir, .. } => {
                let dir =
                    dir.map_or_else(|| self.world.dir.clone(), |dir| self.world.dir.join(dir));
                let (log, hidden) = (self.world.log(&step.to_string()), self.world.hidden.clone());
                Ok(Launch { argv, env, user, dir, log, hidden })
            }
            Step::Restore { .. } => {
                Err(OperationError::Bug { what: "a restore has no program".into() })
            }
        }
    }

    /// Starts a process; it is in the ledger before it runs.
    async fn launch(
        &self,
        step: usize,
        role: &str,
        what: &Launch,
    ) -> Result<Member, OperationError> {
        let record = |identity: &ChildIdentity| {
            self.surroundings.borrow_mut().note(role, foreign_variables(identity, &what.env));
            if let Some(monitor) = self.companions.monitor {
                monitor.watch(identity);
            }
            let started = ChildStarted {
                run: self.world.run_id.clone(),
                part: self.world.part.clone(),
                step,
                role: role.to_owned(),
                child: identity.clone(),
            };
            self.world.workspace.state.record(&Record::ChildStarted(started)).map(drop)
        };
        let child = launch(what, record).await.map_err(OperationError::below)?;
        Ok(Member { role: role.to_owned(), step, kind: MemberKind::Ours(Box::new(child)) })
    }

    /// Looks at every step whose outcome is not known.
    async fn settle(&mut self, cut_off: CutOff) -> Result<(), OperationError> {
        for step in 0..self.steps.len() {
            if self.is_done(step) && self.has_lost_a_process(step) {
                let why = "its process is gone".to_owned();
                self.log(Event::Ended { step, outcome: Outcome::NotDone { why } })?;
            }
        }
        while let Next::Observe(step) = journal::next(self.steps.len(), &self.events) {
            let outcome = match (self.observe(step).await?, cut_off) {
                (Outcome::Unknown { .. }, CutOff::Unknown) => return Ok(()),
                (Outcome::Unknown { .. }, CutOff::Done) => Outcome::Done,
                (Outcome::Unknown { why }, CutOff::Again) => Outcome::NotDone { why },
                (outcome, _) => outcome,
            };
            self.log(Event::Ended { step, outcome })?;
        }
        Ok(())
    }

    fn has_lost_a_process(&self, step: usize) -> bool {
        let runs = |role: &str| self.members.iter().any(|m| m.step == step && m.role == role);
        match &self.steps[step] {
            Step::Start { .. } => !runs("start"),
            Step::Restore { data } => {
                data.iter().any(|data| self.world.has_server(data) && !runs(data))
            }
            Step::Run { .. } => false,
        }
    }

    /// Looks whether the effect of a step is there. A restore that was cut off is undone, so
    /// that it can be begun again; whether a program ran to its end cannot be seen.
    async fn observe(&mut self, step: usize) -> Result<Outcome, OperationError> {
        match &self.steps[step] {
            Step::Start { .. } if self.members.iter().any(|member| member.step == step) => {
                Ok(Outcome::Done)
            }
            Step::Start { .. } => Ok(Outcome::NotDone { why: "its process is gone".to_owned() }),
            Step::Restore { data } => {
                self.end_members(|member| member.step == step).await?;
                for name in data {
                    self.world.remove_data(name)?;
                }
                Ok(Outcome::NotDone { why: "the restore was cut off".to_owned() })
            }
            Step::Run { .. } => {
                let why =
                    "it was cut off and may have done its work: look, and say --cut-off done or \
                           --cut-off again"
                        .to_owned();
                Ok(Outcome::Unknown { why })
            }
        }
    }

    /// Ends the processes that `which` picks, in the reverse of the order in which they were
    /// started. Tells those that are left.
    pub(crate) async fn end_members(
        &mut self,
        which: impl Fn(&Member) -> bool,
    ) -> Result<Vec<u32>, OperationError> {
        let mut left = Vec::new();
        for index in (0..self.members.len()).rev() {
            if !which(&self.members[index]) {
                continue;
            }
            let member = self.members.remove(index);
            let identity = member.identity().clone();
            let (how, remaining) = end_member(member).await?;
            left.extend(remaining);
            self.note_end(&identity, &how)?;
        }
        Ok(left)
    }

    fn note_end(&self, identity: &ChildIdentity, how: &str) -> Result<(), OperationError> {
        let ended = ChildEnded {
            run: self.world.run_id.clone(),
            pid: identity.pid,
            mark: identity.mark.clone(),
            how: how.to_owned(),
        };
        self.world.workspace.state.record(&Record::ChildEnded(ended)).map(drop)
    }

    /// A `start`ed process that has ended by itself, if any, with its last words.
    pub(crate) fn fallen(&mut self) -> Option<String> {
        for member in &mut self.members {
            let child = match &mut member.kind {
                MemberKind::Ours(child) => child,
                MemberKind::Adopted(identity) if lives(identity) => continue,
                MemberKind::Adopted(_) => return Some(format!("{} is gone", member.role)),
            };
            // One that ends well has put itself into the background.
            if let Ok(Some(status)) = child.try_wait()
                && !status.success()
            {
                let said = tail(&self.world.log(&member.log_name()), LINES_QUOTED).join(" | ");
                return Some(format!("{} ended with {status}: {said}", member.role));
            }
        }
        None
    }

    /// How many processes run, and what of the hidden paths each sees all the same, or why it could
    /// not be asked: `start: /srv/orders/db`.
    pub(crate) fn sights(&self) -> (usize, Vec<String>) {
        let (mut asked, mut sights) = (0, Vec::new());
        for member in &self.members {
            let seen = match seen_by(member.identity(), &self.world.hidden) {
                Ok(seen) => seen.iter().map(|path| path.display().to_string()).collect(),
                // Who has ended sees nothing any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => vec![format!("not known: {error}")],
            };
            asked += 1;
            sights.extend(seen.into_iter().map(|what| format!("{}: {what}", member.role)));
        }
        (asked, sights)
    }

    /// The processes that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.identity().pid).collect()
    }

    /// Lets all processes go on without us.
    pub(crate) fn detach(&mut self) {
        for member in self.members.drain(..) {
            if let MemberKind::Ours(child) = member.kind {
                drop(child.detach());
            }
        }
    }

    fn log(&mut self, event: Event) -> Result<(), OperationError> {
        let summary = match &event {
            Event::Resumed => "goes on".to_owned(),
            Event::Started { step } | Event::Ended { step, .. } => self.steps[*step].summary(),
        };
        self.world.workspace.state.record(&Record::Journal(JournalLine {
            run: self.world.run_id.clone(),
            part: self.world.part.clone(),
            event: event.clone(),
            summary,
            at: Moment::now(),
        }))?;
        self.events.push(event);
        Ok(())
    }
}

impl Member {
    /// It is what a step `start`ed, and no data item's server.
    pub(crate) fn is_started(&self) -> bool {
        self.role == "start"
    }

    /// The name of its log.
    fn log_name(&self) -> String {
        if self.is_started() { self.step.to_string() } else { self.role.clone() }
    }
}

async fn end_member(member: Member) -> Result<(String, Vec<u32>), OperationError> {
    use muster_drivers::process::Outcome;
    let failed = |pid: u32| OperationError::io("end the process", pid.to_string());
    match member.kind {
        MemberKind::Ours(mut child) => {
            let pid = child.identity().pid;
            let ended = child.end(GRACE).await.map_err(failed(pid))?;
            Ok((format!("{:?}", ended.how), ended.left))
        }
        MemberKind::Adopted(identity) => {
            let outcome = end_recorded(&identity, GRACE).await.map_err(failed(identity.pid))?;
            let left = match &outcome {
                Outcome::Remains(left) => left.clone(),
                _ => Vec::new(),
            };
            Ok((format!("{outcome:?}"), left))
        }
    }
}

/// What the journal says of how long steps took: for a run that goes on.
fn stretches_of(steps: &[Step], journal: &[(Event, Duration)]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut open: Option<(usize, Duration)> = None;
    for (event, at) in journal {
        match event {
            Event::Started { step } => open = Some((*step, *at)),
            Event::Ended { step, .. } => {
                if let Some((started, began)) = open.take()
                    && started == *step
                    && let Some(what) = steps.get(started)
                {
                    stretches.push(Stretch { what: what.verb(), began, ended: *at });
                }
            }
            Event::Resumed => {}
        }
    }
    stretches
}

/// A clock that starts at the run's T0 and that no step of the wall clock moves.
#[derive(Debug, Clone)]
pub(crate) struct RunClock {
    /// T0 by the machine's clock.
    pub(crate) origin: Instant,
    /// T0 for records.
    pub(crate) moment: Moment,
}

impl RunClock {
    /// T0 is now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now(), moment: Moment::now() }
    }

    /// A clock that began at `moment`, in this process or another.
    pub(crate) fn at(moment: Moment) -> Self {
        let since = moment.seconds_until(&Moment::now()).max(0.0);
        let since = Duration::try_from_secs_f64(since).unwrap_or_default();
        let now = Instant::now();
        Self { origin: now.checked_sub(since).unwrap_or(now), moment }
    }

    /// Time since T0.
    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}
