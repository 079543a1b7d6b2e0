//! What every form of a report keeps, whatever it is told.

mod contrast;
mod hostile;

use std::{fs, path::Path};

use super::{ReportData, html, markdown, sample};

fn data() -> ReportData {
    ReportData::new(sample::facts())
}

fn empty() -> ReportData {
    ReportData::new(sample::empty_facts())
}

/// The text of a page as a reader sees it: without its elements, its style and doubled spaces.
fn seen(page: &str) -> String {
    let body = page.split_once("</style>").unwrap().1;
    let text: String =
        body.split('<').filter_map(|piece| piece.split_once('>')).map(|p| p.1).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_has_every_section_in_order() {
    let page = html::render(&data());
    let ids = [
        "matrix",
        "objectives",
        "history",
        "drills",
        "markers",
        "points",
        "backups",
        "findings",
        "kpis",
        "recoveries",
        "evidence",
    ];
    let places: Vec<usize> =
        ids.iter().map(|id| page.find(&format!("<section id=\"{id}\"")).expect(id)).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(page.find("<h1>").unwrap() < places[0]);
}

#[test]
fn the_page_needs_nothing_else() {
    let page = html::render(&data()).to_lowercase();
    for forbidden in [
        "<script",
        "<link",
        "<img",
        "<iframe",
        "<object",
        "@import",
        "src=",
        "onload",
        "javascript:",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for (i, _) in page.match_indices("url(") {
        assert!(
            page[i + 4..].trim_start_matches(['"', '\'']).starts_with('#'),
            "{}",
            &page[i..i + 40]
        );
    }
    for (i, _) in page.match_indices("href=\"") {
        assert!(page[i + 6..].starts_with('#'), "{}", &page[i..i + 40]);
    }
    assert!(page.contains("default-src 'none'"));
}

/// Every link leads to something, and every id is there once.
#[test]
fn links_lead_somewhere() {
    let page = html::render(&data());
    let values = |name: &str| -> Vec<String> {
        let attribute = format!(" {name}=\"");
        let starts = page.match_indices(&attribute).map(|(i, m)| i + m.len());
        starts.map(|i| page[i..].split('"').next().unwrap().to_owned()).collect()
    };
    let ids = values("id");
    for href in values("href") {
        let target = href.trim_start_matches('#');
        assert_eq!(ids.iter().filter(|id| *id == target).count(), 1, "{href}");
    }
    assert!(values("href").iter().any(|href| href == "#d0"));
}

#[test]
fn verdict_counts_add_up_on_the_page() {
    let (data, page) = (data(), html::render(&data()));
    assert_eq!(page.matches("<details").count(), data.drills.len() + data.recoveries.len());
    let dots = page.matches("class=\"touch\"").count() as u64;
    assert_eq!(dots, data.counts.total);
    let text = seen(&page);
    for (verdict, n) in data.counts.rows() {
        assert!(text.contains(&format!("{n} {verdict}")), "{n} {verdict}");
    }
    assert!(text.contains("36 drills: 34 started, 1 expired, 1 skipped"));
    let markdown = markdown::render(&data);
    assert!(markdown.contains("36 drills: 28 pass, 2 fail, 1 inconclusive, 1 error"), "{markdown}");
}

#[test]
fn nothing_measured_is_never_a_nought() {
    for (page, markdown) in [(html::render(&empty()), markdown::render(&empty()))]
        .map(|(page, markdown)| (seen(&page), markdown))
    {
        for text in [page, markdown] {
            assert!(text.contains("not measured"), "{text}");
            assert!(!text.contains("0 s"), "{text}");
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}

#[test]
fn figures_have_units_and_say_what_they_leave_out() {
    for text in [seen(&html::render(&data())), markdown::render(&data())] {
        assert!(text.contains("0.8 s / 15 min"), "a time below a second");
        assert!(text.contains("11 min 20 s / 15 min"));
        assert!(text.contains("without detection and decision"));
        assert!(text.contains("2 min of detect assumed"));
        assert!(text.contains("2 min, assumed"));
        assert!(text.contains("not recovered / 15 min"));
        assert!(
            text.contains("counted from the declaration") || !text.contains("Recovery time Loss")
        );
        assert!(text.contains("the tier's") && text.contains("built in"));
        assert!(text.contains("muster evidence verify BUNDLE --trust KEY"));
        assert!(text.contains("excluded"));
    }
}

#[test]
fn a_plan_without_drills_gives_a_useful_report() {
    let text = seen(&html::render(&empty()));
    for words in [
        "No drill yet",
        "never proven",
        "No recovery point yet",
        "not verified",
        "No checkpoint yet",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(markdown::render(&empty()).contains("No drill yet"));
    let mut nothing = sample::empty_facts();
    nothing.services.clear();
    nothing.cells.clear();
    let nothing = ReportData::new(nothing);
    assert!(seen(&html::render(&nothing)).contains("sets no objective"));
    assert!(markdown::render(&nothing).contains("sets no objective"));
}

/// Where there is no room for columns, each cell says which it is.
#[test]
fn each_cell_of_a_table_has_the_name_of_its_column() {
    let page = html::render(&data());
    let mut tables = 0;
    for table in page.split("<table class=\"rows\">").skip(1) {
        let table = table.split("</table>").next().unwrap();
        let (head, body) = table.split_once("<tbody>").unwrap();
        let headings: Vec<&str> = head
            .split("<th scope=\"col\">")
            .skip(1)
            .map(|h| h.split("</th>").next().unwrap())
            .collect();
        for row in body.split("</tr>").filter(|row| row.contains("<tr>")) {
            let labels = row.match_indices("data-label=\"").map(|(i, name)| i + name.len());
            let labels: Vec<&str> = labels.map(|i| row[i..].split('"').next().unwrap()).collect();
            assert_eq!(
                labels.len(),
                row.matches("<td").count() + row.matches("<th").count(),
                "{row}"
            );
            assert_eq!(labels, headings[headings.len() - labels.len()..], "{row}");
        }
        tables += 1;
    }
    assert!(tables > 10, "{tables}");
    assert!(seen(&page).contains("recovery 1: "), "recoveries have numbers");
}

#[test]
fn standing_has_a_word_and_a_shape_beside_its_colour() {
    let page = html::render(&data());
    let matrix =
        page.split("<section id=\"matrix\"").nth(1).unwrap().split("</section>").next().unwrap();
    for standing in ["proven", "failing", "stale", "never"] {
        let cell = matrix.split(&format!("class=\"cell s-{standing}\"")).nth(1).expect(standing);
        let cell = cell.split("</td>").next().unwrap();
        assert!(cell.contains("<svg") && cell.contains(&format!("</svg>{standing}<")), "{cell}");
    }
    assert!(matrix.contains("scope=\"row\"") && matrix.contains("scope=\"col\""));
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"));
}

#[test]
fn the_same_data_gives_the_same_bytes() {
    assert_eq!(html::render(&data()), html::render(&data()));
    assert_eq!(markdown::render(&data()), markdown::render(&data()));
}

#[test]
fn evidence_that_does_not_hold_is_not_praised() {
    let mut facts = sample::facts();
    let check = facts.evidence.verified.as_mut().unwrap();
    check.ok = false;
    check.detail = "leaf 7 is missing".to_owned();
    let data = ReportData::new(facts);
    for text in [seen(&html::render(&data)), markdown::render(&data)] {
        assert!(text.contains("NOT INTACT") && text.contains("leaf 7 is missing"), "{text}");
        assert!(!text.contains("Evidence verified"), "{text}");
    }
}

/// Leaves the sample where a person can look at it: `target/tmp/report/`.
#[test]
fn the_sample_can_be_looked_at() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp/report");
    fs::create_dir_all(&folder).unwrap();
    let dark =
        |page: &str| page.replace("@media screen and (prefers-color-scheme:dark)", "@media screen");
    let page = html::render(&data());
    let files = [
        ("dark.html", dark(&page)),
        ("report.html", page),
        ("empty.html", html::render(&empty())),
        ("report.md", markdown::render(&data())),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
}
