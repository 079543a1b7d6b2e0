//! The walk goes ahead of who decides: what it finds is handed over in batches.
//!
//! The walk's time is the kernel's, that of the decisions is spent on comparing; where nothing has
//! changed, neither is a small part. On two threads they overlap.

use std::{io, ops::Range, os::fd::OwnedFd, sync::Arc, thread};

use crossbeam_channel::{Sender, bounded};
use rustix::fs::Stat;

use super::{
    BackupError,
    walk::{Found, Visitor},
};
use crate::packer::WriteError;

/// Entries of a batch. A `stat` takes some microseconds, a hand-over to another thread too.
const STEPS: usize = 256;
/// Folders of a batch, each with an open descriptor. Files that are named one by one may each have
/// another.
const FOLDERS: usize = 16;
/// Batches that wait.
const BATCHES_AHEAD: usize = 2;

/// Lets `walk` tell on a thread of its own what `visitor` is told on this one, in the same order.
///
/// # Errors
/// Fails as the visitor does, and as the walk does.
pub(super) fn relay(
    walk: impl FnOnce(&mut dyn Visitor) -> Result<(), BackupError> + Send,
    visitor: &mut dyn Visitor,
) -> Result<(), BackupError> {
    let (batches, to_tell) = bounded::<Batch>(BATCHES_AHEAD);
    thread::scope(|scope| {
        let walking = scope.spawn(move || {
            let mut relay = Relay { batch: Batch::default(), batches };
            walk(&mut relay)?;
            relay.hand_over()
        });
        // Afterwards nobody listens any more, and the walk ends if it has not.
        let told = to_tell.into_iter().try_for_each(|batch| batch.tell(visitor));
        let walked = walking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        told.and(walked)
    })
}

#[derive(Default)]
struct Batch {
    /// Names and paths.
    text: Vec<u8>,
    steps: Vec<Step>,
    folders: usize,
}

enum Step {
    Enter {
        stored_name: Range<usize>,
        path: Range<usize>,
        stat: Box<Stat>,
        open: Option<Arc<OwnedFd>>,
    },
    Entry {
        folder: Arc<OwnedFd>,
        name: Range<usize>,
        stored_name: Range<usize>,
        path: Range<usize>,
        stat: Stat,
    },
    Leave,
    Problem {
        path: Range<usize>,
        operation: &'static str,
        error: io::Error,
    },
    Notice(String),
}

impl Step {
    fn folder(&self) -> Option<&Arc<OwnedFd>> {
        match self {
            Self::Enter { open, .. } => open.as_ref(),
            Self::Entry { folder, .. } => Some(folder),
            Self::Leave | Self::Problem { .. } | Self::Notice(_) => None,
        }
    }
}

impl Batch {
    fn add(&mut self, text: &[u8]) -> Range<usize> {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        start..self.text.len()
    }

    fn tell(self, visitor: &mut dyn Visitor) -> Result<(), BackupError> {
        let text = |range: Range<usize>| &self.text[range];
        for step in self.steps {
            match step {
                Step::Enter { stored_name, path, stat, open } => {
                    visitor.enter(text(stored_name), text(path), &stat, open.as_ref())?;
                }
                Step::Entry { folder, name, stored_name, path, stat } => visitor.entry(Found {
                    folder: &folder,
                    name: text(name),
                    stored_name: text(stored_name),
                    path: text(path),
                    stat: &stat,
                })?,
                Step::Leave => visitor.leave()?,
                Step::Problem { path, operation, error } => {
                    visitor.problem(text(path), operation, error);
                }
                Step::Notice(text) => visitor.notice(text),
            }
        }
        Ok(())
    }
}

struct Relay {
    batch: Batch,
    batches: Sender<Batch>,
}

impl Relay {
    fn push(&mut self, step: Step) {
        self.batch.folders += usize::from(self.opens(&step));
        if self.batch.steps.capacity() == 0 {
            self.batch.steps.reserve_exact(STEPS);
        }
        self.batch.steps.push(step);
    }

    /// Whether a step holds another folder open than the one before.
    fn opens(&self, step: &Step) -> bool {
        let last = self.batch.steps.last().and_then(Step::folder);
        let same = |folder| last.is_some_and(|last| Arc::ptr_eq(last, folder));
        step.folder().is_some_and(|folder| !same(folder))
    }

    fn hand_over_if_full(&mut self) -> Result<(), BackupError> {
        match self.batch.steps.len() >= STEPS || self.batch.folders >= FOLDERS {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    fn hand_over(&mut self) -> Result<(), BackupError> {
        let batch = std::mem::take(&mut self.batch);
        self.batches.send(batch).map_err(|_| WriteError::Aborted.into())
    }
}

impl Visitor for Relay {
    fn enter(
        &mut self,
        stored_name: &[u8],
        path: &[u8],
        stat: &Stat,
        open: Option<&Arc<OwnedFd>>,
    ) -> Result<(), BackupError> {
        let (stored_name, path) = (self.batch.add(stored_name), self.batch.add(path));
        let stat = Box::new(*stat);
        self.push(Step::Enter { stored_name, path, stat, open: open.cloned() });
        self.hand_over_if_full()
    }

    fn entry(&mut self, found: Found<'_>) -> Result<(), BackupError> {
        let Found { folder, name, stored_name, path, stat } = found;
        let (folder, stat) = (Arc::clone(folder), *stat);
        let (name, path) = (self.batch.add(name), self.batch.add(path));
        let stored_name = match stored_name == &self.batch.text[name.clone()] {
            true => name.clone(),
            false => self.batch.add(stored_name),
        };
        self.push(Step::Entry { folder, name, stored_name, path, stat });
        self.hand_over_if_full()
    }

    fn leave(&mut self) -> Result<(), BackupError> {
        self.push(Step::Leave);
        self.hand_over_if_full()
    }

    fn problem(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
        let path = self.batch.add(path);
        self.push(Step::Problem { path, operation, error });
        // Should nobody listen any more, the next entry tells.
        drop(self.hand_over_if_full());
    }

    fn notice(&mut self, text: String) {
        self.push(Step::Notice(text));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::OwnedFd};

    use rustix::fs::fstat;

    use super::*;

    /// Writes down what it is told.
    #[derive(Default)]
    struct Log {
        lines: Vec<String>,
        fails_after: Option<usize>,
    }

    impl Log {
        fn add(&mut self, line: String) -> Result<(), BackupError> {
            self.lines.push(line);
            match self.fails_after.is_some_and(|most| self.lines.len() > most) {
                true => Err(BackupError::Stream("enough".to_owned())),
                false => Ok(()),
            }
        }
    }

    fn shown(text: &[u8]) -> String {
        String::from_utf8_lossy(text).into_owned()
    }

    impl Visitor for Log {
        fn enter(
            &mut self,
            stored_name: &[u8],
            path: &[u8],
            stat: &Stat,
            open: Option<&Arc<OwnedFd>>,
        ) -> Result<(), BackupError> {
            let same = open.is_some_and(|open| fstat(open).unwrap().st_ino == stat.st_ino);
            self.add(format!("enter {} {} {same}", shown(stored_name), shown(path)))
        }

        fn entry(&mut self, found: Found<'_>) -> Result<(), BackupError> {
            let Found { name, stored_name, path, stat, .. } = found;
            let names = [name, stored_name, path].map(shown).join(" ");
            self.add(format!("entry {names} {}", stat.st_ino))
        }

        fn leave(&mut self) -> Result<(), BackupError> {
            self.add("leave".to_owned())
        }

        fn problem(&mut self, path: &[u8], operation: &'static str, error: io::Error) {
            self.lines.push(format!("problem {} {operation} {error}", shown(path)));
        }

        fn notice(&mut self, text: String) {
            self.lines.push(format!("notice {text}"));
        }
    }

    /// Forty folders with ten entries each, and all else that can be told.
    fn visit(visitor: &mut dyn Visitor) -> Result<(), BackupError> {
        let folder = tempfile::tempdir().unwrap();
        let open: Arc<OwnedFd> = Arc::new(fs::File::open(folder.path()).unwrap().into());
        let stat = &fstat(&open).unwrap();
        for at in 0..40 {
            let (name, path) = (format!("d{at}"), format!("/top/d{at}"));
            visitor.enter(name.as_bytes(), path.as_bytes(), stat, Some(&open))?;
            for entry in 0..10 {
                let (name, stored_name) = (format!("e{entry}"), format!("e{}", entry / 9 * 9));
                let (name, stored_name) = (name.as_bytes(), stored_name.as_bytes());
                let path = [path.as_bytes(), b"/", name].concat();
                visitor.entry(Found { folder: &open, name, stored_name, path: &path, stat })?;
            }
            visitor.problem(path.as_bytes(), "list", io::ErrorKind::NotFound.into());
            visitor.leave()?;
        }
        visitor.notice("the end".to_owned());
        Ok(())
    }

    /// Counts the descriptors of this process.
    #[derive(Default)]
    struct MostOpen(usize);

    impl Visitor for MostOpen {
        fn entry(&mut self, _: Found<'_>) -> Result<(), BackupError> {
            self.0 = self.0.max(fs::read_dir("/proc/self/fd").unwrap().count());
            Ok(())
        }
    }

    #[test]
    fn files_that_lie_in_a_thousand_folders_do_not_hold_them_open_together() {
        let folder = tempfile::tempdir().unwrap();
        let visit = |visitor: &mut dyn Visitor| {
            for _ in 0..1_000 {
                let open: Arc<OwnedFd> = Arc::new(fs::File::open(folder.path()).unwrap().into());
                let (name, stat) = (b"f".as_slice(), &fstat(&open).unwrap());
                let path = b"/f".as_slice();
                visitor.entry(Found { folder: &open, name, stored_name: name, path, stat })?;
            }
            Ok(())
        };
        let before = fs::read_dir("/proc/self/fd").unwrap().count();
        let mut most = MostOpen::default();
        relay(visit, &mut most).unwrap();
        // One batch is filled, some wait, one is told of.
        let bound = before + (BATCHES_AHEAD + 2) * FOLDERS + 2;
        assert!(most.0 <= bound, "{} descriptors, at most {bound}", most.0);
    }

    fn without_numbers(log: &Log) -> Vec<String> {
        let inode = |word: &&str| word.parse::<u64>().is_err();
        let line = |line: &String| line.split(' ').filter(inode).collect::<Vec<_>>().join(" ");
        log.lines.iter().map(line).collect()
    }

    #[test]
    fn what_is_told_is_the_same_in_the_same_order() {
        let (mut told, mut relayed) = (Log::default(), Log::default());
        visit(&mut told).unwrap();
        relay(visit, &mut relayed).unwrap();
        assert_eq!(told.lines.len(), 40 * 13 + 1);
        assert_eq!(without_numbers(&told), without_numbers(&relayed));
    }

    #[test]
    fn a_visitor_that_fails_ends_the_walk_and_is_who_is_quoted() {
        for most in [0, 1, 30, 300] {
            let mut log = Log { fails_after: Some(most), ..Log::default() };
            let failed = relay(visit, &mut log).unwrap_err();
            assert!(matches!(failed, BackupError::Stream(text) if text == "enough"), "{most}");
        }
    }

    #[test]
    fn a_walk_that_fails_is_quoted() {
        let mut log = Log::default();
        let walk = |visitor: &mut dyn Visitor| {
            visit(visitor)?;
            Err(BackupError::Stream("lost".to_owned()))
        };
        let failed = relay(walk, &mut log).unwrap_err();
        assert!(matches!(failed, BackupError::Stream(text) if text == "lost"));
    }
}
