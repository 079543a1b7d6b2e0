//! A pack that lies in a file of this machine without a name while a store is given it.
//!
//! It is read piece by piece, as often as it is sent. What is read is compared with the pack's name,
//! and the last piece is not handed out before they agree: so a store that was given the rest has an
//! unfinished file at most. How the file came to be is `packer/spool.rs`'s business.

use std::{
    fmt, fs,
    fs::{File as OsFile, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::StorageError;
use crate::{crypto::random_bytes, id::PackId};

/// Bytes of a piece: enough that it is worth a call, and few enough to be held by the dozen.
const PIECE_BYTES: usize = 256 << 10;

/// A whole pack in a file. See the module's page.
pub struct Spooled {
    id: PackId,
    file: OsFile,
    /// How much is in the file.
    in_file: u64,
    /// What comes behind that and did not fit on the disk.
    rest: Vec<u8>,
    /// Where the file is, for messages.
    place: String,
    spoiled: AtomicBool,
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spooled").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Spooled {
    /// The pack `id`, whose content is the first `in_file` bytes of `file`, and then `rest`.
    #[must_use]
    pub fn new(id: PackId, (file, in_file): (OsFile, u64), rest: Vec<u8>, place: &Path) -> Self {
        let (place, spoiled) = (place.display().to_string(), AtomicBool::new(false));
        Self { id, file, in_file, rest, place, spoiled }
    }

    /// The pack.
    #[must_use]
    pub fn id(&self) -> PackId {
        self.id
    }

    /// How long it is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.in_file + self.rest.len() as u64
    }

    /// Whether it turned out to be unreadable: no store is to blame then, and none will do better.
    #[must_use]
    pub fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Relaxed)
    }

    /// Hands out the content, piece by piece, until `take` wants no more.
    ///
    /// # Errors
    /// Fails when the file cannot be read, or holds other bytes than were written to it; the last
    /// piece was not handed out then.
    pub fn read(&self, mut take: impl FnMut(Vec<u8>) -> bool) -> Result<(), StorageError> {
        self.read_pieces(&mut take).map_err(|error| {
            self.spoiled.store(true, Ordering::Relaxed);
            StorageError::io("read a pack back from a file in", &self.place, error)
        })
    }

    fn read_pieces(&self, take: &mut impl FnMut(Vec<u8>) -> bool) -> io::Result<()> {
        let (mut digest, mut offset, bytes) = (Sha256::new(), 0, self.bytes());
        while offset < bytes {
            let left = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
            let mut piece = vec![0; left.min(PIECE_BYTES)];
            self.fill(offset, &mut piece)?;
            digest.update(&piece);
            offset += piece.len() as u64;
            let is_last = offset == bytes;
            if is_last && PackId::from_bytes(digest.finalize_reset().into()) != self.id {
                return Err(io::Error::other("it holds other bytes than were written to it"));
            }
            if !take(piece) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn fill(&self, offset: u64, piece: &mut [u8]) -> io::Result<()> {
        let in_file = self.in_file.saturating_sub(offset).min(piece.len() as u64);
        #[expect(clippy::cast_possible_truncation, reason = "it is no more than a length")]
        let (from_file, from_rest) = piece.split_at_mut(in_file as usize);
        self.file.read_exact_at(from_file, offset)?;
        let behind = usize::try_from((offset + in_file).saturating_sub(self.in_file));
        let rest = behind.ok().and_then(|at| self.rest.get(at..)?.get(..from_rest.len()));
        from_rest.copy_from_slice(rest.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// The whole content, for stores that take it whole.
    ///
    /// # Errors
    /// As [`Spooled::read`].
    pub fn whole(&self) -> Result<Vec<u8>, StorageError> {
        let mut content = Vec::with_capacity(usize::try_from(self.bytes()).unwrap_or(0));
        self.read(|piece| {
            content.extend_from_slice(&piece);
            true
        })?;
        Ok(content)
    }
}

/// A file in `folder` that nobody else can open, and that is gone with the process.
pub(crate) fn nameless_file(folder: &Path) -> io::Result<OsFile> {
    let options = |flags: OFlags| {
        let mut options = OpenOptions::new();
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        options.read(true).write(true).mode(0o600).custom_flags(flags);
        options
    };
    if let Ok(file) = options(OFlags::TMPFILE).open(folder) {
        return Ok(file);
    }
    // Not every file system makes files without a name; then it is taken away at once.
    let mut random = [0; 16];
    random_bytes(&mut random).map_err(io::Error::other)?;
    let path = folder.join(format!(".muster-{:032x}", u128::from_le_bytes(random)));
    let file = options(OFlags::NOFOLLOW).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content's first `in_file` bytes lie in the file and the others do not.
    fn spooled(content: &[u8], in_file: usize) -> Spooled {
        let folder = std::env::temp_dir();
        let file = nameless_file(&folder).unwrap();
        file.write_all_at(&content[..in_file], 0).unwrap();
        let rest = content[in_file..].to_vec();
        Spooled::new(PackId::of(content), (file, in_file as u64), rest, &folder)
    }

    #[test]
    fn it_is_read_in_pieces_wherever_it_lies() {
        let content: Vec<u8> = (0_u32..300_000).flat_map(u32::to_le_bytes).collect();
        for in_file in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 700_000, content.len()] {
            let pack = spooled(&content, in_file);
            let (mut read, mut largest) = (Vec::new(), 0);
            pack.read(|piece| {
                largest = largest.max(piece.len());
                read.extend(piece);
                true
            })
            .unwrap();
            assert!(read == content && pack.whole().unwrap() == content, "{in_file} in the file");
            assert_eq!(largest, PIECE_BYTES);
        }
    }

    #[test]
    fn whoever_wants_no_more_gets_no_more() {
        let pack = spooled(&[7; 4 * PIECE_BYTES], 3 * PIECE_BYTES);
        let mut pieces = 0;
        pack.read(|_| {
            pieces += 1;
            pieces < 2
        })
        .unwrap();
        assert!(pieces == 2 && !pack.is_spoiled());
    }

    #[test]
    fn the_last_piece_of_what_changed_on_the_disk_is_kept_back() {
        let content = vec![7; 2 * PIECE_BYTES + 10];
        let pack = spooled(&content, content.len());
        pack.file.write_all_at(b"x", 5).unwrap();
        let mut read = 0;
        let error = pack.read(|piece| {
            read += piece.len();
            true
        });
        assert!(error.unwrap_err().to_string().contains("read a pack back"));
        assert!(read == 2 * PIECE_BYTES && pack.is_spoiled());
    }
}
