//! Starting a child: recorded first, used then.

use std::{
    error::Error,
    ffi::OsStr,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use muster_model::{Class, Fault};
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child as Running, Command},
    time::{Instant, sleep, timeout},
};

use super::{
    end::{Ended, How, RunEnd, end_kin},
    environment::{child_environment, value_of},
    hide::{seen_by, words_that_hide},
    identity::{ChildIdentity, MARK_VARIABLE, mark_value, new_mark},
    kin::{Kin, kill_all},
    program::{ProgramError, RunAs, UserProblem, find, run_as, setpriv},
};

/// What a child does first: it waits for the word, and gives up when there is none. Then it
/// becomes the program. 125 is what programs that start programs exit with when they fail.
const WAIT_FOR_THE_WORD: &str =
    "read -r word && [ \"$word\" = go ] || exit 125; exec \"$@\" </dev/null";
const WORD: &[u8] = b"go\n";
const SHELL: &str = "/bin/sh";
/// How long a child whose `run_to_end` timed out has to end in order.
const GRACE: Duration = Duration::from_secs(5);

/// How long hiding files from a child may take; it takes a few milliseconds.
const HIDDEN_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether they are hidden.
const HIDDEN_LOOK: Duration = Duration::from_millis(2);
/// Between two looks at what a child has started, while somebody waits for its end.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A child to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program, looked up on the child's `PATH`, and its arguments; no shell.
    pub argv: Vec<String>,
    /// Variables beside the few that every child gets; they override those.
    pub env: Vec<(String, String)>,
    /// The user to run as, by name or number; Muster's own when there is none.
    pub user: Option<String>,
    /// The working directory, which is also the child's `TMPDIR`.
    pub dir: PathBuf,
    /// Where standard output and standard error are appended; made with mode 0600.
    pub log: PathBuf,
    /// Files and folders that it shall not see: only where [`can_hide`](super::can_hide) says so.
    pub hidden: Vec<PathBuf>,
}

/// Why a child was not started.
#[derive(Debug, Error)]
pub enum LaunchError<E: Error + 'static> {
    /// The program cannot be started at all.
    #[error("start the program")]
    Program(#[source] ProgramError),
    /// The user does not exist.
    #[error("start the program: there is no user '{0}'")]
    UnknownUser(String),
    /// The user is somebody else, and Muster does not run as root.
    #[error("start the program as '{0}': only root may start processes of others")]
    NotRoot(String),
    /// The log cannot be opened for appending.
    #[error("open the log '{}'", log.display())]
    Log {
        /// The log.
        log: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system did not start it, or it was gone before it could be recorded.
    #[error("start '{program}' in '{}'", dir.display())]
    Start {
        /// The program.
        program: String,
        /// The working directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The caller's `record` failed; the child was ended before it did anything.
    #[error("record the child before it is used")]
    Record(#[source] E),
}

impl<E: Fault + 'static> Fault for LaunchError<E> {
    fn class(&self) -> Class {
        match self {
            Self::Program(_) | Self::UnknownUser(_) => Class::Input,
            Self::NotRoot(_) => Class::Denied,
            Self::Log { .. } | Self::Start { .. } => Class::Transient,
            Self::Record(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Program(_) => "child-program",
            Self::UnknownUser(_) | Self::NotRoot(_) => "child-user",
            Self::Log { .. } => "child-log",
            Self::Start { .. } => "child-not-started",
            Self::Record(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Program(_) => {
                Some("correct the step's program in the plan, or install it".into())
            }
            Self::UnknownUser(_) => Some("correct the step's user in the plan".into()),
            Self::NotRoot(user) => Some(format!("run muster as root or as '{user}'")),
            Self::Log { .. } => Some("make room, or let muster write in this folder".into()),
            Self::Start { .. } => Some("see the cause, and try again".into()),
            Self::Record(error) => error.help(),
        }
    }
}

/// Starts a child, has it recorded, and lets it go.
///
/// `record` is called with its identity while the child waits, and should return only when the
/// record is durable.
///
/// # Errors
/// Fails when the program or the user does not exist, when the log cannot be opened, when the
/// system does not start it, and when `record` fails; nothing runs then.
pub async fn launch<E: Error + 'static>(
    launch: &Launch,
    record: impl FnOnce(&ChildIdentity) -> Result<(), E>,
) -> Result<Child, LaunchError<E>> {
    let run_as = run_as(launch.user.as_deref()).map_err(|problem| {
        let user = launch.user.clone().unwrap_or_default();
        match problem {
            UserProblem::Unknown => LaunchError::UnknownUser(user),
            UserProblem::NotRoot => LaunchError::NotRoot(user),
        }
    })?;
    let mut environment = child_environment(&launch.dir, &[]);
    if let RunAs::Other { home, .. } = &run_as {
        environment.push(("HOME".into(), home.into()));
    }
    environment.extend(launch.env.iter().map(|(name, value)| (name.into(), value.into())));
    let path = value_of(&environment, "PATH").map_or(OsStr::new(""), |path| path);
    let program = find(&launch.argv, path, &launch.dir).map_err(LaunchError::Program)?;

    let failed = |source| LaunchError::Start {
        program: launch.argv[0].clone(),
        dir: launch.dir.clone(),
        source,
    };
    let mark = new_mark().map_err(failed)?;
    let is_hidden = |path: &&PathBuf| program.starts_with(path);
    if let Some(path) = launch.hidden.iter().find(is_hidden) {
        let program = program.display().to_string();
        let hidden = ProgramError::Hidden { program, path: path.display().to_string() };
        return Err(LaunchError::Program(hidden));
    }
    let mut command = command(&program, &launch.argv[1..], &run_as, &launch.hidden);
    let (output, errors) = open_log(&launch.log)
        .map_err(|source| LaunchError::Log { log: launch.log.clone(), source })?;
    command.current_dir(&launch.dir).env_clear().envs(environment);
    command.env(MARK_VARIABLE, mark_value(&mark));
    command.stdin(Stdio::piped()).stdout(output).stderr(errors).process_group(0);
    let running = command.spawn().map_err(failed)?;
    let mut child = Child::adopt(running, mark, &launch.argv, &launch.dir).map_err(failed)?;
    // From here on, dropping the child ends it.
    record(&child.identity).map_err(LaunchError::Record)?;
    child.give_the_word().await.map_err(failed)?;
    child.until_hidden(&launch.hidden).await.map_err(failed)?;
    Ok(child)
}

fn open_log(log: &Path) -> io::Result<(File, File)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
    let second = file.try_clone()?;
    Ok((file, second))
}

/// The shell that waits, and then becomes the program as the right user, who does not see what is
/// hidden.
fn command(program: &Path, arguments: &[String], run_as: &RunAs, hidden: &[PathBuf]) -> Command {
    let mut command = Command::new(SHELL);
    command.args(["-c", WAIT_FOR_THE_WORD, "sh"]);
    command.args(words_that_hide(hidden));
    if let RunAs::Other { uid, gid, .. } = run_as {
        match setpriv() {
            Some(setpriv) => {
                command.arg(setpriv);
                command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
                command.args(["--init-groups", "--"]);
            }
            None => drop(command.uid(*uid).gid(*gid)),
        }
    }
    command.arg(program).args(arguments);
    command
}

/// A child that was recorded and let go.
///
/// Dropping it kills all that belongs to it: a drill leaves nothing behind. A recovery for real
/// [detaches](Self::detach) what shall go on.
#[derive(Debug)]
pub struct Child {
    identity: ChildIdentity,
    /// `None` once detached.
    running: Option<Running>,
    kin: Kin,
}

impl Child {
    fn adopt(mut running: Running, mark: String, argv: &[String], dir: &Path) -> io::Result<Self> {
        let pid = running.id().ok_or(io::ErrorKind::NotFound)?;
        match ChildIdentity::of(pid, mark, argv.to_vec(), dir.to_owned()) {
            Ok(identity) => {
                let kin = Kin::of(&identity);
                Ok(Self { identity, running: Some(running), kin })
            }
            Err(error) => {
                // It waits for a word that will not come: this only hastens its end.
                running.start_kill()?;
                Err(error)
            }
        }
    }

    async fn give_the_word(&mut self) -> io::Result<()> {
        let input = self.running.as_mut().and_then(|running| running.stdin.take());
        let mut input = input.ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(WORD).await?;
        input.flush().await
    }

    /// Waits until it does not see what is hidden from it any more, or has ended. Whether it does
    /// in the end, [`seen_by`] tells.
    async fn until_hidden(&mut self, hidden: &[PathBuf]) -> io::Result<()> {
        let deadline = Instant::now() + HIDDEN_WITHIN;
        while !hidden.is_empty() && Instant::now() < deadline && self.try_wait()?.is_none() {
            if seen_by(&self.identity, hidden).is_ok_and(|seen| seen.is_empty()) {
                break;
            }
            sleep(HIDDEN_LOOK).await;
        }
        Ok(())
    }

    /// Who it is, for a record.
    #[must_use]
    pub fn identity(&self) -> &ChildIdentity {
        &self.identity
    }

    /// Waits until the child itself has ended; what it started may go on. Exit code 126 or 127
    /// may mean that it could not be executed after all: then the log says so.
    ///
    /// # Errors
    /// Fails when the system cannot tell.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let Self { running, kin, .. } = self;
        let running = running.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let mut pause = LOOKS.0;
        loop {
            tokio::select! {
                status = running.wait() => return status,
                // Whoever is seen now is known also when it has lost its parent.
                () = sleep(pause) => drop(kin.find()?),
            }
            pause = (pause * 2).min(LOOKS.1);
        }
    }

    /// Tells how it ended, when it has.
    ///
    /// # Errors
    /// Fails when the system cannot tell.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.running()?.try_wait()
    }

    /// How many processes belong to it now; those that it left behind count.
    ///
    /// # Errors
    /// Fails when `/proc` cannot be listed.
    pub fn processes(&mut self) -> io::Result<usize> {
        Ok(self.kin.find()?.len())
    }

    /// Waits for its end; when `limit` passes first, ends all that belongs to it. What a child
    /// that ended in time left running (`pg_ctl start` does) goes on until [`Child::end`] or drop.
    ///
    /// # Errors
    /// Fails when the system cannot tell how it ended.
    pub async fn run_to_end(&mut self, limit: Duration) -> io::Result<RunEnd> {
        match timeout(limit, self.wait()).await {
            Ok(status) => Ok(RunEnd::Exited(status?)),
            Err(_) => Ok(RunEnd::TimedOut(self.end(GRACE).await?)),
        }
    }

    /// Ends all that belongs to it: SIGTERM, and SIGKILL to those left after `grace`. Returns
    /// when a look at all processes finds none left.
    ///
    /// # Errors
    /// Fails when `/proc` cannot be listed: then nothing is proven.
    pub async fn end(&mut self, grace: Duration) -> io::Result<Ended> {
        // The child stays unreaped meanwhile, so that its group's number stays its own.
        let (how, left) = end_kin(&mut self.kin, grace).await?;
        let is_left = left.contains(&self.identity.pid);
        let status = if is_left { None } else { Some(self.wait().await?) };
        Ok(Ended { how, status, left })
    }

    /// Lets it go on without Muster; [`end_recorded`](crate::process::end_recorded) can still
    /// end it.
    #[must_use]
    pub fn detach(mut self) -> ChildIdentity {
        drop(self.running.take());
        self.identity.clone()
    }

    fn running(&mut self) -> io::Result<&mut Running> {
        self.running.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.running.is_some() {
            kill_all(&mut self.kin);
        }
    }
}

impl Ended {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.how != How::Remains
    }
}

/// Marks a command that is no [`Child`], so that what it leaves behind can be found.
pub(crate) fn mark_group(command: &mut Command) -> io::Result<String> {
    let mark = new_mark()?;
    command.env(MARK_VARIABLE, mark_value(&mark)).process_group(0);
    Ok(mark)
}

/// Kills all that belongs to a command when it is dropped.
#[derive(Debug)]
pub(crate) struct GroupGuard(Kin);

impl GroupGuard {
    /// Guards the process of this pid, which must have been started by
    /// [`mark_group`]'s command.
    pub(crate) fn of(pid: u32, mark: String, dir: &Path) -> io::Result<Self> {
        Ok(Self(Kin::of(&ChildIdentity::of(pid, mark, Vec::new(), dir.to_owned())?)))
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        kill_all(&mut self.0);
    }
}
