//! `muster recover`: the runbook for real.
//!
//! It is the code that drills rehearse; what differs is the world. The target is a site: a
//! folder of this machine that stays. Processes outlive the command. The clock starts when the
//! disruption happened, if the operator knows, and else when the operator decided. A recovery
//! that is cut off, at whatever point, goes on when the same command is given again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use muster_control::{
    choice::{Blocker, Chosen, Wish, choose},
    journal::Event,
    verdict::{Case, missed, unjudged},
};
use muster_drivers::{
    isolation::{free_port, shares_directory},
    probe::Prober,
    process::{end_recorded, lives as child_lives},
};
use muster_model::{
    Disruption, DrillResult, PointCopy, RecoveryPoint, Verdict,
    drill::{ClockStart, MeasuredBy, Phase, PointUsed},
};
use muster_plan::document::Service;
use muster_repository::run::Run;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    drill::{self, completeness, probe_results, restored_data, seal},
    error::OperationError,
    hands, markers,
    moment::Moment,
    pause::interrupted,
    points,
    process::this_process,
    records::{ChildStarted, CopyUnread, Record, RecoveryStarted, Target},
    run::{Accepted, Companions, Ended, Place, RunClock, Runner, Stretch, Supply, World, is_empty},
    runtime,
    state::Logged,
    story::{Chapter, Listener},
    sweep::{GRACE, blank, open_children, remove_folder},
    unread,
    workspace::Workspace,
};

/// What to recover.
#[derive(Debug, Clone)]
pub struct RecoverRequest {
    /// The service.
    pub service: String,
    /// What happened; chooses the copies that can have survived and the objective.
    pub disruption: Option<Disruption>,
    /// Only points not newer than this.
    pub at: Option<Timestamp>,
    /// Only this point.
    pub point: Option<String>,
    /// The site: a folder; a default beside the plan when there is none.
    pub site: Option<PathBuf>,
    /// When the disruption happened.
    pub impact: Option<Timestamp>,
    /// What became of a `run` step that was cut off.
    pub cut_off: CutOff,
}

/// What a person says of a program that was cut off: nothing else can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CutOff {
    /// Nobody has looked yet: the recovery waits.
    #[default]
    Unknown,
    /// It has done its work.
    Done,
    /// It has not, and may run again.
    Again,
}

/// What a recovery would do.
#[derive(Debug, Clone, Serialize)]
pub struct RecoveryProposal {
    /// The service.
    pub service: String,
    /// It goes on with a recovery that was cut off.
    pub resumes: Option<String>,
    /// The site.
    pub site: String,
    /// The points.
    pub points: Vec<PointUsed>,
    /// The steps.
    pub steps: Vec<String>,
    /// What would be lost, in seconds, by the age of the oldest point.
    pub data_age_s: Option<f64>,
    /// What stands in the way.
    pub blockers: Vec<Blocker>,
    /// What should be known before it begins.
    pub warnings: Vec<String>,
    /// When the operator asked: the search for points is a part of the recovery.
    #[serde(skip)]
    asked: Moment,
    #[serde(skip)]
    unread: Vec<CopyUnread>,
    #[serde(skip)]
    chosen: Vec<Chosen>,
    #[serde(skip)]
    started: Option<RecoveryStarted>,
}

/// Kinds of entries that tell about recoveries.
const KINDS: &[&str] =
    &["recovery-started", "recovery-ended", "journal", "child-started", "child-ended"];

/// Computes what a recovery would do.
///
/// # Errors
/// Fails when the plan has no such service, or the ledger cannot be read.
pub fn propose(
    workspace: &Workspace,
    request: &RecoverRequest,
) -> Result<RecoveryProposal, OperationError> {
    let asked = Moment::now();
    let service = workspace.service(&request.service)?;
    let history = workspace.state.history(KINDS)?;
    let started = unfinished(&history, &service.name).cloned();
    match started {
        Some(started) => resumption(workspace, service, started),
        None => Ok(RecoveryProposal { asked, ..begin(workspace, service, request)? }),
    }
}

/// The recovery of a service that began and did not end.
fn unfinished<'h>(history: &'h [Logged], service: &str) -> Option<&'h RecoveryStarted> {
    let last = history.iter().rev().find_map(|logged| match &logged.record {
        Record::RecoveryStarted(started) if started.service == service => Some(started),
        _ => None,
    })?;
    (!has_ended(history, last)).then_some(last)
}

fn has_ended(history: &[Logged], started: &RecoveryStarted) -> bool {
    let is_end = |logged: &Logged| matches!(&logged.record, Record::RecoveryEnded(ended) if ended.drill == started.run);
    history.iter().any(is_end)
}

/// The last recovery of a service, when it ended without a pass and its site is there still.
fn last_failed<'h>(history: &'h [Logged], service: &str) -> Option<&'h RecoveryStarted> {
    let last = history.iter().rev().find_map(|logged| match &logged.record {
        Record::RecoveryStarted(started) if started.service == service => Some(started),
        _ => None,
    })?;
    let missed = |logged: &Logged| {
        matches!(&logged.record, Record::RecoveryEnded(ended)
            if ended.drill == last.run && ended.verdict != Verdict::Pass)
    };
    let is_missed = history.iter().any(missed);
    (is_missed && Path::new(&last.site).exists()).then_some(last)
}

fn resumption(
    workspace: &Workspace,
    service: &Service,
    started: RecoveryStarted,
) -> Result<RecoveryProposal, OperationError> {
    // Whoever goes on is not who started: the lock, unlike the record, tells who is at work.
    let is_free = workspace.state.lock(&lock_name(service))?.is_some();
    let blockers = if is_free { Vec::new() } else { vec![under_way(service)] };
    Ok(RecoveryProposal {
        service: service.name.clone(),
        resumes: Some(started.run.clone()),
        site: started.site.clone(),
        points: started.points.clone(),
        steps: steps(service),
        data_age_s: None,
        blockers,
        warnings: Vec::new(),
        asked: started.declared.clone(),
        unread: Vec::new(),
        chosen: started.points.iter().map(|used| chosen_again(service, used)).collect(),
        started: Some(started),
    })
}

fn lock_name(service: &Service) -> String {
    format!("recover {}", service.name)
}

fn under_way(service: &Service) -> Blocker {
    Blocker {
        code: "recovery-under-way",
        message: format!("another process is recovering {} right now", service.name),
        help: "wait for it, or stop it".to_owned(),
    }
}

fn steps(service: &Service) -> Vec<String> {
    service.recover.iter().map(muster_model::Step::summary).collect()
}

/// A point that was chosen before, from what the ledger keeps of it.
fn chosen_again(service: &Service, used: &PointUsed) -> Chosen {
    let copy = PointCopy {
        repository: used.repository.clone(),
        place: muster_model::Place::default(),
        immutable: false,
        immutable_until: None,
        snapshot: used.snapshot.clone(),
        damaged: false,
    };
    let source = service.data(&used.data).map_or("files", |item| item.source.kind());
    let point = RecoveryPoint {
        id: used.point.clone(),
        service: service.name.clone(),
        data: used.data.clone(),
        source: source.to_owned(),
        data_time: used.data_time,
        kind: muster_model::BackupKind::Full,
        partial: false,
        suspect: false,
        bytes: used.bytes,
        copies: vec![copy.clone()],
        proof: None,
    };
    Chosen { point, copies: vec![copy] }
}

fn begin(
    workspace: &Workspace,
    service: &Service,
    request: &RecoverRequest,
) -> Result<RecoveryProposal, OperationError> {
    let site = site(workspace, service, request)?;
    let mut blockers = site_blockers(workspace, &site)?;
    if service.recover.is_empty() {
        blockers.push(Blocker {
            code: "no-runbook",
            message: format!("{} has no runbook", service.name),
            help: "add `recover:` to the service".to_owned(),
        });
    }
    blockers.extend(harm_unknown(request));
    let listed = points::list(workspace, Some(&service.name))?;
    let wish = Wish {
        at: older(request.at, request.impact),
        point: request.point.as_deref(),
        disruption: request.disruption,
        accept_partial: false,
    };
    let data = restored_data(service);
    let chosen = choose(&listed.points, &service.name, &service.place, &data, &wish);
    let chosen = chosen.unwrap_or_else(|more| {
        blockers.extend(listed.explain(more));
        Vec::new()
    });
    let chosen = crate::stores::quickest_first(workspace, chosen);
    let now = Timestamp::now();
    let oldest = chosen.iter().map(|chosen| chosen.point.data_time).min();
    Ok(RecoveryProposal {
        service: service.name.clone(),
        resumes: None,
        site: site.display().to_string(),
        points: chosen.iter().filter_map(used).collect(),
        steps: steps(service),
        data_age_s: oldest.map(|time| now.duration_since(time).as_secs_f64()),
        blockers,
        warnings: listed.unread.iter().map(ToString::to_string).collect(),
        asked: Moment::now(),
        // Whose they are is known when the recovery has its name.
        unread: listed.unread.iter().map(|unread| CopyUnread::of("", unread)).collect(),
        chosen,
        started: None,
    })
}

/// After such a disruption the newest point may hold the harm itself.
fn harm_unknown(request: &RecoverRequest) -> Option<Blocker> {
    let disruption = request.disruption?;
    let is_told = request.at.is_some() || request.point.is_some() || request.impact.is_some();
    (disruption.effect().only_older && !is_told).then(|| Blocker {
        code: "harm-unknown",
        message: format!("after {disruption} the newest point may hold the harm itself"),
        help: "say from before when the data shall be: --at, --point or --impact-at".to_owned(),
    })
}

fn older(first: Option<Timestamp>, second: Option<Timestamp>) -> Option<Timestamp> {
    match (first, second) {
        (Some(first), Some(second)) => Some(first.min(second)),
        (first, second) => first.or(second),
    }
}

fn used(chosen: &Chosen) -> Option<PointUsed> {
    let copy = chosen.copies.first()?;
    Some(PointUsed {
        data: chosen.point.data.clone(),
        point: chosen.point.id.clone(),
        repository: copy.repository.clone(),
        snapshot: copy.snapshot.clone(),
        data_time: chosen.point.data_time,
        bytes: chosen.point.bytes,
    })
}

/// The site: a folder of this machine. Names of regions are no sites yet.
fn site(
    workspace: &Workspace,
    service: &Service,
    request: &RecoverRequest,
) -> Result<PathBuf, OperationError> {
    let Some(site) = &request.site else {
        return Ok(workspace.folder.join("recovered").join(&service.name));
    };
    let is_region = |text: &str| workspace.plan.regions.iter().any(|region| region.name == text);
    if site.to_str().is_some_and(is_region) && !site.exists() {
        return Err(OperationError::Usage {
            message: format!(
                "recover to {}: it is a region, and a site is a folder",
                site.display()
            ),
            help: "name a folder of this machine: --to ./recovered".to_owned(),
        });
    }
    std::path::absolute(site).map_err(OperationError::io("find", site))
}

fn site_blockers(workspace: &Workspace, site: &Path) -> Result<Vec<Blocker>, OperationError> {
    let mut blockers = Vec::new();
    if !is_empty(site).map_err(OperationError::io("look into", site))? {
        blockers.push(Blocker {
            code: "site-not-empty",
            message: format!("{} is not empty", site.display()),
            help: "name an empty folder, or one that does not exist: --to DIR".to_owned(),
        });
    }
    let production = drill::production(workspace);
    if let Some(shared) = shares_directory(site, &production.paths) {
        blockers.push(Blocker {
            code: "site-in-production",
            message: format!("{} shares {} with production", site.display(), shared.display()),
            help: "recover beside production's data, never into it: --to DIR".to_owned(),
        });
    }
    Ok(blockers)
}

/// Recovers, or goes on with a recovery that was cut off.
///
/// # Errors
/// Refuses with every blocker; fails when a step was not done (then it can be resumed), the
/// ledger cannot be written, or the run is cancelled.
pub fn recover(
    workspace: &Workspace,
    request: &RecoverRequest,
    proposal: RecoveryProposal,
    listener: &dyn Listener,
    run: &Run,
) -> Result<DrillResult, OperationError> {
    let service = workspace.service(&request.service)?;
    if !proposal.blockers.is_empty() {
        return Err(OperationError::Refused {
            what: format!("recover {}", service.name),
            blockers: proposal.blockers,
        });
    }
    let Some(_lock) = workspace.state.lock(&lock_name(service))? else {
        return Err(OperationError::Refused {
            what: format!("recover {}", service.name),
            blockers: vec![under_way(service)],
        });
    };
    let is_resumed = proposal.started.is_some();
    let started = match proposal.started {
        Some(started) => started,
        None => start(workspace, service, request, &proposal)?,
    };
    let (chosen, cut_off) = (proposal.chosen, request.cut_off);
    let recovery = Recovery { workspace, service, started, chosen, cut_off, listener, run };
    runtime::block_on(recovery.perform(is_resumed))?
}

/// Writes down that a recovery starts.
fn start(
    workspace: &Workspace,
    service: &Service,
    request: &RecoverRequest,
    proposal: &RecoveryProposal,
) -> Result<RecoveryStarted, OperationError> {
    let declared = proposal.asked.clone();
    let clock = match request.impact {
        Some(impact) => declared.earlier(impact),
        None => declared.clone(),
    };
    let mut started = RecoveryStarted {
        run: Uuid::now_v7().to_string(),
        number: 0,
        service: service.name.clone(),
        disruption: request.disruption,
        site: proposal.site.clone(),
        port: free_port().map_err(OperationError::io("find", "a free port"))?,
        clock,
        impact_known: request.impact.is_some(),
        declared,
        points: proposal.points.clone(),
        revision: workspace.plan.revision.clone(),
        process: this_process(),
    };
    let record = Record::RecoveryStarted(started.clone());
    started.number = workspace.state.record_numbered(&record, "number")?;
    let target = Target { run: started.run.clone(), dir: started.site.clone() };
    workspace.state.record(&Record::TargetMade(target))?;
    let run = || started.run.clone();
    let unread = proposal.unread.iter().map(|unread| CopyUnread { run: run(), ..unread.clone() });
    unread::note_all(workspace, unread)?;
    Ok(started)
}

struct Recovery<'w> {
    workspace: &'w Workspace,
    service: &'w Service,
    started: RecoveryStarted,
    chosen: Vec<Chosen>,
    cut_off: CutOff,
    listener: &'w dyn Listener,
    run: &'w Run,
}

impl Recovery<'_> {
    async fn perform(self, is_resumed: bool) -> Result<DrillResult, OperationError> {
        let prober = Prober::new().map_err(OperationError::below)?;
        let mut runner = self.runner(&prober, is_resumed).await?;
        // The clock may have begun hours ago; the service's time to come back begins now.
        runner.deadline += runner.world.clock.elapsed();
        let recovered = self.run_steps(&mut runner).await;
        // Whatever happened, what runs goes on running: it may be all that the users have.
        let judged = match recovered {
            Ok(accepted) => self.judge(&runner, &accepted),
            Err(error) => Err(error),
        };
        let pids = runner.pids();
        self.listener.hear(&Chapter::Standing { names: &runner.world.names, pids: &pids });
        runner.detach();
        let result = seal(self.workspace, judged?, Record::RecoveryEnded)?;
        self.listener.hear(&Chapter::Judged { result: &result });
        Ok(result)
    }

    async fn runner<'r>(
        &'r self,
        prober: &'r Prober,
        is_resumed: bool,
    ) -> Result<Runner<'r>, OperationError> {
        let place = Place {
            dir: PathBuf::from(&self.started.site),
            logs: self.workspace.state.private_folder("runs")?.join(&self.started.run).join("logs"),
            port: self.started.port,
        };
        let clock = RunClock::at(self.started.clock.clone());
        let supply = Supply::Points(self.chosen.clone());
        let run_id = &self.started.run;
        let world =
            World::new(self.workspace, self.service, run_id, "runbook", &place, clock, supply)?;
        let companions =
            Companions { prober: Some(prober), monitor: None, listener: self.listener };
        if !is_resumed {
            return Ok(Runner::new(world, self.run.clone(), companions));
        }
        self.listener.hear(&Chapter::Resumed);
        let history = self.workspace.state.history(KINDS)?;
        let journal = journal(&history, run_id, &self.started.clock);
        let children: Vec<ChildStarted> =
            open_children(&history, run_id).into_iter().cloned().collect();
        let run = self.run.clone();
        Runner::resume(world, run, companions, journal, &children, self.cut_off).await
    }

    async fn run_steps(&self, runner: &mut Runner<'_>) -> Result<Option<Accepted>, OperationError> {
        if let Ended::Failed { summary, why } = runner.perform().await? {
            // A step that was cut off on request has not failed: the command was stopped.
            interrupted(self.run)?;
            return Err(OperationError::StepFailed {
                summary,
                why,
                help: format!(
                    "mend the cause and run `muster recover {}` again: it goes on with this step; \
                     with --abandon it ends what runs and removes the site",
                    self.service.name
                ),
            });
        }
        let Some(mut acceptance) = runner.take_acceptance()? else { return Ok(None) };
        let accepted = acceptance.settle(runner, self.run).await;
        acceptance.stop().await;
        accepted.map(Some)
    }

    fn judge(
        &self,
        runner: &Runner<'_>,
        accepted: &Option<Accepted>,
    ) -> Result<DrillResult, OperationError> {
        let disruption = self.started.disruption.unwrap_or(Disruption::HostLoss);
        let mut result =
            blank(&self.started.run, self.started.number, &self.service.name, disruption);
        result.plan_revision.clone_from(&self.started.revision);
        result.started = self.started.clock.wall;
        result.findings = unread::findings(self.workspace, &self.started.run)?;
        let objective = self.service.objectives.get(&disruption).copied().unwrap_or_default();
        result.recovery_time.objective_s = objective.rto.map(|rto| rto.as_secs_f64());
        result.recovery_point.objective_s = objective.rpo.map(|rpo| rpo.as_secs_f64());
        result.recovery_time.clock_start = match self.started.impact_known {
            true => ClockStart::Impact,
            false => ClockStart::Declaration,
        };
        let restored = runner.supplied.iter().filter_map(|supplied| supplied.used.clone());
        result.points = restored.collect();
        if result.points.is_empty() {
            result.points.clone_from(&self.started.points);
        }
        if let Some(accepted) = accepted {
            result.probes = probe_results(self.service, accepted);
            drill::tell_red(self.service, accepted, self.listener);
            if let Some(t5) = accepted.held_since {
                result.recovery_time.phases = self.phases(&runner.stretches, t5);
                result.recovery_time.actual_s = Some(drill::total_s(&result.recovery_time.phases));
                let hold = self.service.acceptance.hold;
                self.listener.hear(&Chapter::Recovered { after: t5, hold });
            }
        }
        self.question(runner, &mut result)?;
        let (state, impact) = (&self.workspace.state, &self.started.clock);
        let ages = drill::ages(state, self.service, &result.points, impact)?;
        drill::widen(&mut result.recovery_point, &ages);
        let died_again = accepted.as_ref().is_some_and(|accepted| accepted.died_again);
        let fallen = accepted.as_ref().and_then(|accepted| accepted.fallen.as_deref());
        let case = Case {
            aborted: false,
            harness_faults: &[],
            failed_step: fallen.filter(|_| result.recovery_time.actual_s.is_none()),
            died_again,
            within: self.service.acceptance.within,
            time: &result.recovery_time,
            loss: &result.recovery_point,
            ages: &ages,
            markers: result.markers.as_ref(),
            probes: &result.probes,
            controls: &[],
            data: &[],
            unrestored: &[],
            starts: false,
            completeness: &result.completeness,
            isolation: &[],
            cleanup: &[],
            unmeasured: &[],
        };
        (result.verdict, result.reasons) = match (missed(&case), unjudged(&case)) {
            (missed, _) if !missed.is_empty() => (Verdict::Fail, missed),
            (_, unjudged) if !unjudged.is_empty() => (Verdict::Inconclusive, unjudged),
            _ => (Verdict::Pass, Vec::new()),
        };
        result.ended = Timestamp::now();
        Ok(result)
    }

    /// From the impact, if it is known, until the operator decided, nobody can tell detection
    /// from decision: the time is measured all the same.
    fn phases(&self, stretches: &[Stretch], t5: Duration) -> Vec<Phase> {
        let decided_s = self.started.clock.seconds_until(&self.started.declared).max(0.0);
        let decided = Duration::try_from_secs_f64(decided_s).unwrap_or_default();
        let mut phases = match self.started.impact_known {
            true => vec![
                drill::assumed("detect", None),
                Phase {
                    name: "decide".to_owned(),
                    s: Some(decided_s),
                    source: MeasuredBy::Measured,
                },
            ],
            false => vec![
                drill::assumed("detect", self.service.assume.detect),
                drill::assumed("decide", self.service.assume.decide),
            ],
        };
        let since = |at: Duration| at.saturating_sub(decided);
        let stretches: Vec<Stretch> = stretches
            .iter()
            .map(|s| Stretch { what: s.what, began: since(s.began), ended: since(s.ended) })
            .collect();
        phases.extend(drill::measured(&stretches, since(t5)));
        phases
    }

    fn question(
        &self,
        runner: &Runner<'_>,
        result: &mut DrillResult,
    ) -> Result<(), OperationError> {
        if let Some(planned) = &self.service.markers {
            let item = runner.world.item(&planned.data)?;
            let target = hands::restored_marker_target(&runner.world, item)?;
            let (state, name) = (&self.workspace.state, &self.service.name);
            let loss = tokio::task::block_in_place(|| {
                markers::measure(state, name, &planned.data, &target, &self.started.clock)
            })?;
            result.recovery_point.actual_s_min = loss.s_min;
            result.recovery_point.actual_s_max = loss.s_max;
            result.markers = Some(loss.counts);
        }
        result.completeness = completeness::ask(&runner.world, &result.points, self.run)?;
        for rule in &result.completeness {
            self.listener.hear(&Chapter::Rule(rule));
        }
        Ok(())
    }
}

/// The journal of a run, with when each line was written since the run's clock began.
fn journal(history: &[Logged], run: &str, clock: &Moment) -> Vec<(Event, Duration)> {
    let ours = history.iter().filter_map(|logged| match &logged.record {
        Record::Journal(line) if line.run == run && line.part == "runbook" => Some(line),
        _ => None,
    });
    let since = |at: &Moment| {
        Duration::try_from_secs_f64(clock.seconds_until(at).max(0.0)).unwrap_or_default()
    };
    ours.map(|line| (line.event.clone(), since(&line.at))).collect()
}

/// Gives a recovery that was cut off up: ends what runs, removes the site, writes it down.
///
/// # Errors
/// Fails when there is none, somebody works on it, or something cannot be ended or removed.
pub fn abandon(workspace: &Workspace, service: &str) -> Result<Vec<String>, OperationError> {
    let service = workspace.service(service)?;
    let history = workspace.state.history(KINDS)?;
    let started = unfinished(&history, &service.name);
    let started = started.or_else(|| last_failed(&history, &service.name));
    let started = started.ok_or_else(|| OperationError::NotFound {
        what: format!("a recovery of {} that was cut off or failed", service.name),
        help: "there is nothing to abandon".to_owned(),
    })?;
    let Some(_lock) = workspace.state.lock(&lock_name(service))? else {
        return Err(OperationError::Refused {
            what: format!("abandon the recovery of {}", service.name),
            blockers: vec![under_way(service)],
        });
    };
    let mut done = crate::sweep::end_children(&workspace.state, &history, &started.run)?;
    let site = Path::new(&started.site);
    remove_folder(site).map_err(OperationError::io("remove the site", site))?;
    done.push(format!("the site {} is removed", site.display()));
    let target = Target { run: started.run.clone(), dir: started.site.clone() };
    workspace.state.record(&Record::TargetRemoved(target))?;
    if has_ended(&history, started) {
        return Ok(done);
    }
    let disruption = started.disruption.unwrap_or(Disruption::HostLoss);
    let mut result = blank(&started.run, started.number, &service.name, disruption);
    result.plan_revision.clone_from(&started.revision);
    result.started = started.clock.wall;
    result.verdict = Verdict::Aborted;
    result.reasons = vec!["abandoned on request".to_owned()];
    seal(workspace, result, Record::RecoveryEnded)?;
    Ok(done)
}

/// Services whose recovery was cut off and can be resumed.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub(crate) fn unfinished_services(workspace: &Workspace) -> Result<Vec<String>, OperationError> {
    let history = workspace.state.history(KINDS)?;
    let is_open = |service: &&Service| unfinished(&history, &service.name).is_some();
    Ok(workspace.plan.services.iter().filter(is_open).map(|s| s.name.clone()).collect())
}

/// Ends the processes of the last recovery of a service, and leaves its data: for a service
/// that moved on, and for tests.
///
/// # Errors
/// Fails when the ledger cannot be read or written, or a process cannot be ended.
pub fn stop(workspace: &Workspace, service: &str) -> Result<Vec<u32>, OperationError> {
    let history = workspace.state.history(KINDS)?;
    let run = history.iter().rev().find_map(|logged| match &logged.record {
        Record::RecoveryStarted(started) if started.service == service => Some(&started.run),
        _ => None,
    });
    let Some(run) = run else { return Ok(Vec::new()) };
    let mut ended = Vec::new();
    for child in open_children(&history, run) {
        if child_lives(&child.child) {
            let outcome = runtime::block_on(end_recorded(&child.child, GRACE))?;
            drop(outcome.map_err(OperationError::io("end the processes of", service))?);
            ended.push(child.child.pid);
        }
    }
    Ok(ended)
}
