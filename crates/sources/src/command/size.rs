//! Whether a result is smaller than it can well be.
//!
//! A command may end well and print nothing, or nearly nothing: a dump of the wrong database, a
//! compressed nothing (20 bytes from gzip). That is no failure that a program can be sure of, so
//! it is told as a notice and left to a person.

use muster_repository::{
    backup::PARTIAL_TAG,
    format::{snapshot::Snapshot, time::Timestamp},
    repository::Repository,
};

use crate::{
    capture::{Notice, Request},
    record::{SOURCE_TAG, tag_value},
};

/// Fewer bytes than any dump of anything; more than the frame of any compressor around nothing.
const BYTES_MIN: u64 = 100;

/// A result that shrank to less than one part in this many of the last is suspicious.
const SHRINK_MAX: u64 = 10;

/// Bytes of the newest whole snapshot of the same data; `None` when there is none.
pub(super) fn of_last_snapshot(
    repository: &Repository,
    request: &Request,
    source: &str,
) -> Option<u64> {
    let is_same = |snapshot: &Snapshot| {
        tag_value(snapshot, "muster:service=") == Some(&request.service)
            && tag_value(snapshot, "muster:data=") == Some(&request.data)
            && tag_value(snapshot, SOURCE_TAG) == Some(source)
            // A rewritten form is no point any more, and says nothing of the data's size.
            && tag_value(snapshot, "muster:point=").is_some()
            && !snapshot.tags.iter().any(|tag| tag == PARTIAL_TAG)
    };
    // A damaged snapshot compares with nothing; `check` is there to tell of it. When the
    // snapshots cannot be listed, the backup itself will say so.
    let ids = repository.snapshot_ids().unwrap_or_default();
    let snapshots = ids.into_iter().filter_map(|id| repository.snapshot(id).ok());
    let last: Option<(Timestamp, u64)> = snapshots
        .filter(is_same)
        .filter_map(|found| Some((found.time, found.summary?.total_bytes_processed)))
        .max_by_key(|(time, _)| *time);
    last.map(|(_, bytes)| bytes)
}

/// A notice, when `bytes` is implausibly few.
pub(super) fn implausible(bytes: u64, before: Option<u64>) -> Option<Notice> {
    let notice = |message| Some(Notice { code: "implausibly-small", message });
    match before {
        _ if bytes == 0 => notice("the command printed nothing".to_owned()),
        Some(before) if bytes < before / SHRINK_MAX => {
            notice(format!("the command printed {bytes} bytes; the last time it was {before}"))
        }
        _ if bytes < BYTES_MIN => notice(format!("the command printed only {bytes} bytes")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: u64, before: Option<u64>, expected: bool) {
        assert_eq!(implausible(bytes, before).is_some(), expected, "{bytes}, {before:?}");
    }

    #[test]
    fn next_to_nothing_is_implausible() {
        check(0, None, true);
        check(20, None, true);
        check(99, Some(99), true);
        check(100, None, false);
    }

    #[test]
    fn less_than_a_tenth_of_the_last_is_implausible() {
        check(999, Some(10_000), true);
        check(1_000, Some(10_000), false);
        check(1_000, Some(10), false);
    }
}
