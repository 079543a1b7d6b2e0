//! The sections that are tables: markers, recovery points, backups, findings, key figures,
//! evidence.

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};
use muster_model::{Finding, Severity, units::format_size};

use super::nothing;
use crate::report::{
    data::{MarkerSum, PointsSummary, ReportData},
    format::{Moments, age, count, percent},
    kpi::{DRILLS_TO_TELL, Kpis, Quantiles, ServiceKpi, Target},
    words::{self, VERIFY, disruption_words, success_words, trust},
};

/// A table; where there is no room for its columns, each row becomes a list of named cells.
pub(super) fn table(label: &str, headings: &[&str], rows: &Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table.rows {
                thead { tr { @for heading in headings { th scope="col" { (heading) } } } }
                tbody { (labelled(&rows.0, headings)) }
            }
        }
    }
}

/// Gives each cell the heading of its column. Whatever comes from outside is escaped, so a tag
/// in `rows` is one of ours. A row whose first cell spans from the row above lacks that one.
fn labelled(rows: &str, headings: &[&str]) -> Markup {
    let mut text = String::with_capacity(rows.len() * 2);
    for row in rows.split_inclusive("</tr>") {
        let pieces: Vec<&str> = cells_of(row);
        let lacking = headings.len().saturating_sub(pieces.iter().filter_map(|p| begin(p)).count());
        for (i, piece) in pieces.into_iter().enumerate() {
            let begins = begin(piece);
            match (begins, headings.get(lacking + i)) {
                (Some(at), Some(heading)) => {
                    let (before, rest) = piece.split_at(at + "<td".len());
                    let label = html! { (heading) }.0;
                    text.extend([before, " data-label=\"", &label, "\"", rest]);
                }
                _ => text.push_str(piece),
            }
        }
    }
    PreEscaped(text)
}

/// A row, cut before each cell but the first.
fn cells_of(row: &str) -> Vec<&str> {
    let mut starts: Vec<usize> =
        CELLS.iter().flat_map(|tag| row.match_indices(tag)).map(|(i, _)| i).collect();
    starts.sort_unstable();
    let from = std::iter::once(0).chain(starts.iter().copied().skip(1));
    let to = starts.iter().copied().skip(1).chain([row.len()]);
    from.zip(to).map(|(from, to)| &row[from..to]).collect()
}

const CELLS: [&str; 2] = ["<td", "<th"];

/// Where the first cell begins.
fn begin(piece: &str) -> Option<usize> {
    CELLS.iter().filter_map(|tag| piece.find(tag)).min()
}

/// A moment with its age.
fn moment(at: Option<Timestamp>, data: &ReportData, moments: &Moments) -> Markup {
    html! {
        @match at {
            Some(at) => { span.whole { (moments.moment(at)) } span.sub { (age(data.generated.duration_since(at).as_secs_f64())) " ago" } },
            None => span.answer.unknown { "never" },
        }
    }
}

/// Markers of the period, per service.
pub(super) fn markers(data: &ReportData) -> Markup {
    let sums = data.markers();
    html! {
        p.lead {
            "Markers are numbered rows that Muster writes before a disruption and looks for after the recovery. "
            "They are the only thing that it writes into production."
        }
        @if sums.is_empty() {
            (nothing("No drill of this period had markers, so no loss was measured."))
        } @else {
            (table("Markers", &["Service", "Drills with markers", "Written", "Recovered", "Lost", "Holes", "Duplicates"], &html! {
                @for MarkerSum { service, drills, counts: m } in &sums {
                    tr {
                        th scope="row" { (service) }
                        td.n { (drills) }
                        td.n { (m.written) }
                        td.n { (m.recovered) }
                        td.n { (m.lost) }
                        td.n { @if m.holes > 0 { span.answer.bad { (m.holes) } } @else { "0" } }
                        td.n { @if m.duplicates > 0 { span.answer.bad { (m.duplicates) } } @else { "0" } }
                    }
                }
            }))
        }
    }
}

/// The recovery points of today.
pub(super) fn points(data: &ReportData, moments: &Moments) -> Markup {
    if data.points_summary.is_empty() {
        return nothing("No recovery point yet. `muster backup` makes the first.");
    }
    let rows =
        html! { @for summary in &data.points_summary { (point_row(summary, data, moments)) } };
    table(
        "Recovery points",
        &["Service", "Data", "Points", "Newest", "Restores", "Copies", "Last proven"],
        &rows,
    )
}

fn point_row(summary: &PointsSummary, data: &ReportData, moments: &Moments) -> Markup {
    html! {
        tr {
            th scope="row" { (summary.service) }
            td { (summary.data) }
            td.n {
                (summary.count)
                @if summary.partial > 0 { span.sub { (summary.partial) " partial" } }
            }
            td { (moment(summary.newest_data_time, data, moments)) }
            td.n { (summary.newest_bytes.map_or_else(|| "not known".to_owned(), format_size)) }
            td { @for copies in &summary.copies { span.copies { (words::copies(copies, data.generated)) } } }
            td { (moment(summary.proven_at, data, moments)) }
        }
    }
}

/// How protecting went.
pub(super) fn backups(data: &ReportData, moments: &Moments) -> Markup {
    if data.backups.is_empty() {
        return nothing("No backup ran or was due in this period.");
    }
    let rows = html! {
        @for stats in &data.backups {
            tr {
                th scope="row" { (stats.service) }
                td { (stats.data) }
                td.n { (stats.runs) }
                td.n { (stats.failed) }
                td.n { (stats.partial) }
                td.n { (stats.missed) }
                td { (moment(stats.last_success, data, moments)) }
                td { @match &stats.last_error { Some(error) => (error), None => "\u{2014}" } }
            }
        }
    };
    table(
        "Backups",
        &["Service", "Data", "Runs", "Failed", "Partial", "Missed", "Last success", "Last error"],
        &rows,
    )
}

/// What the plan check says, and what is excepted.
pub(super) fn findings(data: &ReportData) -> Markup {
    html! {
        @if data.findings.is_empty() { (nothing("The plan check finds nothing today.")) }
        @else { (findings_table(&data.findings)) }
        h3 { "Exceptions that hold" }
        @if data.exceptions.is_empty() { (nothing("None.")) }
        @else { (exceptions(data)) }
    }
}

/// Findings, the gravest first.
pub(super) fn findings_table(findings: &[Finding]) -> Markup {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let class = |severity| match severity {
        Severity::Error => "bad",
        Severity::Warning => "warn",
        Severity::Note => "unknown",
    };
    let rows = html! {
        @for finding in sorted {
            tr {
                td { span.answer.(class(finding.severity)) { (finding.severity) } }
                th scope="row" { code { (finding.code) } }
                td.text {
                    (finding.message)
                    @if let Some(help) = &finding.help { span.sub { (help) } }
                }
                td { code { (finding.path) } span.sub { "line " (finding.line) ", column " (finding.column) } }
            }
        }
    };
    table("Findings", &["Severity", "Code", "What is wrong, and what to do", "Where"], &rows)
}

fn exceptions(data: &ReportData) -> Markup {
    let rows = html! {
        @for exception in &data.exceptions {
            tr {
                th scope="row" { (exception.service) }
                td { code { (exception.waives) } }
                td { (exception.until) }
                td.text { (exception.reason) }
                td { (exception.approved_by.as_deref().unwrap_or("nobody")) }
            }
        }
    };
    table("Exceptions", &["Service", "Waives", "Until", "Reason", "Approved by"], &rows)
}

/// The key figures.
pub(super) fn kpis(data: &ReportData) -> Markup {
    let kpis = &data.kpis;
    html! {
        div.panels {
            div.panel {
                h3 { "Drill success" }
                p.big { (kpis.success.rate.map_or_else(|| "no drill yet".to_owned(), percent)) }
                @for sentence in success_words(&kpis.success) { p { (sentence) } }
                @if data.counts.unfinished > 0 {
                    p { (count(data.counts.unfinished, "drill")) " without an end not counted." }
                }
            }
            (coverage(kpis))
        }
        @if !kpis.services.is_empty() { (service_table(&kpis.services)) }
        p.footnotes {
            "Over the drills of the period that passed, failed or were inconclusive. A drill in which the service "
            "did not come back counts as slower than all others. The loss is the upper end of its bound."
        }
    }
}

fn coverage(kpis: &Kpis) -> Markup {
    let coverage = &kpis.coverage;
    html! {
        div.panel {
            h3 { "Coverage" }
            p.big { (coverage.objectives_proven) " of " (coverage.objectives) " objectives" }
            p {
                (coverage.services_proven) " of " (count(coverage.services, "service"))
                " with proof of at least one disruption."
            }
            ul.inline {
                @for row in &coverage.disruptions {
                    li { (disruption_words(row.disruption)) " " strong { (row.proven) " of " (row.services) } }
                }
            }
        }
    }
}

fn service_table(services: &[ServiceKpi]) -> Markup {
    let rows = html! {
        @for kpi in services {
            tr {
                th scope="row" rowspan="2" { (kpi.service) }
                td.n { "Recovery time" }
                (quantile_cells(&kpi.recovery_time, &kpi.rto_target))
            }
            tr { td.n { "Loss" } (quantile_cells(&kpi.recovery_point, &kpi.rpo_target)) }
        }
    };
    table(
        "Times and losses",
        &["Service", "Figure", "Median", "90 % at most", "n", "Target", "By the median"],
        &rows,
    )
}

fn quantile_cells(of: &Quantiles, target: &Target) -> Markup {
    let class = match of.n {
        0 => "unknown",
        _ if !words::keeps(of, target) => "bad",
        DRILLS_TO_TELL.. => "ok",
        _ => "unknown",
    };
    html! {
        td.n { (words::quantile(of.median_s, of)) }
        td.n { (words::quantile(of.p90_s, of)) }
        td.n { (of.n) @if of.endless > 0 { span.sub { (of.endless) " not recovered" } } }
        td.n { (words::target(target)) }
        td { span.answer.(class) { (words::kept(of, target)) } }
    }
}

/// What the evidence is worth, and how to check it without trusting this page.
pub(super) fn evidence(data: &ReportData, moments: &Moments) -> Markup {
    let state = &data.evidence;
    let class = match &state.verified {
        Some(check) if check.ok => "ok",
        Some(_) => "bad",
        None => "unknown",
    };
    html! {
        div.trustbar.(class) {
            p { strong { (trust(state, data.generated)) } }
            dl.facts {
                div { dt { "Entries in the log" } dd { (state.log_size) } }
                div { dt { "Checked" } dd { @match &state.verified { Some(check) => (moments.exact(check.at)), None => "never" } } }
            }
        }
        p {
            "This page is a view; the proof is the log. Export it with "
            code { "muster evidence export" } ", take the key from somebody whom you trust, and check it offline:"
        }
        pre { code { (VERIFY) } }
        h3 { "Newest checkpoint" }
        @match &state.checkpoint {
            Some(text) => pre { code { (text) } },
            None => (nothing("No checkpoint yet: the end of the log is not pinned.")),
        }
    }
}
