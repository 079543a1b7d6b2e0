//! Negative controls: a probe counts only after it was seen red.
//!
//! Two things must turn the light red. An *empty target*: the same runbook over data that is
//! not there; every probe must be red. A *damaged copy*: each data item of the recovered target
//! is damaged in turn (the largest table emptied, the largest file flipped); a probe or a
//! completeness rule must be red.
//!
//! A third one costs no wait: the *stopped service*. What the runbook started is ended, the data
//! stays, and each probe is asked once; one must be red. Else a `start` that starts nothing
//! would pass as long as the data alone answers.
//!
//! A service that has not started yet answers nobody, so red is believed only when it lasted
//! for longer than the real recovery took to turn green, and not one green answer came.

use std::time::Duration;

use muster_control::{hold::Tally, verdict::STOPPED_SERVICE};
use muster_drivers::{
    isolation::{Monitor, free_port},
    probe::{ProbeSecrets, Prober},
};
use muster_model::{
    Light,
    drill::{Completeness, NegativeControl, PointUsed},
};
use muster_plan::{
    document::{DataItem, DataSource},
    template::render_probe,
};
use muster_repository::run::Run;

use super::completeness;
use crate::{
    error::OperationError,
    run::{
        Acceptance, Accepted, Companions, Ended, Member, Place, RunClock, Runner, Supply, World,
    },
};

/// A control listens at least so long.
const LISTEN_MIN: Duration = Duration::from_secs(1);

/// A control listens for so many times as long as the service took to turn green.
const PATIENCE: u32 = 2;

/// What the controls are made with.
pub(crate) struct Controls<'a> {
    /// Asks.
    pub(crate) prober: &'a Prober,
    /// Looks at what processes have open.
    pub(crate) monitor: &'a Monitor,
    /// From the last step's start to the held window in the real recovery.
    pub(crate) startup: Duration,
    /// The points that were restored.
    pub(crate) used: &'a [PointUsed],
    /// Whether it shall stop.
    pub(crate) run: &'a Run,
}

impl Controls<'_> {
    fn listen(&self) -> Duration {
        self.startup * PATIENCE + LISTEN_MIN
    }

    /// Runs the runbook over nothing, in a folder of its own beside the target, and asks every
    /// probe.
    ///
    /// # Errors
    /// Fails when the harness fails.
    pub(crate) async fn empty_target(
        &self,
        target: &World<'_>,
        place: &Place,
    ) -> Result<Vec<NegativeControl>, OperationError> {
        let part = "empty-target";
        let clock = RunClock::start();
        let world = World::new(
            target.workspace,
            target.service,
            &target.run_id,
            part,
            place,
            clock,
            Supply::Empty(self.used.to_vec()),
        )?;
        let world = world.without(&target.hidden);
        let (seen, _) = self.ask(world, None).await?;
        let probes = &target.service.acceptance.probes;
        let control = |(probe, red): (&muster_model::Probe, bool)| NegativeControl {
            probe: probe.name.clone(),
            against: part.to_owned(),
            observed: light(red),
            ok: red,
        };
        Ok(probes.iter().zip(seen).map(control).collect())
    }

    /// Damages an item of the recovered target, whose processes have been ended, and asks rules
    /// and probes. The damage is undone where that can be done.
    ///
    /// # Errors
    /// Fails when the harness fails.
    pub(crate) async fn damaged_copy(
        &self,
        target: &World<'_>,
        item: &DataItem,
    ) -> Result<Vec<NegativeControl>, OperationError> {
        let against = format!("damaged:{}", item.name);
        let place = Place {
            dir: target.dir.clone(),
            logs: target.logs.clone(),
            port: free_port().map_err(OperationError::io("find", "a free port"))?,
        };
        let clock = RunClock::start();
        let world = World::new(
            target.workspace,
            target.service,
            &target.run_id,
            &against,
            &place,
            clock,
            Supply::InPlace,
        )?;
        let world = world.without(&target.hidden);
        if matches!(item.source, DataSource::Postgres { .. }) {
            // Only a running server can be damaged: the runbook starts it first.
            let mut world = world;
            world.damage = Some(item.name.clone());
            return self.questions(world, item, &against).await;
        }
        let Some(damage) = Damage::inflict(&world, item)? else {
            // Nothing is there that could be damaged: then nothing was recovered either.
            return Ok(Vec::new());
        };
        let result = self.questions(world, item, &against).await;
        damage.undo()?;
        result
    }

    /// Ends what the runbook started, leaves the data and its servers, and asks each probe once.
    /// Tells of those that noticed, or of all when none did.
    ///
    /// # Errors
    /// Fails when the harness fails.
    pub(crate) async fn stopped_service(
        &self,
        runner: &mut Runner<'_>,
    ) -> Result<Vec<NegativeControl>, OperationError> {
        let left = runner.end_members(Member::is_started).await?;
        if !left.is_empty() {
            return Err(cannot_end(&left));
        }
        let world = &runner.world;
        let mut controls = Vec::new();
        for probe in &world.service.acceptance.probes {
            let rendered = render_probe(probe, world.service, &world.names);
            let rendered = rendered.map_err(OperationError::below)?;
            let sample = self.prober.ask(&rendered, &ProbeSecrets::default()).await;
            let red = sample.light == Light::Red;
            controls.push(NegativeControl {
                probe: probe.name.clone(),
                against: STOPPED_SERVICE.to_owned(),
                observed: light(red),
                ok: red,
            });
        }
        if controls.iter().any(|control| control.ok) {
            controls.retain(|control| control.ok);
        }
        Ok(controls)
    }

    async fn questions(
        &self,
        world: World<'_>,
        item: &DataItem,
        against: &str,
    ) -> Result<Vec<NegativeControl>, OperationError> {
        let control = |probe: String, red: bool| NegativeControl {
            probe,
            against: against.to_owned(),
            observed: light(red),
            ok: red,
        };
        let probes = &world.service.acceptance.probes;
        let (seen, rules) = self.ask(world, Some(item)).await?;
        let rules = rules.into_iter().map(|(name, red)| control(name, red));
        let probes = probes.iter().zip(seen).map(|(probe, red)| control(probe.name.clone(), red));
        Ok(rules.chain(probes).collect())
    }

    /// Runs the runbook. Tells of each rule about `item` whether it is red, and of every probe
    /// whether it stayed red; where a rule is red already, probes need not be asked.
    async fn ask(
        &self,
        world: World<'_>,
        item: Option<&DataItem>,
    ) -> Result<(Vec<bool>, Vec<(String, bool)>), OperationError> {
        let monitor = Some(self.monitor);
        let companions = Companions { monitor, ..Companions::NONE };
        let mut runner = Runner::new(world, self.run.clone(), companions);
        let asked = self.ask_running(&mut runner, item).await;
        let left = runner.end_members(|_| true).await?;
        if !left.is_empty() {
            return Err(cannot_end(&left));
        }
        asked
    }

    async fn ask_running(
        &self,
        runner: &mut Runner<'_>,
        item: Option<&DataItem>,
    ) -> Result<(Vec<bool>, Vec<(String, bool)>), OperationError> {
        // A runbook that stops leaves no service: every probe that asks it is red. Those that
        // ask nothing of the target are found out by asking them all the same.
        let ended = runner.perform().await?;
        let mut reds = Vec::new();
        if let Some(item) = item
            && ended == Ended::Finished
        {
            let rules = completeness::ask(&runner.world, self.used, self.run)?;
            let ours = rules.iter().filter(|r| r.data == item.name && r.name != "integrity");
            reds.extend(ours.map(|rule| (rule.name.clone(), is_red(rule))));
        }
        if reds.iter().any(|(_, red)| *red) {
            return Ok((Vec::new(), reds));
        }
        let seen = match (self.listen_to(runner).await, ended) {
            (Err(OperationError::Below(_)), Ended::Failed { summary, why }) => {
                let help = "a control could not be made: mend the cause".to_owned();
                return Err(OperationError::StepFailed { summary, why, help });
            }
            (seen, _) => seen?,
        };
        let stayed_red = |tally: &Tally| tally.first_green.is_none() && tally.failures > 0;
        Ok((seen.tallies.iter().map(stayed_red).collect(), reds))
    }

    async fn listen_to(&self, runner: &Runner<'_>) -> Result<Accepted, OperationError> {
        let mut acceptance = Acceptance::start(&runner.world, self.prober)?;
        let seen = acceptance.listen_for(&runner.world, self.listen(), self.run).await;
        acceptance.stop().await;
        seen
    }
}

fn cannot_end(left: &[u32]) -> OperationError {
    OperationError::Bug { what: format!("processes {left:?} cannot be ended") }
}

fn is_red(rule: &Completeness) -> bool {
    rule.ok == Some(false)
}

fn light(red: bool) -> String {
    if red { "red" } else { "green" }.to_owned()
}

/// Damage that was done to a data item.
enum Damage {
    Sqlite(muster_sources::sqlite::Damaged),
    Files(muster_sources::files::Damaged),
}

impl Damage {
    /// Damages an item; `None` when there is nothing in it.
    fn inflict(world: &World<'_>, item: &DataItem) -> Result<Option<Self>, OperationError> {
        use muster_model::Fault as _;
        let path = world.data_path(item);
        match &item.source {
            DataSource::Sqlite { .. } => match muster_sources::sqlite::damage(&path) {
                Ok(damaged) => Ok(Some(Self::Sqlite(damaged))),
                Err(error) if error.code() == "nothing-to-damage" => Ok(None),
                Err(error) => Err(OperationError::below(error)),
            },
            DataSource::Files { .. } | DataSource::Command { .. } => {
                match muster_sources::files::damage(&world.data_dir(&item.name)) {
                    Ok(damaged) => Ok(Some(Self::Files(damaged))),
                    Err(error) if error.code() == "nothing-to-damage" => Ok(None),
                    Err(error) => Err(OperationError::below(error)),
                }
            }
            DataSource::Postgres { .. } => Ok(None),
        }
    }

    fn undo(self) -> Result<(), OperationError> {
        match self {
            Self::Sqlite(damaged) => damaged.undo().map_err(OperationError::below),
            Self::Files(damaged) => damaged.undo().map_err(OperationError::below),
        }
    }
}
