//! `muster repo init`

use muster_repository::{
    format::{config::Version, key_file::Cost},
    repository::{InitOptions, Repository},
};
use serde_json::json;

use crate::{
    app::App,
    args::FromArgs,
    error::{Failure, Outcome},
    exit::Exit,
};

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Version of the format: 2, stable or latest
    #[arg(long, value_name = "VERSION", default_value = "stable",
          value_parser = ["2", "stable", "latest"], hide_possible_values = true)]
    repository_version: String,
    /// Cut files where the repository named by --from-repo cuts them, so that the two share
    /// chunks when snapshots are copied between them
    #[arg(long)]
    copy_chunker_params: bool,
    #[command(flatten)]
    from: FromArgs,
}

const EXAMPLES: &str = "Examples:
  muster repo -r /backup/repo init
  muster repo -r s3:https://s3.eu-west-1.amazonaws.com/bucket/repo init
  muster repo -r /mnt/second init --from-repo /backup/repo --copy-chunker-params";

/// How many digits of the repository's id are shown, as by restic.
const ID_DIGITS: usize = 10;

/// Makes a repository.
pub(crate) fn run(args: &Args, app: &App<'_>) -> Outcome {
    let names_source = args.from.from_repo.is_some() || args.from.from_repository_file.is_some();
    if names_source && !args.copy_chunker_params {
        return Err(Failure::usage("use --from-repo without --copy-chunker-params")
            .help("init copies nothing else; 'muster repo copy' copies snapshots"));
    }
    let storage = app.storage(app.settings.named())?;
    let polynomial = match args.copy_chunker_params {
        false => None,
        true => {
            let (named, password) = (args.from.named(), args.from.password());
            let source = app.open_at(named, password, args.from.from_key_hint.as_deref())?;
            Some(source.config().chunker_polynomial)
        }
    };
    let password = app.settings.password().find_new()?;
    let author = app.environment.author();
    let options = InitOptions { version: Version::V2, polynomial, cost: Cost::STANDARD, author };
    let repository = Repository::init(storage, &password, options)?;
    let id = &repository.config().id;
    let location = repository.storage().location();
    if app.output.is_json() {
        let initialized = json!({"message_type": "initialized", "id": id, "repository": location});
        app.output.json(&initialized)?;
        return Ok(Exit::Done);
    }
    app.output.summary(format_args!("created repository {} at {location}", &id[..ID_DIGITS]))?;
    app.output.message(
        "\nWithout the password nobody can read what is stored in it, you included. Keep the \
         password\nwhere it survives the loss of this machine.",
    );
    Ok(Exit::Done)
}
