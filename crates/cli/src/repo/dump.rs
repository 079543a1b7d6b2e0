//! `muster repo dump`

use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use muster_repository::{
    dump::{ArchiveFormat, DumpError, DumpReport, DumpTarget, dump, find_target},
    format::tree::NodeKind,
};

use super::{Opened, open_snapshot, release};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Failure, Outcome, Problem},
    exit::Exit,
    output::{output_failure, visible},
    warm_up::WarmUpArgs,
};

/// Arguments of `dump`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Id, beginning of an id, or 'latest'; with a folder, paths are looked up below it
    #[arg(value_name = "SNAPSHOT[:FOLDER]")]
    snapshot: String,
    /// The file to write as it is, or the folder to write as an archive; '/' for all
    #[arg(value_name = "PATH")]
    file: OsString,
    /// Format of archives: tar or zip
    #[arg(short, long, value_name = "FORMAT", default_value = "tar", value_parser = format)]
    archive: ArchiveFormat,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    target: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    pub(super) warm_up: WarmUpArgs,
}

const EXAMPLES: &str = "Examples:
  muster repo dump latest /home/ana/notes.txt
  muster repo dump latest:/srv/shop / | tar -x -C /tmp/shop
  muster repo dump --archive zip --target site.zip 5d21c52d /var/www";

fn format(text: &str) -> Result<ArchiveFormat, String> {
    text.parse()
}

/// Dumps.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let opened = open_snapshot(app, &args.snapshot, &args.filter, &args.warm_up.run(app))?;
    let target = find_target(&opened.repository, opened.tree, args.file.as_bytes())?;
    let report = match &args.target {
        Some(file) => to_file(args, app, &opened, target, file)?,
        None => to_standard_output(args, app, &opened, target)?,
    };
    release(opened.lock)?;
    for (path, kind) in &report.left_out {
        let kind = kind.as_str();
        app.output.warning(format_args!("left out {}: a {kind}", visible(path)));
    }
    // Nothing can bring a socket back, so that it is missing takes nothing away.
    let whole = report.left_out.iter().all(|(_, kind)| *kind == NodeKind::Socket);
    Ok(if whole { Exit::Done } else { Exit::Partial })
}

fn to_standard_output(
    args: &Args,
    app: &App<'_>,
    opened: &Opened,
    target: DumpTarget,
) -> Result<DumpReport, Failure> {
    if matches!(target, DumpTarget::Folder { .. }) && io::stdout().is_terminal() {
        return Err(Failure::usage("write an archive to the terminal")
            .help("redirect it, or name a file with --target"));
    }
    let mut results = app.output.results();
    let run = args.warm_up.run(app);
    let dumped = dump(&opened.repository, target, args.archive, &run, &mut results);
    let report = dumped.map_err(|error| match error {
        DumpError::Write(error) => output_failure(error),
        error => error.into(),
    })?;
    results.finish()?;
    Ok(report)
}

fn to_file(
    args: &Args,
    app: &App<'_>,
    opened: &Opened,
    target: DumpTarget,
    path: &Path,
) -> Result<DumpReport, Failure> {
    let failed = |error: io::Error| {
        Failure::new(Problem::OutputFailed, format!("write {}", path.display())).caused_by(&error)
    };
    let file = fs::File::create(path).map_err(failed)?;
    let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let mut writer = io::BufWriter::new(file);
    let dumped =
        dump(&opened.repository, target, args.archive, &args.warm_up.run(app), &mut writer)
            .map_err(Failure::from)
            .and_then(|report| writer.flush().map(|()| report).map_err(failed));
    if dumped.is_err() && is_regular {
        // Half a dump may pass for a whole one. That it could not be written is the news.
        drop(fs::remove_file(path));
    }
    dumped
}
