//! What classes of data ask for and cannot bring themselves: regions, and copies that nobody can
//! change. A line that falls short is an error until an exception, which ends, waives it.

use muster_model::units::format_duration;

use super::{Context, protections_of, repositories_of};
use crate::{
    document::{DataClass, DataItem, Repository, Service},
    report::Report,
};

/// Judges the data of a service by its classes.
pub(super) fn check(context: &Context<'_>, service: &Service, path: &str, report: &mut Report<'_>) {
    for item in &service.data {
        let Some(class) = context.plan.class_of(item) else { continue };
        let lines = protections_of(service, &item.name);
        let there = lines.flat_map(|(_, line)| repositories_of(context.plan, line));
        let there: Vec<&Repository> = there.map(|(_, repository)| repository).collect();
        let path = format!("{path}.data.{}.class", item.name);
        check_residency(class, item, &there, &path, report);
        check_immutable(class, item, &there, &path, report);
    }
}

fn check_residency(
    class: &DataClass,
    item: &DataItem,
    there: &[&Repository],
    path: &str,
    report: &mut Report<'_>,
) {
    if class.residency.is_empty() {
        return;
    }
    let is_outside = |repository: &&&Repository| {
        repository.place.region.as_ref().is_none_or(|region| !class.residency.contains(region))
    };
    let mut outside: Vec<String> = there
        .iter()
        .filter(is_outside)
        .map(|repository| match &repository.place.region {
            Some(region) => format!("{} ({region})", repository.name),
            None => format!("{} (its region is not said)", repository.name),
        })
        .collect();
    outside.sort_unstable();
    outside.dedup();
    if !outside.is_empty() {
        let allowed = class.residency.join(", ");
        let message = format!(
            "data of class '{}' may be in {allowed} only, and '{}' goes to {}",
            class.name,
            item.name,
            outside.join(", ")
        );
        let help = format!("name repositories with region: {allowed}, in lines and in the class");
        report.add("outside-residency", path, message, help);
    }
}

fn check_immutable(
    class: &DataClass,
    item: &DataItem,
    there: &[&Repository],
    path: &str,
    report: &mut Report<'_>,
) {
    let Some(wanted) = class.immutable else { return };
    let longest = there.iter().filter_map(|repository| repository.held_for()).max();
    if longest.is_some_and(|longest| longest >= wanted) {
        return;
    }
    let has = match longest {
        Some(longest) => {
            format!("none of '{}' for more than {}", item.name, format_duration(longest))
        }
        None => format!("none of '{}'", item.name),
    };
    let message = format!(
        "class '{}' asks for a copy that nobody can change for {}, and there is {has}",
        class.name,
        format_duration(wanted),
    );
    let help = "copy it to a repository with `immutable` of that length";
    report.add("class-not-met", path, message, help);
}
