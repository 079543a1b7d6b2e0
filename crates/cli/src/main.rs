//! `muster`: the command line.
//!
//! This crate reads arguments, calls the libraries, prints, and chooses an exit code; it
//! decides nothing else. The map:
//!
//! - [`args`]: what is common to many commands; each verb's own arguments stand beside it
//!   under [`plan`] and [`repo`].
//! - [`verbs`]: the verbs that work with a plan, one file each.
//! - [`workspace`]: which plan, and where its state is.
//! - [`output`]: the only place that prints. Results go to standard output; progress,
//!   messages and errors go to standard error.
//! - [`error`] and [`exit`]: a failure as people and programs read it, and the exit codes,
//!   which are a promise.
//! - [`password`]: where passwords come from. Never from an argument: other users of the
//!   machine see those.
//! - [`demo`]: `muster demo`, the example service that it protects, and the customers it serves.
//! - [`allocator`]: what becomes of memory that is freed.
//! - [`progress`] and [`interrupt`]: watch a running operation, and ask it to stop.

mod allocator;
mod app;
mod args;
mod cache;
mod demo;
mod error;
mod exit;
mod init;
mod interrupt;
mod lists;
mod location;
mod output;
mod password;
mod plan;
mod progress;
mod repo;
mod time;
mod verbs;
mod warm_up;
mod workspace;

use std::{
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use clap_complete::Shell;

use crate::{
    args::{Cli, Command},
    error::Outcome,
    exit::Exit,
    output::Output,
};

fn main() -> ExitCode {
    allocator::set_up();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage_error(&error).into(),
    };
    let output = Output::new(&cli.output);
    // A panic is a bug; locks are released while it unwinds, and the exit code keeps its word.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| match cli.command {
        Command::Demo(args) => demo::show::run(&args, &output),
        Command::Init(args) => init::run(&args, &cli.plan, &output),
        Command::Plan(args) => plan::run(&args, &cli.plan, &output),
        Command::Backup(args) => verbs::backup::run(&args, &cli.plan, &output),
        Command::Forget(args) => verbs::forget::run(&args, &cli.plan, &output),
        Command::Verify(args) => verbs::verify::run(&args, &cli.plan, &output),
        Command::Points(args) => verbs::points::run(&args, &cli.plan, &output),
        Command::Restore(args) => verbs::restore::run(&args, &cli.plan, &output),
        Command::Drill(args) => verbs::drill::run(&args, &cli.plan, &output),
        Command::Recover(args) => verbs::recover::run(&args, &cli.plan, &output),
        Command::Status(args) => verbs::status::run(&args, &cli.plan, &output),
        Command::Evidence(args) => verbs::evidence::run(&args, &cli.plan, &output),
        Command::Report(args) => verbs::report::run(&args, &cli.plan, &output),
        Command::Gate(args) => verbs::gate::run(&args, &cli.plan, &output),
        Command::Repo(args) => repo::run(*args, &output),
        Command::Completions { shell } => complete(shell, &output),
        Command::DemoService(args) => demo::service::run(&args, &output),
        Command::DemoGuard(args) => demo::guard::run(&args),
    }));
    match outcome {
        Ok(Ok(exit)) => exit,
        Ok(Err(failure)) => output.failure(&failure),
        Err(_) => Exit::Failed,
    }
    .into()
}

/// Prints a completion script.
fn complete(shell: Shell, output: &Output) -> Outcome {
    let mut results = output.results();
    clap_complete::generate(shell, &mut Cli::command(), "muster", &mut results);
    results.finish()?;
    Ok(Exit::Done)
}
