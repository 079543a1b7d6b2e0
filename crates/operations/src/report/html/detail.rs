//! One drill or recovery in full, folded away until somebody asks.

use maud::{Markup, html};
use muster_model::{
    DrillResult,
    drill::{Completeness, EvidenceRef, NegativeControl, PointUsed, ProbeResult, Proof},
    units::format_size,
};

use super::{
    tables::{self, findings_table},
    verdict_words,
};
use crate::report::{
    bars,
    format::{Moments, NOT_MEASURED, count, maybe_seconds, short},
    words::{VERIFY, clock_notes, disruption_words, loss_words, time_words},
};

/// Writes a drill. `key`: it is printed in full, the others only by their first line.
pub(super) fn detail(
    id: &str,
    name: &str,
    drill: &DrillResult,
    key: bool,
    moments: &Moments,
) -> Markup {
    html! {
        details id=(id) class=(if key { "drill key" } else { "drill" }) {
            summary {
                (verdict_words(drill))
                span.title { (name) ": " (drill.service) ", " (disruption_words(drill.disruption)) }
                span.figure { (time_words(drill)) }
                span.when { (moments.moment(drill.ended)) }
            }
            div.body {
                @if !drill.reasons.is_empty() {
                    ul.reasons { @for reason in &drill.reasons { li { (reason) } } }
                }
                (figures(drill, moments))
                (parts(drill, moments))
            }
        }
    }
}

/// What was recorded, each with a heading; what was not is named in one line.
fn parts(drill: &DrillResult, moments: &Moments) -> Markup {
    let DrillResult { points, probes, negative_controls, completeness, .. } = drill;
    let DrillResult { recovery_time: time, isolation, cleanup, findings, .. } = drill;
    let parts = [
        ("Recovery time by phase", (!time.phases.is_empty()).then(|| bars::time(time))),
        ("Recovery points used", some(points, |points| points_table(points, moments))),
        ("Probes", some(probes, probes_table)),
        ("Negative controls", some(negative_controls, controls_table)),
        ("Completeness", some(completeness, completeness_table)),
        ("Isolation", some(isolation, proofs_table)),
        ("Clean-up", some(cleanup, proofs_table)),
        ("Found on the way", some(findings, findings_table)),
    ];
    let missing: Vec<String> = parts
        .iter()
        .filter(|(_, body)| body.is_none())
        .map(|(title, _)| title.to_lowercase())
        .collect();
    html! {
        @for (title, body) in &parts {
            @if let Some(body) = body { section.part { h4 { (title) } (body) } }
        }
        @if !missing.is_empty() { p.quiet { "Nothing recorded: " (missing.join(", ")) "." } }
    }
}

/// Writes a list, unless it is empty.
fn some<T>(items: &[T], table: impl Fn(&[T]) -> Markup) -> Option<Markup> {
    (!items.is_empty()).then(|| table(items))
}

fn figures(drill: &DrillResult, moments: &Moments) -> Markup {
    let notes = clock_notes(&drill.recovery_time).join("; ");
    html! {
        dl.pairs {
            div { dt { "Recovery time" } dd { (time_words(drill)) @if !notes.is_empty() { span.note { (notes) } } } }
            div { dt { "Loss" } dd { (loss_words(drill)) } }
            div { dt { "Markers" } dd { (markers(drill)) } }
            div { dt { "Started" } dd { (moments.exact(drill.started)) } }
            div { dt { "Ended" } dd { (moments.exact(drill.ended)) } }
            div { dt { "Id" } dd { code { (drill.drill) } } }
            div { dt { "Plan revision" } dd { code { (short(&drill.plan_revision)) } } }
            div.wide { dt { "Evidence" } dd { (evidence(drill)) } }
        }
    }
}

fn markers(drill: &DrillResult) -> String {
    drill.markers.as_ref().map_or_else(
        || format!("none: the loss was {NOT_MEASURED}"),
        |m| {
            format!(
                "{} written, {} recovered, {} lost, {}, {}",
                m.written,
                m.recovered,
                m.lost,
                count(m.holes, "hole"),
                count(m.duplicates, "duplicate")
            )
        },
    )
}

fn evidence(drill: &DrillResult) -> Markup {
    html! {
        @match &drill.evidence {
            Some(evidence) => {
                "log index " (log_index(evidence)) ", envelope " code { (evidence.envelope_sha256) }
                span.note { "check with " code { (VERIFY) } }
            }
            None => "none: nothing was signed",
        }
    }
}

fn answer(ok: Option<bool>) -> Markup {
    let (class, word) = match ok {
        Some(true) => ("ok", "held"),
        Some(false) => ("bad", "did not hold"),
        None => ("unknown", "not known"),
    };
    html! { span.answer.(class) { (word) } }
}

fn table(headings: &[&str], rows: &Markup) -> Markup {
    tables::table(&headings.join(", "), headings, rows)
}

fn points_table(points: &[PointUsed], moments: &Moments) -> Markup {
    let rows = html! {
        @for point in points {
            tr {
                th scope="row" { (point.data) }
                td.n { (moments.exact(point.data_time)) }
                td { (point.repository) }
                td { code { (short(&point.snapshot)) } }
                td.n { (point.bytes.map_or_else(|| "not known".to_owned(), format_size)) }
                td { code { (point.point) } }
            }
        }
    };
    table(&["Data", "Data of", "Repository", "Snapshot", "Restored", "Point"], &rows)
}

fn probes_table(probes: &[ProbeResult]) -> Markup {
    let rows = html! {
        @for probe in probes {
            tr {
                th scope="row" { (probe.name) }
                td { (probe.data.as_deref().unwrap_or("\u{2014}")) }
                td.n { @match probe.first_green_s { Some(_) => (maybe_seconds(probe.first_green_s)), None => "never" } }
                td.n { (probe.samples) }
                td.n { (probe.failures) }
                td { (seen_red(probe.seen_red)) }
            }
        }
    };
    table(&["Probe", "Data", "First green", "Samples", "Red", "Seen red by a control"], &rows)
}

fn seen_red(seen: Option<bool>) -> Markup {
    html! {
        @match seen {
            Some(true) => span.answer.ok { "seen red" },
            Some(false) => span.answer.bad { "never seen red: does not count" },
            None => span.answer.unknown { "no control ran" },
        }
    }
}

fn controls_table(controls: &[NegativeControl]) -> Markup {
    let rows = html! {
        @for control in controls {
            tr {
                th scope="row" { (control.probe) }
                td { (control.against) }
                td { (control.observed) }
                td { (answer(Some(control.ok))) }
            }
        }
    };
    table(&["Probe or rule", "Held against", "Observed", "Red, as it must be"], &rows)
}

fn completeness_table(rules: &[Completeness]) -> Markup {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".to_owned());
    let rows = html! {
        @for rule in rules {
            tr {
                th scope="row" { (rule.name) }
                td { (rule.data) }
                td { (text(&rule.expected)) }
                td { (text(&rule.actual)) }
                td { (answer(rule.ok)) }
            }
        }
    };
    table(&["Rule", "Data", "Expected", "Found", "Result"], &rows)
}

fn proofs_table(proofs: &[Proof]) -> Markup {
    let rows = html! {
        @for proof in proofs {
            tr {
                th scope="row" { (proof.name) }
                td { (answer(Some(proof.ok))) }
                td { (proof.detail) }
            }
        }
    };
    table(&["Statement", "Result", "Seen"], &rows)
}

fn log_index(evidence: &EvidenceRef) -> String {
    evidence.log_index.map_or_else(|| "not known".to_owned(), |index| index.to_string())
}
