//! `muster demo`: the whole loop on this machine, in about a minute.
//!
//! All is real: the service is a process that is killed with SIGKILL, its region is a folder
//! that is deleted with the repository in it, and what protects and recovers is the code of
//! `muster backup --loop` and `muster recover`. Every figure was measured while it was told.
//!
//! Nothing stays behind, however it ends: each thing that was started or made is held by a
//! value that ends or removes it when it is dropped, and a guard does it when the demo is killed.

use std::{
    fs,
    num::NonZeroU32,
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use muster_model::{Disruption, DrillResult, units::parse_duration};
use muster_operations::{
    drill::{self, DrillRequest},
    evidence,
    looping::{self, LoopOptions, Turn},
    protect::Selection,
    recover::{self, RecoverRequest, RecoveryProposal},
    report, reporting,
    workspace::Workspace,
};
use muster_repository::run::{Cancel, Run};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{
    client::Moment,
    error::DemoError,
    guard::Guard,
    load::{Acknowledged, Load},
    outcome::{Measured, Orders, SeenOutside, seconds, verify_command},
    prober::Prober,
    production::Production,
    stage::{Stage, WEST},
    story::{BAD, Outside, Point, Story, Teller},
};
use crate::{
    error::{Failure, Outcome, Problem},
    exit::Exit,
    output::{Output, notice},
};

/// The service, in the plan.
pub(super) const SERVICE: &str = "orders";

/// Before so many recovery points are in both regions, the disaster waits.
const POINTS_MIN: usize = 3;

/// What takes longer than this on a machine that works, does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a drill writes markers of its own: the loop has written many by then.
const MARKING: Duration = Duration::from_secs(1);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Arguments of `muster demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep also the regions, the repositories and the state, to look at
    #[arg(long)]
    keep: bool,
    /// The folder to make; if it is there already, one with a number
    #[arg(long, value_name = "DIR", default_value = "muster-demo")]
    dir: PathBuf,
    /// How many orders the customers place
    #[arg(long, value_name = "N", default_value_t = Load::PER_SECOND)]
    orders_per_second: NonZeroU32,
    /// How long everything goes well
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    #[arg(hide = true)]
    protect_for: Duration,
}

/// Runs the demo.
pub(crate) fn run(args: &Args, output: &Output) -> Outcome {
    let run = Run::new();
    listen(run.cancel.clone())?;
    let stage = Stage::set(&args.dir, args.keep)?;
    let guard = Guard::start(&stage, args.keep);
    let _guard = guard.map_err(DemoError::example("start who cleans up after the demo"))?;
    let demo = Demo { args, stage: &stage, story: Story::new(output), run: &run };
    let measured = match demo.play() {
        Ok(measured) => measured,
        Err(failure) => {
            stage.clear()?;
            return Err(failure);
        }
    };
    measured.tell(&demo.story)?;
    stage.leave_results()?;
    match output.is_json() {
        true => output.json(&measured)?,
        false => output.line(&measured.verify)?,
    }
    Ok(if measured.is_met() { Exit::Done } else { Exit::Failed })
}

/// A signal asks the demo to stop and clean up; more of them do not keep it from cleaning up.
fn listen(cancel: Cancel) -> Result<(), Failure> {
    let failure = |error: std::io::Error| {
        Failure::new(Problem::SignalsUnavailable, "listen for signals").caused_by(&error)
    };
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failure)?;
    let listener = move || {
        for _ in &mut signals {
            notice("stopping; all that was started ends, and the demo's folder is removed");
            cancel.request("it was interrupted");
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(listener).map_err(failure)?;
    Ok(())
}

/// What the acts share.
struct Demo<'a> {
    args: &'a Args,
    stage: &'a Stage,
    story: Story<'a>,
    run: &'a Run,
}

/// What the loop did.
enum Deed {
    /// A recovery point is in both regions.
    Saved(Instant, Point),
    /// Something did not work.
    Trouble(String),
}

/// The disaster, as those outside saw it.
struct Struck {
    at: Moment,
    points: usize,
    rehearsal: DrillResult,
    seen_at: Moment,
}

/// What was seen of the loop so far.
struct Watch<'d> {
    deeds: &'d Receiver<Deed>,
    points: usize,
    begun: Instant,
}

impl Demo<'_> {
    /// All acts.
    fn play(&self) -> Result<Measured, Failure> {
        let began = Timestamp::now();
        let story = &self.story;
        story.plain(
            "A shop under load loses its region, is recovered in another, and the loss is\n\
             measured. All of it is real and takes about a minute. Ctrl-C stops and removes\n\
             everything.",
        )?;
        story.act("Two regions, one service")?;
        let mut production = self.open_shop()?;
        let load = Load::start(&production.url, self.args.orders_per_second);
        let mut load = load.map_err(DemoError::example("let customers order"))?;
        self.until("the first order", || load.acknowledged().pop())?;
        let per_second = self.args.orders_per_second;
        story.tell(format_args!("customers place {per_second} orders a second"))?;
        let workspace = Workspace::open(&self.stage.plan(), &self.stage.state())?;
        let struck = self.protect_until_struck(&workspace, &mut production, &load)?;
        load.stop();
        self.recover(&workspace, &load, &struck, began)
    }

    fn open_shop(&self) -> Result<Production, Failure> {
        let story = &self.story;
        self.stage.furnish()?;
        let dir = self.stage.dir().display();
        story.tell(format_args!("eu-west and eu-north in {dir} stand for two regions"))?;
        let production = Production::start(self.stage);
        let production = production.map_err(DemoError::example("start the example service"))?;
        let url = &production.url;
        story.tell(format_args!("orders, HTTP and SQLite, answers in eu-west: {url}"))?;
        Ok(production)
    }

    /// Protects until it is time for the disaster, which ends the protection too.
    fn protect_until_struck(
        &self,
        workspace: &Workspace,
        production: &mut Production,
        load: &Load,
    ) -> Result<Struck, Failure> {
        self.story.act("Protect: every 3 s into eu-west, with a copy in eu-north")?;
        let watcher = Prober::start(&production.url, Prober::EVERY);
        let watcher = watcher.map_err(DemoError::example("watch the example service"))?;
        let (host, selection) = (Run::new(), Selection::default());
        let (sender, deeds) = mpsc::channel();
        let tell = |turn: &Turn<'_>| {
            let deed = deed(turn).filter(|_| !host.cancel.is_requested());
            // If nobody listens any more, the disaster has struck.
            deed.map(|deed| sender.send(deed)).transpose().ok();
        };
        let (at, points, rehearsal) = thread::scope(|scope| {
            let ends = EndOfHost(&host);
            let looper = scope.spawn(|| looping::run(workspace, &selection, QUIET, &host, &tell));
            let mut watch = Watch { deeds: &deeds, points: 0, begun: Instant::now() };
            let has_ended = || looper.is_finished();
            self.watch_points(&mut watch, Duration::ZERO, has_ended)?;
            let rehearsal = self.rehearse(workspace, &mut watch)?;
            self.watch_points(&mut watch, self.args.protect_for, has_ended)?;
            self.story.act("Disaster: eu-west is lost")?;
            let at = Moment::now();
            self.story.strikes(at);
            production.kill().map_err(DemoError::example("kill the example service"))?;
            // What protects runs in eu-west too.
            drop(ends);
            Ok::<_, Failure>((at, watch.points, rehearsal))
        })?;
        let acknowledged = load.acknowledged().len();
        self.story.tell(format_args!("kill -9; {acknowledged} orders were acknowledged"))?;
        self.stage.lose(WEST)?;
        self.story.tell(format_args!(
            "{}: database, uploads and repository of eu-west",
            self.story.paint("deleted", BAD)
        ))?;
        let red = || watcher.first_red_after(at.instant);
        let seen_at = self.until("the service to be gone", red)?;
        self.until("a customer without an answer", || load.first_failure_at())?;
        let after = seen_at.instant.duration_since(at.instant).as_secs_f64();
        self.story.tell(format_args!("outside, the shop was seen to be down at T+{after:.2} s"))?;
        Ok(Struck { at, points, rehearsal, seen_at })
    }

    /// Tells of recovery points until there are enough, and it went well for so long.
    fn watch_points(
        &self,
        watch: &mut Watch<'_>,
        long: Duration,
        has_ended: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        let mut trouble = None;
        while watch.points < POINTS_MIN || watch.begun.elapsed() < long {
            self.go_on()?;
            if watch.points < POINTS_MIN && watch.begun.elapsed() > PATIENCE {
                return Err(late("three recovery points", trouble).into());
            }
            match watch.deeds.recv_timeout(LOOK) {
                Ok(deed) => trouble = self.tell_deed(deed, &mut watch.points)?.or(trouble),
                Err(RecvTimeoutError::Timeout) if !has_ended() => {}
                Err(_) => return Err(late("the protection, which ended", trouble).into()),
            }
        }
        Ok(())
    }

    /// Tells what the loop did; gives back what did not work.
    fn tell_deed(&self, deed: Deed, points: &mut usize) -> Result<Option<String>, Failure> {
        match deed {
            Deed::Saved(at, point) => {
                *points += 1;
                self.story.point(at, *points, &point).map(|()| None)
            }
            Deed::Trouble(why) => self.story.tell(&why).map(|()| Some(why)),
        }
    }

    /// Holds a drill while the service serves and its protection goes on.
    fn rehearse(
        &self,
        workspace: &Workspace,
        watch: &mut Watch<'_>,
    ) -> Result<DrillResult, Failure> {
        self.story.act("Rehearse: a drill of the same loss, beside the running service")?;
        let request = DrillRequest {
            service: SERVICE.to_owned(),
            disruption: Disruption::RegionLoss,
            at: None,
            point: None,
            marking: MARKING,
        };
        let teller = Teller::new(&self.story, workspace, self.run);
        let result = drill::run(workspace, &request, &teller, self.run);
        teller.failure()?;
        let result = result?;
        self.go_on()?;
        self.story.act("The loop went on meanwhile, and goes on")?;
        for deed in watch.deeds.try_iter() {
            self.tell_deed(deed, &mut watch.points)?;
        }
        Ok(result)
    }

    fn recover(
        &self,
        workspace: &Workspace,
        load: &Load,
        struck: &Struck,
        began: Timestamp,
    ) -> Result<Measured, Failure> {
        let story = &self.story;
        story.act("Recover in eu-north")?;
        let request = RecoverRequest {
            service: SERVICE.to_owned(),
            disruption: Some(Disruption::RegionLoss),
            at: None,
            point: None,
            site: Some(self.stage.site()),
            impact: Some(struck.at.timestamp),
            cut_off: recover::CutOff::Unknown,
        };
        let proposal = recover::propose(workspace, &request)?;
        self.tell_choice(&proposal, struck)?;
        let recovered = RecoveredService(workspace);
        let teller = Teller::new(story, workspace, self.run);
        let result = recover::recover(workspace, &request, proposal, &teller, self.run);
        let outside = teller.outside()?;
        let result = result?;
        let orders = self.ask_for_orders(load, &outside)?;
        let outside = self.seen(outside, struck);
        drop(recovered);
        story.act("Evidence")?;
        let measured = Measured {
            dir: self.shown(""),
            impact: struck.at.timestamp,
            points_copied: struck.points,
            orders,
            outside,
            rehearsal: struck.rehearsal.clone(),
            recovery: result,
            plan: self.stage.plan().display().to_string(),
            report: self.shown("report.html"),
            evidence: self.shown("evidence.tar"),
            key: self.shown("ledger.pub"),
            verify: verify_command(
                &self.stage.path("evidence.tar"),
                &self.stage.path("ledger.pub"),
            ),
        };
        self.write_down(workspace, began)?;
        Ok(measured)
    }

    fn tell_choice(&self, proposal: &RecoveryProposal, struck: &Struck) -> Result<(), Failure> {
        for warning in &proposal.warnings {
            let first = warning.split(": ").next().unwrap_or(warning);
            self.story.tell(first)?;
        }
        for point in &proposal.points {
            let age = struck.at.timestamp.duration_since(point.data_time).as_secs_f64();
            self.story.tell(format_args!(
                "newest copy of {} in {}: {age:.1} s older than the disaster",
                point.data, point.repository
            ))?;
        }
        Ok(())
    }

    /// Shows every receipt to the recovered shop.
    fn ask_for_orders(&self, load: &Load, outside: &Outside) -> Result<Orders, Failure> {
        self.go_on()?;
        let acknowledged = load.acknowledged().len();
        let missing = load.missing(&outside.url);
        let missing: Vec<Acknowledged> =
            missing.map_err(DemoError::example("ask the recovered shop for its orders"))?;
        self.story.tell(format_args!(
            "the customers show {acknowledged} receipts; the shop knows {}",
            acknowledged - missing.len()
        ))?;
        Ok(Orders {
            acknowledged,
            unanswered: load.failed(),
            recovered: acknowledged - missing.len(),
            lost: missing.into_iter().map(Into::into).collect(),
        })
    }

    fn seen(&self, mut outside: Outside, struck: &Struck) -> SeenOutside {
        outside.prober.stop();
        let green = outside.prober.first_green_after(struck.at.instant);
        SeenOutside {
            first_red_s: seconds(struck.at, Some(struck.seen_at)),
            first_green_s: seconds(struck.at, green),
        }
    }

    /// Writes the bundle, the key to trust, and the report.
    fn write_down(&self, workspace: &Workspace, began: Timestamp) -> Result<(), Failure> {
        self.go_on()?;
        let bundle = self.stage.path("evidence.tar");
        let exported = evidence::export(&workspace.state, &bundle, &[])?;
        drop(exported);
        let key = self.stage.path("ledger.pub");
        let copied = fs::copy(evidence::public_key(&workspace.state), &key);
        copied.map_err(DemoError::folder(key))?;
        self.story.tell("the ledger is signed, and exported with all that happened")?;
        let page = report::html::render(&reporting::gather(workspace, began)?);
        let path = self.stage.path("report.html");
        fs::write(&path, page).map_err(DemoError::folder(path))?;
        self.story.tell("the report is written; the recovered service is stopped")?;
        self.go_on()
    }

    /// A path in the demo's folder, to be shown.
    fn shown(&self, name: &str) -> String {
        match name {
            "" => self.stage.dir().display().to_string(),
            _ => self.stage.path(name).display().to_string(),
        }
    }

    /// Fails when somebody wants the demo to stop.
    fn go_on(&self) -> Result<(), Failure> {
        self.run
            .cancel
            .check()
            .map_err(|why| Failure::new(Problem::Interrupted, "finish the demo").caused_by(&why))
    }

    /// Waits until there is something to see.
    fn until<T>(
        &self,
        what: &'static str,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        loop {
            if let Some(seen) = look() {
                return Ok(seen);
            }
            self.go_on()?;
            if begun.elapsed() > PATIENCE {
                return Err(late(what, None).into());
            }
            thread::park_timeout(LOOK);
        }
    }
}

fn late(what: &'static str, trouble: Option<String>) -> DemoError {
    let why = trouble.unwrap_or_else(|| "nothing was told".to_owned());
    DemoError::Late { what, waited_s: PATIENCE.as_secs(), source: std::io::Error::other(why) }
}

/// A minute's backups all stay.
const QUIET: LoopOptions = LoopOptions { no_keep: true };

/// What there is to tell of a turn of the loop.
fn deed(turn: &Turn<'_>) -> Option<Deed> {
    match turn {
        Turn::Ran { report, .. } => match Point::of(report) {
            Some(point) => Some(Deed::Saved(Instant::now(), point)),
            None => {
                let backups = report.backups.iter().filter_map(|backup| backup.error.clone());
                let copies = report.copies.iter().filter_map(|copy| copy.error.clone());
                Some(Deed::Trouble(backups.chain(copies).next()?))
            }
        },
        Turn::Failed { error, .. } | Turn::Markers { error: Some(error), .. } => {
            Some(Deed::Trouble(error.one_line()))
        }
        Turn::Missed { .. }
        | Turn::Kept { .. }
        | Turn::Verified { .. }
        | Turn::Markers { error: None, .. } => None,
    }
}

/// Ends what protects when it is dropped, so that nobody waits for it for ever.
struct EndOfHost<'r>(&'r Run);

impl Drop for EndOfHost<'_> {
    fn drop(&mut self) {
        self.0.cancel.request("its host is lost");
    }
}

/// Ends the recovered service when it is dropped.
struct RecoveredService<'w>(&'w Workspace);

impl Drop for RecoveredService<'_> {
    fn drop(&mut self) {
        if let Err(error) = recover::stop(self.0, SERVICE) {
            notice(format_args!("the recovered service may still run: {}", error.one_line()));
        }
    }
}
