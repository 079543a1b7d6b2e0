//! Writing chunks so that they do not stay in the page cache, unless that takes much longer.
//!
//! What is restored is written once. Through the page cache it takes as much memory as there is and
//! pushes out what other programs read; and where a hypervisor gives memory page by page, each new
//! page costs more than all else that a restore does with it. `RWF_DONTCACHE` sends what was written to
//! the disk at once and gives its pages back, so that the same few are used again.
//!
//! Such a write waits for the disk when that is far behind, where the page cache takes more. So
//! both ways are timed, on whatever the disk and the memory are ([`Pace`]).
//!
//! # Source
//! `pwritev2(2)`; Linux, `include/uapi/linux/fs.h`: `RWF_DONTCACHE`. Who does not know it, the kernel or the
//! file system, refuses the call.

use std::{
    fs::File as OpenFile,
    io::{self, IoSlice},
    os::unix::fs::FileExt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::io::{Errno, ReadWriteFlags, pwritev2};

const RWF_DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// The page cache keeps pages whole: what shares a page with another chunk stays there, or the page would
/// have to be read again for the other.
const PAGE_BYTES: usize = 4096;

/// Less than this is not worth a request of its own to the disk, in bytes.
const WORTH_BYTES: usize = 64 << 10;

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Cached,
    Past,
}

/// What both ways took lately, and which is taken.
#[derive(Debug)]
pub(super) struct Pace {
    costs: Mutex<Costs>,
}

impl Pace {
    /// One that may write past the cache. Who reads the file again at once had better not.
    pub(super) fn new(may_write_past: bool) -> Self {
        let only_cached = !may_write_past;
        Self { costs: Mutex::new(Costs { only_cached, ..Costs::default() }) }
    }

    /// Writes all of `data` at a place in a file.
    ///
    /// # Errors
    /// As `pwrite(2)`.
    pub(super) fn write_all_at(&self, file: &OpenFile, data: &[u8], at: u64) -> io::Result<()> {
        let (head, pages) = data.split_at(bytes_to_page(at).min(data.len()));
        let (pages, tail) = pages.split_at(pages.len() - pages.len() % PAGE_BYTES);
        if pages.len() < WORTH_BYTES {
            return file.write_all_at(data, at);
        }
        let pages_at = at + head.len() as u64;
        file.write_all_at(head, at)?;
        self.write_pages(file, pages, pages_at)?;
        file.write_all_at(tail, pages_at + pages.len() as u64)
    }

    fn write_pages(&self, file: &OpenFile, pages: &[u8], at: u64) -> io::Result<()> {
        let (way, weight) = self.with_costs(Costs::choose);
        let begun = Instant::now();
        if way == Way::Cached {
            file.write_all_at(pages, at)?;
        } else if let Err(error) = write_all_by(past_cache(file), pages, at) {
            // Whatever it was, the other way does it or tells it. What no call does, none is tried for.
            let unknown = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL, Errno::PERM];
            self.with_costs(|costs| costs.only_cached |= unknown.contains(&error));
            return file.write_all_at(pages, at);
        }
        let taken = begun.elapsed();
        self.with_costs(|costs| costs.record(way, weight, pages.len(), taken));
        Ok(())
    }

    fn with_costs<T>(&self, with: impl FnOnce(&mut Costs) -> T) -> T {
        with(&mut self.costs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How many bytes there are from `at` to the next page of a file.
fn bytes_to_page(at: u64) -> usize {
    // The remainder is smaller than a page.
    let behind = usize::try_from(at % PAGE_BYTES as u64).unwrap_or(0);
    (PAGE_BYTES - behind) % PAGE_BYTES
}

/// Writes some of what it is given past the cache.
fn past_cache(file: &OpenFile) -> impl FnMut(&[u8], u64) -> Result<usize, Errno> {
    move |pages, at| pwritev2(file, &[IoSlice::new(pages)], at, RWF_DONTCACHE)
}

/// Writes all by calls each of which may write less.
fn write_all_by(
    mut write: impl FnMut(&[u8], u64) -> Result<usize, Errno>,
    mut pages: &[u8],
    mut at: u64,
) -> Result<(), Errno> {
    while !pages.is_empty() {
        match write(pages, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                pages = &pages[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Which way is taken next, by what the last writes took, in seconds for each byte.
#[derive(Debug, Default)]
struct Costs {
    cached: Option<f64>,
    past: Option<f64>,
    /// How many writes went the same way since the other was tried.
    since_other: u32,
    /// Whether nothing can or shall be written past the cache.
    only_cached: bool,
}

impl Costs {
    /// The way that is not taken is tried once in so many writes.
    const TRIED_EVERY: u32 = 64;

    /// The cache is left alone unless that takes more than so many times as long.
    const WORTH_TIMES: f64 = 2.0;

    /// How much the last write counts for the way that is taken.
    const WEIGHT: f64 = 0.125;

    /// One write counts as at most so many times what those before took: a pause of the machine is not
    /// what a way takes.
    const SAMPLE_TIMES: f64 = 4.0;

    /// The way, and how much what it will have taken counts.
    fn choose(&mut self) -> (Way, f64) {
        let (better, other) = match (self.past, self.cached) {
            _ if self.only_cached => return (Way::Cached, Self::WEIGHT),
            (None, _) => return (Way::Past, 1.0),
            (_, None) => return (Way::Cached, 1.0),
            (Some(past), Some(cached)) if past > Self::WORTH_TIMES * cached => {
                (Way::Cached, Way::Past)
            }
            _ => (Way::Past, Way::Cached),
        };
        self.since_other += 1;
        if self.since_other < Self::TRIED_EVERY {
            return (better, Self::WEIGHT);
        }
        self.since_other = 0;
        // What it took long ago says nothing.
        (other, 1.0)
    }

    fn record(&mut self, way: Way, weight: f64, bytes: usize, taken: Duration) {
        let cost = taken.as_secs_f64() / bytes.max(1) as f64;
        let mean = match way {
            Way::Cached => &mut self.cached,
            Way::Past => &mut self.past,
        };
        *mean = Some(
            mean.map_or(cost, |mean| mean + weight * (cost.min(Self::SAMPLE_TIMES * mean) - mean)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of some writes of 1 MiB go past the cache, on a disk and memory that take so many
    /// nanoseconds for each byte, cached and past, by how many were written before.
    fn count_past(writes: usize, costs: impl Fn(usize) -> (f64, f64)) -> usize {
        const BYTES: usize = 1 << 20;
        let mut pace = Costs::default();
        let mut past = 0;
        for write in 0..writes {
            let (way, weight) = pace.choose();
            let (through, around) = costs(write);
            let cost = if way == Way::Past { around } else { through };
            past += usize::from(way == Way::Past);
            pace.record(way, weight, BYTES, Duration::from_secs_f64(cost * BYTES as f64 * 1e-9));
        }
        past
    }

    #[test]
    fn the_cache_is_left_alone_unless_the_disk_is_slow() {
        let check = |costs: (f64, f64), expected: std::ops::RangeInclusive<usize>| {
            let past = count_past(1_000, |_| costs);
            assert!(expected.contains(&past), "{costs:?}: {past}");
        };
        // As quick; where new pages are dear; a disk of 100 MB/s; of 2 GB/s.
        check((0.2, 0.2), 970..=1_000);
        check((2.5, 0.2), 970..=1_000);
        check((0.2, 10.0), 0..=30);
        check((0.2, 0.5), 0..=30);
    }

    #[test]
    fn what_changes_is_noticed() {
        // Quick until the disk's queue is full; then the cache is, until it is full too.
        let filling = |write| match write {
            0..200 => (0.2, 0.2),
            200..1_000 => (0.2, 10.0),
            _ => (10.0, 10.0),
        };
        let [quick, slow, full] = [200, 1_000, 1_400].map(|writes| count_past(writes, filling));
        assert!(quick > 190, "{quick}");
        assert!(slow - quick < 40, "{}", slow - quick);
        assert!(full - slow > 300, "{}", full - slow);
    }

    #[test]
    fn a_pause_decides_nothing_for_long() {
        // The first write, which nothing can be compared with; some later one.
        for pause in [0, 1, 100] {
            let paused = |cost, write| if write == pause { 1_000.0 * cost } else { cost };
            let dear = |write| (paused(2.5, write), paused(0.2, write));
            let past = count_past(1_000, dear);
            assert!(past > 850, "{pause}: {past}");
            let slow = |write| (paused(0.2, write), paused(10.0, write));
            let past = count_past(1_000, slow);
            assert!(past < 150, "{pause}: {past}");
        }
    }

    #[test]
    fn without_the_flag_all_is_cached() {
        let mut pace = Costs { only_cached: true, ..Costs::default() };
        pace.record(Way::Cached, 1.0, 1, Duration::from_secs(1));
        assert!((0..200).all(|_| pace.choose().0 == Way::Cached));
    }

    #[test]
    fn whatever_lies_where_is_written_there() {
        let folder = tempfile::tempdir().unwrap();
        let data: Vec<u8> =
            (0..1 << 20).map(|at: u32| (at / 7 + at / 4096).to_le_bytes()[0]).collect();
        let ends = [0, 1, 4_096, 70_000, 139_264, 300_001, 300_002, 600_000, 1_000_000, data.len()];
        for (cached, past) in [(0.0, 1.0), (1.0, 0.0)] {
            let path = folder.path().join(format!("file-{cached}"));
            let file = std::fs::File::create_new(&path).unwrap();
            let pace = Pace::new(true);
            pace.with_costs(|costs| (costs.cached, costs.past) = (Some(cached), Some(past)));
            // From and to anywhere in a page.
            for part in ends.windows(2).rev() {
                pace.write_all_at(&file, &data[part[0]..part[1]], part[0] as u64).unwrap();
            }
            assert!(std::fs::read(&path).unwrap() == data, "{cached}");
        }
    }

    #[test]
    fn both_ways_are_tried() {
        let pace = Pace::new(true);
        for write in 0..2 {
            pace.write_all_at(&tempfile::tempfile().unwrap(), &[1; 1 << 20], write << 20).unwrap();
        }
        pace.with_costs(|costs| {
            assert!(costs.only_cached || costs.past.is_some() && costs.cached.is_some());
        });
    }

    #[test]
    fn calls_that_write_less_or_are_interrupted_go_on() {
        let data: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut written = vec![0; 10_000];
        let mut calls = 0;
        let write = |pages: &[u8], at: u64| {
            calls += 1;
            if calls % 3 == 0 {
                return Err(Errno::INTR);
            }
            let at = usize::try_from(at).unwrap();
            let some = pages.len().min(777);
            written[at..at + some].copy_from_slice(&pages[..some]);
            Ok(some)
        };
        write_all_by(write, &data, 0).unwrap();
        assert!(written == data);
        assert_eq!(write_all_by(|_, _| Ok(0), &data, 0), Err(Errno::IO));
        assert_eq!(write_all_by(|_, _| Err(Errno::NOSPC), &data, 0), Err(Errno::NOSPC));
    }

    #[test]
    fn an_error_is_told() {
        let read_only = std::fs::File::open("/dev/null").unwrap();
        let error = Pace::new(true).write_all_at(&read_only, &[1; 1 << 20], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()));
    }
}
