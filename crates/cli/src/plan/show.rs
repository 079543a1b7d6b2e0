//! `muster plan show`

use std::time::Duration;

use jiff::Timestamp;
use muster_model::{Disruption, Place, units::parse_duration};
use muster_operations::{error::OperationError, state::State, workspace};
use muster_plan::{
    Origin, Plan, ShownCopy, ShownObjective, ShownPolicy, ShownSchedule, ShownService, Term,
    TermSource,
    document::{Service, Strategy},
    show_for,
};

use super::{
    numbers::{percent, seconds},
    runbook, sound_plan,
};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, Results, table, visible},
    workspace::PlanArgs,
};

/// Arguments of `plan show`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Show this service only
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// The period of the downtime budgets
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = parse_duration)]
    period: Duration,
}

const EXAMPLES: &str = "What was measured comes from the state, where there is one; what was not \
is said to be so, and a
sum without it is the least that can be lost.

Examples:
  muster plan show
  muster plan show orders --period 90d
  muster plan show --json";

/// Shows the plan.
pub(crate) fn run(args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let document = sound_plan(&plan.plan_path())?;
    let state = State::open_read_only(&plan.state_path())?;
    let facts = workspace::facts(state.as_ref())?;
    let mut shown = show_for(&document, &facts, Timestamp::now(), args.period);
    if let Some(name) = &args.service {
        service(&document, name)?;
        shown.services.retain(|service| service.service == *name);
    }
    if output.is_json() {
        output.json(&shown)?;
        return Ok(Exit::Done);
    }
    let mut page = Page { results: output.results(), output };
    page.heading(&format!("{}, revision {:.12}", shown.name, shown.revision))?;
    for shown in &shown.services {
        let period = args.period.as_secs_f64();
        page.service(&document, service(&document, &shown.service)?, shown, period)?;
    }
    page.results.finish()?;
    Ok(Exit::Done)
}

fn service<'a>(plan: &'a Plan, name: &str) -> Result<&'a Service, OperationError> {
    plan.service(name).ok_or_else(|| {
        let all: Vec<&str> = plan.services.iter().map(|service| service.name.as_str()).collect();
        OperationError::NotFound {
            what: format!("a service named '{name}'"),
            help: format!("the plan has: {}", all.join(", ")),
        }
    })
}

/// What is written, from top to bottom.
struct Page<'a> {
    results: Results,
    output: &'a Output,
}

impl Page<'_> {
    fn service(
        &mut self,
        plan: &Plan,
        service: &Service,
        shown: &ShownService,
        period_s: f64,
    ) -> Result<(), Failure> {
        self.line("")?;
        self.heading(&shown.service)?;
        self.facts(service, shown, period_s)?;
        self.objectives(shown)?;
        self.schedules(shown)?;
        self.copies(shown)?;
        self.policies(shown)?;
        self.list("Runbook", runbook::steps(service))?;
        let recovered = format!("Recovered when {}", runbook::acceptance(&service.acceptance));
        self.pairs(&recovered, &runbook::questions(&service.acceptance))?;
        self.pairs("Drills", &runbook::drills(plan, &shown.service))
    }

    fn facts(
        &mut self,
        service: &Service,
        shown: &ShownService,
        period_s: f64,
    ) -> Result<(), Failure> {
        let strategy = strategy(shown.strategy);
        let owner = shown.owner.as_deref().unwrap_or("nobody");
        let tier = shown.tier.as_deref().unwrap_or("none");
        let budget = shown.availability.zip(shown.downtime_budget_s).map(|(share, budget)| {
            format!("{} in {} at {}", seconds(budget), seconds(period_s), percent(share))
        });
        let needs: Vec<String> = service.depends_on.iter().map(dependency).collect();
        let facts = [
            ("tier", Some(tier.to_owned())),
            ("stands in", place(&shown.place)),
            ("owner", Some(owner.to_owned())),
            ("strategy", Some(strategy.to_owned())),
            ("may be down", budget),
            ("needs", (!needs.is_empty()).then(|| needs.join(", "))),
        ];
        for (name, fact) in facts {
            if let Some(fact) = fact {
                self.line(&format!("  {name:<12} {fact}"))?;
            }
        }
        Ok(())
    }

    fn objectives(&mut self, shown: &ShownService) -> Result<(), Failure> {
        self.section("Objectives")?;
        if shown.objectives.is_empty() {
            return self.line("  nothing is promised");
        }
        let mut rows = table(&["disruption", "RTO", "RPO", "promised by", "copies left"]);
        for objective in &shown.objectives {
            rows.add_row([
                objective.disruption.to_string(),
                figure(objective.rto_s),
                figure(objective.rpo_s),
                promised_by(objective).to_owned(),
                visible(survivors(shown, objective.disruption).as_bytes()),
            ]);
        }
        for row in rows.to_string().lines() {
            self.results.line(format_args!("  {row}"))?;
        }
        let out: Vec<String> = shown.taken_out.iter().map(Disruption::to_string).collect();
        match out.is_empty() {
            true => Ok(()),
            false => self.line(&format!("  taken out with `none`: {}", out.join(", "))),
        }
    }

    fn schedules(&mut self, shown: &ShownService) -> Result<(), Failure> {
        self.section("Lost at worst")?;
        if shown.schedules.is_empty() {
            return self.line("  everything: nothing makes copies");
        }
        for (data, sums) in
            grouped(shown.schedules.iter().map(|line| (&*line.data, sums(shown, line))))
        {
            self.line(&format!("  {}", data.join(", ")))?;
            for sum in sums {
                let line = format!("    {}", visible(sum.text.as_bytes()));
                let line = if sum.is_kept { line } else { self.output.styled(&line, "31") };
                self.results.line(line)?;
            }
        }
        Ok(())
    }

    fn copies(&mut self, shown: &ShownService) -> Result<(), Failure> {
        let copies = grouped(shown.copies.iter().map(|line| (&*line.data, copy(line))));
        let copies = copies.into_iter();
        let copies: Vec<(String, String)> = copies
            .map(|(data, (repository, fate))| {
                (repository, format!("{}; of {}", fate, data.join(", ")))
            })
            .collect();
        self.pairs("Copies", &copies)
    }

    /// The policy that holds, with who says so.
    fn policies(&mut self, shown: &ShownService) -> Result<(), Failure> {
        let lines: Vec<(String, String)> = shown.policies.iter().map(policy).collect();
        self.pairs("Policy", &lines)
    }

    fn list(&mut self, title: &str, lines: Vec<String>) -> Result<(), Failure> {
        self.section(title)?;
        if lines.is_empty() {
            return self.line("  none");
        }
        lines.iter().try_for_each(|line| self.line(&format!("  {line}")))
    }

    fn pairs(&mut self, title: &str, pairs: &[(String, String)]) -> Result<(), Failure> {
        let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let lines = pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}"));
        self.list(title, lines.collect())
    }

    fn section(&mut self, title: &str) -> Result<(), Failure> {
        self.line("")?;
        let title = self.output.styled(&visible(title.as_bytes()), "1");
        self.results.line(format_args!("  {title}"))
    }

    fn heading(&mut self, text: &str) -> Result<(), Failure> {
        let text = self.output.styled(&visible(text.as_bytes()), "1;36");
        self.results.line(text)
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.results.line(visible(text.as_bytes()))
    }
}

fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::BackupRestore => "backup-restore",
        Strategy::PilotLight => "pilot-light",
        Strategy::WarmStandby => "warm-standby",
        Strategy::ActiveActive => "active-active",
    }
}

fn dependency(dependency: &muster_plan::document::Dependency) -> String {
    let hard = if dependency.hard { "" } else { " (soft)" };
    format!("{}{hard}", dependency.service)
}

/// `eu-west, zone a, host db1`.
fn place(place: &Place) -> Option<String> {
    let zone = place.zone.as_ref().map(|zone| format!("zone {zone}"));
    let host = place.host.as_ref().map(|host| format!("host {host}"));
    let parts: Vec<String> = [place.region.clone(), zone, host].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn figure(s: Option<f64>) -> String {
    s.map_or_else(|| "-".to_owned(), seconds)
}

fn promised_by(objective: &ShownObjective) -> &'static str {
    match (objective.rto_from, objective.rpo_from) {
        (Origin::Tier | Origin::None, Origin::Tier | Origin::None) => "tier",
        (Origin::Service | Origin::None, Origin::Service | Origin::None) => "service",
        (Origin::Service, Origin::Tier) => "service, RPO tier",
        (Origin::Tier, Origin::Service) => "tier, RPO service",
    }
}

/// The repositories that still hold a copy; by part of the data, where they differ.
fn survivors(shown: &ShownService, disruption: Disruption) -> String {
    let mut by_data: Vec<(&str, Vec<&str>)> = Vec::new();
    for copy in &shown.copies {
        if !by_data.iter().any(|(data, _)| *data == copy.data) {
            by_data.push((&copy.data, Vec::new()));
        }
        let left = by_data.iter_mut().find(|(data, _)| *data == copy.data);
        if let Some((_, left)) = left.filter(|_| copy.survives.contains(&disruption)) {
            left.push(&copy.repository);
        }
    }
    let names = |left: &[&str]| if left.is_empty() { "none".to_owned() } else { left.join(", ") };
    match by_data.as_slice() {
        [] => "none".to_owned(),
        [(_, first), rest @ ..] if rest.iter().all(|(_, left)| left == first) => names(first),
        all => {
            let parts = all.iter().map(|(data, left)| format!("{data}: {}", names(left)));
            parts.collect::<Vec<_>>().join("; ")
        }
    }
}

/// Which copies are left, for the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The repository that backups are written to.
    First,
    /// Only those that receive copies.
    CopiesOnly,
}

/// A sum, and whether the objective allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sum {
    text: String,
    is_kept: bool,
}

/// The arithmetic of a line of `protect`: where its repository survives, and where only copies
/// do.
fn sums(shown: &ShownService, schedule: &ShownSchedule) -> Vec<Sum> {
    let is_copied = shown
        .copies
        .iter()
        .any(|copy| copy.data == schedule.data && copy.repository != schedule.to);
    let mut sums = vec![sum(shown, schedule, Left::First)];
    if is_copied {
        sums.push(sum(shown, schedule, Left::CopiesOnly));
    }
    sums
}

fn sum(shown: &ShownService, schedule: &ShownSchedule, left: Left) -> Sum {
    let mut terms = vec![
        term_text("", schedule.interval, &schedule.cadence),
        term_text("longest run ", schedule.longest_run, ""),
    ];
    let mut known = vec![schedule.interval.s, schedule.longest_run.s];
    if left == Left::CopiesOnly {
        terms.push(term_text("copy lag ", schedule.copy_lag, ""));
        known.push(schedule.copy_lag.s);
    }
    let is_whole = known.iter().all(Option::is_some);
    let total: f64 = known.iter().flatten().sum();
    let rpo = tightest_rpo(shown, schedule, left);
    let when = match left {
        Left::First => format!("{} survives", schedule.to),
        Left::CopiesOnly => "only copies survive".to_owned(),
    };
    let least = if is_whole { "" } else { "at least " };
    let rpo_text = rpo.map_or_else(String::new, |rpo| compared(total, rpo, is_whole));
    let text = format!("{when}: {} = {least}{}{rpo_text}", terms.join(" + "), seconds(total));
    Sum { text, is_kept: rpo.is_none_or(|rpo| total <= rpo) }
}

/// ` ≤ RPO 5m`; while a term is unknown, only that it is too much can be said.
fn compared(total: f64, rpo: f64, is_whole: bool) -> String {
    match (total > rpo, is_whole) {
        (true, _) => format!(" > RPO {}", seconds(rpo)),
        (false, true) => format!(" ≤ RPO {}", seconds(rpo)),
        (false, false) => format!(" (RPO {})", seconds(rpo)),
    }
}

/// Parts of the data of which the same is true, together.
fn grouped<'a, T: PartialEq>(lines: impl Iterator<Item = (&'a str, T)>) -> Vec<(Vec<&'a str>, T)> {
    let mut groups: Vec<(Vec<&str>, T)> = Vec::new();
    for (data, said) in lines {
        match groups.iter_mut().find(|(_, known)| *known == said) {
            Some((all, _)) => all.push(data),
            None => groups.push((vec![data], said)),
        }
    }
    groups
}

/// A term: what the plan says of it, or its figure with where that comes from.
fn term_text(name: &str, term: Term, said: &str) -> String {
    let figure = match (term.source, term.s) {
        (TermSource::Plan, Some(s)) if said.starts_with("every ") => {
            format!("every {}", seconds(s))
        }
        (TermSource::Plan, Some(s)) => format!("{} ({said})", seconds(s)),
        (TermSource::Plan, None) => format!("unknown ({said} ends)"),
        (TermSource::Measured, Some(s)) => format!("{} (measured)", seconds(s)),
        (TermSource::Measured | TermSource::NotMeasured, _) => "(not measured)".to_owned(),
    };
    format!("{name}{figure}")
}

/// The least that may be lost, of the disruptions that leave just this much.
fn tightest_rpo(shown: &ShownService, schedule: &ShownSchedule, left: Left) -> Option<f64> {
    let survives = |is_first: bool, disruption: Disruption| {
        shown.copies.iter().any(|copy| {
            copy.data == schedule.data
                && (copy.repository == schedule.to) == is_first
                && copy.survives.contains(&disruption)
        })
    };
    let counts = |objective: &&ShownObjective| {
        let disruption = objective.disruption;
        let is_first_left = survives(true, disruption);
        disruption.effect().loses_data
            && match left {
                Left::First => is_first_left,
                Left::CopiesOnly => !is_first_left && survives(false, disruption),
            }
    };
    let rpos = shown.objectives.iter().filter(counts).filter_map(|objective| objective.rpo_s);
    rpos.min_by(f64::total_cmp)
}

fn policy(policy: &ShownPolicy) -> (String, String) {
    let name = format!("{} in {}", policy.data, policy.repository);
    let by = |from: &str| if from == "line" { String::new() } else { format!(" (by {from})") };
    let keep: Vec<String> =
        policy.keep.iter().map(|said| format!("{}{}", said.rule, by(&said.from))).collect();
    let mut text = format!("keeps {}", keep.join("; and "));
    if let (Some(within), Some(from)) = (policy.verify_within_s, &policy.verify_from) {
        text.push_str(&format!("; read back within {} (by {from})", seconds(within)));
    }
    if let Some(class) = &policy.class {
        text.push_str(&format!("; of class {class}"));
    }
    if policy.copy_from != "line" {
        text.push_str(&format!("; copied there by {}", policy.copy_from));
    }
    if !policy.residency.is_empty() {
        text.push_str(&format!("; only in {}", policy.residency.join(", ")));
    }
    (name, text)
}

fn copy(copy: &ShownCopy) -> (String, String) {
    let held = copy.immutable_s.map(|s| format!(", unchangeable for {}", seconds(s)));
    let stands = place(&copy.place).unwrap_or_else(|| "nobody knows where".to_owned());
    let survives: Vec<&str> = copy.survives.iter().map(|disruption| disruption.as_str()).collect();
    let lost: Vec<&str> = Disruption::ALL
        .iter()
        .filter(|disruption| !copy.survives.contains(disruption))
        .map(|disruption| disruption.as_str())
        .collect();
    let fate = match (survives.len(), lost.len()) {
        (_, 0) => "survives everything".to_owned(),
        (0, _) => "survives nothing".to_owned(),
        (survived, gone) if gone <= survived => format!("survives all but {}", lost.join(", ")),
        _ => format!("survives {}", survives.join(", ")),
    };
    let held = held.unwrap_or_default();
    (copy.repository.clone(), format!("{stands}{held}: {fate}"))
}
