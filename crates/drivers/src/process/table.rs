//! The processes of this machine at one instant, from `/proc`.

use std::{collections::BTreeMap, fs, io};

/// A process, as `/proc/PID/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    /// Clock ticks from boot to its start. Together with the pid it names a process for as
    /// long as the machine runs: a number comes back only after all others were used, which
    /// takes longer than a tick.
    pub(crate) started: u64,
    /// It ran to its end and only waits for its parent to ask how: it holds nothing any more.
    pub(crate) ended: bool,
}

/// All processes by pid.
#[derive(Debug, Default)]
pub(crate) struct Table {
    processes: BTreeMap<u32, Process>,
}

impl Table {
    /// Reads the table. Processes that vanish meanwhile are left out.
    ///
    /// # Errors
    /// Fails when `/proc` cannot be listed.
    pub(crate) fn read() -> io::Result<Self> {
        let mut processes = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok());
            if let Some(process) = pid.and_then(look_up) {
                processes.insert(process.pid, process);
            }
        }
        Ok(Self { processes })
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    #[cfg(test)]
    pub(crate) fn of(processes: &[Process]) -> Self {
        Self { processes: processes.iter().map(|process| (process.pid, *process)).collect() }
    }
}

/// Looks one process up.
pub(crate) fn look_up(pid: u32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether a process is in the midst of execve(2): the old program is gone, and arguments and
/// environment of the new one have no place in its memory yet. To be asked only about a process
/// whose environment may be read.
pub(crate) fn is_in_execve(pid: u32) -> bool {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    has_memory(&line) && field(&line, ENV_END) == Some(0)
}

/// Whether a process runs a program: it is no thread of the kernel, and has not ended.
pub(crate) fn is_program(pid: u32) -> bool {
    has_memory(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
}

/// The field `env_end` of `/proc/PID/stat`; also 0 of a process that may not be traced.
const ENV_END: usize = 51;

/// # Source
/// proc_pid_stat(5): `flags` is field 9; `PF_KTHREAD` is 0x200000 in the kernel's `sched.h`.
fn has_memory(line: &str) -> bool {
    const FLAGS: usize = 9;
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let state = line.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    let has_ended = state.is_none_or(|state| matches!(state, "Z" | "X" | "x"));
    !has_ended && field(line, FLAGS).is_some_and(|flags| flags & KERNEL_THREAD == 0)
}

/// A number of a line of `/proc/PID/stat`, counted as the manual does.
fn field(line: &str, field: usize) -> Option<u64> {
    line.rsplit_once(')')?.1.split_ascii_whitespace().nth(field - 3)?.parse().ok()
}

/// Reads a line of `/proc/PID/stat`.
///
/// # Source
/// proc_pid_stat(5). The second field is the program's name in parentheses, and the name may
/// hold parentheses and spaces: what follows counts from the last one.
fn parse(pid: u32, line: &str) -> Option<Process> {
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // Field 3 of the manual is the first one here.
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let id = |field| Some(number(field).and_then(|id| u32::try_from(id).ok()).unwrap_or(0));
    let state = *fields.first()?;
    // A process whose first thread ended shows as a zombie while its others run on.
    let ended = matches!(state, "Z" | "X" | "x") && number(20)? <= 1;
    let started = fields.get(22 - 3)?.parse().ok()?;
    Some(Process { pid, parent: id(4)?, group: id(5)?, session: id(6)?, started, ended })
}

/// The kernel's name for this run of the machine.
///
/// # Errors
/// Fails when `/proc` does not tell.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "0 -1 4194560 1 0 0 0 0 0 0 0 20 0 THREADS 0 777 0 0";

    fn line(name: &str, state: &str, threads: &str) -> String {
        format!("42 ({name}) {state} 7 41 40 {}", TAIL.replace("THREADS", threads))
    }

    #[test]
    fn names_may_hold_anything() {
        for name in ["sh", "a b", ") Z 1 1 1 (", "((", ""] {
            let process = parse(42, &line(name, "S", "1")).unwrap();
            let expected =
                Process { pid: 42, parent: 7, group: 41, session: 40, started: 777, ended: false };
            assert_eq!(process, expected, "{name}");
        }
    }

    #[test]
    fn a_zombie_with_threads_still_runs() {
        assert!(parse(42, &line("sh", "Z", "1")).unwrap().ended);
        assert!(!parse(42, &line("sh", "Z", "2")).unwrap().ended);
    }

    #[test]
    fn who_has_no_environment_yet_is_told_from_who_has_none() {
        let line = |state: &str, flags: &str, end: &str| {
            let addresses = "1 2 3 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 4 5 6 7 8 9";
            let times = "1 0 0 0 0 0 0 0 20 0 1 0 777 0 0 0";
            format!("42 (sh) {state} 7 41 40 0 -1 {flags} {times} {addresses} {end} 0")
        };
        assert_eq!(field(&line("R", "4194304", "0"), ENV_END), Some(0));
        assert_eq!(
            field(&line("R", "4194304", "140726335037419"), ENV_END),
            Some(140_726_335_037_419)
        );
        assert!(has_memory(&line("R", "4194304", "0")));
        assert!(!has_memory(&line("Z", "4194304", "0")), "it has ended");
        assert!(!has_memory(&line("S", "2129984", "0")), "a thread of the kernel never has one");
        assert!(!has_memory(""));
        assert!(is_program(std::process::id()) && !is_in_execve(std::process::id()));
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = Table::read().unwrap().get(std::process::id()).copied().unwrap();
        assert_eq!(Some(own), look_up(std::process::id()));
        assert!(own.started > 0 && !own.ended);
    }
}
