//! Which snapshots a retention policy keeps: restic's policy words, with restic's meaning, and
//! what restic lacks: good points never go on the strength of bad ones.
//!
//! Within a group, newest first, each rule (`hourly`, `weekly` …) keeps the newest snapshot of
//! each of its periods until its count is used up; while counts are left, the oldest snapshot of
//! all is kept too. Rules `within` a duration count back from the newest snapshot, never from
//! now: when backups stop, nothing expires. Periods are those of the calendar where the snapshot
//! was made, by the offset that it records.
//!
//! Two additions:
//!
//! - **Unsound** snapshots (partial, suspect) are not counted: a rule that wants seven days gets
//!   seven days of sound ones. An unsound one itself stays as long as restic would keep it.
//! - **Protected** snapshots stay whatever the policy says, each with its reason: the last proven
//!   one, those under a legal hold. Who is protected is decided by who knows; it comes in as an
//!   argument.
//!
//! # Source
//! restic, `internal/data/snapshot_policy.go`, `duration.go`.

use std::{cmp::Reverse, collections::BTreeMap, str::FromStr};

use jiff::{Span, Timestamp, civil, tz::Offset};
pub use muster_model::Within;

/// How many snapshots a rule keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// At most so many.
    AtMost(u32),
    /// All that are the newest of their period.
    Unlimited,
}

impl Default for Count {
    fn default() -> Self {
        Self::AtMost(0)
    }
}

impl Count {
    fn is_used_up(self) -> bool {
        self == Self::AtMost(0)
    }

    fn use_one(&mut self) {
        if let Self::AtMost(left) = self {
            *left = left.saturating_sub(1);
        }
    }
}

impl FromStr for Count {
    type Err = String;

    /// Reads a number, or `unlimited`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            _ => text
                .parse()
                .map(Self::AtMost)
                .map_err(|_| "write a number, or 'unlimited'".to_owned()),
        }
    }
}

/// What to keep of each group, in restic's words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The newest.
    pub last: Count,
    /// The newest of each hour.
    pub hourly: Count,
    /// The newest of each day.
    pub daily: Count,
    /// The newest of each ISO week.
    pub weekly: Count,
    /// The newest of each month.
    pub monthly: Count,
    /// The newest of each year.
    pub yearly: Count,
    /// All that are newer than this before the newest.
    pub within: Within,
    /// Hourly ones within this.
    pub within_hourly: Within,
    /// Daily ones within this.
    pub within_daily: Within,
    /// Weekly ones within this.
    pub within_weekly: Within,
    /// Monthly ones within this.
    pub within_monthly: Within,
    /// Yearly ones within this.
    pub within_yearly: Within,
    /// All that have every tag of one of these lists.
    pub tags: Vec<Vec<String>>,
}

impl Policy {
    /// Whether nothing was asked to be kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn rules(&self) -> [(Count, Period); 6] {
        [
            (self.last, Period::Each),
            (self.hourly, Period::Hour),
            (self.daily, Period::Day),
            (self.weekly, Period::Week),
            (self.monthly, Period::Month),
            (self.yearly, Period::Year),
        ]
    }

    fn rules_within(&self) -> [(Within, Period); 5] {
        [
            (self.within_hourly, Period::Hour),
            (self.within_daily, Period::Day),
            (self.within_weekly, Period::Week),
            (self.within_monthly, Period::Month),
            (self.within_yearly, Period::Year),
        ]
    }
}

/// When a snapshot was made, and by which clock on the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The instant.
    pub at: Timestamp,
    /// The offset from UTC that was recorded with it.
    pub offset: Offset,
}

impl Moment {
    fn local(self) -> civil::DateTime {
        self.offset.to_datetime(self.at)
    }
}

/// A snapshot, as far as retention looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<Id> {
    /// Its id; also breaks ties of time.
    pub id: Id,
    /// When it was made.
    pub time: Moment,
    /// Its tags, for [`Policy::tags`].
    pub tags: Vec<String>,
    /// Why it is not to be relied upon, if so: `partial`, `suspect`.
    pub unsound: Option<String>,
}

/// What shall happen to the snapshots of one group; newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal<Id> {
    /// What stays, and why.
    pub keep: Vec<Kept<Id>>,
    /// What goes.
    pub remove: Vec<Id>,
}

/// A snapshot that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<Id> {
    /// The snapshot.
    pub id: Id,
    /// The rules that keep it, in restic's words; then why it is protected.
    pub reasons: Vec<String>,
}

/// Applies a policy to the snapshots of one group. An empty policy keeps only what is protected:
/// whether that may be is for the caller to say.
///
/// `now` only says which snapshots are in the future: durations do not count back from those.
#[must_use]
pub fn apply<Id: Ord + Clone>(
    group: &[Candidate<Id>],
    policy: &Policy,
    protected: &BTreeMap<Id, Vec<String>>,
    now: Timestamp,
) -> Proposal<Id> {
    let mut newest_first: Vec<&Candidate<Id>> = group.iter().collect();
    newest_first.sort_by_key(|candidate| Reverse((candidate.time.at, candidate.id.clone())));
    let sound: Vec<&Candidate<Id>> =
        newest_first.iter().copied().filter(|candidate| candidate.unsound.is_none()).collect();
    let kept_sound = kept_by_rules(&sound, policy, now);
    let kept_among_all = kept_by_rules(&newest_first, policy, now);
    let mut proposal = Proposal { keep: Vec::new(), remove: Vec::new() };
    for candidate in newest_first {
        let kept = match candidate.unsound {
            None => &kept_sound,
            Some(_) => &kept_among_all,
        };
        let mut reasons = kept.get(&candidate.id).cloned().unwrap_or_default();
        if let Some(unsound) = &candidate.unsound
            && !reasons.is_empty()
        {
            reasons.push(format!("{unsound}, not counted"));
        }
        reasons.extend(protected.get(&candidate.id).into_iter().flatten().cloned());
        let id = candidate.id.clone();
        match reasons.is_empty() {
            true => proposal.remove.push(id),
            false => proposal.keep.push(Kept { id, reasons }),
        }
    }
    proposal
}

/// The moment `within` before `latest`, by the calendar where that was made. As in Go, a day
/// that a month does not have runs over into the next.
fn before(within: Within, latest: Moment) -> Option<Timestamp> {
    let local = latest.local();
    let months = i64::from(local.year()) * 12 + i64::from(local.month())
        - 1
        - i64::from(within.years) * 12
        - i64::from(within.months);
    let year = i16::try_from(months.div_euclid(12)).ok()?;
    let month = i8::try_from(months.rem_euclid(12) + 1).ok()?;
    let first = civil::Date::new(year, month, 1).ok()?.to_datetime(local.time());
    let days = i64::from(local.day()) - 1 - i64::from(within.days);
    let moved = first.checked_add(Span::new().try_days(days).ok()?).ok()?;
    let moved = latest.offset.to_timestamp(moved).ok()?;
    moved.checked_sub(Span::new().try_hours(i64::from(within.hours)).ok()?).ok()
}

/// A period of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Each,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    fn word(self) -> &'static str {
        match self {
            Self::Each => "last",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// A number that two moments share when they are in the same period.
    fn of(self, time: Moment, position: usize) -> i64 {
        let local = time.local();
        let (year, month) = (i64::from(local.year()), i64::from(local.month()));
        let (day, hour) = (i64::from(local.day()), i64::from(local.hour()));
        match self {
            Self::Each => i64::try_from(position).unwrap_or(i64::MAX),
            Self::Hour => ((year * 100 + month) * 100 + day) * 100 + hour,
            Self::Day => (year * 100 + month) * 100 + day,
            Self::Week => {
                let week = local.date().iso_week_date();
                i64::from(week.year()) * 100 + i64::from(week.week())
            }
            Self::Month => year * 100 + month,
            Self::Year => year,
        }
    }
}

/// What a rule remembers while it goes back in time.
struct Rule<Limit> {
    limit: Limit,
    period: Period,
    last: Option<i64>,
}

impl<Limit> Rule<Limit> {
    fn new((limit, period): (Limit, Period)) -> Self {
        Self { limit, period, last: None }
    }

    /// Whether the rule wants this snapshot, and what it says for a reason.
    fn wants(&mut self, time: Moment, position: usize, is_oldest: bool) -> Option<&'static str> {
        let period = self.period.of(time, position);
        let is_new = self.last != Some(period);
        self.last = Some(period);
        match (is_new, is_oldest) {
            (true, _) => Some(""),
            (false, true) => Some("oldest "),
            (false, false) => None,
        }
    }
}

/// The reasons to keep each of `newest_first`; those without any are not in the map.
fn kept_by_rules<Id: Ord + Clone>(
    newest_first: &[&Candidate<Id>],
    policy: &Policy,
    now: Timestamp,
) -> BTreeMap<Id, Vec<String>> {
    let past = newest_first.iter().map(|candidate| candidate.time).find(|time| time.at < now);
    // `Some(None)` is the beginning of time: everything is newer.
    let limit = |within: Within| {
        (!within.is_zero()).then(|| past.and_then(|latest| before(within, latest)))
    };
    let is_newer = |time: Moment, than: Option<Timestamp>| than.is_none_or(|than| time.at > than);
    let mut rules = policy.rules().map(Rule::new);
    let mut rules_within = policy.rules_within().map(Rule::new);
    let mut kept = BTreeMap::new();
    for (position, candidate) in newest_first.iter().enumerate() {
        let (time, is_oldest) = (candidate.time, position + 1 == newest_first.len());
        let mut reasons = Vec::new();
        for list in &policy.tags {
            if has_tags(&candidate.tags, list) {
                reasons.push(format!("has tags [{}]", list.join(", ")));
            }
        }
        if let Some(limit) = limit(policy.within)
            && is_newer(time, limit)
        {
            reasons.push(format!("within {}", policy.within));
        }
        for rule in rules.iter_mut().filter(|rule| !rule.limit.is_used_up()) {
            if let Some(which) = rule.wants(time, position, is_oldest) {
                rule.limit.use_one();
                reasons.push(format!("{which}{} snapshot", rule.period.word()));
            }
        }
        for rule in &mut rules_within {
            if let Some(than) = limit(rule.limit)
                && is_newer(time, than)
                && let Some(which) = rule.wants(time, position, is_oldest)
            {
                reasons.push(format!("{which}{} within {}", rule.period.word(), rule.limit));
            }
        }
        if !reasons.is_empty() {
            kept.insert(candidate.id.clone(), reasons);
        }
    }
    kept
}

/// Whether a snapshot has all tags of a list; a list of one empty word means no tags at all.
fn has_tags(tags: &[String], list: &[String]) -> bool {
    match list {
        [only] if only.is_empty() => tags.is_empty(),
        _ => list.iter().all(|wanted| tags.contains(wanted)),
    }
}

#[cfg(test)]
mod tests;
