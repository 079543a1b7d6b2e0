//! ACLs as text, as archives carry them.
//!
//! # Source
//! `acl(5)`, long text form; Linux, `include/uapi/linux/posix_acl_xattr.h`.

/// The only version of the binary form there is.
const VERSION: u32 = 2;

/// The text of an ACL in the binary form of the attributes `system.posix_acl_*`: entries on
/// lines of their own, users and groups as numbers, which mean the same on every host. `None`
/// when the bytes are not in that form.
pub(super) fn to_text(binary: &[u8]) -> Option<String> {
    let (version, entries) = binary.split_first_chunk()?;
    let (entries, rest) = entries.as_chunks::<8>();
    if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
        return None;
    }
    entries.iter().map(entry).collect()
}

fn entry(&[tag, tag_high, permissions, _, id @ ..]: &[u8; 8]) -> Option<String> {
    let id = u32::from_le_bytes(id).to_string();
    let (who, id) = match (tag, tag_high) {
        (0x01, 0) => ("user", ""),
        (0x02, 0) => ("user", id.as_str()),
        (0x04, 0) => ("group", ""),
        (0x08, 0) => ("group", id.as_str()),
        (0x10, 0) => ("mask", ""),
        (0x20, 0) => ("other", ""),
        _ => return None,
    };
    let bit = |bit: u8, letter| if permissions & bit != 0 { letter } else { '-' };
    Some(format!("{who}:{id}:{}{}{}\n", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_lines() {
        let mut acl = vec![2, 0, 0, 0];
        for (tag, permissions, id) in
            [(1_u8, 7_u8, u32::MAX), (2, 5, 1000), (4, 4, u32::MAX), (0x10, 5, 0), (0x20, 0, 0)]
        {
            acl.extend([tag, 0, permissions, 0]);
            acl.extend(id.to_le_bytes());
        }
        let text = "user::rwx\nuser:1000:r-x\ngroup::r--\nmask::r-x\nother::---\n";
        assert_eq!(to_text(&acl).unwrap(), text);
    }

    #[test]
    fn anything_else_is_no_acl() {
        for bad in
            [&b""[..], &[1, 0, 0, 0], &[2, 0, 0, 0, 1], &[2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(to_text(bad), None);
        }
        assert_eq!(to_text(&[2, 0, 0, 0]).unwrap(), "");
    }
}
