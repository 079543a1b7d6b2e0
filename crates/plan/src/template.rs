//! Templates: where a runbook or probe speaks of a target that does not exist yet.
//!
//! A drill and a recovery render the same plan for different targets; this module is the seam
//! between them. Rendering is strict: a name that is not known is an error, never an empty
//! text, for an empty `--data-dir` is how drills reach production. Templates come from a plan,
//! so what one may cost is bounded, and there are no functions that could reach outside.
//!
//! # Source
//! minijinja, undefined behaviour `Strict`.

use std::{collections::BTreeMap, time::Duration};

use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value, context};
use muster_model::{Class, Fault, Probe, ProbeCheck, Step, probe::Database};
use thiserror::Error;

use crate::document::{DataItem, DataSource, Service};

/// The most instructions of one template: ten thousand times what one needs.
const FUEL: u64 = 50_000;
/// The longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 64 << 10;

/// Values for all names that a template may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetNames {
    /// `target.dir`: the service's own folder.
    pub dir: String,
    /// `target.port`: a port that is free for the service.
    pub port: u16,
    /// `target.url`: `http://127.0.0.1:PORT`.
    pub url: String,
    /// `target.data.NAME`: where restored data is.
    pub data: BTreeMap<String, TargetData>,
}

/// Where a restored part of the data is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetData {
    /// `target.data.NAME.path`, for files, SQLite and the output of commands.
    pub path: Option<String>,
    /// `target.data.NAME.url`, for PostgreSQL.
    pub url: Option<String>,
}

/// Why a template cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// It uses a name that is not known here.
    #[error("render a template: '{name}' is not known here")]
    UnknownName {
        /// The name.
        name: String,
        /// The known name that is nearest.
        nearest: Option<String>,
    },
    /// It is no template, or costs too much.
    #[error("render a template: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// A query is to ask a part of the data that is no database here.
    #[error("render a probe: '{data}' is no database here")]
    NoDatabase {
        /// The part of the data; empty when the probe names none.
        data: String,
    },
}

impl Fault for TemplateError {
    fn class(&self) -> Class {
        Class::Input
    }

    fn code(&self) -> &'static str {
        match self {
            Self::UnknownName { .. } => "template-unknown-name",
            Self::Invalid { .. } => "template-invalid",
            Self::NoDatabase { .. } => "probe-without-database",
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::UnknownName { nearest: Some(near), .. } => format!("did you mean '{near}'?"),
            Self::UnknownName { .. } => {
                "the names are target.dir, target.port, target.url, target.data.NAME.path and, \
                 for PostgreSQL, target.data.NAME.url"
                    .to_owned()
            }
            Self::Invalid { .. } => "write {{ target.port }} and the like".to_owned(),
            Self::NoDatabase { .. } => {
                "let 'on' name a part of the data that is postgres or sqlite and was restored"
                    .to_owned()
            }
        })
    }
}

impl TargetNames {
    /// The names that a service's templates may use, with values that only stand in: for the
    /// check of a plan.
    #[must_use]
    pub fn stand_in(service: &Service) -> Self {
        let url = "http://127.0.0.1:1".to_owned();
        let data = service.data.iter().map(|item| (item.name.clone(), stand_in_data(item)));
        Self { dir: "/target".to_owned(), port: 1, url, data: data.collect() }
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            ["target.dir", "target.port", "target.url"].map(Into::into).into();
        for (name, data) in &self.data {
            let fields = [("path", &data.path), ("url", &data.url)];
            let known = fields.into_iter().filter(|(_, value)| value.is_some());
            names.extend(known.map(|(field, _)| format!("target.data.{name}.{field}")));
        }
        names.sort_unstable();
        names
    }

    fn to_value(&self) -> Value {
        let of = |data: &TargetData| {
            let fields = [("path", &data.path), ("url", &data.url)];
            let known =
                fields.into_iter().filter_map(|(field, value)| Some((field, value.clone()?)));
            Value::from(known.collect::<BTreeMap<&str, String>>())
        };
        let data = self.data.iter().map(|(name, data)| (name.clone(), of(data)));
        let data = Value::from(data.collect::<BTreeMap<String, Value>>());
        let (dir, url) = (self.dir.as_str(), self.url.as_str());
        context! { target => context! { dir, port => self.port, url, data } }
    }
}

fn stand_in_data(item: &DataItem) -> TargetData {
    match item.source {
        DataSource::Postgres { .. } => {
            TargetData { path: None, url: Some("postgresql://127.0.0.1:1/data".to_owned()) }
        }
        DataSource::Files { .. } | DataSource::Sqlite { .. } | DataSource::Command { .. } => {
            TargetData { path: Some(format!("/target/{}", item.name)), url: None }
        }
    }
}

/// Fills a template in.
///
/// # Errors
/// Fails when the text is no template, names what is not known here (also in a branch that is
/// not taken), or costs too much.
pub fn render(text: &str, names: &TargetNames) -> Result<String, TemplateError> {
    if !text.contains("{{") && !text.contains("{%") && !text.contains("{#") {
        return Ok(text.to_owned());
    }
    if text.len() > TEMPLATE_BYTES_MAX {
        let reason = format!("it has more than {TEMPLATE_BYTES_MAX} bytes");
        return Err(TemplateError::Invalid { reason });
    }
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    let template = environment.template_from_str(text).map_err(|error| invalid(&error))?;
    let used = template.undeclared_variables(true);
    if let Some(unknown) = first_unknown(used, names) {
        return Err(unknown);
    }
    let rendered = template.render(names.to_value()).map_err(|error| match error.kind() {
        ErrorKind::UndefinedError => unknown_name("target", names),
        _ => invalid(&error),
    })?;
    // The engine drops a last line's end, and a query or a script may want it.
    let end = if text.ends_with('\n') { "\n" } else { "" };
    Ok(rendered + end)
}

/// The first name, in the order of the alphabet, that leads nowhere.
fn first_unknown(
    used: impl IntoIterator<Item = String>,
    names: &TargetNames,
) -> Option<TemplateError> {
    let known = names.names();
    let leads_on = |used: &str, known: &str| {
        known == used || known.strip_prefix(used).is_some_and(|rest| rest.starts_with('.'))
    };
    let mut used: Vec<String> = used.into_iter().collect();
    used.sort_unstable();
    let unknown = used.iter().find(|used| !known.iter().any(|known| leads_on(used, known)));
    unknown.map(|name| unknown_name(name, names))
}

fn unknown_name(name: &str, names: &TargetNames) -> TemplateError {
    let known = names.names();
    let nearest = crate::value::nearest(name, known.iter().map(String::as_str));
    TemplateError::UnknownName { name: name.to_owned(), nearest: nearest.map(str::to_owned) }
}

fn invalid(error: &minijinja::Error) -> TemplateError {
    let reason = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    TemplateError::Invalid { reason }
}

/// Fills in all texts of a step.
///
/// # Errors
/// As [`render`].
pub fn render_step(step: &Step, names: &TargetNames) -> Result<Step, TemplateError> {
    Ok(match step {
        Step::Restore { data } => Step::Restore { data: data.clone() },
        Step::Start { argv, env, user, dir } => Step::Start {
            argv: render_all(argv, names)?,
            env: render_env(env, names)?,
            user: user.clone(),
            dir: dir.as_ref().map(|dir| render(dir, names)).transpose()?,
        },
        Step::Run { argv, env, user, dir, timeout } => Step::Run {
            argv: render_all(argv, names)?,
            env: render_env(env, names)?,
            user: user.clone(),
            dir: dir.as_ref().map(|dir| render(dir, names)).transpose()?,
            timeout: *timeout,
        },
    })
}

/// Fills in all texts of a probe, and which database a query asks.
///
/// # Errors
/// As [`render`]; and when a query is `on` data that is no database of this target.
pub fn render_probe(
    probe: &Probe,
    service: &Service,
    names: &TargetNames,
) -> Result<Probe, TemplateError> {
    let check = match &probe.check {
        ProbeCheck::Http { url, statuses, body, json, redirects } => ProbeCheck::Http {
            url: render(url, names)?,
            statuses: statuses.clone(),
            body: body.clone(),
            json: json.clone(),
            redirects: *redirects,
        },
        ProbeCheck::Tcp { address } => ProbeCheck::Tcp { address: render(address, names)? },
        ProbeCheck::Sql { query, expect, .. } => ProbeCheck::Sql {
            database: database(probe.on.as_deref(), service, names)?,
            query: render(query, names)?,
            expect: expect.clone(),
        },
        ProbeCheck::Command { argv, exit, output } => ProbeCheck::Command {
            argv: render_all(argv, names)?,
            exit: *exit,
            output: output.clone(),
        },
    };
    let (interval, timeout): (Duration, Duration) = (probe.interval, probe.timeout);
    Ok(Probe { name: probe.name.clone(), check, on: probe.on.clone(), interval, timeout })
}

fn database(
    on: Option<&str>,
    service: &Service,
    names: &TargetNames,
) -> Result<Database, TemplateError> {
    let name = on.unwrap_or_default();
    let missing = || TemplateError::NoDatabase { data: name.to_owned() };
    let target = names.data.get(name).ok_or_else(missing)?;
    match &service.data(name).ok_or_else(missing)?.source {
        DataSource::Postgres { .. } => target.url.clone().map(Database::Postgres),
        DataSource::Sqlite { .. } => target.path.clone().map(Database::Sqlite),
        DataSource::Files { .. } | DataSource::Command { .. } => None,
    }
    .ok_or_else(missing)
}

fn render_all(texts: &[String], names: &TargetNames) -> Result<Vec<String>, TemplateError> {
    texts.iter().map(|text| render(text, names)).collect()
}

fn render_env(
    env: &[(String, String)],
    names: &TargetNames,
) -> Result<Vec<(String, String)>, TemplateError> {
    env.iter().map(|(name, text)| Ok((name.clone(), render(text, names)?))).collect()
}
