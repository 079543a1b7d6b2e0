//! Which processes belong to a child: its group, its descendants, and what slipped away.
//!
//! A process can leave its group (`setpgid`, `setsid`) and its parent (by outliving it). It is
//! still found, by whichever of these holds:
//!
//! 1. It is the child itself: same pid, same start.
//! 2. It is in the child's group, and the child still exists, be it as a zombie. The kernel does
//!    not hand out a number that is in use as pid, group or session; so while the child is there
//!    the group's number means this group.
//! 3. The child is gone, and it is in a group of that number, in the child's session, started no
//!    earlier, and carries the mark or works in the child's directory. Number, session and time
//!    alone could belong to a stranger once the numbers have wrapped round; so without mark or
//!    directory it is left alone. If any process has the number as its pid, the number was free
//!    in between, and no group of it is ours.
//! 4. It carries the mark: [`MARK_VARIABLE`] in its environment, where a random text is only found
//!    by inheritance. This finds daemons that forked twice, unless they cleared or overwrote
//!    their environment (PostgreSQL and nginx do; rule 5 finds those).
//! 5. Its parent belongs, or the leader of its session or group does; or it was found by these
//!    rules before. Who looks often ([`Kin`] remembers) misses only what breaks away and clears
//!    its environment between two looks.
//!
//! Signals are sent through a pid descriptor that is opened first and checked then, so that a
//! number that changes hands in between hits nobody.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{self, Read},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

#[cfg(doc)]
use super::identity::MARK_VARIABLE;
use super::{
    identity::ChildIdentity,
    table::{self, Process, Table},
};

/// How often [`kill_all`] looks: who forks faster than that is not caught this way.
const LOOKS_MAX: usize = 1000;

/// How long a process that shows no environment is looked at: one that has changed its program
/// while its environment was read has one again well within that.
const SETTLED_AFTER: Duration = Duration::from_millis(50);

/// How often at least it is looked at.
const EMPTY_LOOKS_MIN: usize = 10;

/// The same for one that is seen to be changing its program: that waits for a processor, and for
/// the disk that the program comes from.
const EXECVE_MAX: Duration = Duration::from_secs(2);

/// Finds the processes of some children, again and again.
#[derive(Debug, Default)]
pub(crate) struct Kin {
    children: Vec<ChildIdentity>,
    groups: Vec<u32>,
    /// Found before: pid and start.
    known: HashMap<u32, u64>,
    /// Looked at and found without a mark: pid and start.
    strangers: HashMap<u32, u64>,
}

impl Kin {
    pub(crate) fn of(child: &ChildIdentity) -> Self {
        Self { children: vec![child.clone()], ..Self::default() }
    }

    /// Follows whoever is in these groups or sessions now, with no proof of whose they are.
    pub(crate) fn of_groups(groups: &[u32]) -> Self {
        let groups = groups.iter().copied().filter(|group| *group > 1).collect();
        Self { groups, ..Self::default() }
    }

    pub(crate) fn add(&mut self, child: &ChildIdentity) {
        self.children.push(child.clone());
        // A stranger to the others may belong to this one.
        self.strangers.clear();
    }

    /// Finds all that run now.
    ///
    /// # Errors
    /// Fails when `/proc` cannot be listed.
    pub(crate) fn find(&mut self) -> io::Result<Vec<Process>> {
        Ok(self.find_in(&Table::read()?))
    }

    fn find_in(&mut self, table: &Table) -> Vec<Process> {
        let own = std::process::id();
        let candidates: Vec<&Process> =
            table.iter().filter(|process| process.pid != own && process.pid > 1).collect();
        let mut members = BTreeSet::new();
        for process in &candidates {
            if self.belongs(process, table) {
                members.insert(process.pid);
            }
        }
        add_relatives(&mut members, &candidates, table);
        let found = candidates.into_iter().filter(|process| members.contains(&process.pid));
        let found: Vec<Process> = found.copied().collect();
        self.known = found.iter().map(|process| (process.pid, process.started)).collect();
        self.strangers.retain(|pid, started| {
            table.get(*pid).is_some_and(|process| process.started == *started)
        });
        found.into_iter().filter(|process| !process.ended).collect()
    }

    /// Rules 1 to 4, and who was found before.
    fn belongs(&mut self, process: &Process, table: &Table) -> bool {
        if self.known.get(&process.pid) == Some(&process.started) {
            return true;
        }
        if self.groups.iter().any(|group| [process.group, process.session].contains(group)) {
            return true;
        }
        self.children.iter().any(|child| in_group(child, process, table)) || self.has_mark(process)
    }

    fn has_mark(&mut self, process: &Process) -> bool {
        let may_be = |child: &&ChildIdentity| {
            process.started >= child.start_time && process.pid != child.pid
        };
        if !self.children.iter().any(|child| may_be(&child))
            || self.strangers.get(&process.pid) == Some(&process.started)
        {
            return false;
        }
        // What cannot be known now may be at the next look.
        let Some(environment) = environment(process.pid) else { return false };
        let marked = self.children.iter().filter(may_be).any(|child| bears(&environment, child));
        if !marked {
            self.strangers.insert(process.pid, process.started);
        }
        marked
    }
}

/// Rules 1 to 3.
fn in_group(child: &ChildIdentity, process: &Process, table: &Table) -> bool {
    if process.pid == child.pid {
        return child.is(process);
    }
    if process.group != child.pgid || process.started < child.start_time {
        return false;
    }
    match table.get(child.pid) {
        Some(holder) => child.is(holder),
        None => process.session == child.session && is_evidently_of(child, process.pid),
    }
}

fn is_evidently_of(child: &ChildIdentity, pid: u32) -> bool {
    environment(pid).is_some_and(|environment| bears(&environment, child))
        || works_in(pid, &child.dir)
}

fn works_in(pid: u32, dir: &Path) -> bool {
    dir.parent().is_some()
        && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at.starts_with(dir))
}

/// The environment that a process was started with; an empty one when it may not be read, `None`
/// when it is not known yet.
///
/// In the midst of execve(2) a process shows none for a moment, whatever it will have, and so does
/// one whose memory was exchanged between opening and reading: who took that for an answer would
/// overlook it. So nothing is believed only when it stays.
fn environment(pid: u32) -> Option<Vec<u8>> {
    let (start, mut looks) = (Instant::now(), 0);
    loop {
        let Ok(environment) = read_environment(pid) else { return Some(Vec::new()) };
        let is_settled = !environment.is_empty() || !table::is_program(pid);
        if is_settled {
            return Some(environment);
        }
        // Between two looks another process may have had the processor for long, so time alone says
        // nothing of this one.
        let is_in_execve = table::is_in_execve(pid);
        looks += usize::from(!is_in_execve);
        let (longest, fewest) =
            if is_in_execve { (EXECVE_MAX, 0) } else { (SETTLED_AFTER, EMPTY_LOOKS_MIN) };
        if start.elapsed() >= longest && looks >= fewest {
            return (!is_in_execve).then_some(environment);
        }
        thread::yield_now();
    }
}

/// Reads the environment by one call, since what the next one finds may be another program's: the
/// kernel then says that there is no more, and the mark may stand in what is missing.
fn read_environment(pid: u32) -> io::Result<Vec<u8>> {
    let mut room = 64 << 10;
    loop {
        let mut environment = vec![0; room];
        let read = fs::File::open(format!("/proc/{pid}/environ"))?.read(&mut environment)?;
        if read < room {
            environment.truncate(read);
            return Ok(environment);
        }
        room *= 4;
    }
}

fn bears(environment: &[u8], child: &ChildIdentity) -> bool {
    let mark = child.mark.as_bytes();
    !mark.is_empty() && environment.windows(mark.len()).any(|window| window == mark)
}

/// Rule 5: adds descendants, and the groups and sessions that members lead.
fn add_relatives(members: &mut BTreeSet<u32>, candidates: &[&Process], table: &Table) {
    let follows = |members: &BTreeSet<u32>, process: &Process, leader: u32| {
        members.contains(&leader)
            && table.get(leader).is_some_and(|leader| leader.started <= process.started)
    };
    loop {
        let before = members.len();
        for process in candidates {
            let leaders = [process.parent, process.group, process.session];
            if leaders.iter().any(|leader| follows(members, process, *leader)) {
                members.insert(process.pid);
            }
        }
        if members.len() == before {
            return;
        }
    }
}

/// Sends a signal to this process, and to nobody who got its number meanwhile.
pub(crate) fn send(process: &Process, signal: Signal) {
    let raw = i32::try_from(process.pid).ok().filter(|raw| *raw > 1);
    let Some(pid) = raw.and_then(Pid::from_raw) else { return };
    let descriptor = pidfd_open(pid, PidfdFlags::empty());
    if table::look_up(process.pid).is_none_or(|now| now.started != process.started) {
        return;
    }
    // A failure means that it ended meanwhile or is not ours: the next look tells which.
    match descriptor {
        Ok(descriptor) => pidfd_send_signal(descriptor, signal).ok(),
        Err(rustix::io::Errno::SRCH) => None,
        // No descriptor to be had; the check above was a moment ago.
        Err(_) => kill_process(pid, signal).ok(),
    };
}

/// Kills all, without waiting: ends when a look finds nobody who was not killed yet. One with a
/// SIGKILL pending cannot fork any more, so nobody is born behind such a look.
pub(crate) fn kill_all(kin: &mut Kin) {
    let mut killed = BTreeSet::new();
    for _ in 0..LOOKS_MAX {
        let Ok(found) = kin.find() else { return };
        let new: Vec<&Process> =
            found.iter().filter(|process| killed.insert((process.pid, process.started))).collect();
        if new.is_empty() {
            return;
        }
        new.into_iter().for_each(|process| send(process, Signal::KILL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child() -> ChildIdentity {
        ChildIdentity {
            pid: 9_000_001,
            pgid: 9_000_001,
            session: 500,
            start_time: 1000,
            boot_id: "boot".to_owned(),
            mark: "a mark".to_owned(),
            argv: vec!["sleep".to_owned()],
            dir: "/nonexistent/target".into(),
        }
    }

    /// Pids that no process of this machine has: their environment and directory are unknown.
    fn process(pid: u32, parent: u32, group: u32, session: u32, started: u64) -> Process {
        let pid = 9_000_000 + pid;
        Process { pid, parent: 9_000_000 + parent, group, session, started, ended: false }
    }

    fn found(kin: &mut Kin, processes: &[Process]) -> Vec<u32> {
        let found = kin.find_in(&Table::of(processes));
        found.into_iter().map(|process| process.pid - 9_000_000).collect()
    }

    #[test]
    fn group_and_descendants_belong() {
        let mut kin = Kin::of(&child());
        let processes = [
            process(1, 0, 9_000_001, 500, 1000),
            process(2, 1, 9_000_001, 500, 1001),
            process(3, 2, 9_000_003, 9_000_003, 1002),
            process(4, 99, 9_000_003, 9_000_003, 1003),
            process(5, 99, 9_000_005, 500, 1003),
        ];
        assert_eq!(found(&mut kin, &processes), [1, 2, 3, 4]);
        // Its parents gone, the one that left the group is still known.
        assert_eq!(found(&mut kin, &processes[2..]), [3, 4]);
    }

    #[test]
    fn who_got_the_number_later_is_a_stranger() {
        let reused = process(1, 0, 9_000_001, 500, 5000);
        let beside = process(2, 1, 9_000_001, 500, 5001);
        assert!(found(&mut Kin::of(&child()), &[reused, beside]).is_empty());
    }

    #[test]
    fn a_group_without_its_leader_needs_evidence() {
        let orphan = process(2, 99, 9_000_001, 500, 1001);
        assert!(found(&mut Kin::of(&child()), &[orphan]).is_empty());
    }

    #[test]
    fn ended_processes_lead_but_are_not_told() {
        let leader = Process { ended: true, ..process(1, 0, 9_000_001, 500, 1000) };
        let member = process(2, 99, 9_000_001, 500, 1001);
        assert_eq!(found(&mut Kin::of(&child()), &[leader, member]), [2]);
    }

    #[test]
    fn nobody_follows_a_leader_younger_than_himself() {
        let leader = process(1, 0, 9_000_001, 500, 1000);
        let older = process(2, 1, 7, 7, 900);
        assert_eq!(found(&mut Kin::of(&child()), &[leader, older]), [1]);
    }

    #[test]
    fn group_numbers_that_mean_everybody_are_refused() {
        let kin = Kin::of_groups(&[0, 1]);
        assert!(kin.groups.is_empty());
    }
}
