//! Writing chunks so that they do not stay in the page cache, where that is no slower.
//!
//! What is restored is written once. Through the page cache it takes as much memory as there is and
//! pushes out what other programs read; and where a hypervisor gives memory page by page, each new
//! page costs more than all else that a restore does with it. `RWF_DONTCACHE` sends what was written to
//! the disk at once and gives its pages back, so that the same few are used again.
//!
//! Such a write waits for the disk when that is far behind, where the page cache takes more. So
//! both ways are timed, on whatever the disk and the memory are, and the quicker is taken ([`Pace`]).
//!
//! # Source
//! `pwritev2(2)`; Linux, `include/uapi/linux/fs.h`: `RWF_DONTCACHE`, since Linux 6.14, of some file systems.

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
#[derive(Debug, Default)]
pub(super) struct Pace {
    costs: Mutex<Costs>,
}

impl Pace {
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
        let way = self.with_costs(Costs::choose);
        let begun = Instant::now();
        match way {
            Way::Cached => file.write_all_at(pages, at)?,
            Way::Past => match write_past(file, pages, at) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.with_costs(|costs| costs.is_past_unknown = true);
                    return file.write_all_at(pages, at);
                }
                result => result?,
            },
        }
        let taken = begun.elapsed();
        self.with_costs(|costs| costs.record(way, pages.len(), taken));
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

fn write_past(file: &OpenFile, mut pages: &[u8], mut at: u64) -> Result<(), Errno> {
    while !pages.is_empty() {
        match pwritev2(file, &[IoSlice::new(pages)], at, RWF_DONTCACHE) {
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

/// Which way is taken next, by what the last writes took.
#[derive(Debug, Default)]
struct Costs {
    cached: Option<f64>,
    past: Option<f64>,
    /// How many writes went the same way since the other was tried.
    since_other: u32,
    /// Whether the kernel or the file system cannot write past the cache.
    is_past_unknown: bool,
}

impl Costs {
    /// The way that is not the quicker one is tried once in so many writes.
    const TRIED_EVERY: u32 = 64;

    /// The cache is left alone unless that takes so many times as long.
    const WORTH_TIMES: f64 = 2.0;

    /// How much the last write counts.
    const WEIGHT: f64 = 0.125;

    fn choose(&mut self) -> Way {
        let (better, other) = match (self.past, self.cached) {
            _ if self.is_past_unknown => return Way::Cached,
            (None, _) => return Way::Past,
            (_, None) => return Way::Cached,
            (Some(past), Some(cached)) if past > Self::WORTH_TIMES * cached => {
                (Way::Cached, Way::Past)
            }
            _ => (Way::Past, Way::Cached),
        };
        self.since_other += 1;
        if self.since_other < Self::TRIED_EVERY {
            return better;
        }
        self.since_other = 0;
        other
    }

    fn record(&mut self, way: Way, bytes: usize, taken: Duration) {
        let cost = taken.as_secs_f64() / bytes.max(1) as f64;
        let mean = match way {
            Way::Cached => &mut self.cached,
            Way::Past => &mut self.past,
        };
        *mean = Some(mean.map_or(cost, |mean| mean + Self::WEIGHT * (cost - mean)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk and memory that take so many nanoseconds for each byte, by how many bytes were written.
    fn share_past(writes: usize, costs: impl Fn(usize) -> (f64, f64)) -> f64 {
        const BYTES: usize = 1 << 20;
        let mut pace = Costs::default();
        let mut past = 0;
        for write in 0..writes {
            let way = pace.choose();
            let (through, around) = costs(write);
            let cost = if way == Way::Past { around } else { through };
            past += usize::from(way == Way::Past);
            pace.record(way, BYTES, Duration::from_secs_f64(cost * BYTES as f64 * 1e-9));
        }
        past as f64 / writes as f64
    }

    #[test]
    fn the_cache_is_left_alone_unless_the_disk_is_slow() {
        let check = |costs: (f64, f64), expected: std::ops::RangeInclusive<f64>| {
            let share = share_past(1_000, |_| costs);
            assert!(expected.contains(&share), "{costs:?}: {share}");
        };
        // As quick; where new pages are dear; a disk of 100 MB/s; of 2 GB/s.
        check((0.2, 0.2), 0.97..=1.0);
        check((2.5, 0.2), 0.97..=1.0);
        check((0.2, 10.0), 0.0..=0.03);
        check((0.2, 0.5), 0.0..=0.03);
    }

    #[test]
    fn what_changes_is_noticed() {
        // Quick until the disk's queue is full; then the cache is, until it is full too.
        let filling = |write| match write {
            0..200 => (0.2, 0.2),
            200..1_000 => (0.2, 10.0),
            _ => (10.0, 10.0),
        };
        let share = |writes| share_past(writes, filling) * writes as f64;
        let (quick, slow, full) = (share(200), share(1_000), share(1_400));
        assert!(quick > 190.0, "{quick}");
        assert!(slow - quick < 40.0, "{}", slow - quick);
        assert!(full - slow > 300.0, "{}", full - slow);
    }

    #[test]
    fn without_the_flag_all_is_cached() {
        let mut pace = Costs { is_past_unknown: true, ..Costs::default() };
        pace.record(Way::Cached, 1, Duration::from_secs(1));
        assert!((0..200).all(|_| pace.choose() == Way::Cached));
    }

    #[test]
    fn whatever_lies_where_is_written_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = std::fs::File::create_new(&path).unwrap();
        let data: Vec<u8> =
            (0..1 << 20).map(|at: u32| (at / 7 + at / 4096).to_le_bytes()[0]).collect();
        let pace = Pace::default();
        // Both ways several times, from and to anywhere in a page.
        let ends = [0, 1, 4_096, 70_000, 139_264, 300_001, 300_002, 600_000, 1_000_000, data.len()];
        for part in ends.windows(2).rev() {
            pace.write_all_at(&file, &data[part[0]..part[1]], part[0] as u64).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == data);
    }

    #[test]
    fn an_error_is_told() {
        let read_only = std::fs::File::open("/dev/null").unwrap();
        let error = Pace::default().write_all_at(&read_only, &[1; 1 << 20], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()));
    }
}
