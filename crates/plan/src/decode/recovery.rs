//! Runbooks and acceptance: steps, probes, what is counted.

use std::time::Duration;

use muster_model::{Probe, ProbeCheck, Step, probe::Database};
use serde_json::Value;

use super::{duration, named, string, strings, words};
use crate::{
    document::Acceptance,
    tree::{Key, Node},
    value,
};

/// How long a `run` step may take unless the plan says otherwise.
pub(crate) const RUN_TIMEOUT: Duration = Duration::from_secs(600);
/// How long every probe must stay green unless the plan says otherwise.
pub(crate) const HOLD: Duration = Duration::from_secs(10);
/// When a recovery gives up waiting for its probes unless the plan says otherwise.
pub(crate) const WITHIN: Duration = Duration::from_secs(600);
/// From one sample to the next unless the plan says otherwise.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// When a sample counts as red unless the plan says otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// A step, when it does something.
pub(super) fn step(node: &Node) -> Option<Step> {
    if node.get("restore").is_some() {
        let data = strings(node, "restore");
        return (!data.is_empty()).then_some(Step::Restore { data });
    }
    let env = named(node, "env");
    let variable =
        |(key, node): (&Key, &Node)| Some((key.text.clone(), value::word(node).ok()?.into()));
    let env = env.filter_map(variable).collect();
    let (user, dir) = (string(node, "user"), string(node, "dir"));
    if node.get("start").is_some() {
        let argv = words(node, "start");
        return (!argv.is_empty()).then_some(Step::Start { argv, env, user, dir });
    }
    let argv = words(node, "run");
    let timeout = duration(node, "timeout").unwrap_or(RUN_TIMEOUT);
    (!argv.is_empty()).then_some(Step::Run { argv, env, user, dir, timeout })
}

/// What `acceptance` says, with defaults for what it does not.
pub(super) fn acceptance(node: Option<&Node>) -> Acceptance {
    let probes = node.into_iter().flat_map(|node| named(node, "probes"));
    let rules = node.and_then(|node| node.get("completeness"));
    let rows = rules.into_iter().flat_map(|rules| {
        named(rules, "rows").map(|(key, _)| {
            let tables = rules.get("rows").map(|rows| strings(rows, &key.text));
            (key.text.clone(), tables.unwrap_or_default())
        })
    });
    Acceptance {
        hold: node.and_then(|node| duration(node, "hold")).unwrap_or(HOLD),
        within: node.and_then(|node| duration(node, "within")).unwrap_or(WITHIN),
        probes: probes.filter_map(|(key, node)| probe(key, node)).collect(),
        rows: rows.collect(),
        checksums: rules.map(|rules| strings(rules, "checksums")).unwrap_or_default(),
    }
}

fn probe(key: &Key, node: &Node) -> Option<Probe> {
    Some(Probe {
        name: key.text.clone(),
        check: check(node)?,
        on: string(node, "on"),
        interval: duration(node, "interval").unwrap_or(INTERVAL),
        timeout: duration(node, "timeout").unwrap_or(TIMEOUT),
    })
}

/// In the order of the variants in the table of fields.
fn check(node: &Node) -> Option<ProbeCheck> {
    let expect = node.get("expect");
    if let Some(url) = node.get("http") {
        return Some(http(value::address(url).ok()?.to_owned(), expect));
    }
    if let Some(address) = string(node, "tcp") {
        return Some(ProbeCheck::Tcp { address });
    }
    if let Some(query) = string(node, "sql") {
        let expect = expect.map(Node::to_json)?;
        return Some(ProbeCheck::Sql { database: Database::OfData, query, expect });
    }
    let argv = words(node, "command");
    let exit = expect.and_then(|expect| value::exit_code(expect.get("exit")?).ok());
    let output = expect.and_then(|expect| string(expect, "output"));
    (!argv.is_empty()).then_some(ProbeCheck::Command { argv, exit: exit.unwrap_or(0), output })
}

fn http(url: String, expect: Option<&Node>) -> ProbeCheck {
    let json = expect.into_iter().flat_map(|expect| named(expect, "json"));
    let redirects = expect.and_then(|expect| value::boolean(expect.get("redirects")?).ok());
    ProbeCheck::Http {
        url,
        statuses: statuses(expect.and_then(|expect| expect.get("status"))),
        body: expect.and_then(|expect| string(expect, "body")),
        json: json
            .map(|(key, node)| (key.text.clone(), node.to_json()))
            .collect::<Vec<(String, Value)>>(),
        redirects: redirects.unwrap_or(false),
    }
}

fn statuses(node: Option<&Node>) -> Vec<u16> {
    let one = node.and_then(|node| value::status(node).ok());
    let items = node.map_or(&[][..], Node::items);
    let mut all: Vec<u16> = items.iter().filter_map(|node| value::status(node).ok()).collect();
    all.extend(one);
    match all.is_empty() {
        true => vec![200],
        false => all,
    }
}
