//! Who a child is, so that a later run of Muster can tell it from a stranger.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::table::{self, Process};

/// The variable that every child and whatever it starts carries.
pub(crate) const MARK_VARIABLE: &str = "MUSTER_CHILD";

/// A child, named so that it can be found again and nothing else be taken for it.
///
/// A pid alone names nobody: numbers come back. With the boot it belongs to and the tick at which
/// it started it names one process for good. What the child itself started is known by the group,
/// by descent and by the mark (see [`end_recorded`](crate::process::end_recorded)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildIdentity {
    /// Its process id.
    pub pid: u32,
    /// The process group that it leads; equal to `pid`.
    pub pgid: u32,
    /// The session in which it was started.
    pub session: u32,
    /// Clock ticks from boot to its start: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
    /// The kernel's name for the run of the machine: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// A random text in the environment of the child and, by inheritance, of what it starts.
    pub mark: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its working directory.
    pub dir: PathBuf,
}

impl ChildIdentity {
    /// Reads the identity of a child that was just started as the leader of its group.
    pub(super) fn of(pid: u32, mark: String, argv: Vec<String>, dir: PathBuf) -> io::Result<Self> {
        let boot_id = table::boot_id()?;
        let process = table::look_up(pid).ok_or(io::ErrorKind::NotFound)?;
        let Process { group: pgid, session, started: start_time, .. } = process;
        Ok(Self { pid, pgid, session, start_time, boot_id, mark, argv, dir })
    }

    /// Whether this is the very process, not one that got its number later.
    pub(crate) fn is(&self, process: &Process) -> bool {
        process.pid == self.pid && process.started == self.start_time
    }
}

/// Makes a mark that no other child of any run has.
///
/// # Errors
/// Fails when the kernel gives none.
pub(super) fn new_mark() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// The value of [`MARK_VARIABLE`] for a child: where Muster is itself the child of another
/// Muster, the outer mark stays readable.
pub(super) fn mark_value(mark: &str) -> String {
    match std::env::var(MARK_VARIABLE) {
        Ok(outer) if !outer.is_empty() => format!("{outer},{mark}"),
        _ => mark.to_owned(),
    }
}
