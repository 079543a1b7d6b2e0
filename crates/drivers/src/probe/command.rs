//! `command` probes: a program that is run, without a shell, in a group of its own.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
};

use super::trouble::Trouble;
use crate::{
    process::{GroupGuard, child_environment, mark_group},
    text::quote,
};

/// No more than this is read of what a program prints.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Runs it once. All that it started is killed when it has ended, and when nobody waits any
/// more.
pub(super) async fn ask(
    argv: &[String],
    exit: i32,
    output: Option<&str>,
) -> Result<String, Trouble> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Trouble::Answer("no program is named".to_owned()));
    };
    let ran = run(program, arguments).await.map_err(|error| {
        let named = io::Error::new(error.kind(), format!("{}: {error}", quote(program)));
        // A process limit is the prober's own.
        let is_own =
            error.kind() == io::ErrorKind::WouldBlock || super::trouble::is_of_prober(&error);
        if is_own { Trouble::Prober(named.to_string()) } else { Trouble::of(&named) }
    })?;
    if ran.code != Some(exit) {
        let how =
            ran.code.map_or("ended by a signal".to_owned(), |code| format!("exit code {code}"));
        let said = ran.last_words();
        return Err(Trouble::Answer(format!("{how}, expected exit code {exit}{said}")));
    }
    let contains = |wanted: &str| String::from_utf8_lossy(&ran.output).contains(wanted);
    match output {
        Some(wanted) if !contains(wanted) => {
            Err(Trouble::Answer(format!("'{}' is not in the output", quote(wanted))))
        }
        _ => Ok(format!("exit code {exit}")),
    }
}

/// What a program did.
struct Ran {
    code: Option<i32>,
    output: Vec<u8>,
    errors: Vec<u8>,
}

impl Ran {
    fn last_words(&self) -> String {
        let errors = String::from_utf8_lossy(&self.errors);
        let line = errors.lines().rev().find(|line| !line.trim().is_empty());
        line.map(|line| format!(": {}", quote(line))).unwrap_or_default()
    }
}

async fn run(program: &str, arguments: &[String]) -> io::Result<Ran> {
    let dir = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(child_environment(&env::temp_dir(), &[]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let mark = mark_group(&mut command)?;
    let mut child = command.spawn()?;
    let guard = guard(&child, mark, &dir);
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async {
        tokio::join!(read(stdout, &mut output), read(stderr, &mut errors));
    };
    let status = async {
        let status = child.wait().await;
        // What it left behind may hold its output open.
        drop(guard);
        status
    };
    let (status, ()) = tokio::join!(status, reading);
    Ok(Ran { code: status?.code(), output, errors })
}

/// A program that ended at once cannot be identified any more, and needs no guard by pid.
fn guard(child: &Child, mark: String, dir: &Path) -> Option<GroupGuard> {
    child.id().and_then(|pid| GroupGuard::of(pid, mark, dir).ok())
}

/// Reads up to the limit, and on to the end so that the writer is not stopped.
async fn read(from: Option<impl AsyncRead + Unpin>, to: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    // What was read before a failure is looked at.
    (&mut from).take(OUTPUT_BYTES_MAX).read_to_end(to).await.ok();
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await.ok();
}
