//! The plan that `muster init` writes: what was found on the machine, and comments on the rest.
//!
//! It comes without errors, and with the warnings that say what is still to do.

use std::fmt::Write as _;

/// What was found where the plan will stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detected {
    /// What the plan covers; the name of the folder, mostly.
    pub name: String,
    /// Files of SQLite databases, relative to the plan.
    pub sqlite_files: Vec<String>,
    /// Addresses of PostgreSQL servers. Passwords in them are left out.
    pub postgres_urls: Vec<String>,
    /// Names of services in a compose file.
    pub compose_services: Vec<String>,
    /// Folders with data, relative to the plan.
    pub folders: Vec<String>,
}

/// A part of the data: its name, and its field and value.
struct Found {
    name: String,
    source: String,
    is_database: bool,
}

/// Writes a starter plan.
#[must_use]
pub fn starter(detected: &Detected) -> String {
    let (service, data) = (identifier(&detected.name, "service"), found(detected));
    let mut text = head(detected);
    text.push_str(&services(&service, detected, &data));
    text.push_str(&tail(&service));
    text
}

fn head(detected: &Detected) -> String {
    let name = if detected.name.trim().is_empty() { "plan" } else { &detected.name };
    format!(
        "# A plan of Muster. `muster plan check` says what is missing, with line numbers.
muster: 1
name: {}

# Where things stand: a copy counts for a disruption only when it survives it.
regions: [here, elsewhere]

# Who to reach, each in two ways: the disaster may take one.
# contacts:
#   ana: {{email: ana@example.org, phone: \"+39 06 1234\"}}

# Where copies are kept. Secrets are never written here, only where they are found:
# env:NAME, file:PATH or command:[ARGV].
repositories:
  near: {{url: ./repositories/here, region: here, password: env:MUSTER_PASSWORD}}
  # Let this folder really stand elsewhere (a mount of another site), or it survives nothing.
  far: {{url: ./repositories/elsewhere, region: elsewhere, password: env:MUSTER_PASSWORD}}

",
        quoted(name)
    )
}

fn services(service: &str, detected: &Detected, data: &[Found]) -> String {
    let mut text = format!(
        "services:
  {service}:
    # Brings objectives: critical (RTO 15m, RPO 5m), important (1h, 30m), standard (4h, 1h).
    tier: standard
    region: here
    # owner: the-team
    # contacts: [ana]
"
    );
    if data.is_empty() {
        text.push_str(
            "    # data:\n    #   db: {sqlite: ./app.db}\n    #   uploads: {files: ./uploads}\n",
        );
    } else {
        text.push_str(&protected(data));
    }
    text.push_str(&recovery(detected, data));
    text
}

fn protected(data: &[Found]) -> String {
    let mut text = String::from("    data:\n");
    for part in data {
        writeln!(text, "      {}: {}", part.name, part.source).expect("a string takes all text");
    }
    let names: Vec<&str> = data.iter().map(|part| part.name.as_str()).collect();
    let list = names.join(", ");
    let marked = data.iter().find(|part| part.is_database).or(data.first());
    let marked = marked.map_or("", |part| &part.name);
    write!(
        text,
        "    protect:
      # Half the RPO: the run and the copy take their time too.
      - {{data: [{list}], every: 30m, to: near, copy: [far], keep: {{daily: 7, weekly: 5}}}}
    # Numbered rows by which a drill counts what was lost: Muster's only write into production.
    markers: {{data: {marked}, every: 1s}}
"
    )
    .expect("a string takes all text");
    text
}

fn recovery(detected: &Detected, data: &[Found]) -> String {
    let names: Vec<&str> = data.iter().map(|part| part.name.as_str()).collect();
    let mut text =
        String::from("    # The runbook: a drill runs the same one, against an isolated target.\n");
    match names.is_empty() {
        true => text.push_str("    # recover:\n    #   - {restore: [db]}\n"),
        false => {
            let list = names.join(", ");
            write!(text, "    recover:\n      - {{restore: [{list}]}}\n")
                .expect("a string takes all text");
        }
    }
    if !detected.compose_services.is_empty() {
        let services: Vec<String> =
            detected.compose_services.iter().map(|name| printable(name)).collect();
        writeln!(text, "      # The compose file has: {}", services.join(", "))
            .expect("a string takes all text");
    }
    text.push_str(
        "      # - {start: [my-server, --port, \"{{ target.port }}\"]}
    # When it counts as recovered: every probe green for so long.
    acceptance:
      hold: 10s
      within: 10m
      # probes:
      #   health: {http: \"{{ target.url }}/health\", expect: {status: 200}}
",
    );
    text
}

fn tail(service: &str) -> String {
    format!(
        "
# What is rehearsed, and when (cron).
drills:
  - {{service: {service}, disruption: host-loss, schedule: \"0 3 1 * *\"}}
"
    )
}

fn found(detected: &Detected) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut add = |wish: &str, fallback: &str, source: String, is_database: bool| {
        let wish = identifier(wish, fallback);
        let is_free = |name: &String| !found.iter().any(|part| part.name == *name);
        let numbered = (2..).map(|number| format!("{wish}-{number}"));
        let name = std::iter::once(wish.clone()).chain(numbered).find(is_free).unwrap_or(wish);
        found.push(Found { name, source, is_database });
    };
    for url in detected.postgres_urls.iter().map(|url| without_password(url)) {
        let database = url.rsplit_once('/').map_or("", |(_, rest)| rest);
        let database = database.split('?').next().unwrap_or_default();
        add(database, "postgres", format!("{{postgres: {}}}", quoted(&url)), true);
    }
    for file in detected.sqlite_files.iter().filter(|file| !file.trim().is_empty()) {
        add(stem(file), "db", format!("{{sqlite: {}}}", quoted(file)), true);
    }
    for folder in detected.folders.iter().filter(|folder| !folder.trim().is_empty()) {
        add(stem(folder), "files", format!("{{files: {}}}", quoted(folder)), false);
    }
    found
}

/// The last part of a path, without what follows its first dot.
fn stem(path: &str) -> &str {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    name.split('.').find(|part| !part.is_empty()).unwrap_or_default()
}

/// A name that templates can say without quotes, too.
fn identifier(text: &str, fallback: &str) -> String {
    let kept =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    let name: String = kept.take(40).collect();
    match name.trim_matches('_') {
        "" => fallback.to_owned(),
        // A number would not be read as a text.
        name if name.starts_with(|c: char| c.is_ascii_digit()) => format!("{fallback}_{name}"),
        name => name.to_owned(),
    }
}

/// The address of a PostgreSQL server without what could hold a password: what follows the user's
/// name, and all parameters.
#[must_use]
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgresql", url));
    let scheme = if scheme == "postgres" { "postgres" } else { "postgresql" };
    let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    let user = user.split(':').next().unwrap_or_default().replace('/', "");
    let host = host.split(['?', '&', ' ', ';']).next().unwrap_or_default();
    let at = if user.is_empty() { "" } else { "@" };
    format!("{scheme}://{user}{at}{host}")
}

/// A scalar that YAML reads back as this text.
fn quoted(text: &str) -> String {
    serde_json::Value::from(printable(text)).to_string()
}

/// On one line, and without what no YAML may hold.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| {
            !c.is_control()
                && !matches!(
                    c,
                    '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\u{85}' | '\u{2028}' | '\u{2029}'
                )
        })
        .collect()
}
