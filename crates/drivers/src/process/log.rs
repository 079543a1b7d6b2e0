//! The last lines of a child's output, for error messages.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use crate::text::printable;

/// No more than this is read from the end of a log.
const TAIL_BYTES_MAX: u64 = 16 << 10;

/// Reads the last `lines` lines of a log. What could move a cursor or colour a terminal is
/// escaped. A log that cannot be read has none: this is for messages about something worse.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    let end = read_end(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&end);
    let all: Vec<&str> = text.lines().collect();
    let first = all.len().saturating_sub(lines);
    all[first..].iter().map(|line| printable(line.trim_end_matches('\r'), false)).collect()
}

fn read_end(log: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut end = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use muster_testkit::Scratch;

    use super::*;

    #[test]
    fn the_last_lines_are_told_and_harmless() {
        let scratch = Scratch::new("log").unwrap();
        let log = scratch.join("log");
        assert!(tail(&log, 3).is_empty());
        let text = format!("{}one\r\n\x1b[2Jtwo\nthr\u{fffd}ee", "x\n".repeat(50_000));
        fs::write(&log, text).unwrap();
        assert_eq!(tail(&log, 3), ["one", "\\u{1b}[2Jtwo", "thr\u{fffd}ee"]);
    }
}
