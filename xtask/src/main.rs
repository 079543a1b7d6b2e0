//! Project chores, run as `cargo xtask <chore>`.
//!
//! A chore is here, and not a shell script, when it needs to understand the workspace: which
//! crate may see which ([`tidy`]), or what a fair measurement is made of ([`mod@bench`]).

mod bench;
mod say;
mod tidy;
mod workspace;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask <chore>

  tidy            check the rules of the house: walls, code map, ratchets, documentation
  bench [OPTION]  measure muster beside its peers (cargo xtask bench --help)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            say::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    match args.first().map(String::as_str) {
        Some("tidy") => tidy::run(),
        Some("bench") => bench::run(&args[1..]),
        Some("help" | "--help" | "-h") => {
            say::line(USAGE);
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => anyhow::bail!("unknown chore `{other}`\n\n{USAGE}"),
        None => anyhow::bail!("which chore?\n\n{USAGE}"),
    }
}
