//! Arguments that many commands share. What belongs to one verb stands beside that verb.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use muster_model::units::{parse_duration, parse_size};
use muster_repository::{
    compression::CompressionLevel,
    packer::{PACK_BYTES_MAX, PACK_BYTES_MIN},
};
use muster_stores::{Limits, Options, StoreError};

use crate::{demo, exit, init, location, output::Color, password, plan, repo, verbs, workspace};

/// Disaster recovery as code: recovery is measured, not declared.
#[derive(Debug, Parser)]
#[command(name = "muster", version, disable_help_subcommand = true, after_help = help())]
pub(crate) struct Cli {
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Which plan.
    #[command(flatten)]
    pub(crate) plan: workspace::PlanArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What stands below the verbs in `muster --help`.
fn help() -> String {
    format!(
        "Examples:\n  muster demo                         see it work\n  muster init                         \
         write a starter plan\n  muster backup                       protect what the plan \
         names\n  muster drill run orders             rehearse a recovery, and measure it\n  muster \
         repo -r /backup/repo snapshots   a repository alone, as with restic\n\n{}",
        exit::HELP
    )
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole loop on this machine: protect, destroy, recover, measure, report
    #[command(after_help = "Needs no server, no account and no root, and takes about a minute. \
                            Ctrl-C leaves nothing behind.")]
    Demo(demo::show::Args),
    /// Write a starter plan, with what is found here; never overwrites
    Init(init::Args),
    /// Check, show and compare the plan
    Plan(plan::Args),
    /// Protect now, or loop: snapshots, copies, markers
    Backup(verbs::backup::Args),
    /// Remove the points that the plan's `keep` does not keep; shows them first
    Forget(verbs::forget::Args),
    /// Read repositories back in turn, so that everything is read within a period
    Verify(verbs::verify::Args),
    /// List recovery points: what can be brought back, from where, proven or not
    Points(verbs::points::Args),
    /// Bring data back into a folder
    Restore(verbs::restore::Args),
    /// Rehearse a recovery in isolation, and measure it
    Drill(verbs::drill::Args),
    /// Recover a service for real, by the runbook that drills rehearse
    Recover(verbs::recover::Args),
    /// Show what is proven: service by disruption, objective, measured, now
    Status(verbs::status::Args),
    /// List, export and verify the evidence
    Evidence(verbs::evidence::Args),
    /// Write a report: HTML, Markdown or JSON
    Report(verbs::report::Args),
    /// Let a change through only when everything is proven (for CI)
    Gate(verbs::gate::Args),
    /// Work with a backup repository (restic's format), in the manner of restic
    Repo(Box<repo::Args>),
    /// Print a script that completes this command line, for a shell to read
    #[command(after_help = "Examples:\n  muster completions bash > \
                            ~/.local/share/bash-completion/completions/muster")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Run the example service that `muster demo` protects
    #[command(hide = true)]
    DemoService(demo::service::Args),
    /// Clean up after a `muster demo` that is killed
    #[command(hide = true)]
    DemoGuard(demo::guard::Args),
}

/// How to print.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print results as JSON, in restic's shapes; errors and progress as JSON on standard error (the
    /// progress of backup and restore among their results, as restic's)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Tell more; may be given several times, as to restic
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Tell only warnings and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// When to colour messages; NO_COLOR is respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

/// Which repository, and how to open it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Repository")]
pub(crate) struct RepositoryArgs {
    /// Folder or URL of the repository: PATH, s3:…, azure:…, gs:…, sftp:…, rest:… [env:
    /// MUSTER_REPOSITORY, RESTIC_REPOSITORY]
    #[arg(short, long, global = true, value_name = "PLACE", value_hint = ValueHint::DirPath)]
    pub(crate) repo: Option<OsString>,
    /// File that holds the repository's path or URL
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "repo")]
    pub(crate) repository_file: Option<PathBuf>,
    /// File that holds the password [env: MUSTER_PASSWORD_FILE, RESTIC_PASSWORD_FILE; the
    /// password itself: MUSTER_PASSWORD, RESTIC_PASSWORD]
    #[arg(short, long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
    /// Command that prints the password; split into words, run without a shell [env:
    /// MUSTER_PASSWORD_COMMAND, RESTIC_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", conflicts_with = "password_file")]
    pub(crate) password_command: Option<String>,
    /// Use an empty password
    #[arg(long, global = true, conflicts_with_all = ["password_file", "password_command"])]
    pub(crate) insecure_no_password: bool,
    /// Try the key whose id begins like this first
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) key_hint: Option<String>,
    /// Take no lock where a command only reads (for a repository that cannot be written)
    #[arg(long, global = true)]
    pub(crate) no_lock: bool,
    /// How long to wait for a repository that others have locked, for example 10m
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) retry_lock: Option<Duration>,
    /// How hard to compress: off, fastest, auto, better, max
    #[arg(long, global = true, value_name = "LEVEL", default_value = "auto", value_parser = level)]
    pub(crate) compression: CompressionLevel,
    /// Size of pack files: MiB as in restic, or with a unit; 4 to 128 MiB [default: 16]
    #[arg(long, global = true, value_name = "SIZE", value_parser = pack_bytes)]
    pub(crate) pack_size: Option<u32>,
    /// Where to keep what can be made again, such as which packs were verified when
    #[arg(long, global = true, value_name = "FOLDER", hide_short_help = true)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Keep nothing in the cache folder, and use nothing from it
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) no_cache: bool,
    /// How to reach it.
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// How to reach a store, and how fast.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreArgs {
    /// Set an option of the store (repeatable), for example s3.region=eu-west-1
    #[arg(short, long = "option", global = true, value_name = "NAME=VALUE")]
    option: Vec<String>,
    /// Send no faster than this many KiB a second; 0 is no limit
    #[arg(long, global = true, value_name = "KIB")]
    limit_upload: Option<u64>,
    /// Receive no faster than this many KiB a second; 0 is no limit
    #[arg(long, global = true, value_name = "KIB")]
    limit_download: Option<u64>,
    /// File with authorities to trust besides the system's, in PEM [env: MUSTER_CACERT,
    /// RESTIC_CACERT]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    cacert: Option<PathBuf>,
}

impl StoreArgs {
    /// The options that were given.
    pub(crate) fn options(&self) -> Result<Options, StoreError> {
        let mut options = Options::parse(self.option.iter().map(String::as_str))?;
        let from_variables =
            || ["MUSTER_CACERT", "RESTIC_CACERT"].into_iter().find_map(location::variable_set);
        let file = self.cacert.clone().map(OsString::from).or_else(from_variables);
        if let Some(file) = file {
            options.set("tls.cacert", &file.to_string_lossy())?;
        }
        Ok(options)
    }

    /// The limits that were given, in bytes per second.
    pub(crate) fn limits(&self) -> Limits {
        let bytes =
            |kibibytes: Option<u64>| kibibytes.filter(|&n| n > 0).map(|n| n.saturating_mul(1024));
        Limits { up: bytes(self.limit_upload), down: bytes(self.limit_download) }
    }
}

fn level(text: &str) -> Result<CompressionLevel, String> {
    text.parse()
}

/// The sizes of packs that are accepted, restic's.
const PACK_BYTES: std::ops::RangeInclusive<u32> = PACK_BYTES_MIN..=PACK_BYTES_MAX;

/// Reads the size of a pack: restic takes a bare number as MiB.
fn pack_bytes(text: &str) -> Result<u32, String> {
    let bytes = match text.parse::<u64>() {
        Ok(mebibytes) => mebibytes.saturating_mul(1 << 20),
        Err(_) => parse_size(text).map_err(|error| error.to_string())?,
    };
    let bytes = u32::try_from(bytes).ok().filter(|bytes| PACK_BYTES.contains(bytes));
    bytes.ok_or_else(|| "packs are 4 to 128 MiB large".to_owned())
}

impl RepositoryArgs {
    /// How the repository was named.
    pub(crate) fn named(&self) -> location::Named<'_> {
        location::Named {
            repo: self.repo.as_ref(),
            file: self.repository_file.as_ref(),
            flag: "--repo",
            variables: ["MUSTER_REPOSITORY", "RESTIC_REPOSITORY"],
        }
    }

    /// Where its password comes from.
    pub(crate) fn password(&self) -> password::Sources<'_> {
        password::Sources {
            file: self.password_file.as_ref(),
            command: self.password_command.as_deref(),
            empty: self.insecure_no_password,
            empty_flag: "--insecure-no-password",
            variables: &["MUSTER_PASSWORD", "RESTIC_PASSWORD"],
            whose: "the repository",
            flags: "--password-file or --password-command",
        }
    }
}

/// A second repository to read from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Source repository")]
pub(crate) struct FromArgs {
    /// Folder or URL of the repository to read from [env: MUSTER_FROM_REPOSITORY,
    /// RESTIC_FROM_REPOSITORY]
    #[arg(long, value_name = "PLACE", value_hint = ValueHint::DirPath)]
    pub(crate) from_repo: Option<OsString>,
    /// File that holds its path
    #[arg(long, value_name = "FILE", conflicts_with = "from_repo")]
    pub(crate) from_repository_file: Option<PathBuf>,
    /// File that holds its password [env: MUSTER_FROM_PASSWORD_FILE; the password itself:
    /// MUSTER_FROM_PASSWORD, RESTIC_FROM_PASSWORD]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) from_password_file: Option<PathBuf>,
    /// Command that prints its password [env: MUSTER_FROM_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", conflicts_with = "from_password_file")]
    pub(crate) from_password_command: Option<String>,
    /// Its password is empty
    #[arg(long, conflicts_with_all = ["from_password_file", "from_password_command"])]
    pub(crate) from_insecure_no_password: bool,
    /// Try its key whose id begins like this first
    #[arg(long, value_name = "ID")]
    pub(crate) from_key_hint: Option<String>,
}

impl FromArgs {
    /// How the repository was named.
    pub(crate) fn named(&self) -> location::Named<'_> {
        location::Named {
            repo: self.from_repo.as_ref(),
            file: self.from_repository_file.as_ref(),
            flag: "--from-repo",
            variables: ["MUSTER_FROM_REPOSITORY", "RESTIC_FROM_REPOSITORY"],
        }
    }

    /// Where its password comes from.
    pub(crate) fn password(&self) -> password::Sources<'_> {
        password::Sources {
            file: self.from_password_file.as_ref(),
            command: self.from_password_command.as_deref(),
            empty: self.from_insecure_no_password,
            empty_flag: "--from-insecure-no-password",
            variables: &["MUSTER_FROM_PASSWORD", "RESTIC_FROM_PASSWORD"],
            whose: "the source repository",
            flags: "--from-password-file or --from-password-command",
        }
    }
}

/// Which snapshots.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which snapshots")]
pub(crate) struct FilterArgs {
    /// Only snapshots of this host (repeatable)
    #[arg(short = 'H', long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
    /// Only snapshots with all of these tags (repeatable: any of the lists)
    #[arg(long, value_name = "TAG[,TAG…]")]
    pub(crate) tag: Vec<String>,
    /// Only snapshots of this absolute path (repeatable: of all of them)
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn packs_are_mebibytes_unless_a_unit_says_otherwise() {
        assert_eq!(pack_bytes("32"), Ok(32 << 20));
        assert_eq!(pack_bytes("64MiB"), Ok(64 << 20));
        for refused in ["1", "129", "1k", "many", ""] {
            assert!(pack_bytes(refused).is_err(), "{refused}");
        }
    }
}
