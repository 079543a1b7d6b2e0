//! The report as one HTML page that needs nothing else: no script, no font, no picture, no
//! network. A policy in its head forbids to load anything, in case something should ever slip
//! through the escaping.

mod detail;
mod matrix;
mod tables;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use muster_control::matrix::Standing;
use muster_model::DrillResult;

use super::{
    bars,
    data::{Rehearsed, ReportData},
    format::{self, Moments, count},
    shapes,
    words::{
        self, clock_notes, disruption_words, drill_name, loss_words, recovery_name, time_words,
    },
};

const STYLE: &str = include_str!("style.css");

/// Forbids to load or run anything.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The sections, in the order in which they are read.
const SECTIONS: [(&str, &str); 11] = [
    ("matrix", "Proof"),
    ("objectives", "Objective and actual"),
    ("history", "History"),
    ("drills", "Drills"),
    ("markers", "Markers"),
    ("points", "Recovery points"),
    ("backups", "Backups"),
    ("findings", "Findings"),
    ("kpis", "Key figures"),
    ("recoveries", "Recoveries"),
    ("evidence", "Evidence"),
];

/// Writes the report as a page. The same data gives the same bytes.
#[must_use]
pub fn render(data: &ReportData) -> String {
    let moments = Moments::new(&data.zone);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(data))
            body {
                (shapes::patterns())
                a.skip href="#matrix" { "Skip to the proof" }
                (masthead(data, &moments))
                main { (sections(data, &moments)) }
                (footer(data, &moments))
            }
        }
    };
    format::visible(&page.into_string())
}

fn head(data: &ReportData) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta http-equiv="Content-Security-Policy" content=(POLICY);
            meta name="referrer" content="no-referrer";
            title { "Recovery report of " (data.plan) }
            style { (PreEscaped(STYLE)) }
        }
    }
}

fn masthead(data: &ReportData, moments: &Moments) -> Markup {
    html! {
        header.masthead {
            p.eyebrow { "Recovery report" span.plan { (data.plan) } }
            h1 { (data.sentence) }
            (tally(data))
            dl.facts {
                div { dt { "Period" } dd { (moments.day(data.since)) " to " (moments.day(data.until)) } }
                div { dt { "Made" } dd { (moments.moment(data.generated)) " " (moments.zone()) } }
                div { dt { "Plan revision" } dd { code { (format::short(&data.revision)) } } }
            }
            p.trust { (words::trust(&data.evidence, data.generated)) " " a href="#evidence" { "How to check it" } }
        }
        nav aria-label="Sections" {
            @for (id, name) in SECTIONS { a href={ "#" (id) } { (name) } }
        }
    }
}

/// How many objectives have which standing; the legend of the matrix as well.
fn tally(data: &ReportData) -> Markup {
    let number = |standing| data.cells.iter().filter(|cell| cell.verdict == standing).count();
    let rows = [
        (Standing::Proven, "a drill passed, recently enough"),
        (Standing::Failing, "the last drill that judged failed"),
        (Standing::Stale, "it passed, too long ago"),
        (Standing::Never, "no drill ever judged"),
    ];
    html! {
        ul.tally {
            @for (standing, meaning) in rows {
                li class={ "s-" (standing) } {
                    (shapes::standing(standing))
                    span.number { (number(standing)) }
                    span.word { (standing) }
                    span.meaning { (meaning) }
                }
            }
        }
    }
}

fn sections(data: &ReportData, moments: &Moments) -> Markup {
    html! {
        @for (id, name) in SECTIONS {
            section id=(id) aria-labelledby={ "h-" (id) } {
                h2 id={ "h-" (id) } { (name) }
                @match id {
                    "matrix" => (matrix::matrix(data)),
                    "objectives" => (objectives(data, moments)),
                    "history" => (history(data, moments)),
                    "drills" => (drills(data, moments)),
                    "markers" => (tables::markers(data)),
                    "points" => (tables::points(data, moments)),
                    "backups" => (tables::backups(data, moments)),
                    "findings" => (tables::findings(data)),
                    "kpis" => (tables::kpis(data)),
                    "recoveries" => (recoveries(data, moments)),
                    _ => (tables::evidence(data, moments)),
                }
            }
        }
    }
}

/// What a section says that has nothing to show.
fn nothing(words: &str) -> Markup {
    html! { p.nothing { (words) } }
}

fn objectives(data: &ReportData, moments: &Moments) -> Markup {
    let groups = data.rehearsed();
    let newest: Vec<usize> = groups.iter().filter_map(|group| data.newest(group)).collect();
    if newest.is_empty() {
        return nothing(
            "No drill yet that measured anything. `muster drill run --dry-run` shows what one would do.",
        );
    }
    html! {
        p.lead {
            "The newest drill of each service and disruption. Solid is measured, hatched is assumed, "
            "a dashed box is not measured and has no length. The line is the objective. Of a loss, solid was lost "
            "for certain and hatched perhaps."
        }
        div.cards { @for i in newest { (objective_card(&data.drills[i], i, moments)) } }
    }
}

fn objective_card(drill: &DrillResult, index: usize, moments: &Moments) -> Markup {
    html! {
        article.card {
            (card_head(&drill.service, &disruption_words(drill.disruption)))
            p.by {
                (verdict_words(drill)) " \u{b7} " a href={ "#d" (index) } { (drill_name(drill)) }
                " \u{b7} " (moments.moment(drill.ended))
            }
            h4 { "Recovery time " strong { (time_words(drill)) } }
            @for note in clock_notes(&drill.recovery_time) { p.note { (note) } }
            (bars::time(&drill.recovery_time))
            h4 { "Loss " strong { (loss_words(drill)) } }
            (bars::loss(&drill.recovery_point))
        }
    }
}

fn card_head(service: &str, disruption: &str) -> Markup {
    html! { h3 { (service) span.sub { (disruption) } } }
}

fn verdict_words(drill: &DrillResult) -> Markup {
    let verdict = drill.verdict.as_str();
    html! { span.verdict.{ "v-" (verdict) } { (shapes::verdict(verdict)) (verdict) } }
}

fn history(data: &ReportData, moments: &Moments) -> Markup {
    let groups = data.rehearsed();
    if groups.is_empty() {
        return nothing("No drill yet in this period. `muster drill run` rehearses one.");
    }
    html! {
        p.lead { (drill_count(data)) }
        ul.legend {
            @for (verdict, n) in data.counts.rows() {
                li class={ "v-" (verdict) } {
                    (shapes::verdict(verdict)) strong { (n) } " " (verdict)
                    span.meaning { (words::verdict_meaning(verdict)) }
                }
            }
        }
        div.history { @for group in &groups { (history_row(data, group)) } }
        p.span { span { (moments.day(data.since)) } span { (moments.day(data.until)) } }
    }
}

fn drill_count(data: &ReportData) -> String {
    let counts = data.counts;
    format!(
        "{}: {} started, {} expired, {} skipped. Each is a dot below; none is left out.",
        count(counts.total, "drill"),
        counts.started(),
        counts.expired,
        counts.skipped
    )
}

fn history_row(data: &ReportData, group: &Rehearsed<'_>) -> Markup {
    html! {
        div.track-row {
            div {
                (card_head(group.service, &disruption_words(group.disruption)))
                p.by { (count(group.count(), "drill")) }
            }
            (bars::strip(data, group))
        }
    }
}

fn drills(data: &ReportData, moments: &Moments) -> Markup {
    if data.counts.total == 0 {
        return nothing("No drill yet in this period.");
    }
    let keys = key_drills(data);
    html! {
        @for (i, drill) in data.unfinished.iter().enumerate() {
            p.unfinished.v-unfinished id={ "u" (i) } {
                (shapes::verdict("unfinished"))
                strong { "drill " (drill.number) } " of " (drill.service) ", " (disruption_words(drill.disruption))
                ": started " (moments.moment(drill.started)) ", and no end is recorded."
            }
        }
        @for (i, drill) in data.drills.iter().enumerate().rev() {
            (detail::detail(&format!("d{i}"), &drill_name(drill), drill, keys.contains(&i), moments))
        }
    }
}

/// The drills that are printed in full: the newest of each kind, and all that did not pass.
fn key_drills(data: &ReportData) -> Vec<usize> {
    let groups = data.rehearsed();
    let newest = groups.iter().filter_map(|group| data.newest(group));
    let missed = (0..data.drills.len()).filter(|i| !data.drills[*i].reasons.is_empty());
    newest.chain(missed).collect()
}

fn recoveries(data: &ReportData, moments: &Moments) -> Markup {
    if data.recoveries.is_empty() {
        return nothing("No real recovery in this period.");
    }
    html! {
        p.lead { "Not rehearsals: these happened. They are not counted among the drills." }
        @for (i, recovery) in data.recoveries.iter().enumerate().rev() {
            (detail::detail(&format!("r{i}"), &recovery_name(recovery), recovery, true, moments))
        }
    }
}

fn footer(data: &ReportData, moments: &Moments) -> Markup {
    html! {
        footer {
            p {
                "Muster \u{b7} " (data.plan) " \u{b7} " (moments.exact(data.generated)) " \u{b7} revision "
                code { (data.revision) }
            }
            p { "Recovery is measured, not declared. What is not measured is written so." }
        }
    }
}
