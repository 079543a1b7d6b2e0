//! The story of a drill or a recovery, line by line as it happens.

use std::time::Duration;

use muster_model::{
    DrillResult, Verdict,
    drill::MeasuredBy,
    units::{counted, format_duration},
};
use muster_operations::{
    report::format::{against, bound, objective, seconds},
    story::{Chapter, Listener},
};
use muster_plan::template::TargetNames;

use super::moments;
use crate::{
    error::Failure,
    output::{Output, visible},
};

/// Tells the story on standard error; the result goes to standard output.
pub(crate) struct Teller<'a> {
    output: &'a Output,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(output: &'a Output) -> Self {
        Self { output }
    }
}

impl Listener for Teller<'_> {
    fn hear(&self, chapter: &Chapter<'_>) {
        if self.output.is_json() {
            return;
        }
        if let Some(line) = line(chapter) {
            self.output.message(visible(line.as_bytes()));
        }
    }
}

/// A moment of a run: `T+ 12.3 s`.
fn at(since: Duration) -> String {
    format!("T+{:>6.1} s ", since.as_secs_f64())
}

fn line(chapter: &Chapter<'_>) -> Option<String> {
    Some(match chapter {
        Chapter::DrillStarted { number, service } => format!("drill {number} of {service}"),
        Chapter::Marking { long, every } => format!(
            "writing markers into production for {}, every {} ms",
            format_duration(*long),
            every.as_millis()
        ),
        Chapter::MarkerMissed { why } => format!("WARNING: no marker: {why}"),
        Chapter::CutOff { at } => {
            format!("T+   0.0 s  the target is cut off, {}", moments().exact(*at))
        }
        Chapter::Resumed => "going on where it was cut off".to_owned(),
        Chapter::Chosen { data, data_time, repository } => {
            format!("{data}: data of {} from {repository}", moments().moment(*data_time))
        }
        Chapter::CopySkipped { what } => format!("WARNING: another copy is taken: {what}"),
        Chapter::Standing { names, pids } => standing(names, pids),
        Chapter::StepStarted { summary, at: since } => format!("{} {summary}", at(*since)),
        Chapter::StepEnded { took, failure: None, .. } => {
            format!("             done in {}", seconds(took.as_secs_f64()))
        }
        Chapter::StepEnded { failure: Some(why), .. } => format!("             NOT DONE: {why}"),
        Chapter::Probe { name, green, at: since, detail } => {
            let light = if *green { "green" } else { "red" };
            format!("{} probe {name} is {light}: {detail}", at(*since))
        }
        Chapter::Recovered { after, hold } => format!(
            "{} recovered: every probe stayed green for {}",
            at(*after),
            format_duration(*hold)
        ),
        Chapter::StillRed { probe, detail } => format!("probe {probe} is red: {detail}"),
        Chapter::Rule(rule) => format!(
            "{} of {}: {}",
            rule.name,
            rule.data,
            match rule.ok {
                Some(true) => "as expected",
                Some(false) => "NOT as expected",
                None => "not known",
            }
        ),
        Chapter::Controls => {
            "negative controls: the same runbook over nothing, and over damaged data".to_owned()
        }
        Chapter::Judged { .. } => return None,
    })
}

/// Where a recovered service is: the first thing that its operator wants to know.
fn standing(names: &TargetNames, pids: &[u32]) -> String {
    let mut parts = vec![format!("target.url is {}", names.url), format!("in {}", names.dir)];
    for (name, data) in &names.data {
        parts.extend(data.url.iter().map(|url| format!("{name} answers at {url}")));
        parts.extend(data.path.iter().map(|path| format!("{name} is in {path}")));
    }
    if !pids.is_empty() {
        parts.push(format!("processes {pids:?} go on; kill them to stop it"));
    }
    parts.join("; ")
}

/// Prints a result.
pub(crate) fn tell(result: &DrillResult, is_drill: bool, output: &Output) -> Result<(), Failure> {
    let what = match is_drill {
        true => format!("drill {}", result.number),
        false => format!("recovery {}", result.number),
    };
    output.line(format_args!(
        "{what} of {} for {}: {}",
        visible(result.service.as_bytes()),
        result.disruption,
        verdict_word(result.verdict)
    ))?;
    for reason in &result.reasons {
        output.line(format_args!("  because {}", visible(reason.as_bytes())))?;
    }
    let time = &result.recovery_time;
    output.line(format_args!("  recovery time  {}", against(time.actual_s, time.objective_s)))?;
    for phase in &time.phases {
        let figure = match phase.source {
            MeasuredBy::NotMeasured => "not measured".to_owned(),
            MeasuredBy::Measured => phase.s.map_or_else(String::new, seconds),
            MeasuredBy::Assumed => {
                format!("{} (assumed)", phase.s.map_or_else(String::new, seconds))
            }
        };
        output.line(format_args!("    {:<9} {figure}", phase.name))?;
    }
    let loss = &result.recovery_point;
    output.line(format_args!(
        "  loss           {} (objective {})",
        bound(loss.actual_s_min, loss.actual_s_max),
        objective(loss.objective_s)
    ))?;
    tell_details(result, output)
}

fn tell_details(result: &DrillResult, output: &Output) -> Result<(), Failure> {
    if let Some(markers) = &result.markers {
        output.line(format_args!(
            "  markers        {} written, {} recovered, {} lost, {}, {}",
            markers.written,
            markers.recovered,
            markers.lost,
            counted(markers.holes, "hole"),
            counted(markers.duplicates, "duplicate")
        ))?;
    }
    for probe in &result.probes {
        let green = match probe.first_green_s {
            Some(s) => format!("green after {}", seconds(s)),
            None => "never green".to_owned(),
        };
        let red = match probe.seen_red {
            Some(true) => ", seen red in a control",
            Some(false) => ", NEVER seen red",
            None => "",
        };
        let name = visible(probe.name.as_bytes());
        output.line(format_args!("  probe          {name}: {green}{red}"))?;
    }
    for rule in &result.completeness {
        let ok = match rule.ok {
            Some(true) => "ok",
            Some(false) => "NOT ok",
            None => "not known",
        };
        let actual = rule.actual.as_deref().unwrap_or("nothing");
        output.line(format_args!(
            "  complete       {} of {}: {ok} ({})",
            rule.name,
            visible(rule.data.as_bytes()),
            visible(actual.as_bytes())
        ))?;
    }
    for finding in &result.findings {
        output.line(format_args!(
            "  found          {}: {}",
            finding.code,
            visible(finding.message.as_bytes())
        ))?;
    }
    for proof in result.isolation.iter().chain(&result.cleanup) {
        let ok = if proof.ok { "ok" } else { "NOT ok" };
        output.line(format_args!(
            "  {:<14} {}: {ok} ({})",
            "proof",
            proof.name,
            visible(proof.detail.as_bytes())
        ))?;
    }
    if let Some(evidence) = &result.evidence {
        let index = evidence.log_index.map_or_else(|| "?".to_owned(), |index| index.to_string());
        output.line(format_args!(
            "  evidence       log entry {index}, envelope {}",
            evidence.envelope_sha256
        ))?;
    }
    Ok(())
}

fn verdict_word(verdict: Verdict) -> String {
    verdict.as_str().to_uppercase()
}
