//! Somebody who cleans up after a demo that was killed.
//!
//! A recovered service outlives who recovered it: that is its purpose, and in a demo that dies
//! by SIGKILL it would be left running. So a second process, in a group of its own, holds the
//! other end of a pipe. When the demo ends in order it says so; when the pipe closes without a
//! word, the guard ends what the demo's ledger knows of and removes the demo's folder.
//!
//! It does not watch the service in its first region: that one ends by itself
//! (`--until-stdin-closes`). Nobody watches the guard; who kills every process of the name
//! `muster` has ended the services too.

use std::{
    env,
    io::{self, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use muster_operations::{recover, workspace::Workspace};

use super::{
    show::SERVICE,
    stage::{self, Stage},
};
use crate::{
    error::{Failure, Outcome},
    exit::Exit,
    output::notice,
};

/// What a demo says that ends in order.
const ALL_IS_WELL: &[u8] = b"well\n";

/// Arguments of `muster demo-guard`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The demo's folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Leave the folder as it is
    #[arg(long)]
    keep: bool,
}

/// The guard of a demo, which goes when this value is dropped, and acts when this process dies.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Starts the guard of a demo.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn start(stage: &Stage, keep: bool) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("demo-guard").arg("--dir").arg(stage.dir()).args(keep.then_some("--keep"));
        // A group of its own: what is sent to the demo's shall not reach it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // All that the demo held has ended or is ended by it, also in a panic. If the guard is
        // gone there is nobody to tell.
        if let Some(mut pipe) = self.0.stdin.take() {
            pipe.write_all(ALL_IS_WELL).ok();
        }
        self.0.wait().ok();
    }
}

/// Waits until the demo ends; cleans up if it was killed.
pub(crate) fn run(args: &Args) -> Outcome {
    let mut said = Vec::new();
    // What cannot be read any more says as much as an end.
    io::stdin().lock().read_to_end(&mut said).ok();
    if said == ALL_IS_WELL {
        return Ok(Exit::Done);
    }
    let ended = end_services(&args.dir);
    if !args.keep {
        stage::remove(&args.dir)?;
    }
    ended?;
    let folder = if args.keep { "stays" } else { "is removed" };
    notice(format_args!("the demo was killed: what it had started ends, and its folder {folder}"));
    Ok(Exit::Done)
}

/// Ends what a drill or a recovery of the demo left running.
fn end_services(dir: &Path) -> Result<(), Failure> {
    let (plan, state) = (dir.join(stage::PLAN), dir.join(stage::STATE));
    if !state.exists() {
        // It was killed before it began.
        return Ok(());
    }
    // Opening puts in order what a drill left.
    let workspace = Workspace::open(&plan, &state)?;
    recover::stop(&workspace, SERVICE)?;
    Ok(())
}
