//! Reading a relation's file page by page, so that a page that is damaged on disk is found now and
//! not when the snapshot is needed.
//!
//! The server writes while we read, so a page may be caught half written. Such a page is read
//! again. If it stays broken, its own word counts: a page that was changed after the backup began
//! is mended by the replay, because its first change since the checkpoint wrote all of it into the
//! log. That word is believed only up to the backup's end, which is known afterwards.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::super::{
    page_checksum::{PageState, look},
    pause::pause,
    wal::{Lsn, Range},
};

/// Pages that are read at once.
const PAGES_AT_ONCE: usize = 32;

/// How often a broken page is read again, and how long is waited in between: a write of one page
/// takes microseconds.
const READ_AGAIN: u32 = 5;
const READ_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How many pages of a file are named.
const PAGES_NAMED: usize = 5;

/// Pages that are broken on disk.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<BTreeMap<String, Vec<(u32, Lsn)>>>);

impl Suspects {
    fn add(&self, path: &str, page: u32, lsn: Lsn) {
        let mut suspects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.entry(path.to_owned()).or_default().push((page, lsn));
    }

    /// The files with pages that the replay does not mend, and a sentence about each.
    pub(super) fn convict(self, wal: &Range) -> Vec<(String, String)> {
        let suspects = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_mended = |lsn: &Lsn| *lsn >= wal.start && *lsn <= wal.end;
        suspects
            .into_iter()
            .filter_map(|(path, pages)| {
                let broken = pages.iter().filter(|(_, lsn)| !is_mended(lsn));
                let broken: Vec<_> = broken.map(|(page, _)| page.to_string()).collect();
                (!broken.is_empty()).then(|| (path, sentence(&broken)))
            })
            .collect()
    }
}

fn sentence(pages: &[String]) -> String {
    let named = pages[..pages.len().min(PAGES_NAMED)].join(", ");
    let noun = if pages.len() == 1 { "block" } else { "blocks" };
    match pages.len().saturating_sub(PAGES_NAMED) {
        0 => format!("the checksum of {noun} {named} is wrong"),
        more => format!("the checksum of {noun} {named} and {more} more is wrong"),
    }
}

/// Reads a relation's file and looks at each page on the way.
pub(super) struct PageReader<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a str,
    pub(super) suspects: &'a Suspects,
    /// Where the backup began in the log.
    pub(super) start: Lsn,
    /// The relation's number of the file's first page.
    pub(super) first_page: u32,
    buffer: Vec<u8>,
    block_bytes: usize,
    filled: usize,
    given: usize,
    offset: u64,
}

impl<'a> PageReader<'a> {
    pub(super) fn new(
        file: &'a File,
        path: &'a str,
        suspects: &'a Suspects,
        start: Lsn,
        (first_page, block_bytes): (u32, usize),
    ) -> Self {
        let buffer = vec![0; block_bytes * PAGES_AT_ONCE];
        let (filled, given, offset) = (0, 0, 0);
        Self { file, path, suspects, start, first_page, buffer, block_bytes, filled, given, offset }
    }

    fn refill(&mut self) -> io::Result<()> {
        (self.filled, self.given) = (0, 0);
        let at = self.offset;
        while self.filled < self.buffer.len() {
            let place = at + self.filled as u64;
            match self.file.read_at(&mut self.buffer[self.filled..], place) {
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.offset += self.filled as u64;
        // A page at the end that is not whole is one that is just being added.
        for index in 0..self.filled / self.block_bytes {
            self.examine(index, at)?;
        }
        Ok(())
    }

    fn examine(&mut self, index: usize, at: u64) -> io::Result<()> {
        let range = index * self.block_bytes..(index + 1) * self.block_bytes;
        let place = at + range.start as u64;
        let in_file = u32::try_from(place / self.block_bytes as u64).unwrap_or(u32::MAX);
        let number = self.first_page.saturating_add(in_file);
        let page = &mut self.buffer[range];
        for again in 0..=READ_AGAIN {
            let PageState::Broken { lsn, .. } = look(page, number) else { return Ok(()) };
            if Lsn(lsn) >= self.start || again == READ_AGAIN {
                self.suspects.add(self.path, number, Lsn(lsn));
                return Ok(());
            }
            pause(READ_AGAIN_AFTER);
            match self.file.read_exact_at(page, place) {
                // Truncated since: the replay does the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            }
        }
        Ok(())
    }
}

impl Read for PageReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.filled {
            self.refill()?;
        }
        let ready = &self.buffer[self.given..self.filled];
        let length = ready.len().min(buffer.len());
        buffer[..length].copy_from_slice(&ready[..length]);
        self.given += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_changed_during_the_backup_are_mended() {
        let suspects = Suspects::default();
        let wal = Range { timeline: 1, start: Lsn(100), end: Lsn(200) };
        for (page, lsn) in [(1, 99), (2, 150), (3, 201)] {
            suspects.add("base/5/16384", page, Lsn(lsn));
        }
        suspects.add("base/5/16385", 9, Lsn(100));
        let convicted = suspects.convict(&wal);
        let expected = "the checksum of blocks 1, 3 is wrong".to_owned();
        assert_eq!(convicted, [("base/5/16384".to_owned(), expected)]);
    }
}
