//! Pages that are written from code: compared in every run, written anew on request.

use std::{env, fs, path::Path};

/// Compares a file with the text that it should have; with `MUSTER_BLESS=1` writes it instead.
/// `path` is relative to the root of the workspace.
///
/// # Panics
/// When the file differs, which is a failed test, or cannot be written.
pub fn assert_golden(path: &str, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if env::var_os("MUSTER_BLESS").is_some_and(|value| value == "1") {
        fs::write(&file, expected).expect("the page can be written");
        return;
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    let lines = found.lines().zip(expected.lines());
    let differs = lines.clone().position(|(found, expected)| found != expected);
    let line = differs.unwrap_or(found.lines().count().min(expected.lines().count())) + 1;
    assert!(found == expected, "{path}:{line} is not what the code says: set MUSTER_BLESS=1");
}
