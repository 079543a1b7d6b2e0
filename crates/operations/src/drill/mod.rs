//! `muster drill run`: a service is recovered in isolation, by its own runbook, and everything
//! about it is measured.
//!
//! The order of things is the honesty of the result. Markers are written up to T0, the instant
//! at which the target is cut off; from then on a clock runs that no step of the wall clock
//! moves. The newest surviving recovery point is looked for *after* T0, since that is part of a
//! recovery. Completeness and negative controls come after T5 and cost no recovery time. What
//! was started is ended and what was made is removed on every way out, and that is proven.
//! The result is signed, appended to the log, and only then told.

mod ages;
pub(crate) mod completeness;
mod controls;
mod isolation;
mod phases;
mod proposal;
mod seal;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use muster_control::{
    choice::{Chosen, Wish, choose},
    verdict::{Case, judge},
};
use muster_drivers::{
    isolation::{Monitor, free_port},
    probe::Prober,
    process::lives,
};
use muster_model::{
    Disruption, DrillResult, Step,
    drill::{PointUsed, ProbeResult, Proof},
};
use muster_plan::document::{Objective, Service};
use muster_repository::run::Run;
use uuid::Uuid;

pub(crate) use ages::{ages, widen};
use controls::Controls;
pub(crate) use isolation::production;
pub(crate) use phases::{assumed, measured, total_s};
pub use proposal::{DrillProposal, propose};
pub(crate) use seal::seal;

use crate::{
    calendar,
    error::OperationError,
    hands,
    markers::{self, MarkerKeeper},
    pause::{interrupted, pause},
    points,
    process::this_process,
    records::{DrillRefused, DrillStarted, Record, Target},
    run::{Accepted, Companions, Ended, Place, RunClock, Runner, Supply, World, is_empty},
    runtime,
    state::Logged,
    stores,
    story::{Chapter, Listener},
    sweep::{blank, remove_folder},
    unread,
    workspace::Workspace,
};

/// Markers are written from so long before T0, where the plan asks for markers.
pub const MARKING: Duration = Duration::from_secs(30);

/// What to rehearse.
#[derive(Debug, Clone)]
pub struct DrillRequest {
    /// The service.
    pub service: String,
    /// What is rehearsed.
    pub disruption: Disruption,
    /// Only points not newer than this.
    pub at: Option<Timestamp>,
    /// Only this point.
    pub point: Option<String>,
    /// Markers are written for so long before T0; [`MARKING`] outside of tests.
    pub marking: Duration,
}

impl DrillRequest {
    fn wish(&self, impact: Timestamp) -> Wish<'_> {
        Wish {
            at: Some(self.at.map_or(impact, |at| at.min(impact))),
            point: self.point.as_deref(),
            disruption: Some(self.disruption),
            accept_partial: false,
        }
    }
}

/// Rehearses, measures, judges, signs and records.
///
/// # Errors
/// Refuses with every blocker; fails when the ledger cannot be written. Everything else is a
/// verdict.
pub fn run(
    workspace: &Workspace,
    request: &DrillRequest,
    listener: &dyn Listener,
    run: &Run,
) -> Result<DrillResult, OperationError> {
    let proposal = propose(workspace, request)?;
    if !proposal.blockers.is_empty() {
        let refused = DrillRefused::new(&request.service, request.disruption, &proposal.blockers);
        workspace.state.record(&Record::DrillRefused(refused))?;
        return Err(OperationError::Refused {
            what: format!("drill {} for {}", request.service, request.disruption),
            blockers: proposal.blockers,
        });
    }
    let drill = Drill::begin(workspace, request, listener, run)?;
    runtime::block_on(drill.perform())?
}

/// A drill under way.
struct Drill<'w> {
    workspace: &'w Workspace,
    service: &'w Service,
    request: &'w DrillRequest,
    listener: &'w dyn Listener,
    run: &'w Run,
    folder: PathBuf,
    logs: PathBuf,
    /// Production's files, hidden from the drill's processes; none where nothing can be hidden.
    hidden: Vec<PathBuf>,
    result: DrillResult,
    startup: Duration,
    faults: Vec<String>,
    failed_step: Option<String>,
    died_again: bool,
    aborted: bool,
    ages: Vec<(String, f64)>,
    unmeasured: Vec<String>,
    /// When the last backup before the impact was done, by the wall clock of then.
    latest: Option<Timestamp>,
}

impl<'w> Drill<'w> {
    /// Gives the drill its number: from here on it is in the log, whatever becomes of it.
    fn begin(
        workspace: &'w Workspace,
        request: &'w DrillRequest,
        listener: &'w dyn Listener,
        run: &'w Run,
    ) -> Result<Self, OperationError> {
        let service = workspace.service(&request.service)?;
        let id = Uuid::now_v7().to_string();
        let objective = service.objectives.get(&request.disruption).copied().unwrap_or_default();
        let number = start(workspace, request, &objective, &id)?;
        listener.hear(&Chapter::DrillStarted { number, service: &service.name });
        let mut result = blank(&id, number, &service.name, request.disruption);
        result.plan_revision.clone_from(&workspace.plan.revision);
        result.recovery_time.objective_s = objective.rto.map(|rto| rto.as_secs_f64());
        result.recovery_point.objective_s = objective.rpo.map(|rpo| rpo.as_secs_f64());
        let folder = workspace.state.runs_folder(service)?.join(&id);
        let logs = workspace.state.private_folder("runs")?.join(&id).join("logs");
        Ok(Self {
            workspace,
            service,
            request,
            listener,
            run,
            folder,
            logs,
            hidden: isolation::hidden(workspace),
            result,
            startup: Duration::ZERO,
            faults: Vec::new(),
            failed_step: None,
            died_again: false,
            aborted: false,
            ages: Vec::new(),
            unmeasured: Vec::new(),
            latest: None,
        })
    }

    async fn perform(mut self) -> Result<DrillResult, OperationError> {
        let rehearsed = self.rehearse().await;
        match rehearsed {
            Ok(()) => {}
            Err(OperationError::Interrupted { .. }) => self.aborted = true,
            Err(error) => self.faults.push(error.one_line()),
        }
        self.clean_up()?;
        self.result.findings = unread::findings(self.workspace, &self.result.drill)?;
        self.judge();
        let result = seal(self.workspace, self.result, Record::DrillEnded)?;
        self.listener.hear(&Chapter::Judged { result: &result });
        Ok(result)
    }

    async fn rehearse(&mut self) -> Result<(), OperationError> {
        let prober = Prober::new().map_err(OperationError::below)?;
        let before = isolation::steady_state(self.workspace, self.service, &prober).await;
        tokio::task::block_in_place(|| self.write_markers())?;
        let monitor = isolation::monitor(self.workspace).await;
        self.latest = ages::latest(&self.workspace.state)?;
        let clock = RunClock::start();
        self.result.started = clock.moment.wall;
        self.listener.hear(&Chapter::CutOff { at: clock.moment.wall });
        let done = self.recover_and_question(clock, &prober, &monitor).await;
        self.result.isolation.push(isolation::sightings(&monitor.stop(), self.hidden.len()));
        let after = isolation::steady_state(self.workspace, self.service, &prober).await;
        self.result.isolation.push(isolation::compare(&before, &after));
        done
    }

    async fn recover_and_question(
        &mut self,
        clock: RunClock,
        prober: &Prober,
        monitor: &Monitor,
    ) -> Result<(), OperationError> {
        let chosen = self.choose(clock.moment.wall)?;
        let place = self.make_target("target")?;
        self.result.isolation.push(isolation::apart(self.workspace, &place.dir));
        let world = self.world("runbook", &place, clock, Supply::Points(chosen))?;
        let listener = self.listener;
        let companions = Companions { prober: Some(prober), monitor: Some(monitor), listener };
        let mut runner = Runner::new(world, self.run.clone(), companions);
        let mut done = self.recover(&mut runner).await;
        self.result.isolation.push(isolation::environment(&runner.surroundings.borrow()));
        if done.is_ok() {
            done = self.question(&runner);
        }
        self.result.isolation.extend(isolation::unseen(&runner));
        if done.is_ok() {
            done = self.stop_service(&mut runner, prober, monitor).await;
        }
        self.end(&mut runner).await?;
        done?;
        self.negative_controls(&runner.world, prober, monitor).await
    }

    /// Writes markers up to T0.
    fn write_markers(&self) -> Result<(), OperationError> {
        let Some(planned) = &self.service.markers else { return Ok(()) };
        let mut keeper = MarkerKeeper::open(self.workspace, self.service, planned)?;
        let long = self.request.marking;
        self.listener.hear(&Chapter::Marking { long, every: planned.every });
        let end = Instant::now() + long;
        let (mut written, mut missed) = (0_u64, None);
        loop {
            // A busy database may refuse one: it does not count, and the loss that is measured is
            // larger at worst. When it refuses all there is nothing to measure by.
            match keeper.write_or_miss(&self.workspace.state)? {
                Ok(()) => written += 1,
                Err(error) => {
                    self.listener.hear(&Chapter::MarkerMissed { why: &error.one_line() });
                    missed = Some(error);
                }
            }
            interrupted(self.run)?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return missed.filter(|_| written == 0).map_or(Ok(()), Err);
            }
            pause(planned.every.min(left), self.run);
        }
    }

    fn choose(&self, impact: Timestamp) -> Result<Vec<Chosen>, OperationError> {
        let listed =
            tokio::task::block_in_place(|| points::list(self.workspace, Some(&self.service.name)))?;
        let data = restored_data(self.service);
        // What was there at the impact counts, also if the clock was stepped back since.
        let wish = self.request.wish(self.latest.map_or(impact, |latest| latest.max(impact)));
        unread::note(self.workspace, &self.result.drill, &listed.unread)?;
        let chosen = choose(&listed.points, &self.service.name, &self.service.place, &data, &wish);
        let chosen = chosen.map_err(|blockers| OperationError::Refused {
            what: format!("recover {}", self.service.name),
            blockers: listed.explain(blockers),
        })?;
        Ok(stores::quickest_first(self.workspace, chosen))
    }

    /// Makes a fresh folder for a target; it is in the ledger before it exists.
    fn make_target(&self, name: &str) -> Result<Place, OperationError> {
        let dir = self.folder.join(name);
        let target = Target { run: self.result.drill.clone(), dir: dir.display().to_string() };
        self.workspace.state.record(&Record::TargetMade(target))?;
        if !is_empty(&dir).map_err(OperationError::io("look into", &dir))? {
            return Err(OperationError::Bug { what: format!("{} is not empty", dir.display()) });
        }
        let port = free_port().map_err(OperationError::io("find", "a free port"))?;
        Ok(Place { dir, logs: self.logs.clone(), port })
    }

    fn world(
        &self,
        part: &str,
        place: &Place,
        clock: RunClock,
        supply: Supply,
    ) -> Result<World<'w>, OperationError> {
        let id = &self.result.drill;
        let world = World::new(self.workspace, self.service, id, part, place, clock, supply)?;
        Ok(world.without(&self.hidden))
    }

    /// The runbook, and the wait until the service has held.
    async fn recover(&mut self, runner: &mut Runner<'_>) -> Result<(), OperationError> {
        let ended = runner.perform().await?;
        self.result.points = runner.supplied.iter().filter_map(|s| s.used.clone()).collect();
        if let Ended::Failed { summary, why } = ended {
            self.failed_step = Some(format!("{summary}: {why}"));
            return Ok(());
        }
        let Some(mut acceptance) = runner.take_acceptance()? else { return Ok(()) };
        let accepted = acceptance.settle(runner, self.run).await;
        acceptance.stop().await;
        self.note_acceptance(runner, &accepted?);
        Ok(())
    }

    fn note_acceptance(&mut self, runner: &Runner<'_>, accepted: &Accepted) {
        self.died_again = accepted.died_again;
        self.result.probes = probe_results(self.service, accepted);
        if let Some(fallen) = &accepted.fallen
            && accepted.held_since.is_none()
        {
            self.failed_step = Some(fallen.clone());
        }
        let Some(t5) = accepted.held_since else {
            tell_red(self.service, accepted, self.listener);
            return;
        };
        let last_step = runner.stretches.iter().map(|s| s.began).max().unwrap_or_default();
        self.startup = t5.saturating_sub(last_step);
        let phases = phases::phases(&self.service.assume, &runner.stretches, t5);
        self.result.recovery_time.actual_s = Some(total_s(&phases));
        self.result.recovery_time.phases = phases;
        self.listener.hear(&Chapter::Recovered { after: t5, hold: self.service.acceptance.hold });
    }

    /// Counts markers and asks the completeness rules, while what was recovered runs. After a
    /// step that failed, data that came back before it still tells what was lost.
    fn question(&mut self, runner: &Runner<'_>) -> Result<(), OperationError> {
        if let Some(planned) = &self.service.markers
            && self.is_back(&planned.data)
        {
            self.count_markers(runner, &planned.data)?;
        }
        let (state, impact) = (&self.workspace.state, &runner.world.clock.moment);
        self.ages = ages(state, self.service, &self.result.points, impact)?;
        widen(&mut self.result.recovery_point, &self.ages);
        self.result.completeness = completeness::ask(&runner.world, &self.result.points, self.run)?;
        self.note_unmeasured();
        Ok(())
    }

    fn count_markers(&mut self, runner: &Runner<'_>, data: &str) -> Result<(), OperationError> {
        let item = runner.world.item(data)?;
        let target = hands::restored_marker_target(&runner.world, item)?;
        let impact = &runner.world.clock.moment;
        let (state, name) = (&self.workspace.state, &self.service.name);
        let loss =
            tokio::task::block_in_place(|| markers::measure(state, name, data, &target, impact))?;
        self.result.recovery_point.actual_s_min = loss.s_min;
        self.result.recovery_point.actual_s_max = loss.s_max;
        self.result.markers = Some(loss.counts);
        Ok(())
    }

    /// The data item was restored, whatever became of the service.
    fn is_back(&self, data: &str) -> bool {
        self.result.points.iter().any(|point| point.data == data)
    }

    /// Says what a failed step has kept from being measured.
    fn note_unmeasured(&mut self) {
        if self.failed_step.is_none() {
            return;
        }
        if self.result.recovery_time.actual_s.is_none() {
            let why = "the recovery time and the negative controls: the service did not come back";
            self.unmeasured.push(why.to_owned());
        }
        let marked = self.service.markers.iter().map(|markers| (&markers.data, "the loss"));
        let acceptance = &self.service.acceptance;
        let counted = acceptance.rows.iter().map(|(data, _)| (data, "the rows"));
        let compared = acceptance.checksums.iter().map(|data| (data, "the checksums"));
        let gone: Vec<String> = marked
            .chain(counted)
            .chain(compared)
            .filter(|(data, _)| !self.is_back(data))
            .map(|(data, what)| format!("{what} of {data}: it did not come back"))
            .collect();
        self.unmeasured.extend(gone);
    }

    async fn end(&mut self, runner: &mut Runner<'_>) -> Result<(), OperationError> {
        let left = runner.end_members(|_| true).await?;
        if !left.is_empty() {
            self.faults.push(format!("processes {left:?} cannot be ended"));
        }
        Ok(())
    }

    /// The control that costs least comes first, while the data's servers still run.
    async fn stop_service(
        &mut self,
        runner: &mut Runner<'_>,
        prober: &Prober,
        monitor: &Monitor,
    ) -> Result<(), OperationError> {
        if !self.is_recovered() || !starts(self.service) {
            return Ok(());
        }
        self.listener.hear(&Chapter::Controls);
        let used = self.result.points.clone();
        let controls = self.controls(prober, monitor, &used);
        let noticed = controls.stopped_service(runner).await?;
        self.result.negative_controls.extend(noticed);
        Ok(())
    }

    fn is_recovered(&self) -> bool {
        self.failed_step.is_none() && self.result.recovery_time.actual_s.is_some()
    }

    fn controls<'c>(
        &self,
        prober: &'c Prober,
        monitor: &'c Monitor,
        used: &'c [PointUsed],
    ) -> Controls<'c>
    where
        'w: 'c,
    {
        Controls { prober, monitor, startup: self.startup, used, run: self.run }
    }

    async fn negative_controls(
        &mut self,
        target: &World<'_>,
        prober: &Prober,
        monitor: &Monitor,
    ) -> Result<(), OperationError> {
        if !self.is_recovered() {
            return Ok(());
        }
        let used = self.result.points.clone();
        let controls = self.controls(prober, monitor, &used);
        if !starts(self.service) {
            self.listener.hear(&Chapter::Controls);
        }
        if monitor.is_breached() {
            // What reached production once must not be started again.
            return Ok(());
        }
        let empty = self.make_target("empty-target")?;
        let mut all = controls.empty_target(target, &empty).await?;
        for probe in &mut self.result.probes {
            probe.seen_red = all.iter().find(|c| c.probe == probe.name).map(|control| control.ok);
        }
        for name in damage_order(self.service) {
            if monitor.is_breached() {
                break;
            }
            let item = target.item(&name)?;
            all.extend(controls.damaged_copy(target, item).await?);
        }
        self.result.negative_controls.extend(all);
        Ok(())
    }

    /// Removes the targets and proves that they are gone.
    fn clean_up(&mut self) -> Result<(), OperationError> {
        for name in ["target", "empty-target"] {
            let dir = self.folder.join(name);
            let removed = remove_folder(&dir);
            let is_gone = !dir.exists();
            self.result.cleanup.push(Proof {
                name: format!("{name} removed"),
                ok: removed.is_ok() && is_gone,
                detail: match removed {
                    Ok(()) => format!("{} is gone", dir.display()),
                    Err(error) => format!("{}: {error}", dir.display()),
                },
            });
            if is_gone {
                let target =
                    Target { run: self.result.drill.clone(), dir: dir.display().to_string() };
                self.workspace.state.record(&Record::TargetRemoved(target))?;
            }
        }
        // Outside the state nothing shall stay; in the state the logs do, and this does nothing.
        drop(std::fs::remove_dir(&self.folder));
        let history = self.workspace.state.history(&["child-started"])?;
        let left: Vec<u32> = history.iter().filter_map(|l| self.living_child(l)).collect();
        self.result.cleanup.push(Proof {
            name: "processes ended".to_owned(),
            ok: left.is_empty(),
            detail: match left.is_empty() {
                true => "none of the drill's processes is left".to_owned(),
                false => format!("{left:?} are left"),
            },
        });
        Ok(())
    }

    /// The number of a process of this drill that lives, whatever was written down of its end.
    fn living_child(&self, logged: &Logged) -> Option<u32> {
        match &logged.record {
            Record::ChildStarted(started)
                if started.run == self.result.drill && lives(&started.child) =>
            {
                Some(started.child.pid)
            }
            _ => None,
        }
    }

    fn judge(&mut self) {
        let data = restored_data(self.service);
        let result = &self.result;
        let case = Case {
            aborted: self.aborted,
            harness_faults: &self.faults,
            failed_step: self.failed_step.as_deref(),
            died_again: self.died_again,
            within: self.service.acceptance.within,
            time: &result.recovery_time,
            loss: &result.recovery_point,
            ages: &self.ages,
            markers: result.markers.as_ref(),
            probes: &result.probes,
            controls: &result.negative_controls,
            data: &data,
            unrestored: &unrestored(self.service),
            starts: starts(self.service),
            completeness: &result.completeness,
            isolation: &result.isolation,
            cleanup: &result.cleanup,
            unmeasured: &self.unmeasured,
        };
        let (verdict, reasons) = judge(&case);
        self.result.verdict = verdict;
        self.result.reasons = reasons;
        self.result.ended = Timestamp::now();
    }
}

/// Tells what the probes that were never green saw last.
pub(crate) fn tell_red(service: &Service, accepted: &Accepted, listener: &dyn Listener) {
    let seen = accepted.tallies.iter().zip(&accepted.last);
    for (probe, (tally, last)) in service.acceptance.probes.iter().zip(seen) {
        if tally.first_green.is_none() {
            listener.hear(&Chapter::StillRed { probe: &probe.name, detail: last });
        }
    }
}

/// The data items that the runbook restores, in order.
pub(crate) fn restored_data(service: &Service) -> Vec<String> {
    let mut all = Vec::new();
    for step in &service.recover {
        if let Step::Restore { data } = step {
            all.extend(data.iter().cloned());
        }
    }
    all
}

/// Data items that are protected and that no step of the runbook restores.
fn unrestored(service: &Service) -> Vec<String> {
    let restored = restored_data(service);
    let is_protected = |name: &String| service.protect.iter().any(|line| line.data.contains(name));
    let names = service.data.iter().map(|item| item.name.clone());
    names.filter(|name| is_protected(name) && !restored.contains(name)).collect()
}

/// Whether the runbook starts anything of its own.
fn starts(service: &Service) -> bool {
    service.recover.iter().any(|step| matches!(step, Step::Start { .. }))
}

/// Items whose damage cannot be undone come last.
fn damage_order(service: &Service) -> Vec<String> {
    let mut all = restored_data(service);
    all.sort_by_key(|name| service.data(name).is_some_and(|item| item.source.kind() == "postgres"));
    all
}

pub(crate) fn probe_results(service: &Service, accepted: &Accepted) -> Vec<ProbeResult> {
    let probes = service.acceptance.probes.iter().zip(&accepted.tallies);
    let result =
        |(probe, tally): (&muster_model::Probe, &muster_control::hold::Tally)| ProbeResult {
            name: probe.name.clone(),
            data: probe.on.clone(),
            first_green_s: tally.first_green.map(|at| at.as_secs_f64()),
            samples: tally.samples,
            failures: tally.failures,
            seen_red: None,
        };
    probes.map(result).collect()
}

/// Writes down that a drill starts, with the next number.
fn start(
    workspace: &Workspace,
    request: &DrillRequest,
    objective: &Objective,
    id: &str,
) -> Result<u64, OperationError> {
    let state = &workspace.state;
    let history = state.history(&["drill-scheduled", "drill-started"])?;
    let now = Timestamp::now();
    let due = calendar::open_appointment(&history, &request.service, request.disruption, now);
    let started = Record::DrillStarted(DrillStarted {
        drill: id.to_owned(),
        number: 0,
        service: request.service.clone(),
        disruption: request.disruption,
        revision: workspace.plan.revision.clone(),
        due,
        rto_s: objective.rto.map(|rto| rto.as_secs_f64()),
        rpo_s: objective.rpo.map(|rpo| rpo.as_secs_f64()),
        process: this_process(),
    });
    state.record_numbered(&started, "number")
}
