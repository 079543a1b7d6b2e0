//! What lies in a folder of the target: there may be a million names.

use std::io;

use rustix::fs::FileType;

/// Names and kinds, the names end to end in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Listed {
    names: Vec<u8>,
    /// In order, once sorted.
    entries: Vec<Entry>,
    /// The first one that may be passed next.
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    length: u16,
    kind: FileType,
    passed: bool,
}

impl Listed {
    /// Adds an entry.
    ///
    /// # Errors
    /// Fails when the names together are longer than 4 GiB.
    pub(super) fn push(&mut self, name: &[u8], kind: FileType) -> io::Result<()> {
        let too_long = |_| io::Error::other("its names are longer than 4 GiB");
        let start = u32::try_from(self.names.len()).map_err(too_long)?;
        let length = u16::try_from(name.len()).map_err(too_long)?;
        self.names.extend_from_slice(name);
        self.entries.push(Entry { start, length, kind, passed: false });
        Ok(())
    }

    /// Puts the entries in order; none may be added after that.
    pub(super) fn sorted(mut self) -> Self {
        let Self { names, entries, .. } = &mut self;
        entries.sort_unstable_by(|a, b| a.name(names).cmp(b.name(names)));
        self
    }

    /// Comes by a name, which must be behind those that were passed before.
    pub(super) fn pass(&mut self, name: &[u8]) {
        let Self { names, entries, next } = self;
        while let Some(entry) = entries.get_mut(*next) {
            match entry.name(names).cmp(name) {
                std::cmp::Ordering::Greater => return,
                std::cmp::Ordering::Equal => entry.passed = true,
                std::cmp::Ordering::Less => {}
            }
            *next += 1;
        }
    }

    /// The entries that were not passed, in order.
    pub(super) fn not_passed(&self) -> impl Iterator<Item = (&[u8], FileType)> {
        let left = self.entries.iter().filter(|entry| !entry.passed);
        left.map(|entry| (entry.name(&self.names), entry.kind))
    }
}

impl Entry {
    fn name<'n>(&self, names: &'n [u8]) -> &'n [u8] {
        let start = self.start as usize;
        &names[start..start + usize::from(self.length)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(present: &[&str], passed: &[&str], left: &[&str]) {
        let mut listed = Listed::default();
        for name in present {
            listed.push(name.as_bytes(), FileType::Fifo).unwrap();
        }
        let mut listed = listed.sorted();
        passed.iter().for_each(|name| listed.pass(name.as_bytes()));
        let names: Vec<_> = listed.not_passed().map(|(name, _)| name.to_vec()).collect();
        assert_eq!(names, left.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_not_passed_is_left() {
        check(&[], &["a"], &[]);
        check(&["b", "a"], &[], &["a", "b"]);
        check(&["b", "a", "c"], &["b"], &["a", "c"]);
        check(&["b", "a", "c"], &["a", "b", "c", "d"], &[]);
        check(&["d", "b"], &["a", "c", "d", "e"], &["b"]);
        check(&["a", "ab"], &["a", "b"], &["ab"]);
    }
}
