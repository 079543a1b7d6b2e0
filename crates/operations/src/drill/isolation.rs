//! Is the target apart from production? Proven, not assumed.

use std::{path::PathBuf, time::Duration};

use muster_control::choice::Blocker;
use muster_drivers::{
    isolation::{Monitor, Monitored, Observer, Production, shares_directory},
    probe::{ProbeSecrets, Prober},
    process::can_hide,
};
use muster_model::{Light, ProbeCheck, Step, drill::Proof};
use muster_plan::{
    document::{DataSource, Service},
    template::{TargetData, TargetNames, render_probe},
};

use crate::{
    hands,
    run::{Runner, Surroundings},
    workspace::Workspace,
};

/// Production, as the plan knows it: where its data lies and where it answers. All services
/// count, not only the one that is rehearsed.
pub(crate) fn production(workspace: &Workspace) -> Production {
    let items = || workspace.plan.services.iter().flat_map(|service| &service.data);
    let named = items().flat_map(|item| workspace.production_paths(item));
    let told = items().filter_map(|item| hands::server_folder(workspace, item));
    Production {
        paths: named.chain(told).collect(),
        endpoints: items().flat_map(hands::endpoints).collect(),
    }
}

/// What in the runbook or the target would touch production: a drill is refused for it.
pub(crate) fn blockers(
    workspace: &Workspace,
    service: &Service,
    target: &std::path::Path,
) -> Vec<Blocker> {
    let production = production(workspace);
    let mut blockers: Vec<Blocker> = named_in_runbook(service, &production)
        .into_iter()
        .map(|(step, what)| Blocker {
            code: "runbook-names-production",
            message: format!("step `{step}` names {what}, which is production's"),
            help: "use `{{ target.data.NAME.path }}` or `{{ target.data.NAME.url }}`".to_owned(),
        })
        .collect();
    if let Some(shared) = shares_directory(target, &production.paths) {
        blockers.push(Blocker {
            code: "target-in-production",
            message: format!("the target {} shares {}", target.display(), shared.display()),
            help: "choose a state folder (--state) apart from the data".to_owned(),
        });
    }
    blockers
}

/// Steps whose text names a path or an endpoint of production.
fn named_in_runbook(service: &Service, production: &Production) -> Vec<(String, String)> {
    let real = production.paths.iter().filter_map(|path| std::fs::canonicalize(path).ok());
    let mut paths: Vec<PathBuf> = production.paths.iter().cloned().chain(real).collect();
    paths.sort();
    paths.dedup();
    let mut named: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    named.extend(production.endpoints.iter().map(|(host, port)| format!("{host}:{port}")));
    let mut found = Vec::new();
    for step in &service.recover {
        let (Step::Start { argv, env, .. } | Step::Run { argv, env, .. }) = step else { continue };
        let texts = || argv.iter().chain(env.iter().map(|(_, value)| value));
        let is_named = |what: &&String| texts().any(|text| names(text, what));
        found.extend(named.iter().filter(is_named).map(|what| (step.summary(), what.clone())));
    }
    found
}

/// Whether `text` holds `what`, not as the beginning of a longer name.
fn names(text: &str, what: &str) -> bool {
    text.match_indices(what).any(|(at, _)| {
        let next = text[at + what.len()..].chars().next();
        !next.is_some_and(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
    })
}

/// Between two looks at what the processes of a drill have open.
const LOOK: Duration = Duration::from_millis(20);

/// Begins to look at what the processes of a drill have open.
pub(crate) async fn monitor(workspace: &Workspace) -> Monitor {
    Monitor::start(Observer::new(&production(workspace)).await, LOOK)
}

/// Production's files, where they can be hidden from the drill's processes. Then a contact cannot
/// be too short to be seen.
pub(crate) fn hidden(workspace: &Workspace) -> Vec<PathBuf> {
    let found = production(workspace).on_disk();
    if found.is_empty() || !can_hide() { Vec::new() } else { found }
}

/// That the processes which run do not see what should be hidden from them; nothing where nothing
/// can be hidden, or nothing runs.
pub(crate) fn unseen(runner: &Runner<'_>) -> Option<Proof> {
    let hidden = runner.world.hidden.len();
    let (processes, sights) = runner.sights();
    if hidden == 0 || processes == 0 {
        return None;
    }
    Some(Proof {
        name: "production hidden".to_owned(),
        ok: sights.is_empty(),
        detail: match sights.is_empty() {
            true => format!("{processes} processes see none of {hidden} paths of production"),
            false => sights.join("; "),
        },
    })
}

/// What the monitor saw, as a proof. It looks often and not always, so how often is told, and
/// whether `hidden` paths of production were out of reach.
pub(crate) fn sightings(seen: &Monitored, hidden: usize) -> Proof {
    let breaches: Vec<String> = seen.breaches.iter().map(ToString::to_string).collect();
    Proof {
        name: "open files and sockets".to_owned(),
        // A monitor that never managed to look has proven nothing.
        ok: breaches.is_empty() && seen.failed < seen.samples,
        detail: match breaches.is_empty() {
            true => format!(
                "{} looks at up to {} processes saw nothing of production; they were at most {} \
                 ms apart, and {} held for less may have been missed; {} looks failed, {} \
                 processes hid something",
                seen.looks,
                seen.processes_max,
                seen.gap_max.as_millis(),
                if hidden == 0 { "what was" } else { "a connection" },
                seen.failed,
                seen.unseen_max
            ),
            false => breaches.join("; "),
        },
    }
}

/// That a target shares no folder with production.
pub(crate) fn apart(workspace: &Workspace, target: &std::path::Path) -> Proof {
    let production = production(workspace);
    let shared = shares_directory(target, &production.paths);
    Proof {
        name: "target apart".to_owned(),
        ok: shared.is_none(),
        detail: match shared {
            None => format!(
                "{} shares no folder, by device and inode, with {} of production",
                target.display(),
                production.paths.len()
            ),
            Some(shared) => format!("{} shares {}", target.display(), shared.display()),
        },
    }
}

/// That processes were started with the few variables that they may have: read back from the
/// system, since it is about what leaked and not about what was meant.
pub(crate) fn environment(seen: &Surroundings) -> Proof {
    Proof {
        name: "environment".to_owned(),
        ok: seen.leaks.is_empty(),
        detail: match seen.leaks.is_empty() {
            true => format!("{} processes had no variable but those allowed", seen.processes),
            false => seen.leaks.join("; "),
        },
    }
}

/// What production answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Steady {
    /// Each question, its answer, and what it saw.
    answers: Vec<(String, Light, String)>,
}

/// Asks production the questions that can be asked without knowing more of it than the plan
/// says: queries of its databases, and whether its files are there.
pub(crate) async fn steady_state(
    workspace: &Workspace,
    service: &Service,
    prober: &Prober,
) -> Steady {
    let mut answers = Vec::new();
    let names = production_names(workspace, service);
    for probe in &service.acceptance.probes {
        if !matches!(probe.check, ProbeCheck::Sql { .. }) {
            continue;
        }
        let Ok(rendered) = render_probe(probe, service, &names) else { continue };
        let item = probe.on.as_deref().and_then(|on| service.data(on));
        let password = item.and_then(|item| hands::password(workspace, item).ok().flatten());
        let secrets = ProbeSecrets { password, ..ProbeSecrets::default() };
        let sample = prober.ask(&rendered, &secrets).await;
        answers.push((probe.name.clone(), sample.light, sample.detail));
    }
    for item in &service.data {
        for path in workspace.production_paths(item) {
            let light = if path.exists() { Light::Green } else { Light::Red };
            answers.push((format!("{} is there", path.display()), light, String::new()));
        }
    }
    Steady { answers }
}

fn production_names(workspace: &Workspace, service: &Service) -> TargetNames {
    let mut names = TargetNames::default();
    for item in &service.data {
        let data = match &item.source {
            DataSource::Postgres { url, .. } => TargetData { url: Some(url.clone()), path: None },
            _ => {
                let path: Option<PathBuf> = workspace.production_paths(item).into_iter().next();
                TargetData { path: path.map(|path| path.display().to_string()), url: None }
            }
        };
        names.data.insert(item.name.clone(), data);
    }
    names
}

/// Production before and after: what was green must be green still.
pub(crate) fn compare(before: &Steady, after: &Steady) -> Proof {
    let worse: Vec<String> = before
        .answers
        .iter()
        .zip(&after.answers)
        .filter(|(before, after)| before.1 == Light::Green && after.1 != Light::Green)
        .map(|(_, (name, _, detail))| format!("{name}: {detail}"))
        .collect();
    let green = |steady: &Steady| {
        steady.answers.iter().filter(|(_, light, _)| *light == Light::Green).count()
    };
    Proof {
        name: "production steady".to_owned(),
        ok: worse.is_empty(),
        detail: match worse.is_empty() {
            true => format!(
                "{} of {} questions green before, {} after",
                green(before),
                before.answers.len(),
                green(after)
            ),
            false => worse.join("; "),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_that_never_looked_proves_nothing() {
        assert!(!sightings(&Monitored::default(), 1).ok);
        assert!(sightings(&Monitored { samples: 2, failed: 1, ..Monitored::default() }, 0).ok);
    }

    #[test]
    fn a_longer_name_is_another_name() {
        assert!(names("--database=/srv/orders/db", "/srv/orders/db"));
        assert!(names("/srv/orders/db/x", "/srv/orders/db"));
        assert!(!names("/srv/orders/db-copy", "/srv/orders/db"));
        assert!(names("postgresql://u@db:5432/orders", "db:5432"));
    }
}
