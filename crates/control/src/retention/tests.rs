//! Cases in which calendars, ties and bad snapshots matter.

use super::*;

/// A candidate `2024-03-31T01:30:00+01:00`, with its tags; `!` before it means unsound.
fn candidate(id: usize, text: &str) -> Candidate<usize> {
    let (unsound, text) = match text.strip_prefix('!') {
        Some(text) => (Some("partial".to_owned()), text),
        None => (None, text),
    };
    let mut words = text.split_whitespace();
    let time = words.next().unwrap();
    let at: Timestamp = time.parse().unwrap();
    let offset = match time.rsplit_once(['+', '-']).filter(|_| !time.ends_with('Z')) {
        Some((before, offset)) => {
            let (hours, minutes) = offset.split_once(':').unwrap();
            let seconds =
                hours.parse::<i32>().unwrap() * 3600 + minutes.parse::<i32>().unwrap() * 60;
            let is_west = time.as_bytes()[before.len()] == b'-';
            Offset::from_seconds(if is_west { -seconds } else { seconds }).unwrap()
        }
        None => Offset::UTC,
    };
    let tags = words.map(str::to_owned).collect();
    Candidate { id, time: Moment { at, offset }, tags, unsound }
}

fn group(times: &[&str]) -> Vec<Candidate<usize>> {
    times.iter().enumerate().map(|(id, text)| candidate(id, text)).collect()
}

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

/// Which of `times` stay, by their positions.
#[track_caller]
fn check(policy: &Policy, times: &[&str], expected: &[usize]) -> Proposal<usize> {
    let proposal = apply(&group(times), policy, &BTreeMap::new(), now());
    let mut kept: Vec<usize> = proposal.keep.iter().map(|kept| kept.id).collect();
    kept.sort_unstable();
    assert_eq!(kept, expected, "{proposal:#?}");
    proposal
}

fn daily(count: u32) -> Policy {
    Policy { daily: Count::AtMost(count), ..Policy::default() }
}

#[test]
fn the_newest_of_each_day_stays() {
    let times = ["2024-05-01T01:00:00Z", "2024-05-01T23:00:00Z", "2024-05-02T00:00:00Z"];
    check(&daily(1), &times, &[2]);
    check(&daily(2), &times, &[1, 2]);
    let proposal = check(&daily(3), &times, &[0, 1, 2]);
    assert_eq!(proposal.keep[2].reasons, ["oldest daily snapshot"]);
}

#[test]
fn days_are_those_of_the_place_where_the_snapshot_was_made() {
    // 23:30 in Berlin is the next day in Tokyo: each is asked by its own calendar.
    let times = ["2024-05-01T23:30:00+02:00", "2024-05-02T07:30:00+09:00"];
    check(&daily(1), &times, &[1]);
    check(&daily(2), &times, &[0, 1]);
}

#[test]
fn a_change_of_the_clocks_makes_no_day_longer_and_no_hour_vanish() {
    let hourly = Policy { hourly: Count::AtMost(9), ..Policy::default() };
    // Spring: 01:30 and then 03:30 are two hours. Autumn: 02:30 comes twice, and is one.
    check(&hourly, &["2024-03-31T01:30:00+01:00", "2024-03-31T03:30:00+02:00"], &[0, 1]);
    let autumn =
        ["2024-10-27T01:00:00+02:00", "2024-10-27T02:30:00+02:00", "2024-10-27T02:30:00+01:00"];
    check(&hourly, &autumn, &[0, 2]);
}

#[test]
fn weeks_are_iso_weeks() {
    let weekly = Policy { weekly: Count::AtMost(2), ..Policy::default() };
    // 30 December 2024 is in the first week of 2025.
    let times = ["2024-12-29T00:00:00Z", "2024-12-30T00:00:00Z", "2025-01-01T00:00:00Z"];
    check(&weekly, &times, &[0, 2]);
}

#[test]
fn equal_times_are_two_snapshots() {
    let times = ["2024-05-01T01:00:00Z", "2024-05-01T01:00:00Z", "2024-05-01T01:00:00Z"];
    check(&Policy { last: Count::AtMost(2), ..Policy::default() }, &times, &[1, 2]);
    check(&daily(1), &times, &[2]);
}

#[test]
fn durations_count_back_from_the_newest_by_the_calendar() {
    let within = |text: &str| Policy { within: text.parse().unwrap(), ..Policy::default() };
    let times = ["2024-02-28T12:00:00Z", "2024-03-01T12:00:00Z", "2024-03-31T12:00:00Z"];
    // A month before 31 March is "31 February", which is 2 March.
    check(&within("1m"), &times, &[2]);
    check(&within("1m1d1h"), &times, &[1, 2]);
    check(&within("30d"), &times, &[2]);
    check(&within("30d1h"), &times, &[1, 2]);
    check(&within("2y"), &times, &[0, 1, 2]);
    // The future is no point to count from.
    let times = ["2024-02-28T12:00:00Z", "2024-03-01T12:00:00Z", "2124-03-31T12:00:00Z"];
    check(&within("1d"), &times, &[1, 2]);
    for bad in ["1", "d", "1w", "-1d", "1d x"] {
        assert!(bad.parse::<Within>().is_err(), "{bad}");
    }
    assert_eq!("2h1y".parse::<Within>().unwrap().to_string(), "1y2h");
}

#[test]
fn tags_are_kept_without_counting() {
    let policy = Policy {
        last: Count::AtMost(1),
        tags: vec![vec!["a".to_owned(), "b".to_owned()], vec![String::new()]],
        ..Policy::default()
    };
    let times = [
        "2024-05-01T00:00:00Z a",
        "2024-05-02T00:00:00Z b a",
        "2024-05-03T00:00:00Z",
        "2024-05-04T00:00:00Z c",
    ];
    check(&policy, &times, &[1, 2, 3]);
}

#[test]
fn unsound_snapshots_take_no_sound_one_s_place() {
    let times = [
        "2024-05-01T00:00:00Z",
        "2024-05-02T00:00:00Z",
        "!2024-05-03T00:00:00Z",
        "2024-05-03T01:00:00Z",
        "!2024-05-03T02:00:00Z",
        "!2024-05-04T00:00:00Z",
    ];
    // Two days of sound ones; and of the others those that would stay if they counted.
    let proposal = check(&daily(2), &times, &[1, 3, 4, 5]);
    assert_eq!(proposal.keep[0].reasons, ["daily snapshot", "partial, not counted"]);
    check(&Policy { last: Count::AtMost(1), ..Policy::default() }, &times, &[3, 5]);
}

#[test]
fn the_protected_stay_whatever_the_policy_says() {
    let times = ["2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z", "2024-05-03T00:00:00Z"];
    let protected = BTreeMap::from([(0, vec!["last proven".to_owned()])]);
    let proposal = apply(&group(&times), &daily(1), &protected, now());
    assert_eq!(proposal.remove, [1]);
    assert_eq!(proposal.keep[1], Kept { id: 0, reasons: vec!["last proven".to_owned()] });
}

#[test]
fn sixty_days_without_backups_expire_nothing() {
    let times: Vec<String> = (1..=30).map(|day| format!("2024-05-{day:02}T00:00:00Z")).collect();
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    let policy = Policy { within: "7d".parse().unwrap(), ..daily(7) };
    let at = |text: &str| apply(&group(&times), &policy, &BTreeMap::new(), text.parse().unwrap());
    assert_eq!(at("2024-05-31T00:00:00Z"), at("2024-07-29T00:00:00Z"));
    assert_eq!(at("2024-07-29T00:00:00Z").keep.len(), 7);
}

#[test]
fn counts_are_numbers_or_unlimited() {
    assert_eq!("unlimited".parse(), Ok(Count::Unlimited));
    assert_eq!("7".parse(), Ok(Count::AtMost(7)));
    assert!("-1".parse::<Count>().is_err());
    let times = ["2024-05-01T00:00:00Z", "2024-05-01T01:00:00Z", "2024-06-02T00:00:00Z"];
    check(&Policy { monthly: Count::Unlimited, ..Policy::default() }, &times, &[0, 1, 2]);
}
