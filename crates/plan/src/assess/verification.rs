//! Reading back: whether everything in a repository can be, and was, within the declared period.

use jiff::SignedDuration;
use muster_model::units::{agree, counted, format_duration, format_size};

use super::Context;
use crate::{
    document::{Repository, Verify, VerifyFact},
    report::Report,
};

/// Without a budget of its own a reading in the loop takes no longer than this.
pub const BUDGET_DEFAULT: std::time::Duration = std::time::Duration::from_secs(600);

/// Judges each repository that is to be read back.
pub(super) fn check(context: &Context<'_>, report: &mut Report<'_>) {
    for repository in &context.plan.repositories {
        let Some((verify, _)) = context.plan.verify_of(&repository.name) else { continue };
        let mut facts = context.facts.verifications.iter();
        let fact = facts.find(|fact| fact.repository == repository.name);
        let path = format!("repositories.{}", repository.name);
        let path = match repository.verify {
            Some(_) => format!("{path}.verify.within"),
            None => path,
        };
        if let Some(fact) = fact {
            check_reach(repository, verify, fact, &path, report);
            check_overdue(context, verify, fact, &path, report);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a speed needs no more than 15 digits")]
fn check_reach(
    repository: &Repository,
    verify: Verify,
    fact: &VerifyFact,
    path: &str,
    report: &mut Report<'_>,
) {
    let limit = repository.limits.download.map(|limit| limit as f64);
    let speed = match (fact.bytes_per_s, limit) {
        (Some(measured), Some(limit)) => measured.min(limit),
        (measured, limit) => match measured.or(limit) {
            Some(speed) => speed,
            None => return,
        },
    };
    let budget = verify.budget.unwrap_or(BUDGET_DEFAULT).min(verify.pause());
    let times = verify.within.as_secs_f64() / verify.pause().as_secs_f64();
    let reach = speed * budget.as_secs_f64() * times;
    if reach >= fact.bytes as f64 {
        return;
    }
    let message = format!(
        "not all of {} can be read back within {}: at {:.0} kB/s, {} each {} do {:.0} % of it",
        format_size(fact.bytes),
        format_duration(verify.within),
        speed / 1000.0,
        format_duration(budget),
        format_duration(verify.pause()),
        100.0 * reach / fact.bytes as f64,
    );
    let help = "give it a larger budget, or promise a longer period";
    report.add("verify-unreachable", path, message, help);
}

fn check_overdue(
    context: &Context<'_>,
    verify: Verify,
    fact: &VerifyFact,
    path: &str,
    report: &mut Report<'_>,
) {
    let Some(since) = fact.waiting_since else { return };
    let waits = context.now.duration_since(since);
    if SignedDuration::try_from(verify.within).is_ok_and(|within| waits <= within) {
        return;
    }
    let message = format!(
        "some of it was not read back since {since}, and all is to be within {}",
        format_duration(verify.within)
    );
    let help = match fact.packs_archived {
        0 => format!("muster verify {}, and let `backup --loop` do it", fact.repository),
        packs => format!(
            "{} {} archived: `muster verify {} --warm-up` brings {} back, which is charged; or \
             leave verify out",
            counted(packs, "pack"),
            agree(packs, "is", "are"),
            fact.repository,
            agree(packs, "it", "them")
        ),
    };
    report.add("verify-overdue", path, message, help);
}
