//! All templates of a service, rendered strictly against the names that a target will have.

use muster_model::{Fault as _, ProbeCheck, Severity, Step};

use crate::{
    document::Service,
    position::join,
    report::Report,
    template::{TargetNames, TemplateError, render},
};

/// Renders every template and reports those that cannot be.
pub(super) fn check(service: &Service, path: &str, report: &mut Report<'_>) {
    let names = TargetNames::stand_in(service);
    let check = |path: &str, text: &str, report: &mut Report<'_>| {
        if let Err(error) = render(text, &names) {
            tell(&error, path, text, report);
        }
    };
    for (index, step) in service.recover.iter().enumerate() {
        let path = report.positions().item(&join(path, "recover"), index);
        for (path, text) in texts_of_step(step, &path) {
            check(&path, text, report);
        }
    }
    for probe in &service.acceptance.probes {
        let path = format!("{path}.acceptance.probes.{}", probe.name);
        for (path, text) in texts_of_check(&probe.check, &path) {
            check(&path, text, report);
        }
    }
}

fn texts_of_step<'a>(step: &'a Step, path: &str) -> Vec<(String, &'a str)> {
    let (argv, env, dir) = match step {
        Step::Restore { .. } => return Vec::new(),
        Step::Start { argv, env, dir, .. } | Step::Run { argv, env, dir, .. } => (argv, env, dir),
    };
    let mut texts = words(argv, &join(path, step.verb()));
    texts.extend(env.iter().map(|(name, text)| (format!("{path}.env.{name}"), text.as_str())));
    texts.extend(dir.iter().map(|text| (join(path, "dir"), text.as_str())));
    texts
}

fn texts_of_check<'a>(check: &'a ProbeCheck, path: &str) -> Vec<(String, &'a str)> {
    match check {
        ProbeCheck::Http { url, .. } => vec![(join(path, "http"), url)],
        ProbeCheck::Tcp { address } => vec![(join(path, "tcp"), address)],
        ProbeCheck::Sql { query, .. } => vec![(join(path, "sql"), query)],
        ProbeCheck::Command { argv, .. } => words(argv, &join(path, "command")),
    }
}

fn words<'a>(argv: &'a [String], path: &str) -> Vec<(String, &'a str)> {
    let numbered = argv.iter().enumerate();
    numbered.map(|(index, word)| (format!("{path}[{index}]"), word.as_str())).collect()
}

fn tell(error: &TemplateError, path: &str, text: &str, report: &mut Report<'_>) {
    let help = error.help().unwrap_or_default();
    let at = report.positions().of(path);
    let (at, code, message) = match error {
        TemplateError::UnknownName { name, .. } => {
            let column = report.positions().inset(path).zip(offset_of(text, name));
            let right = column.map_or(0, |(inset, offset)| inset + offset);
            let message = format!("no target has '{name}'");
            (at.right(right), "template-unknown-name", message)
        }
        TemplateError::Invalid { reason } => {
            (at, "template-invalid", format!("this is no template: {reason}"))
        }
        TemplateError::NoDatabase { .. } => return,
    };
    report.add_at(at, Severity::Error, code, path, message, help);
}

/// Where a name begins in a template of one line, in characters.
fn offset_of(text: &str, name: &str) -> Option<usize> {
    let bytes = text.find(name).filter(|_| !text.contains('\n'))?;
    text.get(..bytes).map(|before| before.chars().count())
}
