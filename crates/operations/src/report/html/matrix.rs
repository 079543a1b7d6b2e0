//! The proof matrix: a row a service, a column a disruption, on a phone a card a service.

use maud::{Markup, html};
use muster_control::matrix::Cell;
use muster_model::Disruption;

use super::nothing;
use crate::report::{
    data::{ReportData, Service},
    format::objective,
    shapes,
    words::{cell_age, cell_loss, cell_now, cell_time, clock_notes, disruption_words},
};

pub(super) fn matrix(data: &ReportData) -> Markup {
    let disruptions = data.disruptions();
    if disruptions.is_empty() || data.services.is_empty() {
        return nothing(
            "The plan sets no objective, so there is nothing to prove. Give a service a tier or objectives.",
        );
    }
    html! {
        div.scroll.matrix-box tabindex="0" role="region" aria-label="Proof matrix" {
            table.matrix role="table" {
                caption { "What is proven today: recovery time and recovery point, measured / objective." }
                thead role="rowgroup" {
                    tr role="row" {
                        th scope="col" role="columnheader" { "Service" }
                        @for disruption in &disruptions {
                            th scope="col" role="columnheader" { (disruption_words(*disruption)) }
                        }
                    }
                }
                @for (tier, services) in data.tiers() {
                    tbody role="rowgroup" {
                        tr.tier role="row" {
                            th scope="rowgroup" role="rowheader" colspan=(disruptions.len() + 1) {
                                (tier.unwrap_or("no tier")) (tier_objective(&services))
                            }
                        }
                        @for service in services { (row(data, service, &disruptions)) }
                    }
                }
            }
        }
        (footnotes(data))
    }
}

fn tier_objective(services: &[&Service]) -> Markup {
    let tier = services[0].objective;
    html! {
        @if tier.rto_s.is_some() || tier.rpo_s.is_some() {
            span.sub { "RTO " (objective(tier.rto_s)) ", RPO " (objective(tier.rpo_s)) }
        }
    }
}

fn row(data: &ReportData, service: &Service, disruptions: &[Disruption]) -> Markup {
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                span.service { (service.name) }
                span.owner { (service.owner.as_deref().unwrap_or("no owner")) }
            }
            @for disruption in disruptions {
                @match data.cell(&service.name, *disruption) {
                    Some(cell) => (proof(data, cell)),
                    None => (no_promise(service, *disruption)),
                }
            }
        }
    }
}

fn proof(data: &ReportData, cell: &Cell) -> Markup {
    html! {
        td.cell class={ "s-" (cell.verdict) } role="cell" data-label=(disruption_words(cell.disruption)) {
            span.standing { (shapes::standing(cell.verdict)) (cell.verdict) }
            span.figure.time {
                (cell_time(cell))
                @if leaves_out(data, cell) { abbr.dagger title="not all of it was measured: see below" { "\u{2020}" } }
            }
            @if let Some(loss) = cell_loss(cell) { span.figure { span.key { "RPO " } (loss) } }
            @if let Some(now) = cell_now(cell) { span.figure { span.key { "now " } (now) } }
            span.age { (cell_age(cell).join(" \u{b7} ")) (drill_link(data, cell)) }
        }
    }
}

/// Nothing is promised: on purpose, or because the plan does not speak of it.
fn no_promise(service: &Service, disruption: Disruption) -> Markup {
    let excluded = service.excluded.contains(&disruption);
    html! {
        td.cell role="cell" class=(if excluded { "s-excluded" } else { "s-none" }) data-label=(disruption_words(disruption)) {
            @if excluded { span.standing { "excluded" } span.age { "the plan says none" } }
            @else { span.age { "no objective" } }
        }
    }
}

/// The place of the drill of a cell in the report; one before the period is not in it.
fn place(data: &ReportData, cell: &Cell) -> Option<usize> {
    let id = cell.drill.as_ref()?;
    data.drills.iter().position(|drill| drill.drill == *id)
}

fn drill_link(data: &ReportData, cell: &Cell) -> Markup {
    html! {
        @if let Some(i) = place(data, cell) {
            " \u{b7} " a href={ "#d" (i) } { "drill " (data.drills[i].number) }
        }
    }
}

/// Whether the recovery time of a cell leaves something out or rests on an assumption.
fn leaves_out(data: &ReportData, cell: &Cell) -> bool {
    place(data, cell).is_some_and(|i| !notes(data, i).is_empty())
}

fn notes(data: &ReportData, index: usize) -> Vec<String> {
    let time = &data.drills[index].recovery_time;
    if time.actual_s.is_none() { Vec::new() } else { clock_notes(time) }
}

fn footnotes(data: &ReportData) -> Markup {
    let mut all: Vec<String> = Vec::new();
    for i in data.cells.iter().filter_map(|cell| place(data, cell)) {
        for note in notes(data, i) {
            if !all.contains(&note) {
                all.push(note);
            }
        }
    }
    html! {
        div.footnotes {
            @if !all.is_empty() { p { "\u{2020} " (all.join("; ")) "." } }
            p {
                "now: the age of the newest provable point, which is what would be lost at this moment. "
                "Only copies that survive the disruption and that a drill has shown to be restorable count."
            }
        }
    }
}
