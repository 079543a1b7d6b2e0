//! How the record of a file begins, written by hand.
//!
//! A backup makes this text for each file that it looks at, to compare it with the parent's record,
//! and general serialisation would take most of the time of a backup in which nothing changed.
//! [`Node::write`] is the rule and this the short way for usual files; all others take the long one.

use std::io::Write as _;

use super::{
    FormatError,
    time::Timestamp,
    tree::{Node, NodeKind},
};

/// Appends the JSON of `file` up to where its attributes and content, which it has not, would stand.
pub(crate) fn write(file: &Node, json: &mut Vec<u8>) -> Result<(), FormatError> {
    if is_usual(file) {
        return Ok(write_usual(file, json).map_err(serde_json::Error::io)?);
    }
    const WITHOUT_CONTENT: &[u8] = br#""content":null}"#;
    file.write(json)?;
    debug_assert!(json.ends_with(WITHOUT_CONTENT), "it has no content");
    json.truncate(json.len() - WITHOUT_CONTENT.len());
    Ok(())
}

/// Whether nothing of a file's record is left out, escaped, or of other kinds of entries.
fn is_usual(file: &Node) -> bool {
    let texts = [file.name.as_slice(), file.user.as_bytes(), file.group.as_bytes()];
    let numbers = [u64::from(file.mode), file.inode, file.device_id, file.links];
    file.kind == NodeKind::File
        && texts.into_iter().all(|text| !text.is_empty() && text.iter().copied().all(is_plain))
        && !numbers.contains(&0)
        && file.device == 0
        && file.link_target.is_empty()
        && file.extended_attributes.is_empty()
        && file.generic_attributes.is_empty()
        && file.error.is_empty()
        && file.content.is_none()
        && file.subtree.is_none()
}

/// Whether neither Go's quoting nor JSON escapes the character.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

fn write_usual(file: &Node, json: &mut Vec<u8>) -> std::io::Result<()> {
    json.extend_from_slice(br#"{"name":""#);
    json.extend_from_slice(&file.name);
    write!(json, r#"","type":"file","mode":{}"#, file.mode)?;
    for (field, time) in [("mtime", file.mtime), ("atime", file.atime), ("ctime", file.ctime)] {
        write_time(field, time, json);
    }
    write!(json, r#","uid":{},"gid":{},"user":""#, file.uid, file.gid)?;
    json.extend_from_slice(file.user.as_bytes());
    json.extend_from_slice(br#"","group":""#);
    json.extend_from_slice(file.group.as_bytes());
    write!(json, r#"","inode":{},"device_id":{}"#, file.inode, file.device_id)?;
    if file.size != 0 {
        write!(json, r#","size":{}"#, file.size)?;
    }
    write!(json, r#","links":{},"#, file.links)
}

fn write_time(field: &str, time: Timestamp, json: &mut Vec<u8>) {
    json.extend_from_slice(b",\"");
    json.extend_from_slice(field.as_bytes());
    json.extend_from_slice(b"\":\"");
    time.write(json);
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written_at_length(file: &Node) -> Vec<u8> {
        let mut json = Vec::new();
        file.write(&mut json).unwrap();
        json.truncate(json.len() - br#""content":null}"#.len());
        json
    }

    fn file(name: Vec<u8>, owner: (u32, &str), [inode, size, links, mode]: [u64; 4]) -> Node {
        let mut file = Node::new(name, NodeKind::File);
        (file.uid, file.gid) = (owner.0, owner.0 / 2);
        (file.user, file.group) = (owner.1.to_owned(), owner.1.to_owned());
        (file.inode, file.device_id, file.size, file.links) = (inode, inode / 3, size, links);
        file.mode = u32::try_from(mode % (1 << 12)).unwrap();
        file
    }

    proptest! {
        #[test]
        fn both_ways_write_the_same(
            name in prop_oneof!["[ -~]{1,40}".prop_map(String::into_bytes), any::<Vec<u8>>()],
            owner in (any::<u32>(), prop_oneof!["[a-z]{0,8}", ".{0,5}"]),
            numbers in prop_oneof![any::<[u64; 4]>(), proptest::array::uniform4(0..3u64)],
            time in (-70_000_000_000..300_000_000_000i64, 0..1_000_000_000u32, -900..900i16),
        ) {
            let mut file = file(name, (owner.0, &owner.1), numbers);
            file.mtime = Timestamp::new(time.0, time.1, time.2);
            file.atime = file.mtime;
            file.ctime = Timestamp::new(time.0 / 3, time.1 / 1000 * 1000, 0);
            let mut json = b"before".to_vec();
            write(&file, &mut json).unwrap();
            prop_assert_eq!(&json[6..], written_at_length(&file));
        }
    }

    #[test]
    fn the_usual_file_goes_the_short_way() {
        let usual = file(b"a b.txt".to_vec(), (1000, "ann"), [7, 0, 1, 0o644]);
        assert!(is_usual(&usual));
        assert!(!is_usual(&Node { name: b"a<".to_vec(), ..usual.clone() }));
        assert!(!is_usual(&Node { name: "ü".into(), ..usual.clone() }));
        assert!(!is_usual(&Node { user: String::new(), ..usual }));
    }
}
