//! The report as GitHub-flavoured Markdown, in brief: for a pull request and for a terminal.
//!
//! Names come from plans and messages from other programs, so nothing of theirs may begin a
//! column, a link, a mention or an element: [`text`] is the only way into the page.

use std::fmt::Write as _;

use jiff::Timestamp;
use muster_control::matrix::{Cell, Standing};
use muster_model::{DrillResult, Verdict};

use super::{
    data::ReportData,
    format::{self, Moments, NOT_MEASURED, age, count, visible},
    words::{
        self, VERIFY, cell_loss, cell_now, cell_time, clock_notes, drill_name, loss_words,
        phase_words, recovery_name, success_words, time_words, trust,
    },
};

/// Columns are padded up to so many characters, so that a terminal shows them in line.
const PAD_MAX: usize = 44;

/// Writes the report as Markdown. The same data gives the same bytes.
#[must_use]
pub fn render(data: &ReportData) -> String {
    let moments = Moments::new(&data.zone);
    let mut page = Page::default();
    head(&mut page, data, &moments);
    proof(&mut page, data);
    objectives(&mut page, data);
    drills(&mut page, data, &moments);
    recoveries(&mut page, data, &moments);
    markers(&mut page, data);
    points(&mut page, data, &moments);
    backups(&mut page, data, &moments);
    findings(&mut page, data);
    kpis(&mut page, data);
    evidence(&mut page, data);
    page.text
}

/// Makes a text of others harmless: one line, no markup, no mention, nothing invisible.
#[must_use]
pub fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in visible(&raw.replace(['\r', '\n'], " ")).chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '~' | '#' | '&' | '!' | '$' => {
                out.push('\\');
                out.push(c);
            }
            // What follows is then neither a mention nor an address.
            '@' => out.push_str("@\u{200b}"),
            _ => out.push(c),
        }
    }
    // Nor does an address turn into a link by itself.
    out.replace("://", "\\://").replace("www.", "www\\.")
}

/// A page that grows; all of it is built from escaped text.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn heading(&mut self, level: usize, title: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.line(&format!("{gap}{} {title}\n", "#".repeat(level)));
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a string takes all that is written");
    }

    fn paragraph(&mut self, line: &str) {
        self.line(line);
        self.line("");
    }

    /// Writes a table of raw texts, or the words when there is no row.
    fn table(&mut self, headings: &[&str], rows: &[Vec<String>], otherwise: &str) {
        if rows.is_empty() {
            return self.line(otherwise);
        }
        let head: Vec<String> = headings.iter().map(|heading| text(heading)).collect();
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| text(cell)).collect()).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|i| {
                let cells = rows.iter().map(|row| row[i].chars().count());
                cells.chain([head[i].chars().count(), 3]).max().unwrap_or(3).min(PAD_MAX)
            })
            .collect();
        self.row(&head, &widths);
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        self.row(&rule, &widths);
        for row in &rows {
            self.row(row, &widths);
        }
    }

    fn row(&mut self, cells: &[String], widths: &[usize]) {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        self.line(&format!("| {} |", padded.join(" | ")));
    }
}

fn head(page: &mut Page, data: &ReportData, moments: &Moments) {
    page.heading(1, &format!("Recovery report of {}", text(&data.plan)));
    page.paragraph(&format!("**{}**", text(&data.sentence)));
    page.paragraph(&format!(
        "{} to {}, made {} {}, plan revision {}.",
        moments.day(data.since),
        moments.day(data.until),
        text(&moments.moment(data.generated)),
        text(moments.zone()),
        text(&format::short(&data.revision)),
    ));
    page.line(&text(&trust(&data.evidence, data.generated)));
}

fn proof(page: &mut Page, data: &ReportData) {
    page.heading(2, "Proof");
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (_, services) in data.tiers() {
        for service in services {
            let cells = data.cells.iter().filter(|cell| cell.service == service.name);
            rows.extend(cells.map(|cell| proof_row(data, cell)));
            rows.extend(service.excluded.iter().map(|disruption| {
                let dash = || "\u{2014}".to_owned();
                vec![
                    service.name.clone(),
                    disruption.to_string(),
                    "excluded".to_owned(),
                    dash(),
                    dash(),
                    dash(),
                    "the plan says none".to_owned(),
                ]
            }));
        }
    }
    page.table(
        &["Service", "Disruption", "Standing", "Recovery time", "Loss", "Loss now", "Proof"],
        &rows,
        "The plan sets no objective, so there is nothing to prove.",
    );
}

fn proof_row(data: &ReportData, cell: &Cell) -> Vec<String> {
    let pair = |(actual, objective): (String, String)| format!("{actual} / {objective}");
    let dash = || "\u{2014}".to_owned();
    vec![
        cell.service.clone(),
        cell.disruption.to_string(),
        cell.verdict.to_string(),
        pair(cell_time(cell)),
        cell_loss(cell).map_or_else(dash, pair),
        cell_now(cell).unwrap_or_else(dash),
        proof_words(data, cell),
    ]
}

fn proof_words(data: &ReportData, cell: &Cell) -> String {
    let drill = data.drills.iter().find(|drill| cell.drill.as_deref() == Some(&drill.drill));
    let mut parts: Vec<String> =
        cell.proof_age_s.iter().map(|s| format!("{} ago", age(*s))).collect();
    parts.extend(drill.map(drill_name));
    parts.extend(cell.last_attempt.map(|verdict| format!("last attempt {verdict}")));
    if let Some(drill) = drill.filter(|drill| drill.recovery_time.actual_s.is_some()) {
        parts.extend(clock_notes(&drill.recovery_time));
    }
    if parts.is_empty() && cell.verdict == Standing::Never {
        return "none".to_owned();
    }
    parts.join(", ")
}

fn objectives(page: &mut Page, data: &ReportData) {
    page.heading(2, "Objective and actual");
    let newest = data.rehearsed().iter().filter_map(|group| data.newest(group)).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = newest.iter().map(|i| objective_row(&data.drills[*i])).collect();
    page.table(
        &["Service", "Disruption", "Drill", "Recovery time", "Phases", "Loss"],
        &rows,
        "No drill yet that measured anything.",
    );
}

fn objective_row(drill: &DrillResult) -> Vec<String> {
    let phases: Vec<String> = drill
        .recovery_time
        .phases
        .iter()
        .map(|phase| format!("{} {}", phase.name, phase_words(phase)))
        .collect();
    vec![
        drill.service.clone(),
        drill.disruption.to_string(),
        format!("{}, {}", drill_name(drill), drill.verdict),
        time_words(drill),
        phases.join("; "),
        loss_words(drill),
    ]
}

fn drills(page: &mut Page, data: &ReportData, moments: &Moments) {
    page.heading(2, "Drills");
    if data.counts.total == 0 {
        return page.line("No drill yet in this period.");
    }
    let counts: Vec<String> = data
        .counts
        .rows()
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(verdict, n)| format!("{n} {verdict}"))
        .collect();
    page.paragraph(&format!("{}: {}.", count(data.counts.total, "drill"), counts.join(", ")));
    let told: Vec<&DrillResult> =
        data.drills.iter().rev().filter(|drill| drill.verdict != Verdict::Pass).collect();
    let mut rows: Vec<Vec<String>> =
        told.iter().map(|drill| drill_row(drill_name(drill), drill, moments)).collect();
    rows.extend(data.unfinished.iter().map(|drill| {
        vec![
            format!("drill {}", drill.number),
            drill.service.clone(),
            drill.disruption.to_string(),
            "unfinished".to_owned(),
            moments.moment(drill.started),
            NOT_MEASURED.to_owned(),
            "started, and no end is recorded".to_owned(),
        ]
    }));
    page.table(&DRILL_HEADINGS, &rows, "All of them passed.");
    if !rows.is_empty() && data.counts.pass > 0 {
        let verb = if data.counts.pass == 1 { "is" } else { "are" };
        page.line("");
        page.line(&format!(
            "{} that passed {verb} not listed here.",
            count(data.counts.pass, "drill")
        ));
    }
    found(page, data);
}

/// What drills found on the way: a pass from the second copy is no word for the first.
fn found(page: &mut Page, data: &ReportData) {
    let of_drill = |drill: &DrillResult| -> Vec<Vec<String>> {
        let row = |finding: &muster_model::Finding| {
            vec![
                drill_name(drill),
                finding.code.clone(),
                finding.message.clone(),
                finding.help.clone().unwrap_or_default(),
            ]
        };
        drill.findings.iter().map(row).collect()
    };
    let rows: Vec<Vec<String>> = data.drills.iter().rev().flat_map(of_drill).collect();
    if !rows.is_empty() {
        page.heading(3, "Found on the way");
        page.table(&["Drill", "Code", "What was found", "What to do"], &rows, "");
    }
}

const DRILL_HEADINGS: [&str; 7] =
    ["Drill", "Service", "Disruption", "Verdict", "Ended", "Recovery time", "Why"];

fn drill_row(name: String, drill: &DrillResult, moments: &Moments) -> Vec<String> {
    vec![
        name,
        drill.service.clone(),
        drill.disruption.to_string(),
        drill.verdict.to_string(),
        moments.moment(drill.ended),
        time_words(drill),
        drill.reasons.join("; "),
    ]
}

fn recoveries(page: &mut Page, data: &ReportData, moments: &Moments) {
    page.heading(2, "Recoveries");
    let rows: Vec<Vec<String>> = data
        .recoveries
        .iter()
        .rev()
        .map(|recovery| drill_row(recovery_name(recovery), recovery, moments))
        .collect();
    page.table(&DRILL_HEADINGS, &rows, "No real recovery in this period.");
}

fn markers(page: &mut Page, data: &ReportData) {
    page.heading(2, "Markers");
    let rows: Vec<Vec<String>> = data
        .markers()
        .iter()
        .map(|sum| {
            let m = &sum.counts;
            let figures = [sum.drills, m.written, m.recovered, m.lost, m.holes, m.duplicates];
            let name = sum.service.to_owned();
            [name].into_iter().chain(figures.map(|n| n.to_string())).collect()
        })
        .collect();
    page.table(
        &["Service", "Drills with markers", "Written", "Recovered", "Lost", "Holes", "Duplicates"],
        &rows,
        "No drill of this period had markers, so no loss was measured.",
    );
}

/// How long ago, or "never".
fn ago(at: Option<Timestamp>, data: &ReportData) -> String {
    at.map_or_else(
        || "never".to_owned(),
        |at| format!("{} ago", age(data.generated.duration_since(at).as_secs_f64())),
    )
}

fn points(page: &mut Page, data: &ReportData, moments: &Moments) {
    page.heading(2, "Recovery points");
    let rows: Vec<Vec<String>> = data
        .points_summary
        .iter()
        .map(|summary| {
            let copies: Vec<String> =
                summary.copies.iter().map(|copies| words::copies(copies, data.generated)).collect();
            let newest = summary.newest_data_time;
            vec![
                format!("{}/{}", summary.service, summary.data),
                summary.count.to_string(),
                newest.map_or_else(|| "none whole".to_owned(), |at| moments.moment(at)),
                copies.join("; "),
                ago(summary.proven_at, data),
            ]
        })
        .collect();
    page.table(
        &["Data", "Points", "Newest", "Copies", "Last proven"],
        &rows,
        "No recovery point yet.",
    );
}

fn backups(page: &mut Page, data: &ReportData, moments: &Moments) {
    page.heading(2, "Backups");
    let rows: Vec<Vec<String>> = data
        .backups
        .iter()
        .map(|stats| {
            vec![
                format!("{}/{}", stats.service, stats.data),
                stats.runs.to_string(),
                stats.failed.to_string(),
                stats.partial.to_string(),
                stats.missed.to_string(),
                stats.last_success.map_or_else(|| "never".to_owned(), |at| moments.moment(at)),
                stats.last_error.clone().unwrap_or_else(|| "\u{2014}".to_owned()),
            ]
        })
        .collect();
    page.table(
        &["Data", "Runs", "Failed", "Partial", "Missed", "Last success", "Last error"],
        &rows,
        "No backup ran or was due in this period.",
    );
}

fn findings(page: &mut Page, data: &ReportData) {
    page.heading(2, "Findings");
    let mut sorted: Vec<_> = data.findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let rows: Vec<Vec<String>> = sorted
        .iter()
        .map(|finding| {
            vec![
                finding.severity.to_string(),
                finding.code.clone(),
                format!("{} (line {})", finding.path, finding.line),
                finding.message.clone(),
                finding.help.clone().unwrap_or_default(),
            ]
        })
        .collect();
    page.table(
        &["Severity", "Code", "Where", "What is wrong", "What to do"],
        &rows,
        "The plan check finds nothing today.",
    );
    page.heading(3, "Exceptions that hold");
    let rows: Vec<Vec<String>> = data
        .exceptions
        .iter()
        .map(|held| {
            vec![
                held.service.clone(),
                held.waives.clone(),
                held.until.to_string(),
                held.reason.clone(),
                held.approved_by.clone().unwrap_or_else(|| "nobody".to_owned()),
            ]
        })
        .collect();
    page.table(&["Service", "Waives", "Until", "Reason", "Approved by"], &rows, "None.");
}

fn kpis(page: &mut Page, data: &ReportData) {
    page.heading(2, "Key figures");
    page.paragraph(&text(&success_words(&data.kpis.success).join(" ")));
    let coverage = &data.kpis.coverage;
    page.paragraph(&format!(
        "{} of {} proven; {} of {} with proof of at least one disruption.",
        coverage.objectives_proven,
        count(coverage.objectives, "objective"),
        coverage.services_proven,
        count(coverage.services, "service"),
    ));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for kpi in &data.kpis.services {
        let figures = [
            ("recovery time", &kpi.recovery_time, &kpi.rto_target),
            ("loss", &kpi.recovery_point, &kpi.rpo_target),
        ];
        rows.extend(figures.map(|(name, of, target)| {
            vec![
                kpi.service.clone(),
                name.to_owned(),
                words::quantile(of.median_s, of),
                words::quantile(of.p90_s, of),
                of.n.to_string(),
                words::target(target),
                words::kept(of, target),
            ]
        }));
    }
    page.table(
        &["Service", "Figure", "Median", "90 % at most", "n", "Target", "By the median"],
        &rows,
        "The plan has no service.",
    );
}

fn evidence(page: &mut Page, data: &ReportData) {
    page.heading(2, "Evidence");
    page.paragraph(&text(&trust(&data.evidence, data.generated)));
    page.paragraph(&format!("Entries in the log: {}.", data.evidence.log_size));
    page.line(&format!("To check it without trusting this report: `{VERIFY}`"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_others_do_no_harm() {
        let check = |raw: &str, expected: &str| assert_eq!(text(raw), expected);
        check("a|b", "a\\|b");
        check("<img src=x>", "\\<img src=x\\>");
        check("[x](http://y)", "\\[x\\](http\\://y)");
        check("hey @ana", "hey @\u{200b}ana");
        check("see www.example.org at 14:03", "see www\\.example.org at 14:03");
        check("two\r\nlines", "two  lines");
        check("\\|", "\\\\\\|");
        check("\u{1b}[31m", "\u{241b}\\[31m");
    }
}
