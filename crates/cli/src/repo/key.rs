//! `muster repo key`: the passwords that open the repository.
//!
//! A new password comes from a file, a command, the variable `MUSTER_NEW_PASSWORD`, or a
//! prompt. It is asked for before the repository is locked, so that nobody waits for somebody
//! who thinks about a password.

mod proven;
mod rotate;

use std::path::PathBuf;

use clap::Subcommand;
use muster_repository::{
    format::key_file::{Author, Cost},
    keys,
    lock::LockKind,
};
use serde::Serialize;
use serde_json::json;

use super::release;
use crate::{
    app::App,
    error::{Failure, Outcome},
    exit::Exit,
    output::{local_time, table, visible},
    password,
};

pub(super) const EXAMPLES: &str = "Examples:
  muster repo -r /backup/repo key list
  muster repo -r /backup/repo key add
  muster repo -r /backup/repo key passwd";

/// The verbs of `key`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum Verb {
    /// Add a key (a password)
    Add(NewArgs),
    /// List keys; the one in use is marked with '*'
    #[command(after_help = "Examples:\n  muster repo key list --json")]
    List,
    /// Change the password: add a key, then remove the one in use
    Passwd(NewArgs),
    /// Replace the data key: seal everything anew into another repository
    Rotate(Box<rotate::Args>),
    /// Remove a key
    #[command(
        after_help = "Who knew the password may have kept the master key: removing a key keeps \
                      out nobody who was in: for that there is 'key rotate'.\n\nExamples:\n  muster repo key remove 0ad21455"
    )]
    Remove {
        /// Id of the key, or its beginning
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// How a new key is made.
#[derive(Debug, clap::Args)]
#[command(after_help = NEW_EXAMPLES)]
pub(crate) struct NewArgs {
    /// File that holds the new password [env: MUSTER_NEW_PASSWORD_FILE; the password itself:
    /// MUSTER_NEW_PASSWORD]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Command that prints the new password [env: MUSTER_NEW_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_password_file")]
    new_password_command: Option<String>,
    /// The new password is empty
    #[arg(long, conflicts_with_all = ["new_password_file", "new_password_command"])]
    new_insecure_no_password: bool,
    /// The user that the key is recorded with
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The host that the key is recorded with
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

const NEW_EXAMPLES: &str = "Examples:
  muster repo key add --new-password-file ~/.second-password
  muster repo key passwd";

impl NewArgs {
    fn password(&self) -> password::Sources<'_> {
        password::Sources {
            file: self.new_password_file.as_ref(),
            command: self.new_password_command.as_deref(),
            empty: self.new_insecure_no_password,
            empty_flag: "--new-insecure-no-password",
            variables: &["MUSTER_NEW_PASSWORD"],
            whose: "the new key",
            flags: "--new-password-file or --new-password-command",
        }
    }

    fn author(&self, app: &App<'_>) -> Author {
        let found = app.environment.author();
        Author {
            username: self.user.clone().unwrap_or(found.username),
            hostname: self.host.clone().unwrap_or(found.hostname),
            created: found.created,
        }
    }
}

/// Runs a verb.
pub(crate) fn run(verb: &Verb, app: &App<'_>) -> Outcome {
    match verb {
        Verb::Add(args) => add(args, app),
        Verb::List => list(app),
        Verb::Passwd(args) => change(args, app),
        Verb::Rotate(args) => rotate::run(args, app),
        Verb::Remove { id } => remove(id, app),
    }
}

fn add(args: &NewArgs, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let password = args.password().find_new()?;
    let lock = app.lock(&repository, LockKind::Shared)?;
    let id = keys::add_key(&repository, &password, Cost::STANDARD, args.author(app))?;
    release(Some(lock))?;
    done(app, "key_added", &id.to_hex(), format!("added key {}", id.short()))
}

fn change(args: &NewArgs, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let password = args.password().find_new()?;
    let lock = app.lock(&repository, LockKind::Exclusive)?;
    let id = keys::change_password(&repository, &password, Cost::STANDARD, args.author(app))?;
    release(Some(lock))?;
    let text = format!("changed the password: the key is now {}", id.short());
    done(app, "password_changed", &id.to_hex(), text)
}

fn remove(id: &str, app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = app.lock(&repository, LockKind::Exclusive)?;
    let id = keys::remove_key(&repository, id)?;
    release(Some(lock))?;
    done(app, "key_removed", &id.to_hex(), format!("removed key {}", id.short()))
}

fn done(app: &App<'_>, message_type: &str, id: &str, text: String) -> Outcome {
    match app.output.is_json() {
        true => app.output.json(&json!({"message_type": message_type, "id": id}))?,
        false => app.output.summary(text)?,
    }
    Ok(Exit::Done)
}

/// A key as restic lists it, its time for people.
#[derive(Serialize)]
struct Listed {
    current: bool,
    id: String,
    #[serde(rename = "userName")]
    username: String,
    #[serde(rename = "hostName")]
    hostname: String,
    created: String,
}

fn list(app: &App<'_>) -> Outcome {
    let repository = app.open()?;
    let lock = app.lock_to_read(&repository)?;
    let list = keys::list_keys(&repository)?;
    release(lock)?;
    let listed: Vec<_> = list
        .keys
        .into_iter()
        .map(|key| Listed {
            current: key.current,
            id: key.id.to_hex(),
            username: key.username,
            hostname: key.hostname,
            created: local_time(&key.created, &app.environment.zone),
        })
        .collect();
    match app.output.is_json() {
        true => app.output.json(&listed)?,
        false => app.output.line(key_table(&listed))?,
    }
    let mut exit = Exit::Done;
    for (id, error) in list.damaged {
        let failure = Failure::damaged(format!("read keys/{id}")).caused_by(&error);
        exit = app.output.failure(&failure);
    }
    Ok(exit)
}

fn key_table(keys: &[Listed]) -> String {
    let mut table = table(&[" ID", "User", "Host", "Created"]);
    for key in keys {
        let mark = if key.current { '*' } else { ' ' };
        let short: String = key.id.chars().take(8).collect();
        let (user, host) = (visible(key.username.as_bytes()), visible(key.hostname.as_bytes()));
        table.add_row([format!("{mark}{short}"), user, host, key.created.clone()]);
    }
    table.to_string()
}
