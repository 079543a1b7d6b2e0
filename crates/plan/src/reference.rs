//! The reference of findings and of fields, as Markdown, from the tables that the program reads.

use muster_model::Severity;

use crate::{
    codes::{self, Code, Examples},
    fields::{SECTIONS, VARIANTS},
    shape::{Field, Keys, Object, Shape},
};

/// The text of `docs/reference/findings.md`.
#[must_use]
pub fn findings() -> String {
    let mut text = String::from(
        "# Findings\n\n\
         Written from the table in `crates/plan/src/codes`; `MUSTER_BLESS=1 cargo test -p muster-plan` \
         writes this page anew. The tests run every example.\n\n\
         An *error* means that the plan does not hold, and `muster plan check` exits with 2; a \
         *warning* will hurt one day; a *note* is worth knowing. A finding points at the line and \
         column of what is wrong; both count from 1, columns in characters. An exception may waive \
         what the table says can be waived: it is then shown as a note, until the exception \
         ends.\n\n| code | weight | can be waived |\n|---|---|---|\n",
    );
    for code in codes::ALL {
        let waived = if code.can_be_waived { "yes" } else { "no" };
        line(&mut text, &format!("| [`{0}`](#{0}) | {1} | {waived} |", code.code, code.severity));
    }
    codes::ALL.iter().for_each(|code| section(&mut text, code));
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn section(text: &mut String, code: &Code) {
    line(text, &format!("\n## `{}`\n\n{}", code.code, code.about));
    let weight = match code.severity {
        Severity::Error => "An error",
        Severity::Warning => "A warning",
        Severity::Note => "A note",
    };
    let schema = if code.in_schema { "; the schema refuses it too" } else { "" };
    line(text, &format!("\n{weight}{schema}."));
    if let Some(given) = code.given {
        line(text, &format!("\nGiven: {given}."));
    }
    if let Some(Examples { good, bad, at: (row, column) }) = code.examples {
        line(text, &format!("\nRaises it, at line {row}, column {column}:\n\n```yaml\n{bad}```"));
        line(text, &format!("\nDoes not:\n\n```yaml\n{good}```"));
    }
}

/// The text of `docs/reference/plan.md`.
#[must_use]
pub fn fields() -> String {
    let mut text = String::from(
        "# The fields of a plan\n\n\
         Written from the table in `crates/plan/src/fields.rs`; `MUSTER_BLESS=1 cargo test -p \
         muster-plan` writes this page anew. `muster plan schema` prints the same as a JSON Schema, \
         for editors.\n\n\
         Any other field is an error. Paths are relative to the plan. Durations are a number and \
         one of `ms s m h d w`, also several of them (`2h30m`); a day has 24 hours. In `keep` they are \
         restic's: `y m d h`, m is months. Rates are a size and `/s`: `20MiB/s`. Percentages need their \
         sign. Secrets are named, never written: `env:NAME`, `file:PATH`, \
         `command:[ARGV]`. Templates are strict: `{{ target.dir }}`, `{{ target.port }}`, \
         `{{ target.url }}`, `{{ target.data.NAME.path }}` and, for PostgreSQL, \
         `{{ target.data.NAME.url }}` may stand in the words of `start`, `run` and command probes, in \
         values of `env`, in `dir`, and in what `http`, `tcp` and `sql` probes ask.\n",
    );
    for (path, object) in SECTIONS {
        line(&mut text, &format!("\n## {}\n", heading(path)));
        table(&mut text, object);
    }
    for (path, variants) in VARIANTS {
        line(&mut text, &format!("\n## {}\n\nExactly one of:", heading(path)));
        for variant in variants {
            text.push('\n');
            table(&mut text, variant);
        }
    }
    text
}

fn heading(path: &str) -> String {
    if path.contains(' ') { path.to_owned() } else { format!("`{path}`") }
}

fn table(text: &mut String, object: &Object) {
    line(text, "| field | what belongs there | |\n|---|---|---|");
    for field in object.fields {
        line(text, &row(field));
    }
    if !object.one_of.is_empty() {
        line(text, &format!("\nExactly one of `{}` must be there.", object.one_of.join("`, `")));
    }
}

fn row(field: &Field) -> String {
    let required = if field.required { " (required)" } else { "" };
    format!("| `{}`{required} | {} | {} |", field.name, kind(&field.shape), cell(field.about))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn kind(shape: &Shape) -> String {
    match shape {
        Shape::Version => "1".to_owned(),
        Shape::Text => "text".to_owned(),
        Shape::Word | Shape::Scalar => "text, number, true or false".to_owned(),
        Shape::Duration => "duration".to_owned(),
        Shape::Within => "years, months, days, hours".to_owned(),
        Shape::Rate => "size per second".to_owned(),
        Shape::Percentage => "percentage".to_owned(),
        Shape::Count => "whole number".to_owned(),
        Shape::ExitCode => "0 to 255".to_owned(),
        Shape::Status => "100 to 599".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Schedule => "cron, five fields".to_owned(),
        Shape::TimeZone => "time zone".to_owned(),
        Shape::Date => "YYYY-MM-DD".to_owned(),
        Shape::Secret => "secret's place".to_owned(),
        Shape::Address => "address".to_owned(),
        Shape::Place => "folder or store".to_owned(),
        Shape::PostgresUrl => "address of a PostgreSQL server".to_owned(),
        Shape::OneOf(words) => format!("one of `{}`", words.join("`, `")),
        Shape::Any => "any value".to_owned(),
        Shape::Argv => "list: program and arguments".to_owned(),
        Shape::List(item) => format!("list of: {}", kind(item)),
        Shape::OneOrMore(item) => format!("{}, or a list of it", kind(item)),
        Shape::Map(keys, item) => format!("mapping of {} to: {}", key(*keys), kind(item)),
        Shape::Object(_) | Shape::Variant(_) => "mapping, below".to_owned(),
        Shape::TextOr(_) => "name, or mapping, below".to_owned(),
        Shape::NoneOr(_) => "`none`, or mapping, below".to_owned(),
    }
}

fn key(keys: Keys) -> &'static str {
    match keys {
        Keys::Names => "names",
        Keys::Texts => "texts",
        Keys::Disruptions => "disruptions",
        Keys::Durations => "durations",
    }
}
