//! Names and messages of others, in every place of a report: none becomes markup.

use proptest::prelude::*;

use super::data;
use crate::report::{Facts, ReportData, html, markdown, sample};

/// Puts a text into every place that somebody else fills.
fn with_text(text: &str) -> ReportData {
    let mut facts = sample::facts();
    let old = "orders";
    facts.plan = text.to_owned();
    facts.revision = text.to_owned();
    for service in facts.services.iter_mut().filter(|service| service.name == old) {
        service.name = text.to_owned();
        service.owner = Some(text.to_owned());
        service.tier = Some(text.to_owned());
    }
    for cell in facts.cells.iter_mut().filter(|cell| cell.service == old) {
        cell.service = text.to_owned();
    }
    for point in facts.points.iter_mut().filter(|point| point.service == old) {
        point.service = text.to_owned();
        point.copies[0].repository = text.to_owned();
        point.copies[0].place.region = Some(text.to_owned());
    }
    spoil_drills(&mut facts, text);
    for stats in &mut facts.backups {
        stats.last_error = Some(text.to_owned());
    }
    for finding in &mut facts.findings {
        finding.message = text.to_owned();
        finding.help = Some(text.to_owned());
        finding.path = text.to_owned();
    }
    facts.exceptions[0].reason = text.to_owned();
    facts.evidence.checkpoint = Some(text.to_owned());
    facts.unfinished[0].service = text.to_owned();
    ReportData::new(facts)
}

fn spoil_drills(facts: &mut Facts, text: &str) {
    for drill in facts.drills.iter_mut().chain(&mut facts.recoveries) {
        if drill.service == "orders" {
            drill.service = text.to_owned();
        }
        drill.reasons.iter_mut().for_each(|reason| *reason = text.to_owned());
        drill.probes.iter_mut().for_each(|probe| probe.name = text.to_owned());
        drill.negative_controls.iter_mut().for_each(|control| control.against = text.to_owned());
        drill.completeness.iter_mut().for_each(|rule| rule.actual = Some(text.to_owned()));
        drill.isolation.iter_mut().for_each(|proof| proof.detail = text.to_owned());
        drill.points.iter_mut().for_each(|point| point.repository = text.to_owned());
        drill.recovery_time.phases.iter_mut().for_each(|phase| phase.name = text.to_owned());
    }
}

/// The elements of a page with the names of their attributes, in order, and no text at all.
fn skeleton(page: &str) -> Vec<String> {
    let mut elements = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let end = element_end(rest);
        let mut quoted = false;
        let bare: String = rest[..end]
            .chars()
            .filter(|c| {
                quoted ^= *c == '"';
                !quoted
            })
            .collect();
        elements.push(bare);
        rest = &rest[end..];
    }
    elements
}

/// Where an element ends: at the first `>` outside of quotes.
fn element_end(text: &str) -> usize {
    let mut quoted = false;
    let end = text.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '>' && !quoted
    });
    end.map_or(text.len(), |(i, _)| i + 1)
}

fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c)
}

/// The rows of every table have as many columns as its head.
fn assert_tables_are_whole(markdown: &str) {
    let mut columns = None;
    for line in markdown.lines() {
        if !line.starts_with('|') {
            columns = None;
            continue;
        }
        let unescaped = line.replace("\\\\", "").replace("\\|", "");
        let n = unescaped.matches('|').count();
        assert_eq!(*columns.get_or_insert(n), n, "{line}");
        assert!(line.ends_with(" |"), "{line}");
    }
}

#[test]
fn tables_in_markdown_are_whole() {
    assert_tables_are_whole(&markdown::render(&data()));
    assert!(markdown::render(&data()).contains("\n| ---"), "a table has a rule");
}

#[test]
fn known_tricks_do_no_harm() {
    let plain = skeleton(&html::render(&with_text("harmless")));
    for trick in [
        "<script>alert(1)</script>",
        "\"><svg onload=alert(1)>",
        "' onmouseover='x",
        "</style><script>",
        "-->",
        "]]>",
        "&lt;b&gt;",
        "javascript:alert(1)",
        "\u{202e}ssap",
        "a|b\n| c | d |\n# heading",
        "\u{1b}]0;title\u{7}",
        "",
    ] {
        let data = with_text(trick);
        let page = html::render(&data);
        assert_eq!(skeleton(&page), plain, "{trick}");
        assert!(!page.contains(is_hidden), "{trick}");
        let markdown = markdown::render(&data);
        assert_tables_are_whole(&markdown);
        assert!(!markdown.contains(is_hidden), "{trick}");
        assert!(!markdown.contains("\n# heading"), "{trick}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_becomes_markup(text in "\\PC{0,20}|[<>\"'&|\\\\`\n\r\t*_\\[\\]@:/a-z]{0,30}|(?s).{0,20}") {
        let data = with_text(&text);
        let page = html::render(&data);
        prop_assert_eq!(skeleton(&page), skeleton(&html::render(&with_text("harmless"))));
        prop_assert!(!page.contains(is_hidden));
        let markdown = markdown::render(&data);
        assert_tables_are_whole(&markdown);
        prop_assert!(!markdown.contains(is_hidden));
    }
}
