//! Scalars of a plan: from the text between two commas to a duration, a share, a secret's name.
//!
//! Each function is used twice, by the check of the shape (which reports what is wrong) and by
//! the decoder (which takes what is right), so the two cannot disagree. No message of a secret
//! repeats what was written.

use std::time::Duration;

use jiff::{Timestamp, civil::Date, tz::TimeZone, tz::TimeZoneDatabase};
use muster_model::{CronSchedule, Location, SecretRef, Within, units};
use serde_json::Value;

use crate::tree::{Node, Scalar, parse};

/// Why a scalar is not what its place wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// Where in the text, in characters.
    pub(crate) offset: usize,
}

impl Wrong {
    pub(crate) fn new(
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { code, message: message.into(), help: Some(help.into()), offset: 0 }
    }

    fn kind(node: &Node, wanted: &str, help: &str) -> Self {
        Self::new("wrong-type", format!("this is {}, and {wanted} belongs here", node.kind()), help)
    }
}

/// A text that is not empty.
pub(crate) fn text(node: &Node) -> Result<&str, Wrong> {
    match node.scalar().map(|scalar| (scalar, scalar.to_json())) {
        Some((scalar, Value::String(_))) if !scalar.text.trim().is_empty() => Ok(&scalar.text),
        Some((_, Value::String(_))) => Err(Wrong::new(
            "bad-value",
            "this text is empty",
            "write the text, or leave the field out",
        )),
        Some((scalar, Value::Bool(_) | Value::Number(_))) => {
            let help = format!("put it in quotes if it is a text: \"{}\"", scalar.text);
            Err(Wrong::kind(node, "a text", &help))
        }
        _ => Err(Wrong::kind(node, "a text", "write one text here")),
    }
}

/// A word of a command line: numbers need no quotes there.
pub(crate) fn word(node: &Node) -> Result<&str, Wrong> {
    let scalar = node.scalar().filter(|scalar| !scalar.to_json().is_null());
    let help = "write one text here; quote it if it is empty";
    scalar.map(|scalar| scalar.text.as_str()).ok_or_else(|| Wrong::kind(node, "a text", help))
}

/// The name of a thing that becomes part of paths, tags and commands.
pub(crate) fn check_name(name: &str) -> Result<(), Wrong> {
    let is_fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let starts = name.starts_with(|c: char| c.is_alphanumeric());
    if starts && name.chars().all(is_fine) && name.len() <= 100 {
        return Ok(());
    }
    let message = format!("'{}' is no name", shorten(name));
    let help = "names begin with a letter or digit and go on with these, '-', '_' and '.'";
    Err(Wrong::new("bad-name", message, help))
}

/// A duration above zero.
pub(crate) fn duration(node: &Node) -> Result<Duration, Wrong> {
    const HELP: &str = "write a number and a unit: 500ms, 90s, 15m, 2h30m, 7d, 2w";
    let Some(scalar) = node.scalar().filter(|scalar| !scalar.to_json().is_null()) else {
        return Err(Wrong::kind(node, "a duration", HELP));
    };
    if scalar.text.trim_start().starts_with('-') {
        let message = format!("'{}' is less than nothing", shorten(&scalar.text));
        return Err(Wrong::new("bad-duration", message, "write a duration above zero"));
    }
    match units::parse_duration(&scalar.text) {
        Ok(Duration::ZERO) => {
            let message = format!("'{}' is no time at all", shorten(&scalar.text));
            Err(Wrong::new("bad-duration", message, "write a duration above zero"))
        }
        Ok(duration) => Ok(duration),
        Err(_) => {
            let message = format!("'{}' is no duration", shorten(&scalar.text));
            let digits = scalar.text.trim();
            let bare = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let help = match bare {
                true => format!("say the unit: {digits}s, {digits}m, {digits}h or {digits}d"),
                false => HELP.to_owned(),
            };
            Err(Wrong::new("bad-duration", message, help))
        }
    }
}

/// A duration of the calendar, above zero, in restic's words.
pub(crate) fn within(node: &Node) -> Result<Within, Wrong> {
    const HELP: &str = "write years, months, days, hours: 30d, 12h, 1y6m (m is months here)";
    let Some(scalar) = node.scalar().filter(|scalar| !scalar.to_json().is_null()) else {
        return Err(Wrong::kind(node, "a duration", HELP));
    };
    match scalar.text.parse::<Within>() {
        Ok(within) if !within.is_zero() => Ok(within),
        _ => {
            let message = format!("'{}' is no duration of the calendar", shorten(&scalar.text));
            Err(Wrong::new("bad-duration", message, HELP))
        }
    }
}

/// Bytes per second, above zero: `20MiB/s`.
pub(crate) fn rate(node: &Node) -> Result<u64, Wrong> {
    const HELP: &str = "write a size and '/s': 500kB/s, 20MiB/s";
    let Some(scalar) = node.scalar().filter(|scalar| !scalar.to_json().is_null()) else {
        return Err(Wrong::kind(node, "a rate", HELP));
    };
    let size = scalar.text.trim().strip_suffix("/s").map(units::parse_size);
    match size {
        Some(Ok(bytes)) if bytes > 0 => Ok(bytes),
        _ => {
            let message = format!("'{}' is no rate", shorten(&scalar.text));
            Err(Wrong::new("bad-size", message, HELP))
        }
    }
}

/// A share, as a fraction: `99.9 %` is 0.999.
pub(crate) fn percentage(node: &Node) -> Result<f64, Wrong> {
    const HELP: &str = "write a percentage with its sign: 99.9 %";
    let Some(scalar) = node.scalar().filter(|scalar| !scalar.to_json().is_null()) else {
        return Err(Wrong::kind(node, "a percentage", HELP));
    };
    let shown = shorten(&scalar.text);
    let Some(number) = scalar.text.trim().strip_suffix('%').map(str::trim) else {
        let message = format!("'{shown}' has no '%'");
        return Err(Wrong::new("bad-percentage", message, without_sign(&scalar.text)));
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    // The decimal point is moved in the text: a division would not give the nearest fraction.
    let share = plain.then(|| format!("{number}e-2").parse::<f64>().ok()).flatten();
    match share {
        Some(share) if share > 0.0 && share < 1.0 => Ok(share),
        Some(_) => {
            let message = format!("'{shown}' is not between 0 % and 100 %");
            Err(Wrong::new("bad-percentage", message, "nothing is always available: write less"))
        }
        None => Err(Wrong::new("bad-percentage", format!("'{shown}' is no percentage"), HELP)),
    }
}

/// What was probably meant by a number without a sign: 0.999 may be a fraction.
fn without_sign(text: &str) -> String {
    match text.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number < 1.0 => {
            let percent = format!("{:.6}", number * 100.0);
            let percent = percent.trim_end_matches('0').trim_end_matches('.');
            format!("write \"{percent} %\" if a fraction was meant, \"{} %\" if not", text.trim())
        }
        Ok(_) => format!("write \"{} %\"", text.trim()),
        Err(_) => "write a percentage with its sign: 99.9 %".to_owned(),
    }
}

/// A whole number from 0.
pub(crate) fn count(node: &Node) -> Result<u32, Wrong> {
    let value = node.to_json().as_u64().and_then(|value| u32::try_from(value).ok());
    value.ok_or_else(|| Wrong::kind(node, "a whole number from 0", "write a whole number: 7"))
}

/// An exit code.
pub(crate) fn exit_code(node: &Node) -> Result<i32, Wrong> {
    let value = node.to_json().as_u64().filter(|value| *value <= 255);
    let value = value.and_then(|value| i32::try_from(value).ok());
    value.ok_or_else(|| Wrong::kind(node, "an exit code", "write a number from 0 to 255"))
}

/// A status of HTTP.
pub(crate) fn status(node: &Node) -> Result<u16, Wrong> {
    let value = node.to_json().as_u64().filter(|value| (100..600).contains(value));
    let value = value.and_then(|value| u16::try_from(value).ok());
    value.ok_or_else(|| Wrong::kind(node, "a status of HTTP", "write a number from 100 to 599"))
}

/// `true` or `false`.
pub(crate) fn boolean(node: &Node) -> Result<bool, Wrong> {
    let help = "write true or false";
    node.to_json().as_bool().ok_or_else(|| Wrong::kind(node, "true or false", help))
}

/// Five fields of cron that are due at some time.
pub(crate) fn schedule(node: &Node) -> Result<CronSchedule, Wrong> {
    let text = text(node)?;
    let schedule = CronSchedule::parse(text).map_err(|error| {
        let fields = "minute, hour, day of the month, month, day of the week: 0 3 * * *";
        let help = match &error.suggestion {
            Some(suggestion) => format!("write \"{suggestion}\""),
            None => fields.to_owned(),
        };
        Wrong { offset: error.column, ..Wrong::new("bad-schedule", error.message, help) }
    })?;
    match schedule.next_after(Timestamp::UNIX_EPOCH, &TimeZone::UTC) {
        Some(_) => Ok(schedule),
        None => {
            let message = format!("'{}' is never due", shorten(text));
            Err(Wrong::new("bad-schedule", message, "name a day that exists"))
        }
    }
}

/// The name of a time zone, from the database that is part of the binary.
pub(crate) fn time_zone(node: &Node) -> Result<&str, Wrong> {
    let name = text(node)?;
    let database = TimeZoneDatabase::bundled();
    if database.get(name).is_ok() {
        return Ok(name);
    }
    let message = format!("'{}' is no time zone", shorten(name));
    let names: Vec<String> = database.available().map(|zone| zone.as_str().to_owned()).collect();
    let help = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => "write a name such as Europe/Rome or UTC".to_owned(),
    };
    Err(Wrong::new("bad-time-zone", message, help))
}

/// A day.
pub(crate) fn date(node: &Node) -> Result<Date, Wrong> {
    let text = text(node)?;
    let date = (text.len() == 10).then(|| text.parse::<Date>().ok()).flatten();
    let message = || format!("'{}' is no day", shorten(text));
    date.ok_or_else(|| Wrong::new("bad-date", message(), "write year, month, day: 2027-01-31"))
}

const SECRET_HELP: &str = "write where it is found: env:NAME, file:PATH or command:[ARGV]";

/// Where a secret is found. Never repeats the text: it may be the secret.
pub(crate) fn secret(node: &Node) -> Result<SecretRef, Wrong> {
    let literal = || Wrong::new("literal-secret", "a secret stands here in clear", SECRET_HELP);
    if let Some(argv) = node.get("command").filter(|_| node.entries().len() == 1) {
        return command(argv).ok_or_else(literal);
    }
    let scalar = node.scalar().ok_or_else(|| Wrong::kind(node, "a secret's name", SECRET_HELP))?;
    let Some((kind, rest)) = scalar.text.split_once(':') else {
        return match node.is_null() {
            true => Err(Wrong::kind(node, "a secret's name", SECRET_HELP)),
            false => Err(literal()),
        };
    };
    match (kind, rest.trim()) {
        ("env", name) if is_variable(name) => Ok(SecretRef::Env(name.to_owned())),
        ("file", path) if !path.is_empty() => Ok(SecretRef::File(path.to_owned())),
        ("command", list) => parse(list).ok().as_ref().and_then(command).ok_or_else(literal),
        _ => Err(literal()),
    }
}

fn command(node: &Node) -> Option<SecretRef> {
    let argv: Option<Vec<String>> =
        node.items().iter().map(|item| word(item).ok().map(str::to_owned)).collect();
    argv.filter(|argv| !argv.is_empty()).map(SecretRef::Command)
}

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    starts && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// An address in which no password stands.
pub(crate) fn address(node: &Node) -> Result<&str, Wrong> {
    let text = text(node)?;
    match has_password(text) {
        false => Ok(text),
        true => {
            let message = "a password stands in this address in clear";
            Err(Wrong::new(
                "literal-secret",
                message,
                "take it out; name it under password: env:NAME",
            ))
        }
    }
}

/// Where a repository is, without a password.
pub(crate) fn repository_place(node: &Node) -> Result<&str, Wrong> {
    let text = text(node)?;
    let literal = || {
        let message = "a password stands in this address in clear";
        let help = "take it out; name it under credentials: {RESTIC_REST_PASSWORD: env:NAME}";
        Wrong::new("literal-secret", message, help)
    };
    match Location::parse(text) {
        Ok(location) if location.has_password() => Err(literal()),
        Ok(_) => address(node),
        Err(_) if has_password(text) => Err(literal()),
        Err(error) => {
            let message = format!("this is no place of a repository: cannot {error}");
            Err(Wrong::new("bad-value", message, error.help()))
        }
    }
}

/// The address of a PostgreSQL server in which no password stands.
pub(crate) fn postgres_url(node: &Node) -> Result<&str, Wrong> {
    let text = address(node)?;
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    if matches!(scheme, Some("postgres" | "postgresql")) {
        return Ok(text);
    }
    let help = "write postgresql://USER@HOST:PORT/DATABASE";
    Err(Wrong::new("bad-value", "this is no address of a PostgreSQL server", help))
}

/// `scheme://user:password@host`, `?password=…`, or libpq's `password=…`.
fn has_password(text: &str) -> bool {
    let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
    let end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    let user = after_scheme[..end].rsplit_once('@').map(|(user, _)| user);
    // A password may itself hold a slash that nobody escaped; a port is followed by one.
    let loose = after_scheme.rsplit_once('@').map(|(user, _)| user).filter(|user| {
        let after_colon = user.split_once(':').and_then(|(_, rest)| rest.split('/').next());
        !after_colon.is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
    });
    let in_user = user.or(loose).and_then(|user| user.split_once(':'));
    let named = text
        .to_ascii_lowercase()
        .split(['?', '&', ' ', ';'])
        .any(|part| part.trim().strip_prefix("password=").is_some_and(|value| !value.is_empty()));
    named || in_user.is_some_and(|(user, password)| !user.contains('/') && !password.is_empty())
}

/// The known name that a person probably meant.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const SIMILARITY_MIN: f64 = 0.7;
    let lower = name.to_lowercase().replace('_', "-");
    let scored = known.map(|known| {
        let similar = strsim::jaro_winkler(&lower, &known.to_lowercase().replace('_', "-"));
        (known, similar)
    });
    let best = scored.max_by(|(_, first), (_, second)| first.total_cmp(second));
    best.filter(|(_, similar)| *similar >= SIMILARITY_MIN).map(|(known, _)| known)
}

/// At most so much of a text as a message can bear.
pub(crate) fn shorten(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    match text.chars().count() > CHARACTERS_MAX {
        false => text.to_owned(),
        true => text.chars().take(CHARACTERS_MAX).chain(['…']).collect(),
    }
}

/// How far right of its node a place in a scalar's text stands, when that can be said.
pub(crate) fn shift(scalar: &Scalar, offset: usize) -> usize {
    scalar.inset.map_or(0, |inset| inset + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        parse(text).unwrap()
    }

    #[test]
    fn durations_are_above_zero_and_have_a_unit() {
        assert_eq!(duration(&node("15m")), Ok(Duration::from_secs(900)));
        for text in ["0s", "-5m", "15", "soon", "[1]", "", "1.5h"] {
            assert!(duration(&node(text)).is_err(), "{text}");
        }
        assert_eq!(
            duration(&node("15")).unwrap_err().help.unwrap(),
            "say the unit: 15s, 15m, 15h or 15d"
        );
    }

    #[test]
    fn an_availability_needs_its_sign() {
        assert_eq!(percentage(&node("99.9 %")), Ok(0.999));
        assert_eq!(percentage(&node("99.99%")), Ok(0.9999));
        for text in ["0.999", "99.9", "100 %", "0 %", "-1 %", "nan %", "'%'"] {
            assert_eq!(percentage(&node(text)).unwrap_err().code, "bad-percentage", "{text}");
        }
        let help = percentage(&node("0.999")).unwrap_err().help.unwrap();
        assert!(help.contains("\"99.9 %\""), "{help}");
    }

    #[test]
    fn secrets_are_names_and_their_texts_are_not_repeated() {
        let env = |name: &str| SecretRef::Env(name.to_owned());
        assert_eq!(secret(&node("env:MUSTER_PASSWORD")), Ok(env("MUSTER_PASSWORD")));
        assert_eq!(secret(&node("file:./db")), Ok(SecretRef::File("./db".to_owned())));
        let pass = SecretRef::Command(vec!["pass".to_owned(), "show x".to_owned()]);
        assert_eq!(secret(&node("command:[pass, 'show x']")), Ok(pass.clone()));
        assert_eq!(secret(&node("{command: [pass, show x]}")), Ok(pass));
        for text in ["hunter2", "env:hunter 2", "'12345'", "'env:'", "command:hunter2", "12345"] {
            let wrong = secret(&node(text)).unwrap_err();
            assert_eq!(wrong.code, "literal-secret", "{text}");
            assert!(!format!("{wrong:?}").contains("hunter"), "{wrong:?}");
        }
        assert_eq!(secret(&node("")).unwrap_err().code, "wrong-type");
    }

    #[test]
    fn passwords_in_addresses_are_seen() {
        for text in [
            "postgresql://u:p@h/d",
            "postgresql://u:p/w@h/d",
            "postgresql://h/d?sslmode=require&password=p",
            "rest:https://u:p@h/",
        ] {
            assert!(has_password(text), "{text}");
        }
        for text in ["postgresql://u@h:5432/d", "http://h:80/a@b", "./folder", "http://[::1]:5432/"]
        {
            assert!(!has_password(text), "{text}");
        }
    }

    #[test]
    fn a_schedule_must_be_due_some_day() {
        assert!(schedule(&node("0 0 29 2 *")).is_ok());
        assert!(schedule(&node("0 0 31 2 *")).unwrap_err().message.contains("never due"));
        let wrong = schedule(&node("'* /5 * * * *'")).unwrap_err();
        assert_eq!((wrong.offset, wrong.help.as_deref()), (2, Some("write \"*/5 * * * *\"")));
    }

    #[test]
    fn time_zones_are_those_of_the_binary() {
        assert_eq!(time_zone(&node("Europe/Rome")), Ok("Europe/Rome"));
        let wrong = time_zone(&node("Europe/Rom")).unwrap_err();
        assert_eq!(wrong.help.as_deref(), Some("did you mean Europe/Rome?"));
    }
}
