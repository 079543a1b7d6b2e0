//! What a plan means, spelled out: which objectives stand, what may be down, what would be
//! lost at worst, and which copies survive what.
//!
//! The terms of each sum stand apart, with where each comes from. What was not measured is
//! `None`, never zero.

use std::time::Duration;

use jiff::Timestamp;
use muster_model::{Disruption, Place};
use serde::Serialize;

use crate::{
    assess::{Loss, protections_of, repositories_of, survives},
    document::{DataItem, Facts, Plan, Protection, Service, Strategy},
    tiers::{BUDGET_PERIOD, downtime_budget},
};

/// A plan spelled out, as `plan show --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text, in hex.
    pub revision: String,
    /// The period of the downtime budgets.
    pub period_s: f64,
    /// Its services, in its order.
    pub services: Vec<ShownService>,
}

/// A service spelled out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownService {
    /// Its name.
    pub service: String,
    /// Its tier.
    pub tier: Option<String>,
    /// Where it runs.
    #[serde(flatten)]
    pub place: Place,
    /// Who answers for it.
    pub owner: Option<String>,
    /// How it is recovered.
    pub strategy: Strategy,
    /// Availability as a fraction, by its tier.
    pub availability: Option<f64>,
    /// How long it may be down in the period.
    pub downtime_budget_s: Option<f64>,
    /// The objectives that stand.
    pub objectives: Vec<ShownObjective>,
    /// Disruptions that `none` took out.
    pub taken_out: Vec<Disruption>,
    /// What each line of `protect` can lose at worst.
    pub schedules: Vec<ShownSchedule>,
    /// Where copies stand, and what they survive.
    pub copies: Vec<ShownCopy>,
    /// The policy that holds for each part of the data, with where it comes from.
    pub policies: Vec<ShownPolicy>,
}

/// An objective.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownObjective {
    /// For what.
    pub disruption: Disruption,
    /// Recovery time.
    pub rto_s: Option<f64>,
    /// Recovery point.
    pub rpo_s: Option<f64>,
    /// Whose the recovery time is.
    pub rto_from: Origin,
    /// Whose the recovery point is.
    pub rpo_from: Origin,
}

/// Where an objective comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The tier's figure.
    Tier,
    /// The service's own.
    Service,
    /// There is none.
    None,
}

/// Where a term of a sum comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TermSource {
    /// The plan says so.
    Plan,
    /// It was measured.
    Measured,
    /// It was not measured.
    NotMeasured,
}

/// A term of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Term {
    /// Seconds; `None` when nobody knows.
    pub s: Option<f64>,
    /// Where it comes from.
    pub source: TermSource,
}

/// What a line of `protect` can lose of one part of the data at worst.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownSchedule {
    /// The part of the data.
    pub data: String,
    /// When it runs, for people.
    pub cadence: String,
    /// The repository that is written.
    pub to: String,
    /// The longest time between two runs; unknown when the schedule ends.
    pub interval: Term,
    /// The longest run.
    pub longest_run: Term,
    /// The longest way of a copy.
    pub copy_lag: Term,
    /// The sum where the first repository survives; `None` while a term is unknown.
    pub worst_s: Option<f64>,
    /// The sum where only copies survive; `None` while a term is unknown, or without copies.
    pub worst_by_copy_s: Option<f64>,
}

/// A copy of one part of the data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownCopy {
    /// The part of the data.
    pub data: String,
    /// The repository.
    pub repository: String,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// For how long nobody can change it.
    pub immutable_s: Option<f64>,
    /// What it survives.
    pub survives: Vec<Disruption>,
}

/// What holds for one part of the data in one repository, and who says so.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownPolicy {
    /// The part of the data.
    pub data: String,
    /// Its class.
    pub class: Option<String>,
    /// The repository.
    pub repository: String,
    /// `line`, or `class NAME` when only a class sends it there.
    pub copy_from: String,
    /// What is kept, in the plan's words; what any of them keeps stays. `everything` when a line
    /// has no `keep`.
    pub keep: Vec<Said>,
    /// Everything is read back at least this often.
    pub verify_within_s: Option<f64>,
    /// `repository`, or `class NAME`.
    pub verify_from: Option<String>,
    /// The only regions where it may be; empty allows all.
    pub residency: Vec<String>,
}

/// A rule, and who says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Said {
    /// The rule, in the plan's words.
    pub rule: String,
    /// `line`, or `class NAME`.
    pub from: String,
}

/// Spells a plan out, with what was measured.
#[must_use]
pub fn show(plan: &Plan, facts: &Facts, now: Timestamp) -> Shown {
    show_for(plan, facts, now, BUDGET_PERIOD)
}

/// Spells a plan out with downtime budgets of another period.
#[must_use]
pub fn show_for(plan: &Plan, facts: &Facts, now: Timestamp, period: Duration) -> Shown {
    let services = plan.services.iter();
    Shown {
        name: plan.name.clone(),
        revision: plan.revision.clone(),
        period_s: period.as_secs_f64(),
        services: services
            .map(|service| show_service(plan, service, (facts, now), period))
            .collect(),
    }
}

fn show_service(
    plan: &Plan,
    service: &Service,
    measured: (&Facts, Timestamp),
    period: Duration,
) -> ShownService {
    let availability = plan.tier_of(service).and_then(|tier| tier.availability);
    let budget = availability.map(|availability| downtime_budget(availability, period));
    let items = || service.data.iter();
    ShownService {
        service: service.name.clone(),
        tier: service.tier.clone(),
        place: service.place.clone(),
        owner: service.owner.clone(),
        strategy: service.strategy,
        availability,
        downtime_budget_s: budget.map(|budget| budget.as_secs_f64()),
        objectives: objectives(plan, service),
        taken_out: service.no_objective.clone(),
        schedules: items().flat_map(|item| schedules(service, item, measured)).collect(),
        copies: items().flat_map(|item| copies(plan, service, item)).collect(),
        policies: items().flat_map(|item| policies(plan, service, item)).collect(),
    }
}

fn objectives(plan: &Plan, service: &Service) -> Vec<ShownObjective> {
    let tier = plan.tier_of(service);
    let of_tier = (tier.and_then(|tier| tier.rto), tier.and_then(|tier| tier.rpo));
    let origin = |own: Option<Duration>, of_tier: Option<Duration>| match own {
        None => Origin::None,
        Some(_) if own == of_tier => Origin::Tier,
        Some(_) => Origin::Service,
    };
    let standing = service.objectives.iter();
    let shown = standing.map(|(disruption, objective)| ShownObjective {
        disruption: *disruption,
        rto_s: objective.rto.map(|rto| rto.as_secs_f64()),
        rpo_s: objective.rpo.map(|rpo| rpo.as_secs_f64()),
        rto_from: origin(objective.rto, of_tier.0),
        rpo_from: origin(objective.rpo, of_tier.1),
    });
    shown.collect()
}

fn schedules(
    service: &Service,
    item: &DataItem,
    measured: (&Facts, Timestamp),
) -> Vec<ShownSchedule> {
    let lines = protections_of(service, &item.name);
    lines.map(|(_, line)| schedule(service, item, line, measured)).collect()
}

fn schedule(
    service: &Service,
    item: &DataItem,
    line: &Protection,
    measured: (&Facts, Timestamp),
) -> ShownSchedule {
    let loss = Loss::of(line, (&service.name, &item.name), true, measured);
    let interval = loss.map(|loss| loss.interval);
    let (run, lag) = (loss.and_then(|loss| loss.run), loss.and_then(|loss| loss.lag));
    let worst = interval.zip(run).map(|(interval, run)| interval.saturating_add(run));
    let by_copy = worst.zip(lag).map(|(worst, lag)| worst.saturating_add(lag));
    ShownSchedule {
        data: item.name.clone(),
        cadence: line.cadence.to_string(),
        to: line.to.clone(),
        interval: Term { s: interval.map(|s| s.as_secs_f64()), source: TermSource::Plan },
        longest_run: term(run),
        copy_lag: term(lag),
        worst_s: worst.map(|worst| worst.as_secs_f64()),
        worst_by_copy_s: by_copy.filter(|_| !line.copy.is_empty()).map(|worst| worst.as_secs_f64()),
    }
}

fn term(measured: Option<Duration>) -> Term {
    let source = if measured.is_some() { TermSource::Measured } else { TermSource::NotMeasured };
    Term { s: measured.map(|duration| duration.as_secs_f64()), source }
}

fn copies(plan: &Plan, service: &Service, item: &DataItem) -> Vec<ShownCopy> {
    let lines = protections_of(service, &item.name);
    let repositories = lines.flat_map(|(_, line)| repositories_of(plan, line));
    let mut shown: Vec<ShownCopy> = Vec::new();
    for (_, repository) in repositories {
        if shown.iter().any(|copy| copy.repository == repository.name) {
            continue;
        }
        let all = Disruption::ALL.into_iter();
        shown.push(ShownCopy {
            data: item.name.clone(),
            repository: repository.name.clone(),
            place: repository.place.clone(),
            immutable_s: repository.immutable.map(|immutable| immutable.as_secs_f64()),
            survives: all.filter(|disruption| survives(*disruption, repository, service)).collect(),
        });
    }
    shown
}

fn policies(plan: &Plan, service: &Service, item: &DataItem) -> Vec<ShownPolicy> {
    let class = plan.class_of(item);
    let mut shown: Vec<ShownPolicy> = Vec::new();
    for (_, line) in protections_of(service, &item.name) {
        for (_, repository) in repositories_of(plan, line) {
            if shown.iter().any(|policy| policy.repository == repository.name) {
                continue;
            }
            let by_class = line.copy_of_class.iter().find(|(copy, _)| *copy == repository.name);
            let verify = plan.verify_of(&repository.name);
            shown.push(ShownPolicy {
                data: item.name.clone(),
                class: item.class.clone(),
                repository: repository.name.clone(),
                copy_from: by_class.map_or("line".to_owned(), |(_, class)| of_class(class)),
                keep: said(plan, service, item, &repository.name),
                verify_within_s: verify.as_ref().map(|(verify, _)| verify.within.as_secs_f64()),
                verify_from: verify.map(|(_, classes)| match classes.first() {
                    Some(class) => of_class(class),
                    None => "repository".to_owned(),
                }),
                residency: class.map(|class| class.residency.clone()).unwrap_or_default(),
            });
        }
    }
    shown
}

fn of_class(name: &str) -> String {
    format!("class {name}")
}

fn said(plan: &Plan, service: &Service, item: &DataItem, repository: &str) -> Vec<Said> {
    let class = plan.class_of(item);
    let Some(keeps) = plan.keeps(service, item, repository) else {
        return vec![Said { rule: "everything".to_owned(), from: "line".to_owned() }];
    };
    let is_of_class = |keep| class.is_some_and(|class| std::ptr::eq(keep, &raw const class.keep));
    let from = |keep| match (is_of_class(keep), class) {
        (true, Some(class)) => of_class(&class.name),
        _ => "line".to_owned(),
    };
    let said = keeps.into_iter().map(|keep| Said { rule: keep.to_string(), from: from(keep) });
    said.collect()
}
