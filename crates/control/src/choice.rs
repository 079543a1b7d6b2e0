//! Which recovery point to use: the newest that survives the disruption and is older than the
//! harm, for each data item; or the list of what stands in the way.

use std::fmt;

use jiff::Timestamp;
use muster_model::{Disruption, Place, PointCopy, RecoveryPoint};
use serde::Serialize;

/// What is wanted of the recovery points of a service.
#[derive(Debug, Clone, Default)]
pub struct Wish<'a> {
    /// Only points whose data is not newer than this.
    pub at: Option<Timestamp>,
    /// Only this point; data items that it does not hold come from before it.
    pub point: Option<&'a str>,
    /// Only copies that survive this disruption.
    pub disruption: Option<Disruption>,
    /// Use a partial point too.
    pub accept_partial: bool,
}

/// The point and the copy to restore a data item from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The point.
    pub point: RecoveryPoint,
    /// Its surviving copies; the first is to be used, the others when it fails.
    pub copies: Vec<PointCopy>,
}

/// Why a service cannot be recovered as wished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// A stable name in kebab case.
    pub code: &'static str,
    /// What stands in the way.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Chooses a point for each of `data`, in order.
///
/// # Errors
/// Lists a blocker for every data item that has no point as wished.
pub fn choose(
    points: &[RecoveryPoint],
    service: &str,
    place: &Place,
    data: &[String],
    wish: &Wish<'_>,
) -> Result<Vec<Chosen>, Vec<Blocker>> {
    let ours: Vec<&RecoveryPoint> =
        points.iter().filter(|point| point.service == service).collect();
    let not_after = match wish.point.map(|id| latest_of(&ours, id)) {
        Some(None) => return Err(vec![unknown_point(service, wish.point.unwrap_or_default())]),
        Some(named) => named,
        None => wish.at,
    };
    let (mut chosen, mut blockers) = (Vec::new(), Vec::new());
    for name in data {
        let of_item: Vec<&RecoveryPoint> =
            ours.iter().copied().filter(|point| point.data == *name).collect();
        match choose_one(&of_item, place, not_after, wish) {
            Ok(one) => chosen.push(one),
            Err(why) => blockers.push(why.blocker(service, name, not_after, wish)),
        }
    }
    if blockers.is_empty() { Ok(chosen) } else { Err(blockers) }
}

/// The newest data time among the rows of one point.
fn latest_of(points: &[&RecoveryPoint], id: &str) -> Option<Timestamp> {
    points.iter().filter(|point| point.id == id).map(|point| point.data_time).max()
}

/// Why there is no point, from the first thing that was missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Points,
    OldEnough,
    Whole,
    Plausible,
    Sound,
    Survivors,
}

fn choose_one(
    points: &[&RecoveryPoint],
    place: &Place,
    not_after: Option<Timestamp>,
    wish: &Wish<'_>,
) -> Result<Chosen, Missing> {
    if points.is_empty() {
        return Err(Missing::Points);
    }
    let old_enough = |point: &&RecoveryPoint| not_after.is_none_or(|at| point.data_time <= at);
    let mut candidates: Vec<&RecoveryPoint> = points.iter().copied().filter(old_enough).collect();
    if candidates.is_empty() {
        return Err(Missing::OldEnough);
    }
    candidates.retain(|point| wish.accept_partial || !point.partial);
    if candidates.is_empty() {
        return Err(Missing::Whole);
    }
    // Whoever names a point has looked at it.
    let is_named = |point: &RecoveryPoint| wish.point == Some(point.id.as_str());
    candidates.retain(|point| !point.suspect || is_named(point));
    if candidates.is_empty() {
        return Err(Missing::Plausible);
    }
    candidates.retain(|point| point.copies.iter().any(|copy| !copy.damaged) || is_named(point));
    if candidates.is_empty() {
        return Err(Missing::Sound);
    }
    candidates.sort_by_key(|point| std::cmp::Reverse(point.data_time));
    let survivor = candidates.into_iter().find_map(|point| {
        let copies = surviving_copies(point, place, wish.disruption);
        let is_sound = copies.iter().any(|copy| !copy.damaged);
        let is_usable = is_sound || is_named(point) && !copies.is_empty();
        is_usable.then(|| Chosen { point: point.clone(), copies })
    });
    survivor.ok_or(Missing::Survivors)
}

/// The copies of a point that survive a disruption of a service at `place`; those that are known
/// to be damaged come last.
#[must_use]
pub fn surviving_copies(
    point: &RecoveryPoint,
    place: &Place,
    disruption: Option<Disruption>,
) -> Vec<PointCopy> {
    let survives = |copy: &&PointCopy| {
        disruption.is_none_or(|disruption| disruption.spares(&copy.place, copy.immutable, place))
    };
    let mut copies: Vec<PointCopy> = point.copies.iter().filter(survives).cloned().collect();
    copies.sort_by_key(|copy| copy.damaged);
    copies
}

impl Missing {
    fn blocker(
        self,
        service: &str,
        data: &str,
        not_after: Option<Timestamp>,
        wish: &Wish<'_>,
    ) -> Blocker {
        let what = format!("{service}/{data}");
        match self {
            Self::Points => Blocker {
                code: "no-recovery-point",
                message: format!("{what} has no recovery point"),
                help: format!("take one with `muster backup {what}`"),
            },
            Self::OldEnough => Blocker {
                code: "no-point-that-old",
                message: format!(
                    "{what} has no recovery point at or before {}",
                    not_after.map_or_else(String::new, |at| at.to_string())
                ),
                help: format!("`muster points {service}` lists what there is"),
            },
            Self::Whole => Blocker {
                code: "only-partial-points",
                message: format!("every recovery point of {what} left something out"),
                help: format!("`muster backup {what}` lists what it cannot read"),
            },
            Self::Plausible => Blocker {
                code: "only-suspect-points",
                message: format!("every recovery point of {what} looks wrong"),
                help: format!(
                    "`muster points {service}` lists them; look at one, and name it with `--point`"
                ),
            },
            Self::Sound => Blocker {
                code: "only-damaged-points",
                message: format!("every copy of every recovery point of {what} is damaged"),
                help: format!(
                    "`muster points {service}` lists them; name one with `--point` to bring back \
                     what is left of it"
                ),
            },
            Self::Survivors => Blocker {
                code: "no-surviving-copy",
                message: format!(
                    "no copy of {what} survives {}",
                    wish.disruption.map_or_else(String::new, |d| d.to_string())
                ),
                help: match wish.disruption.map(|d| d.effect().survivors) {
                    Some(muster_model::disruption::Survivors::Immutable) => {
                        "copies for this disruption must be immutable".to_owned()
                    }
                    _ => "add `copy:` to a repository that stands elsewhere, and wait for its \
                          first copy"
                        .to_owned(),
                },
            },
        }
    }
}

fn unknown_point(service: &str, id: &str) -> Blocker {
    Blocker {
        code: "unknown-point",
        message: format!("{service} has no recovery point '{id}'"),
        help: format!("`muster points {service}` lists what there is"),
    }
}

#[cfg(test)]
mod tests {
    use muster_model::BackupKind;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn point(id: &str, data: &str, second: i64, places: &[&str]) -> RecoveryPoint {
        let copy = |place: &&str| PointCopy {
            repository: (*place).to_owned(),
            place: Place::parse(place),
            immutable: false,
            immutable_until: None,
            snapshot: format!("{id}-{place}"),
            damaged: false,
        };
        RecoveryPoint {
            id: id.to_owned(),
            service: "orders".to_owned(),
            data: data.to_owned(),
            source: "sqlite".to_owned(),
            data_time: at(second),
            kind: BackupKind::Full,
            partial: false,
            suspect: false,
            bytes: None,
            copies: places.iter().map(copy).collect(),
            proof: None,
        }
    }

    fn check(points: &[RecoveryPoint], wish: &Wish<'_>) -> Result<Vec<String>, Vec<&'static str>> {
        let names = vec!["db".to_owned()];
        let chosen = choose(points, "orders", &Place::parse("west/-/-"), &names, wish);
        let id = |chosen: Chosen| format!("{}@{}", chosen.point.id, chosen.copies[0].repository);
        match chosen {
            Ok(chosen) => Ok(chosen.into_iter().map(id).collect()),
            Err(blockers) => Err(blockers.iter().map(|blocker| blocker.code).collect()),
        }
    }

    fn three() -> Vec<RecoveryPoint> {
        vec![
            point("a", "db", 10, &["west/-/-", "north/-/-"]),
            point("b", "db", 20, &["west/-/-"]),
            point("c", "db", 15, &["west/-/-", "north/-/-"]),
        ]
    }

    #[test]
    fn the_newest_surviving_copy_is_taken() {
        let wish = |disruption| Wish { disruption, ..Wish::default() };
        let newest = |id: &str| Ok(vec![id.to_owned()]);
        assert_eq!(check(&three(), &wish(None)), newest("b@west/-/-"));
        assert_eq!(check(&three(), &wish(Some(Disruption::RegionLoss))), newest("c@north/-/-"));
        assert_eq!(check(&three(), &wish(Some(Disruption::ProcessLoss))), newest("b@west/-/-"));
        let refused = check(&three(), &wish(Some(Disruption::Ransomware)));
        assert_eq!(refused, Err(vec!["no-surviving-copy"]));
    }

    #[test]
    fn a_point_in_time_is_never_later() {
        let wish = |second| Wish { at: Some(at(second)), ..Wish::default() };
        assert_eq!(check(&three(), &wish(19)), Ok(vec!["c@west/-/-".to_owned()]));
        assert_eq!(check(&three(), &wish(9)), Err(vec!["no-point-that-old"]));
    }

    #[test]
    fn a_named_point_is_the_one() {
        let wish = |point| Wish { point: Some(point), ..Wish::default() };
        assert_eq!(check(&three(), &wish("a")), Ok(vec!["a@west/-/-".to_owned()]));
        assert_eq!(check(&three(), &wish("z")), Err(vec!["unknown-point"]));
    }

    #[test]
    fn a_partial_point_is_no_choice_unless_accepted() {
        let mut points = vec![point("a", "db", 10, &["west/-/-"])];
        points[0].partial = true;
        assert_eq!(check(&points, &Wish::default()), Err(vec!["only-partial-points"]));
        let wish = Wish { accept_partial: true, ..Wish::default() };
        assert!(check(&points, &wish).is_ok());
        assert_eq!(check(&[], &wish), Err(vec!["no-recovery-point"]));
    }

    #[test]
    fn a_suspect_point_is_no_choice_unless_named() {
        let mut points =
            vec![point("a", "db", 10, &["west/-/-"]), point("b", "db", 20, &["west/-/-"])];
        points[1].suspect = true;
        assert_eq!(check(&points, &Wish::default()), Ok(vec!["a@west/-/-".to_owned()]));
        let named = Wish { point: Some("b"), ..Wish::default() };
        assert_eq!(check(&points, &named), Ok(vec!["b@west/-/-".to_owned()]));
        points[0].suspect = true;
        assert_eq!(check(&points, &Wish::default()), Err(vec!["only-suspect-points"]));
    }
}
