//! Options of stores: `-o NAME=VALUE`, and `options` of a repository in the plan.
//!
//! One table holds them all; a name that it does not have is refused, so that a typing error
//! does not pass for a setting.

use std::{collections::BTreeMap, path::PathBuf};

use crate::error::StoreError;

/// Names and what they set.
pub const OPTIONS: &[(&str, &str)] = &[
    ("s3.connections", "how many requests at once, 1 to 64 (5)"),
    ("s3.region", "the bucket's region (from the host, AWS_REGION, or us-east-1)"),
    ("s3.bucket-lookup", "auto, dns or path: where the bucket's name stands (auto)"),
    ("s3.unsafe-anonymous-auth", "true: send no credentials (false)"),
    ("azure.connections", "how many requests at once (5)"),
    ("azure.endpoint", "the account's URL, when it is not Azure's own"),
    ("gs.connections", "how many requests at once (5)"),
    ("gs.endpoint", "the service's URL, when it is not Google's own"),
    ("gs.unsafe-anonymous-auth", "true: send no credentials (false)"),
    ("gs.credentials-file", "a service account's key (GOOGLE_APPLICATION_CREDENTIALS)"),
    ("rest.connections", "how many requests at once (5)"),
    ("sftp.connections", "how many requests at once (5)"),
    ("sftp.command", "the command that speaks SFTP, instead of ssh"),
    ("sftp.args", "more arguments for ssh"),
    ("tls.cacert", "a file with authorities to trust besides the system's, in PEM"),
];

/// Requests at once, unless said otherwise; restic's number.
const CONNECTIONS: u32 = 5;
const CONNECTIONS_MAX: u32 = 64;

/// The names, for messages.
pub(crate) fn names() -> String {
    OPTIONS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// Options by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<&'static str, String>);

impl Options {
    /// Reads `NAME=VALUE` texts; a later one replaces an earlier one.
    ///
    /// # Errors
    /// Fails at a text without `=`, and as [`Options::set`].
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, StoreError> {
        let mut options = Self::default();
        for text in texts {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| StoreError::option(text, "it has no value; write NAME=VALUE"))?;
            options.set(name, value)?;
        }
        Ok(options)
    }

    /// Sets an option.
    ///
    /// # Errors
    /// Fails when there is none of this name, or it cannot have this value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        let known = OPTIONS.iter().find(|(known, _)| *known == name);
        let (name, _) = *known.ok_or_else(|| StoreError::option(name, "no store has it"))?;
        if let Some(why) = wrong(name, value) {
            return Err(StoreError::option(name, why));
        }
        self.0.insert(name, value.to_owned());
        Ok(())
    }

    pub(crate) fn get(&self, name: &'static str) -> Option<&str> {
        debug_assert!(OPTIONS.iter().any(|(known, _)| *known == name), "{name}");
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn is_true(&self, name: &'static str) -> bool {
        self.get(name) == Some("true")
    }

    pub(crate) fn connections(&self, scheme: &str) -> u32 {
        let value = self.0.get(format!("{scheme}.connections").as_str());
        value.and_then(|value| value.parse().ok()).unwrap_or(CONNECTIONS)
    }

    pub(crate) fn authorities(&self) -> Option<PathBuf> {
        self.get("tls.cacert").map(PathBuf::from)
    }
}

/// What is wrong with a value.
fn wrong(name: &str, value: &str) -> Option<&'static str> {
    let fine = match name.split_once('.').map_or(name, |(_, what)| what) {
        "connections" => value.parse().is_ok_and(|n: u32| (1..=CONNECTIONS_MAX).contains(&n)),
        "bucket-lookup" => ["auto", "dns", "path"].contains(&value),
        "unsafe-anonymous-auth" => ["true", "false"].contains(&value),
        _ => !value.is_empty(),
    };
    match name.split_once('.').map_or(name, |(_, what)| what) {
        _ if fine => None,
        "connections" => Some("it is a number from 1 to 64"),
        "bucket-lookup" => Some("it is auto, dns or path"),
        "unsafe-anonymous-auth" => Some("it is true or false"),
        _ => Some("it needs a value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_the_last_one_wins() {
        let options = Options::parse(["s3.connections=7", "s3.region=x", "s3.region=y"]).unwrap();
        assert_eq!((options.connections("s3"), options.get("s3.region")), (7, Some("y")));
        assert_eq!(options.connections("rest"), CONNECTIONS);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "s3.conections=5",
            "s3.connections=0",
            "s3.connections=many",
            "s3.region",
            "s3.region=",
            "s3.bucket-lookup=both",
            "s3.unsafe-anonymous-auth=yes",
        ] {
            assert!(Options::parse([text]).is_err(), "{text}");
        }
    }
}
