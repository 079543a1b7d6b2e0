//! Exceptions: what they waive stays visible, and they end.

use jiff::tz::TimeZone;
use muster_model::{Finding, Severity};

use super::Context;
use crate::{
    codes,
    document::Exception,
    position::{Positions, join},
    report::Report,
};

/// Makes notes of the findings that exceptions waive, and reports the exceptions that ended.
pub(super) fn apply(
    context: &Context<'_>,
    positions: &Positions,
    findings: &mut [Finding],
) -> Vec<Finding> {
    let mut report = Report::new(positions);
    let today = context.now.to_zoned(TimeZone::UTC).date();
    for (index, exception) in context.plan.exceptions.iter().enumerate() {
        if exception.until < today {
            let path = join(&positions.item("exceptions", index), "until");
            let message = format!(
                "the exception of '{}' from {} ended on {}",
                exception.service, exception.waives, exception.until
            );
            let help = "put right what it waived and take it out, or have it approved anew";
            report.add("exception-expired", &path, message, help);
            continue;
        }
        let is_waived = |finding: &&mut Finding| is_waived(exception, finding);
        findings.iter_mut().filter(is_waived).for_each(|finding| waive(exception, finding));
    }
    report.into_findings()
}

fn is_waived(exception: &Exception, finding: &Finding) -> bool {
    let service = format!("services.{}", exception.service);
    let rest = finding.path.strip_prefix(&service);
    let is_below = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let can_be =
        codes::ALL.iter().any(|entry| entry.code == exception.waives && entry.can_be_waived);
    can_be && is_below && finding.code == exception.waives && finding.severity > Severity::Note
}

fn waive(exception: &Exception, finding: &mut Finding) {
    let by = exception.approved_by.as_deref();
    let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
    finding.severity = Severity::Note;
    finding.message = format!("waived until {}{by}: {}", exception.until, finding.message);
}
