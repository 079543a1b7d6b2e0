//! `cargo xtask bench`: muster beside its peers on this machine, through the harness in `bench/`.
//!
//! The harness measures; this module sees to it that there is something to measure: a release
//! build of what is checked out, and peers on the PATH. `bench/README.md` tells how to repeat a
//! run and what to believe of its figures.

mod options;
mod peers;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};

use self::options::Options;
use crate::{say, workspace};

/// Builds muster, looks for its peers, runs the harness.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        say::line(options::USAGE);
        return Ok(ExitCode::SUCCESS);
    }
    let root = workspace::root()?;
    if let Some((_, rest)) = args.split_first().filter(|(first, _)| *first == "--remote") {
        build(&root)?;
        return measure_remote(&root, rest);
    }
    let options = Options::parse(args)?;
    peers::find(&options, &root)?;
    if options.measures("muster") {
        build(&root)?;
    }
    measure(&options, &root)
}

fn build(root: &Path) -> anyhow::Result<()> {
    let built = cargo()
        .args(["build", "--release", "--package", "muster"])
        .current_dir(root)
        .status()
        .context("run cargo build")?;
    ensure!(built.success(), "the release build of muster failed");
    Ok(())
}

fn measure(options: &Options, root: &Path) -> anyhow::Result<ExitCode> {
    let work = root.join(&options.work);
    std::fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    let muster = workspace::target_dir(root)?.join("release/muster");
    let measured = Command::new("python3")
        .arg("bench/backup_peers.py")
        .args(options.harness_args(&work, &muster))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root)
        .status()
        .context("run python3 bench/backup_peers.py")?;
    say::line(&format!("Tables: {}/result.md, raw data: result.json", work.display()));
    Ok(if measured.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Over an S3 server next door and at a distance; the harness takes the arguments as they are.
fn measure_remote(root: &Path, args: &[String]) -> anyhow::Result<ExitCode> {
    let measured = Command::new("python3")
        .arg("bench/remote.py")
        .arg("--muster")
        .arg(workspace::target_dir(root)?.join("release/muster"))
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root)
        .status()
        .context("run python3 bench/remote.py")?;
    Ok(if measured.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
