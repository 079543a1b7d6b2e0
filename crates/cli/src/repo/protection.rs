//! Snapshots that stay, whoever asks: under a legal hold, proven last, points of a plan.
//!
//! One answer for all that removes snapshots or puts others in their place. Here only tags are
//! known, and no ledger.

use std::collections::HashSet;

use muster_operations::retention::{Found, Protected, protected_as_points, protected_by_tags};
use muster_repository::id::SnapshotId;
use serde_json::{Value, json};

use crate::error::{Failure, Problem};

/// What lets protected snapshots go, for verbs whose --forget removes the old form.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Release {
    /// With --forget, let snapshots go that the tag muster:hold protects
    #[arg(long, requires = "forget")]
    release_hold: bool,
    /// With --forget, let recovery points of a plan go: their new form is none
    #[arg(long, requires = "forget")]
    ignore_plan: bool,
}

impl Release {
    /// What stays.
    pub(super) fn protected(self, all: &[Found]) -> Protected {
        protected(all, self.release_hold, self.ignore_plan)
    }
}

/// What stays whatever a policy or a person says.
pub(super) fn protected(all: &[Found], release_hold: bool, ignore_plan: bool) -> Protected {
    let mut protected = protected_by_tags(all, !release_hold);
    if !ignore_plan {
        for (id, reasons) in protected_as_points(all) {
            protected.entry(id).or_default().extend(reasons);
        }
    }
    protected
}

/// Their ids.
pub(super) fn ids(protected: &Protected) -> HashSet<SnapshotId> {
    protected.keys().copied().collect()
}

/// The refusal to `what` (a verb) those of `ids` that are protected; `None` when none is.
pub(super) fn refusal<'i>(
    what: &str,
    outcome: &str,
    ids: impl IntoIterator<Item = &'i SnapshotId>,
    protected: &Protected,
) -> Option<Failure> {
    let blockers: Vec<String> = ids
        .into_iter()
        .filter_map(|id| Some((id, protected.get(id)?)))
        .map(|(id, reasons)| format!("{} ({})", id.short(), reasons.join(", ")))
        .collect();
    let message = format!("{what} snapshots that are protected: {}", blockers.join(", "));
    let help = format!(
        "{outcome}; a legal hold is released with --release-hold, and the last proven snapshot \
         goes when there is a newer proven one; points of a plan are removed by its `keep`, with \
         `muster forget`, which knows what was proven (--ignore-plan removes them all the same)",
    );
    (!blockers.is_empty()).then(|| Failure::new(Problem::SnapshotProtected, message).help(help))
}

/// The same as JSON.
pub(super) fn as_json(ids: &[SnapshotId], protected: &Protected) -> Vec<Value> {
    let one = |id: &SnapshotId| json!({"snapshot_id": id, "reasons": protected.get(id)});
    ids.iter().map(one).collect()
}
