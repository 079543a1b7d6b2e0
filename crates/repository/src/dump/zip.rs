//! The zip format, written as a stream: sizes and checksum of a file follow its content.
//!
//! Names are bytes; those that are UTF-8 are marked so. Modes and owners go in as Info-ZIP
//! does it. The list at the archive's end is kept in memory while writing, about 100 bytes and
//! a name for each member.
//!
//! # Source
//! PKWARE, *APPNOTE.TXT* 6.3.10; Info-ZIP, `proginfo/extrafld.txt`.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::{Member, Sink};
use crate::format::{mode::unix_mode, time::Timestamp, tree::NodeKind};

/// Version 4.5: the first with Zip64. The high byte means Unix.
const VERSION_ZIP64: u16 = 45;
const VERSION: u16 = 20;
const MADE_ON_UNIX: u16 = 3 << 8;

const FLAG_SIZES_FOLLOW: u16 = 1 << 3;
const FLAG_UTF8: u16 = 1 << 11;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Files from this size on get 64-bit sizes: deflate makes incompressible data a little larger.
const LARGE_BYTES: u64 = 0xf000_0000;

const FOLDER: u32 = 0x10;

/// Writes members one after another, then the list of them.
pub(super) struct ZipWriter<'w> {
    to: Counted<'w>,
    deflate: Compress,
    compressed: Vec<u8>,
    open: Option<Open>,
    directory: Vec<u8>,
    members: u64,
}

/// Counts what is written: the list needs offsets.
struct Counted<'w> {
    to: &'w mut dyn Write,
    bytes: u64,
}

impl Counted<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.bytes += data.len() as u64;
        self.to.write_all(data)
    }
}

/// A member whose content is being written.
struct Open {
    member: Member,
    offset: u64,
    content_offset: u64,
    method: u16,
    crc: Crc,
    bytes: u64,
}

impl<'w> ZipWriter<'w> {
    pub(super) fn new(to: &'w mut dyn Write) -> Self {
        Self {
            to: Counted { to, bytes: 0 },
            deflate: Compress::new(Compression::default(), false),
            compressed: Vec::with_capacity(64 << 10),
            open: None,
            directory: Vec::new(),
            members: 0,
        }
    }

    fn deflate(&mut self, mut data: &[u8], flush: FlushCompress) -> io::Result<()> {
        loop {
            self.compressed.clear();
            let before = self.deflate.total_in();
            let status = self.deflate.compress_vec(data, &mut self.compressed, flush);
            let status = status.map_err(io::Error::other)?;
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(data.len());
            data = &data[taken..];
            self.to.write(&self.compressed)?;
            let full = self.compressed.len() == self.compressed.capacity();
            match flush {
                FlushCompress::Finish if status == Status::StreamEnd => return Ok(()),
                FlushCompress::None if data.is_empty() && !full => return Ok(()),
                _ => {}
            }
        }
    }
}

impl Sink for ZipWriter<'_> {
    fn takes(&self, kind: NodeKind) -> bool {
        matches!(kind, NodeKind::File | NodeKind::Dir | NodeKind::Symlink)
    }

    fn takes_hard_links(&self) -> bool {
        false
    }

    fn begin(&mut self, mut member: Member) -> io::Result<()> {
        let method = if member.node.kind == NodeKind::File { DEFLATED } else { STORED };
        if member.node.kind == NodeKind::Dir {
            member.name.push(b'/');
        }
        let mut open = Open {
            member,
            offset: self.to.bytes,
            content_offset: 0,
            method,
            crc: Crc::new(),
            bytes: 0,
        };
        let target = match open.member.node.kind {
            NodeKind::Symlink => open.member.node.link_target.clone(),
            _ => Vec::new(),
        };
        if method == STORED {
            open.crc.update(&target);
            open.bytes = target.len() as u64;
        }
        self.to.write(&open.local_header()?)?;
        open.content_offset = self.to.bytes;
        self.open = Some(open);
        self.to.write(&target)?;
        self.deflate.reset();
        Ok(())
    }

    fn content(&mut self, data: &[u8]) -> io::Result<()> {
        if let Some(open) = &mut self.open {
            open.crc.update(data);
            open.bytes += data.len() as u64;
        }
        self.deflate(data, FlushCompress::None)
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(method) = self.open.as_ref().map(|open| open.method) else { return Ok(()) };
        if method == DEFLATED {
            self.deflate(&[], FlushCompress::Finish)?;
        }
        let Some(open) = self.open.take() else { return Ok(()) };
        let compressed = self.to.bytes - open.content_offset;
        if method == DEFLATED {
            self.to.write(&open.descriptor(compressed))?;
        }
        self.directory.extend(open.directory_entry(compressed)?);
        self.members += 1;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let (start, length) = (self.to.bytes, self.directory.len() as u64);
        let directory = std::mem::take(&mut self.directory);
        self.to.write(&directory)?;
        self.to.write(&end_of_directory(self.members, start, length))?;
        self.to.to.flush()
    }
}

impl Open {
    fn is_large(&self) -> bool {
        self.member.bytes >= LARGE_BYTES
    }

    fn flags(&self) -> u16 {
        let name = &self.member.name;
        let utf8 = !name.is_ascii() && std::str::from_utf8(name).is_ok();
        let follow = if self.method == DEFLATED { FLAG_SIZES_FOLLOW } else { 0 };
        if utf8 { follow | FLAG_UTF8 } else { follow }
    }

    /// Everything between the version and the checksum, which both headers share.
    fn common(&self) -> Vec<u8> {
        let (time, date) = dos_time(self.member.node.mtime);
        let version = if self.is_large() { VERSION_ZIP64 } else { VERSION };
        [version, self.flags(), self.method, time, date].map(u16::to_le_bytes).concat()
    }

    fn local_header(&self) -> io::Result<Vec<u8>> {
        let mut extra = Vec::new();
        let sizes = match (self.method, self.is_large()) {
            (STORED, _) => u32_of(self.bytes)?,
            (_, false) => 0,
            (_, true) => {
                push_extra(&mut extra, 0x0001, &[0; 16]);
                u32::MAX
            }
        };
        self.push_times_and_owner(&mut extra);
        let crc = if self.method == STORED { self.crc.sum() } else { 0 };
        let mut header = b"PK\x03\x04".to_vec();
        header.extend(self.common());
        header.extend([crc, sizes, sizes].map(u32::to_le_bytes).concat());
        header.extend(u16_of(self.member.name.len())?.to_le_bytes());
        header.extend(u16_of(extra.len())?.to_le_bytes());
        header.extend(&self.member.name);
        header.extend(extra);
        Ok(header)
    }

    fn descriptor(&self, compressed: u64) -> Vec<u8> {
        let mut descriptor = b"PK\x07\x08".to_vec();
        descriptor.extend(self.crc.sum().to_le_bytes());
        for size in [compressed, self.bytes] {
            match self.is_large() {
                true => descriptor.extend(size.to_le_bytes()),
                // Below the bound for large ones, deflate's overhead counted in.
                false => descriptor.extend(u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes()),
            }
        }
        descriptor
    }

    fn directory_entry(&self, compressed: u64) -> io::Result<Vec<u8>> {
        let mut large = Vec::new();
        let mut field = |value: u64, always: bool| match u32::try_from(value) {
            Ok(value) if value != u32::MAX && !always => value,
            _ => {
                large.extend(value.to_le_bytes());
                u32::MAX
            }
        };
        // In this order, uncompressed first, as the extra field wants it.
        let bytes = field(self.bytes, self.is_large());
        let compressed = field(compressed, self.is_large());
        let offset = field(self.offset, false);
        let mut extra = Vec::new();
        if !large.is_empty() {
            push_extra(&mut extra, 0x0001, &large);
        }
        self.push_times_and_owner(&mut extra);
        let mut entry = b"PK\x01\x02".to_vec();
        entry.extend((MADE_ON_UNIX | VERSION_ZIP64).to_le_bytes());
        entry.extend(self.common());
        entry.extend([self.crc.sum(), compressed, bytes].map(u32::to_le_bytes).concat());
        entry.extend(u16_of(self.member.name.len())?.to_le_bytes());
        entry.extend(u16_of(extra.len())?.to_le_bytes());
        // No comment, first disk, no internal attributes.
        entry.extend([0; 6]);
        entry.extend(self.external_attributes().to_le_bytes());
        entry.extend(offset.to_le_bytes());
        entry.extend(&self.member.name);
        entry.extend(extra);
        Ok(entry)
    }

    /// `st_mode` in the upper half, as on Unix; the lower is for DOS.
    fn external_attributes(&self) -> u32 {
        let (kind, dos) = match self.member.node.kind {
            NodeKind::Dir => (0o040_000, FOLDER),
            NodeKind::Symlink => (0o120_000, 0),
            _ => (0o100_000, 0),
        };
        (kind | unix_mode(self.member.node.mode)) << 16 | dos
    }

    /// Info-ZIP's fields `UT` (time of the last change) and `ux` (owner and group).
    fn push_times_and_owner(&self, extra: &mut Vec<u8>) {
        let node = &self.member.node;
        if let Ok(seconds) = i32::try_from(node.mtime.seconds()) {
            push_extra(extra, 0x5455, &[&[1][..], &seconds.to_le_bytes()].concat());
        }
        let (uid, gid) = (node.uid.to_le_bytes(), node.gid.to_le_bytes());
        push_extra(extra, 0x7875, &[&[1, 4][..], &uid, &[4], &gid].concat());
    }
}

fn push_extra(extra: &mut Vec<u8>, id: u16, value: &[u8]) {
    extra.extend(id.to_le_bytes());
    // The fields written here are at most 28 bytes long.
    extra.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    extra.extend(value);
}

fn u16_of(length: usize) -> io::Result<u16> {
    let too_long = |_| io::Error::other("the path is longer than the 65,535 bytes of zip");
    u16::try_from(length).map_err(too_long)
}

fn u32_of(length: u64) -> io::Result<u32> {
    u32::try_from(length).map_err(|_| io::Error::other("the link is longer than 4 GiB"))
}

/// The end of the archive; a Zip64 one before it where numbers need that.
fn end_of_directory(members: u64, start: u64, length: u64) -> Vec<u8> {
    let mut end = Vec::new();
    let small_members = u16::try_from(members).unwrap_or(u16::MAX);
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let (small_start, small_length) = (small(start), small(length));
    if small_members == u16::MAX || small_start == u32::MAX || small_length == u32::MAX {
        end.extend(b"PK\x06\x06");
        end.extend(44_u64.to_le_bytes());
        end.extend((MADE_ON_UNIX | VERSION_ZIP64).to_le_bytes());
        end.extend(VERSION_ZIP64.to_le_bytes());
        end.extend([0; 8]);
        end.extend([members, members, length, start].map(u64::to_le_bytes).concat());
        end.extend(b"PK\x06\x07");
        end.extend([0; 4]);
        end.extend((start + length).to_le_bytes());
        end.extend(1_u32.to_le_bytes());
    }
    end.extend(b"PK\x05\x06");
    end.extend([0; 4]);
    end.extend([small_members, small_members].map(u16::to_le_bytes).concat());
    end.extend([small_length, small_start].map(u32::to_le_bytes).concat());
    end.extend([0; 2]);
    end
}

/// Time and date as DOS has them: local time, even seconds, 1980 to 2107.
fn dos_time(time: Timestamp) -> (u16, u16) {
    let Ok(moment) = jiff::Timestamp::from_second(time.seconds()) else { return (0, 0x21) };
    let offset = jiff::tz::Offset::from_seconds(i32::from(time.offset_minutes()) * 60);
    let local = offset.unwrap_or(jiff::tz::Offset::UTC).to_datetime(moment);
    let part = |value: i8| u16::try_from(value).unwrap_or(0);
    match u16::try_from(i32::from(local.year()) - 1980) {
        Ok(year @ 0..128) => {
            let date = year << 9 | part(local.month()) << 5 | part(local.day());
            let time =
                part(local.hour()) << 11 | part(local.minute()) << 5 | (part(local.second()) / 2);
            (time, date)
        }
        // 1 January 1980, the earliest there is.
        _ => (0, 0x21),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_times_are_local_and_clamped() {
        let check = |time: &str, expected| {
            assert_eq!(dos_time(Timestamp::parse(time).unwrap()), expected, "{time}");
        };
        check("2024-03-01T12:34:57+02:00", (12 << 11 | 34 << 5 | 28, 44 << 9 | 3 << 5 | 1));
        check("1969-03-01T12:34:56Z", (0, 0x21));
        check("2200-03-01T12:34:56Z", (0, 0x21));
    }

    #[test]
    fn many_members_need_the_long_end() {
        assert_eq!(end_of_directory(3, 100, 10).len(), 22);
        assert_eq!(end_of_directory(65_535, 100, 10).len(), 22 + 56 + 20);
        assert_eq!(end_of_directory(3, 1 << 32, 10).len(), 22 + 56 + 20);
    }
}
