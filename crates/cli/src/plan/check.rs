//! `muster plan check`

use jiff::Timestamp;
use muster_model::{Finding, Severity};
use muster_operations::{state::State, workspace};
use serde::Serialize;

use super::{numbers::counted, snippet::Snippets};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::{Output, visible_path},
    workspace::PlanArgs,
};

/// Arguments of `plan check`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

const EXAMPLES: &str = "Errors come first, then warnings, then notes; with --quiet errors only. \
What backups and drills
measured is taken into account where there is a state; nothing is written anywhere. The exit code \
is
2 when there is an error. docs/reference/findings.md explains every code.

Examples:
  muster plan check
  muster plan check --plan shop/muster.yaml --json
  muster plan check --quiet && git commit";

/// As `--json` prints it.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    ok: bool,
    findings: &'a [Finding],
}

/// Checks the plan.
pub(crate) fn run(_args: &Args, plan: &PlanArgs, output: &Output) -> Outcome {
    let read = workspace::read_plan(&plan.plan_path())?;
    let state = State::open_read_only(&plan.state_path())?;
    let findings = workspace::findings(&read, state.as_ref(), Timestamp::now())?;
    let ok = !findings.iter().any(|finding| finding.severity == Severity::Error);
    match output.is_json() {
        true => output.json(&Checked { ok, findings: &findings })?,
        false => print(&read, &findings, output)?,
    }
    Ok(if ok { Exit::Done } else { Exit::Usage })
}

fn print(read: &workspace::ReadPlan, findings: &[Finding], output: &Output) -> Result<(), Failure> {
    let name = visible_path(&read.path);
    let snippets = Snippets::new(&name, &without_secrets(&read.text, findings), output);
    let mut results = output.results();
    let least = if output.is_quiet() { Severity::Error } else { Severity::Note };
    for severity in [Severity::Error, Severity::Warning, Severity::Note] {
        let group = findings.iter().filter(|f| f.severity == severity && severity >= least);
        for finding in group {
            results.line(snippets.render(finding))?;
        }
    }
    let is_silent = output.is_quiet() && !findings.iter().any(|f| f.severity >= least);
    if !is_silent {
        results.line(summary(findings, &name, output))?;
    }
    results.finish()
}

/// `2 errors, 1 warning, 3 notes in muster.yaml`.
/// The text with literal secrets covered, character by character, so that no excerpt shows one:
/// also not that of a finding on the line beside it.
fn without_secrets(text: &str, findings: &[Finding]) -> String {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    for finding in findings.iter().filter(|finding| finding.code == "literal-secret") {
        if let Some(line) = lines.get_mut(finding.line.saturating_sub(1)) {
            let cover = |(index, character): (usize, char)| {
                let is_value = index + 1 >= finding.column;
                let is_shape = matches!(character, '{' | '}' | '[' | ']' | ',' | '\r');
                if is_value && !is_shape { '*' } else { character }
            };
            *line = line.chars().enumerate().map(cover).collect();
        }
    }
    lines.join("\n")
}

fn summary(findings: &[Finding], name: &str, output: &Output) -> String {
    let count = |severity: Severity| findings.iter().filter(|f| f.severity == severity).count();
    let weights =
        [(Severity::Error, "1;31"), (Severity::Warning, "1;33"), (Severity::Note, "1;36")];
    let parts = weights.map(|(severity, style)| match count(severity) {
        0 => String::new(),
        number => output.styled(&counted(number, severity.as_str()), style),
    });
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    match parts.is_empty() {
        true => format!("{name}: {}", output.styled("no findings", "1;32")),
        false => format!("{} in {name}", parts.join(", ")),
    }
}
