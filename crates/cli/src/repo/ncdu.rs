//! The format in which `ncdu` exports and imports: nested JSON arrays.
//!
//! # Source
//! <https://dev.yorhel.nl/ncdu/jsonfmt>; restic, `cmd/restic/cmd_ls.go`.

use std::io::Write;

use muster_repository::format::{
    go_json::{self, RawText},
    mode::unix_mode,
    snapshot::Snapshot,
    tree::{Node, NodeKind},
};
use serde::Serialize;

use crate::{
    error::Failure,
    output::{Results, output_failure},
};

/// ncdu counts space in blocks of this size.
const BLOCK_BYTES: u64 = 512;

/// An export under way.
pub(super) struct Ncdu {
    depth: usize,
}

#[derive(Serialize)]
struct NcduNode<'a> {
    name: RawText<'a>,
    asize: u64,
    dsize: u64,
    dev: u64,
    ino: u64,
    nlink: u64,
    notreg: bool,
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: i64,
}

impl Ncdu {
    /// Begins an export; the snapshot goes into its header.
    pub(super) fn begin(results: &mut Results, snapshot: &Snapshot) -> Result<Self, Failure> {
        let about = json(snapshot)?;
        write!(results, "[1, 2, {about}, [{{\"name\":\"/\"}}").map_err(output_failure)?;
        Ok(Self { depth: 1 })
    }

    /// Writes an entry; a folder stays open until [`Ncdu::left`].
    pub(super) fn entry(&mut self, results: &mut Results, node: &Node) -> Result<(), Failure> {
        let size = if node.kind == NodeKind::File { node.size } else { 0 };
        let line = json(&NcduNode {
            name: RawText(&node.name),
            asize: size,
            dsize: size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES),
            dev: node.device_id,
            ino: node.inode,
            nlink: node.links,
            notreg: !matches!(node.kind, NodeKind::Dir | NodeKind::File),
            uid: node.uid,
            gid: node.gid,
            mode: unix_mode(node.mode),
            // ncdu knows no time before 1970.
            mtime: node.mtime.seconds().max(0),
        })?;
        let indent = "  ".repeat(self.depth);
        let written = match node.kind {
            NodeKind::Dir => {
                self.depth += 1;
                write!(results, ",\n{indent}[\n{indent}  {line}")
            }
            _ => write!(results, ",\n{indent}{line}"),
        };
        written.map_err(output_failure)
    }

    /// Closes a folder.
    pub(super) fn left(&mut self, results: &mut Results) -> Result<(), Failure> {
        self.depth -= 1;
        write!(results, "\n{}]", "  ".repeat(self.depth)).map_err(output_failure)
    }

    /// Ends the export.
    pub(super) fn end(self, results: &mut Results) -> Result<(), Failure> {
        results.write_all(b"\n]\n]\n").map_err(output_failure)
    }
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    let json = go_json::to_vec(value).map_err(|error| output_failure(error.into()))?;
    Ok(String::from_utf8_lossy(&json).into_owned())
}
