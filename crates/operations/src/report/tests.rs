//! What every form of a report keeps, whatever it is told.

use super::{ReportData, html, sample};

/// Writes the sample for people to look at.
#[test]
fn the_page_has_every_section() {
    let page = html::render(&ReportData::new(sample::facts()));
    let out = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp");
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join("report.html"), &page).unwrap();
    std::fs::write(out.join("empty.html"), html::render(&ReportData::new(sample::empty_facts())))
        .unwrap();
}

#[test]
fn markdown_probe() {
    let out = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp");
    std::fs::write(
        out.join("report.md"),
        super::markdown::render(&ReportData::new(sample::facts())),
    )
    .unwrap();
}
