//! `http` probes: status, text, JSON.
//!
//! A redirect is an answer with a status like any other: followed only when the plan says so,
//! or a login page would count as healthy. Proxies of the environment are ignored: they would
//! answer in the target's place.

use reqwest::{Client, Response, redirect::Policy};
use serde_json::Value;
use serde_json_path::JsonPath;

use super::{trouble::Trouble, value::same};
use crate::text::quote;

/// No more than this is read of an answer.
const BODY_BYTES_MAX: usize = 1 << 20;
/// As browsers do.
const REDIRECTS_MAX: usize = 20;

/// A client that follows redirects and one that does not.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    strict: Client,
    following: Client,
}

impl Clients {
    pub(super) fn new() -> reqwest::Result<Self> {
        let client = |policy| {
            Client::builder()
                .no_proxy()
                // A connection is not kept: each sample sees whether the service still accepts.
                .pool_max_idle_per_host(0)
                .redirect(policy)
                .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        let following = client(Policy::limited(REDIRECTS_MAX))?;
        Ok(Self { strict: client(Policy::none())?, following })
    }

    pub(super) fn get(&self, redirects: bool) -> &Client {
        if redirects { &self.following } else { &self.strict }
    }
}

/// What makes an answer green.
pub(super) struct Expected<'a> {
    pub(super) statuses: &'a [u16],
    pub(super) body: Option<&'a str>,
    pub(super) json: &'a [(String, Value)],
}

/// Asks once, and reads the answer to its end or to its limit.
pub(super) async fn ask(
    client: &Client,
    url: &str,
    expected: &Expected<'_>,
) -> Result<String, Trouble> {
    // The address may hold a password, and whoever reads the detail knows the probe.
    let failed = |error: reqwest::Error| Trouble::of(&error.without_url());
    let response = client.get(url).send().await.map_err(failed)?;
    let status = response.status().as_u16();
    if !expected.statuses.contains(&status) {
        return Err(Trouble::Answer(format!("status {status}, {}", wanted(expected.statuses))));
    }
    let body = read(response).await.map_err(failed)?;
    if let Some(text) = expected.body {
        contains(&body, text)?;
    }
    if !expected.json.is_empty() {
        selects(&body, expected.json)?;
    }
    Ok(format!("status {status}"))
}

fn wanted(statuses: &[u16]) -> String {
    let statuses: Vec<String> = statuses.iter().map(u16::to_string).collect();
    format!("expected {}", statuses.join(" or "))
}

/// The body, or as much of it as is looked at.
struct Body {
    bytes: Vec<u8>,
    is_cut: bool,
}

async fn read(mut response: Response) -> reqwest::Result<Body> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = BODY_BYTES_MAX - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(Body { bytes, is_cut: true });
        }
    }
    Ok(Body { bytes, is_cut: false })
}

fn contains(body: &Body, text: &str) -> Result<(), Trouble> {
    let wanted = text.as_bytes();
    if wanted.is_empty() || body.bytes.windows(wanted.len()).any(|window| window == wanted) {
        return Ok(());
    }
    let place = if body.is_cut { "the first MiB of the body" } else { "the body" };
    Err(Trouble::Answer(format!("'{}' is not in {place}", quote(text))))
}

fn selects(body: &Body, expected: &[(String, Value)]) -> Result<(), Trouble> {
    if body.is_cut {
        return Err(Trouble::Answer("the body is larger than 1 MiB".to_owned()));
    }
    let document = serde_json::from_slice(&body.bytes)
        .map_err(|error| Trouble::Answer(format!("the body is not JSON ({error})")))?;
    expected.iter().try_for_each(|(path, value)| select(&document, path, value))
}

/// Exactly one place must be selected, and hold the value.
fn select(document: &Value, path: &str, expected: &Value) -> Result<(), Trouble> {
    let wrong = |text: String| Err(Trouble::Answer(format!("{}: {text}", quote(path))));
    let Ok(parsed) = JsonPath::parse(path) else {
        return wrong("this is no JSON path (RFC 9535)".to_owned());
    };
    match parsed.query(document).all().as_slice() {
        [] => wrong(format!("nothing there, expected {}", quote(&expected.to_string()))),
        [value] if same(value, expected) => Ok(()),
        [value] => {
            let (value, expected) = (value.to_string(), expected.to_string());
            wrong(format!("{}, expected {}", quote(&value), quote(&expected)))
        }
        several => wrong(format!("{} places, expected one", several.len())),
    }
}
