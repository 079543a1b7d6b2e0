//! The example service in its region: a process of its own, which can be killed.

use std::{
    env,
    io::{self, BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::stage::Stage;

/// The service that runs. It ends when this value is dropped, and when this process dies: the
/// service waits for the end of its standard input, which is held here.
#[derive(Debug)]
pub(super) struct Production {
    child: Child,
    /// Where it answers.
    pub(super) url: String,
}

impl Production {
    /// Starts the service with an empty shop.
    ///
    /// # Errors
    ///
    /// It cannot be started, or says why it does not run.
    pub(super) fn start(stage: &Stage) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["demo-service", "--create", "--until-stdin-closes", "--port", "0"]);
        command.arg("--database").arg(stage.database()).arg("--uploads").arg(stage.uploads());
        // A group of its own: Ctrl-C is for the demo, which then ends the service.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut production = Self { child: command.spawn()?, url: String::new() };
        let mut line = String::new();
        if let Some(told) = production.child.stdout.take() {
            BufReader::new(told).read_line(&mut line)?;
        }
        let url = line.trim_end().strip_prefix("listening on ");
        production.url = url.ok_or_else(|| io::Error::other("it does not listen"))?.to_owned();
        Ok(production)
    }

    /// Kills all of it with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process_group(group.ok_or(io::ErrorKind::NotFound)?, Signal::KILL)?;
        self.child.wait().map(drop)
    }
}

impl Drop for Production {
    fn drop(&mut self) {
        // What is gone already is well, and there is nobody to tell more.
        self.kill().ok();
    }
}
