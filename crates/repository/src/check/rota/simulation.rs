//! Years of sessions, made up: is everything read within its period, whatever comes, goes and fails
//! to happen? And when there is too little time for that, is it told, and does everything have its
//! turn all the same? Only who is chosen is asked here; no pack is read.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::check::CheckReport;

const DAY: i64 = 86_400;

/// Everything is to be read within so many days; there is a session each day.
const WITHIN: i64 = 30;

/// What is due in a session: a plan leaves a quarter of the period (`How::planned`).
const OLDER_THAN: Duration = Duration::from_secs(86_400 * 30 * 3 / 4);

const DAYS: i64 = 2 * 365;

/// How a repository lives.
#[derive(Debug, Clone)]
struct Life {
    seed: u64,
    /// Packs that are there in the beginning.
    first: u64,
    /// Packs that come each day at most.
    added: u64,
    /// Of a hundred packs so many go each day.
    removed: u64,
    /// Of a hundred packs so many are replaced by others on one day in ten.
    repacked: u64,
    /// Of a hundred sessions so many do not happen.
    missed: u64,
}

fn lives() -> impl Strategy<Value = Life> {
    let rates = (1..120_u64, 0..6_u64, 0..3_u64, 0..15_u64, 0..25_u64);
    (any::<u64>(), rates).prop_map(|(seed, (first, added, removed, repacked, missed))| Life {
        seed: seed | 1,
        first,
        added,
        removed,
        repacked,
        missed,
    })
}

/// What happens before the session of a day, and whether there is one.
#[derive(Debug, Default)]
struct Day {
    added: Vec<(PackId, u64)>,
    removed: Vec<PackId>,
    is_missed: bool,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }

    /// Packs of a share of a hundred.
    fn some(&mut self, of: &BTreeMap<PackId, u64>, share: u64) -> Vec<PackId> {
        of.keys().filter(|_| self.below(100) < share).copied().collect()
    }
}

impl Life {
    fn days(&self) -> Vec<Day> {
        let (mut dice, mut number) = (Dice(self.seed), 0_u64);
        let mut there = BTreeMap::new();
        let mut days = Vec::new();
        for day in 0..DAYS {
            let mut removed = dice.some(&there, self.removed);
            there.retain(|pack, _| !removed.contains(pack));
            let mut count = if day == 0 { self.first } else { dice.below(self.added + 1) };
            if day % 10 == 9 {
                let replaced = dice.some(&there, self.repacked);
                there.retain(|pack, _| !replaced.contains(pack));
                count += replaced.len() as u64;
                removed.extend(replaced);
            }
            let mut added = Vec::new();
            for _ in 0..count {
                number += 1;
                added.push((PackId::of(&number.to_le_bytes()), 1 + dice.below(8)));
            }
            there.extend(added.iter().copied());
            days.push(Day { added, removed, is_missed: dice.below(100) < self.missed });
        }
        days
    }
}

/// What a session must read so that all is read within the period: what is there, and what comes
/// meanwhile, shared among the sessions that there are.
fn enough(days: &[Day]) -> u64 {
    let period = usize::try_from(WITHIN).unwrap();
    let sizes: BTreeMap<PackId, u64> = days.iter().flat_map(|day| day.added.clone()).collect();
    let (mut there, mut most) = (0, 0);
    for (n, day) in days.iter().enumerate() {
        let bytes = |packs: &[(PackId, u64)]| packs.iter().map(|(_, bytes)| bytes).sum::<u64>();
        there += bytes(&day.added);
        there -= day.removed.iter().map(|pack| sizes[pack]).sum::<u64>();
        let lately = &days[n.saturating_sub(period)..n];
        let missed = lately.iter().filter(|day| day.is_missed).count();
        let work = there + lately.iter().map(|day| bytes(&day.added)).sum::<u64>();
        most = most.max(work.div_ceil((period - missed) as u64));
    }
    most
}

/// A pack that is there.
#[derive(Debug, Clone, Copy)]
struct Pack {
    bytes: u64,
    /// When it came, or was read.
    since: i64,
    /// When a session saw it first, or it was read.
    seen: Option<i64>,
    /// What was there when it began to wait: no more can be before it.
    ahead: u64,
    /// Sessions since its turn could have come.
    sessions: u64,
}

/// A session, as it went.
struct Session<'a> {
    now: i64,
    /// Before it.
    packs: &'a BTreeMap<PackId, Pack>,
    read: &'a HashSet<PackId>,
    told: &'a InTurn,
}

/// Lives through all days; each session reads so much, and begins no more then.
fn live(days: &[Day], each: u64, mut look: impl FnMut(&Session<'_>)) {
    let mut packs: BTreeMap<PackId, Pack> = BTreeMap::new();
    let mut verified = Verified::default();
    for (now, day) in (0..).step_by(86_400).zip(days) {
        packs.retain(|pack, _| !day.removed.contains(pack));
        for &(pack, bytes) in &day.added {
            packs.insert(pack, Pack { bytes, since: now, seen: None, ahead: 0, sessions: 0 });
        }
        if day.is_missed {
            continue;
        }
        let total = packs.values().map(|pack| pack.bytes).sum();
        for pack in packs.values_mut().filter(|pack| pack.seen.is_none()) {
            (pack.seen, pack.ahead) = (Some(now), total);
        }
        let all: Vec<(PackId, u64)> = packs.iter().map(|(id, pack)| (*id, pack.bytes)).collect();
        let rota = Rota { verified, older_than: OLDER_THAN, budget: None, now };
        let due = rota.due(all.clone());
        due.iter().for_each(|(id, _)| packs.get_mut(id).unwrap().sessions += 1);
        let (mut read, mut used) = (HashSet::new(), 0);
        for (pack, bytes) in due {
            if used >= each {
                break;
            }
            read.insert(pack);
            used += bytes;
        }
        let sound_packs = read.iter().copied().collect();
        let mut report = CheckReport { sound_packs, ..CheckReport::default() };
        let told = rota.sum_up(&all, &report);
        look(&Session { now, packs: &packs, read: &read, told: &told });
        report.in_turn = Some(told);
        let news = Verified::of(&report, &rota.verified, now);
        verified = rota.verified;
        verified.learn(&news, |pack| packs.contains_key(pack));
        for pack in &read {
            let pack = packs.get_mut(pack).unwrap();
            *pack = Pack { since: now, seen: Some(now), ahead: total, sessions: 0, ..*pack };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn with_enough_time_everything_is_read_within_its_period(life in lives()) {
        let days = life.days();
        let each = enough(&days);
        live(&days, each, |session| {
            for (id, pack) in session.packs {
                let days = (session.now - pack.since) / DAY;
                assert!(days <= WITHIN + 1, "{id} waits for {days} days, {each} each session");
            }
        });
    }

    #[test]
    fn with_too_little_time_it_is_told_and_everything_has_its_turn(
        life in lives(),
        parts in 2..6_u64,
    ) {
        let days = life.days();
        let each = (enough(&days) / parts).max(1);
        live(&days, each, |session| {
            let unread = || session.packs.iter().filter(|(id, _)| !session.read.contains(id));
            // Who waits longest goes first.
            let last = session.read.iter().map(|id| session.packs[id].seen).max().flatten();
            for (id, pack) in unread().filter(|(_, pack)| pack.sessions > 0) {
                assert!(pack.seen >= last, "{id} since {:?}, and one since {last:?} read", pack.seen);
            }
            // None waits for more than what was there before it, whatever else has come.
            for (id, pack) in unread() {
                assert!(pack.sessions * each <= pack.ahead, "{id}: {pack:?}");
            }
            // What `plan check` compares with the speed, before anything is late, ...
            let bytes: u64 = session.packs.values().map(|pack| pack.bytes).sum();
            assert_eq!(session.told.bytes, bytes);
            // ... and what `status` calls overdue, as soon as anything is.
            let late = session.now - WITHIN * DAY;
            if unread().any(|(_, pack)| pack.seen.is_some_and(|seen| seen < late)) {
                let is_told = session.told.never_read > 0
                    || session.told.oldest.is_some_and(|oldest| oldest < late);
                assert!(is_told, "{:?}", session.told);
            }
        });
    }
}

#[test]
fn what_is_late_is_told_on_the_day() {
    let life = Life { seed: 1, first: 100, added: 0, removed: 0, repacked: 0, missed: 0 };
    let mut told_on = Vec::new();
    live(&life.days(), 1, |session| {
        let late = session.now - WITHIN * DAY;
        if session.told.never_read == 0 && session.told.oldest.is_some_and(|oldest| oldest < late) {
            told_on.push(session.now / DAY);
        }
    });
    // A hundred sessions read everything once; by then the first of them was long ago.
    assert_eq!((told_on[0], told_on.len()), (99, usize::try_from(DAYS).unwrap() - 99));
}
