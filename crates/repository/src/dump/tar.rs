//! The tar format: POSIX `ustar` headers, and extended (`pax`) headers for what does not fit.
//!
//! Most members need only the 512 bytes of a `ustar` header. Before others goes a member of
//! type `x` with records for long names, nanoseconds, large numbers, attributes and ACLs.
//!
//! # Source
//! POSIX.1-2017, `pax`, *pax Interchange Format* and *ustar Interchange Format*; GNU tar for
//! numbers beyond octal, and for the records `SCHILY.xattr.*` and `SCHILY.acl.*`.

use std::io::{self, Write};

use super::{Member, Sink, acl};
use crate::format::{
    mode::unix_mode,
    time::Timestamp,
    tree::{ExtendedAttribute, Node, NodeKind},
};

const BLOCK_BYTES: usize = 512;

const NAME: usize = 0;
const NAME_BYTES: usize = 100;
const LINK: usize = 157;
const LINK_BYTES: usize = 100;
const OWNER: usize = 265;
const GROUP: usize = 297;
const OWNER_BYTES: usize = 32;

/// Writes members one after another.
pub(super) struct TarWriter<'w> {
    to: &'w mut dyn Write,
    member_bytes: u64,
}

impl<'w> TarWriter<'w> {
    pub(super) fn new(to: &'w mut dyn Write) -> Self {
        Self { to, member_bytes: 0 }
    }

    fn pad(&mut self, bytes: u64) -> io::Result<()> {
        let over = usize::try_from(bytes % BLOCK_BYTES as u64).unwrap_or(0);
        let missing = if over == 0 { 0 } else { BLOCK_BYTES - over };
        self.to.write_all(&[0; BLOCK_BYTES][..missing])
    }
}

impl Sink for TarWriter<'_> {
    fn takes(&self, kind: NodeKind) -> bool {
        !matches!(kind, NodeKind::Socket | NodeKind::Irregular)
    }

    fn takes_hard_links(&self) -> bool {
        true
    }

    fn begin(&mut self, member: Member) -> io::Result<()> {
        let (header, records) = header_of(&member);
        if !records.is_empty() {
            self.to.write_all(&extended_header(&member.name, records.len() as u64))?;
            self.to.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.member_bytes = member.bytes;
        self.to.write_all(&header)
    }

    fn content(&mut self, data: &[u8]) -> io::Result<()> {
        self.to.write_all(data)
    }

    fn end(&mut self) -> io::Result<()> {
        self.pad(self.member_bytes)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.to.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.to.flush()
    }
}

/// The member's `ustar` header, and the extended records for what does not fit into it.
fn header_of(member: &Member) -> ([u8; BLOCK_BYTES], Vec<u8>) {
    let node = &member.node;
    let mut block = Block::new();
    let mut records = Records::default();
    let mut name = member.name.clone();
    if node.kind == NodeKind::Dir {
        name.push(b'/');
    }
    let (kind, link): (u8, &[u8]) = match (&member.hard_link, node.kind) {
        (Some(earlier), _) => (b'1', earlier),
        (None, NodeKind::Symlink) => (b'2', &node.link_target),
        (None, NodeKind::CharDevice) => (b'3', b""),
        (None, NodeKind::BlockDevice) => (b'4', b""),
        (None, NodeKind::Dir) => (b'5', b""),
        (None, NodeKind::Fifo) => (b'6', b""),
        (None, _) => (b'0', b""),
    };
    records.raw_when_long("path", &name, NAME_BYTES);
    records.raw_when_long("linkpath", link, LINK_BYTES);
    records.raw_when_long("uname", node.user.as_bytes(), OWNER_BYTES);
    records.raw_when_long("gname", node.group.as_bytes(), OWNER_BYTES);
    records.number_when_large("uid", u64::from(node.uid), 7);
    records.number_when_large("gid", u64::from(node.gid), 7);
    records.number_when_large("size", member.bytes, 11);
    records.times(node);
    node.extended_attributes.iter().for_each(|attribute| records.attribute(attribute));
    block.bytes(NAME, NAME_BYTES, &name);
    block.number(100, 8, u64::from(unix_mode(node.mode)));
    block.number(108, 8, u64::from(node.uid));
    block.number(116, 8, u64::from(node.gid));
    block.number(124, 12, member.bytes);
    block.number(136, 12, u64::try_from(node.mtime.seconds()).unwrap_or(0));
    block.0[156] = kind;
    block.bytes(LINK, LINK_BYTES, link);
    block.bytes(OWNER, OWNER_BYTES, node.user.as_bytes());
    block.bytes(GROUP, OWNER_BYTES, node.group.as_bytes());
    if matches!(node.kind, NodeKind::CharDevice | NodeKind::BlockDevice) {
        let (major, minor) = device_numbers(node.device);
        block.number(329, 8, major);
        block.number(337, 8, minor);
    }
    (block.finish(), records.bytes)
}

/// The header of the member that holds extended records.
fn extended_header(name: &[u8], bytes: u64) -> [u8; BLOCK_BYTES] {
    let mut block = Block::new();
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let shown = [b"PaxHeaders/", last].concat();
    block.bytes(NAME, NAME_BYTES, &shown);
    block.number(100, 8, 0o644);
    block.number(108, 8, 0);
    block.number(116, 8, 0);
    block.number(124, 12, bytes);
    block.number(136, 12, 0);
    block.0[156] = b'x';
    block.finish()
}

/// Major and minor number out of Linux's `dev_t`.
fn device_numbers(device: u64) -> (u64, u64) {
    let major = (device >> 32 & 0xffff_f000) | (device >> 8 & 0xfff);
    let minor = (device >> 12 & 0xffff_ff00) | (device & 0xff);
    (major, minor)
}

/// A `ustar` header in the making.
struct Block([u8; BLOCK_BYTES]);

impl Block {
    fn new() -> Self {
        let mut block = [0; BLOCK_BYTES];
        block[257..265].copy_from_slice(b"ustar\x0000");
        Self(block)
    }

    /// As much of `value` as fits; the whole stands in a record then.
    fn bytes(&mut self, at: usize, length: usize, value: &[u8]) {
        let fits = &value[..value.len().min(length)];
        self.0[at..at + fits.len()].copy_from_slice(fits);
    }

    /// In octal and a NUL; what is too large in base 256, marked by the first bit.
    fn number(&mut self, at: usize, length: usize, value: u64) {
        let field = &mut self.0[at..at + length];
        let digits = format!("{value:0width$o}", width = length - 1);
        if digits.len() < length {
            field[..digits.len()].copy_from_slice(digits.as_bytes());
            return;
        }
        let bytes = value.to_be_bytes();
        let start = length.saturating_sub(bytes.len());
        field.fill(0);
        field[start..].copy_from_slice(&bytes[bytes.len() - (length - start)..]);
        field[0] |= 0x80;
    }

    /// Sets the checksum: the sum of all bytes, its own field taken as blanks.
    fn finish(mut self) -> [u8; BLOCK_BYTES] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.0[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0
    }
}

/// Extended records: `LENGTH KEY=VALUE\n` each.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
}

impl Records {
    fn add(&mut self, key: &str, value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }

    fn raw_when_long(&mut self, key: &str, value: &[u8], length: usize) {
        if value.len() <= length {
            return;
        }
        if std::str::from_utf8(value).is_err() && self.bytes.is_empty() {
            // Records are UTF-8 unless said otherwise.
            self.add("hdrcharset", b"BINARY");
        }
        self.add(key, value);
    }

    fn number_when_large(&mut self, key: &str, value: u64, octal_digits: u32) {
        if value >> (3 * octal_digits) != 0 {
            self.add(key, value.to_string().as_bytes());
        }
    }

    fn times(&mut self, node: &Node) {
        let fits =
            |time: Timestamp| time.nanoseconds() == 0 && (0..1 << 33).contains(&time.seconds());
        if !fits(node.mtime) {
            self.add("mtime", decimal(node.mtime).as_bytes());
        }
        if node.atime != node.mtime {
            self.add("atime", decimal(node.atime).as_bytes());
        }
    }

    fn attribute(&mut self, attribute: &ExtendedAttribute) {
        let acl_key = match attribute.name.as_str() {
            "system.posix_acl_access" => Some("SCHILY.acl.access"),
            "system.posix_acl_default" => Some("SCHILY.acl.default"),
            _ => None,
        };
        match acl_key.zip(acl::to_text(&attribute.value)) {
            Some((key, text)) => self.add(key, text.as_bytes()),
            None => {
                // A key ends at the first `=`; GNU tar writes those of the name like this.
                let name = attribute.name.replace('%', "%25").replace('=', "%3D");
                self.add(&format!("SCHILY.xattr.{name}"), &attribute.value);
            }
        }
    }
}

/// Seconds since 1970 as a decimal number: `1.5`, `-0.25`.
fn decimal(time: Timestamp) -> String {
    let (seconds, nanoseconds) = (time.seconds(), time.nanoseconds());
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let (sign, whole, fraction) = match seconds {
        0.. => ("", seconds.unsigned_abs(), nanoseconds),
        _ => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    };
    format!("{sign}{whole}.{fraction:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let check = |key: &str, value: &[u8], expected: &[u8]| {
            let mut records = Records::default();
            records.add(key, value);
            assert_eq!(records.bytes, expected);
        };
        check("a", b"b", b"6 a=b\n");
        check("path", b"12", b"11 path=12\n");
        check("key", &[b'x'; 91], &[&b"99 key="[..], &[b'x'; 91], b"\n"].concat());
        check("key", &[b'x'; 92], &[&b"101 key="[..], &[b'x'; 92], b"\n"].concat());
    }

    #[test]
    fn times_are_decimal_numbers() {
        let check = |seconds, nanoseconds, expected: &str| {
            assert_eq!(decimal(Timestamp::new(seconds, nanoseconds, 0)), expected);
        };
        check(5, 0, "5");
        check(5, 120_000_000, "5.12");
        check(-1, 750_000_000, "-0.25");
        check(-5, 250_000_000, "-4.75");
        check(-5, 0, "-5");
        check(0, 1, "0.000000001");
    }

    #[test]
    fn numbers_beyond_octal_are_binary() {
        let mut block = Block::new();
        block.number(124, 12, 8 << 30);
        assert_eq!(block.0[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        block.number(124, 12, (8 << 30) - 1);
        assert_eq!(&block.0[124..136], b"77777777777\0");
        block.number(108, 8, 1 << 31);
        assert_eq!(block.0[108..116], [0x80, 0, 0, 0, 0x80, 0, 0, 0]);
    }

    #[test]
    fn device_numbers_are_those_of_linux() {
        assert_eq!(device_numbers(0x0103), (1, 3));
        assert_eq!(device_numbers(0x0010_0801), (8, 0x101));
        assert_eq!(device_numbers(0x0000_1000_0000_0000), (0x1000, 0));
    }
}
