//! The archive: a tar file that can be written in one way only.
//!
//! A bundle that is passed on has a digest that people write down, so the same content must be
//! the same bytes, and no byte may be free. Members are regular files in the order given, each
//! with a ustar header whose every field is fixed but name, size and checksum; content is padded
//! with zeros to 512 bytes, and two blocks of zeros end the file. Reading walks the headers,
//! writes the archive anew from what it found, and refuses it where the two differ.
//!
//! # Source
//! POSIX.1-2017, `pax`, *ustar Interchange Format*.

use std::borrow::Cow;

use crate::mismatch::Mismatch;

const BLOCK: usize = 512;
/// The longest name that a header holds without a prefix.
pub(crate) const NAME_BYTES_MAX: usize = 100;
/// The largest size that eleven octal digits tell.
const SIZE_MAX: usize = 0o777_7777_7777;
const SIZE_AT: usize = 124;
const SIZE_DIGITS: usize = 11;

/// A member: its name and content.
pub(crate) type Member<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

/// Tells whether a name can stand in an archive: parts of letters, digits, `.`, `_` and `-`
/// between slashes, none of them hidden or `..`.
pub(crate) fn is_member_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_part =
        |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed);
    name.len() <= NAME_BYTES_MAX && name.split('/').all(is_part)
}

/// Writes members as an archive; `None` when a name or a size does not fit.
pub(crate) fn write(members: &[Member<'_>]) -> Option<Vec<u8>> {
    let mut archive = Vec::new();
    for (name, content) in members {
        if !is_member_name(name) || content.len() > SIZE_MAX {
            return None;
        }
        archive.extend_from_slice(&header(name, content.len()));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Some(archive)
}

fn header(name: &str, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0"); // user
    put(116, "0000000\0"); // group
    put(SIZE_AT, &format!("{size:011o}\0"));
    put(136, "00000000000\0"); // time
    put(148, "        "); // the checksum counts as spaces
    put(156, "0"); // a regular file
    put(257, "ustar\x0000");
    put(329, "0000000\0"); // device numbers, as GNU tar and others write them
    put(337, "0000000\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Reads an archive that [`write`] wrote.
pub(crate) fn read(archive: &[u8]) -> Result<Vec<Member<'_>>, Mismatch> {
    let members = walk(archive)?;
    let again =
        write(&members).ok_or(Mismatch::Archive { at: 0, problem: "a name is not allowed" })?;
    match first_difference(archive, &again) {
        None => Ok(members),
        Some(at) => Err(Mismatch::Archive { at, problem: "another byte belongs here" }),
    }
}

fn walk(archive: &[u8]) -> Result<Vec<Member<'_>>, Mismatch> {
    let (mut at, mut members) = (0, Vec::new());
    loop {
        let cut = || Mismatch::Archive { at: archive.len(), problem: "it ends here" };
        let header = archive.get(at..at + BLOCK).ok_or_else(cut)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(members);
        }
        let name = header[..NAME_BYTES_MAX].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).ok().filter(|name| is_member_name(name));
        let name = name.ok_or(Mismatch::Archive { at, problem: "this is not a name" })?;
        let digits = &header[SIZE_AT..SIZE_AT + SIZE_DIGITS];
        let wrong_size = Mismatch::Archive { at: at + SIZE_AT, problem: "this is not a size" };
        let size = octal(digits).ok_or(wrong_size)?;
        let start = at + BLOCK;
        let content = start.checked_add(size).and_then(|end| archive.get(start..end));
        let content = content.ok_or_else(cut)?;
        members.push((Cow::Borrowed(name), Cow::Borrowed(content)));
        at = start + size.next_multiple_of(BLOCK);
    }
}

fn octal(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'7' => Some(number * 8 + usize::from(digit - b'0')),
        _ => None,
    })
}

fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    let differs = left.iter().zip(right).position(|(left, right)| left != right);
    differs.or_else(|| (left.len() != right.len()).then(|| left.len().min(right.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Vec<Member<'static>> {
        let member = |name: &'static str, content: &'static [u8]| (name.into(), content.into());
        vec![member("manifest.json", b"{}"), member("a/b-1.txt", b""), member("z", &[7; 512])]
    }

    #[test]
    fn what_is_written_is_read() {
        let archive = write(&members()).unwrap();
        assert_eq!(archive.len(), 7 * BLOCK);
        assert_eq!(read(&archive), Ok(members()));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "/a", "a/", "a//b", "..", "a/../b", ".a", "a b", "é", "a\0b", "a\\b"] {
            assert_eq!(write(&[(name.into(), Cow::Borrowed(b"".as_slice()))]), None, "{name}");
        }
        assert!(!is_member_name(&"a".repeat(101)));
        assert!(is_member_name(&"a".repeat(100)));
    }

    #[test]
    fn every_other_byte_is_refused_unless_it_is_name_or_content() {
        let archive = write(&members()).unwrap();
        for at in 0..archive.len() {
            let mut changed = archive.clone();
            changed[at] ^= 1;
            if let Ok(found) = read(&changed) {
                assert_ne!(found, members(), "byte {at}");
            }
        }
    }

    #[test]
    fn every_other_length_is_refused() {
        let archive = write(&members()).unwrap();
        for length in 0..archive.len() {
            assert!(read(&archive[..length]).is_err(), "{length}");
        }
        let longer = [archive.as_slice(), &[0; BLOCK]].concat();
        let at = archive.len();
        let problem = "another byte belongs here";
        assert_eq!(read(&longer), Err(Mismatch::Archive { at, problem }));
    }
}
