//! The names in a folder: a folder may have millions.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Dir;

/// Names in the order of a tree: by their bytes. They lie end to end in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    /// Where each name lies, in order.
    spans: Vec<(u32, u16)>,
    taken: usize,
}

impl Names {
    /// What is in an open folder.
    ///
    /// # Errors
    /// Fails when the folder cannot be listed whole.
    pub(super) fn list(folder: &OwnedFd) -> std::io::Result<Self> {
        let mut names = Self::default();
        for entry in Dir::read_from(folder.as_fd())? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name)?;
            }
        }
        let Self { bytes, spans, .. } = &mut names;
        spans.sort_unstable_by_key(|&span| slice(bytes, span));
        // What is removed and made again meanwhile may be listed twice.
        spans.dedup_by_key(|span| slice(bytes, *span));
        Ok(names)
    }

    /// This one alone.
    pub(super) fn only(name: &[u8]) -> std::io::Result<Self> {
        let mut names = Self::default();
        names.push(name)?;
        Ok(names)
    }

    fn push(&mut self, name: &[u8]) -> std::io::Result<()> {
        let too_many = |_| std::io::Error::other("its names are longer than 4 GiB");
        let start = u32::try_from(self.bytes.len()).map_err(too_many)?;
        let length = u16::try_from(name.len()).map_err(too_many)?;
        self.bytes.extend_from_slice(name);
        self.spans.push((start, length));
        Ok(())
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.spans.binary_search_by_key(&name, |&span| slice(&self.bytes, span)).is_ok()
    }

    /// Takes the next name into `name`. Whether there was one.
    pub(super) fn next(&mut self, name: &mut Vec<u8>) -> bool {
        name.clear();
        let Some(&span) = self.spans.get(self.taken) else { return false };
        self.taken += 1;
        name.extend_from_slice(slice(&self.bytes, span));
        true
    }
}

fn slice(bytes: &[u8], (start, length): (u32, u16)) -> &[u8] {
    &bytes[start as usize..start as usize + usize::from(length)]
}
