//! Names that lead nowhere, twice to the same place, or round in a circle; templates that ask
//! for what no target has.
//!
//! These are mistakes of the text, whatever was measured and whatever the time is, so they are
//! found whenever a plan is read.

mod templates;

use std::collections::BTreeSet;

use muster_model::{ProbeCheck, Step};

use crate::{
    codes,
    document::{DataSource, Plan, Service},
    position::join,
    report::Report,
    tree::Node,
    value,
};

/// Checks all names of a plan.
pub(crate) fn check(plan: &Plan, root: &Node, report: &mut Report<'_>) {
    check_regions(root, report);
    check_repositories(plan, report);
    check_classes(plan, report);
    for service in &plan.services {
        let path = format!("services.{}", service.name);
        check_service(plan, service, &path, report);
        check_data(service, &path, report);
        check_protection(plan, service, &path, report);
        templates::check(service, &path, report);
    }
    check_lists(plan, report);
    check_cycles(plan, report);
}

/// Reports a name that is not among those known.
fn known<'a>(
    report: &mut Report<'_>,
    path: &str,
    (what, name): (&str, &str),
    known: impl Iterator<Item = &'a str> + Clone,
) {
    if known.clone().any(|known| known == name) {
        return;
    }
    let help = match value::nearest(name, known.clone()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => match known.collect::<Vec<_>>().join(", ") {
            all if all.is_empty() => format!("the plan has no {what}: add it, or take this out"),
            all => format!("the plan has {all}"),
        },
    };
    let message = format!("there is no {what} '{}'", value::shorten(name));
    report.add("unknown-reference", path, message, help);
}

/// Reports a name that stands twice in one list.
fn once(report: &mut Report<'_>, list: &str, names: &[String]) {
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        if !name.is_empty() && !seen.insert(name) {
            let path = match report.positions().has(&format!("{list}[{index}]")) {
                true => format!("{list}[{index}]"),
                false => list.to_owned(),
            };
            let message = format!("'{name}' stands twice in this list");
            report.add("duplicate-name", &path, message, "take one out");
        }
    }
}

/// Looks at the tree, since a [`Plan`] holds each region once.
fn check_regions(root: &Node, report: &mut Report<'_>) {
    let items = root.get("regions").map_or(&[][..], Node::items);
    let name = |node: &Node| {
        value::text(node).ok().or_else(|| value::text(node.get("name")?).ok()).map(str::to_owned)
    };
    let names: Vec<String> = items.iter().map(|node| name(node).unwrap_or_default()).collect();
    once(report, "regions", &names);
    for (index, region) in items.iter().enumerate() {
        let zones = region.get("zones").map_or(&[][..], Node::items);
        let zones: Vec<String> = zones.iter().map(|node| name(node).unwrap_or_default()).collect();
        once(report, &format!("regions[{index}].zones"), &zones);
    }
}

fn check_place(plan: &Plan, place: &muster_model::Place, path: &str, report: &mut Report<'_>) {
    let regions = plan.regions.iter().map(|region| region.name.as_str());
    if let Some(region) = &place.region {
        known(report, &join(path, "region"), ("region", region), regions);
    }
    let Some(zone) = &place.zone else { return };
    let region = plan.regions.iter().find(|region| Some(&region.name) == place.region.as_ref());
    let zones = region.map_or(&[][..], |region| &region.zones);
    let what = format!("zone of {}", place.region.as_deref().unwrap_or("no region"));
    known(report, &join(path, "zone"), (&what, zone), zones.iter().map(String::as_str));
}

fn check_repositories(plan: &Plan, report: &mut Report<'_>) {
    for (index, repository) in plan.repositories.iter().enumerate() {
        let path = format!("repositories.{}", repository.name);
        check_place(plan, &repository.place, &path, report);
        let folder = |url: &str| url.trim_end_matches('/').trim_start_matches("./").to_owned();
        let same =
            |other: &&crate::document::Repository| folder(&other.url) == folder(&repository.url);
        if let Some(other) = plan.repositories[..index].iter().find(same) {
            let message = format!("'{}' and '{}' are one repository", repository.name, other.name);
            let help = "a copy of a repository in itself is no copy: give it a place of its own";
            report.add("duplicate-name", &join(&path, "url"), message, help);
        }
    }
}

/// Names of repositories and regions in classes.
fn check_classes(plan: &Plan, report: &mut Report<'_>) {
    let repositories = plan.repositories.iter().map(|repository| repository.name.as_str());
    let regions = plan.regions.iter().map(|region| region.name.as_str());
    for class in &plan.classes {
        let path = format!("classes.{}", class.name);
        let (copy, residency) = (join(&path, "copy"), join(&path, "residency"));
        each(report, &copy, &class.copy, &mut |report, path, name| {
            known(report, path, ("repository", name), repositories.clone());
        });
        once(report, &copy, &class.copy);
        each(report, &residency, &class.residency, &mut |report, path, name| {
            known(report, path, ("region", name), regions.clone());
        });
        once(report, &residency, &class.residency);
    }
}

fn check_service(plan: &Plan, service: &Service, path: &str, report: &mut Report<'_>) {
    check_place(plan, &service.place, path, report);
    if let Some(tier) = &service.tier {
        let tiers = plan.tiers.iter().map(|tier| tier.name.as_str());
        known(report, &join(path, "tier"), ("tier", tier), tiers);
    }
    let contacts = plan.contacts.iter().map(|contact| contact.name.as_str());
    for (index, contact) in service.contacts.iter().enumerate() {
        let path = format!("{path}.contacts[{index}]");
        known(report, &path, ("contact", contact), contacts.clone());
    }
    once(report, &join(path, "contacts"), &service.contacts);
    let classes = plan.classes.iter().map(|class| class.name.as_str());
    for item in &service.data {
        let Some(class) = &item.class else { continue };
        let path = format!("{path}.data.{}.class", item.name);
        known(report, &path, ("class", class), classes.clone());
    }
    let services = plan.services.iter().map(|service| service.name.as_str());
    for (index, dependency) in service.depends_on.iter().enumerate() {
        let path = report.positions().item(&join(path, "depends_on"), index);
        known(report, &path, ("service", &dependency.service), services.clone());
    }
}

/// Names of data items: in markers, steps, probes and rules.
fn check_data(service: &Service, path: &str, report: &mut Report<'_>) {
    let items = service.data.iter().map(|item| item.name.as_str());
    let mut data = |report: &mut Report<'_>, path: &str, name: &str| {
        known(report, path, ("data", name), items.clone());
    };
    if let Some(markers) = &service.markers {
        data(report, &join(path, "markers.data"), &markers.data);
        if let Some(DataSource::Command { .. }) =
            service.data(&markers.data).map(|item| &item.source)
        {
            let message = format!("markers cannot be written to '{}'", markers.data);
            let help = "name data that is postgres, sqlite or files";
            report.add("bad-value", &join(path, "markers.data"), message, help);
        }
    }
    for (index, step) in service.recover.iter().enumerate() {
        let Step::Restore { data: names } = step else { continue };
        let path = join(&report.positions().item(&join(path, "recover"), index), "restore");
        each(report, &path, names, &mut data);
        once(report, &path, names);
    }
    let acceptance = join(path, "acceptance");
    for probe in &service.acceptance.probes {
        let Some(on) = &probe.on else { continue };
        let path = format!("{acceptance}.probes.{}.on", probe.name);
        data(report, &path, on);
        if matches!(probe.check, ProbeCheck::Sql { .. }) {
            must_be_database(service, on, &path, report);
        }
    }
    for (name, _) in &service.acceptance.rows {
        let path = format!("{acceptance}.completeness.rows.{name}");
        data(report, &path, name);
        must_be_database(service, name, &path, report);
    }
    let path = join(&acceptance, "completeness.checksums");
    each(report, &path, &service.acceptance.checksums, &mut data);
}

/// Runs a check for one name or each of a list, at its own place.
fn each(
    report: &mut Report<'_>,
    path: &str,
    names: &[String],
    check: &mut impl FnMut(&mut Report<'_>, &str, &str),
) {
    for (index, name) in names.iter().enumerate() {
        let item = format!("{path}[{index}]");
        let path = if report.positions().has(&item) { &item } else { path };
        check(report, path, name);
    }
}

fn must_be_database(service: &Service, name: &str, path: &str, report: &mut Report<'_>) {
    let Some(item) = service.data(name) else { return };
    if matches!(item.source, DataSource::Files { .. } | DataSource::Command { .. }) {
        let message = format!("'{name}' is no database: it is {}", item.source.kind());
        report.add("bad-value", path, message, "name data that is postgres or sqlite");
    }
}

fn check_protection(plan: &Plan, service: &Service, path: &str, report: &mut Report<'_>) {
    let items = service.data.iter().map(|item| item.name.as_str());
    let repositories = plan.repositories.iter().map(|repository| repository.name.as_str());
    for (index, protection) in service.protect.iter().enumerate() {
        let path = report.positions().item(&join(path, "protect"), index);
        let (data, copy) = (join(&path, "data"), join(&path, "copy"));
        each(report, &data, &protection.data, &mut |report, path, name| {
            known(report, path, ("data", name), items.clone());
        });
        once(report, &data, &protection.data);
        let to = ("repository", protection.to.as_str());
        known(report, &join(&path, "to"), to, repositories.clone());
        // What a class adds stands elsewhere in the text, and was checked there.
        let own = protection.copy.len() - protection.copy_of_class.len();
        let own = &protection.copy[..own];
        each(report, &copy, own, &mut |report, path, name| {
            known(report, path, ("repository", name), repositories.clone());
            if name == protection.to {
                let message = format!("'{name}' receives a copy of itself");
                report.add("duplicate-name", path, message, "name another repository");
            }
        });
        once(report, &copy, own);
    }
}

/// Names in the lists of drills and exceptions.
fn check_lists(plan: &Plan, report: &mut Report<'_>) {
    let services = plan.services.iter().map(|service| service.name.as_str());
    for (index, drill) in plan.drills.iter().enumerate() {
        let path = join(&report.positions().item("drills", index), "service");
        known(report, &path, ("service", &drill.service), services.clone());
    }
    for (index, exception) in plan.exceptions.iter().enumerate() {
        let path = report.positions().item("exceptions", index);
        known(report, &join(&path, "service"), ("service", &exception.service), services.clone());
        check_waived(&exception.waives, &join(&path, "waives"), report);
    }
}

fn check_waived(code: &str, path: &str, report: &mut Report<'_>) {
    let can_be_waived = codes::ALL.iter().filter(|entry| entry.can_be_waived);
    let all = codes::ALL.iter().map(|entry| entry.code);
    if !all.clone().any(|known| known == code) {
        return known(report, path, ("code of a finding", code), all);
    }
    if !can_be_waived.clone().any(|entry| entry.code == code) {
        let message = format!("'{code}' cannot be waived: the plan would not be understood");
        report.add("bad-value", path, message, "put right what it says");
    }
}

/// Reports each circle of hard dependencies once, where its first service enters it.
fn check_cycles(plan: &Plan, report: &mut Report<'_>) {
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    for service in &plan.services {
        if let Some(circle) = circle_from(plan, &service.name, &settled) {
            let index = service.depends_on.iter().position(|dependency| {
                dependency.hard && circle.get(1) == Some(&dependency.service.as_str())
            });
            let list = format!("services.{}.depends_on", service.name);
            let path = report.positions().item(&list, index.unwrap_or(0));
            let message = format!("these services wait for each other: {}", circle.join(" → "));
            let help = "let one of them do without: {service: NAME, type: soft}";
            report.add("dependency-cycle", &path, message, help);
            settled.extend(circle);
        }
        settled.insert(&service.name);
    }
}

/// A way from a service along hard dependencies back to itself, through none that is settled.
fn circle_from<'a>(
    plan: &'a Plan,
    start: &'a str,
    settled: &BTreeSet<&str>,
) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![start]];
    let mut visited: BTreeSet<&str> = BTreeSet::new();
    while let Some(way) = ways.pop() {
        let Some(service) = way.last().and_then(|name| plan.service(name)) else { continue };
        for next in service.depends_on.iter().filter(|dependency| dependency.hard).rev() {
            let mut longer = way.clone();
            longer.push(&next.service);
            if next.service == start {
                return Some(longer);
            }
            if !settled.contains(next.service.as_str()) && visited.insert(&next.service) {
                ways.push(longer);
            }
        }
    }
    None
}
