//! How an entry of a snapshot is shown on one line.
//!
//! # Source
//! restic, `cmd/restic/format.go`.

use jiff::tz::TimeZone;
use muster_model::units::format_size;
use muster_repository::{
    format::{mode::go_mode, tree::NodeKind},
    ls::permissions,
    tree_walk::Entry,
};

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
    entry: &Entry,
    style: Style<'_>,
) -> Result<(), Failure> {
    let Entry { path, node, .. } = entry;
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
        permissions(node.mode | go_mode(node.kind, 0)),
        node.uid,
        node.gid,
        local_time(&node.mtime, style.zone),
    );
    match node.kind {
        NodeKind::Symlink => results.name_line(&before, path, " -> ", &node.link_target),
        _ => results.name_line(&before, path, "", b""),
    }
}
