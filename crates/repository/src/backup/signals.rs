//! What looks wrong about a backup: signs of ransomware, and of mistakes.
//!
//! Everything that is needed was counted anyway: how many files and bytes there were, how much of
//! it was new, and how well that compressed. It is compared with the record of earlier backups of
//! the same source, which every snapshot carries. No byte is read for it.
//!
//! A sign alone is told. Some make the snapshot *suspect* ([`SUSPECT_TAG`]): it is kept whole, and
//! it is not taken for a good one until a person has looked and removed the tag. Suspects and
//! partial snapshots are no measure for later ones: an attacker cannot get the measure used to
//! ruin by ruining little by little faster than backups are looked at, and neither is the empty
//! folder of a disk that is not mounted ever normal.
//!
//! The limits err on the side of silence: a warning that comes every week is read by nobody.

use std::fmt;

use muster_model::units::{agree, counted};

use super::PARTIAL_TAG;
use crate::{
    format::snapshot::{Snapshot, Summary},
    id::SnapshotId,
};

/// Tag of a snapshot that looks wrong and that nobody has cleared.
pub const SUSPECT_TAG: &str = "muster:suspect";

/// How many earlier backups are looked at: a month of daily ones.
const HISTORY_MAX: usize = 30;
/// So many earlier backups make a habit. The first one adds everything and is no measure of change.
const HISTORY_MIN: usize = 3;
/// Fewer files than this come and go.
const FILES_MIN: u64 = 10;
/// Less than this compresses as it likes.
const BYTES_MIN: u64 = 1 << 20;
/// A source that loses this share of its files or bytes lost more than a clean-up takes.
const LOST_SHARE: f64 = 0.5;
/// From this share of new data on a change may be one of everything.
const CHURN_SHARE: f64 = 0.5;
/// How many times the largest share that was ever seen.
const CHURN_FACTOR: f64 = 3.0;
/// Encrypted data does not compress: what is stored is hardly smaller than what was read.
const INCOMPRESSIBLE: f64 = 0.97;
/// The data of a source that compresses to this or less is not encrypted by nature.
const COMPRESSIBLE: f64 = 0.85;

/// Something about a backup that looks wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Signal {
    /// There was something, and now there is nothing.
    Emptied {
        /// Files that the backup before had.
        files_before: u64,
        /// Bytes that the backup before had.
        bytes_before: u64,
    },
    /// A large part of the files is gone.
    Deleted {
        /// Files of the backup before that this one does not have.
        files_gone: u64,
        /// Files that the backup before had.
        files_before: u64,
    },
    /// A large part of the bytes is gone.
    Shrunk {
        /// Bytes now.
        bytes: u64,
        /// Bytes that the backup before had.
        bytes_before: u64,
    },
    /// Far more is new than ever before.
    Churned {
        /// The part of all bytes that is new, from 0 to 1.
        share: f64,
        /// The largest such part of earlier backups.
        share_max: f64,
    },
    /// What is new does not compress, while earlier data of this source did.
    Incompressible {
        /// Stored bytes for each byte that was read, of what is new.
        ratio: f64,
        /// The same, of all that earlier backups added.
        ratio_before: f64,
    },
}

impl Signal {
    /// A stable name in kebab case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Emptied { .. } => "source-emptied",
            Self::Deleted { .. } => "files-deleted",
            Self::Shrunk { .. } => "source-shrunk",
            Self::Churned { .. } => "mass-change",
            Self::Incompressible { .. } => "incompressible",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| share * 100.0;
        match *self {
            Self::Emptied { files_before, bytes_before } => write!(
                f,
                "nothing is left of {} with {} in the backup before",
                counted(files_before, "file"),
                counted(bytes_before, "byte")
            ),
            Self::Deleted { files_gone, files_before } => {
                let (before, are) = (counted(files_before, "file"), agree(files_gone, "is", "are"));
                write!(f, "{files_gone} of {before} in the backup before {are} gone")
            }
            Self::Shrunk { bytes, bytes_before } => {
                write!(f, "{bytes} bytes, where the backup before had {bytes_before}")
            }
            Self::Churned { share, share_max } => write!(
                f,
                "{:.0} % of all bytes are new, where it was never more than {:.1} %",
                percent(share),
                percent(share_max)
            ),
            Self::Incompressible { ratio, ratio_before } => write!(
                f,
                "new data compresses to {:.0} %, where this source's came to {:.0} %: it may be \
                 encrypted",
                percent(ratio),
                percent(ratio_before)
            ),
        }
    }
}

/// Whether these signs together make a snapshot suspect. A mass change alone does not, since
/// migrations and upgrades are that; a mass change that does not compress does.
#[must_use]
pub fn is_suspect(signals: &[Signal]) -> bool {
    let has = |wanted: fn(&Signal) -> bool| signals.iter().any(wanted);
    has(|s| matches!(s, Signal::Emptied { .. } | Signal::Deleted { .. } | Signal::Shrunk { .. }))
        || has(|s| matches!(s, Signal::Churned { .. }))
            && has(|s| matches!(s, Signal::Incompressible { .. }))
}

/// The record of earlier backups of a source that are a measure for the next, oldest first.
#[must_use]
pub(super) fn history(mut earlier: Vec<(SnapshotId, Snapshot)>) -> Vec<(SnapshotId, Snapshot)> {
    earlier.retain(|(_, snapshot)| {
        snapshot.summary.is_some()
            && !snapshot.tags.iter().any(|tag| [PARTIAL_TAG, SUSPECT_TAG].contains(&tag.as_str()))
    });
    earlier.sort_by_key(|(id, snapshot)| (snapshot.time, *id));
    earlier.drain(..earlier.len().saturating_sub(HISTORY_MAX));
    earlier
}

/// What looks wrong about a backup that recorded `now` after those of `history`, oldest first.
/// `compared` says that files were compared with the newest of them, so that deletions are known.
#[must_use]
pub(super) fn signals(now: &Summary, history: &[&Summary], compared: bool) -> Vec<Signal> {
    let Some(last) = history.last() else { return Vec::new() };
    if let Some(emptied) = emptied(now, last) {
        return vec![emptied];
    }
    let found = [deleted(now, last, compared), shrunk(now, last), churned(now, history)];
    found.into_iter().flatten().chain(incompressible(now, history)).collect()
}

fn emptied(now: &Summary, last: &Summary) -> Option<Signal> {
    let had_bytes = last.total_bytes_processed > 0;
    let is_empty = now.total_files_processed == 0 && last.total_files_processed > 0
        || now.total_bytes_processed == 0 && had_bytes;
    is_empty.then_some(Signal::Emptied {
        files_before: last.total_files_processed,
        bytes_before: last.total_bytes_processed,
    })
}

fn deleted(now: &Summary, last: &Summary, compared: bool) -> Option<Signal> {
    let files_before = last.total_files_processed;
    let kept = match compared {
        true => now.files_unmodified + now.files_changed,
        false => now.total_files_processed,
    };
    let files_gone = files_before.saturating_sub(kept);
    let is_much = files_before >= FILES_MIN && share(files_gone, files_before) >= LOST_SHARE;
    is_much.then_some(Signal::Deleted { files_gone, files_before })
}

fn shrunk(now: &Summary, last: &Summary) -> Option<Signal> {
    let (bytes, bytes_before) = (now.total_bytes_processed, last.total_bytes_processed);
    let lost = bytes_before.saturating_sub(bytes);
    let is_much = bytes_before >= BYTES_MIN && share(lost, bytes_before) > LOST_SHARE;
    is_much.then_some(Signal::Shrunk { bytes, bytes_before })
}

fn churned(now: &Summary, history: &[&Summary]) -> Option<Signal> {
    let share_of = |summary: &Summary| share(summary.data_added, summary.total_bytes_processed);
    let habit = history.get(1..).filter(|habit| habit.len() + 1 >= HISTORY_MIN)?;
    let share_max = habit.iter().map(|summary| share_of(summary)).fold(0.0, f64::max);
    let share = share_of(now).min(1.0);
    let is_much =
        now.data_added >= BYTES_MIN && share >= CHURN_SHARE && share >= share_max * CHURN_FACTOR;
    is_much.then_some(Signal::Churned { share, share_max })
}

fn incompressible(now: &Summary, history: &[&Summary]) -> Option<Signal> {
    let added: u64 = history.iter().map(|summary| summary.data_added).sum();
    let packed: u64 = history.iter().map(|summary| summary.data_added_packed).sum();
    if now.data_added < BYTES_MIN || added < BYTES_MIN {
        return None;
    }
    let (ratio, ratio_before) =
        (share(now.data_added_packed, now.data_added), share(packed, added));
    (ratio >= INCOMPRESSIBLE && ratio_before <= COMPRESSIBLE)
        .then_some(Signal::Incompressible { ratio, ratio_before })
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits than a float has")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::time::Timestamp;

    const MIB: u64 = 1 << 20;

    /// Files kept, files new, MiB in all, MiB new, MiB stored of these.
    fn summary(kept: u64, new: u64, total: u64, added: u64, packed: u64) -> Summary {
        let time = Timestamp::new(0, 0, 0);
        Summary {
            files_new: new,
            files_unmodified: kept,
            data_added: added * MIB,
            data_added_packed: packed * MIB,
            total_files_processed: kept + new,
            total_bytes_processed: total * MIB,
            ..super::super::empty_summary(time)
        }
    }

    /// A first backup and some quiet days: 100 files, 1000 MiB that compress to 40 %.
    fn quiet() -> Vec<Summary> {
        let mut all = vec![summary(0, 100, 1000, 1000, 400)];
        all.extend((0..5).map(|_| summary(99, 1, 1000, 10, 4)));
        all
    }

    #[track_caller]
    fn check(now: &Summary, history: &[Summary], expected: &[&str], suspect: bool) {
        let history: Vec<&Summary> = history.iter().collect();
        let found = signals(now, &history, true);
        assert_eq!(found.iter().map(|signal| signal.name()).collect::<Vec<_>>(), expected);
        assert_eq!(is_suspect(&found), suspect, "{found:?}");
    }

    #[test]
    fn an_ordinary_day_raises_nothing() {
        check(&summary(99, 1, 1000, 10, 4), &quiet(), &[], false);
        check(&summary(0, 100, 1000, 1000, 400), &[], &[], false);
        check(&summary(60, 0, 600, 0, 0), &quiet(), &[], false);
        check(&summary(100, 10, 1100, 100, 99), &quiet(), &["incompressible"], false);
    }

    #[test]
    fn encryption_in_place_is_suspect() {
        let now = Summary { files_changed: 100, ..summary(0, 0, 1000, 1000, 1000) };
        let now = Summary { total_files_processed: 100, ..now };
        check(&now, &quiet(), &["mass-change", "incompressible"], true);
    }

    #[test]
    fn encryption_under_other_names_is_suspect() {
        let now = summary(0, 100, 1000, 1000, 1000);
        check(&now, &quiet(), &["files-deleted", "mass-change", "incompressible"], true);
    }

    #[test]
    fn a_migration_is_told_and_believed() {
        let now = Summary { files_changed: 100, ..summary(0, 0, 1000, 900, 360) };
        let now = Summary { total_files_processed: 100, ..now };
        check(&now, &quiet(), &["mass-change"], false);
    }

    #[test]
    fn what_is_gone_is_suspect() {
        check(&summary(0, 0, 0, 0, 0), &quiet(), &["source-emptied"], true);
        check(
            &Summary { total_bytes_processed: 0, ..summary(100, 0, 0, 0, 0) },
            &quiet(),
            &["source-emptied"],
            true,
        );
        check(&summary(50, 0, 900, 0, 0), &quiet(), &["files-deleted"], true);
        check(&summary(100, 0, 499, 0, 0), &quiet(), &["source-shrunk"], true);
    }

    #[test]
    fn few_files_and_few_backups_are_no_habit() {
        let few = [summary(0, 9, 10, 10, 4), summary(9, 0, 10, 0, 0), summary(9, 0, 10, 0, 0)];
        check(&summary(1, 0, 10, 0, 0), &few, &[], false);
        let now = Summary { files_changed: 100, ..summary(0, 0, 1000, 1000, 400) };
        let now = Summary { total_files_processed: 100, ..now };
        check(&now, &quiet()[..2], &[], false);
    }

    #[test]
    fn data_that_never_compressed_is_not_encrypted_now() {
        let photos: Vec<Summary> = (0..4).map(|_| summary(100, 10, 1000, 100, 99)).collect();
        check(&summary(100, 10, 1100, 100, 100), &photos, &[], false);
    }

    #[test]
    fn without_a_parent_only_totals_count() {
        let history = quiet();
        let history: Vec<&Summary> = history.iter().collect();
        let whole = summary(0, 100, 1000, 0, 0);
        assert_eq!(signals(&whole, &history, false), []);
        let half = summary(0, 50, 1000, 0, 0);
        assert_eq!(signals(&half, &history, false)[0].name(), "files-deleted");
    }
}
