//! When is the service back? Probes ask until it has held, or its time is over.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use muster_control::hold::{Hold, Sighting, Tally};
use muster_drivers::{
    probe::{ProbeSecrets, Prober},
    watch::{Observation, Watch},
};
use muster_model::Light;
use muster_plan::template::render_probe;
use muster_repository::run::Run;
use tokio::sync::mpsc::Receiver;

use super::{Runner, World};
use crate::{
    error::OperationError,
    pause::interrupted,
    records::{ProbeTurned, Record},
    story::Chapter,
};

/// How soon a probe that is not green asks again: the start of the held window is known as
/// exactly as this.
const EAGER: Duration = Duration::from_millis(10);

/// Between two looks at processes and signals.
const LOOK: Duration = Duration::from_millis(50);

/// The probes of a run, asking.
pub(crate) struct Acceptance {
    hold: Hold,
    names: Vec<String>,
    watch: Watch,
    observations: Receiver<Observation>,
    lights: HashMap<usize, (Light, String)>,
}

/// What the probes saw.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    /// The start of the held window, since T0.
    pub(crate) held_since: Option<Duration>,
    /// By probe, in the plan's order.
    pub(crate) tallies: Vec<Tally>,
    /// It came back and died again.
    pub(crate) died_again: bool,
    /// A process that ended, with its last words.
    pub(crate) fallen: Option<String>,
    /// What each probe said last.
    pub(crate) last: Vec<String>,
}

impl Acceptance {
    /// Begins to ask the probes of the world's service.
    ///
    /// # Errors
    /// Fails when a probe's template cannot be rendered.
    pub(crate) fn start(world: &World<'_>, prober: &Prober) -> Result<Self, OperationError> {
        let service = world.service;
        let mut probes = Vec::new();
        for probe in &service.acceptance.probes {
            let rendered = render_probe(probe, service, &world.names);
            probes.push((rendered.map_err(OperationError::below)?, ProbeSecrets::default()));
        }
        let names = probes.iter().map(|(probe, _)| probe.name.clone()).collect();
        let hold = Hold::new(probes.len(), service.acceptance.hold);
        let (watch, observations) =
            Watch::start_eager(prober, probes, world.clock.origin, Some(EAGER));
        Ok(Self { hold, names, watch, observations, lights: HashMap::new() })
    }

    /// Waits until the service has held or cannot any more.
    ///
    /// # Errors
    /// Fails when the ledger cannot be written, or the run is cancelled.
    pub(crate) async fn settle(
        &mut self,
        runner: &mut Runner<'_>,
        run: &Run,
    ) -> Result<Accepted, OperationError> {
        let within = runner.deadline;
        let mut fallen = None;
        while self.hold.held_since().is_none() && !self.names.is_empty() {
            if let Some(turned) = self.listen(&runner.world, LOOK).await? {
                runner.tell(&Chapter::Probe {
                    name: &turned.probe,
                    green: turned.light == Light::Green,
                    at: Duration::try_from_secs_f64(turned.at_s).unwrap_or_default(),
                    detail: &turned.detail,
                });
            }
            interrupted(run)?;
            fallen = runner.fallen();
            let is_late = runner.world.clock.elapsed() > within;
            let may_hold = self.hold.green_since().is_some_and(|since| since <= within);
            if fallen.is_some() || (is_late && !may_hold) {
                break;
            }
        }
        let held_since = self.hold.held_since().filter(|since| *since <= within);
        Ok(Accepted { held_since, fallen, ..self.seen() })
    }

    /// Listens for a while; for controls, which must stay red all the time.
    pub(crate) async fn listen_for(
        &mut self,
        world: &World<'_>,
        long: Duration,
        run: &Run,
    ) -> Result<Accepted, OperationError> {
        let end = Instant::now() + long;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            drop(self.listen(world, left.min(LOOK)).await?);
            interrupted(run)?;
        }
        Ok(self.seen())
    }

    /// What was seen up to now.
    fn seen(&self) -> Accepted {
        let last = |index| match self.lights.get(&index) {
            Some((_, detail)) => detail.clone(),
            None => "no answer yet".to_owned(),
        };
        Accepted {
            held_since: None,
            tallies: self.hold.tallies().collect(),
            died_again: self.hold.was_broken(),
            fallen: None,
            last: (0..self.names.len()).map(last).collect(),
        }
    }

    /// Takes in what arrives within `long`; tells of a probe that turned.
    async fn listen(
        &mut self,
        world: &World<'_>,
        long: Duration,
    ) -> Result<Option<ProbeTurned>, OperationError> {
        match tokio::time::timeout(long, self.observations.recv()).await {
            Ok(Some(seen)) => self.see(world, seen),
            _ => Ok(None),
        }
    }

    fn see(
        &mut self,
        world: &World<'_>,
        seen: Observation,
    ) -> Result<Option<ProbeTurned>, OperationError> {
        self.hold.see(&Sighting {
            probe: seen.probe_index,
            began: seen.at,
            ended: seen.end,
            light: seen.light,
        });
        let before = self.lights.insert(seen.probe_index, (seen.light, seen.detail.clone()));
        if before.map(|(light, _)| light) == Some(seen.light) {
            return Ok(None);
        }
        let turned = ProbeTurned {
            run: world.run_id.clone(),
            part: world.part.clone(),
            probe: self.names.get(seen.probe_index).cloned().unwrap_or_default(),
            light: seen.light,
            at_s: seen.end.as_secs_f64(),
            detail: seen.detail,
        };
        world.workspace.state.record(&Record::ProbeTurned(turned.clone()))?;
        Ok(Some(turned))
    }

    /// Asks no more.
    pub(crate) async fn stop(self) {
        self.watch.stop().await;
    }
}
