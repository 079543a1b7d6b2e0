//! Which process this is, and whether another one still lives.
//!
//! A number alone says little: numbers are reused. With the start time and the machine's boot
//! it names one process for ever.

use std::fs;

use crate::records::ProcessRecord;

/// This process.
#[must_use]
pub(crate) fn this_process() -> ProcessRecord {
    let pid = std::process::id();
    ProcessRecord { pid, start_time: start_time(pid).unwrap_or_default(), boot: boot_id() }
}

/// Whether a recorded process still lives.
#[must_use]
pub(crate) fn lives(process: &ProcessRecord) -> bool {
    process.boot == boot_id() && start_time(process.pid) == Some(process.start_time)
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Field 22 of `/proc/PID/stat` (proc(5)); the name in field 2 may hold blanks and brackets.
/// A zombie is dead: nobody has waited for it yet.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_of_its_number() {
        let this = this_process();
        assert!(lives(&this));
        assert!(!lives(&ProcessRecord { start_time: this.start_time + 1, ..this.clone() }));
        assert!(!lives(&ProcessRecord { boot: "another".to_owned(), ..this }));
    }
}
