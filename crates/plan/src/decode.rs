//! From a tree to a [`Plan`]: takes all that is right and leaves out what is not.
//!
//! It reports nothing. What is wrong the check of the shape has reported already, with the same
//! functions of [`crate::value`]; so here a wrong value is simply not there, and the checks of
//! sense can still run on the rest.

mod recovery;

use std::collections::{BTreeMap, BTreeSet};

use muster_model::{BackupKind, Cadence, Disruption, Place};

use crate::{
    document::{
        Assumptions, Contact, DataClass, DataItem, DataSource, Dependency, Exception, Hook, Hooks,
        Keep, Limits, Markers, Objective, Plan, Protection, Region, Repository, ScheduledDrill,
        Service, Strategy, Tier, Verify,
    },
    position::Positions,
    tiers,
    tree::{Key, Node},
    value,
};

/// Takes a plan from a tree whose text has this revision.
pub(crate) fn plan(root: &Node, revision: String, positions: &mut Positions) -> Plan {
    let tiers = all_tiers(root);
    let services = named(root, "services");
    let services = services.map(|(key, node)| service(key, node, &tiers, positions)).collect();
    let repositories = named(root, "repositories");
    let mut plan = Plan {
        name: string(root, "name").unwrap_or_default(),
        revision,
        regions: regions(root),
        contacts: named(root, "contacts").map(|(key, node)| contact(key, node)).collect(),
        repositories: repositories.filter_map(|(key, node)| repository(key, node)).collect(),
        classes: named(root, "classes").map(|(key, node)| class(key, node)).collect(),
        services,
        drills: kept(root, "drills", "drills", positions, drill),
        exceptions: kept(root, "exceptions", "exceptions", positions, exception),
        tiers,
    };
    plan.bring_copies_of_classes();
    plan
}

/// The entries of a field's mapping, each name once.
fn named<'a>(node: &'a Node, field: &str) -> impl Iterator<Item = (&'a Key, &'a Node)> {
    let mut seen = BTreeSet::new();
    let entries = node.get(field).map_or(&[][..], Node::entries);
    entries.iter().filter(move |(key, _)| seen.insert(&key.text)).map(|(key, node)| (key, node))
}

/// The items of a list that can be read; remembers which they were.
fn kept<T>(
    node: &Node,
    field: &str,
    path: &str,
    positions: &mut Positions,
    read: impl Fn(&Node) -> Option<T>,
) -> Vec<T> {
    let items = node.get(field).map_or(&[][..], Node::items);
    let numbered = items.iter().enumerate();
    let (indexes, values) = numbered.filter_map(|(index, item)| Some((index, read(item)?))).unzip();
    positions.note_read(path, indexes);
    values
}

fn string(node: &Node, field: &str) -> Option<String> {
    node.get(field).and_then(|node| value::text(node).ok()).map(str::to_owned)
}

fn duration(node: &Node, field: &str) -> Option<std::time::Duration> {
    node.get(field).and_then(|node| value::duration(node).ok())
}

/// One text or a list of them.
fn strings(node: &Node, field: &str) -> Vec<String> {
    let Some(node) = node.get(field) else { return Vec::new() };
    let read = |node: &Node| value::text(node).ok().map(str::to_owned);
    match node.scalar() {
        Some(_) => read(node).into_iter().collect(),
        None => node.items().iter().filter_map(read).collect(),
    }
}

/// A list of words of a command line.
fn words(node: &Node, field: &str) -> Vec<String> {
    let items = node.get(field).map_or(&[][..], Node::items);
    items.iter().filter_map(|node| value::word(node).ok()).map(str::to_owned).collect()
}

fn place(node: &Node) -> Place {
    Place { region: string(node, "region"), zone: string(node, "zone"), host: string(node, "host") }
}

fn regions(root: &Node) -> Vec<Region> {
    let items = root.get("regions").map_or(&[][..], Node::items);
    let mut seen = BTreeSet::new();
    let region = |node: &Node| match value::text(node) {
        Ok(name) => Some(Region { name: name.to_owned(), zones: Vec::new() }),
        Err(_) => Some(Region { name: string(node, "name")?, zones: strings(node, "zones") }),
    };
    items.iter().filter_map(region).filter(|region| seen.insert(region.name.clone())).collect()
}

fn contact(key: &Key, node: &Node) -> Contact {
    let way = |(key, node): &(Key, Node)| Some((key.text.clone(), value::word(node).ok()?.into()));
    Contact { name: key.text.clone(), ways: node.entries().iter().filter_map(way).collect() }
}

/// The plan's own tiers, laid over the built-in one of the same name, then the other built-in.
fn all_tiers(root: &Node) -> Vec<Tier> {
    let built_in = tiers::built_in();
    let base = |name: &str| built_in.iter().find(|tier| tier.name == name);
    let own = named(root, "tiers").map(|(key, node)| tier(key, node, base(&key.text)));
    let mut all: Vec<Tier> = own.collect();
    let is_free = |tier: &&Tier| !all.iter().any(|own| own.name == tier.name);
    let rest: Vec<Tier> = built_in.iter().filter(is_free).cloned().collect();
    all.extend(rest);
    all
}

fn tier(key: &Key, node: &Node, base: Option<&Tier>) -> Tier {
    let time = |field: &str, base: Option<std::time::Duration>| duration(node, field).or(base);
    let availability = node.get("availability").and_then(|node| value::percentage(node).ok());
    Tier {
        name: key.text.clone(),
        built_in: false,
        rto: time("rto", base.and_then(|tier| tier.rto)),
        rpo: time("rpo", base.and_then(|tier| tier.rpo)),
        mttr: time("mttr", base.and_then(|tier| tier.mttr)),
        mtbf: time("mtbf", base.and_then(|tier| tier.mtbf)),
        availability: availability.or(base.and_then(|tier| tier.availability)),
        drill_every: time("drill_every", base.and_then(|tier| tier.drill_every)),
        evidence_max_age: time("evidence_max_age", base.and_then(|tier| tier.evidence_max_age)),
    }
}

fn repository(key: &Key, node: &Node) -> Option<Repository> {
    let url = string(node, "url")?;
    let mut place = place(node);
    if place.host.is_none() {
        // A store's address says on which machine it stands.
        let location = muster_model::Location::parse(&url).ok();
        place.host = location.as_ref().and_then(|location| location.host()).map(str::to_owned);
    }
    Some(Repository {
        name: key.text.clone(),
        url,
        place,
        password: secret(node),
        credentials: pairs(node, "credentials", |node| value::secret(node).ok()),
        options: pairs(node, "options", |node| value::word(node).ok().map(str::to_owned)),
        immutable: duration(node, "immutable"),
        warm_up: duration(node, "warm_up"),
        verify: node.get("verify").and_then(verify),
        limits: node.get("limits").map(limits).unwrap_or_default(),
    })
}

fn verify(node: &Node) -> Option<Verify> {
    Some(Verify { within: duration(node, "within")?, budget: duration(node, "budget") })
}

fn limits(node: &Node) -> Limits {
    let rate = |field: &str| node.get(field).and_then(|node| value::rate(node).ok());
    Limits { upload: rate("upload"), download: rate("download") }
}

fn class(key: &Key, node: &Node) -> DataClass {
    DataClass {
        name: key.text.clone(),
        keep: node.get("keep").map(keep).unwrap_or_default(),
        copy: strings(node, "copy"),
        immutable: duration(node, "immutable"),
        verify: node.get("verify").and_then(verify),
        residency: strings(node, "residency"),
        hooks: hooks(node),
    }
}

/// The entries of a mapping that can be read.
fn pairs<T>(node: &Node, field: &str, read: impl Fn(&Node) -> Option<T>) -> Vec<(String, T)> {
    let entries = node.get(field).map_or(&[][..], Node::entries);
    entries.iter().filter_map(|(key, node)| Some((key.text.clone(), read(node)?))).collect()
}

fn secret(node: &Node) -> Option<muster_model::SecretRef> {
    node.get("password").and_then(|node| value::secret(node).ok())
}

fn service(key: &Key, node: &Node, tiers: &[Tier], positions: &mut Positions) -> Service {
    let path = format!("services.{}", key.text);
    let tier_name = string(node, "tier");
    let tier = tiers.iter().find(|tier| Some(&tier.name) == tier_name.as_ref());
    let (objectives, no_objective) = objectives(node, tier);
    let below = |field: &str| format!("{path}.{field}");
    Service {
        name: key.text.clone(),
        place: place(node),
        owner: string(node, "owner"),
        contacts: strings(node, "contacts"),
        impact: impact(node),
        strategy: strategy(node),
        depends_on: kept(node, "depends_on", &below("depends_on"), positions, dependency),
        objectives,
        no_objective,
        data: named(node, "data").filter_map(|(key, node)| data_item(key, node)).collect(),
        protect: kept(node, "protect", &below("protect"), positions, protection),
        markers: node.get("markers").and_then(markers),
        assume: node.get("assume").map(assumptions).unwrap_or_default(),
        recover: kept(node, "recover", &below("recover"), positions, recovery::step),
        acceptance: recovery::acceptance(node.get("acceptance")),
        tier: tier_name,
    }
}

/// What stands: the tier's objectives where a tier has a say, with the service's own over them.
fn objectives(
    node: &Node,
    tier: Option<&Tier>,
) -> (BTreeMap<Disruption, Objective>, Vec<Disruption>) {
    let default = tier.map(|tier| Objective { rto: tier.rto, rpo: tier.rpo });
    let in_tier = Disruption::ALL.into_iter().filter(|disruption| disruption.effect().in_tier);
    let mut standing: BTreeMap<Disruption, Objective> =
        in_tier.filter_map(|disruption| Some((disruption, default?))).collect();
    let mut taken_out = Vec::new();
    for (key, node) in named(node, "objectives") {
        let Ok(disruption) = key.text.parse::<Disruption>() else { continue };
        if node.scalar().is_some_and(|scalar| scalar.text == "none") {
            standing.remove(&disruption);
            taken_out.push(disruption);
            continue;
        }
        let default = default.unwrap_or_default();
        let rto = duration(node, "rto").or(default.rto);
        let rpo = duration(node, "rpo").or(default.rpo);
        standing.insert(disruption, Objective { rto, rpo });
    }
    (standing, taken_out)
}

fn impact(node: &Node) -> Vec<(std::time::Duration, String)> {
    let line = |(key, node): (&Key, &Node)| {
        let length = value::duration(&key.as_node()).ok()?;
        Some((length, value::word(node).ok()?.to_owned()))
    };
    named(node, "impact").filter_map(line).collect()
}

fn strategy(node: &Node) -> Strategy {
    match string(node, "strategy").as_deref() {
        Some("pilot-light") => Strategy::PilotLight,
        Some("warm-standby") => Strategy::WarmStandby,
        Some("active-active") => Strategy::ActiveActive,
        _ => Strategy::BackupRestore,
    }
}

fn dependency(node: &Node) -> Option<Dependency> {
    if let Ok(name) = value::text(node) {
        return Some(Dependency { service: name.to_owned(), hard: true });
    }
    let hard = string(node, "type").as_deref() != Some("soft");
    Some(Dependency { service: string(node, "service")?, hard })
}

fn data_item(key: &Key, node: &Node) -> Option<DataItem> {
    let class = string(node, "class");
    Some(DataItem { name: key.text.clone(), class, source: data_source(node)? })
}

/// In the order of the variants in the table of fields.
fn data_source(node: &Node) -> Option<DataSource> {
    if node.get("files").is_some() {
        let (paths, exclude) = (strings(node, "files"), strings(node, "exclude"));
        return (!paths.is_empty()).then_some(DataSource::Files { paths, exclude });
    }
    if let Some(path) = string(node, "sqlite") {
        return Some(DataSource::Sqlite { path });
    }
    if let Some(url) = node.get("postgres") {
        let url = value::postgres_url(url).ok()?.to_owned();
        return Some(DataSource::Postgres {
            url,
            password: secret(node),
            user: string(node, "user"),
        });
    }
    let argv = words(node, "command");
    let file = string(node, "file")?;
    (!argv.is_empty()).then_some(DataSource::Command { argv, file })
}

fn protection(node: &Node) -> Option<Protection> {
    let schedule = node.get("schedule").and_then(|node| value::schedule(node).ok());
    let kind = string(node, "kind").and_then(|kind| kind.parse::<BackupKind>().ok());
    let cadence = duration(node, "every").map(Cadence::Every).or(schedule.map(Cadence::Cron))?;
    Some(Protection {
        data: strings(node, "data"),
        cadence,
        to: string(node, "to")?,
        copy: strings(node, "copy"),
        copy_of_class: Vec::new(),
        keep: node.get("keep").map(keep).unwrap_or_default(),
        kind: kind.unwrap_or_default(),
        hooks: hooks(node),
    })
}

fn hooks(node: &Node) -> Hooks {
    Hooks {
        before: node.get("before").and_then(hook),
        after: node.get("after").and_then(hook),
        on_failure: node.get("on_failure").and_then(hook),
    }
}

fn hook(node: &Node) -> Option<Hook> {
    let argv = words(node, "run");
    let timeout = duration(node, "timeout").unwrap_or(recovery::RUN_TIMEOUT);
    (!argv.is_empty()).then_some(Hook { argv, timeout })
}

fn keep(node: &Node) -> Keep {
    let count = |field: &str| node.get(field).and_then(|node| value::count(node).ok());
    let within =
        |field: &str| node.get(field).and_then(|node| value::within(node).ok()).unwrap_or_default();
    Keep {
        last: count("last"),
        hourly: count("hourly"),
        daily: count("daily"),
        weekly: count("weekly"),
        monthly: count("monthly"),
        yearly: count("yearly"),
        within: within("within"),
        within_hourly: within("within_hourly"),
        within_daily: within("within_daily"),
        within_weekly: within("within_weekly"),
        within_monthly: within("within_monthly"),
        within_yearly: within("within_yearly"),
        tags: strings(node, "tags"),
    }
}

fn markers(node: &Node) -> Option<Markers> {
    Some(Markers { data: string(node, "data")?, every: duration(node, "every")? })
}

fn assumptions(node: &Node) -> Assumptions {
    Assumptions { detect: duration(node, "detect"), decide: duration(node, "decide") }
}

fn drill(node: &Node) -> Option<ScheduledDrill> {
    let zone = node.get("timezone").and_then(|node| value::time_zone(node).ok());
    Some(ScheduledDrill {
        service: string(node, "service")?,
        disruption: string(node, "disruption")?.parse().ok()?,
        schedule: node.get("schedule").and_then(|node| value::schedule(node).ok()),
        timezone: zone.unwrap_or("UTC").to_owned(),
    })
}

fn exception(node: &Node) -> Option<Exception> {
    Some(Exception {
        service: string(node, "service")?,
        waives: string(node, "waives")?,
        until: node.get("until").and_then(|node| value::date(node).ok())?,
        reason: string(node, "reason").unwrap_or_default(),
        approved_by: string(node, "approved_by"),
    })
}
