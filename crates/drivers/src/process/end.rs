//! Ending children: those of this run, and those that a killed run left behind.

use std::{collections::BTreeSet, io, process::ExitStatus, time::Duration};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{
    identity::ChildIdentity,
    kin::{Kin, send},
    table::{self, Process},
};

/// Between two looks at who is left: first and longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
/// How long a killed process may take to vanish: one that waits for a dead disk never does.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// How processes came to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// None was left to end.
    WasGone,
    /// SIGTERM was enough.
    Terminated,
    /// Some had to be killed.
    Killed,
    /// Some are left: not ours to signal, or stuck in the kernel.
    Remains,
}

/// What became of a child and all that belonged to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Ended {
    /// How they ended.
    pub how: How,
    /// How the child itself ended; `None` when it did not.
    pub status: Option<ExitStatus>,
    /// Who is left; empty but for [`How::Remains`].
    pub left: Vec<u32>,
}

/// How a run to the end went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum RunEnd {
    /// It ended by itself.
    Exited(ExitStatus),
    /// It was ended because its time was over.
    TimedOut(Ended),
}

/// What became of a child of an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It, or what it had left behind, ran and was ended.
    Ended,
    /// Nothing of it ran any more.
    WasGone,
    /// Another process has its number now, and nothing of it runs any more. Nobody was
    /// signalled.
    NotOurs,
    /// These could not be ended: not ours to signal, or stuck in the kernel.
    Remains(Vec<u32>),
}

/// Ends what a run of Muster that was killed left behind, and nobody else.
///
/// SIGTERM first, SIGKILL to those left after `grace`; returns when none is left. Who belongs:
///
/// - The child: same boot, same pid, same start. After a reboot nothing is left by definition.
/// - While the child exists, its group: the kernel gives no number out that is in use.
/// - When it is gone, members of a group of its number only in the same session, not older,
///   *and* with its mark in their environment or working in its directory. When another
///   process has its number, the number was free in between and the group is not ours.
/// - Whoever carries the mark: random, and found only by inheritance.
/// - Descendants of all these.
///
/// What this misses: a process that left group and parent behind *and* cleared its environment
/// before anybody looked. What it cannot hit: a process that the child did not start. Signals
/// go through pid descriptors, so that not even a number that changes hands meanwhile does.
///
/// # Errors
/// Fails when `/proc` cannot be read.
pub async fn end_recorded(child: &ChildIdentity, grace: Duration) -> io::Result<Outcome> {
    if table::boot_id()? != child.boot_id {
        return Ok(Outcome::WasGone);
    }
    let (how, left) = end_kin(&mut Kin::of(child), grace).await?;
    Ok(match how {
        How::Terminated | How::Killed => Outcome::Ended,
        How::Remains => Outcome::Remains(left),
        How::WasGone => match table::look_up(child.pid) {
            Some(process) if !child.is(&process) => Outcome::NotOurs,
            _ => Outcome::WasGone,
        },
    })
}

/// Whether the child itself still runs: the same process, not one that got its number later.
#[must_use]
pub fn lives(child: &ChildIdentity) -> bool {
    let is_this_boot = table::boot_id().is_ok_and(|boot| boot == child.boot_id);
    is_this_boot
        && table::look_up(child.pid).is_some_and(|process| child.is(&process) && !process.ended)
}

/// Ends all that belongs, and tells who is left.
pub(super) async fn end_kin(kin: &mut Kin, grace: Duration) -> io::Result<(How, Vec<u32>)> {
    if kin.find()?.is_empty() {
        return Ok((How::WasGone, Vec::new()));
    }
    if until_gone(kin, Signal::TERM, grace).await?.is_empty() {
        return Ok((How::Terminated, Vec::new()));
    }
    let left = until_gone(kin, Signal::KILL, KILLED_WITHIN).await?;
    let how = if left.is_empty() { How::Killed } else { How::Remains };
    Ok((how, left))
}

/// Signals each process once, also those that appear meanwhile, until none is left or the
/// time is over; tells who is left.
async fn until_gone(kin: &mut Kin, signal: Signal, limit: Duration) -> io::Result<Vec<u32>> {
    let deadline = Instant::now() + limit;
    let mut signalled = BTreeSet::new();
    let mut pause = LOOKS.0;
    loop {
        let found = kin.find()?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        for process in &found {
            if signalled.insert((process.pid, process.started)) {
                tell(process, signal);
            }
        }
        if Instant::now() >= deadline {
            return Ok(found.iter().map(|process| process.pid).collect());
        }
        sleep(pause.min(deadline - Instant::now())).await;
        pause = (pause * 2).min(LOOKS.1);
    }
}

fn tell(process: &Process, signal: Signal) {
    send(process, signal);
    if signal == Signal::TERM {
        // One that is stopped does not hear it otherwise.
        send(process, Signal::CONT);
    }
}
