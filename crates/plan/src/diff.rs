//! What differs between two plans, and what of it weakens protection.
//!
//! Plans are compared by meaning, not by text: objectives as they stand after the tier was laid
//! under them, so that a change of tier shows what it takes away.

mod leaves;

use leaves::{Leaf, Sense, leaves};
use serde::Serialize;

use crate::document::Plan;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where: `services.orders.objectives.region-loss.rpo`.
    pub path: String,
    /// What stood there.
    pub before: Option<String>,
    /// What stands there now.
    pub after: Option<String>,
    /// Less is promised, protected, proven or told than before.
    pub weakens: bool,
}

/// Compares two plans; in the order of paths.
#[must_use]
pub fn diff(before: &Plan, after: &Plan) -> Vec<Change> {
    let (old, new) = (leaves(before), leaves(after));
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().filter_map(|path| change(path, old.get(path), new.get(path))).collect()
}

fn change(path: &str, before: Option<&Leaf>, after: Option<&Leaf>) -> Option<Change> {
    let text = |leaf: Option<&Leaf>| leaf.map(|leaf| leaf.text.clone());
    if text(before) == text(after) {
        return None;
    }
    let sense = before.or(after).map_or(Sense::Neutral, |leaf| leaf.sense);
    let weakens = weakens(sense, before, after);
    Some(Change { path: path.to_owned(), before: text(before), after: text(after), weakens })
}

fn weakens(sense: Sense, before: Option<&Leaf>, after: Option<&Leaf>) -> bool {
    match (sense, before, after) {
        (Sense::MoreIsLoss | Sense::LessIsLoss | Sense::AbsenceIsLoss, Some(_), None) => true,
        (Sense::PresenceIsLoss, None, Some(_)) => true,
        (Sense::MoreIsLoss | Sense::PresenceIsLoss, Some(before), Some(after)) => {
            any(before, after, |before, after| after > before)
        }
        (Sense::LessIsLoss, Some(before), Some(after)) => {
            any(before, after, |before, after| after < before)
        }
        _ => false,
    }
}

fn any(before: &Leaf, after: &Leaf, holds: impl Fn(f64, f64) -> bool) -> bool {
    before.sizes.iter().zip(&after.sizes).any(|(before, after)| holds(*before, *after))
}
