//! Probes: one question to a service, one answer within its time.
//!
//! Every sample stands alone: a connection of its own, so that a service that died since the
//! last one is seen; a time limit over the whole of it, so that a server that accepts and never
//! answers is red and delays nobody. An answer that is not as expected, and no answer, are
//! [`Light::Red`]; but when the prober itself could not ask, because it has no descriptor or
//! no resolver, that says nothing about the target and is [`Light::Unknown`].

mod command;
mod http;
mod postgres;
mod sqlite;
mod tcp;
mod tls;
mod trouble;
mod value;

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

use muster_model::{Class, Fault, Light, Probe, ProbeCheck, probe::Database};
use thiserror::Error;
use tokio::time::timeout;
use zeroize::Zeroizing;

use self::{http::Clients, trouble::Trouble};
use crate::text::masked;

/// What a probe needs and a plan does not hold.
#[derive(Clone, Default)]
pub struct ProbeSecrets {
    /// The password of the database that an `sql` probe asks, unless its address holds one.
    pub password: Option<Zeroizing<String>>,
    /// Other texts that no detail may show.
    pub hidden: Vec<Zeroizing<String>>,
}

impl fmt::Debug for ProbeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeSecrets").finish_non_exhaustive()
    }
}

/// What one question brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Green, red, or not known.
    pub light: Light,
    /// Why, on one line, without secrets: `status 200`, `status 302, expected 200`.
    pub detail: String,
    /// When the question began.
    pub started: Instant,
    /// From there to the answer, or to the end of the probe's time.
    pub took: Duration,
}

/// Why there is no prober.
#[derive(Debug, Error)]
#[error("prepare the HTTP client")]
pub struct ProberError(#[source] reqwest::Error);

impl Fault for ProberError {
    fn class(&self) -> Class {
        Class::Transient
    }

    fn code(&self) -> &'static str {
        "prober-unavailable"
    }

    fn help(&self) -> Option<String> {
        Some("see the cause; a system without any certificate authority is one".to_owned())
    }
}

/// Asks probes. Cheap to clone; clones share what is set up once.
#[derive(Debug, Clone)]
pub struct Prober {
    clients: Clients,
}

impl Prober {
    /// Sets the HTTP clients up.
    ///
    /// # Errors
    /// Fails when TLS cannot be set up.
    pub fn new() -> Result<Self, ProberError> {
        tls::install_provider();
        Ok(Self { clients: Clients::new().map_err(ProberError)? })
    }

    /// Asks once. The texts of `probe` must be rendered already. Returns within its timeout,
    /// give or take the scheduler.
    pub async fn ask(&self, probe: &Probe, secrets: &ProbeSecrets) -> Sample {
        let started = Instant::now();
        let answer = timeout(probe.timeout, self.question(probe, secrets)).await;
        let answer = answer.unwrap_or(Err(Trouble::TimedOut(probe.timeout)));
        let took = started.elapsed();
        let (light, detail) = match answer {
            Ok(detail) => (Light::Green, detail),
            Err(trouble) => (light_of(&trouble), trouble.to_string()),
        };
        Sample { light, detail: masked(detail, &all_secrets(probe, secrets)), started, took }
    }

    async fn question(&self, probe: &Probe, secrets: &ProbeSecrets) -> Result<String, Trouble> {
        let limit = probe.timeout;
        match &probe.check {
            ProbeCheck::Http { url, statuses, body, json, redirects } => {
                let expected = http::Expected { statuses, body: body.as_deref(), json };
                http::ask(self.clients.get(*redirects), url, &expected).await
            }
            ProbeCheck::Tcp { address } => tcp::ask(address).await,
            ProbeCheck::Command { argv, exit, output } => {
                command::ask(argv, *exit, output.as_deref()).await
            }
            ProbeCheck::Sql { database, query, expect } => match database {
                Database::Postgres(url) => {
                    let password = secrets.password.as_ref();
                    postgres::ask(url, password, query, expect, limit).await
                }
                Database::Sqlite(path) => sqlite::ask(path, query, expect, limit).await,
                Database::OfData => {
                    Err(Trouble::Prober("the probe's database was not filled in".to_owned()))
                }
            },
        }
    }
}

fn light_of(trouble: &Trouble) -> Light {
    match trouble {
        Trouble::Prober(_) => Light::Unknown,
        Trouble::Answer(_) => Light::Red,
        // Without a descriptor many things fail in many words: the plain question settles it.
        Trouble::NoAnswer(_) | Trouble::TimedOut(_) => match fs::File::open("/dev/null") {
            Err(error) if trouble::is_of_prober(&error) => Light::Unknown,
            _ => Light::Red,
        },
    }
}

/// All that must not appear: the given secrets, and a password inside an address.
fn all_secrets(probe: &Probe, secrets: &ProbeSecrets) -> Vec<Zeroizing<String>> {
    let address = match &probe.check {
        ProbeCheck::Http { url, .. } => Some(url),
        ProbeCheck::Sql { database: Database::Postgres(url), .. } => Some(url),
        _ => None,
    };
    let in_address = address.map(|url| passwords_in(url)).unwrap_or_default();
    let given = secrets.password.iter().chain(&secrets.hidden).cloned();
    given.chain(in_address).collect()
}

/// The password of an address, as written and decoded.
fn passwords_in(url: &str) -> Vec<Zeroizing<String>> {
    let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
    let authority = address.split_once("://").map_or("", |(_, rest)| rest);
    // A password that holds a slash as such makes the address odd, and is hidden all the same.
    let login = authority.rsplit_once('@').and_then(|(login, _)| login.split_once(':'));
    let given = parameters.split('&').filter_map(|pair| pair.strip_prefix("password="));
    let found = login.map(|(_, password)| password).into_iter().chain(given);
    found
        .flat_map(|password| [Some(password.to_owned()), value::percent_decoded(password)])
        .flatten()
        .map(Zeroizing::new)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_found_in_addresses() {
        let check = |url: &str, expected: &[&str]| {
            let found = passwords_in(url);
            let found: Vec<&str> = found.iter().map(|password| password.as_str()).collect();
            assert_eq!(found, expected, "{url}");
        };
        check("http://h/x?y=z", &[]);
        check("postgresql://ana:p%40ss@h1:1,h2:2/db", &["p%40ss", "p@ss"]);
        check("postgresql://h/db?password=p+q&user=x", &["p+q", "p+q"]);
        check("https://ana:s3@h/", &["s3", "s3"]);
    }
}
