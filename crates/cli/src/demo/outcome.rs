//! What the demo measured, and how it is told at the end.

use std::{borrow::Cow, path::Path, time::Duration};

use jiff::Timestamp;
use muster_model::{
    DrillResult, Verdict,
    units::{agree, counted},
};
use serde::Serialize;

use super::{
    client::Moment,
    load::Acknowledged,
    story::{BAD, GOOD, HEADING, Story},
};
use crate::error::Failure;

/// Lost orders that are named on the terminal; JSON names all.
const NAMED_MAX: usize = 10;

/// An order that was acknowledged and is not there.
#[derive(Debug, Serialize)]
pub(super) struct LostOrder {
    number: String,
    acknowledged_at: Timestamp,
}

impl From<Acknowledged> for LostOrder {
    fn from(order: Acknowledged) -> Self {
        Self { number: order.number, acknowledged_at: order.at.timestamp }
    }
}

/// What the customers know.
#[derive(Debug, Serialize)]
pub(super) struct Orders {
    /// Orders that were acknowledged before the disaster.
    pub(super) acknowledged: usize,
    /// Orders that were sent and not acknowledged: some may have been placed all the same.
    pub(super) unanswered: u64,
    /// Of those acknowledged, those that the recovered service has.
    pub(super) recovered: usize,
    /// Of these, those that it has not.
    pub(super) lost: Vec<LostOrder>,
}

/// What somebody saw who had no part in the recovery; since the disaster.
#[derive(Debug, Serialize)]
pub(super) struct SeenOutside {
    /// The service in the lost region did not answer.
    pub(super) first_red_s: Option<f64>,
    /// The recovered one is well.
    pub(super) first_green_s: Option<f64>,
}

/// Seconds from one moment to another.
pub(super) fn seconds(from: Moment, to: Option<Moment>) -> Option<f64> {
    to.map(|to| to.instant.duration_since(from.instant).as_secs_f64())
}

/// All that was measured, the object of `demo --json`.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// The folder.
    pub(super) dir: String,
    /// The disaster.
    pub(super) impact: Timestamp,
    /// Recovery points that were in both regions by then.
    pub(super) points_copied: usize,
    /// What the customers know.
    pub(super) orders: Orders,
    /// What was seen from outside.
    pub(super) outside: SeenOutside,
    /// What the drill before it found.
    pub(super) rehearsal: DrillResult,
    /// What Muster measured.
    pub(super) recovery: DrillResult,
    /// The plan.
    pub(super) plan: String,
    /// The report.
    pub(super) report: String,
    /// The bundle of evidence.
    pub(super) evidence: String,
    /// The key to trust.
    pub(super) key: String,
    /// The command that checks the evidence.
    pub(super) verify: String,
}

/// The command that checks a bundle.
pub(super) fn verify_command(bundle: &Path, key: &Path) -> String {
    let (bundle, key) = (bundle.display().to_string(), key.display().to_string());
    format!("muster evidence verify {} --trust {}", word(&bundle), word(&key))
}

/// A text as one word of a shell.
fn word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%:,=".contains(c);
    match !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', r"'\''")).into(),
    }
}

impl Measured {
    /// Whether the objectives were met.
    pub(super) fn is_met(&self) -> bool {
        [&self.rehearsal, &self.recovery].iter().all(|result| result.verdict == Verdict::Pass)
    }

    /// Tells the figures, except the command that checks them.
    pub(super) fn tell(&self, story: &Story<'_>) -> Result<(), Failure> {
        story.act("Result")?;
        self.tell_time(story)?;
        self.tell_loss(story)?;
        self.tell_orders(story)?;
        for reason in self.rehearsal.reasons.iter().chain(&self.recovery.reasons) {
            row(story, "Missed", &story.paint(reason, BAD))?;
        }
        row(story, "Plan", &self.plan)?;
        row(story, "Report", &self.report)?;
        row(story, "Evidence", &format!("{}, signed; anybody can check it:", self.evidence))?;
        story.plain("")
    }

    fn tell_time(&self, story: &Story<'_>) -> Result<(), Failure> {
        let time = &self.recovery.recovery_time;
        let actual = time.actual_s.map_or("never".to_owned(), |s| format!("{s:.2} s"));
        let verdict = judged(story, time.actual_s, time.objective_s);
        row(story, "Recovery time", &figures(&actual, time.objective_s, &verdict))?;
        let phases = time.phases.iter().filter_map(|phase| Some((&phase.name, phase.s?)));
        let parts: Vec<String> = phases.map(|(name, s)| format!("{name} {s:.2}")).collect();
        // Four fit in a line of 80 columns.
        let (first, more) = parts.split_at(parts.len().min(4));
        let plus = if more.is_empty() { "" } else { " +" };
        row(story, "", &format!("{}{plus}", first.join(" + ")))?;
        if !more.is_empty() {
            row(story, "", &more.join(" + "))?;
        }
        match (self.outside.first_green_s, time.actual_s) {
            (Some(seen), Some(actual)) => row(
                story,
                "",
                &format!(
                    "somebody outside saw it green {:.0} ms {}",
                    (seen - actual).abs() * 1e3,
                    if seen < actual { "earlier" } else { "later" },
                ),
            ),
            _ => Ok(()),
        }
    }

    fn tell_loss(&self, story: &Story<'_>) -> Result<(), Failure> {
        let loss = &self.recovery.recovery_point;
        let actual = match (loss.actual_s_min, loss.actual_s_max) {
            (Some(min), Some(max)) => format!("{min:.2} to {max:.2} s lost"),
            _ => "not measured".to_owned(),
        };
        let verdict = judged(story, loss.actual_s_max, loss.objective_s);
        row(story, "Recovery point", &figures(&actual, loss.objective_s, &verdict))?;
        let Some(markers) = &self.recovery.markers else { return Ok(()) };
        let (written, recovered, lost) = (markers.written, markers.recovered, markers.lost);
        let (written, are) = (counted(written, "marker"), agree(lost, "is", "are"));
        row(story, "", &format!("of {written} {recovered} came back, {lost} {are} lost"))
    }

    fn tell_orders(&self, story: &Story<'_>) -> Result<(), Failure> {
        let Orders { acknowledged, recovered, lost, .. } = &self.orders;
        let lost_count = story.paint(&format!("{} lost", lost.len()), HEADING);
        let text = format!("{acknowledged} acknowledged, {recovered} came back, {lost_count}");
        row(story, "Orders", &text)?;
        let names: Vec<&str> = lost.iter().map(|o| o.number.as_str()).take(NAMED_MAX).collect();
        for line in names.chunks(5) {
            let is_last = line.last() == names.last();
            let more = match lost.len() - names.len() {
                more @ 1.. if is_last => format!(" and {more} more"),
                _ => String::new(),
            };
            row(story, "", &format!("{}{more}", line.join(" ")))?;
        }
        Ok(())
    }
}

fn row(story: &Story<'_>, name: &str, text: &str) -> Result<(), Failure> {
    story.plain(format_args!("  {name:<15} {text}"))
}

/// An actual figure beside its objective.
fn figures(actual: &str, objective_s: Option<f64>, verdict: &str) -> String {
    let objective = objective_s.and_then(|s| Duration::try_from_secs_f64(s).ok());
    let objective = objective.map_or("none".to_owned(), whole);
    format!("{actual:<22} objective {objective:<8} {verdict}")
}

/// An objective, which is a whole number of minutes or seconds here.
fn whole(objective: Duration) -> String {
    match objective.as_secs() {
        seconds if seconds > 0 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

fn judged(story: &Story<'_>, actual_s: Option<f64>, objective_s: Option<f64>) -> String {
    match (actual_s, objective_s) {
        (Some(actual), Some(objective)) if actual <= objective => story.paint("met", GOOD),
        (_, Some(_)) => story.paint("missed", BAD),
        (_, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_pasted() {
        let check = |folder: &str, expected: &str| {
            let folder = Path::new(folder);
            let command = verify_command(&folder.join("a.tar"), &folder.join("k.pub"));
            assert_eq!(command, format!("muster evidence verify {expected}"));
        };
        check("muster-demo", "muster-demo/a.tar --trust muster-demo/k.pub");
        check("my demo", "'my demo/a.tar' --trust 'my demo/k.pub'");
        check("a'b", r"'a'\''b/a.tar' --trust 'a'\''b/k.pub'");
    }
}
