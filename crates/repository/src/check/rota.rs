//! Reading all data back in turn: what was verified when, and whose turn is next.
//!
//! A random sample cannot promise that everything is ever looked at. This can: each check takes
//! the packs that have waited longest, until its time is over: those never read back since a check
//! first saw them, others since they were read. When `N` bytes wait and a check reads `n` of them,
//! all of these have been read after `N / n` checks, however much is new by then; were what is new
//! taken first, a repository that grows fast would never have the old read again.
//!
//! The record is a file on the machine that checks. Only what was found *sound* counts as read, it
//! is not evidence for anybody else, and when it is lost everything is due again.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use super::{CheckReport, InTurn};
use crate::id::PackId;

/// Ends the line of a pack that could not be read.
const ARCHIVED: &str = "archived";

/// Ends the line of a pack that was seen, and not found sound.
const WAITS: &str = "waits";

#[cfg(test)]
mod simulation;

/// When packs were last read back whole and found sound, in Unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    at: BTreeMap<PackId, i64>,
    /// When packs were last found to be archived. What was read since is not among them.
    archived: BTreeMap<PackId, i64>,
    /// Since when packs wait that were never found sound, or were damaged when their turn came last.
    waits: BTreeMap<PackId, i64>,
}

impl Verified {
    /// What a check tells that was begun with the record `before` and ended `now`: what it read, and
    /// what it saw for the first time.
    #[must_use]
    pub fn of(report: &CheckReport, before: &Self, now: i64) -> Self {
        let mut told = Self::default();
        report.sound_packs.iter().for_each(|pack| told.note(*pack, now));
        report.archived_packs.iter().for_each(|pack| told.note_archived(*pack, now));
        // They had their turn, and stay due.
        report.broken_packs().for_each(|pack| told.note_waiting(pack, now));
        for pack in report.in_turn.iter().flat_map(|turn| &turn.packs) {
            if before.turn(pack).is_none() && told.turn(pack).is_none() {
                told.note_waiting(*pack, now);
            }
        }
        told
    }

    /// Reads a record: a line `ID SECONDS` for each pack, one `ID SECONDS archived` for each that
    /// could not be read then, and one `ID SECONDS waits` for each that was not found sound. No file is an empty record, and so is a line that cannot be
    /// understood: what it told of is due.
    ///
    /// # Errors
    /// Fails when the file exists and cannot be read.
    pub fn read(file: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let mut verified = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (id, seconds, into) = match words[..] {
                [id, seconds] => (id, seconds, &mut verified.at),
                [id, seconds, ARCHIVED] => (id, seconds, &mut verified.archived),
                [id, seconds, WAITS] => (id, seconds, &mut verified.waits),
                _ => continue,
            };
            into.extend(PackId::parse(id).zip(seconds.parse().ok()));
        }
        Ok(verified)
    }

    /// Adds to the record in `file` what was verified since it was read, and forgets packs that
    /// are not `there` any more. Somebody else's additions are kept.
    ///
    /// # Errors
    /// Fails when the file cannot be written; the record is as it was then.
    pub fn write(&self, file: &Path, there: impl Fn(&PackId) -> bool) -> io::Result<()> {
        let mut all = Self::read(file)?;
        all.learn(self, there);
        let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(folder)?;
        let temporary = file.with_extension(format!("tmp-{}", std::process::id()));
        let mut out = io::BufWriter::new(
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?,
        );
        for (pack, at) in &all.at {
            writeln!(out, "{pack} {at}")?;
        }
        for (pack, at) in &all.archived {
            writeln!(out, "{pack} {at} {ARCHIVED}")?;
        }
        for (pack, since) in &all.waits {
            writeln!(out, "{pack} {since} {WAITS}")?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, file)
    }

    /// Adds what another record tells, and forgets packs that are not `there` any more.
    fn learn(&mut self, news: &Self, there: impl Fn(&PackId) -> bool) {
        news.archived.iter().for_each(|(&pack, &at)| self.note_archived(pack, at));
        news.waits.iter().for_each(|(&pack, &since)| self.note_waiting(pack, since));
        news.at.iter().for_each(|(&pack, &at)| self.note(pack, at));
        for times in [&mut self.at, &mut self.archived, &mut self.waits] {
            times.retain(|pack, _| there(pack));
        }
    }

    /// Notes that a pack was found sound at a moment; the latest one counts.
    pub fn note(&mut self, pack: PackId, at: i64) {
        let last = self.at.entry(pack).or_insert(at);
        *last = at.max(*last);
        for times in [&mut self.archived, &mut self.waits] {
            if times.get(&pack).is_some_and(|time| *time <= at) {
                times.remove(&pack);
            }
        }
    }

    /// Notes that a pack waits since a moment, and was not found sound then.
    fn note_waiting(&mut self, pack: PackId, since: i64) {
        let last = self.waits.entry(pack).or_insert(since);
        *last = since.max(*last);
        if self.at.get(&pack).is_some_and(|at| *at <= since) {
            self.at.remove(&pack);
        }
    }

    /// Notes that a pack could not be read at a moment, since it is archived.
    pub fn note_archived(&mut self, pack: PackId, at: i64) {
        let last = self.archived.entry(pack).or_insert(at);
        *last = at.max(*last);
    }

    /// Whether a pack was archived when its turn came last.
    #[must_use]
    pub fn was_archived(&self, pack: &PackId) -> bool {
        self.archived.contains_key(pack)
    }

    /// When a pack had its turn: it was found sound then, or archived or damaged; or when it was
    /// first seen.
    fn turn(&self, pack: &PackId) -> Option<i64> {
        let of = |times: &BTreeMap<PackId, i64>| times.get(pack).copied();
        of(&self.at).max(of(&self.archived)).max(of(&self.waits))
    }

    /// When a pack was last found sound.
    #[must_use]
    pub fn at(&self, pack: &PackId) -> Option<i64> {
        self.at.get(pack).copied()
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Default)]
pub struct Rota {
    /// What was verified when.
    pub verified: Verified,
    /// Packs that were verified less long ago than this are not due.
    pub older_than: Duration,
    /// For how long packs are read; without an end when there is none.
    pub budget: Option<Duration>,
    /// The time, in Unix seconds.
    pub now: i64,
}

impl Rota {
    /// What the record and this check together say of `packs`.
    pub(super) fn sum_up(&self, packs: &[(PackId, u64)], report: &CheckReport) -> InTurn {
        let sound: HashSet<&PackId> = report.sound_packs.iter().collect();
        let broken: HashSet<PackId> = report.broken_packs().collect();
        let mut sum = InTurn::default();
        for (pack, bytes) in packs.iter().filter(|(pack, _)| !broken.contains(pack)) {
            sum.packs.push(*pack);
            sum.bytes += bytes;
            let at = match sound.contains(pack) {
                true => Some(self.now),
                false => self.verified.at(pack).filter(|at| *at <= self.now),
            };
            match at {
                Some(at) => sum.oldest = Some(sum.oldest.map_or(at, |oldest| oldest.min(at))),
                None => sum.never_read += 1,
            }
        }
        sum
    }

    /// The packs that are due, in the order of their turn.
    #[must_use]
    pub(super) fn due(&self, packs: Vec<(PackId, u64)>) -> Vec<(PackId, u64)> {
        let older_than = i64::try_from(self.older_than.as_secs()).unwrap_or(i64::MAX);
        // A record from the future tells of a clock that was wrong: it is no proof.
        let is_due = |at: i64| at > self.now || self.now.saturating_sub(at) >= older_than;
        let mut due = packs;
        due.retain(|(pack, _)| self.verified.at(pack).is_none_or(is_due));
        // What was archived or damaged had its turn all the same, or it would stand first for ever.
        due.sort_by_cached_key(|(pack, _)| {
            let since = self.verified.turn(pack).map_or(self.now, |turn| turn.min(self.now));
            let was_read = self.verified.at(pack).is_some();
            (since, self.verified.was_archived(pack), was_read, *pack)
        });
        due
    }
}

/// In which order packs are read, and until when.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// All of them, the largest first: so no worker is left alone with one at the end.
    LargestFirst,
    /// As they are given; when the budget is used up none is begun any more, but one is always read.
    AsGiven { began: Instant, budget: Option<Duration> },
}

impl Order {
    /// Whether the time is over. What was `refused`, to learn that packs are archived, is not counted
    /// as time for reading, as long as it is no more than that: else a run would have no end.
    pub(super) fn is_over(self, refused: Duration) -> bool {
        match self {
            Self::AsGiven { began, budget: Some(budget) } => {
                began.elapsed() >= budget + refused.min(budget)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn pack(n: u8) -> PackId {
        PackId::of(&[n])
    }

    fn verified(all: &[(u8, i64)]) -> Verified {
        let mut verified = Verified::default();
        all.iter().for_each(|&(n, at)| verified.note(pack(n), at));
        verified
    }

    #[test]
    fn the_longest_unseen_comes_first() {
        let verified = verified(&[(1, 50 * DAY), (2, 10 * DAY), (3, 99 * DAY), (5, 200 * DAY)]);
        let older_than = Duration::from_secs(30 * 86_400);
        let rota = Rota { verified, older_than, now: 100 * DAY, ..Rota::default() };
        let packs = (1..=5).map(|n| (pack(n), 10)).collect();
        let due: Vec<PackId> = rota.due(packs).into_iter().map(|(pack, _)| pack).collect();
        // 4 was never seen, 3 was seen yesterday, 5 in the future.
        assert_eq!(due, [2, 1, 4, 5].map(pack));
    }

    #[test]
    fn what_was_archived_waits_for_its_next_turn() {
        let mut verified = verified(&[(1, 10), (2, 30)]);
        verified.note_archived(pack(3), 20);
        verified.note_archived(pack(4), 30);
        let rota = Rota { verified, now: 100, ..Rota::default() };
        let packs = (1..=5).map(|n| (pack(n), 10)).collect();
        let due: Vec<PackId> = rota.due(packs).into_iter().map(|(pack, _)| pack).collect();
        assert_eq!(due, [1, 3, 2, 4, 5].map(pack));
    }

    #[test]
    fn being_refused_uses_up_no_time_for_reading_but_has_an_end() {
        let hour = Duration::from_secs(3600);
        let check = |passed: u32, refused: u32, expected: bool| {
            let began = Instant::now().checked_sub(hour * passed).unwrap();
            let order = Order::AsGiven { began, budget: Some(hour * 2) };
            assert_eq!(order.is_over(hour * refused), expected, "{passed} {refused}");
        };
        check(1, 0, false);
        check(2, 0, true);
        check(2, 1, false);
        check(3, 1, true);
        check(4, 9, true);
    }

    #[test]
    fn the_record_survives_and_forgets_what_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/verified");
        assert_eq!(Verified::read(&file).unwrap(), Verified::default());
        verified(&[(1, 5), (2, 6)]).write(&file, |_| true).unwrap();
        // Somebody else's reading of another pack, and an older one of the same.
        verified(&[(2, 4), (3, 9)]).write(&file, |id| *id != pack(1)).unwrap();
        assert_eq!(Verified::read(&file).unwrap(), verified(&[(2, 6), (3, 9)]));
        let mut archived = Verified::default();
        [2, 4].iter().for_each(|&n| archived.note_archived(pack(n), 10));
        archived.write(&file, |_| true).unwrap();
        let read = Verified::read(&file).unwrap();
        assert_eq!([2, 3, 4].map(|n| read.was_archived(&pack(n))), [true, false, true]);
        assert_eq!([2, 3, 4].map(|n| read.at(&pack(n))), [Some(6), Some(9), None]);
        verified(&[(4, 11)]).write(&file, |_| true).unwrap();
        assert!(!Verified::read(&file).unwrap().was_archived(&pack(4)));
        // What was damaged is due again, and takes its next turn; what was never read keeps its first.
        let mut waiting = Verified::default();
        [(3, 12), (6, 12)].iter().for_each(|&(n, since)| waiting.note_waiting(pack(n), since));
        waiting.write(&file, |_| true).unwrap();
        let read = Verified::read(&file).unwrap();
        assert_eq!([3, 6].map(|n| (read.at(&pack(n)), read.turn(&pack(n)))), [(None, Some(12)); 2]);
        verified(&[(6, 13)]).write(&file, |_| true).unwrap();
        let read = Verified::read(&file).unwrap();
        assert_eq!((read.at(&pack(6)), read.waits.contains_key(&pack(6))), (Some(13), false));
        fs::write(&file, "nonsense\nabc 12\n").unwrap();
        assert_eq!(Verified::read(&file).unwrap(), Verified::default());
    }
}
