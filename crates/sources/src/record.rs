//! From a request to the engine's options, and from the engine's report to the answer.
//!
//! What must be known to bring data back is written into the snapshot itself: its source, how
//! many paths it had, and the time of its content, which is the snapshot's own. So a repository
//! alone is enough, when plan and state are gone.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use muster_repository::{
    backup::{BackupOptions, BackupReport, is_suspect},
    format::{snapshot::Snapshot, time::Timestamp as RecordedTime},
};

use crate::capture::{Captured, Notice, Request, VANISHED};

/// Begins the tag that says which source a snapshot is of.
pub(crate) const SOURCE_TAG: &str = "muster:source=";

/// The value of the first tag that begins with `prefix`.
pub(crate) fn tag_value<'s>(snapshot: &'s Snapshot, prefix: &str) -> Option<&'s str> {
    snapshot.tags.iter().find_map(|tag| tag.strip_prefix(prefix))
}

/// The engine's options for a snapshot of `source` whose content is as of `data_time`.
pub(crate) fn options(
    request: &Request,
    source: &str,
    sources: Vec<PathBuf>,
    data_time: RecordedTime,
) -> BackupOptions {
    let mut options = BackupOptions::new(sources);
    options.kind = request.kind;
    options.tags = request.tags(source);
    options.time = Some(data_time);
    options
}

/// The answer, from the engine's report.
pub(crate) fn captured(
    report: BackupReport,
    data_time: RecordedTime,
    mut notices: Vec<Notice>,
    rows: BTreeMap<String, (u64, u64)>,
) -> Captured {
    let summary = report.snapshot.summary.as_ref();
    let told = report.notices.iter().cloned();
    notices.extend(told.map(|message| Notice { code: "destination-left-out", message }));
    notices.extend(losses(&report));
    let seen = report.signals.iter();
    notices.extend(seen.map(|s| Notice { code: s.name(), message: s.to_string() }));
    if is_suspect(&report.signals) {
        let message = "this snapshot looks wrong: it is kept, and not used for recoveries until \
                       somebody has looked and removed its tag muster:suspect";
        notices.push(Notice { code: "suspect", message: message.to_owned() });
    }
    Captured {
        tree: report.snapshot.tree,
        snapshot: report.id.expect("it was no dry run, and a snapshot was wanted in any case"),
        data_time: to_jiff(data_time),
        bytes: summary.map_or(0, |summary| summary.total_bytes_processed),
        bytes_added: summary.map_or(0, |summary| summary.data_added_packed),
        files: summary.map_or(0, |summary| summary.total_files_processed),
        left_out: report.problems.iter().map(left_out).collect(),
        notices,
        rows,
    }
}

/// What the repository has lost.
pub(crate) fn losses(report: &BackupReport) -> impl Iterator<Item = Notice> {
    let losses = report.losses.iter();
    losses.map(|loss| Notice { code: loss.code, message: loss.message.clone() })
}

/// What a problem left out, in words.
pub(crate) fn left_out(problem: &muster_repository::backup::Problem) -> String {
    let path = String::from_utf8_lossy(&problem.path);
    match problem.has_vanished() {
        true => format!("{path}: {VANISHED}"),
        false => format!("{path}: cannot {} it: {}", problem.operation, problem.error),
    }
}

/// The same moment in the words of the other crates.
pub(crate) fn to_jiff(time: RecordedTime) -> Timestamp {
    let nanoseconds = i32::try_from(time.nanoseconds()).unwrap_or(0);
    Timestamp::new(time.seconds(), nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
