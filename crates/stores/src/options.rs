//! Options of stores: `-o NAME=VALUE`, and `options` of a repository in the plan.
//!
//! One table holds them all; a name that it does not have is refused, so that a typing error
//! does not pass for a setting.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use muster_model::units::parse_duration;
use muster_repository::{format::time::Timestamp, storage::Mode};

use crate::error::StoreError;

/// How files are held that are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    /// From the writing on; `None` for not at all.
    pub(crate) time: Option<Duration>,
    /// Also of holds that are asked for later.
    pub(crate) mode: Mode,
    /// Only where the bucket can: who asked holds files afterwards, too, and tells when that fails.
    pub(crate) is_wish: bool,
}

impl Hold {
    /// The same, and if nothing was said of new files, they are held for so long where the bucket
    /// can.
    pub(crate) fn wishing(self, time: Option<Duration>) -> Self {
        match self.time {
            Some(_) => self,
            None => Self { time, is_wish: true, ..self },
        }
    }
}

/// Where packs of data lie, and how they come back from an archive.
#[derive(Debug, Clone)]
pub(crate) struct Cold {
    /// The storage class of new packs of data; `None` for the bucket's own.
    pub(crate) class: Option<String>,
    /// For how many days what is brought back can be read.
    pub(crate) days: u32,
    /// How quickly it comes, in S3's word.
    pub(crate) tier: &'static str,
}

/// For how long what is brought back can be read, in days, unless said otherwise; restic's number.
const RESTORE_DAYS: u32 = 7;

/// The speeds at which S3 brings back, by their names here.
const TIERS: [(&str, &str); 3] =
    [("standard", "Standard"), ("bulk", "Bulk"), ("expedited", "Expedited")];

/// Names and what they set.
pub const OPTIONS: &[(&str, &str)] = &[
    ("s3.connections", "how many connections at most, 1 to 64 (10)"),
    ("s3.region", "the bucket's region (from the host, AWS_REGION, or us-east-1)"),
    ("s3.bucket-lookup", "auto, dns or path: where the bucket's name stands (auto)"),
    ("s3.unsafe-anonymous-auth", "true: send no credentials (false)"),
    ("s3.object-lock", "hold each new file for so long, for example 30d (not at all)"),
    ("s3.object-lock-mode", "compliance or governance: who may end a hold early (compliance)"),
    ("s3.as-of", "read a bucket with versions as it was at a moment, as 2026-11-01T00:00:00Z"),
    (
        "s3.storage-class",
        "of new packs of data alone, as GLACIER or STANDARD_IA (the bucket's own)",
    ),
    ("s3.restore-days", "how long what --warm-up brings back can be read, in days (7)"),
    ("s3.restore-tier", "standard, bulk or expedited: how quickly it comes (standard)"),
    ("azure.connections", "how many connections at most (10)"),
    ("azure.endpoint", "the account's URL, when it is not Azure's own"),
    ("gs.connections", "how many connections at most (10)"),
    ("gs.endpoint", "the service's URL, when it is not Google's own"),
    ("gs.unsafe-anonymous-auth", "true: send no credentials (false)"),
    ("gs.credentials-file", "a service account's key (GOOGLE_APPLICATION_CREDENTIALS)"),
    ("rest.connections", "how many connections at most (5)"),
    ("sftp.connections", "how many requests at once at most (5)"),
    ("sftp.command", "the command that speaks SFTP, instead of ssh"),
    ("sftp.args", "more arguments for ssh"),
    ("tls.cacert", "a file with authorities to trust besides the system's, in PEM"),
];

/// Requests at once at most, unless said otherwise: restic's number for a single server, and twice
/// that for the clouds' stores, which are many. How many there are is decided in `lanes.rs`.
const CONNECTIONS: u32 = 5;
const CONNECTIONS_TO_CLOUDS: u32 = 10;
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
        let usual = match scheme {
            "s3" | "azure" | "gs" => CONNECTIONS_TO_CLOUDS,
            _ => CONNECTIONS,
        };
        value.and_then(|value| value.parse().ok()).unwrap_or(usual)
    }

    /// How long new files are held, and how.
    pub(crate) fn hold(&self) -> Hold {
        let time = self.get("s3.object-lock").and_then(|text| parse_duration(text).ok());
        let mode = match self.get("s3.object-lock-mode") {
            Some("governance") => Mode::Governance,
            _ => Mode::Compliance,
        };
        Hold { time, mode, is_wish: false }
    }

    /// The moment as of which a bucket is read.
    pub(crate) fn as_of(&self) -> Option<Timestamp> {
        self.get("s3.as-of").and_then(|text| Timestamp::parse(text).ok())
    }

    /// Where packs of data lie, and how they come back.
    pub(crate) fn cold(&self) -> Cold {
        let days = self.get("s3.restore-days").and_then(|text| text.parse().ok());
        let tier = self.get("s3.restore-tier").and_then(tier);
        Cold {
            class: self.get("s3.storage-class").map(str::to_owned),
            days: days.unwrap_or(RESTORE_DAYS),
            tier: tier.unwrap_or(TIERS[0].1),
        }
    }

    pub(crate) fn authorities(&self) -> Option<PathBuf> {
        self.get("tls.cacert").map(PathBuf::from)
    }
}

/// S3's word for a speed.
fn tier(name: &str) -> Option<&'static str> {
    let is_it = |(own, theirs): &&(&str, &str)| name == *own || name == *theirs;
    TIERS.iter().find(is_it).map(|(_, theirs)| *theirs)
}

/// Stores that speak S3 have classes of their own.
fn is_class(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (1..=40).contains(&text.len()) && text.chars().all(fits)
}

/// What is wrong with a value.
fn wrong(name: &str, value: &str) -> Option<&'static str> {
    let fine = match name.split_once('.').map_or(name, |(_, what)| what) {
        "connections" => value.parse().is_ok_and(|n: u32| (1..=CONNECTIONS_MAX).contains(&n)),
        "bucket-lookup" => ["auto", "dns", "path"].contains(&value),
        "unsafe-anonymous-auth" => ["true", "false"].contains(&value),
        "object-lock" => parse_duration(value).is_ok_and(|time| time.as_secs() > 0),
        "object-lock-mode" => ["compliance", "governance"].contains(&value),
        "as-of" => Timestamp::parse(value).is_ok(),
        "storage-class" => is_class(value),
        "restore-days" => value.parse().is_ok_and(|days: u32| (1..=3650).contains(&days)),
        "restore-tier" => tier(value).is_some(),
        _ => !value.is_empty(),
    };
    match name.split_once('.').map_or(name, |(_, what)| what) {
        _ if fine => None,
        "connections" => Some("it is a number from 1 to 64"),
        "bucket-lookup" => Some("it is auto, dns or path"),
        "unsafe-anonymous-auth" => Some("it is true or false"),
        "object-lock" => Some("it is a duration, such as 30d"),
        "object-lock-mode" => Some("it is compliance or governance"),
        "as-of" => Some("it is a moment as 2026-11-01T00:00:00Z"),
        "storage-class" => Some("it is a class in the store's own word, as DEEP_ARCHIVE"),
        "restore-days" => Some("it is a number of days from 1 to 3650"),
        "restore-tier" => Some("it is standard, bulk or expedited"),
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
        assert_eq!(options.connections("azure"), CONNECTIONS_TO_CLOUDS);
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
            "s3.object-lock=soon",
            "s3.object-lock-mode=strict",
            "s3.as-of=yesterday",
            "s3.storage-class=glacier",
            "s3.restore-days=0",
            "s3.restore-tier=fast",
        ] {
            assert!(Options::parse([text]).is_err(), "{text}");
        }
    }
}
