//! What this version reads and does not do yet. It is never passed over in silence: an error
//! where an objective leans on it, a note elsewhere.

use muster_model::{Disruption, Severity, disruption::Survivors};

use super::Context;
use crate::{
    document::{Repository, Service, Strategy},
    position::join,
    report::Report,
};

const CODE: &str = "not-in-this-version";

/// Finds repositories whose stores this version cannot make immutable.
pub(super) fn check_repositories(context: &Context<'_>, report: &mut Report<'_>) {
    for repository in &context.plan.repositories {
        let path = format!("repositories.{}", repository.name);
        if repository.immutable.is_some() && repository.held_for().is_none() {
            let by_harm =
                |disruption: Disruption| disruption.effect().survivors == Survivors::Immutable;
            let severity = weight(leans(context, repository, by_harm));
            let message = "this store cannot be made immutable: who can write it, or runs it, can \
                           change its copies; they do not count as immutable";
            let help = "take this out, or use a bucket of S3 that was made with Object Lock";
            report.add_as(severity, CODE, &join(&path, "immutable"), message, help);
        }
    }
}

fn weight(leans: bool) -> Severity {
    if leans { Severity::Error } else { Severity::Note }
}

/// Whether a service that writes the repository promises something for such a disruption.
fn leans(
    context: &Context<'_>,
    repository: &Repository,
    which: impl Fn(Disruption) -> bool,
) -> bool {
    context.plan.services.iter().any(|service| {
        let writes = service
            .protect
            .iter()
            .any(|line| line.to == repository.name || line.copy.contains(&repository.name));
        writes && service.objectives.keys().any(|disruption| which(*disruption))
    })
}

/// Finds what a service asks for that this version does not do.
pub(super) fn check_service(
    _: &Context<'_>,
    service: &Service,
    path: &str,
    report: &mut Report<'_>,
) {
    if service.strategy != Strategy::BackupRestore {
        let severity = weight(!service.objectives.is_empty());
        let message = "this version recovers from backups only";
        let help = "write strategy: backup-restore, or leave it out";
        report.add_as(severity, CODE, &join(path, "strategy"), message, help);
    }
}
