//! How entries of a snapshot are shown: as a line, as a long line, as restic's JSON.
//!
//! # Source
//! restic, `cmd/restic/format.go`, `cmd_ls.go`; Go, `io/fs`, `FileMode.String`.

use jiff::tz::TimeZone;
use muster_model::units::format_size;
use muster_repository::format::{
    mode::{go_mode, unix_mode},
    time::Timestamp,
    tree::{Node, NodeKind},
};
use serde::Serialize;

use crate::{
    error::Failure,
    output::{Results, local_time},
};

/// How entries are listed for people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style<'a> {
    /// With mode, owner, size and time.
    pub(super) long: bool,
    /// Sizes with units.
    pub(super) human: bool,
    /// The zone in which times are shown.
    pub(super) zone: &'a TimeZone,
}

/// Writes one line for an entry.
pub(super) fn write_line(
    results: &mut Results,
    path: &[u8],
    node: &Node,
    style: Style<'_>,
) -> Result<(), Failure> {
    if !style.long {
        return results.name_line("", path, "", b"");
    }
    let bytes = if node.kind == NodeKind::File { node.size } else { 0 };
    let size = match style.human {
        true => format!("{:>9}", format_size(bytes)),
        false => format!("{bytes:>6}"),
    };
    let before = format!(
        "{} {:>5} {:>5} {size} {} ",
        permissions(node),
        node.uid,
        node.gid,
        local_time(&node.mtime, style.zone),
    );
    match node.kind {
        NodeKind::Symlink => results.name_line(&before, path, " -> ", &node.link_target),
        _ => results.name_line(&before, path, "", b""),
    }
}

/// Go's text form of a mode: `-rw-r--r--`, `dtrwxrwxrwx`, `Lrwxrwxrwx`.
pub(super) fn permissions(node: &Node) -> String {
    // Go's letters for the bits from 31 down.
    const LETTERS: &[u8] = b"dalTLDpSugct?";
    const PERMISSIONS: &[u8] = b"rwxrwxrwx";
    let mode = node.mode | go_mode(node.kind, 0);
    let flags = (0..LETTERS.len()).filter(|bit| mode & (1 << (31 - bit)) != 0);
    let mut text: String = flags.map(|bit| char::from(LETTERS[bit])).collect();
    if text.is_empty() {
        text.push('-');
    }
    for (index, letter) in PERMISSIONS.iter().enumerate() {
        let set = unix_mode(mode) & (1 << (8 - index)) != 0;
        text.push(if set { char::from(*letter) } else { '-' });
    }
    text
}

/// An entry as `ls --json` lists it.
#[derive(Debug, Serialize)]
pub(super) struct NodeJson<'a> {
    name: String,
    #[serde(rename = "type")]
    kind: NodeKind,
    path: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mode: u32,
    permissions: String,
    mtime: &'a Timestamp,
    atime: &'a Timestamp,
    ctime: &'a Timestamp,
    #[serde(skip_serializing_if = "is_zero")]
    inode: u64,
    message_type: &'static str,
    struct_type: &'static str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> NodeJson<'a> {
    /// The JSON form of an entry. Bytes that are no UTF-8 are replaced, as Go does.
    pub(super) fn new(path: &[u8], node: &'a Node) -> Self {
        Self {
            name: text(&node.name),
            kind: node.kind,
            path: text(path),
            uid: node.uid,
            gid: node.gid,
            size: (node.kind == NodeKind::File).then_some(node.size),
            mode: node.mode,
            permissions: permissions(node),
            mtime: &node.mtime,
            atime: &node.atime,
            ctime: &node.ctime,
            inode: node.inode,
            message_type: "node",
            struct_type: "node",
        }
    }
}

/// A match as `find --json` lists it.
#[derive(Debug, Serialize)]
pub(super) struct MatchJson<'a> {
    path: String,
    permissions: String,
    #[serde(rename = "type")]
    kind: NodeKind,
    mode: u32,
    mtime: &'a Timestamp,
    atime: &'a Timestamp,
    ctime: &'a Timestamp,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    device_id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    links: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    linktarget: String,
}

impl<'a> MatchJson<'a> {
    /// The JSON form of a match.
    pub(super) fn new(path: &[u8], node: &'a Node) -> Self {
        Self {
            path: text(path),
            permissions: permissions(node),
            kind: node.kind,
            mode: node.mode,
            mtime: &node.mtime,
            atime: &node.atime,
            ctime: &node.ctime,
            uid: node.uid,
            gid: node.gid,
            user: &node.user,
            group: &node.group,
            inode: node.inode,
            device_id: node.device_id,
            size: node.size,
            links: node.links,
            linktarget: text(&node.link_target),
        }
    }
}

/// Bytes as JSON can hold them.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_by_go() {
        let check = |kind, mode, expected: &str| {
            let mut node = Node::new(b"x".to_vec(), kind);
            node.mode = go_mode(kind, mode);
            assert_eq!(permissions(&node), expected);
        };
        check(NodeKind::File, 0o644, "-rw-r--r--");
        check(NodeKind::File, 0o4755, "urwxr-xr-x");
        check(NodeKind::File, 0o2755, "grwxr-xr-x");
        check(NodeKind::Dir, 0o1777, "dtrwxrwxrwx");
        check(NodeKind::Symlink, 0o777, "Lrwxrwxrwx");
        check(NodeKind::Fifo, 0o600, "prw-------");
        check(NodeKind::Socket, 0o600, "Srw-------");
        check(NodeKind::BlockDevice, 0o660, "Drw-rw----");
        check(NodeKind::CharDevice, 0o660, "Dcrw-rw----");
    }
}
