//! Whether a plan can keep its promises: schedules, copies and measured speeds against
//! objectives, without touching anything.
//!
//! Facts come from the ledger and the time from the caller, so the same plan, facts and time
//! always give the same findings. What was not measured is said to be so, and never counted as
//! nothing lost or no time taken.

mod classes;
mod copies;
mod loss;
mod objectives;
mod people;
mod proof;
mod recovery;
mod verification;
mod version;
mod waive;

use jiff::Timestamp;
use muster_model::Finding;

use crate::{
    document::{Facts, Plan, Service},
    position::Positions,
    report::{self, Report},
};

pub(crate) use copies::{protections_of, repositories_of, survives};
pub(crate) use loss::{Loss, longest_interval};
pub(crate) use objectives::percent;
pub use verification::BUDGET_DEFAULT;

/// All that a check looks at.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) facts: &'a Facts,
    pub(crate) now: Timestamp,
}

/// Judges a plan. Findings come in the order of the text; what an exception waives is left as a
/// note that says until when and by whom.
#[must_use]
pub fn assess(plan: &Plan, positions: &Positions, facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let context = Context { plan, facts, now };
    let mut report = Report::new(positions);
    objectives::check_tiers(&context, &mut report);
    version::check_repositories(&context, &mut report);
    verification::check(&context, &mut report);
    people::check_contacts(&context, &mut report);
    for service in &plan.services {
        check_service(&context, service, &mut report);
    }
    let mut findings = report.into_findings();
    let expired = waive::apply(&context, positions, &mut findings);
    findings.extend(expired);
    report::sort(&mut findings);
    findings
}

fn check_service(context: &Context<'_>, service: &Service, report: &mut Report<'_>) {
    let path = format!("services.{}", service.name);
    objectives::check(context, service, &path, report);
    version::check_service(context, service, &path, report);
    people::check_service(service, &path, report);
    classes::check(context, service, &path, report);
    copies::check(context, service, &path, report);
    loss::check(context, service, &path, report);
    recovery::check(context, service, &path, report);
    proof::check(context, service, &path, report);
}
