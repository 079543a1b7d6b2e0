//! The one place in `xtask` that prints: results to standard output, trouble to standard error.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this module is the printer")]

/// Prints a line of results.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints a line about what went wrong.
pub(crate) fn error(text: &str) {
    eprintln!("error: {text}");
}
