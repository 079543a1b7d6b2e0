//! The proof matrix: a row a service, a column a disruption, on a phone a card a service.

use maud::{Markup, html};
use muster_control::matrix::{Cell, Standing};
use muster_model::Disruption;

use super::nothing;
use crate::report::{
    data::{ReportData, Service},
    format::{NOT_MEASURED, age, objective},
    shapes,
    words::{cell_loss, cell_now, cell_time, clock_notes, disruption_words, drill_name},
};

pub(super) fn matrix(data: &ReportData) -> Markup {
    let disruptions = data.disruptions();
    if disruptions.is_empty() || data.services.is_empty() {
        return nothing(
            "The plan sets no objective, so there is nothing to prove. Give a service a tier or objectives.",
        );
    }
    let notes = all_notes(data);
    html! {
        div.scroll.matrix-box tabindex="0" role="region" aria-label="Proof matrix" {
            table.matrix role="table" style={ "--columns:" (disruptions.len()) } {
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
                        @for service in services { (row(data, service, &disruptions, &notes)) }
                    }
                }
            }
        }
        (footnotes(&notes))
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

fn row(
    data: &ReportData,
    service: &Service,
    disruptions: &[Disruption],
    notes: &[String],
) -> Markup {
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                span.service { (service.name) }
                span.owner { (service.owner.as_deref().unwrap_or("no owner")) }
            }
            @for disruption in disruptions {
                @match data.cell(&service.name, *disruption) {
                    Some(cell) => (proof(data, cell, notes)),
                    None => (no_promise(service, *disruption)),
                }
            }
        }
    }
}

fn proof(data: &ReportData, cell: &Cell, notes: &[String]) -> Markup {
    html! {
        td.cell.{ "s-" (cell.verdict) } role="cell" data-label=(disruption_words(cell.disruption)) {
            span.standing { (shapes::standing(cell.verdict)) (cell.verdict) }
            @if cell.verdict == Standing::Never {
                (promise(cell))
            } @else {
                span.figure.time { (pair(&cell_time(cell))) (marker(data, cell, notes)) }
                @if let Some(loss) = cell_loss(cell) {
                    span.figure { span.key { "RPO " } (pair(&loss)) }
                }
            }
            @if let Some(now) = cell_now(cell) { span.figure { span.key { "now " } (now) } }
            (proof_age(data, cell))
        }
    }
}

/// Of what was never measured there is only the objective.
fn promise(cell: &Cell) -> Markup {
    html! {
        span.figure { (NOT_MEASURED) }
        span.figure {
            span.whole { span.key { "RTO " } (objective(cell.objective.rto_s)) }
            @if cell.objective.rpo_s.is_some() {
                span.key { ", " }
                span.whole { span.key { "RPO " } (objective(cell.objective.rpo_s)) }
            }
        }
    }
}

/// Two figures of which neither is broken into two lines.
fn pair((actual, objective): &(String, String)) -> Markup {
    html! { span.whole { (actual) } " / " span.whole { (objective) } }
}

/// How old the proof is, which drill made it, how the last attempt ended if it did not judge.
fn proof_age(data: &ReportData, cell: &Cell) -> Markup {
    let place = place(data, cell);
    let ended = place.map(|i| data.drills[i].ended);
    let since = ended.map(|at| data.generated.duration_since(at).as_secs_f64());
    html! {
        @if let Some(s) = cell.proof_age_s.or(since) {
            span.age {
                (age(s)) " ago"
                @if let Some(i) = place { " \u{b7} " a.whole href={ "#d" (i) } { (drill_name(&data.drills[i])) } }
            }
        }
        @if let Some(verdict) = cell.last_attempt { span.age { "last attempt " (verdict) } }
    }
}

/// Nothing is promised: on purpose, or because the plan does not speak of it.
fn no_promise(service: &Service, disruption: Disruption) -> Markup {
    let excluded = service.excluded.contains(&disruption);
    html! {
        td.cell.(if excluded { "s-excluded" } else { "s-none" }) role="cell" data-label=(disruption_words(disruption)) {
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

/// What a reader must know of the recovery time of a cell: what it leaves out, what is assumed.
fn notes(data: &ReportData, cell: &Cell) -> Option<String> {
    let time = &data.drills[place(data, cell)?].recovery_time;
    time.actual_s?;
    Some(clock_notes(time).join("; ")).filter(|notes| !notes.is_empty())
}

/// All notes, each once, in the order of the cells: the place of a note is its mark.
fn all_notes(data: &ReportData) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for note in data.cells.iter().filter_map(|cell| notes(data, cell)) {
        if !all.contains(&note) {
            all.push(note);
        }
    }
    all
}

fn marker(data: &ReportData, cell: &Cell, all: &[String]) -> Markup {
    let note = notes(data, cell);
    let place = note.as_ref().and_then(|note| all.iter().position(|other| other == note));
    html! { @if let Some(i) = place { abbr.dagger title=(all[i]) { (mark_of(i)) } } }
}

fn mark_of(index: usize) -> String {
    const MARKS: [&str; 4] = ["\u{2020}", "\u{2021}", "\u{a7}", "\u{b6}"];
    MARKS.get(index).map_or_else(|| format!("[{}]", index + 1), |mark| (*mark).to_owned())
}

fn footnotes(notes: &[String]) -> Markup {
    html! {
        div.footnotes {
            @for (i, note) in notes.iter().enumerate() { p { (mark_of(i)) " " (note) "." } }
            p {
                "now: the age of the newest provable point, which is what would be lost at this moment. "
                "Only copies that survive the disruption and that a drill has shown to be restorable count."
            }
        }
    }
}
